//! A process that flushes little writes through memory. It is killed, or the power goes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rimstone::{Durability, Namespace, Options, Store};
use rimstone_tests::{Dice, cases, say};
use tempfile::tempdir;

use super::power::Disk;
use super::{DIR, command_of, has};

const CHILD: &str = "process::stream::the_child";
const KEYS: u64 = 300;
/// Puts between two lines that the child says, and lines between two flushes: half of what is flushed
/// together was written through memory.
const PUTS: u64 = 200;
const LINES: usize = 30;
const MEMORY: &str = "through memory";
/// What `f_type` says of an ext4: elsewhere nothing is written through memory.
const EXT4: i64 = 0xef53;

fn value(number: u64) -> Vec<u8> {
    let len = 8 + Dice::new(number).below(2800);
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn open(dir: &Path) -> (Store, Namespace) {
    let options = Options::new().durability(Durability::None);
    let store = options.open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// How many puts a store holds: the first so many, whole and no others.
fn count(ns: &Namespace) -> u64 {
    let number = |key: u64| {
        let found = ns.get(key.to_le_bytes()).unwrap()?;
        let number = u64::from_le_bytes(found[..8].try_into().unwrap());
        assert_eq!(*found, value(number));
        Some(number)
    };
    let found: Vec<_> = (0..KEYS).map(number).collect();
    let count = found.iter().flatten().max().map_or(0, |last| last + 1);
    for (key, found) in (0..).zip(found) {
        let newest = (key < count).then(|| key + (count - 1 - key) / KEYS * KEYS);
        assert_eq!(found, newest, "key {key} of {count} puts");
    }
    count
}

fn check(dir: &Path) -> u64 {
    let (store, ns) = open(dir);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    count(&ns)
}

/// Whether this process can write to a mapping of a segment.
fn has_segment_to_write() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut lines = maps.lines();
    lines.any(|line| line.contains(" rw-s ") && line.ends_with(".seg"))
}

/// Not a test of its own: the process that the others start.
#[test]
fn the_child() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let (store, ns) = open(Path::new(&dir));
    let mut number = count(&ns);
    loop {
        // What it finds when it opens the store is durable, too.
        say(&format!("durable {number}"));
        for _ in 0..LINES {
            for _ in 0..PUTS {
                ns.put((number % KEYS).to_le_bytes(), value(number))
                    .unwrap();
                number += 1;
            }
            if has_segment_to_write() {
                say(MEMORY);
            }
            say(&format!("acknowledged {number}"));
        }
        store.sync().unwrap();
    }
}

/// What a child said.
#[derive(Default)]
struct Heard {
    acknowledged: u64,
    durable: u64,
    through_memory: bool,
}

/// Runs the child until somebody ends it. `hear` is called each time it acknowledges something.
fn run(dir: &Path, mut hear: impl FnMut(&Heard, &mut Child)) -> Heard {
    let mut command = command_of(CHILD, &[]);
    command
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut heard = Heard::default();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = |what: &str| -> Option<u64> { line.strip_prefix(what)?.parse().ok() };
        heard.through_memory |= line == MEMORY;
        if let Some(durable) = number("durable ") {
            heard.durable = durable;
        }
        if let Some(acknowledged) = number("acknowledged ") {
            heard.acknowledged = acknowledged;
            hear(&heard, &mut child);
        }
    }
    child.wait().unwrap();
    heard
}

#[test]
fn a_kill_loses_nothing_that_was_written_through_memory() {
    let (mut dice, mut dir) = (Dice::of_run(4), tempdir().unwrap());
    let (rounds, mut memory) = (cases(16), 0);
    for round in 0..rounds {
        if round % 4 == 0 {
            dir = tempdir().unwrap();
        }
        let after = 1 + dice.below(2 * LINES);
        let pause = Duration::from_micros(dice.below(4_000).try_into().unwrap());
        let mut lines = 0;
        let heard = run(dir.path(), |_, child| {
            lines += 1;
            if lines == after {
                thread::sleep(pause);
                child.kill().unwrap();
            }
        });
        memory += usize::from(heard.through_memory);
        let count = check(dir.path());
        assert!(
            count >= heard.acknowledged,
            "{count}, {}",
            heard.acknowledged
        );
    }
    say(&format!(
        "{memory} of {rounds} kills while records were written through memory"
    ));
    let is_ext4 = rustix::fs::statfs(dir.path()).unwrap().f_type == EXT4;
    assert!(memory > 0 || !is_ext4);
}

#[test]
fn a_power_cut_loses_nothing_durable_that_was_written_through_memory() {
    let disk = Disk::new("mkfs.ext4");
    if !has("root, mkfs.ext4 or a loop device", disk.is_some()) {
        return;
    }
    let disk = disk.unwrap();
    let store = disk.mounted().join("store");
    let (mut dice, mut memory, mut lost) = (Dice::of_run(5), 0, 0);
    let rounds = cases(24);
    for round in 0..rounds {
        if round % 4 == 0 && store.exists() {
            std::fs::remove_dir_all(&store).unwrap();
        }
        let after = 1 + dice.below(2 * LINES);
        let pause = Duration::from_micros(dice.below(4_000).try_into().unwrap());
        // What is said to be durable after the cut is not.
        let (durable, at_cut) = (AtomicU64::new(0), AtomicU64::new(0));
        let heard = thread::scope(|scope| {
            let mut lines = 0;
            run(&store, |heard, _| {
                durable.store(heard.durable, Ordering::SeqCst);
                lines += 1;
                if lines == after {
                    scope.spawn(|| {
                        thread::sleep(pause);
                        at_cut.store(durable.load(Ordering::SeqCst), Ordering::SeqCst);
                        disk.cut();
                    });
                }
            })
        });
        disk.come_back();
        memory += usize::from(heard.through_memory);
        let (count, at_cut) = (check(&store), at_cut.into_inner());
        assert!(count >= at_cut, "round {round}: {count}, durable {at_cut}");
        lost += heard.acknowledged.saturating_sub(count);
    }
    say(&format!(
        "{memory} of {rounds} cuts while records were written through memory; {lost} puts that were not durable lost"
    ));
    assert!(memory > 0 && lost > 0, "the cuts cut something");
}
