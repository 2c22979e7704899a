//! The store as its owner and its readers see it: appended, read, stopped, killed, opened again.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod given;
use given::*;
use rocketmq_store::reader::Boundary;
use rocketmq_store::{ReadStatus, StoreError, StoreOptions, Writer};

#[test]
fn what_was_appended_is_read_back_in_queue_order_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let sent: Vec<Sent> = (0..20).map(|n| message("T", n % 2, n, "")).collect();
    let placed = append(&mut opened.writer, &sent, 1_000);
    assert_eq!(
        placed.records.iter().map(|(q, _)| *q).collect::<Vec<_>>(),
        (0..20).map(|n| n / 2).collect::<Vec<_>>()
    );
    let expected: Vec<Sent> = sent.iter().filter(|m| m.queue_id == 1).cloned().collect();
    assert_eq!(read_all(&opened.reader, "T", 1), expected);
    assert_eq!(opened.reader.queue_bounds("T", 1), (0, 10));
}

#[test]
fn a_read_outside_the_queue_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    append(
        &mut opened.writer,
        &[message("T", 0, 0, ""), message("T", 0, 1, "")],
        1_000,
    );
    let reader = &opened.reader;
    let check = |topic: &str, from: i64, status: ReadStatus, next: i64| {
        let read = reader
            .read_queue(topic, 0, from, 32, 1 << 20, &mut |_| Ok(true))
            .unwrap();
        assert_eq!(
            (read.status, read.next_offset),
            (status, next),
            "{topic} from {from}"
        );
    };
    check("T", 0, ReadStatus::Found, 2);
    check("T", 1, ReadStatus::Found, 2);
    check("T", 2, ReadStatus::OffsetOverflowOne, 2);
    check("T", 3, ReadStatus::OffsetOverflowBadly, 2);
    check("T", -1, ReadStatus::OffsetTooSmall, 0);
    check("unknown", 5, ReadStatus::NoMatchedLogicQueue, 0);
}

/// A broker that is killed on a disk that filled up in its first second writes the checkpoint anew when it starts, and must find
/// room for it.
#[test]
fn the_checkpoint_has_its_room_before_the_first_message() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let _opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let file = std::fs::metadata(dir.path().join("checkpoint")).unwrap();
    assert_eq!((file.len(), file.blocks() * 512 >= 4096), (4096, true));
}

/// So that a sync finds blocks that were written before; what is behind the end is nothing all the same.
#[test]
fn zeros_written_ahead_of_small_appends_are_no_part_of_the_log() {
    const AHEAD: usize = 100 << 10;
    for zeros_ahead in [0, AHEAD] {
        let dir = tempfile::tempdir().unwrap();
        let roomy = || StoreOptions {
            commit_log_file_size: 1 << 20,
            zeros_ahead,
            ..options(dir.path())
        };
        let mut opened = Writer::open(roomy(), 1_000).unwrap();
        let mut sent = vec![message("T", 0, 0, "")];
        let end = append(&mut opened.writer, &sent, 1_000).end;
        let file = std::fs::File::open(dir.path().join("commitlog/00000000000000000000")).unwrap();
        // Whether blocks in the middle of what is behind `end` are written.
        let written_behind = |end: i64| {
            let far = end as u64 + (AHEAD / 2) as u64;
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(far)) == Ok(far)
        };
        assert_eq!(written_behind(end), zeros_ahead > 0);
        // The process dies; what it wrote is in the page cache.
        drop(opened);
        let mut again = Writer::open(roomy(), 1_000).unwrap();
        assert_eq!(
            (again.recovery.log_end, again.recovery.truncated_bytes),
            (end, 0)
        );
        sent.extend((1..2_000).map(|n| message("T", 0, n, "")));
        let mut end = end;
        for one in &sent[1..] {
            end = append(&mut again.writer, std::slice::from_ref(one), 1_000).end;
        }
        assert!(!written_behind(end), "{end} bytes wait for one sync");
        again.writer.syncer().sync().unwrap();
        sent.push(message("T", 0, 2_000, ""));
        let end = append(&mut again.writer, &sent[2_000..], 1_000).end;
        assert_eq!(written_behind(end), zeros_ahead > 0, "{end}");
        assert_eq!(read_all(&again.reader, "T", 0), sent);
    }
}

