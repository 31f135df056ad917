//! One ordered view of many sorted sources.

use super::memtable::Chunk;
use super::{KeyRecord, Run, RunDamage, Sources};
use crate::format::run::Block;
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

/// A place in one sorted source.
enum Cursor<'a> {
    Chunk {
        chunk: &'a Chunk,
        at: usize,
    },
    Run {
        run: &'a Run,
        number: usize,
        at: usize,
        block: Block<'a>,
    },
}

impl<'a> Cursor<'a> {
    fn in_chunk(chunk: &'a Chunk, range: &Range<'_>) -> Self {
        let begin = match range.begin() {
            Some((namespace, key, after_equal)) => chunk.seek(namespace, key, after_equal),
            None => chunk.len(),
        };
        // Stepping back from 0 wraps to a place no chunk has.
        let at = if range.reverse {
            begin.wrapping_sub(1)
        } else {
            begin
        };
        Cursor::Chunk { chunk, at }
    }

    fn in_run(run: &'a Run, range: &Range<'_>) -> Result<Self, RunDamage> {
        let mut block = Block::default();
        let (number, at) = match range.begin() {
            Some((namespace, key, after_equal)) => run
                .seek(namespace, key, after_equal, &mut block)
                .map_err(|damage| RunDamage {
                    run: run.id(),
                    damage,
                })?,
            None => (run.blocks(), 0),
        };
        let mut cursor = Cursor::Run {
            run,
            number,
            at,
            block,
        };
        if range.reverse {
            cursor.advance(true)?;
        } else {
            cursor.settle()?;
        }
        Ok(cursor)
    }

    #[inline]
    fn record(&self) -> Option<KeyRecord<'_>> {
        match self {
            Cursor::Chunk { chunk, at } => chunk.get(*at),
            Cursor::Run { block, at, .. } => block.get(*at),
        }
    }

    #[inline]
    fn advance(&mut self, reverse: bool) -> Result<(), RunDamage> {
        match self {
            Cursor::Chunk { at, .. } if reverse => *at = at.wrapping_sub(1),
            Cursor::Chunk { at, .. } => *at += 1,
            Cursor::Run { at, .. } if !reverse => {
                *at += 1;
                return self.settle();
            }
            Cursor::Run { at, .. } if *at > 0 => *at -= 1,
            Cursor::Run {
                run,
                number,
                at,
                block,
            } => {
                if *number == 0 {
                    *at = usize::MAX;
                } else {
                    *number -= 1;
                    decode(run, *number, block)?;
                    *at = block.len() - 1;
                }
            }
        }
        Ok(())
    }

    /// Goes on to the next block if this one is used up.
    fn settle(&mut self) -> Result<(), RunDamage> {
        if let Cursor::Run {
            run,
            number,
            at,
            block,
        } = self
            && *at >= block.len()
            && *number + 1 < run.blocks()
        {
            *number += 1;
            *at = 0;
            decode(run, *number, block)?;
        }
        Ok(())
    }
}

fn decode<'a>(run: &'a Run, number: usize, block: &mut Block<'a>) -> Result<(), RunDamage> {
    run.decode(number, block).map_err(|damage| RunDamage {
        run: run.id(),
        damage,
    })
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
        let rank = rank(record.key, self.common.len());
        if reverse { !rank } else { rank }
    }
}

/// The sources, merged: a binary heap of cursors by the sort key, then the newest, each stands at.
///
/// With one source left it is a plain walk.
pub(super) struct Heads<'a> {
    range: Range<'a>,
    /// Newest source first, which decides between equal seqnos.
    cursors: Vec<Cursor<'a>>,
    heap: Vec<Head>,
    base: Base,
    /// Steps before a new base may be taken: it costs a look at every cursor.
    base_rest: usize,
}

