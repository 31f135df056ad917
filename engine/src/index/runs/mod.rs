//! The ordered half of the index: what `list` needs, and nothing else.
//!
//! ```text
//! committer -> Memtable --freeze--> Frozen --write--> Run, Run, ... --merge--> Run
//!                  \                  |                /
//!                   `------------- Sources -----------'  ->  list
//! ```
//!
//! A key's newest record, the one of the highest seqno over all sources, decides. Everything here is
//! a pure data structure: no file, no thread and no clock. The engine reads and writes the bytes of
//! runs, says what time it is, and decides when to freeze and merge.

pub(crate) mod cursor;
mod memtable;
mod merge;
mod source;
mod tiers;

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
mod tests;

use std::ops::Bound;
use std::sync::Arc;

use crate::format::namespace::Deletion;
pub(crate) use crate::format::run::{Damage, KeyRecord, Run, RunBytes, RunWriter};
pub(crate) use memtable::{Frozen, MemSnapshot, Memtable};
pub(crate) use merge::{MergeError, merge};
pub(crate) use tiers::pick_merge;

use source::{Heads, Range, Take};

/// Everything a page or a merge reads, as it was at one moment.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) memtable: MemSnapshot,
    /// Newest first.
    pub(crate) frozen: Vec<Arc<Frozen>>,
    /// Newest first.
    pub(crate) runs: Vec<Arc<Run>>,
}

impl Sources {
    /// How many places a scan of all of them has.
    fn len(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|f| f.chunks().count()).sum();
        self.memtable.chunks().count() + frozen + self.runs.len()
    }
}

/// A run that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {run}: {damage}")]
pub(crate) struct RunDamage {
    pub(crate) run: u64,
    pub(crate) damage: Damage,
}

/// What a page asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) namespace: u32,
    /// What they took away is missing.
    pub(crate) deletions: &'a [Deletion],
    pub(crate) lower: Bound<&'a [u8]>,
    pub(crate) upper: Bound<&'a [u8]>,
    /// Keys in the page at most; 0 counts as 1.
    pub(crate) limit: usize,
    pub(crate) reverse: bool,
    /// Records that expire now or earlier are missing.
    pub(crate) now: u64,
    /// Records examined at most, dead ones and older versions included; 0 counts as 1, and the
    /// versions of one key are never parted. So every page makes progress.
    pub(crate) work: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No live key is left in the range.
    Complete,
    /// The limit or the work budget was reached. The next page begins after this key (before it, in
    /// reverse): the last one examined, which need not be one that was emitted.
    More { after: Vec<u8> },
}

/// Emits the live keys of a range in order, up to the limit.
///
/// When the limit is reached the search goes on for one more live key with the work that is left, so
/// that a page which ends at the last key says so. When that work is used up, the answer is `More`,
/// as a live key may follow.
///
/// # Errors
///
/// A damaged block of a run; keys emitted before it was met are right.
pub(crate) fn list(
    sources: &Sources,
    query: &Query<'_>,
    emit: impl FnMut(&KeyRecord<'_>),
) -> Result<Outcome, RunDamage> {
    let mut heads = Heads::open(sources, Range::of(query))?;
    let mut listing = Listing {
        query,
        emit,
        left: query.limit.max(1),
        work: query.work.max(1),
        after: Vec::new(),
    };
    let is_more = heads.each(&mut listing)?;
    let Listing {
        left, work, after, ..
    } = listing;
    debug_assert!(!is_more || work == 0 || left == 0);
    Ok(if is_more {
        Outcome::More { after }
    } else {
        Outcome::Complete
    })
}

/// A page that is being made.
struct Listing<'a, F> {
    query: &'a Query<'a>,
    emit: F,
    /// Keys that it still has room for.
    left: usize,
    /// Records that may still be examined.
    work: usize,
    /// The last key that was examined, once there is no room or no work left.
    after: Vec<u8>,
}

impl<F: FnMut(&KeyRecord<'_>)> Take for Listing<'_, F> {
    // The compiler makes it a call of each key, a tenth of a page's time: docs/decisions/0009-pages.md.
    #[inline(always)]
    fn take(&mut self, record: &KeyRecord<'_>, older: usize) -> bool {
        if self.work == 0 {
            return false;
        }
        let expired = record.expiration != 0 && record.expiration <= self.query.now;
        if !record.tombstone && !expired && !self.is_deleted(record) {
            if self.left == 0 {
                return false;
            }
            debug_assert_eq!(
                record.namespace, self.query.namespace,
                "nobody sees another's keys"
            );
            (self.emit)(record);
            self.left -= 1;
        }
        self.work = self.work.saturating_sub(1 + older);
        if self.work == 0 || self.left == 0 {
            self.stand_at(record.key);
        }
        true
    }
}

impl<F> Listing<'_, F> {
    fn is_deleted(&self, record: &KeyRecord<'_>) -> bool {
        let is_deleted = |d: &Deletion| d.hides(record.key, record.seqno);
        self.query.deletions.iter().any(is_deleted)
    }

    #[cold]
    fn stand_at(&mut self, key: &[u8]) {
        self.after.clear();
        self.after.extend_from_slice(key);
    }
}
