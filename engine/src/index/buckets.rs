//! The buckets of one partition: where a word sits, how it is found, how they grow.
//!
//! A word, from the top: 18 bits of tag, 2 bits of displacement (how many buckets past its home the
//! word sits), the overflow mark, 43 bits of location. The mark belongs to the bucket, not the word:
//! it is kept in slot 0 and says that some key passed this bucket because it was full.
#![allow(
    clippy::indexing_slicing,
    reason = "indices are masked or reduced modulo the length of what they index"
)]

use std::array;
use std::sync::{Arc, Weak};

use crate::mem::{Bucket, BucketMemory, Map, Region};
use crate::sync::Mutex;
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
/// Buckets a key may sit in: its home and the three that follow.
const REACH: usize = 4;
const MAX_DOUBLINGS: u32 = 14;
/// The bits of a hint that do not belong to an address.
const HINT_DOUBLINGS: u64 = 63;
/// Buckets of a new partition: four sizes, so that the partitions do not all double at one moment.
const BASES: [u32; 4] = [4, 5, 6, 7];
/// Buckets under one checksum in a checkpoint: a page.
const CHUNK: usize = 64;
const TAG_BITS: u32 = 18;
const TAG_SHIFT: u32 = 46;
const DISPLACEMENT_SHIFT: u32 = 44;
const MARK: u64 = 1 << 43;
const LOCATION: u64 = MARK - 1;
const OFFSET_BITS: u32 = 23;
const NUMBER_BITS: u32 = 20;

