//! System calls that fail, once or from then on, and calls that a signal interrupts.

use rimstone_tests::{cases, say};
use tempfile::tempdir;

use super::syskill::{Point, points, strace};
use super::{Ran, can_run, check, command, has, run};

const ACTS: usize = 60;

/// Runs a child in which a call goes wrong.
fn run_with(dir: &std::path::Path, (call, number): &Point, how: &str, then: &str) -> Ran {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:{how}:when={number}{then}");
    let command = strace(&["-o", "/dev/null", "-e", &trace, "-e", &inject]);
    run(command, dir, 0..ACTS, |_| {})
}

/// Points all over a run, of these calls.
fn some_points(calls: &[&str], count: usize) -> Vec<Point> {
    let first = tempdir().unwrap();
    let mut all = points(first.path());
    all.retain(|(call, _)| calls.contains(&call.as_str()));
    assert!(!all.is_empty());
    (0..count)
        .map(|at| all[at * all.len() / count].clone())
        .collect()
}

/// Whatever fails, what was acknowledged is there, what failed is there or not as a whole, and a process that
/// meets no error goes on.
#[test]
fn an_io_error_of_any_call_leaves_each_write_whole_or_absent() {
    if !has("strace", can_run("strace")) {
        return;
    }
    let calls = [
        "pwrite64",
        "fsync",
        "fdatasync",
        "fallocate",
        "rename",
        "openat",
        "unlink",
    ];
    let rounds = usize::try_from(cases(60)).unwrap();
    let (mut failed, mut died) = (0, 0);
    for (round, point) in some_points(&calls, rounds).iter().enumerate() {
        let dir = tempdir().unwrap();
        let (how, then) = match round % 3 {
            0 => ("error=EIO", ""),
            1 => ("error=EIO", "+"),
            _ => ("error=ENOSPC", "+"),
        };
        let ran = run_with(dir.path(), point, how, then);
        failed += usize::from(ran.failed.is_some());
        // The test's own process cannot always go on without opening files.
        died += usize::from(ran.died);
        let performed = check(dir.path(), ran.acknowledged..=ran.acknowledged + 1);
        let rest = run(command(&[]), dir.path(), performed..ACTS, |_| {});
        assert!(rest.closed, "{point:?} {how}{then}: {rest:?}");
        check(dir.path(), ACTS..=ACTS);
    }
    say(&format!(
        "{rounds} I/O errors: {failed} told, {died} ended the process"
    ));
    assert!(failed * 3 > rounds, "{failed} of {rounds}");
}

#[test]
fn an_interrupted_call_is_invisible() {
    if !has("strace", can_run("strace")) {
        return;
    }
    let calls = ["pwrite64", "fsync", "fdatasync", "fallocate", "openat"];
    let rounds = usize::try_from(cases(40)).unwrap();
    for point in some_points(&calls, rounds) {
        let dir = tempdir().unwrap();
        let ran = run_with(dir.path(), &point, "error=EINTR", "");
        assert!(ran.closed && ran.failed.is_none(), "{point:?}: {ran:?}");
        check(dir.path(), ACTS..=ACTS);
    }
    say(&format!("{rounds} interrupted calls"));
}
