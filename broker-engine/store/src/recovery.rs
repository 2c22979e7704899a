//! From files to a store that goes on: finds the log's end, cuts a torn tail, dispatches what queues and index lack.
//!
//! Reading starts at the checkpoint's mark, or where Java would start without one
//! (`apache/rocketmq: store/.../CommitLog.java` recoverNormally, recoverAbnormally). Damage with whole records behind it is
//! an error that names the place; nothing is cut there.

use crate::checkpoint::{self, Checkpoint};
use crate::disk::{self, SECTOR};
use crate::error::{StoreError, io_error};
use crate::queues::Loaded;
use crate::store::Store;
use crate::writer::{Recovery, Writer};
use rocketmq_protocol::record::{LEN_MIN, MAGIC_V1, MAGIC_V2, RecordError, Seen, View};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Bytes read at once.
const CHUNK: usize = 4 << 20;
/// Dispatched entries are published this often, which also bounds memory.
const PUBLISH_EVERY: u64 = 1 << 16;
/// A Java broker's checkpoint may be ahead of its queues by this.
const CHECKPOINT_SLACK_MS: i64 = 3000;

/// Recovers the writer's store.
pub(crate) fn run(writer: &mut Writer, now_ms: i64) -> Result<Recovery, StoreError> {
    let store = writer.store.clone();
    let root = &store.options.root;
    let abort = checkpoint::abort_path(root);
    let clean = !(store.fs().exists(&abort)).map_err(io_error("looking for", &abort))?;
    let saved = checkpoint::read(store.fs(), root)?;
    if !clean {
        // It may stand in the page cache alone. An older one on disk would vouch, after a power cut, for what is removed below.
        store.save_checkpoint(saved)?;
    }
    (store.log).load(saved.mark.map_or(0, |mark| mark.synced))?;
    let bases = store.log.bases();
    if bases.is_empty() {
        // Without a log there is nothing that queues or index could point to.
        store.progress().unsynced.dirs.push(root.clone());
        store
            .queues
            .destroy()
            .map_err(io_error("removing queues of a missing log in", root))?;
        if let Some(index) = &store.index {
            index
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .destroy()
                .map_err(io_error("removing the index of a missing log in", root))?;
        }
        return Ok(Recovery {
            clean,
            ..Recovery::default()
        });
    }
    let start = store.log.start();
    let limit = bases[bases.len() - 1] + store.log.file_size();
    let mark = saved.mark.filter(|mark| mark.dispatched >= start);
    if let Some(mark) = mark
        && mark.dispatched > limit
    {
        return Err(StoreError::Damaged {
            at: limit,
            what: format!("the checkpoint tells of records up to {}", mark.dispatched),
            next: None,
        });
    }
    store.dispatched.store(
        mark.map_or(start, |mark| mark.dispatched),
        Ordering::Release,
    );
    let from = match mark {
        Some(mark) => mark.dispatched,
        None => java_start(&store, &bases, &saved, clean)?,
    };
    // After a clean stop every byte is on disk, so whatever does not parse is damage unless nothing follows it.
    let synced = if clean {
        i64::MAX
    } else {
        mark.map_or(0, |mark| mark.synced)
    };

    let mut queues_from = from;
    let loaded = load_queues(&store, queues_from, clean && mark.is_some())?;
    let other_than_marked = mark.is_some_and(|mark| {
        let (there, buried) = (loaded.there, loaded.buried);
        // The mark may have been written before a topic was deleted, or after it.
        let before = (there.queues + buried.queues, there.ends + buried.ends);
        let counted = (mark.queues, mark.queue_ends);
        counted != (there.queues, there.ends) && counted != before
    });
    if loaded.damaged || other_than_marked {
        store.forget_checkpoint()?;
        queues_from = start;
        load_queues(&store, queues_from, false)?;
    }
    let mut index_from = from;
    if let Some(index) = &store.index {
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = store.progress();
        let whole = index.load(from, clean && mark.is_some(), &mut progress.unsynced)?;
        drop(progress);
        let end = index
            .end_below(from)
            .map_err(io_error("reading the index in", root))?;
        let other_than_marked =
            mark.is_some_and(|mark| end != mark.index_end && mark.index_end >= start);
        if !whole || other_than_marked {
            store.forget_index(if queues_from == from {
                saved
            } else {
                Checkpoint::default()
            })?;
            index
                .destroy()
                .map_err(io_error("removing the index in", root))?;
            store.progress().unsynced.dirs.push(root.clone());
            index_from = start;
        }
    }
    writer.adopt_queues();

    let scan_from = queues_from.min(index_from);
    let mut scan = Scan {
        store: &store,
        at: scan_from,
        chunk: Vec::new(),
        chunk_at: scan_from,
        crc: store.options.check_crc_on_recover,
        synced,
    };
    let mut redispatched = 0;
    // Readers do not run yet; the published end is what the scan has verified.
    store.log.publish(scan_from);
    writer.store_timestamp = saved.physic_timestamp.max(0);
    let stop = loop {
        match scan.next()? {
            Step::Record(at, len) => {
                let bytes = scan.bytes(at, len);
                if let Ok(record) = View::record(bytes) {
                    writer.dispatch_from(&record, at, len, at >= queues_from, at >= index_from);
                }
                redispatched += 1;
                if redispatched % PUBLISH_EVERY == 0 {
                    writer.publish_recovered(at + len as i64, now_ms)?;
                }
            }
            Step::Filler => {}
            Step::Stop(stop) => break stop,
        }
    };
    let end = scan.at;
    writer.publish_recovered(end, now_ms)?;
    let truncated = settle_end(
        &store,
        end,
        limit,
        &stop,
        mark.map_or(start, |mark| mark.synced),
        clean,
    )?;
    if !clean && checkpoint::had_failed(store.fs(), root)? {
        store
            .log
            .write_again(mark.map_or(start, |mark| mark.synced.min(end)), end)?;
    }
    store.log.cut(end)?;
    store.log.set_found(end);
    store.log.set_flushed(if clean {
        end
    } else {
        mark.map_or(start, |mark| mark.synced.min(end))
    });
    Ok(Recovery {
        clean,
        log_start: store.log.start(),
        log_end: end,
        truncated_bytes: truncated,
        redispatched_records: redispatched,
        queues_rebuilt: queues_from != from,
        index_rebuilt: index_from != from,
    })
}