/// #8239 of apache/rocketmq: a consumer that was given what a power cut takes back goes on behind it, and misses what is stored
/// there next.
#[test]
fn with_sync_flush_readers_see_what_is_on_disk_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let careful = || StoreOptions {
        visible_when_synced: true,
        zeros_ahead: 3_000,
        ..options(dir.path())
    };
    let mut opened = Writer::open(careful(), 1_000).unwrap();
    let (syncer, reader) = (opened.writer.syncer(), &opened.reader);
    let sent: Vec<Sent> = (0..60).map(|n| message("T", n % 2, n, "")).collect();
    let of_queue = |count: usize| -> Vec<Sent> {
        let of_queue = sent.iter().filter(|m| m.queue_id == 1);
        of_queue.take(count).cloned().collect()
    };
    append(&mut opened.writer, &sent[..20], 1_000);
    assert_eq!(reader.queue_bounds("T", 1), (0, 0));
    assert!(reader.queue_entries("T", 1, 0, 32).unwrap().is_empty());
    assert!(
        reader
            .query("T", "key-3", 8, 0, i64::MAX)
            .unwrap()
            .records
            .is_empty()
    );
    syncer.sync().unwrap();
    for unsynced in 1..=40 {
        append(
            &mut opened.writer,
            &sent[19 + unsynced..20 + unsynced],
            1_000,
        );
        assert_eq!(reader.queue_bounds("T", 1), (0, 10), "{unsynced} unsynced");
        assert_eq!(read_all(reader, "T", 1), of_queue(10));
        assert_eq!(reader.queue_entries("T", 1, 8, 32).unwrap().len(), 2);
    }
    let later = reader
        .offset_by_time("T", 1, 2_000, Boundary::Lower)
        .unwrap();
    assert_eq!(later, 10);
    syncer.sync().unwrap();
    assert_eq!(read_all(reader, "T", 1), of_queue(30));
    assert_eq!(
        reader
            .query("T", "key-59", 8, 0, i64::MAX)
            .unwrap()
            .records
            .len(),
        1
    );

    // What only the page cache holds when the process dies is on disk before anyone sees it again.
    append(&mut opened.writer, &[message("T", 1, 60, "")], 1_000);
    drop(opened);
    let again = Writer::open(careful(), 1_000).unwrap();
    assert_eq!(again.reader.queue_bounds("T", 1), (0, 31));
    assert_eq!(again.reader.log_flushed(), again.reader.log_end());
}

#[test]
fn a_filter_passes_over_what_it_does_not_want_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let sent: Vec<Sent> = (0..10)
        .map(|n| message("T", 0, n, if n % 3 == 0 { "A" } else { "B" }))
        .collect();
    append(&mut opened.writer, &sent, 1_000);
    let wanted = i64::from(rocketmq_protocol::hash::java_string("A"));
    let read = opened
        .reader
        .read_queue("T", 0, 0, 32, 1 << 20, &mut |entry| {
            Ok(entry.tags_code == wanted)
        })
        .unwrap();
    assert_eq!(
        (read.status, read.count, read.next_offset),
        (ReadStatus::Found, 4, 10)
    );
    let read = opened
        .reader
        .read_queue("T", 0, 0, 32, 1 << 20, &mut |_| Ok(false))
        .unwrap();
    assert_eq!(
        (read.status, read.count, read.next_offset),
        (ReadStatus::NoMatchedMessage, 0, 10)
    );
}

#[test]
fn everything_survives_a_clean_stop_and_nothing_is_dispatched_again() {
    let dir = tempfile::tempdir().unwrap();
    let sent: Vec<Sent> = (0..500).map(|n| message("T", n % 3, n, "tag")).collect();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    for part in sent.chunks(7) {
        append(&mut opened.writer, part, 1_000);
    }
    let before = everything(&opened.reader);
    opened.writer.close(2_000).unwrap();
    assert!(!dir.path().join("abort").exists());
    let again = Writer::open(options(dir.path()), 3_000).unwrap();
    assert!(again.recovery.clean);
    assert_eq!(
        (
            again.recovery.redispatched_records,
            again.recovery.truncated_bytes
        ),
        (0, 0)
    );
    assert_eq!(everything(&again.reader), before);
    assert!(dir.path().join("abort").exists());
}

