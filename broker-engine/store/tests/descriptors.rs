//! Many queues fit in few descriptors. A binary of its own: the limit holds for the whole process.

#![allow(clippy::unwrap_used)]

mod given;

use given::{append, batch, message, now_ms, options};
use rocketmq_store::Writer;
use rustix::process::{Resource, Rlimit, setrlimit};

const QUEUES: i32 = 3000;

#[test]
fn three_thousand_queues_are_written_with_512_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Rlimit {
        current: Some(512),
        maximum: Some(512),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let now = now_ms();
    let opened = Writer::open(options(dir.path()), now).unwrap();
    let (mut writer, reader) = (opened.writer, opened.reader);
    for queue in 0..QUEUES {
        let sent = [message("wide", queue, queue, "")];
        writer.append(&mut [batch(&sent)], now).unwrap();
    }
    writer.checkpoint_job(now).unwrap().run().unwrap();
    append(&mut writer, &[message("wide", 7, QUEUES, "")], now);
    writer.checkpoint_job(now).unwrap().run().unwrap();
    let ends: i64 = (0..QUEUES)
        .map(|queue| reader.queue_bounds("wide", queue).1)
        .sum();
    assert_eq!(ends, i64::from(QUEUES) + 1);
    writer.close(now).unwrap();
}