fn load_queues(store: &Store, dispatched: i64, clean: bool) -> Result<Loaded, StoreError> {
    let root = &store.queues.dirs.root;
    let unsynced = &mut store.progress().unsynced;
    (store.queues)
        .load(store.log.start(), dispatched, clean, unsynced)
        .map_err(io_error("loading queues in", root))
}

/// Where to begin without a mark of our own: the last file with a record after a clean stop; else the newest file whose
/// first record is older than what the checkpoint vouches for.
fn java_start(
    store: &Arc<Store>,
    bases: &[i64],
    saved: &Checkpoint,
    clean: bool,
) -> Result<i64, StoreError> {
    let vouched = saved.physic_timestamp.min(saved.logics_timestamp) - CHECKPOINT_SLACK_MS;
    for base in bases.iter().rev() {
        let path = store.log.path(*base);
        let file = store.log.open(*base).map_err(io_error("opening", &path))?;
        let head = disk::read_array::<76>(&file, 0).map_err(io_error("reading", &path))?;
        let magic = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            continue;
        }
        let flag = i32::from_be_bytes([head[36], head[37], head[38], head[39]]);
        let v6 = flag & rocketmq_protocol::sysflag::BORN_HOST_V6 != 0;
        let time_at = if v6 { 68 } else { 56 };
        let stored =
            i64::from_be_bytes(head[time_at..time_at + 8].try_into().expect("eight bytes"));
        let vouched_offset = saved.logics_offset == 0 || *base <= saved.logics_offset;
        if clean || (stored > 0 && stored <= vouched && vouched_offset) {
            return Ok(*base);
        }
    }
    Ok(bases[0])
}

/// One step of the scan.
enum Step {
    /// A whole record at an offset, of a length.
    Record(i64, usize),
    /// A file's rest was filler.
    Filler,
    /// No record stands here.
    Stop(String),
}

/// Walks the log record by record.
struct Scan<'a> {
    store: &'a Store,
    at: i64,
    chunk: Vec<u8>,
    chunk_at: i64,
    crc: bool,
    /// What lies behind it may have been lost sector by sector.
    synced: i64,
}

