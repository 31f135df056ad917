//! The buckets of one partition: where a word sits, how it is found, how they grow.
//!
//! A partition is a few stretches of equally many buckets, its multiple. A hash belongs to a stretch, and its
//! tag, read as a fraction, is its place there; so a partition can have any multiple, and the words alone
//! tell where they belong when it grows.
//!
//! A word, from the top: 18 bits of tag, the lowest 2 bits of displacement (how many buckets past its home
//! the word sits), a mark, 43 bits of location. The mark belongs to the bucket, not the word: that of slot
//! *i* says that a key whose tag is *i* modulo 8 passed this bucket because it was full.
#![allow(
    clippy::indexing_slicing,
    reason = "indices are masked or reduced modulo the length of what they index"
)]

use std::array;
use std::iter::successors;
use std::sync::Arc;

use crate::format::checkpoint::NUMBER_MAX;
use crate::format::segment::SEGMENT_LEN;
use crate::mem::{Arena, Bucket, BucketMemory, Map};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use crate::verified::Verified;

/// Few where every schedule of threads is tried, and where stores are opened all the time: there a table
/// must cost little.
pub(crate) const PARTITIONS: usize = if cfg!(any(
    feature = "loom",
    feature = "shuttle",
    feature = "small"
)) {
    4
} else {
    1024
};
pub(super) const SLOTS: usize = 8;
/// Buckets a key may sit in, at most: its home and those that follow.
const REACH: usize = 16;
pub(crate) const MAX_MULTIPLE: u32 = 1 << 14;
/// Where the multiple begins in a hint, above the address.
const HINT_SHIFT: u32 = 48;
/// Stretches of a partition: four sizes, so that the partitions do not all grow at one moment.
const BASES: [u32; 4] = [4, 5, 6, 7];
/// Buckets under one checksum in a checkpoint: a page.
const CHUNK: usize = 64;
const TAG_BITS: u32 = 18;
const TAG_SHIFT: u32 = 46;
const DISPLACEMENT_SHIFT: u32 = 44;
/// A word has its displacement modulo this.
const DISPLACEMENTS: usize = 4;
const MARK: u64 = 1 << 43;
const LOCATION: u64 = MARK - 1;
const OFFSET_BITS: u32 = 23;
const NUMBER_BITS: u32 = 20;

// A word is tag, displacement, mark, number and offset, from its top.
const _: () = {
    assert!(TAG_BITS + TAG_SHIFT == u64::BITS);
    assert!(1 << (TAG_SHIFT - DISPLACEMENT_SHIFT) == DISPLACEMENTS);
    assert!(REACH.is_multiple_of(DISPLACEMENTS));
    assert!(DISPLACEMENTS <= BASES[0] as usize);
    assert!(MARK == 1 << (DISPLACEMENT_SHIFT - 1));
    assert!(MARK == 1 << (NUMBER_BITS + OFFSET_BITS));
    assert!(
        MAX_MULTIPLE <= 1 << TAG_BITS,
        "a tag tells buckets of a stretch apart"
    );
    assert!(MAX_MULTIPLE as u64 <= u64::MAX >> HINT_SHIFT);
    assert!(SLOTS == 8);
    assert!(NUMBER_MAX == 1 << NUMBER_BITS, "a word has room for each");
    assert!(SEGMENT_LEN <= 8 << OFFSET_BITS, "each place fits");
    assert!(TAG_BITS <= u32::BITS);
    assert!(SLOTS.is_power_of_two());
    assert!(PARTITIONS.is_power_of_two());
    assert!(PARTITIONS.is_multiple_of(BASES.len()));
};

/// Where a record lies: the number of a segment and an offset in it. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Location(u64);

impl Location {
    /// # Panics
    /// Unless `number` is in `1..1 << 20`, and `offset` a multiple of 8 below `1 << 26`: anything
    /// else would not fit the word and silently point elsewhere.
    pub(crate) fn new(number: u32, offset: u64) -> Location {
        assert!(
            number > 0 && number < 1 << 20,
            "segment number {number} out of range"
        );
        assert!(
            offset.is_multiple_of(8) && offset >> 3 < 1 << OFFSET_BITS,
            "offset {offset} out of range"
        );
        Location(u64::from(number) << OFFSET_BITS | offset >> 3)
    }

    /// What a slot points to.
    pub(super) fn of(slot: &AtomicU64) -> Option<Location> {
        let location = slot.load(Ordering::Relaxed) & LOCATION;
        debug_assert!(location < MARK);
        (location != 0).then_some(Location(location))
    }

    pub(crate) fn number(self) -> u32 {
        (self.0 >> OFFSET_BITS & 0xF_FFFF) as u32
    }

