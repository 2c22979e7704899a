//! What the log is asked to do: a bounded queue that whoever has the log's owner empties in one go.

use super::{AppendError, Work};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Instant;

/// Bytes of records that may wait, whatever their number.
const BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    summoned: Condvar,
    batches_max: usize,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    batches: usize,
    bytes: usize,
    /// There is work that only the log thread does: all that waits is its.
    summoned: bool,
    closed: Option<String>,
}

impl State {
    fn take(&mut self, taken: &mut VecDeque<Work>) {
        self.batches = 0;
        self.bytes = 0;
        if taken.is_empty() {
            std::mem::swap(&mut self.work, taken);
        } else {
            taken.append(&mut self.work);
        }
    }
}

impl Inbox {
    pub fn new(batches_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            summoned: Condvar::new(),
            batches_max: batches_max.max(1),
        }
    }

    /// Takes an append, unless it is full or closed. Wakes nobody.
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
        state.work.push_back(work);
        Ok(())
    }

    /// Takes anything else, for the log thread; each caller waits for its answer, which bounds their number. Gives it back when
    /// closed.
    pub fn push_control(&self, work: Work) -> Option<(Work, String)> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Some((work, reason.clone()));
        }
        state.work.push_back(work);
        state.summoned = true;
        self.summoned.notify_one();
        None
    }

    /// Has the log thread do what waits.
    pub fn summon(&self) {
        let mut state = self.state.lock();
        state.summoned = true;
        self.summoned.notify_one();
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().work.is_empty()
    }

    /// Moves the appends that wait behind `taken`; false when there are none, or they stand behind the log thread's work.
    pub fn take_appends(&self, taken: &mut VecDeque<Work>) -> bool {
        let mut state = self.state.lock();
        if state.summoned || state.work.is_empty() {
            return false;
        }
        state.take(taken);
        true
    }

    /// The log thread's: moves all that waits behind `taken`.
    pub fn take_all(&self, taken: &mut VecDeque<Work>) {
        let mut state = self.state.lock();
        state.summoned = false;
        state.take(taken);
    }

    /// The log thread's: returns when it is wanted, at the latest at `deadline`.
    pub fn wait(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while !state.summoned {
            if self.summoned.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
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
