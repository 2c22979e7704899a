//! RocketMQ's remoting protocol and record formats: bytes in, values out.
//!
//! Nothing here is async, opens a socket, reads a clock or draws a random number.
//! Every integer on the wire and on disk is big-endian.

pub mod batch;
pub mod body;
pub mod code;
pub mod command;
pub mod frame;
pub mod ha;
pub mod hash;
pub mod hot;
pub mod json;
pub mod message_id;
pub mod partition;
pub mod pop;
pub mod properties;
pub mod record;
pub mod sql;
mod swar;
pub mod sysflag;
pub mod topic;

pub use command::{Command, ExtFields, HeaderError, Language, Serialize};
pub use frame::{Frame, FrameError};