// A word is tag, displacement, mark, number and offset, from its top.
const _: () = {
    assert!(TAG_BITS + TAG_SHIFT == u64::BITS);
    assert!(1 << (TAG_SHIFT - DISPLACEMENT_SHIFT) == REACH);
    assert!(MARK == 1 << (DISPLACEMENT_SHIFT - 1));
    assert!(MARK == 1 << (NUMBER_BITS + OFFSET_BITS));
    assert!(
        MAX_DOUBLINGS <= TAG_BITS,
        "each doubling takes a bit of the tag"
    );
    assert!(MAX_DOUBLINGS as u64 <= HINT_DOUBLINGS && REACH <= BASES[0] as usize);
    assert!(PARTITIONS.is_power_of_two() && PARTITIONS.is_multiple_of(BASES.len()));
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

/// The memory of all tables of a store that are as often doubled: one region for each number of
/// doublings, which goes when the last partition has outgrown it. In a region the partitions of one
/// base lie side by side, since they grow at about the same time.
#[derive(Default)]
pub(super) struct Regions(Mutex<[Weak<Region>; MAX_DOUBLINGS as usize + 1]>);

impl Regions {
    /// The empty buckets of a partition that was doubled this often. Asked for again only after those
    /// that were made before are gone.
    /// `None` if the system has no address space for them.
    pub(super) fn buckets(&self, partition: usize, doublings: u32) -> Option<Buckets> {
        let buckets = self.unused(partition, doublings)?;
        // One that was made here and did not serve may have left words behind.
        let words = buckets.memory.buckets().iter().flat_map(|bucket| &bucket.0);
        words.for_each(|word| word.store(0, Ordering::Relaxed));
        Some(buckets)
    }

    /// The same, with whatever words they have.
    fn unused(&self, partition: usize, doublings: u32) -> Option<Buckets> {
        let base = BASES[partition & 3];
        let before: u32 = BASES[..partition & 3].iter().sum();
        let group = PARTITIONS / BASES.len();
        let first = (before as usize * group + (partition >> 2) * base as usize) << doublings;
        let memory = BucketMemory::in_region(
            &self.region(doublings)?,
            first,
            (base as usize) << doublings,
        );
        Some(Buckets {
            memory: memory?,
            partition,
            doublings,
            saved: None,
        })
    }

    fn region(&self, doublings: u32) -> Option<Arc<Region>> {
        let region = &mut self.0.lock()[doublings as usize];
        if let Some(region) = region.upgrade() {
            return Some(region);
        }
        let all = BASES.iter().sum::<u32>() as usize * (PARTITIONS / BASES.len());
        let new = Arc::new(Region::new((all << doublings) * size_of::<Bucket>())?);
        *region = Arc::downgrade(&new);
        Some(new)
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
    doublings: u32,
    saved: Option<Box<Saved>>,
}

const _: () = assert!(size_of::<Buckets>() == 64);

impl Buckets {
    /// How many buckets a partition has that was doubled this often, `None` if none ever was.
    pub(super) fn count(partition: usize, doublings: u32) -> Option<usize> {
        let base = usize::try_from(BASES[partition & 3]).ok()?;
        (doublings <= MAX_DOUBLINGS).then(|| base << doublings)
    }

    /// Buckets that lie in a private mapping of a checkpoint, with the checksums of their chunks; `None`
    /// if they do not lie there.
    pub(super) fn mapped(
        map: &Arc<Map>,
        offset: usize,
        partition: usize,
        doublings: u32,
        crcs: &[u32],
    ) -> Option<Buckets> {
        let len = Buckets::count(partition, doublings)?;
        Some(Buckets {
            memory: BucketMemory::mapped(Arc::clone(map), offset, len)?,
            partition,
            doublings,
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

    /// Whether these buckets, counted round the partition's end, are what was saved or written since.
    fn are_intact(&self, buckets: impl IntoIterator<Item = usize>) -> bool {
        let Some(saved) = &self.saved else {
            return true;
        };
        let mut chunks = buckets
            .into_iter()
            .map(|bucket| wrap(bucket, self.len()) / CHUNK);
        chunks.all(|chunk| saved.verified.has(chunk) || self.verify(saved, chunk))
    }

    fn reach_is_intact(&self, home: usize) -> bool {
        self.are_intact((0..REACH).map(|displacement| home + displacement))
    }

    /// Verifies what was not verified yet.
    pub(super) fn all_are_intact(&self) -> bool {
        self.are_intact((0..self.len()).step_by(CHUNK))
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
    pub(super) fn copied(&self, regions: &Regions) -> Option<Buckets> {
        if !self.all_are_intact() {
            return None;
        }
        let copy = regions.unused(self.partition, self.doublings)?;
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

    /// In one word where the buckets begin, which is a multiple of 64, and how often they were doubled.
    pub(super) fn hint(&self) -> u64 {
        self.memory.buckets().as_ptr().addr() as u64 | u64::from(self.doublings)
    }

    /// The address of the home bucket of a hash, if buckets still lie where the hint of their partition says.
    pub(super) fn hinted(hint: u64, partition: usize, hash: u64) -> u64 {
        let (first, doublings) = (hint & !HINT_DOUBLINGS, hint & HINT_DOUBLINGS);
        let home = (product(hash, partition) << doublings) >> 32;
        first.wrapping_add(home * size_of::<Bucket>() as u64)
    }

    /// The home bucket and the tag of a hash.
    pub(super) fn spot(&self, hash: u64) -> (usize, u64) {
        let product = product(hash, self.partition);
        // The product's upper half is the bucket before any doubling; each doubling takes one more
        // bit of its lower half, from the top. At most 35 + 14 bits, so nothing is shifted out.
        let home = (product << self.doublings) >> 32;
        debug_assert!(home < self.len() as u64, "every hash has a home");
        (
            (home & 0xFFFF_FFFF) as usize,
            (product & 0xFFFF_FFFF) >> (32 - TAG_BITS),
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
        if !self.reach_is_intact(home) {
            return None;
        }
        let buckets = self.memory.buckets();
        for displacement in 0..REACH {
            let bucket = &buckets[wrap(home + displacement, buckets.len())];
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
            if words[0] & MARK == 0 {
                break;
            }
        }
        None
    }

    /// The slot that holds `location` for `hash`. For the writer.
    pub(super) fn slot(&self, hash: u64, location: Location) -> Option<&AtomicU64> {
        let (home, tag) = self.spot(hash);
        if !self.reach_is_intact(home) {
            return None;
        }
        let buckets = self.memory.buckets();
        (0..REACH).find_map(|displacement| {
            let want = word(tag, displacement, location.0);
            let bucket = &buckets[wrap(home + displacement, buckets.len())];
            bucket
                .0
                .iter()
                .find(|slot| slot.load(Ordering::Relaxed) & !MARK == want)
        })
    }

    /// Puts a word into the first of its buckets with room; false, and nothing changed, if there is
    /// none. For the writer.
    pub(super) fn place(&self, home: usize, tag: u64, location: Location) -> bool {
        debug_assert!(home < self.len());
        if !self.reach_is_intact(home) {
            return false;
        }
        let buckets = self.memory.buckets();
        let at = |displacement| &buckets[wrap(home + displacement, buckets.len())].0;
        for displacement in 0..REACH {
            let free = at(displacement)
                .iter()
                .find(|s| s.load(Ordering::Relaxed) & !MARK == 0);
            if let Some(slot) = free {
                // The marks first: who can see the word must be able to reach it.
                for passed in 0..displacement {
                    at(passed)[0].fetch_or(MARK, Ordering::Release);
                }
                set(slot, word(tag, displacement, location.0));
                return true;
            }
        }
        false
    }

    /// The buckets as they are. Of damaged ones something else, which nobody may use.
    pub(super) fn image(&self, entries: usize) -> Image {
        let _tells_damage = self.all_are_intact();
        let buckets = self.memory.buckets();
        let mut bytes = Vec::with_capacity(size_of_val(buckets));
        for bucket in buckets {
            bytes.extend_from_slice(&bytes_of(bucket));
        }
        let size = saved_size(self.partition, self.doublings);
        debug_assert_eq!(
            size.map(|(len, _)| len),
            Some(bytes.len()),
            "as it is read again"
        );
        Image {
            entries,
            doublings: self.doublings,
            bytes,
        }
    }

    /// Every word with its home bucket.
    fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        let buckets = self.memory.buckets();
        buckets.iter().enumerate().flat_map(move |(at, bucket)| {
            bucket.0.iter().filter_map(move |slot| {
                let word = slot.load(Ordering::Relaxed) & !MARK;
                let displacement = (word >> DISPLACEMENT_SHIFT & 3) as usize;
                (word != 0).then(|| (wrap(at + buckets.len() - displacement, buckets.len()), word))
            })
        })
    }

    /// Whether 32 words share the home of `hash` however often the buckets are doubled.
    fn hopeless(&self, hash: u64) -> bool {
        let (home, tag) = self.spot(hash);
        let buckets = self.memory.buckets();
        let low = TAG_BITS - MAX_DOUBLINGS;
        (0..REACH).all(|displacement| {
            let want = word(tag, displacement, 0);
            let bucket = &buckets[wrap(home + displacement, buckets.len())];
            bucket.0.iter().all(|slot| {
                let word = slot.load(Ordering::Relaxed);
                word & LOCATION != 0
                    && (word ^ want) >> (TAG_SHIFT + low) == 0
                    && (word ^ want) >> DISPLACEMENT_SHIFT & 3 == 0
            })
        })
    }

    /// A larger copy that also holds `location` for `hash`; `None` if no permitted size has room.
    pub(super) fn grown(
        &self,
        hash: u64,
        location: Location,
        regions: &Regions,
    ) -> Option<Buckets> {
        debug_assert!(!self.are_saved(), "what grows does not lie in a checkpoint");
        if self.hopeless(hash) {
            return None;
        }
        (self.doublings + 1..=MAX_DOUBLINGS).find_map(|doublings| {
            let new = regions.buckets(self.partition, doublings)?;
            let more = doublings - self.doublings;
            debug_assert_eq!(new.len(), self.len() << more);
            let all = self.words().all(|(home, word)| {
                let tag = word >> TAG_SHIFT;
                let bits = tag >> (TAG_BITS - doublings) & ((1 << more) - 1);
                new.place(
                    home << more | (bits & 0xFFFF) as usize,
                    tag,
                    Location(word & LOCATION),
                )
            });
            let (home, tag) = new.spot(hash);
            (all && new.place(home, tag, location)).then_some(new)
        })
    }
}

/// What places a hash in its partition.
fn product(hash: u64, partition: usize) -> u64 {
    (hash >> 22 & 0xFFFF_FFFF) * u64::from(BASES[partition & 3])
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
    debug_assert!(tag >> TAG_BITS == 0 && displacement < REACH && location <= LOCATION);
    tag << TAG_SHIFT | (displacement as u64) << DISPLACEMENT_SHIFT | location
}

/// `index` modulo `count`, for an index below twice the count.
fn wrap(index: usize, count: usize) -> usize {
    debug_assert!(index < 2 * count, "one round at most");
    if index >= count { index - count } else { index }
}

/// What a partition held at one moment.
pub(crate) struct Image {
    pub(crate) entries: usize,
    pub(crate) doublings: u32,
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

/// How many buckets and chunks a partition has in a checkpoint; `None` if none is doubled so often.
pub(crate) fn saved_size(partition: usize, doublings: u32) -> Option<(usize, usize)> {
    let count = Buckets::count(partition, doublings)?;
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
    set(
        slot,
        slot.load(Ordering::Relaxed) & !(MARK | LOCATION) | new.0,
    );
}
