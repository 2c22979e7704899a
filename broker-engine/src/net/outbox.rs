//! What waits to be written to one connection: a queue of byte parts that any thread may add to and its reactor empties.

use super::reactor::Home;
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::OnceLock;

/// A part that is not longer than this is mostly one of many answers in one buffer.
const SMALL: usize = 4 << 10;
/// Parts one `writev` carries; Linux allows 1024, the gain is gone long before.
const SLICES: usize = 64;

/// Bytes to be written.
#[derive(Debug)]
pub(super) struct Part {
    pub bytes: Bytes,
    /// They share no buffer with others' answers.
    pub own: bool,
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Part {
        Part { bytes, own: false }
    }
}

/// The shared side.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Where the connection lives, once it does: who is told of additions.
    home: OnceLock<Home>,
}

#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<Part>,
    bytes: usize,
    /// The reactor looks here soon: nobody needs to tell it.
    told: bool,
    /// Nothing is taken any more.
    closed: bool,
}

impl Outbox {
    /// Adds parts that must stay together.
    pub(super) fn push(&self, parts: impl IntoIterator<Item = Part>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        for part in parts {
            if !part.bytes.is_empty() {
                queue.bytes += part.bytes.len();
                queue.parts.push_back(part);
            }
        }
        if !std::mem::replace(&mut queue.told, true) {
            drop(queue);
            self.nudge();
        }
    }
    /// Has the reactor look at the connection.
    pub(super) fn nudge(&self) {
        // Without a home yet: it looks when it takes the connection in.
        if let Some(home) = self.home.get() {
            home.wake();
        }
    }
    /// The connection lives there from now on. Additions until the next [`Outbox::take`] are told to nobody.
    pub(super) fn settle(&self, home: Home) {
        self.queue.lock().told = true;
        let _ = self.home.set(home);
    }
    /// The reactor is at the connection and will take: additions until then need not tell it.
    pub(super) fn expect(&self) {
        self.queue.lock().told = true;
    }
    /// Moves all that waits behind `writing`.
    pub(super) fn take(&self, writing: &mut Writing) {
        let mut queue = self.queue.lock();
        queue.told = false;
        writing.bytes += std::mem::take(&mut queue.bytes);
        if writing.parts.is_empty() {
            std::mem::swap(&mut writing.parts, &mut queue.parts);
        } else {
            writing.parts.append(&mut queue.parts);
        }
    }
    /// Takes nothing from now on, and drops what waits.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.parts = VecDeque::new();
        queue.bytes = 0;
    }
}

/// The reactor's side: what is being written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    parts: VecDeque<Part>,
    bytes: usize,
    /// So many of the first parts have been looked at: what was small of them is a buffer of its own.
    parted: usize,
}

impl Writing {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
    /// Bytes not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    /// The next parts for one vectored write.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(&part.bytes);
            count += 1;
        }
        (slices, count)
    }
    /// The socket takes no more for now: a small part must not keep the buffer that it shares with others' answers in memory until
    /// its peer reads.
    pub(super) fn part_from_others(&mut self) {
        for part in self.parts.iter_mut().skip(self.parted) {
            if !part.own && part.bytes.len() <= SMALL {
                part.bytes = Bytes::copy_from_slice(&part.bytes);
            }
        }
        self.parted = self.parts.len();
    }
    /// The socket took `count` bytes.
    pub(super) fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(Part { bytes: first, .. }) = self.parts.front_mut() else {
                return;
            };
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.parts.pop_front();
            self.parted = self.parted.saturating_sub(1);
        }
        // A burst's ring of parts is not kept for an idle connection's life.
        if self.parts.is_empty() && self.parts.capacity() > SLICES {
            self.parts = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_leaves_the_rest_in_order() {
        let outbox = Outbox::default();
        let mut writing = Writing::default();
        outbox.push([
            Bytes::from_static(b"ab").into(),
            Bytes::from_static(b"").into(),
            Bytes::from_static(b"cde").into(),
        ]);
        outbox.take(&mut writing);
        outbox.push([Bytes::from_static(b"f").into()]);
        writing.advance(3);
        outbox.take(&mut writing);
        let (slices, count) = writing.slices();
        let left: Vec<u8> = slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        assert_eq!((left.as_slice(), writing.bytes()), (b"def".as_slice(), 3));
    }

    #[test]
    fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::default();
        outbox.push([Bytes::from_static(b"ab").into()]);
        outbox.close();
        outbox.push([Bytes::from_static(b"cd").into()]);
        let mut writing = Writing::default();
        outbox.take(&mut writing);
        assert!(writing.is_empty());
    }
}
