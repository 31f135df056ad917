//! One ordered view of many sorted sources.

use super::memtable::Chunk;
use super::{KeyRecord, Run, RunDamage, Sources};
use crate::format::run::{Backward, Damage, Forward};
use std::cmp::Ordering;
use std::ops::Bound;

/// The part of the key space a scan covers, and its direction.
#[derive(Clone, Copy)]
pub(super) struct Range<'a> {
    /// `None` is every namespace; the bounds are then open.
    namespace: Option<u32>,
    lower: Bound<&'a [u8]>,
    upper: Bound<&'a [u8]>,
    reverse: bool,
}

impl<'a> Range<'a> {
    pub(super) fn new(
        namespace: u32,
        lower: Bound<&'a [u8]>,
        upper: Bound<&'a [u8]>,
        reverse: bool,
    ) -> Self {
        // Every key is at or after the empty one; no comparison is needed for that.
        let lower = if lower == Bound::Included(&[]) {
            Bound::Unbounded
        } else {
            lower
        };
        Range {
            namespace: Some(namespace),
            lower,
            upper,
            reverse,
        }
    }

    pub(super) fn all() -> Self {
        Range {
            namespace: None,
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
            reverse: false,
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
    #[inline]
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
#[allow(
    clippy::big_endian_bytes,
    reason = "the order of bytes becomes the order of numbers"
)]
pub(super) fn rank(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes
                .iter_mut()
                .zip(rest)
                .for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(bytes)
        }
    }
}

/// A place in one sorted source, which moves in the direction of the scan.
trait Place {
    /// The record at the place, `None` at the end.
    fn record(&self) -> Option<KeyRecord<'_>>;

    fn advance(&mut self) -> Result<(), Damage>;

    /// Bytes at the beginning of the key that it has from the one before it, if that and the namespace are known.
    #[inline]
    fn kept(&self) -> Option<usize> {
        None
    }
}

