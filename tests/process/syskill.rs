//! SIGKILL at each system call that changes a file or makes one durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rimstone_tests::{cases, say};
use tempfile::tempdir;

use super::{can_run, check, command, has, run};

const CALLS: [&str; 11] = [
    "openat",
    "pwrite64",
    "pwritev",
    "write",
    "fsync",
    "fdatasync",
    "fallocate",
    "ftruncate",
    "rename",
    "unlink",
    "flock",
];
/// How many acts a child performs at most.
const ACTS: usize = 60;

/// A system call, and which one of its kind it is in its thread.
pub(super) type Point = (String, usize);

/// Runs a child under strace.
pub(super) fn strace(arguments: &[&str]) -> Command {
    let mut all = vec!["strace", "-f", "-qq"];
    all.extend(arguments);
    command(&all)
}

/// All calls of a child that has to do with the store's directory.
pub(super) fn points(dir: &Path) -> Vec<Point> {
    let trace = tempdir().unwrap();
    let file = trace.path().join("trace");
    let calls = format!("trace={}", CALLS.join(","));
    let ran = run(
        strace(&["-y", "-o", file.to_str().unwrap(), "-e", &calls]),
        dir,
        0..ACTS,
        |_| {},
    );
    assert!(ran.closed, "{ran:?}");
    let mut counts = BTreeMap::<(String, String), usize>::new();
    let mut points = Vec::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let Some((name, arguments)) = call.trim().split_once('(') else {
            continue;
        };
        let count = counts
            .entry((thread.to_owned(), name.to_owned()))
            .or_default();
        *count += 1;
        if arguments.contains(dir.to_str().unwrap()) {
            points.push((name.to_owned(), *count));
        }
    }
    points.sort();
    points.dedup();
    points
}

/// Kills a child at a point; if it gets there.
fn kill_at((call, number): &Point, dir: &Path, from: usize) -> super::Ran {
    let (trace, inject) = (
        format!("trace={call}"),
        format!("inject={call}:signal=KILL:when={number}"),
    );
    let command = strace(&["-o", "/dev/null", "-e", &trace, "-e", &inject]);
    run(command, dir, from..from + ACTS, |_| {})
}

#[test]
fn a_kill_at_any_system_call_loses_nothing_acknowledged() {
    if !has("strace", can_run("strace")) {
        return;
    }
    let first = tempdir().unwrap();
    let points = points(first.path());
    let rounds = usize::try_from(cases(240)).unwrap();
    let (mut killed, mut dir, mut performed) = (0, tempdir().unwrap(), 0);
    for round in 0..rounds {
        // Every other child has to recover from the kill of the one before.
        if round % 2 == 0 {
            (dir, performed) = (tempdir().unwrap(), 0);
        }
        let point = &points[round * points.len() / rounds];
        let ran = kill_at(point, dir.path(), performed);
        assert_eq!(ran.failed, None, "{point:?}");
        killed += usize::from(!ran.closed);
        performed = check(dir.path(), ran.acknowledged..=ran.acknowledged + 1);
    }
    say(&format!(
        "{killed} kills at {} points in {rounds} rounds",
        points.len()
    ));
    // Who recovers makes fewer calls than who begins, and may end before it gets there.
    assert!(killed * 2 > rounds, "{killed} kills in {rounds} rounds");
}
