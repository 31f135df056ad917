//! A real process on a real file system, stopped by force.
//!
//! The child performs acts that follow from their numbers and says when each is acknowledged; so the
//! state after any number of them is known exactly.

mod faults;
mod fork;
mod kill;
mod limits;
mod power;
mod rot;
mod stream;
mod syskill;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rimstone::{Durability, PutOptions, Result, Store, WriteBatch};
use rimstone_tests::{Dice, Seen, State, copy, matches, observe, say};

const DIR: &str = "RIMSTONE_CHILD_DIR";
const ACTS: &str = "RIMSTONE_CHILD_ACTS";
const CHILD: &str = "process::the_child";
const KEYS: usize = 12;

enum Act {
    Create,
    Put { key: usize, len: usize },
    Delete { key: usize },
    Batch { keys: Vec<usize> },
    Sync,
    Checkpoint,
    Compact,
}

/// The act of this number. The first creates the namespace that all others use; after many acts nothing is
/// compacted any more, so that the log grows.
fn act(number: usize) -> Act {
    let mut dice = Dice::new(number as u64);
    let key = dice.below(KEYS);
    match (number, dice.below(24)) {
        (0, _) => Act::Create,
        (_, 0) => Act::Sync,
        (_, 1) => Act::Checkpoint,
        (..300, 2) => Act::Compact,
        (_, 3..6) => Act::Delete { key },
        (_, 6..9) => Act::Batch {
            keys: (0..3).map(|at| (key + at) % KEYS).collect(),
        },
        (_, 9) => Act::Put { key, len: 70_000 },
        (_, 10) => Act::Put { key, len: 60_000 },
        (_, 11) => Act::Put { key, len: 300_000 },
        _ => Act::Put {
            key,
            len: dice.below(3000),
        },
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn value(act: usize, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(act as u64);
    let mut value: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| dice.roll().to_le_bytes())
        .collect();
    value.truncate(len);
    value
}

/// Whether everything up to this act is durable once it is acknowledged.
fn is_immediate(number: usize) -> bool {
    number.is_multiple_of(3)
}

fn durability(number: usize) -> Durability {
    if is_immediate(number) {
        Durability::Immediate
    } else {
        Durability::None
    }
}

fn perform(store: &Store, number: usize) -> Result<()> {
    let act = act(number);
    if let Act::Create = act {
        return store.create_namespace("n").map(drop);
    }
    let ns = store.namespace("n")?;
    let mut batch = WriteBatch::new();
    batch.durability(durability(number));
    match act {
        Act::Create => return Ok(()),
        Act::Put { key: at, len } => {
            let options = PutOptions::new().durability(durability(number));
            return ns.put_with(key(at), value(number, len), &options).map(drop);
        }
        Act::Delete { key: at } => batch.delete(&ns, key(at)),
        Act::Batch { keys } => {
            for at in keys {
                batch.put(&ns, key(at), value(number, at * 40));
            }
            &mut batch
        }
        Act::Sync => return store.sync(),
        Act::Checkpoint => return store.checkpoint(),
        Act::Compact => return store.compact().map(drop),
    };
    store.write(batch)
}

/// What a store holds after one more act.
fn apply(state: &mut State, number: usize) {
    if number == 0 {
        state.insert("n".to_owned(), Default::default());
    }
    let entries = state.get_mut("n").unwrap();
    match act(number) {
        Act::Put { key: at, len } => drop(entries.insert(key(at), Seen::of(value(number, len)))),
        Act::Delete { key: at } => drop(entries.remove(&key(at))),
        Act::Batch { keys } => {
            let put = |at| (key(at), Seen::of(value(number, at * 40)));
            entries.extend(keys.into_iter().map(put));
        }
        Act::Create | Act::Sync | Act::Checkpoint | Act::Compact => {}
    }
}

/// Not a test of its own: the process that the others start. Performs the acts it is told to.
#[test]
fn the_child() {
    let (Ok(dir), Ok(acts)) = (std::env::var(DIR), std::env::var(ACTS)) else {
        return;
    };
    let (from, to) = acts.split_once(' ').unwrap();
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    say("begun");
    let run = || {
        let store = Store::open(dir)?;
        for number in from..to {
            perform(&store, number)?;
            say(&format!("acknowledged {number}"));
            if number == from {
                limits::limit_files();
            }
        }
        store.close()
    };
    match run() {
        Ok(()) => say("closed"),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            say(&format!("failed {error}: {}", source.unwrap_or_default()));
        }
    }
}

/// What became of a child.
#[derive(Debug)]
struct Ran {
    /// Its number; whose it is after it ended nobody knows.
    process: u32,
    /// How many acts were acknowledged, by it and before it.
    acknowledged: usize,
    /// How many of them were acknowledged as durable, by themselves or by one after them.
    durable: usize,
    closed: bool,
    /// Whether it panicked or was killed.
    died: bool,
    /// What the store said when it would not go on.
    failed: Option<String>,
}

/// A child that was not started yet, to run by itself or in another program's care.
fn command(program: &[&str]) -> Command {
    command_of(CHILD, program)
}

/// A process that runs the one test of this name.
fn command_of(test: &str, program: &[&str]) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut all = program
        .iter()
        .map(std::ffi::OsString::from)
        .chain([exe.into_os_string()]);
    let mut command = Command::new(all.next().unwrap());
    command
        .args(all)
        .args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// Runs the child on a directory where `acts.start` acts were performed before. `hear` is called with
/// what became of it so far, each time it says something.
fn run(
    mut command: Command,
    dir: &Path,
    acts: std::ops::Range<usize>,
    mut hear: impl FnMut(&Ran),
) -> Ran {
    command
        .env(DIR, dir)
        .env(ACTS, format!("{} {}", acts.start, acts.end));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ran = Ran {
        process: child.id(),
        acknowledged: acts.start,
        durable: acts.start,
        closed: false,
        died: false,
        failed: None,
    };
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in lines {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("acknowledged ") {
            let number: usize = number.parse().unwrap();
            assert_eq!(number, ran.acknowledged);
            ran.acknowledged = number + 1;
            if is_immediate(number) && !matches!(act(number), Act::Compact) {
                ran.durable = number + 1;
            }
        }
        ran.closed |= line == "closed";
        if let Some(error) = line.strip_prefix("failed ") {
            ran.failed = Some(error.to_owned());
        }
        hear(&ran);
    }
    ran.died = !child.wait().unwrap().success();
    if ran.closed {
        ran.durable = ran.acknowledged;
    }
    ran
}

/// Opens a copy of the store, which must be undamaged and hold what it did after so many acts, as many
/// as `possible` says; returns how many.
fn check(dir: &Path, possible: std::ops::RangeInclusive<usize>) -> usize {
    let copy = copy(dir);
    let store = Store::open(copy.path()).unwrap();
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let seen = observe(&store, &keys);
    let mut state = State::new();
    let mut explained = None;
    for number in 0..=*possible.end() + 1 {
        if matches(&state, &seen) {
            explained = Some(number);
            if possible.contains(&number) {
                return number;
            }
        }
        apply(&mut state, number);
    }
    panic!("the state is that after {explained:?} acts, not {possible:?}: {seen:?}");
}

/// Whether what a test needs is there. Without it the test says so and passes, unless in CI.
fn has(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "CI has no {what}");
        say(&format!("SKIPPED: {what} is missing"));
    }
    is_there
}

fn can_run(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}
