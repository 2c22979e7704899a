//! Directories: names now, names on disk, and what changed since the last sync.

use super::super::Open;
use super::file::{FileNode, Handle};
use super::{Call, Lie, Node, ROOT, Random, SimulatedDisk, not_found};
use std::collections::BTreeMap;
use std::io::Result;
use std::path::Path;
use std::time::SystemTime;

#[derive(Clone, Default)]
pub(super) struct DirNode {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Set(String, usize),
    Remove(String),
    /// One step: a crash shows both names changed or none.
    Rename(String, String, usize),
}

impl DirNode {
    pub fn entries(&self) -> impl Iterator<Item = (&String, &usize)> {
        self.now.iter()
    }
    pub fn get(&self, name: &str) -> Option<usize> {
        self.now.get(name).copied()
    }
    fn set(&mut self, name: String, id: usize) {
        self.now.insert(name.clone(), id);
        self.pending.push(Change::Set(name, id));
    }
    pub fn remove(&mut self, name: &str) {
        self.now.remove(name);
        self.pending.push(Change::Remove(name.to_owned()));
    }
    fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(id) = self.now.remove(from) else {
            return false;
        };
        self.now.insert(to.to_owned(), id);
        let change = Change::Rename(from.to_owned(), to.to_owned(), id);
        self.pending.push(change);
        true
    }
    pub fn sync(&mut self) {
        if !self.pending.is_empty() {
            self.durable = self.now.clone();
            self.pending.clear();
        }
    }

    /// The power went: of what changed since the last sync, some is there.
    pub fn lose(&mut self, random: &mut Random, in_order: bool) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let first = random.below(pending.len() as u64 + 1) as usize;
        for (number, change) in pending.into_iter().enumerate() {
            if !in_order && random.one_in(2) || in_order && number >= first {
                continue;
            }
            match change {
                Change::Set(name, id) => {
                    self.durable.insert(name, id);
                }
                Change::Remove(name) => {
                    self.durable.remove(&name);
                }
                Change::Rename(from, to, id) => {
                    if self.durable.get(&from) == Some(&id) {
                        self.durable.remove(&from);
                    }
                    self.durable.insert(to, id);
                }
            }
        }
        self.now = self.durable.clone();
    }
}

impl SimulatedDisk {
    pub(in super::super) fn open(&self, path: &Path, how: Open) -> Result<Handle> {
        let mut state = self.state();
        let life = state.life;
        let found = state.find(path);
        let id = match found {
            Some(id) if how != Open::Anew => {
                match state.enter(Call::Open, life)? {
                    super::Fate::Fails(error) => return Err(error),
                    _ => state.file(id)?,
                };
                id
            }
            Some(id) => {
                let torn = state.enter_whole(Call::Make, life)?;
                state.file(id)?.set_len(0);
                if torn {
                    return Err(super::off());
                }
                id
            }
            None if how == Open::Existing => {
                return match state.enter(Call::Open, life)? {
                    super::Fate::Fails(error) => Err(error),
                    _ => Err(not_found()),
                };
            }
            None => {
                let torn = state.enter_whole(Call::Make, life)?;
                let (dir, name) = state.parent(path).ok_or_else(not_found)?;
                let id = state.nodes.len();
                let now = state.now;
                let file = FileNode::new(path.to_string_lossy().into_owned(), now);
                state.nodes.push(Node::File(file));
                state.dir(dir)?.set(name, id);
                if torn {
                    return Err(super::off());
                }
                id
            }
        };
        drop(state);
        Ok(Handle::new(self.clone(), id, life))
    }

