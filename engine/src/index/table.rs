//! The point index: from the hash of a key to where its newest record lies.
//!
//! 1024 partitions by the top ten bits of the hash; each is an array of cache-line buckets of eight
//! words that grows by doubling. Readers take no lock: they follow an epoch pointer to the buckets
//! and load words. Writers hold the mutex of the partition. A word never moves within its array, and
//! an array that was outgrown is not written again, so a reader always finds what stays in the table.
//!
//! A word, from the top: 18 bits of tag, 2 bits of displacement (how many buckets past its home the
//! word sits), the overflow mark, 43 bits of location. The mark belongs to the bucket, not the word:
//! it is kept in slot 0 and says that some key passed this bucket because it was full.
#![allow(
    clippy::indexing_slicing,
    reason = "indices are masked or reduced modulo the length of what they index"
)]

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch::Guard;
use parking_lot::Mutex;

use crate::mem::{Bucket, BucketMemory, EpochCell, Map, prefetch};

pub(crate) const PARTITIONS: usize = 1024;
const SLOTS: usize = 8;
/// Buckets a key may sit in: its home and the three that follow.
const REACH: usize = 4;
const MAX_DOUBLINGS: u32 = 14;
/// Buckets of a new partition: four sizes, so that the partitions do not all double at one moment.
const BASES: [u32; 4] = [4, 5, 6, 7];
const TAG_BITS: u32 = 18;
const TAG_SHIFT: u32 = 46;
const DISPLACEMENT_SHIFT: u32 = 44;
const MARK: u64 = 1 << 43;
const LOCATION: u64 = MARK - 1;
const OFFSET_BITS: u32 = 23;

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

    pub(crate) fn number(self) -> u32 {
        (self.0 >> OFFSET_BITS & 0xF_FFFF) as u32
    }

    /// In bytes.
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) << 3
    }
}

struct Buckets {
    memory: BucketMemory,
    base: u32,
    doublings: u32,
}

impl Buckets {
    fn new(base: u32, doublings: u32) -> Buckets {
        Buckets {
            memory: BucketMemory::zeroed((base as usize) << doublings),
            base,
            doublings,
        }
    }

    /// The home bucket and the tag of a hash.
    fn spot(&self, hash: u64) -> (usize, u64) {
        let product = (hash >> 22 & 0xFFFF_FFFF) * u64::from(self.base);
        // The product's upper half is the bucket before any doubling; each doubling takes one more
        // bit of its lower half, from the top. At most 35 + 14 bits, so nothing is shifted out.
        let home = (product << self.doublings) >> 32;
        (
            (home & 0xFFFF_FFFF) as usize,
            (product & 0xFFFF_FFFF) >> (32 - TAG_BITS),
        )
    }

