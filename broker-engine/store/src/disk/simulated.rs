//! A disk in memory that fails as real ones do, from a seed.
//!
//! What it may do: lose or keep each 512-byte sector written since the file's last sync, in any order, and write any of them
//! back early; lose or keep each name made, changed or removed since the directory's last sync; stop the process or the
//! machine in the middle of any call; answer EIO or ENOSPC to the nth call of a kind; after a failed sync, forget what was to
//! be synced as Linux does, so that a second one "succeeds"; write less than it was given. What it never does: tear a sector,
//! or lose what was synced. One thread at a time is expected, though nothing breaks with more.

mod file;
mod names;

pub(crate) use file::Handle;

use super::Open;
use file::FileNode;
use names::DirNode;
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opening a file that is there.
    Open,
    /// Making or sizing a file or a directory.
    Make,
    /// Reading a file or a directory, or asking about one.
    Read,
    /// Writing a file or turning a part of it into zeros.
    Write,
    /// Syncing a file, a directory or all.
    Sync,
    /// Giving another name.
    Rename,
    /// Deleting a name.
    Remove,
}

impl Call {
    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }
}

/// What a call answers instead of doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO, once. A sync forgets what it was to write.
    Io,
    /// ENOSPC, at this call and at every one that needs room until [`SimulatedDisk::make_room`].
    NoSpace,
}

/// What happens to everything that runs and is not on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; what it wrote stays in the page cache.
    Kill,
    /// The machine ends: only what was synced is certain.
    PowerCut,
}

/// A lie of the disk: what a store with the bug of that name would leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs of files whose path holds this text do nothing.
    SyncSkipped(&'static str),
    /// Syncs of directories do nothing.
    DirectorySyncSkipped,
    /// A part turned into zeros keeps what it held, and a file deleted below this path its name.
    CutSkipped(&'static str),
    /// A failed sync is tried again, and the second answer believed.
    FailedSyncRetried,
}

/// How a disk behaves where real ones differ.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// One in so many calls is followed by writing something back; 0: never before it must.
    pub writeback_one_in: u64,
    /// One in so many writes is cut short; 0: none.
    pub short_write_one_in: u64,
    /// Whether holes are told from data.
    pub holes: bool,
    /// Whether blocks can be reserved and ranges turned into zeros without writing them.
    pub fallocate: bool,
    /// Whether the names of a directory reach the disk in the order they were made in.
    pub names_in_order: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            writeback_one_in: 0,
            short_write_one_in: 0,
            holes: true,
            fallocate: true,
            names_in_order: true,
        }
    }
}

/// Random numbers from a seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        // The first words of neighbouring seeds would resemble each other (splitmix64's finish).
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % limit.max(1)
    }

    /// True once in `count` times; never for 0.
    pub fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.below(count) == 0
    }
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone)]
struct State {
    random: Random,
    habits: Habits,
    nodes: Vec<Node>,
    calls: u64,
    changes: u64,
    crash_at: Option<u64>,
    off: bool,
    /// Handles of an earlier life are closed.
    life: u64,
    fault: Option<(Option<Call>, u64, Failure)>,
    failed: u64,
    full: bool,
    used_percent: u32,
    now: SystemTime,
    locks: BTreeMap<PathBuf, u64>,
    lies: Vec<Lie>,
}

/// How a call goes.
enum Fate {
    Whole,
    /// The crash comes in its middle: any part of it may be done.
    Torn,
    Fails(Error),
}

const ROOT: usize = 0;

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

fn off() -> Error {
    Error::other("the simulated machine is off")
}

