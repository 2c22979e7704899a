//! Masters and slaves with real logs in temporary directories and real sockets; every wait is for a position or an event.

use super::master::{self, MasterOptions, MayReplicate, Slaves};
use super::slave::{self, Following, SlaveOptions};
use crate::clock::now_ms;
use crate::log::{Log, LogOptions, Outcome, Requirement};
use crate::net::Partitions;
use rocketmq_protocol::partition::Order;
use rocketmq_protocol::record::Record;
use rocketmq_store::{Reader, RecordBatch, StoreOptions, Writer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

const FILE: u64 = 16 << 10;
const LONG: Duration = Duration::from_secs(20);

struct Node {
    log: Log,
    reader: Reader,
    _store: TempDir,
}

fn node(slave: bool, sync_flush: bool) -> Node {
    let store = tempfile::tempdir().unwrap();
    let root = store.path().to_path_buf();
    let options = StoreOptions {
        commit_log: root.join("commitlog"),
        root,
        commit_log_file_size: FILE,
        consume_queue_file_entries: 1000,
        index_slots: 64,
        index_entries: 256,
        index_enabled: true,
        delay_levels: vec![Duration::from_secs(1)],
        lmq: false,
        visible_when_synced: false,
        zeros_ahead: 0,
        check_crc_on_recover: true,
        file_reserved: Duration::from_secs(3600),
        disk_max_used_percent: 100,
        disk_clean_forcibly_percent: 100,
        disk_warning_percent: 100,
        transfer_bytes_in_memory: 256 << 10,
        transfer_count_in_memory: 32,
        transfer_bytes_on_disk: 64 << 10,
        transfer_count_on_disk: 8,
        in_memory_span: 1 << 30,
    };
    let opened = Writer::open(options, now_ms()).unwrap();
    let log = Log::start(
        opened.writer,
        LogOptions {
            sync_flush,
            flush_timeout: LONG,
            replica_timeout: LONG,
            flush_interval: Duration::from_millis(500),
            queue_len: 1024,
            slave,
            on_arrivals: Box::new(|_| {}),
            on_failure: Box::new(|error| panic!("{error}")),
            delete_when: vec![],
            zone: Default::default(),
        },
    );
    Node {
        log,
        reader: opened.reader,
        _store: store,
    }
}

/// Appends a message of so many bytes; resolves with how it ended.
fn append(node: &Node, bytes: usize, replicas: usize) -> oneshot::Receiver<Outcome> {
    let topic: Arc<str> = "orders".into();
    let host = SocketAddr::from(([127, 0, 0, 1], 10911));
    let body = vec![b'x'; bytes];
    let record = Record {
        queue_id: 0,
        flag: 0,
        queue_offset: 0,
        physical_offset: 0,
        sys_flag: 0,
        born_timestamp: now_ms(),
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &body,
        topic: "orders",
        properties: "",
    };
    let mut batch = RecordBatch::new();
    batch.push(&topic, &record).unwrap();
    let (done, outcome) = oneshot::channel();
    let requirement = Requirement {
        flushed: false,
        replicas,
    };
    node.log
        .append(
            batch,
            requirement,
            Box::new(move |result| {
                // A test that no longer waits does not mind.
                let _ = done.send(result.unwrap().1);
            }),
        )
        .unwrap();
    outcome
}

struct Serving {
    address: String,
    slaves: Arc<Slaves>,
    _stop: watch::Sender<bool>,
}

async fn serving(node: &Node, heartbeat: Duration, allowed: bool) -> Serving {
    let listener = crate::net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let slaves: Arc<Slaves> = Arc::default();
    let (stop, stopped) = watch::channel(false);
    let options = MasterOptions {
        heartbeat,
        housekeeping: LONG,
        transfer_batch: 1000,
    };
    let may_replicate: MayReplicate = Arc::new(move |_| Box::pin(async move { allowed }));
    tokio::spawn(master::serve(
        listener,
        node.log.clone(),
        node.reader.clone(),
        options,
        may_replicate,
        slaves.clone(),
        stopped,
    ));
    Serving {
        address,
        slaves,
        _stop: stop,
    }
}

struct Follower {
    master: watch::Sender<Option<String>>,
    connected: watch::Receiver<bool>,
    partitions: Partitions,
    _stop: watch::Sender<bool>,
}

fn following(node: &Node, address: &str, sync_flush: bool) -> Follower {
    let (master, named) = watch::channel(Some(address.to_string()));
    let (stop, stopped) = watch::channel(false);
    let following: Arc<Following> = Arc::default();
    let connected = following.connected();
    let partitions = Partitions::default();
    let options = SlaveOptions {
        heartbeat: Duration::from_secs(5),
        housekeeping: LONG,
        sync_flush,
    };
    tokio::spawn(slave::follow(
        node.log.clone(),
        node.reader.clone(),
        named,
        options,
        following,
        partitions.clone(),
        stopped,
    ));
    Follower {
        master,
        connected,
        partitions,
        _stop: stop,
    }
}

async fn reaches(node: &Node, end: i64) {
    let mut positions = node.log.positions();
    positions
        .wait_for(|positions| positions.end >= end)
        .await
        .unwrap();
}

/// Both logs, byte for byte.
fn assert_same_log(master: &Node, slave: &Node) {
    let (start, end) = (master.reader.log_start(), master.reader.log_end());
    assert_eq!(
        (slave.reader.log_start(), slave.reader.log_end()),
        (start, end)
    );
    let mut at = start;
    while at < end {
        let bytes = master.reader.log_bytes(at, 4096).unwrap();
        assert_eq!(
            slave.reader.log_bytes(at, bytes.len()).unwrap(),
            bytes,
            "at {at}"
        );
        at += bytes.len() as i64;
    }
    assert_eq!(
        slave.reader.queue_bounds("orders", 0),
        master.reader.queue_bounds("orders", 0)
    );
}

#[tokio::test]
async fn a_slave_gets_all_that_was_and_all_that_comes_byte_for_byte() {
    let (master, slave) = (node(false, false), node(true, false));
    for n in 0..50 {
        append(&master, 1000 + n, 0).await.unwrap();
    }
    let serving = serving(&master, LONG, true).await;
    let follower = following(&slave, &serving.address, false);
    for n in 0..50 {
        append(&master, 1000 - n, 0).await.unwrap();
    }
    reaches(&slave, master.reader.log_end()).await;
    assert!(master.reader.log_end() > 5 * FILE as i64, "several files");
    assert_same_log(&master, &slave);
    assert!(*follower.connected.borrow());
}

#[tokio::test]
async fn a_send_that_waits_for_a_slave_is_released_by_its_report() {
    for sync_flush in [false, true] {
        let (master, slave) = (node(false, false), node(true, sync_flush));
        let serving = serving(&master, LONG, true).await;
        let _follower = following(&slave, &serving.address, sync_flush);
        assert_eq!(append(&master, 100, 1).await.unwrap(), Outcome::Stored);
        let position = master.reader.log_end();
        assert_eq!(slave.reader.log_end(), position);
        assert!(!sync_flush || slave.reader.log_flushed() >= position);
        let status = serving.slaves.status(position, 256 << 20);
        assert_eq!(
            (
                status.len(),
                status[0].slave_ack_offset,
                status[0].diff,
                status[0].in_sync
            ),
            (1, position, 0, true)
        );
    }
}

#[tokio::test]
async fn a_slave_cut_off_from_its_master_gets_nothing_and_catches_up_when_healed() {
    let (master, slave) = (node(false, false), node(true, false));
    let serving = serving(&master, LONG, true).await;
    let mut follower = following(&slave, &serving.address, false);
    append(&master, 3000, 1).await.unwrap();
    let before = slave.reader.log_end();
    follower
        .partitions
        .apply(Order::Cut {
            peer: "master".into(),
            addresses: vec![serving.address.clone()],
            lasts_ms: None,
        })
        .unwrap();
    follower.connected.wait_for(|stands| !stands).await.unwrap();
    append(&master, 3000, 0).await.unwrap();
    let waits = append(&master, 3000, 1);
    assert_eq!(slave.reader.log_end(), before);
    follower
        .partitions
        .apply(Order::Heal { peer: None })
        .unwrap();
    assert_eq!(waits.await.unwrap(), Outcome::Stored);
    assert_same_log(&master, &slave);
}

#[tokio::test]
async fn a_slave_goes_on_where_it_was_after_its_master_moved() {
    let (master, slave) = (node(false, false), node(true, false));
    let first = serving(&master, LONG, true).await;
    let follower = following(&slave, &first.address, false);
    append(&master, 3000, 1).await.unwrap();
    let second = serving(&master, LONG, true).await;
    follower.master.send_replace(Some(second.address.clone()));
    append(&master, 3000, 0).await.unwrap();
    drop(first);
    append(&master, 3000, 1).await.unwrap();
    assert_same_log(&master, &slave);
}

/// A slave made of bare bytes, as a Java one or a stranger.
struct Bare(TcpStream);

impl Bare {
    async fn connect(address: &str) -> Bare {
        Bare(TcpStream::connect(address).await.unwrap())
    }
    async fn report(&mut self, position: i64) {
        self.0.write_all(&position.to_be_bytes()).await.unwrap();
    }
    async fn frame(&mut self) -> (i64, Vec<u8>) {
        let at = self.0.read_i64().await.unwrap();
        let mut body = vec![0; self.0.read_i32().await.unwrap() as usize];
        self.0.read_exact(&mut body).await.unwrap();
        (at, body)
    }
    async fn is_closed(&mut self) {
        let mut rest = vec![];
        // Either end of a connection is an end.
        let _ = self.0.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn the_stream_is_frames_of_the_batch_size_that_end_with_their_file_then_heartbeats() {
    let master = node(false, false);
    while master.reader.log_end() < FILE as i64 {
        append(&master, 900, 0).await.unwrap();
    }
    let serving = serving(&master, Duration::from_millis(5), true).await;
    let mut slave = Bare::connect(&serving.address).await;
    slave.report(0).await;
    assert_eq!(slave.frame().await, (0, vec![]), "an empty frame at once");
    let mut at = 0;
    while at < master.reader.log_end() {
        let (offset, body) = slave.frame().await;
        assert_eq!(offset, at);
        assert!(!body.is_empty() && body.len() <= 1000);
        let end = at + body.len() as i64;
        assert_eq!(
            at / FILE as i64,
            (end - 1) / FILE as i64,
            "a frame lies in one file"
        );
        assert_eq!(body, master.reader.log_bytes(at, body.len()).unwrap());
        at = end;
    }
    assert_eq!(slave.frame().await, (at, vec![]));
    assert_eq!(slave.frame().await, (at, vec![]));
}

#[tokio::test]
async fn a_report_beyond_the_end_acknowledges_nothing_and_ends_the_stream() {
    let master = node(false, false);
    append(&master, 100, 0).await.unwrap();
    let serving = serving(&master, LONG, true).await;
    let mut slave = Bare::connect(&serving.address).await;
    slave.report(0).await;
    slave.frame().await;
    slave.frame().await;
    let waiting = append(&master, 100, 1);
    slave.frame().await;
    slave.report(i64::MAX).await;
    slave.is_closed().await;
    // The next slave that really has it releases the send.
    let honest = node(true, false);
    let _follower = following(&honest, &serving.address, false);
    assert_eq!(waiting.await.unwrap(), Outcome::Stored);
    assert_eq!(honest.reader.log_end(), master.reader.log_end());
}

#[tokio::test]
async fn a_slave_whose_log_is_longer_is_refused_and_keeps_its_bytes() {
    let (longer, shorter) = (node(false, false), node(false, false));
    append(&longer, 2000, 0).await.unwrap();
    append(&shorter, 100, 0).await.unwrap();
    let serving = serving(&shorter, LONG, true).await;
    let mut slave = Bare::connect(&serving.address).await;
    slave.report(longer.reader.log_end()).await;
    slave.is_closed().await;
    assert!(serving.slaves.status(0, 1).is_empty());
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    let master = node(false, false);
    append(&master, 100, 0).await.unwrap();
    let serving = serving(&master, LONG, false).await;
    let mut stranger = Bare::connect(&serving.address).await;
    let mut rest = vec![];
    // What it sends may meet a closed socket.
    let _ = stranger.0.write_all(&0i64.to_be_bytes()).await;
    let _ = stranger.0.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_slave_appends_nothing_that_does_not_continue_its_log() {
    let slave = node(true, false);
    let listener = crate::net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let follower = following(&slave, &listener.local_addr().unwrap().to_string(), false);
    let (mut master, _) = listener.accept().await.unwrap();
    assert_eq!(master.read_i64().await.unwrap(), 0);
    let source = node(false, false);
    append(&source, 100, 0).await.unwrap();
    let end = source.reader.log_end();
    let bytes = source.reader.log_bytes(0, 1 << 20).unwrap();
    for (at, body) in [(0, &bytes[..]), (end + 8, &bytes[..])] {
        master.write_i64(at).await.unwrap();
        master.write_i32(body.len() as i32).await.unwrap();
        master.write_all(body).await.unwrap();
    }
    assert_eq!(master.read_i64().await.unwrap(), end);
    let mut rest = vec![];
    let _ = master.read_to_end(&mut rest).await;
    assert_eq!(slave.reader.log_end(), end);
    // It connects anew and says where it is.
    let (mut again, _) = listener.accept().await.unwrap();
    assert_eq!(again.read_i64().await.unwrap(), end);
    drop(follower);
}

#[tokio::test]
async fn a_slave_keeps_whole_records_only_of_what_comes_in_pieces() {
    let source = node(false, false);
    while source.reader.log_end() < 3 * FILE as i64 {
        append(&source, 1500, 0).await.unwrap();
    }
    let from = FILE as i64;
    let end = source.reader.log_end();
    let mut bytes = Vec::new();
    while from + (bytes.len() as i64) < end {
        let at = from + bytes.len() as i64;
        bytes.extend_from_slice(&source.reader.log_bytes(at, 1 << 20).unwrap());
    }
    let slave = node(true, false);
    let listener = crate::net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let follower = following(&slave, &listener.local_addr().unwrap().to_string(), false);
    let (mut master, _) = listener.accept().await.unwrap();
    assert_eq!(master.read_i64().await.unwrap(), 0);
    // Two records and a third of a header.
    let two = 2 * record_len(&bytes);
    for piece in bytes[..two + 27].chunks(700) {
        write_frame(&mut master, from, &bytes, piece).await;
    }
    let whole = from + two as i64;
    while master.read_i64().await.unwrap() != whole {}
    drop(master);
    let (mut master, _) = listener.accept().await.unwrap();
    assert_eq!(master.read_i64().await.unwrap(), whole);
    for piece in bytes[(whole - from) as usize..].chunks(333) {
        write_frame(&mut master, from, &bytes, piece).await;
    }
    reaches(&slave, end).await;
    assert_eq!(slave.reader.log_start(), from);
    let mut at = from;
    while at < end {
        let there = slave.reader.log_bytes(at, 1 << 20).unwrap();
        assert_eq!(there, bytes[(at - from) as usize..][..there.len()]);
        at += there.len() as i64;
    }
    drop(follower);
}

fn record_len(bytes: &[u8]) -> usize {
    i32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize
}

/// A transfer frame with a piece of `all`, which begins at `from`.
async fn write_frame(master: &mut TcpStream, from: i64, all: &[u8], piece: &[u8]) {
    let at = from + (piece.as_ptr() as usize - all.as_ptr() as usize) as i64;
    master.write_i64(at).await.unwrap();
    master.write_i32(piece.len() as i32).await.unwrap();
    master.write_all(piece).await.unwrap();
}
