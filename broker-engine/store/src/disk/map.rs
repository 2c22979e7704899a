//! Files as memory: unsafe code, for bytes that go from a file to a socket without a copy in between.

#![allow(unsafe_code)]

use bytes::Bytes;
use memmap2::MmapOptions;
use std::fs::File;

/// A file's first `len` bytes, which it must have for as long as they are kept; nothing where files cannot be mapped.
///
/// They are for calls that write them elsewhere: a page that the disk does not give is an error of such a call, but a signal to
/// a process that looks at it. Whoever looks reads the file.
pub(super) fn map(file: &File, len: usize) -> Option<Bytes> {
    // SAFETY: bytes of a mapping must not change under a slice of them that somebody looks at, and must not go. Slices are
    // made of published records only, which no one writes to again, and this process does not look at them (above).
    // The log's files never become shorter; one that retention deletes stays for as long as it is mapped.
    let map = unsafe { MmapOptions::new().len(len).map(file) };
    Some(Bytes::from_owner(map.ok()?))
}
