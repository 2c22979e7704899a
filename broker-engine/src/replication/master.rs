//! The master's end: accepts slaves, pushes the log behind its published end, takes their reports.

use crate::clock::now_ms;
use crate::log::Log;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_protocol::body::HAConnectionRuntimeInfo;
use rocketmq_protocol::ha::{TRANSFER_HEADER, Transfer, latest_report};
use rocketmq_store::Reader;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes read from the log at once; cut into frames of `haTransferBatchSize` for one write.
const READ_MAX: usize = 256 << 10;
/// Slaves beyond this many are closed on arrival.
const SLAVES_MAX: usize = 64;

/// Bounds and rhythm of the stream, from the broker's properties.
#[derive(Clone, Debug)]
pub struct MasterOptions {
    /// `haSendHeartbeatInterval`: an idle stream gets an empty frame so often.
    pub heartbeat: Duration,
    /// `haHousekeepingInterval`: a slave that reports nothing for so long is closed.
    pub housekeeping: Duration,
    /// `haTransferBatchSize`: bytes of one frame.
    pub transfer_batch: usize,
}

/// Whether an address may replicate: a stranger's report must not acknowledge a send that waits for slaves.
pub type MayReplicate =
    Arc<dyn Fn(IpAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The connected slaves, for GET_BROKER_HA_STATUS (907) and the runtime info (28).
#[derive(Debug, Default)]
pub struct Slaves(Mutex<BTreeMap<SocketAddr, Arc<Progress>>>);

/// How far one slave is.
#[derive(Debug)]
struct Progress {
    /// Its last report; -1 before the first.
    acked: AtomicI64,
    /// Next byte that will be sent.
    sending: AtomicI64,
    rate: Rate,
}

/// Bytes per second over the last whole second.
#[derive(Debug, Default)]
pub(super) struct Rate {
    second: AtomicI64,
    current: AtomicU64,
    last: AtomicU64,
}

impl Rate {
    pub(super) fn add(&self, bytes: usize, now_ms: i64) {
        self.turn(now_ms);
        self.current.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    pub(super) fn per_second(&self, now_ms: i64) -> u64 {
        self.turn(now_ms);
        self.last.load(Ordering::Relaxed)
    }
    fn turn(&self, now_ms: i64) {
        let second = now_ms / 1000;
        let before = self.second.swap(second, Ordering::Relaxed);
        if before != second {
            let bytes = self.current.swap(0, Ordering::Relaxed);
            self.last.store(
                if before + 1 == second { bytes } else { 0 },
                Ordering::Relaxed,
            );
        }
    }
}

impl Slaves {
    /// Every connected slave that has reported, by address; `end` is the log's, `max_gap_in_sync` (`haMaxGapNotInSync`) how
    /// many bytes it may be behind and still count as in sync.
    pub fn status(&self, end: i64, max_gap_in_sync: u64) -> Vec<HAConnectionRuntimeInfo> {
        let now = now_ms();
        self.0
            .lock()
            .iter()
            .filter_map(|(address, progress)| {
                let acked = progress.acked.load(Ordering::Relaxed);
                (acked >= 0).then(|| HAConnectionRuntimeInfo {
                    addr: address.to_string(),
                    slave_ack_offset: acked,
                    diff: end - acked,
                    in_sync: end.saturating_sub(acked)
                        < i64::try_from(max_gap_in_sync).unwrap_or(i64::MAX),
                    transferred_byte_in_second: progress.rate.per_second(now) as i64,
                    transfer_from_where: progress.sending.load(Ordering::Relaxed),
                })
            })
            .collect()
    }
}

/// Serves slaves until `stop` holds true.
pub async fn serve(
    listener: TcpListener,
    log: Log,
    reader: Reader,
    options: MasterOptions,
    may_replicate: MayReplicate,
    slaves: Arc<Slaves>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a slave failed");
                // Out of descriptors, mostly: they come back as others end, which nothing announces.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if connections.len() >= SLAVES_MAX {
            tracing::warn!(slave = %address, "refused: {SLAVES_MAX} connections on the HA port are as many as allowed");
            continue;
        }
        let (log, reader, options) = (log.clone(), reader.clone(), options.clone());
        let (may_replicate, slaves) = (may_replicate.clone(), slaves.clone());
        connections.spawn(async move {
            let feed = Feed {
                address,
                log,
                reader,
                options,
            };
            feed.serve(stream, may_replicate, slaves).await;
        });
    }
    connections.shutdown().await;
}

