//! Queue entries, read from the files somewhat further than was asked for: a consumer that catches up goes on right there, and putting
//! a file's name together, finding the file and reading it cost more than the entries. What stands in a queue's file is never
//! written again, so what was read stays true.

use crate::reader::QueueEntry;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Entries that a read from a file brings at least, if there are so many: some of what pulls ask for at a time.
pub(crate) const ENTRIES: i64 = 256;
/// Pieces that are kept for all queues together, 6 KiB each.
const PIECES: usize = 64;

/// What was read last. The first is the next to go.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead(Mutex<VecDeque<Piece>>);

#[derive(Debug)]
struct Piece {
    /// [`crate::queue::Queue`]'s own, which no other has had.
    queue: u64,
    first: i64,
    entries: Vec<QueueEntry>,
}

impl ReadAhead {
    /// Adds a queue's entries from the number `at` on to `out`, at most `max`. Returns how many there were.
    pub fn take(&self, queue: u64, at: i64, max: i64, out: &mut Vec<QueueEntry>) -> i64 {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |piece: &Piece| {
            piece.queue == queue
                && piece.first <= at
                && at - piece.first < piece.entries.len() as i64
        };
        let Some(place) = pieces.iter().position(holds) else {
            return 0;
        };
        let piece = &pieces[place];
        let rest = &piece.entries[(at - piece.first) as usize..];
        let count = rest.len().min(max.max(0) as usize);
        out.extend_from_slice(&rest[..count]);
        if place + 1 < pieces.len() {
            pieces.swap(place, place + 1);
        }
        count as i64
    }

    /// Keeps what was read of a queue's file from the number `first` on.
    pub fn keep(&self, queue: u64, first: i64, entries: &[QueueEntry]) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = if pieces.len() < PIECES {
            Vec::with_capacity(entries.len())
        } else {
            pieces.pop_front().map_or_else(Vec::new, |old| old.entries)
        };
        room.clear();
        room.extend_from_slice(entries);
        pieces.push_back(Piece {
            queue,
            first,
            entries: room,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(queue: u64, first: i64, count: i64) -> Vec<QueueEntry> {
        let entry = |at| QueueEntry {
            physical_offset: at,
            size: 1,
            tags_code: queue as i64,
        };
        (first..first + count).map(entry).collect()
    }

    #[test]
    fn a_piece_serves_its_own_queue_from_any_of_its_entries() {
        let ahead = ReadAhead::default();
        ahead.keep(1, 100, &entries(1, 100, 50));
        ahead.keep(2, 100, &entries(2, 100, 50));
        for (queue, at, max, got) in [
            (1, 100, 32, 32),
            (2, 140, 32, 10),
            (1, 149, 1, 1),
            (1, 99, 32, 0),
            (1, 150, 32, 0),
            (3, 100, 32, 0),
        ] {
            let mut out = entries(9, 0, 1);
            assert_eq!(ahead.take(queue, at, max, &mut out), got);
            assert_eq!(out[1..], entries(queue, at, got), "{queue} {at}");
        }
    }

    #[test]
    fn the_pieces_in_use_stay_and_the_number_of_all_has_an_end() {
        let ahead = ReadAhead::default();
        for queue in 0..10 * PIECES as u64 {
            ahead.keep(queue, 0, &entries(queue, 0, 2));
            for _ in 0..PIECES {
                assert_eq!(ahead.take(0, 0, 2, &mut Vec::new()), 2);
            }
        }
        assert_eq!(ahead.0.lock().unwrap().len(), PIECES);
    }
}
