//! Counters.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::Cause;

/// What a cache did since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that found a fresh value.
    pub hits: u64,
    /// Reads that found that there is no such key.
    pub negative_hits: u64,
    /// Reads that were given a stale value.
    pub stale_hits: u64,
    /// Reads that found nothing they could use.
    pub misses: u64,
    /// Misses that waited for somebody else's fetch.
    pub coalesced: u64,
    /// Fetched values that were not stored, since the key was written meanwhile or is known to be
    /// newer, or since they are too heavy.
    pub refused: u64,
    /// Entries that made room for others.
    pub evicted: u64,
    /// Entries whose time was over.
    pub expired: u64,
    /// Entries that got another value.
    pub replaced: u64,
    /// Entries that were invalidated or cleared.
    pub invalidated: u64,
    /// Entries held.
    pub entries: u64,
    /// Their weight, in bytes.
    pub weight: u64,
}

/// What a read can come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    Hit,
    Negative,
    Stale,
    Miss,
    Coalesced,
}

/// Five kinds of reads, four causes of leaving, and refusals.
const COUNTS: usize = 10;
const FIRST_CAUSE: usize = 5;
const REFUSED: usize = 9;
/// More than the threads that work at the same time on most machines.
const STRIPES: usize = 32;

/// Counts of some threads, on lines of their own: a hit writes nothing that others read.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Stripe([AtomicU64; COUNTS]);

#[derive(Debug, Default)]
pub(crate) struct Counters([Stripe; STRIPES]);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[allow(clippy::indexing_slicing, reason = "below the number of stripes")]
fn stripe(stripes: &[Stripe; STRIPES]) -> &Stripe {
    let mine = STRIPE.get();
    if mine < STRIPES {
        return &stripes[mine];
    }
    let mine = THREADS.fetch_add(1, Relaxed) % STRIPES;
    STRIPE.set(mine);
    &stripes[mine]
}

impl Counters {
    #[allow(clippy::indexing_slicing, reason = "below the number of counts")]
    #[inline]
    fn count(&self, what: usize) {
        stripe(&self.0).0[what].fetch_add(1, Relaxed);
    }

    #[inline]
    pub(crate) fn read(&self, read: Read) {
        self.count(read as usize);
    }

    pub(crate) fn gone(&self, cause: Cause) {
        self.count(FIRST_CAUSE + cause as usize);
    }

    pub(crate) fn refuse(&self) {
        self.count(REFUSED);
    }

    /// All but what is held.
    pub(crate) fn stats(&self) -> Stats {
        let mut counts = [0; COUNTS];
        for Stripe(of_some) in &self.0 {
            for (sum, count) in counts.iter_mut().zip(of_some) {
                *sum += count.load(Relaxed);
            }
        }
        let [reads @ .., evicted, expired, replaced, invalidated, refused] = counts;
        let [hits, negative_hits, stale_hits, misses, coalesced] = reads;
        Stats {
            hits,
            negative_hits,
            stale_hits,
            misses,
            coalesced,
            refused,
            evicted,
            expired,
            replaced,
            invalidated,
            entries: 0,
            weight: 0,
        }
    }
}
