//! Planted bugs. A harness that does not find them finds nothing: each is found within so many seeds. They are planted around
//! the store, by a disk that lies or a test that believes too early; the store has no switch for them.

use crate::check;
use crate::run::Bug;

/// Finds the bug, and says how.
fn found(bug: Bug, within: u64, signs: &[&str]) {
    for seed in 0..within {
        if let Err(why) = check(seed, Some(bug)) {
            assert!(
                signs.iter().any(|sign| why.contains(sign)),
                "{bug:?} was found, but not for what it is: {why}"
            );
            println!("{bug:?} found by seed {seed}: {why}");
            return;
        }
    }
    panic!("{bug:?} was not found within {within} seeds");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found(Bug::AcknowledgedBeforeSync, 100, &["lost: the log ends at"]);
}

#[test]
fn a_skipped_truncation_is_found() {
    found(
        Bug::CutSkipped,
        5000,
        &[
            "records under the key",
            "not its master's",
            "nobody asked for",
            "is not what was sent",
            "damage in the commit log",
        ],
    );
}

#[test]
fn a_checksum_that_nobody_looks_at_is_found() {
    found(
        Bug::ChecksumUnchecked,
        1000,
        &[
            "is not what was sent",
            "differs from what was answered",
            "no record at",
            "not its master's",
        ],
    );
}

#[test]
fn a_failed_sync_that_is_tried_again_is_found() {
    found(
        Bug::SyncRetried,
        5000,
        &[
            "a call failed, and the store goes on",
            "lost: the",
            "damage in the commit log",
            "without need",
            "differs",
            "is version None",
        ],
    );
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    found(
        Bug::DirectoryNotSynced,
        100,
        &[
            "lost: the",
            "is version None",
            "does not open",
            "without need",
        ],
    );
}

#[test]
fn a_checkpoint_ahead_of_what_it_speaks_of_is_found() {
    found(
        Bug::CheckpointAhead,
        500,
        &[
            "without need",
            "differs",
            "the log says",
            "records under the key",
        ],
    );
}
