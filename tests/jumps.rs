//! Rule 14 where the system's clock jumps under a running process, which `clock.rs` has of one that is moved by hand.
//!
//! libfaketime tells a child's C library what time it is, and the engine asks that where it is compiled with
//! `--cfg rustix_use_libc`, as `tests/jumps` does; without, it asks the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime};

use rimstone::{PutOptions, Store};
use rimstone_tests::{Dice, say};
use tempfile::TempDir;

const DIR: &str = "RIMSTONE_CHILD_DIR";
const DAY: i64 = 86_400;

/// Not a test of its own: the process that the others start. Does what it is told to.
#[test]
fn the_child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Store::open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    for told in std::io::stdin().lines() {
        let told = told.unwrap();
        let answer = match told.split_once(' ').unwrap_or((&told, "")) {
            ("now", "") => store.clock().now().to_string(),
            ("put", key) => ns.put(key, key).unwrap().to_string(),
            ("put-for-a-day", key) => {
                let day = PutOptions::new().expiration_ttl(Duration::from_secs(86_400));
                ns.put_with(key, key, &day).unwrap().to_string()
            }
            ("sees", key) => ns.get(key).unwrap().is_some().to_string(),
            ("tidy", "") => {
                store.compact().unwrap();
                store.checkpoint().unwrap();
                store.stats().keys.to_string()
            }
            _ => panic!("told to {told}"),
        };
        say(&answer);
    }
}

/// A directory, and a process that has the store in it open.
struct Process {
    child: Child,
    told: ChildStdin,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
    clock: PathBuf,
}

impl Process {
    /// Starts one whose clock is so many seconds ahead of the machine's.
    fn start(dir: &Path, ahead: i64) -> Process {
        let clock = dir.join("clock");
        set(&clock, ahead);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["the_child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(DIR, dir.join("store"));
        command.env("LD_PRELOAD", library());
        command.env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1");
        // Time passes as it does; only what the clock on the wall says is another.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Process {
            told: child.stdin.take().unwrap(),
            child,
            said,
            clock,
        }
    }

    fn jump(&self, ahead: i64) {
        set(&self.clock, ahead);
    }

    fn tell(&mut self, what: &str) -> String {
        writeln!(self.told, "{what}").unwrap();
        self.said.next().expect("it answers").unwrap()
    }

    fn sees(&mut self, key: &str) -> bool {
        self.tell(&format!("sees {key}")).parse().unwrap()
    }

    /// Whether it is so far ahead of the machine's clock, give or take the minutes that a busy machine takes.
    fn is_ahead(&mut self, by: i64) -> bool {
        let now: i64 = self.tell("now").parse().unwrap();
        (now - machine() - by).abs() < 600
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Replaced as a whole: it is read at any time.
fn set(clock: &Path, ahead: i64) {
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{ahead:+}\n")).unwrap();
    std::fs::rename(new, clock).unwrap();
}

fn machine() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn library() -> PathBuf {
    let lib = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    let path = Path::new(&lib).join("libfaketimeMT.so.1");
    assert!(path.exists(), "these tests need the package libfaketime");
    path
}

/// A process with one key for a day and one for ever, in a segment that is not written to any more, or it could not
/// be erased.
fn prepared() -> (TempDir, Process) {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), 0);
    process.tell("put-for-a-day day");
    process.kill();
    let mut process = Process::start(dir.path(), 0);
    process.tell("put ever");
    assert!(process.sees("day"));
    (dir, process)
}

#[test]
fn a_jump_forward_of_the_systems_clock_hides_and_erases_nothing() {
    let (dir, mut process) = prepared();
    process.jump(30 * DAY);
    assert!(!process.sees("day") && process.sees("ever"));
    assert!(
        process.is_ahead(30 * DAY),
        "libfaketime does not reach it: run tests/jumps"
    );
    assert_eq!(process.tell("tidy"), "2");
    process.tell("put ever");
    process.jump(0);
    assert!(
        !process.sees("day"),
        "who saw it gone does not see it again"
    );
    process.kill();
    let mut process = Process::start(dir.path(), 0);
    assert!(process.is_ahead(0), "the jump was persisted");
    assert!(process.sees("day") && process.sees("ever"));
    process.kill();
}

#[test]
fn a_jump_back_of_the_systems_clock_does_not_bring_time_back() {
    let (dir, process) = prepared();
    process.kill();
    let mut process = Process::start(dir.path(), DAY + 10);
    assert!(!process.sees("day"));
    for ahead in [0, -30 * DAY] {
        process.jump(ahead);
        assert!(process.is_ahead(DAY + 10));
        assert!(!process.sees("day") && process.sees("ever"));
    }
    process.tell("put-for-a-day later");
    assert_eq!(
        process.tell("tidy"),
        "3",
        "it expired less than an hour ago"
    );
    process.kill();
    let mut process = Process::start(dir.path(), 0);
    assert!(process.is_ahead(DAY + 10), "it goes on");
    assert!(!process.sees("day") && process.sees("later"));
    process.kill();
}

/// Back and forth by up to a year, and killed at times: what is for ever stays, what is for a day is there again
/// under the right clock, and nobody sees time go back.
#[test]
fn whatever_jumps_the_systems_clock_makes_nothing_is_lost() {
    let (dir, mut process) = prepared();
    let (mut dice, mut latest, mut keys) = (Dice::new(7), 0, 2);
    for round in 0..200 {
        let days = i64::try_from(dice.below(730)).unwrap() - 365;
        process.jump(days * DAY);
        let now: i64 = process.tell("now").parse().unwrap();
        assert!(now >= latest, "round {round}: {now} after {latest}");
        latest = now;
        assert!(process.sees("ever"), "round {round}");
        match dice.below(5) {
            0 => {
                process.tell(&format!("put key {round}"));
                keys += 1;
            }
            1 => assert_eq!(process.tell("tidy"), keys.to_string(), "round {round}"),
            2 => {
                process.kill();
                process = Process::start(dir.path(), 0);
                assert!(process.sees("day"), "round {round}");
                latest = 0;
            }
            _ => {}
        }
    }
    process.kill();
}
