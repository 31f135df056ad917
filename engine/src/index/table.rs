//! The point index: from the hash of a key to where its newest record lies.
//!
//! 1024 partitions by the top ten bits of the hash; each is an array of cache-line buckets of eight
//! words that grows by doubling. Readers take no lock: they follow an epoch pointer to the buckets
//! and load words. Writers hold the mutex of the partition. A word never moves within its array, and
//! an array that was outgrown is not written again, so a reader always finds what stays in the table.
//!
//! After opening, partitions lie in a mapped checkpoint. Whoever needs one first, or maintenance,
//! verifies it and copies it to memory.
#![allow(
    clippy::indexing_slicing,
    reason = "a partition's index is ten bits of a hash"
)]

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_epoch::Guard;
use parking_lot::Mutex;

use super::buckets::{Buckets, Regions, SLOTS, State, point, set};
pub(crate) use super::buckets::{Image, Location, PARTITIONS};
use crate::mem::{Bucket, EpochCell, Map, prefetch};

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
    regions: Regions,
    /// Partitions of a checkpoint that turned out to be damaged. Their keys are not found, and none of
    /// them may be written.
    damaged: AtomicUsize,
    /// Counts captures; see [`begin_capture`](Table::begin_capture).
    capture: AtomicU64,
}

impl Table {
    pub(crate) fn new() -> Table {
        let regions = Regions::default();
        let partitions = array::from_fn(|p| Partition::new(regions.buckets(p, 0), 0));
        Table::of(Box::new(partitions), regions)
    }

    fn of(partitions: Box<[Partition; PARTITIONS]>, regions: Regions) -> Table {
        Table {
            partitions,
            regions,
            damaged: AtomicUsize::new(0),
            capture: AtomicU64::new(0),
        }
    }

    /// The table whose buckets lie in a private mapping, from `offset` on: for each partition how
    /// often it was doubled, how many entries it has, and its checksum. `None` if they do not lie there.
    pub(crate) fn mapped(
        map: &Arc<Map>,
        mut offset: usize,
        partitions: impl Iterator<Item = (u32, usize, u32)>,
    ) -> Option<Table> {
        let mut mapped = Vec::with_capacity(PARTITIONS);
        for (p, (doublings, entries, crc)) in partitions.enumerate().take(PARTITIONS) {
            let (buckets, len) = Buckets::mapped(map, offset, p, doublings, crc)?;
            offset += len;
            mapped.push(Partition::new(buckets, entries));
        }
        let mapped = mapped.into_boxed_slice().try_into().ok()?;
        Some(Table::of(mapped, Regions::default()))
    }

    /// Verifies a partition that still lies in its checkpoint and copies it to memory.
    pub(crate) fn settle(&self, partition: usize) {
        let partition = &self.partitions[partition];
        let guard = crossbeam_epoch::pin();
        if let State::Unverified(_) = partition.buckets.load(&guard).state {
            self.settle_locked(partition, &partition.writer.lock());
        }
    }

    /// Whether no partition lies in a checkpoint any more.
    pub(crate) fn is_settled(&self) -> bool {
        let guard = crossbeam_epoch::pin();
        let state = |p: &Partition| p.buckets.load(&guard).state;
        self.partitions
            .iter()
            .all(|p| !matches!(state(p), State::Unverified(_)))
    }

    #[cold]
    fn settle_locked(&self, partition: &Partition, _alone: &PartState) {
        let guard = crossbeam_epoch::pin();
        let buckets = partition.buckets.load(&guard);
        let State::Unverified(crc) = buckets.state else {
            return;
        };
        let (copy, found) = buckets.copied(&self.regions);
        if found == crc {
            partition.buckets.replace(copy, &guard);
        } else {
            drop(copy);
            self.damaged.fetch_add(1, Ordering::Release);
            partition
                .buckets
                .replace(buckets.damaged(&self.regions), &guard);
        }
    }

    /// The buckets of a partition, for a reader.
    fn read<'g>(&'g self, hash: u64, guard: &'g Guard) -> &'g Buckets {
        let partition = self.partition(hash);
        let buckets = partition.buckets.load(guard);
        if let State::Unverified(_) = buckets.state {
            self.settle_locked(partition, &partition.writer.lock());
            return partition.buckets.load(guard);
        }
        buckets
    }

    /// The same for the holder of its mutex.
    fn write<'g>(
        &'g self,
        partition: &'g Partition,
        state: &PartState,
        guard: &'g Guard,
    ) -> &'g Buckets {
        self.settle_locked(partition, state);
        partition.buckets.load(guard)
    }

    /// How many partitions were found damaged so far.
    pub(crate) fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Acquire)
    }

    /// Whether the entries of the partition of `hash` are lost.
    pub(crate) fn is_damaged(&self, hash: u64, guard: &Guard) -> bool {
        self.damaged() > 0 && self.read(hash, guard).state == State::Damaged
    }

    /// Removes every entry that lies in this segment.
    pub(crate) fn sweep(&self, number: u32) {
        for partition in self.partitions.iter() {
            let mut state = partition.writer.lock();
            let guard = crossbeam_epoch::pin();
            let buckets = self.write(partition, &state, &guard);
            state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
            for slot in buckets.memory.buckets().iter().flat_map(|bucket| &bucket.0) {
                if Location::of(slot).is_some_and(|location| location.number() == number) {
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
        aside.unwrap_or_else(|| self.write(partition, &state, &guard).image(state.entries))
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
        self.read(hash, guard).probe(hash, is_match)
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
        let buckets = self.read(hash, guard);
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
        let buckets = self.write(partition, &state, &guard);
        state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
        let slots = buckets.memory.buckets().len() * SLOTS;
        let crowded = (state.entries + 1) * 5 > slots * 4;
        let (home, tag) = buckets.spot(hash);
        // A crowded partition grows first, but if it cannot, it may fill up.
        let grown = if crowded {
            buckets.grown(hash, location, &self.regions)
        } else {
            None
        };
        if grown.is_none() && buckets.place(home, tag, location) {
            state.entries += 1;
            return true;
        }
        let grown = if crowded {
            grown
        } else {
            buckets.grown(hash, location, &self.regions)
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
        self.change(hash, old, |slot, _| point(slot, new))
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
        let buckets = self.write(partition, &state, &guard);
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