impl Place for Forward<'_> {
    #[inline]
    fn kept(&self) -> Option<usize> {
        Forward::kept(self)
    }

    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        Forward::record(self)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Damage> {
        Forward::advance(self)
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

impl<'a> Cursor<'a> {
    fn in_run(run: &'a Run, range: &Range<'_>) -> Result<Self, RunDamage> {
        let place = match range.begin() {
            Some((namespace, key, after_equal)) if range.reverse => {
                Backward::seek(run, namespace, key, after_equal).map(Cursor::Backward)
            }
            Some((namespace, key, after_equal)) => {
                Forward::seek(run, namespace, key, after_equal).map(Cursor::Forward)
            }
            None => Backward::last(run).map(Cursor::Backward),
        };
        place.map_err(|damage| RunDamage {
            run: run.id(),
            damage,
        })
    }

    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        match self {
            Cursor::Chunk(place) => place.record(),
            Cursor::Forward(place) => place.record(),
            Cursor::Backward(place) => place.record(),
        }
    }

    fn advance(&mut self) -> Result<(), RunDamage> {
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

/// Why a cursor does not go on alone.
enum Stop {
    /// Nobody wants more.
    Enough,
    /// It has no more records in the range.
    End,
    /// Its record has this rank, and another cursor may be before it.
    Meets(u64),
}

/// Gives the records behind a place to `each`, as long as it wants more and they are before `next`, which is
/// the rank of the cursor that comes next if there is one.
///
/// It is compiled for each kind of place, with everything about it inline: this is where a page is made.
#[inline]
fn stretch(
    place: &mut impl Place,
    (range, base): (&Range<'_>, &Base),
    next: Option<u64>,
    each: &mut impl FnMut(&KeyRecord<'_>, usize) -> bool,
) -> Result<Stop, Damage> {
    // With a rank of the base the record before began like it, and those that keep enough of it do as well.
    let mut is_alike = false;
    loop {
        place.advance()?;
        let keeps_base = is_alike && place.kept().is_some_and(|kept| kept >= base.common.len());
        let Some(record) = place.record().filter(|record| range.holds(record)) else {
            return Ok(Stop::End);
        };
        if let Some(next) = next {
            let rank = if keeps_base {
                base.rank_within(record.key, range.reverse)
            } else {
                base.rank(&record, range.reverse)
            };
            if rank >= next {
                return Ok(Stop::Meets(rank));
            }
            is_alike = true;
        }
        // No other cursor stands at this key.
        if !each(&record, 0) {
            return Ok(Stop::Enough);
        }
    }
}

#[derive(Clone, Copy)]
struct Head {
    /// Orders heads that differ in it; see [`Base`].
    rank: u64,
    cursor: usize,
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
        let rank = rank(key, self.common.len());
        if reverse { !rank } else { rank }
    }
}

/// The sources, merged: the cursor that stands first, and a binary heap of the others, by the sort key and then
/// the newest each stands at.
///
/// The first cursor moves on alone while it stays before the next: one comparison of numbers a record.
pub(super) struct Heads<'a> {
    range: Range<'a>,
    /// Newest source first, which decides between equal seqnos.
    cursors: Vec<Cursor<'a>>,
    front: Option<Head>,
    heap: Vec<Head>,
    base: Base,
    /// Times that the first cursor may lose its place before a new base is taken: that costs a look at
    /// every cursor.
    base_rest: usize,
}

impl<'a> Heads<'a> {
    pub(super) fn open(sources: &'a Sources, range: Range<'a>) -> Result<Self, RunDamage> {
        let mut heads = Heads {
            range,
            cursors: Vec::with_capacity(sources.len()),
            front: None,
            heap: Vec::with_capacity(sources.len()),
            base: Base::default(),
            base_rest: 0,
        };
        if range.is_empty() {
            return Ok(heads);
        }
        let frozen = sources.frozen.iter().flat_map(|frozen| frozen.chunks());
        for chunk in sources.memtable.chunks().chain(frozen) {
            heads.add(Cursor::Chunk(InChunk::seek(chunk, &range)));
        }
        for run in &sources.runs {
            heads.add(Cursor::in_run(run, &range)?);
        }
        heads.choose_base();
        for root in (0..heads.heap.len() / 2).rev() {
            heads.sift_down(root);
        }
        heads.front = heads.pop();
        Ok(heads)
    }

    fn add(&mut self, cursor: Cursor<'a>) {
        if cursor
            .record()
            .is_some_and(|record| self.range.holds(&record))
        {
            self.heap.push(Head {
                rank: u64::MAX,
                cursor: self.cursors.len(),
            });
            self.cursors.push(cursor);
        }
    }

    /// Ranks all heads anew, from the first of them on. Their order stays the same.
    #[cold]
    fn choose_base(&mut self) {
        let heads = || self.front.iter().chain(&self.heap);
        self.base_rest = 4 * heads().count();
        let records = || heads().filter_map(|head| self.record(head));
        let order = |a: &KeyRecord<'_>, b: &KeyRecord<'_>| {
            let keys = (a.namespace, a.key).cmp(&(b.namespace, b.key));
            if self.range.reverse {
                keys.reverse()
            } else {
                keys
            }
        };
        let Some(first) = records().min_by(order) else {
            return;
        };
        let shared = records()
            .filter(|record| record.namespace == first.namespace && record.key != first.key)
            .map(|record| {
                record
                    .key
                    .iter()
                    .zip(first.key)
                    .take_while(|(a, b)| a == b)
                    .count()
            })
            .max()
            .unwrap_or(0);
        let common = first
            .key
            .get(..shared.saturating_sub(Base::SLACK))
            .unwrap_or_default();
        let base = Base {
            namespace: first.namespace,
            common: common.to_vec(),
        };
        let rank = |record: KeyRecord<'_>| base.rank(&record, self.range.reverse);
        let ranks: Vec<u64> = records().map(rank).collect();
        let heads = self.front.iter_mut().chain(&mut self.heap);
        for (head, rank) in heads.zip(ranks) {
            head.rank = rank;
        }
        self.base = base;
    }

    /// Gives the newest record of each key to `each`, with the number of older ones that were skipped, until it
    /// says that it has enough. Says whether that was so, rather than that there were no more.
    pub(super) fn each(
        mut self,
        mut each: impl FnMut(&KeyRecord<'_>, usize) -> bool,
    ) -> Result<bool, RunDamage> {
        loop {
            let older = self.skip_older()?;
            let Some(front) = self.front else {
                return Ok(false);
            };
            let Some(record) = self.record(&front) else {
                return Ok(false);
            };
            if !each(&record, older) {
                return Ok(true);
            }
            // One source alone is a plain walk: its rank is never asked for.
            let next = self.heap.first().map(|head| head.rank);
            let Some(cursor) = self.cursors.get_mut(front.cursor) else {
                return Ok(false);
            };
            let (scan, each) = ((&self.range, &self.base), &mut each);
            let stop = match cursor {
                Cursor::Chunk(place) => stretch(place, scan, next, each),
                Cursor::Forward(place) => stretch(place, scan, next, each),
                Cursor::Backward(place) => stretch(place, scan, next, each),
            };
            match stop.map_err(|damage| cursor.damaged(damage))? {
                Stop::Enough => return Ok(true),
                Stop::End => self.front = self.pop(),
                Stop::Meets(rank) => self.choose_front(Head { rank, ..front }),
            }
        }
    }

    /// Leaves only the newest record of the key the scan stands at, and returns how many it skipped.
    #[inline]
    fn skip_older(&mut self) -> Result<usize, RunDamage> {
        let mut skipped = 0;
        while let (Some(front), Some(next)) = (&self.front, self.heap.first())
            && front.rank == next.rank
            && self.same_key(front, next)
        {
            self.step_next()?;
            skipped += 1;
        }
        Ok(skipped)
    }

    fn record(&self, head: &Head) -> Option<KeyRecord<'_>> {
        self.cursors.get(head.cursor)?.record()
    }

    /// Puts the first cursor of all in front again, after the one that was there moved on.
    fn choose_front(&mut self, mut front: Head) {
        if let Some(&next) = self.heap.first()
            && self.compare(&next, &front).is_lt()
        {
            if let Some(first) = self.heap.first_mut() {
                *first = front;
            }
            self.sift_down(0);
            front = next;
        }
        self.front = Some(front);
        self.base_rest = self.base_rest.saturating_sub(1);
        if self.base_rest == 0 && front.rank == u64::MAX {
            self.choose_base();
        }
    }

    /// Takes the first head from the heap.
    fn pop(&mut self) -> Option<Head> {
        if self.heap.is_empty() {
            return None;
        }
        let first = self.heap.swap_remove(0);
        self.sift_down(0);
        Some(first)
    }

    /// Moves the first cursor of the heap on.
    fn step_next(&mut self) -> Result<(), RunDamage> {
        let Some(head) = self.heap.first_mut() else {
            return Ok(());
        };
        let Some(cursor) = self.cursors.get_mut(head.cursor) else {
            return Ok(());
        };
        cursor.advance()?;
        match cursor.record().filter(|record| self.range.holds(record)) {
            Some(record) => {
                head.rank = self.base.rank(&record, self.range.reverse);
                self.sift_down(0);
            }
            None => drop(self.pop()),
        }
        Ok(())
    }

    fn sift_down(&mut self, mut place: usize) {
        while let Some(child) = self.smaller_child(place) {
            if self.is_before(place, child) {
                break;
            }
            self.heap.swap(place, child);
            place = child;
        }
    }

    fn smaller_child(&self, place: usize) -> Option<usize> {
        let left = 2 * place + 1;
        let right = left + 1;
        if right < self.heap.len() {
            Some(if self.is_before(left, right) {
                left
            } else {
                right
            })
        } else {
            (left < self.heap.len()).then_some(left)
        }
    }

    fn same_key(&self, a: &Head, b: &Head) -> bool {
        match (self.record(a), self.record(b)) {
            (Some(a), Some(b)) => (a.namespace, a.key) == (b.namespace, b.key),
            _ => false,
        }
    }

    /// Whether one place of the heap is before another.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.heap.get(a), self.heap.get(b)) {
            (Some(a), Some(b)) => self.compare(a, b).is_lt(),
            _ => false,
        }
    }

    /// Compares by sort key in the direction of the scan; then the newer comes first.
    #[inline]
    fn compare(&self, a: &Head, b: &Head) -> Ordering {
        match a.rank.cmp(&b.rank) {
            Ordering::Equal => self.compare_fully(a, b),
            order => order,
        }
    }

    fn compare_fully(&self, a: &Head, b: &Head) -> Ordering {
        let (Some(x), Some(y)) = (self.record(a), self.record(b)) else {
            return Ordering::Equal;
        };
        let keys = x.namespace.cmp(&y.namespace).then_with(|| x.key.cmp(y.key));
        let keys = if self.range.reverse {
            keys.reverse()
        } else {
            keys
        };
        keys.then(y.seqno.cmp(&x.seqno))
            .then(a.cursor.cmp(&b.cursor))
    }
}