    /// In bytes.
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) << 3
    }
}

/// What is known of buckets that still lie in a checkpoint.
struct Saved {
    /// The checksum that each chunk had when it was saved.
    crcs: Box<[u32]>,
    verified: Verified,
    damaged: AtomicBool,
}

/// One cache line, which every lookup waits for.
#[repr(align(64))]
pub(super) struct Buckets {
    memory: BucketMemory,
    partition: usize,
    multiple: u32,
    saved: Option<Box<Saved>>,
}

const _: () = assert!(size_of::<Buckets>() == 64);

impl Buckets {
    /// How many buckets a partition of a multiple has, `None` if none ever has.
    pub(super) fn count(partition: usize, multiple: u32) -> Option<usize> {
        let count = usize::try_from(BASES[partition & 3].checked_mul(multiple)?).ok()?;
        (1..=MAX_MULTIPLE).contains(&multiple).then_some(count)
    }

    /// The empty buckets of a partition; `None` if the system has no address space for them.
    pub(super) fn empty(arena: &Arc<Arena>, partition: usize, multiple: u32) -> Option<Buckets> {
        let buckets = Buckets::unused(arena, partition, multiple)?;
        buckets
            .slots()
            .for_each(|slot| slot.store(0, Ordering::Relaxed));
        Some(buckets)
    }

    /// The same, with whatever words were there before.
    fn unused(arena: &Arc<Arena>, partition: usize, multiple: u32) -> Option<Buckets> {
        Some(Buckets {
            memory: arena.buckets(Buckets::count(partition, multiple)?)?,
            partition,
            multiple,
            saved: None,
        })
    }

    /// Buckets that lie in a private mapping of a checkpoint, with the checksums of their chunks; `None`
    /// if they do not lie there.
    pub(super) fn mapped(
        map: &Arc<Map>,
        offset: usize,
        partition: usize,
        multiple: u32,
        crcs: &[u32],
    ) -> Option<Buckets> {
        let len = Buckets::count(partition, multiple)?;
        debug_assert_eq!(crcs.len(), len.div_ceil(CHUNK), "a checksum for each chunk");
        Some(Buckets {
            memory: BucketMemory::mapped(Arc::clone(map), offset, len)?,
            partition,
            multiple,
            saved: Some(Box::new(Saved {
                crcs: crcs.into(),
                verified: Verified::none(crcs.len()),
                damaged: AtomicBool::new(false),
            })),
        })
    }

    /// Whether they still lie in a checkpoint.
    pub(super) fn are_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// Starts to read what still lies in a checkpoint.
    pub(super) fn will_need(&self) {
        self.memory.will_need();
    }

    /// Whether a part of them was found damaged.
    pub(super) fn are_damaged(&self) -> bool {
        let saved = self.saved.as_ref();
        saved.is_some_and(|saved| saved.damaged.load(Ordering::Acquire))
    }

    /// Whether a bucket is what was saved or written since.
    #[inline]
    fn is_intact(&self, bucket: usize) -> bool {
        match &self.saved {
            None => true,
            Some(saved) => saved.verified.has(bucket / CHUNK) || self.verify(saved, bucket / CHUNK),
        }
    }

    /// Verifies what was not verified yet.
    pub(super) fn all_are_intact(&self) -> bool {
        (0..self.len())
            .step_by(CHUNK)
            .all(|bucket| self.is_intact(bucket))
    }

    #[cold]
    fn verify(&self, saved: &Saved, chunk: usize) -> bool {
        debug_assert!(chunk < self.len().div_ceil(CHUNK));
        let buckets = self.memory.buckets().chunks(CHUNK).nth(chunk);
        let buckets = buckets.unwrap_or_default();
        // All at once: a checksum of many short pieces takes ten times as long.
        let mut bytes = [0; CHUNK_LEN];
        for (to, bucket) in bytes.chunks_exact_mut(size_of::<Bucket>()).zip(buckets) {
            to.copy_from_slice(&bytes_of(bucket));
        }
        // Who writes verifies first, so words that were written meanwhile come with the bit.
        let found = crc32fast::hash(&bytes[..size_of_val(buckets)]);
        fence(Ordering::Acquire);
        let is_intact = saved.crcs.get(chunk) == Some(&found) || saved.verified.has(chunk);
        if is_intact {
            saved.verified.add(chunk);
        } else {
            saved.damaged.store(true, Ordering::Release);
        }
        is_intact
    }