    pub(in super::super) fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let life = state.life;
        let torn = state.enter_whole(Call::Remove, life)?;
        let (dir, name) = state.parent(path).ok_or_else(not_found)?;
        if state.dir(dir)?.get(&name).is_none() {
            return Err(not_found());
        }
        let text = path.to_string_lossy();
        if !state.lies(|lie| matches!(lie, Lie::CutSkipped(part) if text.contains(part))) {
            state.dir(dir)?.remove(&name);
        }
        if torn { Err(super::off()) } else { Ok(()) }
    }

    /// One name after the other, as the library does it.
    pub(in super::super) fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let names = self.entries(path)?;
        for (name, len) in names {
            let path = path.join(name);
            match len {
                Some(_) => self.remove(&path)?,
                None => self.remove_dir_all(&path)?,
            }
        }
        self.remove(path)
    }

    pub(in super::super) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let life = state.life;
        let torn = state.enter_whole(Call::Rename, life)?;
        let (dir, from) = state.parent(from).ok_or_else(not_found)?;
        let (other, to) = state.parent(to).ok_or_else(not_found)?;
        assert_eq!(
            dir, other,
            "renames from directory to directory are not simulated"
        );
        if !state.dir(dir)?.rename(&from, &to) {
            return Err(not_found());
        }
        if torn { Err(super::off()) } else { Ok(()) }
    }

    pub(in super::super) fn make_dir_all(&self, path: &Path) -> Result<()> {
        if self.exists(path)? {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_dir_all(parent)?;
        }
        let mut state = self.state();
        let life = state.life;
        let torn = state.enter_whole(Call::Make, life)?;
        let (dir, name) = state.parent(path).ok_or_else(not_found)?;
        let id = state.nodes.len();
        state.nodes.push(Node::Dir(DirNode::default()));
        state.dir(dir)?.set(name, id);
        if torn { Err(super::off()) } else { Ok(()) }
    }

    pub(in super::super) fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let life = state.life;
        let torn = state.enter_whole(Call::Sync, life)?;
        let id = state.find(path).ok_or_else(not_found)?;
        if !state.lies(|lie| *lie == Lie::DirectorySyncSkipped) {
            state.dir(id)?.sync();
        }
        if torn { Err(super::off()) } else { Ok(()) }
    }

    pub(in super::super) fn sync_all(&self, _path: &Path) -> Result<()> {
        let mut state = self.state();
        let life = state.life;
        let torn = state.enter_whole(Call::Sync, life)?;
        for node in &mut state.nodes {
            match node {
                Node::File(file) => file.sync(),
                Node::Dir(dir) => dir.sync(),
            }
        }
        if torn { Err(super::off()) } else { Ok(()) }
    }

    /// A question about a path: nothing changes, but it may fail.
    fn ask(&self) -> Result<std::sync::MutexGuard<'_, super::State>> {
        let mut state = self.state();
        let life = state.life;
        match state.enter(Call::Read, life)? {
            super::Fate::Fails(error) => Err(error),
            _ => Ok(state),
        }
    }

    pub(in super::super) fn entries(&self, path: &Path) -> Result<Vec<(String, Option<u64>)>> {
        let mut state = self.ask()?;
        let id = state.find(path).ok_or_else(not_found)?;
        let names: Vec<_> = (state.dir(id)?.entries())
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        let with_len = names.into_iter().map(|(name, id)| {
            let len = match &state.nodes[id] {
                Node::File(file) => Some(file.len()),
                Node::Dir(_) => None,
            };
            (name, len)
        });
        Ok(with_len.collect())
    }

    pub(in super::super) fn modified(&self, path: &Path) -> Result<SystemTime> {
        let mut state = self.ask()?;
        let id = state.find(path).ok_or_else(not_found)?;
        Ok(state.file(id)?.modified)
    }

    pub(in super::super) fn exists(&self, path: &Path) -> Result<bool> {
        let state = self.ask()?;
        Ok(state.find(path).is_some_and(|id| id != ROOT) || path == Path::new("/"))
    }

    pub(in super::super) fn used_percent(&self, _path: &Path) -> Result<u32> {
        let state = self.ask()?;
        Ok(if state.full { 100 } else { state.used_percent })
    }
}
