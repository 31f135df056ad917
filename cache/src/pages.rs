//! Asks the system for large pages, once memory is in use: hits go to addresses all over the memory, and
//! where each page has 4 KiB the processor looks up its place as often as it waits for the bytes.
//!
//! The allocator is anybody's. So it is not asked for other memory: the system is asked to put what lies in
//! an aligned region together, by copying it to a large page (`MADV_COLLAPSE`, Linux 6.1 and later). Nothing
//! that anybody reads changes by that, whoever owns the memory.
#![cfg_attr(
    all(target_os = "linux", not(miri)),
    allow(unsafe_code, reason = "a call of the system that changes no contents")
)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A region of 2 MiB, which is a large page on x86-64 and, with pages of 4 KiB, on ARM.
const REGION: u32 = 21;
/// Smaller caches do without: the processor knows as many pages of 4 KiB by heart.
const BUDGET_MIN: u64 = 16 << 20;
/// Regions that are told apart, of 32 GiB.
const REGIONS: usize = 1 << 14;
/// A region is asked for so often at most: it may be in use in parts, or no large page be free.
const TRIES: u8 = 4;
/// One newcomer in so many is looked at.
const SAMPLE: u64 = 64;

thread_local! {
    /// Where the last newcomer of this thread lay.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Which regions were asked for; nothing, if none are to be.
#[derive(Debug)]
pub(crate) struct Pages {
    tries: Box<[AtomicU8]>,
}

impl Pages {
    /// For a cache of this budget.
    pub(crate) fn new(budget: u64) -> Pages {
        let regions = if budget >= BUDGET_MIN && are_wanted() {
            REGIONS
        } else {
            0
        };
        Pages {
            tries: (0..regions).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Looks at some of the newcomers. When those of a thread lie elsewhere than the one before, what
    /// they left is likely to be full.
    pub(crate) fn look(&self, hash: u64, newcomer: usize, tables: impl FnOnce() -> [usize; 2]) {
        if hash.is_multiple_of(SAMPLE) && !self.tries.is_empty() {
            let left = LAST.replace(newcomer);
            if left >> REGION != newcomer >> REGION {
                self.collapse(left >> REGION);
            }
            for table in tables() {
                self.collapse(table >> REGION);
            }
        }
    }

    fn collapse(&self, region: usize) {
        let tries = self.tries.get(region % REGIONS);
        let open = |tries: &&AtomicU8| tries.load(Relaxed) < TRIES;
        if let Some(tries) = tries.filter(open) {
            let done = collapse(region << REGION);
            tries.fetch_add(if done { TRIES } else { 1 }, Relaxed);
        }
    }
}

/// Whether the owner of the machine allows large pages to those who ask.
fn are_wanted() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| !setting.contains("[never]"))
}

/// Has a region made one page, and returns whether it is.
#[cfg(all(target_os = "linux", not(miri)))]
fn collapse(region: usize) -> bool {
    const MADV_COLLAPSE: libc::c_int = 25;
    let region = std::ptr::without_provenance_mut(region);
    // SAFETY: the call keeps what the memory holds, and refuses a region that is not memory.
    unsafe { libc::madvise(region, 1 << REGION, MADV_COLLAPSE) == 0 }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn collapse(_: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(pages: &Pages, address: usize) -> u8 {
        let tries = pages.tries.get((address >> REGION) % REGIONS);
        tries.map_or(0, |tries| tries.load(Relaxed))
    }

    fn pages() -> Pages {
        Pages {
            tries: (0..REGIONS).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    #[test]
    fn a_region_is_asked_for_when_it_was_left_and_not_for_ever() {
        // No memory is there, so it is refused each time.
        let (pages, first, second, table) = (pages(), 1 << REGION, 2 << REGION, 3 << REGION);
        LAST.set(0);
        pages.look(1, second, || [table; 2]);
        assert_eq!(tries(&pages, table), 0, "one in many is looked at");
        pages.look(SAMPLE, first, || [table; 2]);
        assert_eq!((tries(&pages, first), tries(&pages, table)), (0, 2));
        for _ in 0..10 {
            pages.look(SAMPLE, second, || [table; 2]);
            pages.look(SAMPLE, first, || [table; 2]);
        }
        let all = [first, second, table].map(|address| tries(&pages, address));
        assert_eq!(all, [TRIES; 3]);
    }

    #[test]
    fn small_caches_do_not_ask() {
        assert!(Pages::new(BUDGET_MIN - 1).tries.is_empty());
    }

    #[test]
    fn what_memory_holds_stays() {
        let bytes: Vec<u8> = (0..6 << REGION).map(|n| (n % 251) as u8).collect();
        let first = bytes.as_ptr().addr() >> REGION;
        let pages = pages();
        (first..first + 7).for_each(|region| pages.collapse(region));
        assert!(
            bytes
                .iter()
                .zip(0..)
                .all(|(byte, n)| usize::from(*byte) == n % 251)
        );
        assert!(tries(&pages, (first + 1) << REGION) > 0);
    }
}
