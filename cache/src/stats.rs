//! Counters.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

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
/// Stripes of one thread each, more than work at the same time on most machines, and those that the
/// threads beyond share.
const OWNED: usize = 48;
const STRIPES: usize = 64;

/// Counts of some threads, on lines of their own: a hit writes nothing that others read.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Stripe([AtomicU64; COUNTS]);

#[derive(Debug)]
pub(crate) struct Counters([Stripe; STRIPES]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| Stripe::default()))
    }
}

/// A bit for each stripe that a thread owns.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static OTHERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(STRIPES) };
    /// Gives the stripe back when the thread ends.
    static OWNER: Owner = const { Owner };
}

struct Owner;

impl Owner {
    /// Takes a stripe for this thread.
    fn take(&self) -> usize {
        // Acquire, and Release when it is given back: its next owner has seen what the last one counted.
        let took = TAKEN.fetch_update(Acquire, Relaxed, |taken| {
            Some(taken | (taken + 1)).filter(|taken| taken >> OWNED == 0)
        });
        match took {
            Ok(taken) => taken.trailing_ones() as usize,
            Err(_) => shared(),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mine = STRIPE.replace(shared());
        if mine < OWNED {
            TAKEN.fetch_and(!(1 << mine), Release);
        }
    }
}

/// One of the stripes that are shared.
fn shared() -> usize {
    OWNED + OTHERS.fetch_add(1, Relaxed) % (STRIPES - OWNED)
}

/// The stripe of this thread.
#[inline]
fn stripe() -> usize {
    match STRIPE.get() {
        STRIPES => first_stripe(),
        mine => mine,
    }
}

#[cold]
fn first_stripe() -> usize {
    // A thread that has almost ended has no owner any more.
    let mine = OWNER.try_with(Owner::take).unwrap_or_else(|_| shared());
    STRIPE.set(mine);
    mine
}

impl Counters {
    #[allow(
        clippy::indexing_slicing,
        reason = "below the numbers of stripes and counts"
    )]
    #[inline]
    fn count(&self, what: usize) {
        let mine = stripe();
        let count = &self.0[mine].0[what];
        if mine < OWNED {
            // Nobody else writes here.
            count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        } else {
            count.fetch_add(1, Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn more_threads_than_lines_lose_no_count() {
        const THREADS: usize = 2 * STRIPES;
        const READS: u64 = 10_000;
        let counters = Counters::default();
        // The second time, stripes come from threads that have ended.
        for round in 1..=2 {
            let together = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        counters.read(Read::Hit);
                        together.wait();
                        (1..READS).for_each(|_| counters.read(Read::Hit));
                    });
                }
            });
            assert_eq!(counters.stats().hits, round * THREADS as u64 * READS);
        }
    }

    #[test]
    fn a_thread_that_ends_gives_its_line_back() {
        let mut owners = 0;
        // Other tests count too, but never as many at once for long.
        for _ in 0..100_000 {
            let alone = thread::spawn(|| {
                let mine = stripe();
                assert_eq!(mine, stripe());
                mine
            });
            let mine = alone.join().expect("a thread");
            owners += usize::from(mine < OWNED);
            if owners > OWNED {
                // More than there are lines: some had one that was another's.
                return;
            }
        }
        panic!("{owners} threads owned a line");
    }
}
