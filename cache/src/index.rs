//! Where the entry of a key is: a table of lines of memory with tags.
//!
//! ```text
//! bucket (64 bytes) = 7 tags | how many passed by | 7 entries
//! ```
//!
//! A tag is eight bits of the hash and never 0, which is an empty place. A key is in the bucket that
//! its hash names, or in the next ones, if that one was full; those who went on are counted. So a hit
//! reads one line here and goes on to the entry itself.
#![allow(
    clippy::indexing_slicing,
    reason = "a bucket is below their number, a place below 7"
)]

use crate::Entry;
use crate::prefetch::prefetch;

const PLACES: usize = 7;
/// Fuller than this, in percent, a table grows by half: too many keys would be in the next bucket.
const FILL_MAX: usize = 80;
/// Emptier than this, it shrinks.
const FILL_MIN: usize = 35;
/// Lines in which the entry of a victim to come is looked for. In a table that is about to grow a third of the
/// entries are not in the line that their hash names, but almost all of these in the next one.
const LINES_AHEAD: usize = 3;

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Seven tags, the first one lowest, and in the highest byte how many keys passed by here since it
    /// was full; that stays at 255 once there.
    head: u64,
    entries: [Option<Entry>; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7F7F_7F7F_7F7F_7F7F;
/// The tags' part of the first word.
const TAGS: u64 = u64::MAX >> 8;
const PASSED: u64 = 1 << 56;
const PASSED_MAX: u64 = 255;

impl Bucket {
    /// Places with this tag: the highest bit of the byte of each. Compares all at once.
    #[inline]
    fn matches(&self, tag: u8) -> u64 {
        let zero_if_same = self.head ^ (ONES * u64::from(tag));
        let different = ((zero_if_same & LOW_BITS) + LOW_BITS) | zero_if_same | LOW_BITS;
        !different & TAGS
    }

    fn set_tag(&mut self, place: usize, tag: u8) {
        let shift = 8 * place;
        self.head = self.head & !(0xFF << shift) | u64::from(tag) << shift;
    }

    #[inline]
    fn passed(&self) -> u64 {
        self.head / PASSED
    }

    /// Notes that a key passes by.
    fn pass(&mut self) {
        if self.passed() < PASSED_MAX {
            self.head += PASSED;
        }
    }

    /// Notes that one that had passed by has left.
    fn unpass(&mut self) {
        if self.passed() < PASSED_MAX {
            self.head -= PASSED;
        }
    }
}

/// The places that `matches` found.
fn places(mut found: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = found.trailing_zeros() as usize / 8;
        found &= found.wrapping_sub(1);
        (place < PLACES).then_some(place)
    })
}

/// Where an entry is, until the index is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    bucket: usize,
    place: usize,
}

#[derive(Debug)]
pub(crate) struct Index {
    buckets: Box<[Bucket]>,
    len: usize,
    /// With `most` entries it grows before one more comes, with fewer than `least` it shrinks.
    most: usize,
    least: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index::with_buckets(1)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "eight bits are wanted")]
fn tag(hash: u32) -> u8 {
    (hash as u8).max(1)
}

/// Spreads the hash over `len` places, by its upper bits: the tag is the lower ones.
#[inline]
pub(crate) fn spread(hash: u32, len: usize) -> usize {
    ((u64::from(hash) * len as u64) >> 32) as usize
}

impl Index {
    fn with_buckets(buckets: usize) -> Index {
        let empty = std::iter::repeat_with(Bucket::default);
        let capacity = buckets * PLACES;
        Index {
            buckets: empty.take(buckets).collect(),
            len: 0,
            most: capacity * FILL_MAX / 100,
            least: if buckets > 1 {
                capacity * FILL_MIN / 100
            } else {
                0
            },
        }
    }