#[test]
fn everything_survives_a_kill_with_and_without_a_checkpoint() {
    for checkpoint in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let sent: Vec<Sent> = (0..500).map(|n| message("T", n % 3, n, "tag")).collect();
        let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
        for (number, part) in sent.chunks(7).enumerate() {
            append(&mut opened.writer, part, 1_000);
            if checkpoint && number == 40 {
                opened.writer.housekeep(1_000).unwrap();
            }
        }
        let before = everything(&opened.reader);
        drop(opened);
        let mut again = Writer::open(options(dir.path()), 3_000).unwrap();
        assert!(!again.recovery.clean);
        assert_eq!(
            again.recovery.redispatched_records,
            if checkpoint { 500 - 41 * 7 } else { 500 }
        );
        assert_eq!(everything(&again.reader), before);
        // And it goes on behind.
        append(&mut again.writer, &[message("T", 0, 1000, "")], 4_000);
        assert_eq!(again.reader.queue_bounds("T", 0).1, 168);
    }
}

#[test]
fn a_torn_last_record_is_cut_on_recovery_and_its_bytes_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    append(&mut opened.writer, &[message("T", 0, 0, "")], 1_000);
    let end = append(&mut opened.writer, &[message("T", 0, 1, "")], 1_000).end;
    let last = append(&mut opened.writer, &[message("T", 0, 2, "")], 1_000);
    drop(opened);
    overwrite(dir.path(), last.end - 70, &[0; 70]);
    let again = Writer::open(options(dir.path()), 3_000).unwrap();
    assert_eq!(again.recovery.log_end, end);
    assert!(again.recovery.truncated_bytes > 0);
    assert_eq!(again.reader.queue_bounds("T", 0), (0, 2));
    assert_eq!(log_tail(dir.path(), end), None);
}

#[test]
fn a_damaged_record_with_whole_ones_behind_it_is_reported_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let bad = append(&mut opened.writer, &[message("T", 0, 0, "")], 1_000).end;
    let next = append(&mut opened.writer, &[message("T", 0, 1, "")], 1_000).end;
    append(&mut opened.writer, &[message("T", 0, 2, "")], 1_000);
    drop(opened);
    let before = whole_log(dir.path());
    overwrite(dir.path(), bad + 90, b"?");
    match Writer::open(options(dir.path()), 3_000) {
        Err(StoreError::Damaged {
            at, next: found, ..
        }) => assert_eq!((at, found), (bad, Some(next))),
        other => panic!("expected damage, got {other:?}"),
    }
    overwrite(dir.path(), bad + 90, &before[bad as usize + 90..][..1]);
    assert_eq!(whole_log(dir.path()), before);
    assert_eq!(
        Writer::open(options(dir.path()), 3_000)
            .unwrap()
            .reader
            .queue_bounds("T", 0),
        (0, 3)
    );
}

#[test]
fn a_second_owner_of_a_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _opened = Writer::open(options(dir.path()), 1_000).unwrap();
    assert!(matches!(
        Writer::open(options(dir.path()), 1_000),
        Err(StoreError::Locked(_))
    ));
}

#[test]
fn a_log_file_that_the_process_died_in_making_is_made_anew() {
    for len in [0, 1, 4096, FILE_SIZE - 1] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
        let sent = [message("T", 0, 1, "")];
        append(&mut opened.writer, &sent, 1_000);
        drop(opened);
        let unfinished = dir.path().join(format!("commitlog/{FILE_SIZE:020}"));
        std::fs::File::create(&unfinished)
            .unwrap()
            .set_len(len)
            .unwrap();
        let again = Writer::open(options(dir.path()), 1_000).unwrap();
        assert_eq!(read_all(&again.reader, "T", 0), sent, "{len} bytes");
        assert!(!unfinished.exists());
        // One that holds something is somebody's.
        drop(again);
        std::fs::write(&unfinished, [1; 100]).unwrap();
        let refused = Writer::open(options(dir.path()), 1_000);
        assert!(matches!(
            refused,
            Err(StoreError::FileSize { found: 100, .. })
        ));
    }
}

