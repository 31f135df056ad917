//! What the tests of the whole share.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod dice;
mod disk;
mod gate;
mod history;
mod image;
mod linear;
mod state;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimstone::{Clock, Durability, Namespace, Options, Result, Store, WriteBatch};
use tempfile::TempDir;

pub use dice::Dice;
pub use disk::{Done, Fault, SimDisk};
pub use gate::{Doing, Gate};
pub use history::History;
pub use image::{Cut, Left, Moment, Names, Timeline, Unsynced};
pub use linear::{Call, Did, Version, is_linearizable};
pub use state::{Seen, State, alive, matches, observe};

/// Where stores lie on simulated disks.
pub const DIR: &str = "/store";

/// Opens a store with a manual clock and no flushes, for tests that do not cut the power.
///
/// # Panics
/// Panics if the store does not open.
#[must_use]
pub fn open(dir: &Path, clock: &Clock) -> Store {
    let options = Options::new()
        .durability(Durability::None)
        .clock(clock.clone());
    options.open(dir).expect("the store opens")
}

/// A store in files that fail on demand, flushed with every write, and its namespace `n`.
///
/// # Panics
/// Panics if the store does not open.
#[must_use]
pub fn open_gated(dir: &Path, clock: &Clock, gate: &Gate) -> (Store, Namespace) {
    let options = Options::new().vfs(Arc::new(gate.clone()));
    let store = options.clock(clock.clone()).open(dir);
    let store = store.expect("the store opens");
    let ns = store.namespace("n").expect("a namespace");
    (store, ns)
}

/// An empty store as of [`open`], at the first second, with a namespace `n`.
///
/// # Panics
/// Panics if there is no room for one.
#[must_use]
pub fn fresh() -> (TempDir, Clock, Store, Namespace) {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(1);
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").expect("a namespace");
    (dir, clock, store, ns)
}

/// A batch that writes its number under `keys` keys of so many bytes; other keys, large ones too, come and go, and
/// one stays.
#[must_use]
pub fn numbered_batch(ns: &Namespace, number: u64, keys: u64, len: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for key in 0..keys {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(len, 7);
        batch.put(ns, format!("key {key}"), value);
    }
    batch.put(ns, format!("large {}", number % 3), vec![9; 70_000]);
    batch.delete(ns, format!("large {}", (number + 1) % 3));
    batch.put(ns, format!("once {number:08}"), number.to_le_bytes());
    batch
}

/// A copy of the files as they are now: what a killed process leaves behind.
///
/// # Panics
/// Panics if the files cannot be read or written.
#[must_use]
pub fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("a file");
        // Maintenance may remove a file between the listing and the copy.
        match fs::copy(entry.path(), copy.path().join(entry.file_name())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
    copy
}

/// The newest file of a kind.
///
/// # Panics
/// Panics if the directory cannot be read.
#[must_use]
pub fn newest(dir: &Path, extension: &str) -> Option<PathBuf> {
    let names = fs::read_dir(dir).expect("a directory");
    let paths = names.map(|entry| entry.expect("a file").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .max()
}

/// Opens the store on a simulated disk, with a hot cache.
///
/// # Errors
/// What the store says.
pub fn open_on(disk: &SimDisk, clock: &Clock, durability: Durability) -> Result<Store> {
    options_on(disk, clock, durability).open(DIR)
}

/// As [`open_on`], without threads: what they would do happens in [`Store::step`].
///
/// # Errors
/// What the store says.
pub fn open_alone(disk: &SimDisk, clock: &Clock, durability: Durability) -> Result<Store> {
    options_on(disk, clock, durability)
        .without_threads()
        .open(DIR)
}

fn options_on(disk: &SimDisk, clock: &Clock, durability: Durability) -> Options {
    Options::new()
        .vfs(Arc::new(disk.clone()))
        .durability(durability)
        .clock(clock.clone())
        .cache(1 << 20)
}

/// Says a line on stderr at once, past the capture of the test harness. It is written in one call, so that
/// no kill can tear it.
pub fn say(line: &str) {
    // Nobody may be listening.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// How many cases a random test runs: `ordinary`, or the environment's `RIMSTONE_CASES`.
#[must_use]
pub fn cases(ordinary: u32) -> u32 {
    let asked = std::env::var("RIMSTONE_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(ordinary)
}