    /// The entry of this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        let spot = self.locate(hash, is_it)?;
        self.at(spot)
    }

    /// The entry that is there.
    #[inline]
    pub(crate) fn at(&self, spot: Spot) -> Option<&Entry> {
        self.buckets[spot.bucket].entries[spot.place].as_ref()
    }

    /// Has the line brought near where an entry of this hash is, or would be.
    pub(crate) fn prefetch(&self, hash: u32) {
        let at = spread(hash, self.buckets.len());
        prefetch(&self.buckets[at]);
        prefetch(&self.buckets[self.next(at)]);
    }

    pub(crate) fn lines(&self) -> *const [Bucket] {
        &*self.buckets
    }

    /// Has the entries brought near that may be the one of this hash, as far as its lines tell.
    pub(crate) fn prefetch_entry(&self, hash: u32) {
        let (tag, mut at) = (tag(hash), spread(hash, self.buckets.len()));
        for _ in 0..LINES_AHEAD {
            let bucket = &self.buckets[at];
            for place in places(bucket.matches(tag)) {
                if let Some(entry) = &bucket.entries[place] {
                    entry.0.prefetch();
                }
            }
            if bucket.passed() == 0 {
                return;
            }
            at = self.next(at);
        }
    }

    #[inline]
    pub(crate) fn locate(&self, hash: u32, is_it: impl Fn(&Entry) -> bool) -> Option<Spot> {
        let (tag, mut at) = (tag(hash), spread(hash, self.buckets.len()));
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for place in places(bucket.matches(tag)) {
                if bucket.entries[place].as_ref().is_some_and(&is_it) {
                    return Some(Spot { bucket: at, place });
                }
            }
            if bucket.passed() == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() {
            0
        } else {
            bucket + 1
        }
    }

    /// Adds an entry whose key is not in the index.
    pub(crate) fn insert(&mut self, entry: Entry) {
        if self.len >= self.most {
            self.rebuild(self.buckets.len() + self.buckets.len().div_ceil(2));
        }
        self.put(entry);
    }

    fn put(&mut self, entry: Entry) {
        let hash = entry.0.hash();
        let mut at = spread(hash, self.buckets.len());
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(place) = places(bucket.matches(0)).next() {
                bucket.set_tag(place, tag(hash));
                bucket.entries[place] = Some(entry);
                self.len += 1;
                return;
            }
            bucket.pass();
            at = self.next(at);
        }
    }

    /// Puts an entry in the place of the one that is there, which it returns.
    pub(crate) fn replace(&mut self, spot: Spot, entry: Entry) -> Option<Entry> {
        self.buckets[spot.bucket].entries[spot.place].replace(entry)
    }

    /// Takes out the entry of this hash that is there.
    pub(crate) fn remove(&mut self, hash: u32, spot: Spot) -> Option<Entry> {
        let mut at = spread(hash, self.buckets.len());
        while at != spot.bucket {
            self.buckets[at].unpass();
            at = self.next(at);
        }
        let bucket = &mut self.buckets[at];
        bucket.set_tag(spot.place, 0);
        let entry = bucket.entries[spot.place].take();
        self.len -= 1;
        if self.len < self.least {
            self.rebuild(self.buckets.len().div_ceil(2));
        }
        entry
    }

    fn rebuild(&mut self, buckets: usize) {
        let old = std::mem::replace(self, Index::with_buckets(buckets));
        old.into_entries().for_each(|entry| self.put(entry));
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let buckets = self.buckets.into_iter();
        buckets.flat_map(|bucket| bucket.entries.into_iter().flatten())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.entries.iter().flatten())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::value::Life;

    /// An entry whose hash meets others in few buckets, some of them with one tag.
    fn entry(slot: u32) -> Entry {
        let life = Life {
            fetched: 0,
            fresh_until: 0,
            kept_until: 0,
            generation: 0,
            hash: hash(slot),
        };
        let block = Value::absent().into_block("key".into(), life);
        block.set_slot(slot);
        Entry(block)
    }

    fn hash(slot: u32) -> u32 {
        ((slot % 7) << 30) | (slot % 3)
    }

    #[test]
    fn entries_are_found_after_any_order_of_changes() {
        let mut index = Index::default();
        for slot in 0..1000 {
            index.insert(entry(slot));
        }
        let is = |slot| move |entry: &Entry| entry.0.slot() == slot;
        for slot in (0..1000).step_by(2) {
            let spot = index.locate(hash(slot), is(slot)).expect("it is held");
            let gone = index.remove(hash(slot), spot);
            assert!(gone.is_some_and(|gone| gone.0.slot() == slot));
        }
        for slot in 0..1000 {
            let found = index.find(hash(slot), is(slot));
            assert_eq!(found.is_some(), slot % 2 == 1, "{slot}");
        }
        for slot in (1..1000).step_by(2) {
            let spot = index.locate(hash(slot), is(slot)).expect("it is held");
            let gone = index.remove(hash(slot), spot);
            assert!(gone.is_some_and(|gone| gone.0.slot() == slot));
        }
        assert_eq!((index.len(), index.iter().count()), (0, 0));
        assert_eq!(index.buckets.len(), 1, "it shrank again");
    }
}
