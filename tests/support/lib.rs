//! What the tests of the whole share.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod dice;
mod disk;
mod history;
mod image;
mod state;

use std::path::Path;
use std::sync::Arc;

use rimstone::{Clock, Durability, Options, Result, Store};

pub use dice::Dice;
pub use disk::{Fault, SimDisk};
pub use history::History;
pub use image::{Cut, Names, Unsynced};
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

/// Opens the store on a simulated disk.
///
/// # Errors
/// What the store says.
pub fn open_on(disk: &SimDisk, clock: &Clock, durability: Durability) -> Result<Store> {
    Options::new()
        .vfs(Arc::new(disk.clone()))
        .durability(durability)
        .clock(clock.clone())
        .open(DIR)
}

/// How many cases a random test runs: `ordinary`, or the environment's `RIMSTONE_CASES`.
#[must_use]
pub fn cases(ordinary: u32) -> u32 {
    let asked = std::env::var("RIMSTONE_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(ordinary)
}
