//! The kept corpora of `fuzz/`, replayed through the same functions by stable Rust: what once broke a decoder, or brought the fuzzer to
//! a place of its own, is tried with every test run. `fuzz/README.md` says how they came about.

// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// Runs every kept input of every target; a target that breaks is told with the input's file.
#[test]
fn every_kept_input_ends_without_a_panic_and_reads_the_same_again() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::ALL {
        let directory = corpora.join(name);
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name} breaks on {}", path.display());
            count += 1;
        }
        assert!(
            count > 9,
            "{} keeps only {count} inputs",
            directory.display()
        );
    }
}

/// The fuzz crate is outside the workspace, so that nothing else notices when a target is listed in one place only.
#[test]
fn every_target_has_its_binary_and_its_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let listed = manifest.matches("[[bin]]").count();
    assert_eq!(listed, targets::ALL.len());
    for (name, _) in targets::ALL {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(
            manifest.contains(&path),
            "no binary of fuzz/Cargo.toml has {path}"
        );
    }
    let kept = std::fs::read_dir(fuzz.join("corpus")).unwrap().count();
    assert_eq!(kept, targets::ALL.len());
}