impl<'a> Heads<'a> {
    pub(super) fn open(sources: &'a Sources, range: Range<'a>) -> Result<Self, RunDamage> {
        let mut heads = Heads {
            range,
            cursors: Vec::new(),
            heap: Vec::new(),
            base: Base::default(),
            base_rest: 0,
        };
        if range.is_empty() {
            return Ok(heads);
        }
        let frozen = sources.frozen.iter().flat_map(|frozen| frozen.chunks());
        for chunk in sources.memtable.chunks().chain(frozen) {
            heads.add(Cursor::in_chunk(chunk, &range));
        }
        for run in &sources.runs {
            heads.add(Cursor::in_run(run, &range)?);
        }
        heads.choose_base();
        for root in (0..heads.heap.len() / 2).rev() {
            heads.sift_down(root);
        }
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
    fn choose_base(&mut self) {
        self.base_rest = 4 * self.heap.len();
        let records = || self.heap.iter().filter_map(|head| self.record(head));
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
        for (head, rank) in self.heap.iter_mut().zip(ranks) {
            head.rank = rank;
        }
        self.base = base;
    }

    /// Returns the record the merged scan stands at, or `None` at the end.
    #[inline]
    pub(super) fn first(&self) -> Option<KeyRecord<'_>> {
        self.record(self.heap.first()?)
    }

    /// Leaves only the newest record of the key the scan stands at, and returns how many it skipped.
    #[inline]
    pub(super) fn skip_older(&mut self) -> Result<usize, RunDamage> {
        let mut skipped = 0;
        // An older version is second in the heap: a child of the root.
        while let Some(child) = self.smaller_child(0) {
            if !self.same_key(0, child) {
                break;
            }
            self.step(child)?;
            skipped += 1;
        }
        Ok(skipped)
    }

    /// Goes on to the next record.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), RunDamage> {
        self.step(0)
    }

    fn record(&self, head: &Head) -> Option<KeyRecord<'_>> {
        self.cursors.get(head.cursor)?.record()
    }

    /// Advances the cursor at a place in the heap and restores the order.
    #[inline]
    fn step(&mut self, place: usize) -> Result<(), RunDamage> {
        let alone = self.heap.len() == 1;
        let Some(head) = self.heap.get_mut(place) else {
            return Ok(());
        };
        let Some(cursor) = self.cursors.get_mut(head.cursor) else {
            return Ok(());
        };
        cursor.advance(self.range.reverse)?;
        match cursor.record().filter(|record| self.range.holds(record)) {
            // One source alone is a plain walk: its rank is never asked for.
            Some(_) if alone => return Ok(()),
            Some(record) => head.rank = self.base.rank(&record, self.range.reverse),
            None => {
                // The last head comes to this place. It is not before the root, the only one above.
                self.heap.swap_remove(place);
            }
        }
        if self.heap.len() > 1 {
            self.sift_down(place);
            self.base_rest = self.base_rest.saturating_sub(1);
            if self.base_rest == 0 && self.heap.first().is_some_and(|head| head.rank == u64::MAX) {
                self.choose_base();
            }
        }
        Ok(())
    }

    #[inline]
    fn sift_down(&mut self, mut place: usize) {
        while let Some(child) = self.smaller_child(place) {
            if self.compare(place, child).is_lt() {
                break;
            }
            self.heap.swap(place, child);
            place = child;
        }
    }

    #[inline]
    fn smaller_child(&self, place: usize) -> Option<usize> {
        let left = 2 * place + 1;
        let right = left + 1;
        if right < self.heap.len() {
            Some(if self.compare(left, right).is_lt() {
                left
            } else {
                right
            })
        } else {
            (left < self.heap.len()).then_some(left)
        }
    }

    fn same_key(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.heap.get(a), self.heap.get(b)) else {
            return false;
        };
        a.rank == b.rank
            && self.record(a).map(|r| (r.namespace, r.key))
                == self.record(b).map(|r| (r.namespace, r.key))
    }

    /// Compares by sort key in the direction of the scan; then the newer comes first.
    #[inline]
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let (Some(a), Some(b)) = (self.heap.get(a), self.heap.get(b)) else {
            return Ordering::Equal;
        };
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
