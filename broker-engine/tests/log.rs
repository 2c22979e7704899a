//! The log on a real store: what waits for what, and what happens when the disk says no.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

use broker_engine::log::{AppendError, Log, LogOptions, Outcome, Requirement};
use rocketmq_protocol::record::Record;
use rocketmq_store::{Reader, RecordBatch, StoreError, StoreOptions, Writer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SYNC_FLUSH: Requirement = Requirement {
    flushed: true,
    replicas: 0,
};
const ONE_SLAVE: Requirement = Requirement {
    flushed: false,
    replicas: 1,
};

fn store_options(root: &Path) -> StoreOptions {
    StoreOptions {
        root: root.to_owned(),
        commit_log: root.join("commitlog"),
        commit_log_file_size: 1 << 20,
        consume_queue_file_entries: 1000,
        index_slots: 1000,
        index_entries: 4000,
        index_enabled: true,
        delay_levels: vec![Duration::from_secs(1)],
        lmq: false,
        visible_when_synced: false,
        zeros_ahead: 0,
        check_crc_on_recover: true,
        file_reserved: Duration::from_secs(72 * 3600),
        disk_max_used_percent: 101,
        disk_clean_forcibly_percent: 101,
        disk_warning_percent: 101,
        transfer_bytes_in_memory: 256 << 10,
        transfer_count_in_memory: 32,
        transfer_bytes_on_disk: 64 << 10,
        transfer_count_on_disk: 8,
        in_memory_span: 1 << 30,
    }
}

struct Given {
    dir: tempfile::TempDir,
    log: Log,
    reader: Reader,
    arrived: Arc<Mutex<Vec<(String, i32, i64)>>>,
}

fn given(change: impl FnOnce(&mut LogOptions)) -> Given {
    let dir = tempfile::tempdir().unwrap();
    let store = store_options(dir.path());
    given_on(dir, store, change)
}

fn given_on(
    dir: tempfile::TempDir,
    store: StoreOptions,
    change: impl FnOnce(&mut LogOptions),
) -> Given {
    let opened = Writer::open(store, 1).unwrap();
    let arrived: Arc<Mutex<Vec<(String, i32, i64)>>> = Arc::default();
    let told = arrived.clone();
    let mut options = LogOptions {
        sync_flush: false,
        flush_timeout: Duration::from_secs(5),
        replica_timeout: Duration::from_secs(3),
        flush_interval: Duration::from_millis(500),
        queue_len: 1000,
        slave: false,
        on_arrivals: Box::new(move |arrivals| {
            let mut told = told.lock().unwrap();
            told.extend(
                arrivals
                    .iter()
                    .map(|a| (a.topic.to_string(), a.queue_id, a.max_offset)),
            );
        }),
        on_failure: Box::new(|error| panic!("the store failed: {error}")),
        delete_when: vec![4],
        zone: Default::default(),
    };
    change(&mut options);
    Given {
        dir,
        reader: opened.reader,
        log: Log::start(opened.writer, options),
        arrived,
    }
}

fn batch(queue_id: i32, count: usize) -> RecordBatch {
    let host = SocketAddr::from(([127, 0, 0, 1], 10911));
    let topic: Arc<str> = "T".into();
    let mut batch = RecordBatch::new();
    for _ in 0..count {
        let record = Record {
            queue_id,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"body",
            topic: "T",
            properties: "TAGS\u{1}a\u{2}",
        };
        batch.push(&topic, &record).unwrap();
    }
    batch
}

type Told = Result<(Vec<i64>, Outcome), AppendError>;

fn append(log: &Log, batch: RecordBatch, requirement: Requirement) -> Receiver<Told> {
    let (tell, told) = channel();
    let done = Box::new(
        move |result: Result<(rocketmq_store::Placed, Outcome), AppendError>| {
            let offsets =
                |placed: rocketmq_store::Placed| placed.records.iter().map(|(q, _)| *q).collect();
            let _ = tell.send(result.map(|(placed, outcome)| (offsets(placed), outcome)));
        },
    );
    log.append(batch, requirement, done).unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_answered_in_order_with_their_offsets_and_arrivals_are_told() {
    let given = given(|_| {});
    let first = append(&given.log, batch(0, 2), Requirement::default());
    let second = append(&given.log, batch(0, 1), Requirement::default());
    assert_eq!(
        first.recv().unwrap().unwrap(),
        (vec![0, 1], Outcome::Stored)
    );
    assert_eq!(second.recv().unwrap().unwrap(), (vec![2], Outcome::Stored));
    assert_eq!(given.reader.queue_bounds("T", 0), (0, 3));
    given.log.stop().await.unwrap();
    let arrived = given.arrived.lock().unwrap().clone();
    assert_eq!(
        arrived,
        [("T".into(), 0, 1), ("T".into(), 0, 2), ("T".into(), 0, 3)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_flush_an_answer_comes_when_the_bytes_are_on_disk() {
    let given = given(|options| options.sync_flush = true);
    let told = append(&given.log, batch(0, 1), SYNC_FLUSH);
    assert_eq!(told.recv().unwrap().unwrap().1, Outcome::Stored);
    assert_eq!(given.reader.log_flushed(), given.reader.log_end());
    let positions = *given.log.positions().borrow();
    assert_eq!(
        (positions.end, positions.flushed),
        (given.reader.log_end(), given.reader.log_end())
    );
    given.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_flush_a_send_by_itself_is_synced_by_who_appends_it() {
    // In memory: a sync takes no time, unless the thread is kept from the processor.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = store_options(dir.path());
    let given = given_on(dir, store, |options| options.sync_flush = true);
    let here = std::thread::current().id();
    let answered_by = || {
        let (tell, told) = channel();
        let done = Box::new(move |_| {
            let _ = tell.send(std::thread::current().id());
        });
        given.log.bring(batch(0, 1), SYNC_FLUSH, done).unwrap();
        given.log.append_brought();
        told.recv().unwrap()
    };
    // How quick the disk is, is known from the first sync, which is the flush thread's.
    let answered_here = (0..1000).filter(|_| answered_by() == here).count();
    assert!(answered_here > 500, "{answered_here} of 1000");
    given.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_flush_an_arrival_is_told_when_readers_can_see_it() {
    let (tell, told) = channel();
    let reader: Arc<std::sync::OnceLock<Reader>> = Arc::default();
    let of_log = reader.clone();
    let dir = tempfile::tempdir().unwrap();
    let mut store = store_options(dir.path());
    store.visible_when_synced = true;
    let given = given_on(dir, store, |options| {
        options.sync_flush = true;
        options.on_arrivals = Box::new(move |arrivals| {
            let reader = of_log.get().expect("it is set before the first append");
            for arrival in arrivals {
                let (_, end) = reader.queue_bounds(&arrival.topic, arrival.queue_id);
                let _ = tell.send((arrival.max_offset, end));
            }
        });
    });
    reader.set(given.reader.clone()).unwrap();
    for number in 1..=20 {
        // Nobody waits for the disk on its behalf: WAIT=false.
        append(&given.log, batch(0, 1), Requirement::default());
        let (arrived, seen) = told.recv().unwrap();
        assert_eq!(arrived, number);
        assert!(
            seen >= arrived,
            "told of {arrived}, and the queue ends at {seen}"
        );
    }
    given.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_needs_a_slave_waits_for_its_report() {
    let given = given(|_| {});
    let told = append(&given.log, batch(0, 1), ONE_SLAVE);
    let mut positions = given.log.positions();
    let end = positions
        .wait_for(|positions| positions.end > 0)
        .await
        .unwrap()
        .end;
    assert!(told.try_recv().is_err());
    let slave = SocketAddr::from(([10, 0, 0, 2], 4000));
    given.log.replica_acked(slave, end - 1);
    assert!(told.try_recv().is_err());
    given.log.replica_acked(slave, end);
    assert_eq!(told.recv().unwrap().unwrap().1, Outcome::Stored);
    given.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_slave_the_answer_is_a_timeout_and_the_message_stays() {
    let given = given(|options| options.replica_timeout = Duration::from_millis(1));
    let told = append(&given.log, batch(0, 1), ONE_SLAVE);
    assert_eq!(
        told.recv().unwrap().unwrap(),
        (vec![0], Outcome::ReplicaTimeout)
    );
    assert_eq!(given.reader.queue_bounds("T", 0), (0, 1));
    given.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_stop_is_answered_and_the_store_closed_cleanly() {
    let given = given(|_| {});
    let answers: Vec<_> = (0..50)
        .map(|_| append(&given.log, batch(0, 3), SYNC_FLUSH))
        .collect();
    let lonely = append(&given.log, batch(1, 1), ONE_SLAVE);
    given.log.stop().await.unwrap();
    for told in answers {
        assert_eq!(told.recv().unwrap().unwrap().1, Outcome::Stored);
    }
    assert_eq!(lonely.recv().unwrap().unwrap().1, Outcome::ReplicaTimeout);
    let refused = given
        .log
        .append(batch(0, 1), Requirement::default(), Box::new(|_| {}));
    assert!(matches!(refused, Err(AppendError::Stopped(_))));
    let again = Writer::open(store_options(given.dir.path()), 2).unwrap();
    assert!(again.recovery.clean);
    assert_eq!(again.reader.queue_bounds("T", 0), (0, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slaves_log_takes_its_masters_bytes_and_nothing_else() {
    let master = given(|_| {});
    append(&master.log, batch(0, 10), Requirement::default())
        .recv()
        .unwrap()
        .unwrap();
    let slave = given(|options| options.slave = true);
    let refused = slave
        .log
        .append(batch(0, 1), Requirement::default(), Box::new(|_| {}));
    assert!(matches!(refused, Err(AppendError::Slave)));
    let bytes = master.reader.log_bytes(0, 1 << 20).unwrap();
    let end = slave.log.append_raw(0, bytes.clone()).await.unwrap();
    assert_eq!(end, bytes.len() as i64);
    assert_eq!(slave.reader.queue_bounds("T", 0), (0, 10));
    assert_eq!(slave.arrived.lock().unwrap().len(), 10);
    let again = slave.log.append_raw(0, bytes).await;
    assert!(matches!(
        again,
        Err(StoreError::NotContiguous { got: 0, .. })
    ));
    slave.log.stop().await.unwrap();
    master.log.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_ends_acknowledgements_and_tells_the_broker() {
    let (tell, told) = channel();
    let given = given(|options| {
        options.sync_flush = true;
        options.on_failure = Box::new(move |error| {
            let _ = tell.send(error.to_string());
        });
    });
    // A directory where the next commit log file should be made is an error that is no full disk.
    let next = given
        .dir
        .path()
        .join("commitlog")
        .join(format!("{:020}", 1 << 20));
    std::fs::create_dir_all(&next).unwrap();
    let mut answers = Vec::new();
    for _ in 0..20 {
        let (tell, answer) = channel();
        let sent = given.log.append(
            batch(0, 600),
            SYNC_FLUSH,
            Box::new(move |result| {
                drop(tell.send(result.map(|(placed, outcome)| (placed.end, outcome))))
            }),
        );
        match sent {
            Ok(()) => answers.push(answer),
            Err(error) => assert!(matches!(error, AppendError::Stopped(_)), "{error}"),
        }
    }
    let reason = told.recv().unwrap();
    assert!(reason.contains("making"), "{reason}");
    let flushed = given.reader.log_flushed();
    for answer in answers {
        match answer.recv().unwrap() {
            Ok((end, Outcome::Stored)) => assert!(end <= flushed),
            Ok((_, outcome)) => assert_eq!(outcome, Outcome::FlushTimeout),
            Err(error) => assert!(matches!(error, AppendError::Stopped(_)), "{error}"),
        }
    }
    let refused = given
        .log
        .append(batch(0, 1), Requirement::default(), Box::new(|_| {}));
    assert!(matches!(refused, Err(AppendError::Stopped(_))));
}

#[tokio::test]
async fn a_panic_while_appending_stops_the_store_as_a_failed_write_does() {
    let (tell, told) = channel();
    let given = given(|options| {
        options.on_failure = Box::new(move |error| {
            let _ = tell.send(error.to_string());
        });
    });
    let sent = given.log.append(
        batch(0, 1),
        Requirement::default(),
        Box::new(|_| panic!("as a fault of ours would")),
    );
    sent.unwrap();
    // The task that appends runs on this test's only thread.
    let reason = tokio::task::spawn_blocking(move || told.recv().unwrap());
    let reason = reason.await.unwrap();
    assert!(reason.contains("appending panicked"), "{reason}");
    let refused = given
        .log
        .append(batch(0, 1), Requirement::default(), Box::new(|_| {}));
    assert!(matches!(refused, Err(AppendError::Stopped(_))));
}