impl Scan<'_> {
    fn bytes(&self, at: i64, len: usize) -> &[u8] {
        let skip = (at - self.chunk_at) as usize;
        &self.chunk[skip..skip + len]
    }

    fn fill(&mut self, len: usize) -> Result<(), StoreError> {
        let log = &self.store.log;
        let base = log.base_of(self.at);
        let path = log.path(base);
        let file = log.open(base).map_err(io_error("opening", &path))?;
        let left = (base + log.file_size() - self.at) as usize;
        self.chunk = disk::read_at(&file, (self.at - base) as u64, len.max(CHUNK).min(left))
            .map_err(io_error("reading", &path))?;
        self.chunk_at = self.at;
        Ok(())
    }

    fn next(&mut self) -> Result<Step, StoreError> {
        let size = self.store.log.file_size();
        if !self.store.log.has_file(self.store.log.base_of(self.at)) {
            return Ok(Step::Stop("the last file is full".into()));
        }
        let in_file = size - self.at.rem_euclid(size);
        let mut wanted = CHUNK;
        loop {
            let skip = self.at - self.chunk_at;
            let have = if skip < 0 {
                &[][..]
            } else {
                self.chunk.get(skip as usize..).unwrap_or_default()
            };
            if have.is_empty() {
                self.fill(wanted)?;
                continue;
            }
            // Only an exhausted chunk is read again; at a file's end the parser's word is final.
            let whole = have.len() as i64 >= in_file;
            let found = match View::look(have) {
                Ok(Seen::Record(record)) if record.physical_offset() != self.at => {
                    format!(
                        "a record says that it stands at {}",
                        record.physical_offset()
                    )
                }
                // Each message before it in its queue has taken its part of the log.
                Ok(Seen::Record(record)) if record.queue_offset() > self.at / LEN_MIN as i64 => {
                    format!(
                        "a record says that it is its queue's {}th",
                        record.queue_offset()
                    )
                }
                Ok(Seen::Record(record)) if record.total_len() as i64 <= in_file => {
                    match if self.crc {
                        record.check_body_crc()
                    } else {
                        Ok(())
                    } {
                        Ok(())
                            if self.at + record.total_len() as i64 > self.synced
                                && has_zeros(&record) =>
                        {
                            "its topic or properties hold zeros, as a lost write leaves them".into()
                        }
                        Ok(()) => {
                            let (at, len) = (self.at, record.total_len());
                            self.at += len as i64;
                            return Ok(Step::Record(at, len));
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Ok(Seen::Record(record)) => {
                    format!(
                        "a record of {} bytes has {in_file} left in its file",
                        record.total_len()
                    )
                }
                // A filler says how much of its file is left; a part of that may have been lost.
                Ok(Seen::Blank)
                    if self.at + 8 > self.synced && have[..4] != (in_file as u32).to_be_bytes() =>
                {
                    format!("a filler has {in_file} bytes left in its file and says otherwise")
                }
                Ok(Seen::Blank) => {
                    self.at += in_file;
                    return Ok(Step::Filler);
                }
                Err(RecordError::Truncated { announced, .. })
                    if !whole
                        && announced as i64 <= in_file
                        && (announced > have.len() || have.len() < 8) =>
                {
                    wanted = announced.max(wanted);
                    self.fill(wanted)?;
                    continue;
                }
                Err(error) => error.to_string(),
            };
            return Ok(Step::Stop(found));
        }
    }
}

/// Whether zeros stand where a record never has them. Topic and properties have no checksum: this is how a part of them that
/// was not written shows. ([`RecordBatch::push`](crate::RecordBatch::push) takes no such record.)
fn has_zeros(record: &View<'_>) -> bool {
    record.topic_bytes().contains(&0)
        || record
            .properties()
            .is_ok_and(|text| text.as_bytes().contains(&0))
}

/// Decides what the bytes behind the last whole record are. Nothing, or the rest of a write that a crash interrupted: the
/// number of bytes to cut. But damage, if they were synced (`synced`), or if whole records follow and no write was lost:
/// a power cut loses the writes since the last sync in any order, a clean stop (`clean`) none.
fn settle_end(
    store: &Store,
    end: i64,
    limit: i64,
    stop: &str,
    synced: i64,
    clean: bool,
) -> Result<u64, StoreError> {
    let (stale_end, next) = look_behind(store, end, limit)?;
    let torn = match next {
        None => true,
        Some(next) => !clean && lost_write(store, end, next)?,
    };
    if end < synced || !torn {
        return Err(StoreError::Damaged {
            at: end,
            what: stop.to_owned(),
            next,
        });
    }
    Ok((stale_end - end) as u64)
}

/// Where the bytes behind the end stop, and the next whole record among them.
fn look_behind(store: &Store, end: i64, limit: i64) -> Result<(i64, Option<i64>), StoreError> {
    let log = &store.log;
    let mut stale_end = end;
    let mut base = log.base_of(end);
    while base < limit && log.has_file(base) {
        let path = log.path(base);
        let file = log.open(base).map_err(io_error("opening", &path))?;
        let mut at = end.max(base);
        disk::only_what_was_written(&file, (at - base) as u64);
        while let Some(data) =
            disk::next_data(&file, (at - base) as u64).map_err(io_error("reading", &path))?
        {
            at = base + data as i64;
            let left = (base + log.file_size() - at) as usize;
            if left == 0 {
                break;
            }
            let len =
                disk::data_len(&file, data, CHUNK.min(left)).map_err(io_error("reading", &path))?;
            let bytes = disk::read_at(&file, data, len).map_err(io_error("reading", &path))?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                stale_end = at + last as i64 + 1;
            }
            let next = find_record(log, &path, &file, base, at, &bytes, end)?;
            if next.is_some() {
                disk::read_as_usual(&file);
                return Ok((stale_end, next));
            }
            if len == left {
                break;
            }
            // A record's head may lie across the border of two chunks, but not in a hole.
            at += if len == CHUNK { CHUNK - HEAD } else { len } as i64;
        }
        disk::read_as_usual(&file);
        base += log.file_size();
    }
    Ok((stale_end, None))
}

/// Whether a part of the record at `end` was never written. It then ends with a sector: the sector is zeros from some place
/// on, since it was lost, or saved before the rest of it was written. A sector in which the `next` whole record begins was saved
/// later.
fn lost_write(store: &Store, end: i64, next: i64) -> Result<bool, StoreError> {
    let log = &store.log;
    let base = log.base_of(end);
    let path = log.path(base);
    let file = log.open(base).map_err(io_error("opening", &path))?;
    let at = (end - base) as usize;
    let head = disk::read_array::<8>(&file, at as u64).map_err(io_error("reading", &path))?;
    let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let magic = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let in_file = log.file_size() as usize;
    let known = (magic == MAGIC_V1 || magic == MAGIC_V2) && len <= in_file - at;
    let record_end = at + if known { len.max(8) } else { 8 };
    let last = record_end.next_multiple_of(SECTOR).min(in_file);
    let bytes = disk::read_at(&file, at as u64, last - at).map_err(io_error("reading", &path))?;
    let mut border = at + 1;
    while border < last {
        border = border.next_multiple_of(SECTOR).min(last);
        // Its length may begin with zeros, its magic does not.
        if border as i64 > next + 4 - base {
            break;
        }
        if bytes.get(border - 1 - at).is_none_or(|byte| *byte == 0) {
            return Ok(true);
        }
        border += 1;
    }
    Ok(false)
}

/// Bytes of a record that show its size, magic and place.
const HEAD: usize = 36;

/// The first whole record in `bytes`, behind the log's end, that says it stands where it stands, CRC checked.
fn find_record(
    log: &crate::commit_log::CommitLog,
    path: &Path,
    file: &disk::File,
    base: i64,
    at: i64,
    bytes: &[u8],
    end: i64,
) -> Result<Option<i64>, StoreError> {
    for skip in 0..bytes.len().saturating_sub(HEAD) {
        // The magics' first byte, cheap to look for.
        if bytes[skip + 4] != 0xDA {
            continue;
        }
        let magic = u32::from_be_bytes([
            bytes[skip + 4],
            bytes[skip + 5],
            bytes[skip + 6],
            bytes[skip + 7],
        ]);
        let place =
            i64::from_be_bytes(bytes[skip + 28..skip + 36].try_into().expect("eight bytes"));
        let here = at + skip as i64;
        if (magic != MAGIC_V1 && magic != MAGIC_V2) || place != here || here <= end {
            continue;
        }
        let len = i32::from_be_bytes(bytes[skip..skip + 4].try_into().expect("four bytes"));
        if len <= 0 || here + i64::from(len) > base + log.file_size() {
            continue;
        }
        let whole = disk::read_at(file, (here - base) as u64, len as usize)
            .map_err(io_error("reading", path))?;
        if View::record(&whole).is_ok_and(|record| record.check_body_crc().is_ok()) {
            return Ok(Some(here));
        }
    }
    Ok(None)
}
