//! What the tests of the whole share.

use rimstone::{Clock, Durability, Options, Store};
use std::path::Path;

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
