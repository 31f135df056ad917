//! One ordered view of many sorted sources.

use super::memtable::Chunk;
use super::{KeyRecord, Query, Run, RunDamage, Sources};
use crate::format::run::{self, Backward, Damage, Forward, Search};
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// The part of the key space a scan covers, and its direction.
#[derive(Clone, Copy)]
pub(super) struct Range<'a> {
    /// `None` is every namespace; the bounds are then open.
    namespace: Option<u32>,
    lower: Bound<&'a [u8]>,
    upper: Bound<&'a [u8]>,
    reverse: bool,
    now: u64,
}

impl<'a> Range<'a> {
    pub(super) fn of(query: &Query<'a>) -> Self {
        let (lower, upper, reverse) = (query.lower, query.upper, query.reverse);
        // Every key is at or after the empty one; no comparison is needed for that.
        let lower = if lower == Bound::Included(&[]) {
            Bound::Unbounded
        } else {
            lower
        };
        Range {
            namespace: Some(query.namespace),
            lower,
            upper,
            reverse,
            now: query.now,
        }
    }

    pub(super) fn all() -> Self {
        Range {
            namespace: None,
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
            reverse: false,
            now: 0,
        }
    }

    /// Returns the place to begin: before (or with `true`, after) records equal to this sort key.
    /// `None` is the very end.
    fn begin(&self) -> Option<(u32, &'a [u8], bool)> {
        let Some(namespace) = self.namespace else {
            return Some((0, &[], false));
        };
        match (self.reverse, self.lower, self.upper) {
            (false, Bound::Unbounded, _) => Some((namespace, &[], false)),
            (false, Bound::Included(key), _) => Some((namespace, key, false)),
            (false, Bound::Excluded(key), _) => Some((namespace, key, true)),
            (true, _, Bound::Unbounded) => Some((namespace.checked_add(1)?, &[], false)),
            (true, _, Bound::Included(key)) => Some((namespace, key, true)),
            (true, _, Bound::Excluded(key)) => Some((namespace, key, false)),
        }
    }

    /// Returns whether a record not before the beginning is not past the end either.
    // Of each key of a page; the compiler makes it a call.
    #[inline(always)]
    fn holds(&self, record: &KeyRecord<'_>) -> bool {
        match self.namespace {
            None => true,
            Some(namespace) if namespace != record.namespace => false,
            Some(_) if self.reverse => match self.lower {
                Bound::Unbounded => true,
                Bound::Included(end) => record.key >= end,
                Bound::Excluded(end) => record.key > end,
            },
            Some(_) => match self.upper {
                Bound::Unbounded => true,
                Bound::Included(end) => record.key <= end,
                Bound::Excluded(end) => record.key < end,
            },
        }
    }

    /// The order of two records in the direction of the scan.
    fn compare(&self, a: &KeyRecord<'_>, b: &KeyRecord<'_>) -> Ordering {
        let order = (a.namespace, a.key).cmp(&(b.namespace, b.key));
        if self.reverse { order.reverse() } else { order }
    }

    fn is_empty(&self) -> bool {
        match (bytes_of(self.lower), bytes_of(self.upper)) {
            (Some(lower), Some(upper)) => lower > upper,
            _ => false,
        }
    }
}

fn bytes_of(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

/// Returns eight bytes of a key, zero-filled, as a number of the same order.
#[inline]
pub(super) fn rank(key: &[u8], skip: usize) -> u64 {
    run::rank(key.get(skip..).unwrap_or_default())
}

/// A place in one sorted source, which moves in the direction of the scan.
trait Place {
    /// The record at the place, `None` at the end.
    fn record(&self) -> Option<KeyRecord<'_>>;

    fn advance(&mut self) -> Result<(), Damage>;

    /// Gives the record at the place and those behind it to `take`, until there are no more or it says that it does not
    /// take one, where the place then is. With each come the bytes at the beginning of the key that it has from
    /// the one before it, if that and the namespace are known.
    #[inline]
    fn walk(
        &mut self,
        mut take: impl FnMut(&KeyRecord<'_>, Option<usize>) -> bool,
    ) -> Result<(), Damage> {
        while self.record().is_some_and(|record| take(&record, None)) {
            self.advance()?;
        }
        Ok(())
    }
}

impl Place for Forward<'_> {
    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        Forward::record(self)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Damage> {
        Forward::advance(self)
    }

    #[inline]
    fn walk(
        &mut self,
        take: impl FnMut(&KeyRecord<'_>, Option<usize>) -> bool,
    ) -> Result<(), Damage> {
        Forward::walk(self, take)
    }
}

impl Place for Backward<'_> {
    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        Backward::record(self)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Damage> {
        Backward::advance(self)
    }
}

struct InChunk<'a> {
    chunk: &'a Chunk,
    at: usize,
    reverse: bool,
}

