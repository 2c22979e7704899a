//! The slave's end: connects to its master, appends what comes, reports how far it is.

use super::master::Rate;
use crate::clock::now_ms;
use crate::log::Log;
use crate::net::{self, Partitions};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_protocol::body::HAClientRuntimeInfo;
use rocketmq_protocol::ha::{self, Bounds, TransferError};
use rocketmq_store::{Reader, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::time::Instant;

/// Largest frame taken. Java's own buffer holds 4 MiB.
const BODY_MAX: u32 = 16 << 20;
/// Frames that came together are appended together up to so many bytes.
const APPEND_MAX: usize = 1 << 20;
/// Pause before the next attempt: doubles from the first on. A master that is away is looked for often, since sends may wait for
/// this slave when it is back; one that does not take this slave's log will not soon do so.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_AWAY: Duration = Duration::from_secs(1);
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// Bounds and rhythm of the stream, from the broker's properties.
#[derive(Clone, Debug)]
pub struct SlaveOptions {
    /// `haSendHeartbeatInterval`: it reports at least so often.
    pub heartbeat: Duration,
    /// `haHousekeepingInterval`: a master silent for so long is left and connected to anew.
    pub housekeeping: Duration,
    /// `flushDiskType=SYNC_FLUSH`: it reports what is on disk rather than what is appended.
    pub sync_flush: bool,
}

/// How following goes, for GET_BROKER_HA_STATUS (907) and the runtime info (28).
#[derive(Debug, Default)]
pub struct Following {
    master: Mutex<String>,
    connected: watch::Sender<bool>,
    last_read_ms: AtomicI64,
    last_write_ms: AtomicI64,
    rate: Rate,
}

impl Following {
    /// The answer's slave part; `end` is this log's.
    pub fn status(&self, end: i64) -> HAClientRuntimeInfo {
        HAClientRuntimeInfo {
            master_addr: self.master.lock().clone(),
            transferred_byte_in_second: self.rate.per_second(now_ms()) as i64,
            max_offset: end,
            last_read_timestamp: self.last_read_ms.load(Ordering::Relaxed),
            last_write_timestamp: self.last_write_ms.load(Ordering::Relaxed),
            master_flush_offset: 0,
            activated: self.is_connected(),
        }
    }
    /// Whether the stream to the master stands.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
    /// Changes when the stream comes to stand or breaks.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it closed the connection")]
    Closed,
    #[error(
        "it closed the connection before sending anything: it may not know this slave yet, or this slave's log, which ends at {0}, does not \
         fit its own; its log says which"
    )]
    Refused(i64),
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    #[error("it sent nothing for {0:?}")]
    Silent(Duration),
    #[error(
        "it sent bytes from {got} on, but this slave's log ends at {end}; nothing was cut or skipped"
    )]
    NotContiguous { got: i64, end: i64 },
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the master's address changed")]
    Moved,
    #[error("this node is cut off from {0} on purpose")]
    CutOff(String),
    #[error("the log has stopped")]
    LogStopped,
}

/// Follows whatever master `master` names (its HA address) until `stop` holds true, unless `partitions` cut it off.
pub async fn follow(
    log: Log,
    reader: Reader,
    mut master: watch::Receiver<Option<String>>,
    options: SlaveOptions,
    following: Arc<Following>,
    partitions: Partitions,
    mut stop: watch::Receiver<bool>,
) {
    let mut healed = partitions.changes();
    let mut backoff = BACKOFF_FIRST;
    let mut said = String::new();
    loop {
        let address = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            named = master.wait_for(Option::is_some) => match named {
                Ok(named) => named.clone().expect("waited for"),
                Err(_) => return,
            },
        };
        following.master.lock().clone_from(&address);
        let stream = Stream {
            log: &log,
            reader: &reader,
            options: &options,
            following: &following,
            partitions: &partitions,
        };
        let ended = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            ended = stream.follow(&address, &mut master) => ended,
        };
        if following.connected.send_replace(false) {
            backoff = BACKOFF_FIRST;
            said.clear();
        }
        // The same reason again and again is said once.
        let why = ended.to_string();
        if said != why {
            tracing::warn!(
                master = address,
                end = reader.log_end(),
                "not following the master: {why}"
            );
            said = why;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = master.changed() => {}
            () = healed.next() => {}
            () = tokio::time::sleep(backoff) => {}
        }
        let longest = match ended {
            Ended::Refused(_) | Ended::NotContiguous { .. } | Ended::Store(_) => BACKOFF_REFUSED,
            _ => BACKOFF_AWAY,
        };
        backoff = (backoff * 2).min(longest);
    }
}

struct Stream<'a> {
    log: &'a Log,
    reader: &'a Reader,
    options: &'a SlaveOptions,
    following: &'a Following,
    partitions: &'a Partitions,
}

