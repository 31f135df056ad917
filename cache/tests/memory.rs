//! The budget is one of memory: what the allocator is asked for stays within it.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: an index out of range or a wrong byte fails them"
)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rimstone_cache::{Cache, Clock, Value};

/// The system's allocator, which knows how much is taken and how much was at most.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Relaxed);
        PEAK.fetch_max(taken + layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Counting = Counting;

/// Numbers that look like nothing, always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A size with as many digits as any other, up to `max`.
    fn size(&mut self, max: u64) -> usize {
        let bits = self.roll() % (64 - u64::from(max.leading_zeros()) + 1);
        (self.roll() % (1 << bits)).min(max) as usize
    }
}

/// What a cache takes before it holds anything.
const FIXED: usize = 200 << 10;

/// Runs phases of tiny, mixed, large and expiring entries, many times over, in this budget.
fn live(budget: usize, shards: usize, size_max: u64, inserts: usize) {
    let before = TAKEN.load(Relaxed);
    let clock = Clock::manual(0);
    let builder = Cache::builder(budget as u64).max_entry_weight(budget as u64);
    let cache = builder.shards(shards).clock(clock.clone()).build();
    let mut dice = Dice(7);
    for phase in 0..8 {
        PEAK.store(TAKEN.load(Relaxed), Relaxed);
        let mut largest = 0;
        for _ in 0..inserts {
            let size = match phase % 4 {
                0 | 2 => dice.size(64),
                1 => dice.size(size_max),
                _ => dice.size(size_max / 8),
            };
            largest = largest.max(size);
            let key = (dice.roll() % 100_000).to_le_bytes();
            let value = Value::from(vec![0; size]).ttl(Duration::from_secs(dice.roll() % 100));
            match dice.roll() % 8 {
                0 => cache.invalidate(&key),
                1..4 => drop(cache.get(&key, None)),
                _ => drop(cache.insert(&key, value)),
            }
            clock.set(clock.now() + dice.roll() % 1000 / 999);
            assert!(cache.weight() <= budget as u64);
        }
        // While a table grows, the old one is there too: of one shard, and no more than its new size.
        let growing = budget / 8 / shards;
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        // The vector that the test itself makes is on top, copied or not.
        let bound = budget + 2 * largest + growing + FIXED;
        assert!(
            peak <= bound,
            "{peak} taken of {bound} in phase {phase}, {budget} budget"
        );
    }
    cache.validate();
    cache.clear();
    cache.validate();
    drop(cache);
    // The harness, in another thread, may take a little meanwhile.
    let left = TAKEN.load(Relaxed).saturating_sub(before);
    assert!(left < 4096, "{left} bytes were not given back");
}

/// One test, as the memory is that of the process.
#[test]
fn memory_stays_within_the_budget_and_one_entry() {
    live(1 << 20, 1, 1 << 16, 20_000);
    live(16 << 20, 4, 1 << 20, 60_000);
    live(64 << 20, 8, 25 << 20, 4_000);
}
