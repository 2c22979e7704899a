//! RocketMQ's files: commit log, consume queues, index, checkpoint, and the JSON tables beside them.
//!
//! No network, no clock, no async, no randomness: time comes in as milliseconds since the epoch. One [`Writer`] per
//! store, with which one thread at a time works; readers see what is published. The commit log is the only message state: queues and index can be
//! deleted and are rebuilt from it. All file access goes through [`disk`].

pub mod batch;
mod checkpoint;
mod commit_log;
mod disk;
mod dispatch;
mod error;
mod index;
pub mod lmq;
pub mod options;
mod queue;
mod queues;
mod read_ahead;
pub mod reader;
mod recent;
mod recovery;
mod slots;
mod store;
pub mod table;
pub mod timer;
pub mod writer;

pub use batch::RecordBatch;
pub use disk::FileSystem;
#[cfg(feature = "simulation")]
pub use disk::simulated;
pub use error::StoreError;
pub use options::StoreOptions;
pub use queues::{TopicHasher, TopicMap};
pub use reader::{ReadStatus, Reader};
pub use store::CheckpointJob;
pub use writer::{Arrival, Opened, Placed, Recovery, Syncer, Writer, whole_records};