fn not_found() -> Error {
    std::io::ErrorKind::NotFound.into()
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64, habits: Habits) -> Self {
        let state = State {
            random: Random::new(seed),
            habits,
            nodes: vec![Node::Dir(DirNode::default())],
            calls: 0,
            changes: 0,
            crash_at: None,
            off: false,
            life: 0,
            fault: None,
            failed: 0,
            full: false,
            used_percent: 10,
            now: SystemTime::UNIX_EPOCH,
            locks: BTreeMap::new(),
            lies: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same content, unsynced parts included.
    pub fn copy(&self) -> Self {
        let mut state = self.state().clone();
        state.locks.clear();
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The time that files written from now on carry.
    pub fn set_now(&self, ms: i64) {
        self.state().now = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64);
    }

    /// How full the disk says that it is.
    pub fn set_used_percent(&self, percent: u32) {
        self.state().used_percent = percent;
    }

    /// From now on the disk lies.
    pub fn lie(&self, lie: Lie) {
        self.state().lies.push(lie);
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Goes off in the middle of the `nth` call from now on that changes something, 1 the next.
    pub fn crash_in(&self, nth: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.changes + nth);
    }

    /// Answers the `nth` call of a kind from now on, 1 the next, with a failure.
    pub fn fail(&self, call: Option<Call>, nth: u64, failure: Failure) {
        self.state().fault = Some((call, nth, failure));
    }

    /// Failures answered so far.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// No failure is to come, and there is room again.
    pub fn make_room(&self) {
        let mut state = self.state();
        state.fault = None;
        state.full = false;
    }

    /// Whether the crash came.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Ends what runs, if it was not off already, and goes on. All open files are closed.
    pub fn restart(&self, crash: Crash) {
        let mut state = self.state();
        let state = &mut *state;
        state.off = false;
        state.crash_at = None;
        state.life += 1;
        state.locks.clear();
        if crash == Crash::PowerCut {
            for node in &mut state.nodes {
                match node {
                    Node::File(file) => file.lose(&mut state.random),
                    Node::Dir(dir) => dir.lose(&mut state.random, state.habits.names_in_order),
                }
            }
        }
    }

    /// All files with their lengths, in path order.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = dirs.pop() {
            if let Node::Dir(dir) = &state.nodes[id] {
                for (name, id) in dir.entries() {
                    match &state.nodes[*id] {
                        Node::File(file) => found.push((path.join(name), file.len())),
                        Node::Dir(_) => dirs.push((path.join(name), *id)),
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// A file's bytes, past all failures.
    pub fn peek(&self, path: &Path, at: u64, len: usize) -> Option<Vec<u8>> {
        let state = self.state();
        match &state.nodes[state.find(path)?] {
            Node::File(file) => {
                let mut bytes = Vec::new();
                file.read(at, len, &mut bytes);
                Some(bytes)
            }
            Node::Dir(_) => None,
        }
    }

    /// Changes a file's bytes where they lie, past all failures.
    pub fn poke(&self, path: &Path, at: u64, bytes: &[u8]) {
        let mut state = self.state();
        let now = state.now;
        if let Some(id) = state.find(path)
            && let Node::File(file) = &mut state.nodes[id]
        {
            file.write(at, bytes, now, &mut Random::new(0));
            file.sync();
        }
    }

    /// Cuts or lengthens a file, past all failures.
    pub fn resize(&self, path: &Path, len: u64) {
        let mut state = self.state();
        if let Some(id) = state.find(path)
            && let Node::File(file) = &mut state.nodes[id]
        {
            file.set_len(len);
            file.sync();
        }
    }

    /// Deletes a file or directory, past all failures.
    pub fn wipe(&self, path: &Path) {
        let mut state = self.state();
        if let Some((dir, name)) = state.parent(path)
            && let Node::Dir(dir) = &mut state.nodes[dir]
        {
            dir.remove(&name);
            dir.sync();
        }
    }
}

impl State {
    /// Counts a call and says how it goes.
    fn enter(&mut self, call: Call, life: u64) -> Result<Fate> {
        if self.off || life != self.life {
            return Err(off());
        }
        self.calls += 1;
        if call.changes() {
            self.changes += 1;
            if self.random.one_in(self.habits.writeback_one_in) {
                self.write_back();
            }
            if self.crash_at == Some(self.changes) {
                self.off = true;
                return Ok(Fate::Torn);
            }
        }
        if let Some((kind, nth, failure)) = &mut self.fault
            && kind.is_none_or(|kind| kind == call)
        {
            *nth -= 1;
            if *nth == 0 {
                let failure = *failure;
                self.fault = None;
                self.failed += 1;
                return Ok(Fate::Fails(match failure {
                    Failure::Io => Error::from_raw_os_error(EIO),
                    Failure::NoSpace => {
                        self.full = true;
                        Error::from_raw_os_error(ENOSPC)
                    }
                }));
            }
        }
        if self.full && call == Call::Make {
            return Ok(Fate::Fails(Error::from_raw_os_error(ENOSPC)));
        }
        Ok(Fate::Whole)
    }

    /// A change that happens or does not: nothing in between.
    fn enter_whole(&mut self, call: Call, life: u64) -> Result<bool> {
        match self.enter(call, life)? {
            Fate::Whole => Ok(false),
            Fate::Torn if self.random.one_in(2) => Ok(true),
            Fate::Torn => Err(off()),
            Fate::Fails(error) => Err(error),
        }
    }

    /// The kernel writes a part of some file on its own account.
    fn write_back(&mut self) {
        let which = self.random.below(self.nodes.len() as u64) as usize;
        let (before, after) = self.nodes.split_at_mut(which);
        for node in after.iter_mut().chain(before) {
            if let Node::File(file) = node
                && file.is_dirty()
            {
                file.sync_some(&mut self.random);
                return;
            }
        }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let mut at = ROOT;
        for part in path.components() {
            let std::path::Component::Normal(name) = part else {
                continue;
            };
            let Node::Dir(dir) = &self.nodes[at] else {
                return None;
            };
            at = dir.get(name.to_str()?)?;
        }
        Some(at)
    }

    /// The directory that holds a path's last name, and the name.
    fn parent(&self, path: &Path) -> Option<(usize, String)> {
        let dir = self.find(path.parent()?)?;
        Some((dir, path.file_name()?.to_str()?.to_owned()))
    }

    fn dir(&mut self, id: usize) -> Result<&mut DirNode> {
        match &mut self.nodes[id] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(std::io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, id: usize) -> Result<&mut FileNode> {
        match &mut self.nodes[id] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(std::io::ErrorKind::IsADirectory.into()),
        }
    }

    fn lies(&self, lie: impl Fn(&Lie) -> bool) -> bool {
        self.lies.iter().any(lie)
    }
}

/// A file locked by one owner.
#[derive(Debug)]
pub(crate) struct Lock {
    disk: SimulatedDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.locks.get(&self.path) == Some(&self.life) {
            state.locks.remove(&self.path);
        }
    }
}

impl SimulatedDisk {
    pub(super) fn lock(&self, path: &Path) -> Result<Option<Lock>> {
        self.open(path, Open::Make)?;
        let mut state = self.state();
        if state.locks.contains_key(path) {
            return Ok(None);
        }
        let life = state.life;
        state.locks.insert(path.to_owned(), life);
        Ok(Some(Lock {
            disk: self.clone(),
            path: path.to_owned(),
            life,
        }))
    }
}
