//! What the log thread is asked to do: a bounded queue that it empties in one go.

use super::{AppendError, Work};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Instant;

/// Bytes of records that may wait, whatever their number.
const BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
    batches_max: usize,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    batches: usize,
    bytes: usize,
    waiting: bool,
    closed: Option<String>,
}

impl Inbox {
    pub fn new(batches_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            batches_max: batches_max.max(1),
        }
    }

    /// Takes an append, unless it is full or closed.
    pub fn push_batch(&self, bytes: usize, work: Work) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Err(AppendError::Stopped(reason.clone()));
        }
        if state.batches >= self.batches_max
            || (state.bytes + bytes > BYTES_MAX && state.batches > 0)
        {
            return Err(AppendError::Busy(state.batches));
        }
        state.batches += 1;
        state.bytes += bytes;
        self.put(&mut state, work);
        Ok(())
    }

    /// Takes anything else; each caller waits for its answer, which bounds their number. Gives it back when closed.
    pub fn push_control(&self, work: Work) -> Option<(Work, String)> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Some((work, reason.clone()));
        }
        self.put(&mut state, work);
        None
    }

    fn put(&self, state: &mut State, work: Work) {
        state.work.push_back(work);
        if state.waiting {
            state.waiting = false;
            self.filled.notify_one();
        }
    }

    /// Swaps all that waits into `taken` (which must be empty); waits for something to come, at most until `deadline`.
    pub fn take(&self, taken: &mut VecDeque<Work>, deadline: Instant) {
        let mut state = self.state.lock();
        while state.work.is_empty() {
            state.waiting = true;
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.waiting = false;
        state.batches = 0;
        state.bytes = 0;
        std::mem::swap(&mut state.work, taken);
    }

    /// Takes nothing more; returns what was left.
    pub fn close(&self, reason: &str) -> VecDeque<Work> {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| reason.to_owned());
        state.batches = 0;
        state.bytes = 0;
        std::mem::take(&mut state.work)
    }
}
