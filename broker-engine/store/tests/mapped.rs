//! Records that go to a socket unseen: the same bytes as those that are read, whichever way they come.

#![allow(clippy::unwrap_used)]

mod given;

use given::{FILE_SIZE, append, message, options, overwrite};
use rocketmq_store::{Reader, Writer};

const QUEUES: i32 = 5;

/// More than what stays in memory of a log's end.
fn written(writer: &mut Writer) {
    for n in 0..9_000 {
        append(
            writer,
            &[message("T", n % QUEUES, n, &"x".repeat(300))],
            1_000,
        );
    }
}

fn both(reader: &Reader, from: i64) -> (Vec<u8>, Vec<u8>, usize, usize) {
    let all = &mut |_: &_| Ok(true);
    let looked = reader.read_queue("T", 1, from, 16, 1 << 20, all).unwrap();
    let sent = reader
        .read_queue_to_send("T", 1, from, 16, 1 << 20, all)
        .unwrap();
    assert_eq!(
        (looked.status, looked.next_offset, looked.count),
        (sent.status, sent.next_offset, sent.count)
    );
    let spans = sent.spans.len();
    (
        looked.spans.concat(),
        sent.spans.concat(),
        sent.of_files,
        spans,
    )
}

fn mapped(root: &std::path::Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let log = root.join("commitlog");
    let log = log.to_str().unwrap();
    maps.lines().filter(|line| line.contains(log)).count()
}

#[test]
fn what_is_sent_from_a_files_pages_is_what_is_read_and_outlives_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    written(&mut opened.writer);
    let reader = &opened.reader;
    assert_eq!(mapped(dir.path()), 0);
    for round in 0..100 {
        let (looked, sent, of_files, spans) = both(reader, 3 + round % 7);
        assert_eq!(looked, sent);
        assert_eq!(of_files, spans, "the oldest records are not in memory");
    }
    assert!(
        mapped(dir.path()) > 0,
        "a file that is read so often is mapped"
    );
    let (_, max) = reader.queue_bounds("T", 1);
    for back in [1, 2, 16, 100, 600, 1200, 1500] {
        let (looked, sent, ..) = both(reader, max - back);
        assert_eq!(looked, sent, "{back} before the end");
    }
    for at in [0, 1, 4096, FILE_SIZE as i64 - 1] {
        let sent = reader.log_bytes_to_send(at, 9_000).unwrap();
        assert_eq!(sent, reader.log_bytes(at, 9_000).unwrap(), "at {at}");
    }
    let all = &mut |_: &_| Ok(true);
    let held = reader
        .read_queue_to_send("T", 1, 3, 16, 1 << 20, all)
        .unwrap();
    let bytes = reader.read_queue("T", 1, 3, 16, 1 << 20, all).unwrap();
    opened.writer.housekeep(1_000).unwrap();
    let much_later = given::now_ms() + 2 * options(dir.path()).file_reserved.as_millis() as i64;
    while opened.writer.clean(much_later, true).unwrap() > 0 {}
    assert!(opened.reader.log_start() > 0);
    assert_eq!(held.spans.concat(), bytes.spans.concat());
    drop(held);
    assert_eq!(mapped(dir.path()), 0, "a deleted file does not stay mapped");
}

#[test]
fn what_an_earlier_process_wrote_is_looked_at_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    written(&mut opened.writer);
    opened.writer.close(1_000).unwrap();
    let opened = Writer::open(options(dir.path()), 2_000).unwrap();
    for _ in 0..100 {
        let (looked, sent, ..) = both(&opened.reader, 3);
        assert_eq!(looked, sent);
    }
    let entry = opened.reader.queue_entries("T", 1, 3, 1).unwrap()[0];
    overwrite(dir.path(), entry.physical_offset + 100, b"?");
    let all = &mut |_: &_| Ok(true);
    let sent = (opened.reader).read_queue_to_send("T", 1, 3, 16, 1 << 20, all);
    let error = sent.unwrap_err().to_string();
    assert!(
        error.contains(&entry.physical_offset.to_string()),
        "{error}"
    );
}

#[test]
fn an_entry_that_tells_of_more_than_its_file_holds_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    written(&mut opened.writer);
    opened.writer.housekeep(1_000).unwrap();
    for _ in 0..100 {
        both(&opened.reader, 3);
    }
    assert!(mapped(dir.path()) > 0);
    // The size of the queue's third entry: to behind the end of the log's first file.
    let path = dir.path().join("consumequeue/T/1/00000000000000000000");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let size = (FILE_SIZE as i32 + 1).to_be_bytes();
    std::os::unix::fs::FileExt::write_all_at(&file, &size, 3 * 20 + 8).unwrap();
    let all = &mut |_: &_| Ok(true);
    let looked = opened.reader.read_queue("T", 1, 3, 16, 1 << 20, all);
    let sent = (opened.reader).read_queue_to_send("T", 1, 3, 16, 1 << 20, all);
    assert_eq!(
        looked
            .map_err(|error| error.to_string())
            .map(|read| read.count),
        sent.map_err(|error| error.to_string())
            .map(|read| read.count)
    );
}