    /// A copy in memory of our own; `None` if a part is damaged, or there is no memory.
    pub(super) fn copied(&self, arena: &Arc<Arena>) -> Option<Buckets> {
        if !self.all_are_intact() {
            return None;
        }
        let copy = Buckets::unused(arena, self.partition, self.multiple)?;
        debug_assert_eq!(copy.len(), self.len(), "a copy has room for all");
        debug_assert!(!copy.are_saved(), "a copy can grow");
        for (to, from) in copy.memory.buckets().iter().zip(self.memory.buckets()) {
            for (to, from) in to.0.iter().zip(&from.0) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        Some(copy)
    }

    pub(super) fn len(&self) -> usize {
        self.memory.buckets().len()
    }

    /// All slots, of the partition's owner alone.
    pub(super) fn slots(&self) -> impl Iterator<Item = &AtomicU64> {
        self.memory.buckets().iter().flat_map(|bucket| &bucket.0)
    }

    /// How many buckets a key may sit in: few enough that the tag and the lowest bits of the displacement
    /// tell the home, since homes of one tag are a multiple apart.
    fn reach(&self) -> usize {
        REACH.min((self.multiple as usize).next_multiple_of(DISPLACEMENTS))
    }

    /// In one word where the buckets begin, and their multiple.
    pub(super) fn hint(&self) -> u64 {
        self.memory.buckets().as_ptr().addr() as u64 | u64::from(self.multiple) << HINT_SHIFT
    }

    /// The address of the home bucket of a hash, if buckets still lie where the hint of their partition says.
    #[inline]
    pub(super) fn hinted(hint: u64, partition: usize, hash: u64) -> u64 {
        let (first, multiple) = (hint & ((1 << HINT_SHIFT) - 1), hint >> HINT_SHIFT);
        let home = (position(hash, partition) * multiple) >> TAG_BITS;
        first.wrapping_add(home * size_of::<Bucket>() as u64)
    }

    /// The home bucket and the tag of a hash.
    #[inline]
    pub(super) fn spot(&self, hash: u64) -> (usize, u64) {
        let position = position(hash, self.partition);
        // At most 21 + 14 bits.
        let home = (position * u64::from(self.multiple)) >> TAG_BITS;
        debug_assert!(home < self.len() as u64, "every hash has a home");
        (
            (home & 0xFFFF_FFFF) as usize,
            position & ((1 << TAG_BITS) - 1),
        )
    }

    /// The address of the home bucket of a hash.
    #[cfg(test)]
    pub(super) fn home(&self, hash: u64) -> u64 {
        self.memory.buckets()[self.spot(hash).0].0.as_ptr().addr() as u64
    }

    /// Calls `f` with the locations that may be those of `hash`, until it returns true.
    #[inline]
    pub(super) fn probe(&self, hash: u64, mut f: impl FnMut(Location) -> bool) -> Option<Location> {
        let (home, tag) = self.spot(hash);
        let buckets = self.memory.buckets();
        for displacement in 0..self.reach() {
            let at = wrap(home + displacement, buckets.len());
            if !self.is_intact(at) {
                return None;
            }
            let bucket = &buckets[at];
            let words: [u64; SLOTS] = array::from_fn(|i| bucket.0[i].load(Ordering::Acquire));
            let want = word(tag, displacement, 0);
            let mut mask = 0u32;
            for (i, word) in words.iter().enumerate() {
                mask |= u32::from((word ^ want) >> DISPLACEMENT_SHIFT == 0) << i;
            }
            while mask != 0 {
                let location = Location(words[mask.trailing_zeros() as usize] & LOCATION);
                // An empty word looks like one whose tag is zero.
                if location.0 != 0 && f(location) {
                    return Some(location);
                }
                mask &= mask - 1;
            }
            if marker(bucket, tag).load(Ordering::Acquire) & MARK == 0 {
                break;
            }
        }
        if self.are_saved() {
            self.verify_reach(home);
        }
        None
    }

    /// Verifies all that a key may sit in. Who finds it nowhere may put it there, and then nobody asks any more
    /// whether a page is damaged.
    #[cold]
    fn verify_reach(&self, home: usize) {
        let intact = self.within_reach(home).count();
        debug_assert!(intact == self.reach() || self.are_damaged(), "it is noted");
    }

    /// The buckets that a key may sit in, with their displacements, up to one that is damaged. For the writer.
    fn within_reach(&self, home: usize) -> impl Iterator<Item = (usize, &Bucket)> {
        debug_assert!(home < self.len());
        let buckets = self.memory.buckets();
        let at = move |displacement| wrap(home + displacement, buckets.len());
        (0..self.reach())
            .map(move |displacement| (displacement, at(displacement)))
            .take_while(|(_, at)| self.is_intact(*at))
            .map(|(displacement, at)| (displacement, &buckets[at]))
    }

    /// The slot that holds `location` for `hash`. For the writer.
    pub(super) fn slot(&self, hash: u64, location: Location) -> Option<&AtomicU64> {
        let (home, tag) = self.spot(hash);
        self.within_reach(home).find_map(|(displacement, bucket)| {
            let want = word(tag, displacement, location.0);
            let mut slots = bucket.0.iter();
            slots.find(|slot| slot.load(Ordering::Relaxed) & !MARK == want)
        })
    }

    /// Puts a word into the first of its buckets with room; false, and nothing changed, if there is
    /// none. For the writer.
    pub(super) fn place(&self, home: usize, tag: u64, location: Location) -> bool {
        let found = self.within_reach(home).find_map(|(displacement, bucket)| {
            let mut slots = bucket.0.iter();
            let slot = slots.find(|slot| slot.load(Ordering::Relaxed) & !MARK == 0);
            slot.map(|slot| (displacement, slot))
        });
        let Some((displacement, slot)) = found else {
            return false;
        };
        // The marks first: who can see the word must be able to reach it.
        for (_, passed) in self.within_reach(home).take(displacement) {
            marker(passed, tag).fetch_or(MARK, Ordering::Release);
        }
        set(slot, word(tag, displacement, location.0));
        true
    }

    /// The buckets as they are. Of damaged ones something else, which nobody may use.
    pub(super) fn image(&self, entries: usize) -> Image {
        let _tells_damage = self.all_are_intact();
        let buckets = self.memory.buckets();
        let mut bytes = Vec::with_capacity(size_of_val(buckets));
        for bucket in buckets {
            bytes.extend_from_slice(&bytes_of(bucket));
        }
        let size = saved_size(self.partition, self.multiple);
        debug_assert_eq!(
            size.map(|(len, _)| len),
            Some(bytes.len()),
            "as it is read again"
        );
        Image {
            entries,
            multiple: self.multiple,
            bytes,
        }
    }

    /// Every word with its home bucket.
    fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        let buckets = self.memory.buckets();
        buckets.iter().enumerate().flat_map(move |(at, bucket)| {
            bucket.0.iter().filter_map(move |slot| {
                let word = slot.load(Ordering::Relaxed) & !MARK;
                (word != 0).then(|| (self.home_of(at, word), word))
            })
        })
    }