impl Stream<'_> {
    async fn follow(&self, address: &str, master: &mut watch::Receiver<Option<String>>) -> Ended {
        let late = |_| {
            std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no connection within {CONNECT:?}"),
            )
        };
        let resolved = tokio::time::timeout(CONNECT, net::resolve(address)).await;
        let target = match resolved.map_err(late).flatten() {
            Ok(target) => target,
            Err(error) => return error.into(),
        };
        let run = async {
            let connect = tokio::time::timeout(CONNECT, TcpStream::connect(target));
            let stream = connect.await.map_err(late)??;
            stream.set_nodelay(true)?;
            self.run(address, stream, master).await
        };
        tokio::select! {
            biased;
            peer = self.partitions.cuts(address, target) => Ended::CutOff(peer),
            ended = run => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
        }
    }

    async fn run(
        &self,
        address: &str,
        stream: TcpStream,
        master: &mut watch::Receiver<Option<String>>,
    ) -> Result<std::convert::Infallible, Ended> {
        let (mut reads, writes) = stream.into_split();
        let mut reporter = Reporter {
            writer: writes,
            following: self.following,
            last: Instant::now(),
        };
        // The first report says from where to send, so it is the log's end in any flush mode.
        let began_at = self.reader.log_end();
        reporter.report(began_at).await?;
        let mut positions = self.log.positions();
        let mut reported = began_at;
        let bounds = Bounds {
            body_max: BODY_MAX,
            run_max: APPEND_MAX,
            file_size: self.reader.log_file_size() as i64,
        };
        let mut buffer = BytesMut::new();
        let mut unfinished = Unfinished::default();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                changed = positions.changed(), if self.options.sync_flush => {
                    changed.map_err(|_| Ended::LogStopped)?;
                    let flushed = positions.borrow_and_update().flushed;
                    if flushed > reported {
                        reported = flushed;
                        reporter.report(reported).await?;
                    }
                }
                read = async {
                    buffer.reserve(APPEND_MAX / 4);
                    reads.read_buf(&mut buffer).await
                } => {
                    let count = read?;
                    if count == 0 {
                        return Err(if self.following.is_connected() { Ended::Closed } else { Ended::Refused(began_at) });
                    }
                    heard = Instant::now();
                    let now = now_ms();
                    self.following.last_read_ms.store(now, Ordering::Relaxed);
                    self.following.rate.add(count, now);
                    while let Some((at, bytes)) = ha::cut(&mut buffer, &bounds)? {
                        let end = self.reader.log_end();
                        let wanted = unfinished.end().unwrap_or(if end == 0 { at } else { end });
                        if at != wanted {
                            return Err(Ended::NotContiguous { got: at, end: wanted });
                        }
                        if !self.following.connected.send_replace(true) {
                            tracing::info!(master = address, from = at, "following the master");
                        }
                        if bytes.is_empty() {
                            continue;
                        }
                        let (at, whole) = unfinished.add(at, bytes, bounds.file_size);
                        if whole.is_empty() {
                            continue;
                        }
                        let end = self.log.append_raw(at, whole).await?;
                        if !self.options.sync_flush {
                            reported = end;
                            reporter.report(reported).await?;
                        }
                    }
                }
                () = tokio::time::sleep_until(reporter.last + self.options.heartbeat) => reporter.report(reported).await?,
                () = tokio::time::sleep_until(heard + self.options.housekeeping) => {
                    return Err(Ended::Silent(self.options.housekeeping));
                }
                moved = async { master.wait_for(|named| named.as_deref() != Some(address)).await.map(drop) } => {
                    moved.map_err(|_| Ended::LogStopped)?;
                    return Err(Ended::Moved);
                }
            }
        }
    }
}

/// What came of a record whose rest is still to come. The store takes whole records only.
#[derive(Default)]
struct Unfinished {
    /// Where it begins in the log.
    at: i64,
    bytes: BytesMut,
}

impl Unfinished {
    /// Where the next bytes must go on, if anything waits for them.
    fn end(&self) -> Option<i64> {
        (!self.bytes.is_empty()).then(|| self.at + self.bytes.len() as i64)
    }

    /// Adds what came at `at`; takes the whole records out, with their place.
    fn add(&mut self, at: i64, came: Bytes, file_size: i64) -> (i64, Bytes) {
        // What cannot be a record goes to the store as well, which says what is wrong with it.
        let whole = |bytes: &[u8], at| {
            rocketmq_store::whole_records(bytes, at, file_size).unwrap_or(bytes.len())
        };
        if self.bytes.is_empty() {
            let len = whole(&came, at);
            self.bytes.extend_from_slice(&came[len..]);
            self.at = at + len as i64;
            return (at, came.slice(..len));
        }
        self.bytes.extend_from_slice(&came);
        let at = self.at;
        let len = whole(&self.bytes, at);
        self.at += len as i64;
        (at, self.bytes.split_to(len).freeze())
    }
}

struct Reporter<'a> {
    writer: OwnedWriteHalf,
    following: &'a Following,
    last: Instant,
}

impl Reporter<'_> {
    async fn report(&mut self, position: i64) -> std::io::Result<()> {
        self.writer.write_all(&position.to_be_bytes()).await?;
        self.last = Instant::now();
        self.following
            .last_write_ms
            .store(now_ms(), Ordering::Relaxed);
        Ok(())
    }
}