impl<'a> InChunk<'a> {
    fn seek(chunk: &'a Chunk, range: &Range<'_>) -> Self {
        let begin = match range.begin() {
            Some((namespace, key, after_equal)) => chunk.seek(namespace, key, after_equal),
            None => chunk.len(),
        };
        debug_assert!(begin <= chunk.len(), "a place in the chunk");
        let reverse = range.reverse;
        // Stepping back from 0 wraps to a place no chunk has.
        let at = begin.wrapping_sub(usize::from(reverse));
        InChunk { chunk, at, reverse }
    }
}

impl Place for InChunk<'_> {
    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        self.chunk.get(self.at)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Damage> {
        debug_assert!(self.at < self.chunk.len(), "nobody goes on behind the end");
        self.at = if self.reverse {
            self.at.wrapping_sub(1)
        } else {
            self.at + 1
        };
        Ok(())
    }
}

enum Cursor<'a> {
    Chunk(InChunk<'a>),
    Forward(Forward<'a>),
    Backward(Backward<'a>),
}

impl Cursor<'_> {
    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        match self {
            Cursor::Chunk(place) => place.record(),
            Cursor::Forward(place) => place.record(),
            Cursor::Backward(place) => place.record(),
        }
    }

    fn advance(&mut self) -> Result<(), RunDamage> {
        debug_assert!(self.record().is_some(), "nobody goes on behind the end");
        let moved = match self {
            Cursor::Chunk(place) => place.advance(),
            Cursor::Forward(place) => place.advance(),
            Cursor::Backward(place) => place.advance(),
        };
        moved.map_err(|damage| self.damaged(damage))
    }

    fn damaged(&self, damage: Damage) -> RunDamage {
        let run = match self {
            Cursor::Chunk(_) => 0,
            Cursor::Forward(place) => place.run().id(),
            Cursor::Backward(place) => place.run().id(),
        };
        RunDamage { run, damage }
    }
}

/// Where a range begins in each run, as their indexes say.
struct Begin<'a> {
    runs: &'a [Arc<Run>],
    /// What is sought in a scan forward, and what was found.
    sort_key: Vec<u8>,
    searches: Vec<Search<'a>>,
}

impl<'a> Begin<'a> {
    /// Looks in the indexes of all runs, so that what they wait for comes to the cache together, and the blocks of keys
    /// while chunks are searched. Backward there is nothing to look for yet.
    fn find(runs: &'a [Arc<Run>], range: &Range<'_>) -> Result<Self, RunDamage> {
        let (mut sort_key, mut searches) = (Vec::new(), Vec::new());
        if let Some((namespace, key, _)) = range.begin().filter(|_| !range.reverse) {
            sort_key = run::sort_key(namespace, key);
            let search =
                |run: &'a Arc<Run>| run.search(&sort_key).map_err(|damage| damaged(run, damage));
            searches = runs.iter().map(search).collect::<Result<Vec<_>, _>>()?;
            let mut goes_on = true;
            while goes_on {
                goes_on = false;
                for (run, search) in runs.iter().zip(&mut searches) {
                    goes_on |= search
                        .step(&sort_key)
                        .map_err(|damage| damaged(run, damage))?;
                }
            }
        }
        Ok(Begin {
            runs,
            sort_key,
            searches,
        })
    }