    /// The home of a word that sits in bucket `at`: the tag tells its place in a stretch, and there is one
    /// such place within reach. That of a forged word, which may have none, is anywhere.
    fn home_of(&self, at: usize, word: u64) -> usize {
        let multiple = self.multiple as usize;
        let place = self.place_of(word >> TAG_SHIFT);
        let lowest = (word >> DISPLACEMENT_SHIFT) as usize % DISPLACEMENTS;
        (lowest..self.reach())
            .step_by(DISPLACEMENTS)
            .map(|displacement| wrap(at + self.len() - displacement, self.len()))
            .find(|home| home % multiple == place)
            .unwrap_or(at)
    }

    /// The place of a tag in its stretch.
    fn place_of(&self, tag: u64) -> usize {
        ((tag * u64::from(self.multiple)) >> TAG_BITS) as usize
    }

    /// Whether all words within reach share the home of `hash` however large the partition is.
    fn hopeless(&self, hash: u64) -> bool {
        let (home, tag) = self.spot(hash);
        let low = TAG_BITS - MAX_MULTIPLE.ilog2();
        self.reach() == REACH
            && self.within_reach(home).all(|(displacement, bucket)| {
                let want = word(tag, displacement, 0);
                bucket.0.iter().all(|slot| {
                    let word = slot.load(Ordering::Relaxed);
                    word & LOCATION != 0
                        && (word ^ want) >> (TAG_SHIFT + low) == 0
                        && (word ^ want) >> DISPLACEMENT_SHIFT & 3 == 0
                })
            })
    }

    /// A larger copy, or one as large if that may be and has room, that also holds `location` for `hash`; `None`
    /// if no permitted size has room.
    pub(super) fn grown(
        &self,
        hash: u64,
        location: Location,
        may_be_as_large: bool,
        arena: &Arc<Arena>,
    ) -> Option<Buckets> {
        debug_assert!(!self.are_saved(), "what grows does not lie in a checkpoint");
        if self.hopeless(hash) {
            return None;
        }
        let first = if may_be_as_large {
            self.multiple
        } else {
            larger(self.multiple)
        };
        multiples(first).find_map(|multiple| {
            let new = self.placed_again(multiple, arena)?;
            let (home, tag) = new.spot(hash);
            new.place(home, tag, location).then_some(new)
        })
    }