    /// Calls `f` with the locations that may be those of `hash`, until it returns true.
    fn probe(&self, hash: u64, mut f: impl FnMut(Location) -> bool) -> Option<Location> {
        let (home, tag) = self.spot(hash);
        let buckets = self.memory.buckets();
        for displacement in 0..REACH {
            let bucket = &buckets[wrap(home + displacement, buckets.len())];
            let words: [u64; SLOTS] = array::from_fn(|i| bucket.0[i].load(Ordering::Acquire));
            let want = word(tag, displacement, 0);
            let mut mask = 0u32;
            for (i, word) in words.iter().enumerate() {
                let same = (word ^ want) >> DISPLACEMENT_SHIFT == 0;
                mask |= (u32::from(same) & u32::from(word & LOCATION != 0)) << i;
            }
            while mask != 0 {
                let location = Location(words[mask.trailing_zeros() as usize] & LOCATION);
                if f(location) {
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
    fn slot(&self, hash: u64, location: Location) -> Option<&AtomicU64> {
        let (home, tag) = self.spot(hash);
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
    fn place(&self, home: usize, tag: u64, location: u64) -> bool {
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
                set(slot, word(tag, displacement, location));
                return true;
            }
        }
        false
    }

    fn image(&self, entries: usize) -> Image {
        let buckets = self.memory.buckets();
        let mut bytes = Vec::with_capacity(size_of_val(buckets));
        for bucket in buckets {
            let words: [u64; SLOTS] = array::from_fn(|i| bucket.0[i].load(Ordering::Relaxed));
            for word in words {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
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
    fn grown(&self, hash: u64, location: Location) -> Option<Buckets> {
        if self.hopeless(hash) {
            return None;
        }
        (self.doublings + 1..=MAX_DOUBLINGS).find_map(|doublings| {
            let new = Buckets::new(self.base, doublings);
            let more = doublings - self.doublings;
            let all = self.words().all(|(home, word)| {
                let tag = word >> TAG_SHIFT;
                let bits = tag >> (TAG_BITS - doublings) & ((1 << more) - 1);
                new.place(
                    home << more | (bits & 0xFFFF) as usize,
                    tag,
                    word & LOCATION,
                )
            });
            let (home, tag) = new.spot(hash);
            (all && new.place(home, tag, location.0)).then_some(new)
        })
    }
}

fn word(tag: u64, displacement: usize, location: u64) -> u64 {
    tag << TAG_SHIFT | (displacement as u64) << DISPLACEMENT_SHIFT | location
}

/// `index` modulo `count`, for an index below twice the count.
fn wrap(index: usize, count: usize) -> usize {
    if index >= count { index - count } else { index }
}

/// What a partition held at one moment.
pub(crate) struct Image {
    pub(crate) entries: usize,
    pub(crate) doublings: u32,
    /// The buckets as they lie in memory, words little-endian.
    pub(crate) bytes: Vec<u8>,
}

/// Bytes of the buckets of a partition that was doubled this often; `None` if none ever was.
pub(crate) fn image_len(partition: usize, doublings: u32) -> Option<usize> {
    let base = usize::try_from(BASES[partition & 3]).ok()?;
    (doublings <= MAX_DOUBLINGS).then(|| (base << doublings) * size_of::<Bucket>())
}

/// Stores a word (0 empties the slot) and keeps the overflow mark. Only the holder of the
/// partition's mutex stores, so nothing comes between the load and the store.
fn set(slot: &AtomicU64, word: u64) {
    slot.store(
        slot.load(Ordering::Relaxed) & MARK | word,
        Ordering::Release,
    );
}

#[derive(Default)]
struct PartState {
    entries: usize,
    /// The last capture that has this partition.
    captured: u64,
    /// The partition as it was when that capture began, if it was changed before it was visited.
    aside: Option<Image>,
}

impl PartState {
    /// Before a change: if a capture has yet to visit the partition, keeps it as it is.
    fn keep_aside(&mut self, buckets: &Buckets, capture: u64) {
        if self.captured < capture {
            self.aside = Some(buckets.image(self.entries));
            self.captured = capture;
        }
    }
}

#[repr(align(64))]
struct Partition {
    buckets: EpochCell<Buckets>,
    writer: Mutex<PartState>,
}

impl Partition {
    fn new(buckets: Buckets, entries: usize) -> Partition {
        let state = PartState {
            entries,
            ..PartState::default()
        };
        Partition {
            buckets: EpochCell::new(buckets),
            writer: Mutex::new(state),
        }
    }
}

/// The point index. It holds no keys: whoever asks compares them.
pub(crate) struct Table {
    partitions: Box<[Partition; PARTITIONS]>,
    /// Counts captures; see [`begin_capture`](Table::begin_capture).
    capture: AtomicU64,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table::of(Box::new(array::from_fn(|p| {
            Partition::new(Buckets::new(BASES[p & 3], 0), 0)
        })))
    }

    fn of(partitions: Box<[Partition; PARTITIONS]>) -> Table {
        Table {
            partitions,
            capture: AtomicU64::new(0),
        }
    }

    /// The table whose buckets lie in a private mapping, from `offset` on: for each partition how
    /// often it was doubled and how many entries it has. `None` if they do not lie there.
    pub(crate) fn mapped(
        map: &Arc<Map>,
        mut offset: usize,
        partitions: &[(u32, usize)],
    ) -> Option<Table> {
        let mut mapped = Vec::with_capacity(PARTITIONS);
        for (p, (doublings, entries)) in partitions.iter().enumerate() {
            let len = image_len(p, *doublings)?;
            let memory = BucketMemory::mapped(Arc::clone(map), offset, len / size_of::<Bucket>())?;
            offset += len;
            let buckets = Buckets {
                memory,
                base: BASES[p & 3],
                doublings: *doublings,
            };
            mapped.push(Partition::new(buckets, *entries));
        }
        let mapped = mapped.into_boxed_slice().try_into().ok()?;
        Some(Table::of(mapped))
    }

    /// Removes every entry that lies in one of these segments.
    pub(crate) fn sweep(&self, numbers: &[u32]) {
        for partition in self.partitions.iter() {
            let mut state = partition.writer.lock();
            let guard = crossbeam_epoch::pin();
            let buckets = partition.buckets.load(&guard);
            state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
            for slot in buckets.memory.buckets().iter().flat_map(|bucket| &bucket.0) {
                let location = Location(slot.load(Ordering::Relaxed) & LOCATION);
                if location.0 != 0 && numbers.contains(&location.number()) {
                    set(slot, 0);
                    state.entries -= 1;
                }
            }
        }
    }

    /// Begins to capture the table as it is now; no entry may be added or replaced meanwhile. From
    /// here on whoever changes a partition first keeps it aside, until it was visited.
    pub(crate) fn begin_capture(&self) {
        self.capture.fetch_add(1, Ordering::Release);
    }

    /// A partition as it was when the capture began. Each is asked for once.
    pub(crate) fn captured(&self, partition: usize) -> Image {
        let partition = &self.partitions[partition];
        let mut state = partition.writer.lock();
        state.captured = self.capture.load(Ordering::Acquire);
        let guard = crossbeam_epoch::pin();
        let aside = state.aside.take();
        aside.unwrap_or_else(|| partition.buckets.load(&guard).image(state.entries))
    }

    /// Ends a capture that may not have visited every partition.
    pub(crate) fn end_capture(&self) {
        for partition in self.partitions.iter() {
            let mut state = partition.writer.lock();
            state.captured = self.capture.load(Ordering::Acquire);
            state.aside = None;
        }
    }

    fn partition(&self, hash: u64) -> &Partition {
        &self.partitions[(hash >> 54) as usize]
    }

    /// The first candidate that `is_match` accepts. `is_match` may be called for other keys' records.
    pub(crate) fn find(
        &self,
        hash: u64,
        guard: &Guard,
        is_match: impl FnMut(Location) -> bool,
    ) -> Option<Location> {
        self.partition(hash)
            .buckets
            .load(guard)
            .probe(hash, is_match)
    }

    /// Calls `f` with every location that may be that of `hash`.
    pub(crate) fn candidates(&self, hash: u64, guard: &Guard, mut f: impl FnMut(Location)) {
        self.find(hash, guard, |location| {
            f(location);
            false
        });
    }

    /// Starts to bring the home bucket of `hash` into the cache.
    pub(crate) fn prefetch(&self, hash: u64, guard: &Guard) {
        let buckets = self.partition(hash).buckets.load(guard);
        let (home, _) = buckets.spot(hash);
        prefetch(&buckets.memory.buckets()[home..]);
    }

    /// Adds an entry; the caller knows that its key is not in the table.
    ///
    /// Returns false, and adds nothing, if there is no room even after the last doubling permitted.
    /// That takes more than 32 keys whose hashes agree in some 26 bits, or a table near its largest
    /// size.
    #[must_use]
    pub(crate) fn insert(&self, hash: u64, location: Location) -> bool {
        let partition = self.partition(hash);
        let mut state = partition.writer.lock();
        let guard = crossbeam_epoch::pin();
        let buckets = partition.buckets.load(&guard);
        state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
        let slots = buckets.memory.buckets().len() * SLOTS;
        let crowded = (state.entries + 1) * 5 > slots * 4;
        let (home, tag) = buckets.spot(hash);
        // A crowded partition grows first, but if it cannot, it may fill up.
        let grown = if crowded {
            buckets.grown(hash, location)
        } else {
            None
        };
        if grown.is_none() && buckets.place(home, tag, location.0) {
            state.entries += 1;
            return true;
        }
        let grown = if crowded {
            grown
        } else {
            buckets.grown(hash, location)
        };
        let Some(grown) = grown else { return false };
        partition.buckets.replace(grown, &guard);
        state.entries += 1;
        drop(state);
        // Outgrown buckets may be megabytes: do not leave them in this thread's bag.
        guard.flush();
        true
    }

    /// Puts `new` in the place of `old`; false if `old` is not there.
    #[must_use]
    pub(crate) fn replace(&self, hash: u64, old: Location, new: Location) -> bool {
        self.change(hash, old, |slot, _| {
            set(
                slot,
                slot.load(Ordering::Relaxed) & !(MARK | LOCATION) | new.0,
            );
        })
    }

    /// Removes an entry; false if `old` is not there.
    #[must_use]
    pub(crate) fn remove(&self, hash: u64, old: Location) -> bool {
        self.change(hash, old, |slot, state| {
            set(slot, 0);
            state.entries -= 1;
        })
    }

    fn change(&self, hash: u64, old: Location, f: impl Fn(&AtomicU64, &mut PartState)) -> bool {
        let partition = self.partition(hash);
        let mut state = partition.writer.lock();
        let guard = crossbeam_epoch::pin();
        let buckets = partition.buckets.load(&guard);
        let Some(slot) = buckets.slot(hash, old) else {
            return false;
        };
        state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
        f(slot, &mut state);
        true
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.partitions
            .iter()
            .map(|partition| partition.writer.lock().entries)
            .sum()
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        let guard = crossbeam_epoch::pin();
        let buckets = |p: &Partition| p.buckets.load(&guard).memory.buckets().len();
        self.partitions
            .iter()
            .map(|p| {
                size_of::<Partition>() + size_of::<Buckets>() + buckets(p) * size_of::<Bucket>()
            })
            .sum()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests start threads")]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::{Location, SLOTS, Table};

    /// The record of key `id` in its `version`: a location that tells whose it is.
    fn at(version: u32, id: u64) -> Location {
        Location::new(version, id * 8)
    }

    fn find(table: &Table, hash: u64, id: u64) -> Option<Location> {
        table.find(hash, &crossbeam_epoch::pin(), |location| {
            location.offset() == id * 8
        })
    }

    /// Bits well mixed from a counter (splitmix64).
    fn mix(n: u64) -> u64 {
        let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ n >> 31
    }

    #[test]
    fn locations_keep_their_parts() {
        for (number, offset) in [(1, 0), ((1 << 20) - 1, (1 << 26) - 8), (77, 4096)] {
            let location = Location::new(number, offset);
            assert_eq!((location.number(), location.offset()), (number, offset));
        }
    }

    #[test]
    fn grows_to_200k_keys() {
        const KEYS: u64 = 200_000;
        let table = Table::new();
        for id in 0..KEYS {
            assert!(table.insert(mix(id), at(1, id)));
        }
        assert_eq!(table.len(), 200_000);
        assert!(table.bytes() < 200_000 * 8 * 4, "{} bytes", table.bytes());
        for id in (0..KEYS).step_by(3) {
            assert!(table.remove(mix(id), at(1, id)));
            assert!(!table.remove(mix(id), at(1, id)));
        }
        for id in 0..KEYS {
            let expected = (id % 3 != 0).then(|| at(1, id));
            assert_eq!(find(&table, mix(id), id), expected);
        }
    }

    #[test]
    fn identical_hashes_fill_four_buckets_and_no_more() {
        for hash in [0, u64::MAX, mix(1)] {
            let table = Table::new();
            for id in 0..32 {
                assert!(table.insert(hash, at(1, id)));
            }
            assert!(!table.insert(hash, at(1, 32)));
            assert_eq!(table.len(), 4 * SLOTS);
            let mut seen = 0;
            table.candidates(hash, &crossbeam_epoch::pin(), |_| seen += 1);
            assert_eq!(seen, 32);
            assert!(table.remove(hash, at(1, 0)));
            assert!(table.insert(hash, at(1, 32)));
            assert_eq!(find(&table, hash, 31), Some(at(1, 31)));
            assert_eq!(find(&table, hash, 0), None);
        }
    }

    #[test]
    fn doubles_as_often_as_it_takes() {
        // Two spots that part only at the eighth doubling (partition 0, base 4).
        let hash = |id: u64| (id & 1) << 44;
        let table = Table::new();
        for id in 0..40 {
            assert!(table.insert(hash(id), at(1, id)));
        }
        for id in 0..40 {
            assert_eq!(find(&table, hash(id), id), Some(at(1, id)));
        }
        assert!(table.bytes() >= (4 << 8) * 64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a map, with hashes that differ only in the bits of a mask. Every key starts with
        /// a hash of its own, but the table does not look at the lowest bits: keys may share a spot.
        #[test]
        fn agrees_with_a_map(
            mask in prop_oneof![
                Just(u64::MAX >> 10), Just(0x3F << 48), Just(0xFFF << 40), Just(0xFFF << 22),
                Just(0x8888_8888_8888_8888), Just(0xC03F_0000_0000_0000),
            ],
            fixed in any::<u64>(),
            ops in prop::collection::vec((0u8..8, 0u64..600), 1..3000),
        ) {
            let table = Table::new();
            let mut model: HashMap<u64, Location> = HashMap::new();
            // One in the low bits, which the table ignores, tells the hashes apart.
            let hash = |id: u64| ((mix(id) & mask | fixed & !mask) & !0xFFFF) | id;
            for (version, (op, id)) in (1u32..).zip(ops) {
                match (op, model.get(&hash(id)).copied()) {
                    (0, Some(old)) => {
                        prop_assert!(table.remove(hash(id), old));
                        model.remove(&hash(id));
                        prop_assert!(!table.replace(hash(id), old, at(version, id)));
                        prop_assert_eq!(find(&table, hash(id), id), None);
                    }
                    (_, Some(old)) => {
                        prop_assert!(table.replace(hash(id), old, at(version, id)));
                        prop_assert!(!table.remove(hash(id), old));
                        model.insert(hash(id), at(version, id));
                    }
                    (_, None) => {
                        prop_assert!(!table.remove(hash(id), at(version, id)));
                        if table.insert(hash(id), at(version, id)) {
                            model.insert(hash(id), at(version, id));
                        }
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
            for id in 0..600 {
                prop_assert_eq!(find(&table, hash(id), id), model.get(&hash(id)).copied());
            }
        }
    }

    #[test]
    fn readers_find_every_stable_key_while_a_writer_works() {
        const STABLE: u64 = 5_000;
        const PASSING: u64 = 300_000;
        // Few partitions, so that they double often.
        let hash = |id: u64| mix(id) & (u64::MAX >> 6);
        let table = Table::new();
        for id in 0..STABLE {
            assert!(table.insert(hash(id), at(1, id)));
        }
        let done = AtomicBool::new(false);
        // Keys in `STABLE..deleted` with an odd number are gone for good.
        let deleted = AtomicU64::new(STABLE);
        std::thread::scope(|scope| {
            for reader in 0..3 {
                let (table, done, deleted) = (&table, &done, &deleted);
                scope.spawn(move || {
                    let mut n = reader;
                    while !done.load(Ordering::Acquire) {
                        for id in 0..STABLE {
                            assert!(find(table, hash(id), id).is_some(), "lost key {id}");
                            n += 1;
                            let gone = deleted.load(Ordering::Acquire) - STABLE;
                            let other = (STABLE + mix(n) % gone.max(1)) | 1;
                            if other < STABLE + gone {
                                assert_eq!(find(table, hash(other), other), None);
                            }
                        }
                    }
                });
            }
            let mut versions = vec![1u32; 5_000];
            for id in STABLE..STABLE + PASSING {
                assert!(table.insert(hash(id), at(1, id)));
                let (stable, version) = (id % STABLE, &mut versions[(id % STABLE) as usize]);
                assert!(table.replace(
                    hash(stable),
                    at(*version, stable),
                    at(*version + 1, stable)
                ));
                *version += 1;
                if id % 2 == 1 {
                    assert!(table.remove(hash(id), at(1, id)));
                    deleted.store(id + 1, Ordering::Release);
                }
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(table.len() as u64, STABLE + PASSING / 2);
    }
}
