//! Slows writers down while compaction is behind: a little at first, more the further they run ahead,
//! and never to a stop.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};

/// Nanoseconds a written byte has to wait for each GiB that compaction is behind.
const NANOS_PER_GIB: u64 = 160;
/// The most a byte has to wait: a store takes at least 2 MB a second.
const NANOS_MAX: u64 = 500;
/// Waits are saved up until they are worth going to sleep, and are never longer than this.
const WAIT_MIN: u64 = 500_000;
const WAIT_MAX: u64 = 5_000_000;

const _: () = {
    assert!(WAIT_MIN < WAIT_MAX);
    assert!(NANOS_MAX > 0);
    assert!(NANOS_PER_GIB < NANOS_MAX, "the most is not reached at once");
};

/// What writers owe.
#[derive(Default)]
pub(crate) struct Brake {
    debt: AtomicU64,
    /// Nanoseconds for each byte, times 1024.
    rate: AtomicU64,
    owed: AtomicU64,
    asleep: Mutex<()>,
    changed: Condvar,
}

impl Brake {
    /// Compaction is so many bytes behind.
    pub(crate) fn set(&self, debt: u64) {
        self.debt.store(debt, Ordering::Relaxed);
        let rate = (debt >> 20)
            .saturating_mul(NANOS_PER_GIB)
            .min(NANOS_MAX << 10);
        debug_assert!(debt >= 1 << 20 || rate == 0, "less than a MiB is nothing");
        if self.rate.swap(rate, Ordering::Relaxed) > 0 && rate == 0 {
            self.owed.store(0, Ordering::Relaxed);
            self.changed.notify_all();
        }
    }

    /// How many bytes compaction is behind.
    pub(crate) fn debt(&self) -> u64 {
        self.debt.load(Ordering::Relaxed)
    }

    /// Who is about to write so many bytes waits for what it owes.
    pub(crate) fn wait(&self, bytes: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        debug_assert!(rate <= NANOS_MAX << 10, "a writer never stands still");
        let nanos = bytes.saturating_mul(rate) >> 10;
        let owed = self.owed.fetch_add(nanos, Ordering::Relaxed);
        if owed.saturating_add(nanos) < WAIT_MIN {
            return;
        }
        let owed = self.owed.swap(0, Ordering::Relaxed).min(WAIT_MAX);
        let mut asleep = self.asleep.lock();
        let _ = self
            .changed
            .wait_for(&mut asleep, Duration::from_nanos(owed));
    }
}