/// Why a slave's connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it closed")]
    Closed,
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error("it reported nothing for {0:?}")]
    Silent(Duration),
    #[error(
        "its log reaches to {slave}, this master's ends at {end}: it holds {} bytes that this master does not have. Nothing is cut by \
         itself: if they can go, empty that slave's store and it copies anew", slave - end
    )]
    Ahead { slave: i64, end: i64 },
    #[error(
        "its log ends at {slave}, this master's begins at {start}: what lies between is deleted here. Empty that slave's store and it copies anew"
    )]
    TooFarBehind { slave: i64, start: i64 },
    #[error("it reported {0}, no place in a log")]
    Report(i64),
    #[error("the log has stopped")]
    LogStopped,
}

/// One slave's stream.
struct Feed {
    address: SocketAddr,
    log: Log,
    reader: Reader,
    options: MasterOptions,
}

impl Feed {
    async fn serve(&self, stream: TcpStream, may_replicate: MayReplicate, slaves: Arc<Slaves>) {
        if !may_replicate(self.address.ip()).await {
            tracing::warn!(
                slave = %self.address,
                "refused on the HA port: no slave of this broker name is registered with that address"
            );
            return;
        }
        let progress = Arc::new(Progress {
            acked: AtomicI64::new(-1),
            sending: AtomicI64::new(-1),
            rate: Rate::default(),
        });
        slaves.0.lock().insert(self.address, progress.clone());
        let ended = self.run(stream, &progress).await;
        slaves.0.lock().remove(&self.address);
        self.log.replica_gone(self.address);
        if progress.acked.load(Ordering::Relaxed) >= 0 || !matches!(ended, Ended::Closed) {
            tracing::warn!(slave = %self.address, acked = progress.acked.load(Ordering::Relaxed), "slave gone: {ended}");
        }
    }

    async fn run(&self, mut stream: TcpStream, progress: &Progress) -> Ended {
        if let Err(error) = stream.set_nodelay(true) {
            return error.into();
        }
        let (reports, mut writer) = stream.split();
        let mut reports = Reports::new(reports, self.options.housekeeping);
        let first = match reports.next().await {
            Ok(first) => first,
            Err(ended) => return ended,
        };
        let end = self.reader.log_end();
        let start = self.reader.log_start();
        // Java begins with the newest file for an empty slave. Ours gets all there is, so that a slave that was added later
        // can stand in for its master; a Java slave takes any offset for its first byte as well.
        let from = if first == 0 { start } else { first };
        if first < 0 {
            return Ended::Report(first);
        }
        if first > end {
            return Ended::Ahead { slave: first, end };
        }
        if from < start {
            return Ended::TooFarBehind {
                slave: first,
                start,
            };
        }
        tracing::info!(slave = %self.address, from, behind = end - from, "slave connected");
        self.acked(first, progress);
        tokio::select! {
            ended = self.take_reports(&mut reports, progress) => ended,
            ended = self.push(&mut writer, from, progress) => ended,
        }
    }

    async fn take_reports(
        &self,
        reports: &mut Reports<impl AsyncRead + Unpin>,
        progress: &Progress,
    ) -> Ended {
        loop {
            let report = match reports.next().await {
                Ok(report) => report,
                Err(ended) => return ended,
            };
            // A forged report would acknowledge what no slave holds (apache/rocketmq#3015).
            let end = self.reader.log_end();
            if report < 0 {
                return Ended::Report(report);
            }
            if report > end {
                return Ended::Ahead { slave: report, end };
            }
            self.acked(report, progress);
        }
    }

    fn acked(&self, report: i64, progress: &Progress) {
        progress.acked.store(report, Ordering::Relaxed);
        self.log.replica_acked(self.address, report);
    }

    async fn push(
        &self,
        writer: &mut (impl tokio::io::AsyncWrite + Unpin),
        from: i64,
        progress: &Progress,
    ) -> Ended {
        let mut positions = self.log.positions();
        let mut at = from;
        progress.sending.store(at, Ordering::Relaxed);
        // An empty frame at once: the slave knows that it is followed without waiting for a message or a heartbeat.
        if let Err(error) =
            write_frames(writer, at, Bytes::new(), self.options.transfer_batch).await
        {
            return error.into();
        }
        loop {
            // Marked as seen before the log is read: what is appended afterwards wakes the wait below.
            positions.borrow_and_update();
            let bytes = match self.reader.log_bytes_to_send(at, READ_MAX) {
                Ok(bytes) => bytes,
                Err(_) if at < self.reader.log_start() => {
                    return Ended::TooFarBehind {
                        slave: at,
                        start: self.reader.log_start(),
                    };
                }
                Err(error) => return error.into(),
            };
            if bytes.is_empty() {
                match tokio::time::timeout(self.options.heartbeat, positions.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return Ended::LogStopped,
                    Err(_) => {}
                }
            }
            let count = bytes.len();
            if let Err(error) = write_frames(writer, at, bytes, self.options.transfer_batch).await {
                return error.into();
            }
            at += count as i64;
            progress.sending.store(at, Ordering::Relaxed);
            progress.rate.add(count, now_ms());
        }
    }
}

