//! Kills at random points, from a seed. What may fail: the process ends between any two calls (files stay as written, memory
//! is gone), and the last append may have reached the disk in part, cut at any byte. What must hold: every acknowledged
//! message is there, under its offset, exactly once; queues equal a rebuild from the log; the store goes on.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod given;
use given::*;
use rocketmq_store::Writer;
use std::collections::BTreeMap;

/// A small generator, so that a seed is all that a run needs (xorshift64*).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// Runs one seed. Another can be tried with `SEED=n`.
fn check(seed: u64) {
    let mut random = Seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<(String, i32), Vec<Sent>> = BTreeMap::new();
    let mut number = 0;
    for _life in 0..6 {
        let mut opened = Writer::open(options(dir.path()), 1_000)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for ((topic, queue_id), sent) in &acknowledged {
            assert_eq!(
                &read_all(&opened.reader, topic, *queue_id),
                sent,
                "seed {seed}, {topic}/{queue_id}"
            );
        }
        for _ in 0..random.below(60) {
            match random.below(12) {
                0 => opened.writer.housekeep(1_000).unwrap(),
                1 => {
                    opened.reader.query("A", "key-1", 8, 0, i64::MAX).unwrap();
                }
                _ => {
                    let sent: Vec<Sent> = (0..=random.below(12))
                        .map(|_| {
                            number += 1;
                            let topic = ["A", "B", "%RETRY%C"][random.below(3) as usize];
                            let mut one = message(topic, random.below(3) as i32, number, "tag");
                            one.body.resize(random.below(3000) as usize, number as u8);
                            one
                        })
                        .collect();
                    append(&mut opened.writer, &sent, 1_000);
                    for one in sent {
                        acknowledged
                            .entry((one.topic.clone(), one.queue_id))
                            .or_default()
                            .push(one);
                    }
                }
            }
        }
        let end = opened.reader.log_end();
        match random.below(4) {
            0 => opened.writer.close(1_000).unwrap(),
            1 => drop(opened),
            _ => {
                // One more append that nobody got an answer to, of which any prefix is there.
                let mut torn = message("A", 0, 0, "");
                torn.body = vec![7; 200 + random.below(2000) as usize];
                let placed = append(&mut opened.writer, &[torn], 1_000);
                let at = placed.records[0].1;
                drop(opened);
                let kept = random.below((placed.end - at) as u64) as i64;
                overwrite(
                    dir.path(),
                    at + kept,
                    &vec![0; (placed.end - at - kept) as usize],
                );
                assert!(at >= end);
            }
        }
    }
    // What recovery keeps up by the checkpoint is what a rebuild from nothing gives.
    drop(Writer::open(options(dir.path()), 1_000).unwrap());
    let kept = everything(&Writer::open(options(dir.path()), 1_000).unwrap().reader);
    std::fs::remove_dir_all(dir.path().join("consumequeue")).unwrap();
    std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let rebuilt = everything(&Writer::open(options(dir.path()), 1_000).unwrap().reader);
    assert_eq!(kept, rebuilt, "seed {seed}");
}

#[test]
fn no_acknowledged_message_is_lost_by_kills_at_random_points() {
    match std::env::var("SEED") {
        Ok(seed) => check(seed.parse().expect("SEED is a number")),
        Err(_) => (0..40).for_each(check),
    }
}