    /// The place in each run where the range begins.
    fn places(&self, range: &Range<'_>) -> impl Iterator<Item = Result<Cursor<'a>, RunDamage>> {
        self.runs.iter().enumerate().map(move |(number, run)| {
            let place = match (self.searches.get(number), range.begin()) {
                (Some(search), Some((.., after_equal))) => {
                    let (found, now) = (search.found(), range.now);
                    Forward::seek_from(run, found, &self.sort_key, after_equal, now)
                        .map(Cursor::Forward)
                }
                (_, begin) => match begin {
                    Some((namespace, key, equal)) => Backward::seek(run, namespace, key, equal),
                    None => Backward::last(run),
                }
                .map(|place| Cursor::Backward(place.at_time(range.now))),
            };
            place.map_err(|damage| damaged(run, damage))
        })
    }
}

fn damaged(run: &Run, damage: Damage) -> RunDamage {
    RunDamage {
        run: run.id(),
        damage,
    }
}

/// What the records of a scan are given to: a trait, since a closure cannot be told to become a part of the loop.
pub(super) trait Take {
    /// Takes the newest record of a key, with the number of older ones that were skipped. The answer no says that it has
    /// enough, and did not take this one.
    fn take(&mut self, record: &KeyRecord<'_>, older: usize) -> bool;
}

impl<F: FnMut(&KeyRecord<'_>, usize) -> bool> Take for F {
    #[inline]
    fn take(&mut self, record: &KeyRecord<'_>, older: usize) -> bool {
        self(record, older)
    }
}

/// Why a cursor does not go on alone.
enum Stop {
    /// Nobody wants more.
    Enough,
    /// It has no more records in the range.
    End,
    /// Its record has this rank, and another cursor may be before it.
    Meets(u64),
}

/// Gives the record at a place and those behind it to `each`, as long as it wants more and they are before the
/// cursor that comes next.
///
/// It is compiled for each kind of place, with everything about it inline: this is where a page is made.
#[inline]
fn stretch(
    place: &mut impl Place,
    (range, base): (&Range<'_>, &Base),
    front: &Front,
    each: &mut impl Take,
) -> Result<Stop, Damage> {
    let mut stop = Stop::End;
    // With a rank of the base the record before began like it, and those that keep enough of it do as well.
    let (mut is_first, mut is_alike) = (true, false);
    place.walk(|record, kept| {
        // No other cursor stands at the keys that follow.
        let older = if is_first { front.older } else { 0 };
        if is_first {
            debug_assert!(range.holds(record), "nothing else is given away");
        } else {
            if !range.holds(record) {
                return false;
            }
            if let Some(next) = front.next {
                let keeps_base = is_alike && kept.is_some_and(|kept| kept >= base.common.len());
                let rank = if keeps_base {
                    base.rank_within(record.key, range.reverse)
                } else {
                    base.rank(record, range.reverse)
                };
                if rank >= next {
                    stop = Stop::Meets(rank);
                    return false;
                }
                is_alike = true;
            }
        }
        is_first = false;
        let goes_on = each.take(record, older);
        if !goes_on {
            stop = Stop::Enough;
        }
        goes_on
    })?;
    Ok(stop)
}

/// What ranks are relative to: the beginning of a key that no cursor stands before any more.
///
/// A key that begins the same way is ranked by the eight bytes that follow; any other is beyond all of
/// those, and has the last rank. So ranks tell keys apart where the scan is, however much they have in
/// common, and when it comes to the last rank a new base is taken.
#[derive(Default)]
struct Base {
    namespace: u32,
    common: Vec<u8>,
}

impl Base {
    /// Bytes that a base is shorter than what the closest keys share. A longer base tells close keys
    /// apart; a shorter one lasts longer.
    const SLACK: usize = 3;

    #[inline]
    fn rank(&self, record: &KeyRecord<'_>, reverse: bool) -> u64 {
        // Nothing is not compared with nothing: an empty slice may point anywhere, and a masked load
        // from an unmapped page, which is how AVX-512 `memcmp` does it, takes a microcode assist. That
        // was 120 ns a key, more than all the rest of a page.
        let beyond = record.namespace != self.namespace
            || !(self.common.is_empty() || record.key.starts_with(&self.common));
        if beyond {
            return u64::MAX;
        }
        self.rank_within(record.key, reverse)
    }

    /// The rank of a key that begins like the base.
    #[inline]
    fn rank_within(&self, key: &[u8], reverse: bool) -> u64 {
        debug_assert!(key.starts_with(&self.common), "what follows is compared");
        let rank = rank(key, self.common.len());
        if reverse { !rank } else { rank }
    }
}

/// The sources, merged. The cursor that stands first is found by a look at all ranks: they are few, lie together,
/// and are compared without a branch that could be guessed wrong, as those of a heap are.
///
/// The first cursor moves on alone while it stays before the next: one comparison of numbers a record.
pub(super) struct Heads<'a> {
    range: Range<'a>,
    /// Newest source first, which decides between equal seqnos.
    cursors: Vec<Cursor<'a>>,
    /// Of each cursor; orders those that differ in it. See [`Base`].
    ranks: Vec<u64>,
    base: Base,
    /// Times that the first cursor may lose its place before a new base is taken: that costs a look at
    /// every cursor.
    base_rest: usize,
}

/// The cursor that stands first.
struct Front {
    cursor: usize,
    /// Records of its key that were skipped as older.
    older: usize,
    /// The lowest rank of the others, `None` if there are none.
    next: Option<u64>,
}

impl<'a> Heads<'a> {
    pub(super) fn open(sources: &'a Sources, range: Range<'a>) -> Result<Self, RunDamage> {
        let mut heads = Heads {
            range,
            cursors: Vec::with_capacity(sources.len()),
            ranks: Vec::with_capacity(sources.len()),
            base: Base::default(),
            base_rest: 0,
        };
        if range.is_empty() {
            return Ok(heads);
        }
        let begin = Begin::find(&sources.runs, &range)?;
        let frozen = sources.frozen.iter().flat_map(|frozen| frozen.chunks());
        for chunk in sources.memtable.chunks().chain(frozen) {
            heads.add(Cursor::Chunk(InChunk::seek(chunk, &range)));
        }
        for place in begin.places(&range) {
            heads.add(place?);
        }
        heads.choose_base();
        debug_assert_eq!(heads.cursors.len(), heads.ranks.len(), "a rank for each");
        debug_assert!(heads.cursors.len() <= sources.len());
        Ok(heads)
    }