/// Writes bytes as frames of at most `batch` bytes; no bytes are one empty frame, the heartbeat.
async fn write_frames(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    at: i64,
    bytes: Bytes,
    batch: usize,
) -> std::io::Result<()> {
    let mut headers = BytesMut::with_capacity((bytes.len() / batch + 1) * TRANSFER_HEADER);
    let mut parts: Vec<(usize, std::ops::Range<usize>)> = vec![];
    let mut from = 0;
    loop {
        let to = bytes.len().min(from + batch);
        let header = headers.len();
        let transfer = Transfer {
            physical_offset: at + from as i64,
            body_len: (to - from) as u32,
        };
        headers.put_slice(&transfer.to_bytes());
        parts.push((header, from..to));
        from = to;
        if from == bytes.len() {
            break;
        }
    }
    let mut slices: Vec<IoSlice<'_>> = parts
        .iter()
        .flat_map(|(header, body)| {
            [
                IoSlice::new(&headers[*header..header + TRANSFER_HEADER]),
                IoSlice::new(&bytes[body.clone()]),
            ]
        })
        .filter(|slice| !slice.is_empty())
        .collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let written = writer.write_vectored(left).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

/// The slave's reports. Only the newest of those that came together counts.
struct Reports<R> {
    reader: R,
    buffer: BytesMut,
    housekeeping: Duration,
}

impl<R: AsyncRead + Unpin> Reports<R> {
    fn new(reader: R, housekeeping: Duration) -> Self {
        Reports {
            reader,
            buffer: BytesMut::with_capacity(512),
            housekeeping,
        }
    }
    async fn next(&mut self) -> Result<i64, Ended> {
        let give_up = tokio::time::Instant::now() + self.housekeeping;
        loop {
            if let Some((report, used)) = latest_report(&self.buffer) {
                self.buffer.advance(used);
                return Ok(report);
            }
            self.buffer.reserve(512);
            match tokio::time::timeout_at(give_up, self.reader.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(Ended::Silent(self.housekeeping)),
                Ok(Ok(0)) => return Err(Ended::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_out_as_frames_of_the_batch_size_and_none_as_a_heartbeat() {
        let mut out = vec![];
        write_frames(&mut out, 100, Bytes::from_static(b"abcde"), 2)
            .await
            .unwrap();
        write_frames(&mut out, 105, Bytes::new(), 2).await.unwrap();
        let mut expected = vec![];
        for (at, body) in [(100i64, &b"ab"[..]), (102, b"cd"), (104, b"e"), (105, b"")] {
            expected.extend(at.to_be_bytes());
            expected.extend((body.len() as i32).to_be_bytes());
            expected.extend(body);
        }
        assert_eq!(out, expected);
    }

    #[tokio::test]
    async fn of_reports_that_came_together_the_newest_counts_and_a_torn_one_waits_for_its_rest() {
        let mut bytes = vec![];
        for report in [1i64, 2, 3] {
            bytes.extend(report.to_be_bytes());
        }
        let (mut slave, master) = tokio::io::duplex(1024);
        let mut reports = Reports::new(master, Duration::from_secs(20));
        slave.write_all(&bytes[..20]).await.unwrap();
        assert_eq!(reports.next().await.unwrap(), 2);
        slave.write_all(&bytes[20..]).await.unwrap();
        assert_eq!(reports.next().await.unwrap(), 3);
        drop(slave);
        assert!(matches!(reports.next().await, Err(Ended::Closed)));
    }

    #[test]
    fn a_rate_is_that_of_the_last_whole_second() {
        let rate = Rate::default();
        rate.add(10, 1000);
        rate.add(5, 1900);
        assert_eq!(rate.per_second(2100), 15);
        assert_eq!(rate.per_second(5000), 0);
    }
}