#[test]
fn files_of_another_size_are_refused_with_the_property_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    append(&mut opened.writer, &[message("T", 0, 0, "")], 1_000);
    opened.writer.close(1_000).unwrap();
    let mut other = options(dir.path());
    other.commit_log_file_size *= 2;
    match Writer::open(other, 1_000) {
        Err(StoreError::FileSize { property, .. }) => {
            assert_eq!(property, "mappedFileSizeCommitLog")
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_batch_that_does_not_fit_in_a_file_is_moved_whole_behind_filler() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let mut sent = Vec::new();
    while opened.reader.log_end() < FILE_SIZE as i64 - 600 {
        let one = message("T", 0, sent.len() as i32, "");
        append(&mut opened.writer, std::slice::from_ref(&one), 1_000);
        sent.push(one);
    }
    let batch: Vec<Sent> = (0..8).map(|n| message("T", 0, 10_000 + n, "")).collect();
    let placed = append(&mut opened.writer, &batch, 1_000);
    assert_eq!(placed.records[0].1, FILE_SIZE as i64);
    sent.extend(batch);
    assert_eq!(read_all(&opened.reader, "T", 0), sent);
    drop(opened);
    let again = Writer::open(options(dir.path()), 3_000).unwrap();
    assert_eq!(read_all(&again.reader, "T", 0), sent);
}

#[test]
fn queues_and_index_can_be_deleted_and_are_rebuilt_from_the_log() {
    for gone in ["consumequeue", "index"] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
        let sent: Vec<Sent> = (0..300).map(|n| message("T", n % 3, n, "tag")).collect();
        append(&mut opened.writer, &sent, 1_000);
        let before = everything(&opened.reader);
        opened.writer.close(2_000).unwrap();
        std::fs::remove_dir_all(dir.path().join(gone)).unwrap();
        let again = Writer::open(options(dir.path()), 3_000).unwrap();
        assert_eq!(everything(&again.reader), before, "without {gone}");
        let hits = again.reader.query("T", "key-7", 32, 0, i64::MAX).unwrap();
        assert_eq!(hits.records.len(), 1, "without {gone}");
    }
}

#[test]
fn a_message_is_found_by_its_key_at_once_and_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let sent: Vec<Sent> = (0..50).map(|n| message("T", 0, n, "")).collect();
    append(&mut opened.writer, &sent, 1_000);
    let check = |reader: &rocketmq_store::Reader, key: &str, count: usize| {
        assert_eq!(
            reader
                .query("T", key, 32, 0, i64::MAX)
                .unwrap()
                .records
                .len(),
            count,
            "{key}"
        );
    };
    check(&opened.reader, "key-7", 1);
    check(&opened.reader, "uniq-49", 1);
    check(&opened.reader, "key-50", 0);
    opened.writer.close(1_000).unwrap();
    let mut opened = Writer::open(options(dir.path()), 2_000).unwrap();
    check(&opened.reader, "key-7", 1);
    append(
        &mut opened.writer,
        &[message("T", 0, 50, ""), message("T", 1, 7, "")],
        2_000,
    );
    opened.writer.housekeep(2_000).unwrap();
    append(&mut opened.writer, &[message("T", 0, 51, "")], 2_500);
    drop(opened);
    let opened = Writer::open(options(dir.path()), 3_000).unwrap();
    check(&opened.reader, "key-7", 2);
    check(&opened.reader, "key-50", 1);
    check(&opened.reader, "key-51", 1);
    assert_eq!(
        opened
            .reader
            .query("T", "key-7", 32, 2_000, 2_000)
            .unwrap()
            .records
            .len(),
        1
    );
}

#[test]
fn a_search_by_time_finds_both_borders() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 0).unwrap();
    for (number, time) in [100, 100, 300, 300, 500].into_iter().enumerate() {
        append(
            &mut opened.writer,
            &[message("T", 0, number as i32, "")],
            time,
        );
    }
    let check = |time: i64, lower: i64, upper: i64| {
        let at = |boundary| {
            opened
                .reader
                .offset_by_time("T", 0, time, boundary)
                .unwrap()
        };
        assert_eq!(
            (at(Boundary::Lower), at(Boundary::Upper)),
            (lower, upper),
            "at {time}"
        );
    };
    check(50, 0, 0);
    check(100, 0, 1);
    check(200, 2, 1);
    check(300, 2, 3);
    check(500, 4, 4);
    check(600, 5, 4);
}