    fn add(&mut self, cursor: Cursor<'a>) {
        let record = cursor.record();
        if record.is_some_and(|record| self.range.holds(&record)) {
            self.cursors.push(cursor);
            self.ranks.push(u64::MAX);
        }
    }

    fn remove(&mut self, cursor: usize) {
        debug_assert!(cursor < self.cursors.len());
        self.cursors.remove(cursor);
        self.ranks.remove(cursor);
        debug_assert_eq!(self.cursors.len(), self.ranks.len(), "a rank for each");
    }

    /// Ranks all cursors anew, from the first of them on. Their order stays the same.
    #[cold]
    fn choose_base(&mut self) {
        self.base_rest = 4 * self.cursors.len();
        let records = || self.cursors.iter().filter_map(Cursor::record);
        let Some(first) = records().min_by(|a, b| self.range.compare(a, b)) else {
            return;
        };
        let shared = records()
            .filter(|record| record.namespace == first.namespace && record.key != first.key)
            .map(|record| run::common_len(record.key, first.key))
            .max()
            .unwrap_or(0);
        let common = first.key.get(..shared.saturating_sub(Base::SLACK));
        let base = Base {
            namespace: first.namespace,
            common: common.unwrap_or_default().to_vec(),
        };
        let rank = |record: KeyRecord<'_>| base.rank(&record, self.range.reverse);
        debug_assert!(
            first.key.starts_with(&base.common),
            "no record is before its base"
        );
        self.ranks = records().map(rank).collect();
        debug_assert_eq!(self.ranks.len(), self.cursors.len(), "a rank for each");
        self.base = base;
    }

    /// Gives the newest record of each key to `each`, with the number of older ones that were skipped, until it
    /// says that it has enough. Says whether that was so, rather than that there were no more.
    pub(super) fn each(&mut self, each: &mut impl Take) -> Result<bool, RunDamage> {
        while let Some(front) = self.front()? {
            debug_assert!(front.cursor < self.cursors.len(), "somebody stands first");
            let Some(cursor) = self.cursors.get_mut(front.cursor) else {
                return Ok(false);
            };
            let scan = (&self.range, &self.base);
            let stop = match cursor {
                Cursor::Chunk(place) => stretch(place, scan, &front, each),
                Cursor::Forward(place) => stretch(place, scan, &front, each),
                Cursor::Backward(place) => stretch(place, scan, &front, each),
            };
            match stop.map_err(|damage| cursor.damaged(damage))? {
                Stop::Enough => return Ok(true),
                Stop::End => self.remove(front.cursor),
                Stop::Meets(rank) => self.set_rank(front.cursor, rank),
            }
        }
        Ok(false)
    }

    /// The cursor that stands first, and at the newest record of its key; others are moved past that key.
    #[inline]
    fn front(&mut self) -> Result<Option<Front>, RunDamage> {
        let (mut first, mut next) = ((u64::MAX, 0), u64::MAX);
        for (cursor, &rank) in self.ranks.iter().enumerate() {
            next = next.min(rank.max(first.0));
            first = if rank < first.0 {
                (rank, cursor)
            } else {
                first
            };
        }
        debug_assert_eq!(self.cursors.len(), self.ranks.len(), "a rank for each");
        debug_assert!(
            self.ranks.len() < 2 || Some(next) == self.lowest_but(first.1),
            "the second of all comes next"
        );
        match self.ranks.len() {
            0 => Ok(None),
            1 => Ok(Some(Front {
                cursor: 0,
                older: 0,
                next: None,
            })),
            _ if first.0 == next => self.first_of_equal_rank(),
            _ => Ok(Some(Front {
                cursor: first.1,
                older: 0,
                next: Some(next),
            })),
        }
    }

