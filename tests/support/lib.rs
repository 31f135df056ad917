//! What the tests of the whole share.
#![allow(clippy::disallowed_methods, reason = "tests look at the files")]

use std::fs;
use std::path::{Path, PathBuf};

use rimstone::{Clock, Durability, Options, Store};
use tempfile::TempDir;

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

/// How many cases of a property to try: `RIMSTONE_CASES`, or this many.
#[must_use]
pub fn cases(default: u32) -> u32 {
    let cases = std::env::var("RIMSTONE_CASES").ok();
    cases
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default)
}
