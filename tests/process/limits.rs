//! What the system allows a process runs out: that is an error, not its death.

use std::path::Path;
use std::process::Command;

use rimstone_tests::{copy, say};
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::tempdir;

use super::{Ran, check, command, run};

/// The most bytes of a file that a child may write once its store is open.
const FILES: &str = "RIMSTONE_CHILD_FILES";

/// Whoever does not ignore the signal of a limit of file sizes dies of it, by its meaning.
const IGNORED: &str = "trap '' XFSZ";

/// Runs a child under what this line of a shell sets.
fn run_within(limit: &str, acts: usize) -> Ran {
    let dir = tempdir().unwrap();
    let ran = run(shell(limit), dir.path(), 0..acts, |_| {});
    goes_on(dir.path(), &ran, acts, limit);
    ran
}

/// A child that a shell sets something for.
fn shell(sets: &str) -> Command {
    let line = format!("{sets}; exec \"$0\" \"$@\"");
    command(&["sh", "-c", &line])
}

/// Whatever a limit led to, nothing acknowledged is lost, and without it the store goes on.
fn goes_on(dir: &Path, ran: &Ran, acts: usize, limit: &str) {
    assert!(!ran.died, "{limit}: {ran:?}");
    assert_ne!(ran.closed, ran.failed.is_some(), "{limit}: {ran:?}");
    let performed = check(dir, ran.acknowledged..=ran.acknowledged + 1);
    let rest = run(command(&[]), dir, performed..acts, |_| {});
    assert!(rest.closed, "{limit}: {rest:?}");
    check(dir, acts..=acts);
}

#[test]
fn too_few_descriptors_are_an_error() {
    let all = [5, 7, 9, 10, 11, 12, 13, 14, 15, 17, 20, 30, 60];
    let ran = all.map(|most| run_within(&format!("ulimit -n {most}"), 60));
    assert!(
        ran.iter().any(|ran| ran.acknowledged == 0),
        "some do not suffice for a store"
    );
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged > 0)
    );
    assert!(ran.iter().any(|ran| ran.closed), "some are enough");
}

#[test]
fn a_limit_of_file_sizes_is_an_error() {
    // In units of 512 bytes.
    let all = [(0, 60), (1, 60), (2047, 60), (2048, 600), (200_000, 60)];
    let ran = all.map(|(blocks, acts)| run_within(&format!("{IGNORED}; ulimit -f {blocks}"), acts));
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged == 0)
    );
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged > 0),
        "some suffice for a new store and not for what it comes to: {ran:?}"
    );
    assert!(ran.iter().any(|ran| ran.closed));
}

/// The limit comes once the store is open, whose log has more space already. A record is written up to the
/// limit, and the call for the rest of it fails.
#[test]
fn a_write_that_is_cut_short_leaves_no_half_record() {
    // The acts of the child from here on only write to the log, which comes to more than the limits.
    let (before, acts) = (20, 40);
    let whole = tempdir().unwrap();
    assert!(run(command(&[]), whole.path(), 0..before, |_| {}).closed);
    let (mut limits, mut cut) = (0, 0);
    for limit in (6_001..120_000).step_by(7_001) {
        let dir = copy(whole.path());
        let mut child = shell(IGNORED);
        child.env(FILES, limit.to_string());
        let ran = run(child, dir.path(), before..acts, |_| {});
        assert!(ran.failed.is_some(), "{limit}: {ran:?}");
        limits += 1;
        cut += usize::from(is_cut_at(dir.path(), limit));
        goes_on(dir.path(), &ran, acts, &format!("{limit} bytes"));
    }
    say(&format!(
        "{cut} records cut short by {limits} limits of file sizes"
    ));
    assert!(cut * 2 > limits, "{cut} of {limits}");
}

/// In the child, once its store is open: its files have a limit from now on, if it was given one.
pub(super) fn limit_files() {
    let Ok(bytes) = std::env::var(FILES) else {
        return;
    };
    let limit = Rlimit {
        current: Some(bytes.parse().unwrap()),
        maximum: None,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// Whether a segment of the log is written up to there, in the middle of something, and no further.
fn is_cut_at(dir: &Path, limit: usize) -> bool {
    let paths = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path());
    let segments = paths.filter(|path| path.extension().is_some_and(|e| e == "seg"));
    let mut bytes = segments.map(|path| std::fs::read(path).unwrap());
    bytes.any(|bytes| {
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        written.abs_diff(limit) < 8 && written <= limit
    })
}