#[test]
fn a_deleted_topic_stays_deleted_after_a_kill_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    append(
        &mut opened.writer,
        &[message("T", 0, 0, ""), message("U", 0, 1, "")],
        1_000,
    );
    opened.writer.delete_topic("T", 1_000).unwrap();
    assert_eq!(opened.reader.queue_bounds("T", 0), (0, 0));
    drop(opened);
    let mut opened = Writer::open(options(dir.path()), 2_000).unwrap();
    assert_eq!(opened.reader.queue_bounds("T", 0), (0, 0));
    assert_eq!(opened.reader.queue_bounds("U", 0), (0, 1));
    let again = message("T", 0, 5, "");
    append(&mut opened.writer, std::slice::from_ref(&again), 2_000);
    drop(opened);
    let opened = Writer::open(options(dir.path()), 3_000).unwrap();
    assert_eq!(read_all(&opened.reader, "T", 0), [again]);
}

#[test]
fn a_slave_fed_in_odd_pieces_ends_up_with_its_masters_bytes_and_queues() {
    let (master_dir, slave_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut master = Writer::open(options(master_dir.path()), 1_000).unwrap();
    for n in 0..900 {
        append(
            &mut master.writer,
            &[message("T", n % 3, n, "tag")],
            1_000 + i64::from(n),
        );
    }
    let mut slave = Writer::open(options(slave_dir.path()), 1_000).unwrap();
    let mut at = 0;
    let mut arrived = 0;
    for piece in (1..).map(|n| n * 37 % 1999 + 1) {
        let bytes = master.reader.log_bytes(at, piece).unwrap();
        if bytes.is_empty() {
            break;
        }
        at = slave.writer.append_raw(at, &bytes, 5_000).unwrap();
        arrived += slave.writer.arrivals().len();
    }
    assert_eq!(arrived, 900);
    assert_eq!(everything(&slave.reader), everything(&master.reader));
    assert_eq!(whole_log(slave_dir.path()), whole_log(master_dir.path()));
    assert!(matches!(
        slave.writer.append_raw(at + 1, b"x", 0),
        Err(StoreError::NotContiguous { .. })
    ));
    // A part of a record is not written: half a header could be taken for a whole one after a power cut.
    let more = append(&mut master.writer, &[message("T", 0, 5000, "")], 9_000);
    let torn = master.reader.log_bytes(at, 60).unwrap();
    assert_eq!(slave.writer.append_raw(at, &torn, 9_000).unwrap(), at);
    assert_eq!(slave.reader.log_end(), at);
    let file = whole_log(slave_dir.path());
    assert!(file[at as usize..].iter().all(|byte| *byte == 0));
    drop(slave);
    let mut slave = Writer::open(options(slave_dir.path()), 9_000).unwrap();
    assert_eq!(slave.reader.log_end(), at);
    let rest = master.reader.log_bytes(at, 1 << 20).unwrap();
    assert_eq!(slave.writer.append_raw(at, &rest, 9_000).unwrap(), more.end);
    assert_eq!(everything(&slave.reader), everything(&master.reader));
}

#[test]
fn an_empty_slave_may_start_at_a_later_file_of_its_master() {
    let (master_dir, slave_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut master = Writer::open(options(master_dir.path()), 1_000).unwrap();
    let mut n = 0;
    while master.reader.log_end() < FILE_SIZE as i64 + 3000 {
        append(&mut master.writer, &[message("T", 0, n, "tag")], 1_000);
        n += 1;
    }
    let mut slave = Writer::open(options(slave_dir.path()), 1_000).unwrap();
    let start = FILE_SIZE as i64;
    let bytes = master.reader.log_bytes(start, 1 << 20).unwrap();
    slave.writer.append_raw(start, &bytes, 1_000).unwrap();
    let check = |slave: &rocketmq_store::Reader| {
        let (min, max) = slave.queue_bounds("T", 0);
        assert_eq!(max, i64::from(n));
        assert!(min > 0 && min < max);
        assert_eq!(slave.log_start(), start);
        let from_master = master
            .reader
            .read_queue("T", 0, min, 100, 1 << 20, &mut |_| Ok(true))
            .unwrap();
        let from_slave = slave
            .read_queue("T", 0, min, 100, 1 << 20, &mut |_| Ok(true))
            .unwrap();
        assert_eq!(from_slave.spans.concat(), from_master.spans.concat());
        let below = slave
            .read_queue("T", 0, 0, 100, 1 << 20, &mut |_| Ok(true))
            .unwrap();
        assert_eq!(
            (below.status, below.next_offset),
            (ReadStatus::OffsetTooSmall, min)
        );
    };
    check(&slave.reader);
    slave.writer.housekeep(1_000).unwrap();
    check(&slave.reader);
    drop(slave);
    let slave = Writer::open(options(slave_dir.path()), 2_000).unwrap();
    check(&slave.reader);
}

#[test]
fn retention_takes_the_oldest_files_and_the_queues_begin_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut few = options(dir.path());
    few.consume_queue_file_entries = 100;
    let mut opened = Writer::open(few.clone(), 1_000).unwrap();
    for n in 0..1500 {
        append(&mut opened.writer, &[message("T", 0, n, "tag")], 1_000);
    }
    opened.writer.housekeep(1_000).unwrap();
    let now = now_ms();
    assert_eq!(opened.writer.clean(now, false).unwrap(), 0);
    assert_eq!(
        opened.writer.clean(now, true).unwrap(),
        0,
        "nothing is old enough"
    );
    let later = now + few.file_reserved.as_millis() as i64 + 60_000;
    assert!(opened.writer.clean(later, true).unwrap() > 0);
    let start = opened.reader.log_start();
    assert_eq!(
        start,
        opened.reader.log_end() / FILE_SIZE as i64 * FILE_SIZE as i64,
        "only the last file stays"
    );
    let (min, max) = opened.reader.queue_bounds("T", 0);
    assert_eq!(max, 1500);
    let first = opened.reader.queue_entries("T", 0, min, 1).unwrap()[0];
    assert_eq!(first.physical_offset, start);
    let files = std::fs::read_dir(dir.path().join("consumequeue/T/0"))
        .unwrap()
        .count() as i64;
    assert_eq!(files, max / 100 - min / 100);
    drop(opened);
    let opened = Writer::open(few, later).unwrap();
    assert_eq!(opened.reader.queue_bounds("T", 0), (min, max));
}

#[test]
fn prepared_and_rolled_back_records_are_in_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let mut sent: Vec<Sent> = (0..4).map(|n| message("T", 0, n, "")).collect();
    sent[1].sys_flag = 0x4;
    sent[2].sys_flag = 0xC;
    sent[3].sys_flag = 0x8;
    append(&mut opened.writer, &sent, 1_000);
    let queued = [sent[0].clone(), sent[3].clone()];
    assert_eq!(read_all(&opened.reader, "T", 0), queued);
    drop(opened);
    let opened = Writer::open(options(dir.path()), 1_000).unwrap();
    assert_eq!(read_all(&opened.reader, "T", 0), queued);
}

