//! Where the slot of a key is: a table of lines of memory with tags.
//!
//! ```text
//! bucket (64 bytes) = 12 tags | tags that went on | 3 unused | 12 slot numbers
//! ```
//!
//! A tag is eight bits of the hash and never 0, which is an empty place. A key is in the bucket that
//! its hash names, or in the next ones, if that one was full; it then says that something went on.
#![allow(
    clippy::indexing_slicing,
    reason = "a bucket is below their number, a place below 12"
)]

use crate::slots::NONE;

const PLACES: usize = 12;
/// Fuller than this, a table grows by half: too many keys would be in the next bucket.
const FILL_MAX: f64 = 0.8;
/// Emptier than this, it shrinks.
const FILL_MIN: f64 = 0.2;

#[repr(align(64))]
#[derive(Clone, Debug)]
struct Bucket {
    tags: [u8; PLACES],
    /// Keys that passed by here since it was full; stays at 255 once there.
    passed: u8,
    slots: [u32; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

const EMPTY: Bucket = Bucket {
    tags: [0; PLACES],
    passed: 0,
    slots: [NONE; PLACES],
};

impl Bucket {
    /// Places with this tag, a bit for each. Compares all at once.
    #[inline]
    fn matches(&self, tag: u8) -> u32 {
        let mut found = 0;
        for (place, held) in self.tags.iter().enumerate() {
            found |= u32::from(*held == tag) << place;
        }
        found
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    buckets: Box<[Bucket]>,
    len: usize,
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

/// The places that a set of bits names.
fn places(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (place < PLACES).then_some(place)
    })
}

impl Index {
    fn with_buckets(buckets: usize) -> Index {
        Index {
            buckets: vec![EMPTY; buckets].into(),
            len: 0,
        }
    }

    /// The slot of this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (bucket, place) = self.locate(hash, is_it)?;
        Some(self.buckets[bucket].slots[place])
    }

    #[inline]
    fn locate(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let (tag, mut at) = (tag(hash), spread(hash, self.buckets.len()));
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for place in places(bucket.matches(tag)) {
                if is_it(bucket.slots[place]) {
                    return Some((at, place));
                }
            }
            if bucket.passed == 0 {
                return None;
            }
            at = (at + 1) % self.buckets.len();
        }
        None
    }

    /// Adds a slot that is not in the index. `hash_of` tells the hash of any slot in it.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let capacity = (self.buckets.len() * PLACES) as f64;
        if (self.len + 1) as f64 > capacity * FILL_MAX {
            self.rebuild(self.buckets.len() + self.buckets.len().div_ceil(2), hash_of);
        }
        self.put(hash, slot);
    }

    fn put(&mut self, hash: u32, slot: u32) {
        let mut at = spread(hash, self.buckets.len());
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(place) = places(bucket.matches(0)).next() {
                bucket.tags[place] = tag(hash);
                bucket.slots[place] = slot;
                self.len += 1;
                return;
            }
            bucket.passed = bucket.passed.saturating_add(1);
            at = (at + 1) % self.buckets.len();
        }
    }

    /// Takes out a slot that is in the index.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let Some((found, place)) = self.locate(hash, |held| held == slot) else {
            return;
        };
        let mut at = spread(hash, self.buckets.len());
        while at != found {
            let passed = &mut self.buckets[at].passed;
            *passed -= u8::from(*passed < u8::MAX);
            at = (at + 1) % self.buckets.len();
        }
        self.buckets[found].tags[place] = 0;
        self.buckets[found].slots[place] = NONE;
        self.len -= 1;
        let capacity = (self.buckets.len() * PLACES) as f64;
        if self.buckets.len() > 1 && (self.len as f64) < capacity * FILL_MIN {
            self.rebuild(self.buckets.len().div_ceil(2), hash_of);
        }
    }

    /// Gives a slot's key another slot.
    pub(crate) fn replace(&mut self, hash: u32, slot: u32, new: u32) {
        if let Some((bucket, place)) = self.locate(hash, |held| held == slot) {
            self.buckets[bucket].slots[place] = new;
        }
    }

    fn rebuild(&mut self, buckets: usize, hash_of: impl Fn(u32) -> u32) {
        let old = std::mem::replace(self, Index::with_buckets(buckets));
        for slot in old.iter() {
            self.put(hash_of(slot), slot);
        }
    }

    /// All slots in the index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let slots = self.buckets.iter().flat_map(|bucket| bucket.slots);
        slots.filter(|slot| *slot != NONE)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that meet in few buckets, some of them with one tag.
    fn hash(slot: u32) -> u32 {
        (slot % 7) << 30 | slot % 3
    }

    #[test]
    fn slots_are_found_after_any_order_of_changes() {
        let mut index = Index::default();
        for slot in 0..1000 {
            index.insert(hash(slot), slot, hash);
        }
        for slot in (0..1000).step_by(2) {
            index.remove(hash(slot), slot, hash);
        }
        for slot in 0..1000 {
            let found = index.find(hash(slot), |held| held == slot);
            assert_eq!(found.is_some(), slot % 2 == 1, "{slot}");
        }
        for slot in (1..1000).step_by(2) {
            index.remove(hash(slot), slot, hash);
        }
        assert_eq!((index.len(), index.iter().count()), (0, 0));
        assert_eq!(index.buckets.len(), 1, "it shrank again");
    }
}