    /// The same where several have the lowest rank, which does not tell which of them is first.
    #[cold]
    fn first_of_equal_rank(&mut self) -> Result<Option<Front>, RunDamage> {
        let rank = self.ranks.iter().min().copied().unwrap_or(u64::MAX);
        let mut first: Option<usize> = None;
        for cursor in 0..self.cursors.len() {
            if self.ranks.get(cursor) == Some(&rank)
                && first.is_none_or(|first| self.compare(cursor, first).is_lt())
            {
                first = Some(cursor);
            }
        }
        let Some(mut first) = first else {
            return Ok(None);
        };
        let (mut older, mut cursor) = (0, 0);
        while cursor < self.cursors.len() {
            if cursor != first
                && self.ranks.get(cursor) == Some(&rank)
                && self.same_key(cursor, first)
            {
                older += 1;
                if !self.step(cursor)? {
                    first -= usize::from(cursor < first);
                    continue;
                }
            }
            cursor += 1;
        }
        debug_assert_eq!(self.ranks.get(first), Some(&rank), "it stayed there");
        let mut next = self.lowest_but(first);
        debug_assert!(next.is_none_or(|next| next >= rank), "nobody goes back");
        if self.base_rest == 0 && next == Some(rank) {
            // Keys of this rank differ, and so may all that follow.
            self.choose_base();
            next = self.lowest_but(first);
        }
        Ok(Some(Front {
            cursor: first,
            older,
            next,
        }))
    }

    /// The lowest rank of all cursors but one.
    fn lowest_but(&self, cursor: usize) -> Option<u64> {
        let others = self
            .ranks
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != cursor);
        others.map(|(_, rank)| *rank).min()
    }

    fn set_rank(&mut self, cursor: usize, rank: u64) {
        debug_assert!(cursor < self.ranks.len());
        if let Some(at) = self.ranks.get_mut(cursor) {
            debug_assert!(*at <= rank, "nobody goes back");
            *at = rank;
        }
        self.base_rest = self.base_rest.saturating_sub(1);
    }

    /// Moves a cursor on. Without more records in the range it is removed, and the answer no.
    fn step(&mut self, at: usize) -> Result<bool, RunDamage> {
        let Some(cursor) = self.cursors.get_mut(at) else {
            return Ok(false);
        };
        cursor.advance()?;
        match cursor.record().filter(|record| self.range.holds(record)) {
            Some(record) => {
                let rank = self.base.rank(&record, self.range.reverse);
                self.set_rank(at, rank);
                Ok(true)
            }
            None => {
                self.remove(at);
                Ok(false)
            }
        }
    }

    fn record(&self, cursor: usize) -> Option<KeyRecord<'_>> {
        self.cursors.get(cursor)?.record()
    }

    fn same_key(&self, a: usize, b: usize) -> bool {
        match (self.record(a), self.record(b)) {
            (Some(a), Some(b)) => (a.namespace, a.key) == (b.namespace, b.key),
            _ => false,
        }
    }

    /// Compares by sort key in the direction of the scan; then the newer comes first.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let (Some(x), Some(y)) = (self.record(a), self.record(b)) else {
            return Ordering::Equal;
        };
        let keys = self.range.compare(&x, &y);
        keys.then(y.seqno.cmp(&x.seqno)).then(a.cmp(&b))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::index::runs::Memtable;

    /// One key that is unlike all others must not decide what the ranks of those tell.
    #[test]
    fn ranks_come_to_tell_keys_apart_that_begin_alike() {
        let part = |odd: u64| {
            let mut keys: Vec<_> = (0..1000)
                .map(|n| format!("user/{:09}", 2 * n + odd))
                .collect();
            keys.insert(0, format!("a{odd}"));
            let memtable = Memtable::new();
            memtable.insert(keys.iter().map(|key| KeyRecord {
                namespace: 1,
                key: key.as_bytes(),
                metadata: &[],
                expiration: 0,
                seqno: 1,
                tombstone: false,
            }));
            memtable.freeze()
        };
        let sources = Sources {
            frozen: vec![part(0), part(1)],
            ..Sources::default()
        };
        let mut heads = Heads::open(&sources, Range::all()).unwrap();
        assert_eq!(heads.base.common, b"");
        let mut left = 200;
        let enough = heads.each(&mut |_: &KeyRecord<'_>, _| {
            left -= 1;
            left > 0
        });
        assert!(enough.unwrap());
        assert!(heads.base.common.starts_with(b"user/000"));
    }
}
