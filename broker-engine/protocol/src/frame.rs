//! Frames: length, serialize type, header length, header, body.
//! Source: `apache/rocketmq: remoting/src/main/java/org/apache/rocketmq/remoting/netty/NettyDecoder.java`,
//! `remoting/.../protocol/RemotingCommand.java`.

use crate::command::{Command, HeaderError, Serialize};
use crate::hot::scan::{self, Top};
use bytes::{Bytes, BytesMut};
use std::sync::OnceLock;

/// The largest frame, its four length bytes included.
pub const FRAME_MAX: usize = 16_777_216;

/// Bytes before the header: length, serialize type and header length.
pub const FRAME_PREFIX: usize = 8;

/// One whole frame as it came, with the places of its parts.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    header_len: usize,
    serialize: Serialize,
    /// What stands at the header's top: several on a request's way ask.
    top: Seen,
}

/// A header's top: found by who cut the frame and knows what came before it, or by the first who asks.
#[derive(Clone, Debug)]
enum Seen {
    Before(Option<Top>),
    Later(OnceLock<Option<Top>>),
}

/// Bytes that cannot be a frame; the connection they came on must be closed.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FrameError {
    /// Announced length beyond [`FRAME_MAX`], or too short to hold a header.
    #[error("a frame of {0} bytes was announced; 8 to {FRAME_MAX} are allowed")]
    Length(usize),
    /// The header would reach past the frame's end.
    #[error("a header of {header} bytes was announced in a frame of {frame} bytes")]
    Header {
        /// Announced header length.
        header: usize,
        /// Announced frame length.
        frame: usize,
    },
    /// Neither JSON (0) nor ROCKETMQ (1).
    #[error("serialize type {0} is neither JSON (0) nor ROCKETMQ (1)")]
    SerializeType(u8),
}

impl Frame {
    /// Cuts the next whole frame off `buf`; `None` when more bytes are needed. Allocates nothing by announced length.
    ///
    /// A frame that cannot be one is an error as soon as its first bytes show it, not when all of it has come.
    pub fn cut(buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = buf.first_chunk::<4>() else {
            return Ok(None);
        };
        let total = u32::from_be_bytes(*length) as usize + 4;
        if !(FRAME_PREFIX..=FRAME_MAX).contains(&total) {
            return Err(FrameError::Length(total));
        }
        let Some(&[_, _, _, _, kind, a, b, c]) = buf.first_chunk::<FRAME_PREFIX>() else {
            return Ok(None);
        };
        let header_len = u32::from_be_bytes([0, a, b, c]) as usize;
        if header_len > total - FRAME_PREFIX {
            return Err(FrameError::Header {
                header: header_len,
                frame: total,
            });
        }
        let serialize = match kind {
            0 => Serialize::Json,
            1 => Serialize::RocketMq,
            other => return Err(FrameError::SerializeType(other)),
        };
        if buf.len() < total {
            return Ok(None);
        }
        Ok(Some(Frame {
            bytes: buf.split_to(total).freeze(),
            header_len,
            serialize,
            top: Seen::Later(OnceLock::new()),
        }))
    }
    /// How many bytes the frame that starts `buf` takes, once its length has come; for whoever reserves room to read it.
    pub fn announced_len(buf: &[u8]) -> Option<usize> {
        let length = buf.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*length) as usize + 4)
    }
    /// Bytes that the whole frame took on the wire.
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }
    /// The header's bytes.
    pub fn header(&self) -> &[u8] {
        &self.bytes[FRAME_PREFIX..FRAME_PREFIX + self.header_len]
    }
    /// The body's bytes, sharing the frame's buffer.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(FRAME_PREFIX + self.header_len..)
    }
    /// The body's bytes, borrowed.
    pub fn body_bytes(&self) -> &[u8] {
        &self.bytes[FRAME_PREFIX + self.header_len..]
    }
    /// How the header is written.
    pub fn serialize(&self) -> Serialize {
        self.serialize
    }
    /// The head and the places of the wanted custom fields, found once.
    pub(crate) fn top(&self) -> Option<&Top> {
        let top = match &self.top {
            Seen::Before(top) => top,
            Seen::Later(top) => top.get_or_init(|| scan::top(self.header(), self.serialize)),
        };
        top.as_ref()
    }
    /// Takes what somebody found who knew more.
    pub(crate) fn set_top(&mut self, top: Option<Top>) {
        self.top = Seen::Before(top);
    }
    /// Parses the header by the generic path.
    pub fn decode(&self) -> Result<Command, HeaderError> {
        Command::decode(self.serialize, self.header(), self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header and body.
    type Parts = (Vec<u8>, Vec<u8>);

    fn cut(bytes: &[u8]) -> Result<Option<Parts>, FrameError> {
        let mut buf = BytesMut::from(bytes);
        Ok(Frame::cut(&mut buf)?.map(|f| (f.header().to_vec(), f.body().to_vec())))
    }

    const WHOLE: &[u8] = b"\0\0\0\x09\0\0\0\x02{}abc";

    #[test]
    fn a_frame_is_cut_only_when_it_is_whole() {
        for n in 0..WHOLE.len() {
            assert_eq!(cut(&WHOLE[..n]), Ok(None), "{n} bytes");
        }
        assert_eq!(cut(WHOLE), Ok(Some((b"{}".to_vec(), b"abc".to_vec()))));
    }

    #[test]
    fn several_frames_of_one_read_are_cut_one_by_one_and_the_rest_stays() {
        let mut buf = BytesMut::from(&[WHOLE, WHOLE, &WHOLE[..5]].concat()[..]);
        let mut count = 0;
        while let Some(frame) = Frame::cut(&mut buf).unwrap() {
            assert_eq!(frame.body_bytes(), b"abc");
            count += 1;
        }
        assert_eq!((count, &buf[..]), (2, &WHOLE[..5]));
    }

    #[test]
    fn bytes_that_cannot_be_a_frame_are_refused_from_their_first_bytes() {
        assert_eq!(cut(b"\0\0\0\x03"), Err(FrameError::Length(7)));
        assert_eq!(cut(b"\x01\0\0\0"), Err(FrameError::Length((1 << 24) + 4)));
        assert_eq!(cut(b"\0\xff\xff\xfc"), Ok(None));
        assert_eq!(
            cut(b"GET / HTTP/1.1"),
            Err(FrameError::Length(0x4745_5420 + 4))
        );
        assert_eq!(
            cut(b"\0\0\0\x05\0\0\0\x02"),
            Err(FrameError::Header {
                header: 2,
                frame: 9
            })
        );
        assert_eq!(
            cut(b"\0\0\0\x04\x02\0\0\0"),
            Err(FrameError::SerializeType(2))
        );
    }
}