#[test]
fn a_delayed_record_carries_its_deliver_time_before_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let mut sent = [
        message("SCHEDULE_TOPIC_XXXX", 1, 0, "x"),
        message("SCHEDULE_TOPIC_XXXX", 1, 1, "x"),
    ];
    sent[0].properties.push_str("DELAY\u{1}2\u{2}");
    sent[1].properties.push_str("DELAY\u{1}99\u{2}");
    append(&mut opened.writer, &sent, 10_000);
    for _ in 0..2 {
        let codes: Vec<i64> = opened
            .reader
            .queue_entries("SCHEDULE_TOPIC_XXXX", 1, 0, 10)
            .unwrap()
            .iter()
            .map(|entry| entry.tags_code)
            .collect();
        assert_eq!(codes, [15_000, 40_000]);
        drop(opened);
        opened = Writer::open(options(dir.path()), 20_000).unwrap();
    }
}

#[test]
fn many_queues_work_with_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = Writer::open(options(dir.path()), 1_000).unwrap();
    let sent: Vec<Sent> = (0..2000)
        .map(|n| message(&format!("T{}", n / 2), n % 2, n, ""))
        .collect();
    append(&mut opened.writer, &sent, 1_000);
    opened.writer.housekeep(1_000).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 900, "{open} descriptors are open");
    let before = everything(&opened.reader);
    drop(opened);
    let again = Writer::open(options(dir.path()), 2_000).unwrap();
    assert_eq!(again.recovery.redispatched_records, 0);
    assert_eq!(everything(&again.reader), before);
}
