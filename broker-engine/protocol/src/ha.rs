//! Frames of the classic HA stream between a master and its slaves (no controller).
//! Source: `apache/rocketmq: store/.../ha/DefaultHAConnection.java`, `DefaultHAClient.java`.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the header before each transfer: `i64 physicalOffset | i32 bodySize`.
pub const TRANSFER_HEADER: usize = 12;
/// Bytes of a slave's report: `i64 slaveMaxPhyOffset`.
pub const REPORT: usize = 8;

/// What stands before each piece of the log that a master sends. Without a body it is a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where the body's first byte lies in the commit log; of a heartbeat, where the next one will.
    pub physical_offset: i64,
    /// Bytes of log that follow.
    pub body_len: u32,
}

/// A transfer that no master sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the master announced {body_len} bytes at {physical_offset}: at most {max} can follow, at no negative place nor beyond the last"
)]
#[allow(missing_docs)]
pub struct TransferError {
    pub physical_offset: i64,
    pub body_len: u32,
    pub max: u32,
}

impl Transfer {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; TRANSFER_HEADER] {
        let mut out = [0; TRANSFER_HEADER];
        out[..8].copy_from_slice(&self.physical_offset.to_be_bytes());
        out[8..].copy_from_slice(&self.body_len.to_be_bytes());
        out
    }
    /// The header at the start of `bytes`; `None` when more bytes are needed. `body_max` bounds what a slave will hold for one transfer.
    pub fn parse(bytes: &[u8], body_max: u32) -> Result<Option<Transfer>, TransferError> {
        let Some((offset, rest)) = bytes.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let Some(len) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let physical_offset = i64::from_be_bytes(*offset);
        let body_len = u32::from_be_bytes(*len);
        let beyond = physical_offset.checked_add(i64::from(body_len)).is_none();
        if body_len > body_max || physical_offset < 0 || beyond {
            return Err(TransferError {
                physical_offset,
                body_len,
                max: body_max,
            });
        }
        Ok(Some(Transfer {
            physical_offset,
            body_len,
        }))
    }
}

/// What bounds a slave's reading.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Bounds {
    /// The longest body of one transfer.
    pub body_max: u32,
    /// Transfers are joined up to so many bytes; one alone may be longer.
    pub run_max: usize,
    /// Size of the commit log's files: no run goes on beyond its file, as no transfer does.
    pub file_size: i64,
}

/// Cuts what came off a slave's buffer as one run of the log, its place and its bytes: neighbouring whole transfers are joined, so
/// that a fast stream is not slowed by one append a transfer. A heartbeat alone is an empty run. `None` when more bytes are needed.
///
/// A transfer that no master sends is an error when it comes to the front: what stands before it is still handed out.
pub fn cut(buffer: &mut BytesMut, bounds: &Bounds) -> Result<Option<(i64, Bytes)>, TransferError> {
    let Some((at, len)) = whole(buffer, bounds)? else {
        return Ok(None);
    };
    buffer.advance(TRANSFER_HEADER);
    let first = buffer.split_to(len);
    let mut end = at + len as i64;
    let mut joined: Option<BytesMut> = None;
    while let Ok(Some((next, len))) = whole(buffer, bounds) {
        let so_far = joined.as_ref().map_or(first.len(), BytesMut::len);
        if next != end || end % bounds.file_size == 0 || so_far + len > bounds.run_max {
            break;
        }
        buffer.advance(TRANSFER_HEADER);
        let body = buffer.split_to(len);
        if len > 0 {
            let joined = joined.get_or_insert_with(|| {
                let room = bounds.run_max.min(so_far + buffer.len() + len);
                let mut joined = BytesMut::with_capacity(room);
                joined.extend_from_slice(&first);
                joined
            });
            joined.extend_from_slice(&body);
        }
        end += len as i64;
    }
    Ok(Some((at, joined.unwrap_or(first).freeze())))
}

/// Offset and length of the transfer at the buffer's start, once all of it is there.
fn whole(buffer: &BytesMut, bounds: &Bounds) -> Result<Option<(i64, usize)>, TransferError> {
    let Some(transfer) = Transfer::parse(buffer, bounds.body_max)? else {
        return Ok(None);
    };
    let len = transfer.body_len as usize;
    Ok((buffer.len() >= TRANSFER_HEADER + len).then_some((transfer.physical_offset, len)))
}

/// The newest report in what a slave has sent, and how many bytes are used up by whole reports.
/// Older ones in the same bytes say nothing more.
pub fn latest_report(bytes: &[u8]) -> Option<(i64, usize)> {
    let whole = bytes.len() - bytes.len() % REPORT;
    let report = bytes[..whole].last_chunk::<REPORT>()?;
    Some((i64::from_be_bytes(*report), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_header_is_read_back_and_waits_for_its_last_byte() {
        let transfer = Transfer {
            physical_offset: 1 << 40,
            body_len: 32_768,
        };
        let bytes = transfer.to_bytes();
        assert_eq!(bytes, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0]);
        for n in 0..TRANSFER_HEADER {
            assert_eq!(Transfer::parse(&bytes[..n], 1 << 20), Ok(None), "{n}");
        }
        assert_eq!(Transfer::parse(&bytes, 1 << 20), Ok(Some(transfer)));
        assert!(Transfer::parse(&bytes, 32_767).is_err());
        assert!(Transfer::parse(&[0xff; 12], u32::MAX).is_err());
        let last = Transfer {
            physical_offset: i64::MAX,
            body_len: 0,
        };
        assert_eq!(Transfer::parse(&last.to_bytes(), 9), Ok(Some(last)));
        let beyond = Transfer {
            body_len: 1,
            ..last
        };
        assert!(Transfer::parse(&beyond.to_bytes(), 9).is_err());
    }

    #[test]
    fn neighbouring_transfers_are_joined_up_to_the_files_end_and_the_bound() {
        let bounds = Bounds {
            body_max: 8,
            run_max: 6,
            file_size: 10,
        };
        let mut stream = BytesMut::new();
        for (physical_offset, body) in [
            (3, &b"abc"[..]),
            (6, b""),
            (6, b"defg"),
            (10, b"hij"),
            (13, b"klm"),
            (16, b"n"),
            (40, b"o"),
            (41, b""),
            (50, b"p"),
        ] {
            let body_len = u32::try_from(body.len()).unwrap();
            let transfer = Transfer {
                physical_offset,
                body_len,
            };
            stream.extend_from_slice(&transfer.to_bytes());
            stream.extend_from_slice(body);
        }
        stream.extend_from_slice(&[0xff; TRANSFER_HEADER]);
        let mut runs = vec![];
        let error = loop {
            match cut(&mut stream, &bounds) {
                Ok(run) => runs.push(run.unwrap()),
                Err(error) => break error,
            }
        };
        let run = |at, bytes: &'static [u8]| (at, Bytes::from_static(bytes));
        assert_eq!(
            runs,
            [
                run(3, b"abc"),
                run(6, b"defg"),
                run(10, b"hijklm"),
                run(16, b"n"),
                run(40, b"o"),
                run(50, b"p")
            ]
        );
        assert_eq!((error.physical_offset, stream.len()), (-1, TRANSFER_HEADER));
    }

    #[test]
    fn the_newest_whole_report_counts() {
        let bytes = [7i64.to_be_bytes(), 9i64.to_be_bytes()].concat();
        assert_eq!(latest_report(&bytes), Some((9, 16)));
        assert_eq!(latest_report(&bytes[..15]), Some((7, 8)));
        assert_eq!(latest_report(&bytes[..7]), None);
    }
}
