//! Compaction of a segmented log: which segments to give up, and the loop that saves what is live in
//! them. Pure: no file, thread, clock or lock. The log is a trait, the time an argument.
//!
//! ```text
//!    Segments::stats                 Segments::scan          Segments::relocate
//!         |                               |                        ^
//!         v                               v                        |
//!    Strategy::choose  -- Plan -->   Compactor::step  -- live, or a pin that is needed
//!                                         |
//!                                         +-- at the end: Segments::install retires the victims
//! ```
//!
//! [`Strategy`] looks at [`SegmentStats`] and makes a [`Plan`]; the same numbers give the same plan.
//! [`Dead`] takes what costs nothing, [`CostBenefit`] also what is worth copying for, [`LeastUsed`] what a
//! cache can best do without. A [`Compactor`]
//! carries one plan out in steps of bounded size, and a [`Pace`] says when the next step is due.
//!
//! ```
//! use rimstone_compaction::{CostBenefit, SegmentStats, Strategy};
//!
//! let segment = |id, sealed, live_bytes| SegmentStats {
//!     id,
//!     sealed,
//!     bytes: 1_000,
//!     live: live_bytes / 100,
//!     live_bytes,
//!     life: u64::MAX,
//!     lowest_seqno: id * 10,
//!     last_visible: u64::MAX,
//!     ..SegmentStats::default()
//! };
//! let segments = [segment(1, true, 900), segment(2, true, 300), segment(3, false, 1_000)];
//! let plan = CostBenefit { garbage_max: 20 }.choose(&segments, 0);
//! assert!(plan.is_none(), "the open segment is full of live bytes");
//!
//! let segments = [segment(1, true, 900), segment(2, true, 300), segment(3, false, 0)];
//! let plan = CostBenefit { garbage_max: 20 }.choose(&segments, 0).unwrap();
//! assert_eq!(plan.victims, [2]);
//! ```
//!
//! # What must stay true
//!
//! The log can be rebuilt from its segments alone: per key the record with the highest sequence number
//! counts, and a copy has that of its original. Hence three rules, which the tests hold:
//!
//! 1. *A relocated record keeps its sequence number*, so it never hides a newer one.
//! 2. *A pin*, that is a tombstone or another record that older ones need, *is left behind only if no
//!    segment outside the plan holds a lower sequence number*, the open segments included. Age by
//!    segment is not enough, as relocation puts old records into young segments. Nor is it enough to
//!    compare the lowest numbers of two segments: it is the pin's own that counts
//!    ([`SegmentStats::highest_pin`]). Where the log knows which keys a segment may hold, this is
//!    asked per key ([`Segments::may_hold_older`]).
//! 3. *One plan at a time, and all its victims are retired together*: a pin in one may have been left
//!    behind because what it hides was in another.
//!
//! Values that are stored apart from their records are not copied: a record that points to one is as
//! small as any other, and its copy points to the same.
#![forbid(unsafe_code)]

mod compactor;
mod expiries;
mod pace;
mod segments;
mod strategy;

pub use compactor::{Compactor, Progress, run};
pub use expiries::Expiries;
pub use pace::Pace;
pub use segments::{Record, SegmentStats, Segments};
pub use strategy::{CostBenefit, Dead, LeastUsed, Plan, Strategy, Thorough};

/// What has expired is erased this many seconds later, in case the clock was wrong.
pub const GRACE: u64 = 3600;

/// The highest remaining life of each class but the last, in seconds: 5 and 30 minutes, 3 and 12
/// hours, 2 and 8 days, and all that ends at some time.
const CLASS_BOUNDS: [u64; 7] = [300, 1_800, 10_800, 43_200, 172_800, 691_200, u64::MAX - 1];
/// How many classes there are.
pub const CLASSES: u8 = 8;

const _: () = {
    assert!(CLASS_BOUNDS.len() + 1 == CLASSES as usize);
    assert!(CLASS_BOUNDS[0] < CLASS_BOUNDS[1]);
    assert!(CLASS_BOUNDS[1] < CLASS_BOUNDS[2]);
    assert!(CLASS_BOUNDS[2] < CLASS_BOUNDS[3]);
    assert!(CLASS_BOUNDS[3] < CLASS_BOUNDS[4]);
    assert!(CLASS_BOUNDS[4] < CLASS_BOUNDS[5]);
    assert!(CLASS_BOUNDS[5] < CLASS_BOUNDS[6]);
    assert!(CLASS_BOUNDS[6] == u64::MAX - 1, "only what lasts is above");
};

/// Returns the class, below [`CLASSES`], for a record with this many seconds to live, `u64::MAX` for
/// ever. What is copied into segments by class expires together, and is then retired whole.
pub fn class(remaining: u64) -> u8 {
    let below = CLASS_BOUNDS.iter().filter(|&&bound| bound < remaining);
    let class = below.map(|_| 1).sum();
    debug_assert!(class < CLASSES);
    debug_assert_eq!(
        remaining == u64::MAX,
        class == CLASSES - 1,
        "the last is for what lasts"
    );
    class
}

/// Whether a record that is visible up to this second, `u64::MAX` for ever, may be erased.
pub fn is_erasable(last_visible: u64, now: u64) -> bool {
    last_visible != u64::MAX && last_visible.saturating_add(GRACE) < now
}