    /// A copy of buckets of version 1, with marks as they are now.
    pub(super) fn renewed(&self, arena: &Arc<Arena>) -> Option<Buckets> {
        multiples(self.multiple).find_map(|multiple| self.placed_again(multiple, arena))
    }

    /// A copy of another size; `None` if there is no room for one of the words.
    fn placed_again(&self, multiple: u32, arena: &Arc<Arena>) -> Option<Buckets> {
        let new = Buckets::empty(arena, self.partition, multiple)?;
        let (old, multiple) = (self.multiple as usize, multiple as usize);
        let mut words = self.words();
        let all = words.all(|(home, word)| {
            let tag = word >> TAG_SHIFT;
            let home = home / old * multiple + new.place_of(tag);
            new.place(home, tag, Location(word & LOCATION))
        });
        all.then_some(new)
    }
}

/// The next size of a partition: four steps to a doubling.
fn larger(multiple: u32) -> u32 {
    multiple + (1 << multiple.ilog2().saturating_sub(2))
}

/// The sizes from one on.
fn multiples(first: u32) -> impl Iterator<Item = u32> {
    let all = successors(Some(first), |multiple| Some(larger(*multiple)));
    all.take_while(|multiple| *multiple <= MAX_MULTIPLE)
}

/// Where a hash belongs in its partition: the stretch, then the tag.
fn position(hash: u64, partition: usize) -> u64 {
    ((hash >> 22 & 0xFFFF_FFFF) * u64::from(BASES[partition & 3])) >> (u32::BITS - TAG_BITS)
}

/// The slot whose mark says whether a key with this tag passed the bucket.
fn marker(bucket: &Bucket, tag: u64) -> &AtomicU64 {
    &bucket.0[(tag & 7) as usize]
}

/// A bucket as a checkpoint holds it.
fn bytes_of(bucket: &Bucket) -> [u8; size_of::<Bucket>()] {
    let mut bytes = [0; size_of::<Bucket>()];
    for (to, word) in bytes.chunks_exact_mut(8).zip(&bucket.0) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    bytes
}

fn word(tag: u64, displacement: usize, location: u64) -> u64 {
    debug_assert!(tag >> TAG_BITS == 0);
    debug_assert!(displacement < REACH);
    debug_assert!(location <= LOCATION);
    let displacement = (displacement % DISPLACEMENTS) as u64;
    tag << TAG_SHIFT | displacement << DISPLACEMENT_SHIFT | location
}

/// `index` modulo `count`, for an index below twice the count.
fn wrap(index: usize, count: usize) -> usize {
    debug_assert!(index < 2 * count, "one round at most");
    if index >= count { index - count } else { index }
}

/// What a partition held at one moment.
pub(crate) struct Image {
    pub(crate) entries: usize,
    pub(crate) multiple: u32,
    /// The buckets as they lie in memory, words little-endian.
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// The checksums of its chunks.
    pub(crate) fn crcs(&self) -> impl Iterator<Item = u32> {
        self.bytes.chunks(CHUNK_LEN).map(crc32fast::hash)
    }
}

/// Bytes of a checkpoint under one checksum.
pub(super) const CHUNK_LEN: usize = CHUNK * size_of::<Bucket>();
#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(CHUNK_LEN == 4096, "a chunk is a page");
    let start = crate::format::checkpoint::DATA_START;
    assert!(start.is_multiple_of(CHUNK_LEN as u64), "pages");
};

/// How many bytes and chunks a partition has in a checkpoint; `None` if none has this multiple.
pub(crate) fn saved_size(partition: usize, multiple: u32) -> Option<(usize, usize)> {
    let count = Buckets::count(partition, multiple)?;
    Some((count * size_of::<Bucket>(), count.div_ceil(CHUNK)))
}

/// Stores a word (0 empties the slot) and keeps the overflow mark. Only the holder of the
/// partition's mutex stores, so nothing comes between the load and the store.
pub(super) fn set(slot: &AtomicU64, word: u64) {
    debug_assert_eq!(word & MARK, 0, "the mark stays as it is");
    slot.store(
        slot.load(Ordering::Relaxed) & MARK | word,
        Ordering::Release,
    );
}

/// Lets a slot point elsewhere, for the same key.
pub(super) fn point(slot: &AtomicU64, new: Location) {
    let word = slot.load(Ordering::Relaxed);
    debug_assert!(word & LOCATION != 0, "an empty slot is no key's");
    debug_assert!(
        new.0 & !LOCATION == 0,
        "tag and displacement stay as they are"
    );
    set(slot, word & !(MARK | LOCATION) | new.0);
}
