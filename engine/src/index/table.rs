//! The point index: from the hash of a key to where its newest record lies.
//!
//! 1024 partitions by the top ten bits of the hash; each is an array of cache-line buckets of eight
//! words that grows in small steps. Readers take no lock: they follow an epoch pointer to the buckets
//! and load words. Writers hold the mutex of the partition. A word never moves within its array, and
//! an array that was outgrown is not written again, so a reader always finds what stays in the table.
//!
//! After opening, partitions lie in a mapped checkpoint: pages of it are verified when they are first
//! needed, and changed in place, in memory only. Maintenance copies one after the other out of it.
#![allow(
    clippy::indexing_slicing,
    reason = "a partition's index is ten bits of a hash"
)]

use std::array;
use std::ops::Range;
use std::sync::Arc;

use super::buckets::{Buckets, CHUNK_LEN, SLOTS, point, saved_size, set};
pub(crate) use super::buckets::{Image, Location, PARTITIONS};
use crate::mem::{Arena, Bucket, EpochCell, Map, prefetch_at};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::epoch::{self, Guard};
use crate::worker::both;

#[derive(Default)]
struct PartState {
    /// As far as the checkpoint, which is where it was counted first, is right.
    entries: usize,
    /// Entries that were taken away since its buckets were made. The marks that they left stay until then.
    gone: usize,
    /// The last capture that has this partition.
    captured: u64,
    /// The partition as it was when that capture began, if it was changed before it was visited.
    aside: Option<Image>,
}

impl PartState {
    /// Before a change: if a capture has yet to visit the partition, keeps it as it is.
    fn keep_aside(&mut self, buckets: &Buckets, capture: u64) {
        if self.captured < capture {
            debug_assert!(self.aside.is_none(), "the capture before has ended");
            self.aside = Some(buckets.image(self.entries));
            self.captured = capture;
        }
        debug_assert_eq!(self.captured, capture, "captures follow each other");
    }
}

/// What readers need of a partition. Four to a cache line: all of them stay in the cache of a core, and no
/// writer changes them but where a partition grows.
struct Partition {
    buckets: EpochCell<Buckets>,
    /// Leads to its home buckets, or to those it had just now: enough to fetch them ahead, before a guard is
    /// there.
    hint: AtomicU64,
}

impl Partition {
    fn new(buckets: Buckets) -> Partition {
        Partition {
            hint: AtomicU64::new(buckets.hint()),
            buckets: EpochCell::new(buckets),
        }
    }

    fn replace(&self, new: Buckets, guard: &Guard) {
        self.hint.store(new.hint(), Ordering::Relaxed);
        self.buckets.replace(new, guard);
    }
}

/// What is left of a hash is the number of its partition.
const PARTITION_SHIFT: u32 = u64::BITS - PARTITIONS.ilog2();
const _: () = assert!(
    PARTITION_SHIFT >= 22 + u32::BITS,
    "of what tells a place in it"
);

fn partition_of(hash: u64) -> usize {
    let partition = usize::try_from(hash >> PARTITION_SHIFT).unwrap_or_default();
    debug_assert!(partition < PARTITIONS);
    partition
}

/// The point index. It holds no keys: whoever asks compares them.
pub(crate) struct Table {
    partitions: Box<[Partition; PARTITIONS]>,
    /// What only writers need of each. Whoever changes a partition holds its mutex.
    writers: Box<[Mutex<PartState>; PARTITIONS]>,
    arena: Arc<Arena>,
    /// Counts captures; see [`begin_capture`](Table::begin_capture).
    capture: AtomicU64,
}

impl Table {
    pub(crate) fn new() -> Table {
        let arena = Arc::new(Arena::default());
        let partitions = array::from_fn(|p| {
            let buckets = Buckets::empty(&arena, p, 1);
            Partition::new(buckets.expect("address space for an empty table"))
        });
        let writers = array::from_fn(|_| Mutex::default());
        Table {
            partitions: Box::new(partitions),
            writers: Box::new(writers),
            arena,
            capture: AtomicU64::new(0),
        }
    }

    /// The table whose buckets lie in a private mapping, from `offset` on: for each partition its
    /// multiple and how many entries it has, and the checksums of all chunks. `None` if they
    /// do not lie there.
    pub(crate) fn mapped(
        map: &Arc<Map>,
        mut offset: usize,
        partitions: impl Iterator<Item = (u32, usize)>,
        mut crcs: &[u32],
    ) -> Option<Table> {
        let mut mapped = Vec::with_capacity(PARTITIONS);
        let mut writers = Vec::with_capacity(PARTITIONS);
        // One more is enough to tell that they are too many.
        for (p, (multiple, entries)) in partitions.enumerate().take(PARTITIONS + 1) {
            let (len, chunks) = saved_size(p, multiple)?;
            debug_assert!(offset.is_multiple_of(size_of::<Bucket>()));
            let (own, rest) = crcs.split_at_checked(chunks)?;
            let buckets = Buckets::mapped(map, offset, p, multiple, own)?;
            mapped.push(Partition::new(buckets));
            writers.push(Mutex::new(PartState {
                entries,
                ..PartState::default()
            }));
            offset += len;
            crcs = rest;
        }
        Some(Table {
            partitions: mapped.into_boxed_slice().try_into().ok()?,
            writers: writers.into_boxed_slice().try_into().ok()?,
            arena: Arc::new(Arena::default()),
            capture: AtomicU64::new(0),
        })
    }

    /// Verifies what of a partition still lies in its checkpoint and copies it to memory. If it is
    /// damaged it stays.
    pub(crate) fn settle(&self, partition: usize) {
        let guard = epoch::pin();
        let of_readers = &self.partitions[partition];
        if of_readers.buckets.load(&guard).are_saved() {
            self.settle_locked(of_readers, &self.writers[partition].lock());
        }
    }

    /// Moves a table that was mapped from a checkpoint of version 1, whose marks say less, to memory; false if
    /// it is damaged.
    pub(crate) fn settle_version_1(&self) -> bool {
        self.will_need(0..PARTITIONS);
        let guard = epoch::pin();
        (0..PARTITIONS).all(|p| {
            let partition = &self.partitions[p];
            let buckets = partition.buckets.load(&guard);
            let intact = buckets.all_are_intact();
            let moved = intact.then(|| buckets.renewed(&self.arena)).flatten();
            moved.map(|new| partition.replace(new, &guard)).is_some()
        })
    }

    /// Starts to read what of these partitions still lies in a checkpoint.
    pub(crate) fn will_need(&self, partitions: Range<usize>) {
        let guard = epoch::pin();
        let partitions = self.partitions[partitions].iter();
        partitions.for_each(|partition| partition.buckets.load(&guard).will_need());
    }

    /// Prepares for so many changes at once, of keys from anywhere: where they will come to half of the
    /// pages of a checkpoint, all of it is read in order, which costs less than verifying and copying
    /// each page as it is met.
    pub(crate) fn expect(&self, changes: usize) {
        if changes.saturating_mul(2) >= self.bucket_bytes() / CHUNK_LEN && !self.is_settled() {
            let settle = |part: Range<usize>| part.for_each(|partition| self.settle(partition));
            let (half, rest) = (0..PARTITIONS / 2, PARTITIONS / 2..PARTITIONS);
            self.will_need(0..PARTITIONS);
            // Most of it is the system making memory, which two threads have made in half the time.
            both(|| settle(half), || settle(rest));
        }
    }

    fn settle_locked(&self, partition: &Partition, _alone: &PartState) {
        let guard = epoch::pin();
        let buckets = partition.buckets.load(&guard);
        if !buckets.are_saved() {
            return;
        }
        if let Some(copy) = buckets.copied(&self.arena) {
            partition.replace(copy, &guard);
        }
    }

    /// Whether no partition lies in a checkpoint any more.
    pub(crate) fn is_settled(&self) -> bool {
        let guard = epoch::pin();
        let are_saved = |p: &Partition| p.buckets.load(&guard).are_saved();
        !self.partitions.iter().any(are_saved)
    }

    /// Whether a part of the checkpoint's table was found damaged so far. Keys in it are not found, and
    /// must not be written.
    pub(crate) fn is_damaged(&self) -> bool {
        let guard = epoch::pin();
        let are_damaged = |p: &Partition| p.buckets.load(&guard).are_damaged();
        self.partitions.iter().any(are_damaged)
    }

    /// Whether it was where this hash is.
    pub(crate) fn is_damaged_at(&self, hash: u64, guard: &Guard) -> bool {
        self.partition(hash).buckets.load(guard).are_damaged()
    }

    /// Removes every entry that lies in one of these segments.
    pub(crate) fn sweep(&self, numbers: &[u32]) {
        debug_assert!(!numbers.contains(&0), "0 is no segment");
        for (partition, writer) in self.partitions.iter().zip(self.writers.iter()) {
            let mut state = writer.lock();
            let guard = epoch::pin();
            let buckets = partition.buckets.load(&guard);
            state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
            if !buckets.all_are_intact() {
                continue;
            }
            for slot in buckets.slots() {
                if Location::of(slot).is_some_and(|location| numbers.contains(&location.number())) {
                    set(slot, 0);
                    state.entries = state.entries.saturating_sub(1);
                    state.gone += 1;
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
        let mut state = self.writers[partition].lock();
        let partition = &self.partitions[partition];
        debug_assert!(
            state.aside.is_none() || state.captured == self.capture.load(Ordering::Acquire),
            "what was kept aside is this capture's"
        );
        state.captured = self.capture.load(Ordering::Acquire);
        let guard = epoch::pin();
        let aside = state.aside.take();
        aside.unwrap_or_else(|| partition.buckets.load(&guard).image(state.entries))
    }

    /// Ends a capture that may not have visited every partition.
    pub(crate) fn end_capture(&self) {
        for writer in self.writers.iter() {
            let mut state = writer.lock();
            state.captured = self.capture.load(Ordering::Acquire);
            state.aside = None;
        }
    }

    fn partition(&self, hash: u64) -> &Partition {
        &self.partitions[partition_of(hash)]
    }

    fn writer(&self, hash: u64) -> &Mutex<PartState> {
        &self.writers[partition_of(hash)]
    }

    /// The first candidate that `is_match` accepts. `is_match` may be called for other keys' records.
    #[inline]
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

    /// Starts to bring the home bucket of `hash` into the cache, and what leads there.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let partition = self.partition(hash);
        let hint = partition.hint.load(Ordering::Relaxed);
        if let Ok(address) = usize::try_from(Buckets::hinted(hint, partition_of(hash), hash)) {
            prefetch_at(address);
        }
        partition.buckets.prefetch();
    }

    /// Adds an entry; the caller knows that its key is not in the table.
    ///
    /// Returns false, and adds nothing, if there is no room even in the largest size permitted.
    /// That takes more than 128 keys whose hashes agree in some 26 bits, or a table near its largest
    /// size.
    #[must_use]
    pub(crate) fn insert(&self, hash: u64, location: Location) -> bool {
        let partition = self.partition(hash);
        let mut state = self.writer(hash).lock();
        let guard = epoch::pin();
        let buckets = partition.buckets.load(&guard);
        state.keep_aside(buckets, self.capture.load(Ordering::Acquire));
        let slots = buckets.len() * SLOTS;
        let crowded = (state.entries + 1) * 4 > slots * 3;
        // Where keys come and go, sooner or later all buckets are marked, and who looks for a missing key goes
        // through all that it may sit in. A copy has the marks of those alone that are there.
        let worn = state.gone > slots;
        let (home, tag) = buckets.spot(hash);
        if !crowded && !worn && buckets.place(home, tag, location) {
            state.entries += 1;
            return true;
        }
        // What grows must not lie in a checkpoint.
        self.settle_locked(partition, &state);
        let buckets = partition.buckets.load(&guard);
        let grown = if buckets.are_saved() {
            // Another part of it is damaged, or there is no memory.
            None
        } else {
            buckets.grown(hash, location, worn && !crowded, &self.arena)
        };
        state.gone = 0;
        let Some(grown) = grown else {
            // A crowded partition grows first, but if it cannot, it may fill up; a worn one stays so.
            let placed = (crowded || worn) && buckets.place(home, tag, location);
            state.entries += usize::from(placed);
            return placed;
        };
        partition.replace(grown, &guard);
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
            state.entries = state.entries.saturating_sub(1);
            state.gone += 1;
        })
    }

    fn change(&self, hash: u64, old: Location, f: impl Fn(&AtomicU64, &mut PartState)) -> bool {
        let partition = self.partition(hash);
        let mut state = self.writer(hash).lock();
        let guard = epoch::pin();
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
        self.writers.iter().map(|state| state.lock().entries).sum()
    }

    /// Memory in use, and what is left between partitions that grew.
    pub(crate) fn bytes(&self) -> usize {
        let fixed = size_of::<Partition>() + size_of::<Mutex<PartState>>() + size_of::<Buckets>();
        PARTITIONS * fixed + self.bucket_bytes() + self.arena.unused()
    }

    /// What a checkpoint has to write.
    pub(crate) fn bucket_bytes(&self) -> usize {
        let guard = epoch::pin();
        let buckets = |p: &Partition| p.buckets.load(&guard).len();
        self.partitions.iter().map(buckets).sum::<usize>() * size_of::<Bucket>()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests start threads")]
#[allow(
    clippy::cast_possible_truncation,
    reason = "numbers of tests are small"
)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::{
        Arc, Bucket, Buckets, CHUNK_LEN, Image, Location, Map, PARTITION_SHIFT, PARTITIONS, SLOTS,
        Table, partition_of, saved_size,
    };
    use crate::format::checkpoint::{DATA_START, Header, Meta, PartitionEntry, file_name};
    use crate::format::record::Address;
    use crate::format::segment::StoreId;
    use crate::index::checkpoint;
    use crate::sync::epoch;
    use crate::vfs::OsVfs;
    use crate::{Durability, Error, Namespace, Options, Store};

    /// The record of key `id` in its `version`: a location that tells whose it is.
    fn at(version: u32, id: u64) -> Location {
        Location::new(version, id * 8)
    }

    fn find(table: &Table, hash: u64, id: u64) -> Option<Location> {
        table.find(hash, &epoch::pin(), |location| location.offset() == id * 8)
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
    fn identical_hashes_fill_sixteen_buckets_and_no_more() {
        for hash in [0, u64::MAX, mix(1)] {
            let table = Table::new();
            for id in 0..128 {
                assert!(table.insert(hash, at(1, id)));
            }
            assert!(!table.insert(hash, at(1, 128)));
            assert_eq!(table.len(), 16 * SLOTS);
            let mut seen = 0;
            table.candidates(hash, &epoch::pin(), |_| seen += 1);
            assert_eq!(seen, 128);
            assert!(table.remove(hash, at(1, 0)));
            assert!(table.insert(hash, at(1, 128)));
            assert_eq!(find(&table, hash, 127), Some(at(1, 127)));
            assert_eq!(find(&table, hash, 0), None);
        }
    }

    #[test]
    fn grows_as_often_as_it_takes() {
        // Two spots that are four buckets apart only in stretches of 1024 (partition 0, four stretches).
        let hash = |id: u64| (id & 1) << 44;
        let table = Table::new();
        for id in 0..160 {
            assert!(table.insert(hash(id), at(1, id)));
        }
        for id in 0..160 {
            assert_eq!(find(&table, hash(id), id), Some(at(1, id)));
        }
        assert!(table.bytes() >= 4 * 1024 * 64);
    }

    /// Marks of keys that are gone do not pile up, in a partition that is nearly as full as one gets.
    #[test]
    fn marks_stay_few_where_keys_come_and_go() {
        const KEYS: u64 = 6_100;
        let (table, hash) = (Table::new(), |id| mix(id) >> 10);
        for id in 0..20 * KEYS {
            assert!(table.insert(hash(id), at(1, id)));
            if id >= KEYS {
                assert!(table.remove(hash(id - KEYS), at(1, id - KEYS)));
            }
        }
        let image = images(&table).swap_remove(0);
        assert_eq!(image.entries as u64, KEYS);
        let words = || image.bytes.chunks(8);
        let marks = words().filter(|word| word[5] & 8 != 0).count();
        assert!(
            marks * 5 < words().count(),
            "{marks} of {}",
            words().count()
        );
        for id in 19 * KEYS..20 * KEYS {
            assert_eq!(find(&table, hash(id), id), Some(at(1, id)));
        }
    }

    /// At any number of keys, whose partitions do not all grow at once.
    #[test]
    fn a_key_takes_at_most_fourteen_bytes() {
        let table = Table::new();
        let fixed = table.bytes() - table.bucket_bytes();
        for id in 0..600_000 {
            assert!(table.insert(mix(id), at(1, id)));
            if id >= 300_000 && id % 1000 == 0 {
                let bytes = table.bucket_bytes() + fixed;
                assert!(
                    bytes <= table.len() * 14,
                    "{bytes} bytes of {} keys",
                    table.len()
                );
            }
        }
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

    /// Rule 3: whatever is added, replaced or removed while a checkpoint is written is not in it.
    #[test]
    fn a_capture_holds_what_was_there_when_it_began() {
        let table = Table::new();
        for id in 0..3_000 {
            assert!(table.insert(mix(id), at(1, id)));
        }
        let captured = || -> Vec<(usize, Vec<u8>)> {
            let images = (0..PARTITIONS).map(|partition| table.captured(partition));
            images.map(|image| (image.entries, image.bytes)).collect()
        };
        table.begin_capture();
        let before = captured();
        table.begin_capture();
        for id in 0..1_000 {
            assert!(table.replace(mix(id), at(1, id), at(2, id)));
            assert!(table.remove(mix(id + 1_000), at(1, id + 1_000)));
            assert!(table.insert(mix(id + 3_000), at(1, id + 3_000)));
        }
        table.sweep(&[1]);
        assert!(captured() == before, "as it was when the capture began");
        table.begin_capture();
        assert!(captured() != before, "as it is now");
        table.end_capture();
        assert_eq!(table.len(), 1_000);
    }

    fn images(table: &Table) -> Vec<Image> {
        table.begin_capture();
        let images = (0..PARTITIONS).map(|partition| table.captured(partition));
        let images = images.collect();
        table.end_capture();
        images
    }

    /// The table that a checkpoint of these partitions has.
    fn mapped(images: &[Image]) -> Option<Table> {
        let bytes: Vec<u8> = images.iter().flat_map(|i| i.bytes.clone()).collect();
        let map = Arc::new(Map::from_bytes(&bytes).expect("memory"));
        let partitions = images.iter().map(|image| (image.multiple, image.entries));
        let crcs: Vec<u32> = images.iter().flat_map(Image::crcs).collect();
        Table::mapped(&map, 0, partitions, &crcs)
    }

    /// The partitions of a checkpoint of version 1 with the keys that have room, and how many of these are
    /// not at home.
    fn images_of_version_1(multiple: u32, found: &mut [bool]) -> (Vec<Image>, usize) {
        let count = |p| Buckets::count(p, multiple).expect("a size");
        let mut words: Vec<Vec<u64>> = (0..PARTITIONS).map(|p| vec![0; count(p) * SLOTS]).collect();
        let (mut entries, mut displaced) = (vec![0; PARTITIONS], 0);
        for (id, found) in found.iter_mut().enumerate() {
            let hash = mix(id as u64);
            let partition = super::partition_of(hash);
            let product = (hash >> 22 & 0xFFFF_FFFF) * (4 + partition as u64 % 4);
            let home = ((product * u64::from(multiple)) >> 32) as usize;
            let words = &mut words[partition];
            let at = |displacement| (home + displacement) * SLOTS % words.len();
            let free = (0..4).find_map(|displacement| {
                let slots = at(displacement)..at(displacement) + SLOTS;
                let mut free = slots.filter(|slot| words[*slot] & !(1 << 43) == 0);
                free.next().map(|slot| (displacement, slot))
            });
            let Some((displacement, slot)) = free else {
                continue;
            };
            for passed in (0..displacement).map(at).collect::<Vec<_>>() {
                words[passed] |= 1 << 43;
            }
            let location = 1 << 23 | id as u64;
            let tag = (product & 0xFFFF_FFFF) >> 14;
            words[slot] |= tag << 46 | (displacement as u64) << 44 | location;
            entries[partition] += 1;
            displaced += usize::from(displacement > 0);
            *found = true;
        }
        let images = words
            .into_iter()
            .zip(entries)
            .map(|(words, entries)| Image {
                entries,
                multiple,
                bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            });
        (images.collect(), displaced)
    }

    #[test]
    fn a_table_of_version_1_has_all_its_keys_and_grows() {
        const KEYS: u64 = 250_000;
        let mut saved = [false; KEYS as usize];
        let (images, displaced) = images_of_version_1(8, &mut saved);
        assert!(displaced > 1_000);
        let table = mapped(&images).expect("a table");
        assert!(table.settle_version_1());
        let there = |saved: &[bool]| saved.iter().filter(|saved| **saved).count();
        assert_eq!(table.len(), there(&saved));
        for _ in 0..2 {
            for (id, saved) in (0..KEYS).zip(&mut saved) {
                assert_eq!(find(&table, mix(id), id), saved.then(|| at(1, id)));
                if !*saved {
                    assert!(table.insert(mix(id), at(1, id)));
                    *saved = true;
                }
            }
        }
        assert_eq!(table.len() as u64, KEYS);
    }

    /// A checkpoint's file of version 1, in a directory of its own.
    fn file_of_version_1(images: &[Image]) -> tempfile::TempDir {
        let bytes: Vec<u8> = images.iter().flat_map(|i| i.bytes.clone()).collect();
        let partition = |image: &Image| PartitionEntry {
            entries: image.entries as u32,
            multiple: image.multiple.ilog2(),
        };
        let meta = Meta {
            partitions: images.iter().map(partition).collect(),
            chunks: images.iter().flat_map(Image::crcs).collect(),
            ..Meta::default()
        };
        let lists = meta.encode();
        let header = Header {
            version: 1,
            store: StoreId {
                id: [1; 16],
                secret: [2; 32],
            },
            id: 1,
            seqno: 1,
            position: Address {
                segment: 1,
                offset: 128,
            },
            epoch: 1,
            time: 1,
            meta_offset: DATA_START + bytes.len() as u64,
            meta_len: lists.len() as u64,
            meta_crc: crc32fast::hash(&lists),
        };
        let mut file = header.encode().to_vec();
        file.resize(DATA_START as usize, 0);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(file_name(1));
        std::fs::write(path, [file, bytes, lists].concat()).expect("a file");
        dir
    }

    #[test]
    fn a_checkpoint_of_version_1_has_all_its_keys() {
        let mut saved = [false; 150_000];
        let (images, displaced) = images_of_version_1(4, &mut saved);
        assert!(displaced > 1_000);
        let dir = file_of_version_1(&images);
        let loaded = checkpoint::load(&OsVfs, dir.path(), 1).expect("a checkpoint");
        for (id, saved) in (0..).zip(saved) {
            assert_eq!(find(&loaded.table, mix(id), id), saved.then(|| at(1, id)));
        }
        let scrubbed = checkpoint::scrub(&OsVfs, dir.path(), 1, |_| {});
        assert_eq!(scrubbed.expect("it is intact"), loaded.meta);
    }

    #[test]
    fn a_checkpoint_that_goes_on_where_no_record_begins_is_refused() {
        let (images, _) = images_of_version_1(1, &mut [false; 1000]);
        let dir = file_of_version_1(&images);
        let path = dir.path().join(file_name(1));
        let end = 64 << 20;
        for (offset, is_sound) in [
            (0u32, false),
            (120, false),
            (128, true),
            (132, false),
            (end, true),
            (end + 8, false),
        ] {
            let mut file = std::fs::read(&path).expect("a file");
            file[88..92].copy_from_slice(&offset.to_le_bytes());
            let crc = crc32fast::hash(&file[..140]);
            file[140..144].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, file).expect("a file");
            let read = checkpoint::read(&OsVfs, dir.path(), 1);
            assert_eq!(read.is_ok(), is_sound, "at {offset}");
        }
    }

    #[test]
    fn a_damaged_table_of_version_1_is_refused() {
        let (images, _) = images_of_version_1(1, &mut [false; 1000]);
        let crcs: Vec<u32> = images
            .iter()
            .flat_map(Image::crcs)
            .map(|crc| crc ^ 1)
            .collect();
        let bytes: Vec<u8> = images.iter().flat_map(|i| i.bytes.clone()).collect();
        let map = Arc::new(Map::from_bytes(&bytes).expect("memory"));
        let partitions = images.iter().map(|image| (image.multiple, image.entries));
        let table = Table::mapped(&map, 0, partitions, &crcs).expect("a table");
        assert!(!table.settle_version_1());
    }

    /// Who finds no key may put one there: so a page that it may come to is verified, also beyond that of its
    /// home.
    #[test]
    fn a_damaged_page_is_met_by_who_finds_no_key_and_may_put_one_there() {
        let mut images = images(&Table::new());
        // 80 buckets, of which 64 are a page.
        let multiple = 16;
        let (len, _) = saved_size(1, multiple).expect("a size");
        images[1] = Image {
            entries: 0,
            multiple,
            bytes: vec![0; len],
        };
        let crcs: Vec<u32> = images.iter().flat_map(Image::crcs).collect();
        images[1].bytes[CHUNK_LEN] ^= 1;
        let bytes: Vec<u8> = images.iter().flat_map(|i| i.bytes.clone()).collect();
        let map = Arc::new(Map::from_bytes(&bytes).expect("memory"));
        let partitions = images.iter().map(|image| (image.multiple, image.entries));
        let table = Table::mapped(&map, 0, partitions, &crcs).expect("a table");
        let guard = epoch::pin();
        let hash_at = |bucket| {
            let mut hashes = (0..).map(|id| 1 << PARTITION_SHIFT | mix(id) >> 10);
            let home = |hash: &u64| table.partition(*hash).buckets.load(&guard).spot(*hash).0;
            hashes.find(|hash| home(hash) == bucket).expect("a hash")
        };
        let (far, near) = (hash_at(40), hash_at(63));
        assert_eq!(find(&table, far, 0), None);
        assert!(!table.is_damaged_at(far, &guard));
        assert_eq!(find(&table, near, 0), None);
        assert!(table.is_damaged_at(near, &guard));
    }

    fn open(dir: &Path) -> (Store, Namespace) {
        let options = Options::new()
            .durability(Durability::None)
            .without_threads();
        let store = options.open(dir).expect("a store");
        let namespace = store.namespace("n").expect("a namespace");
        (store, namespace)
    }

    /// The keys of a store whose newest checkpoint has a large table with a damaged page, and one of those whose
    /// slots are there: its home, in the page before, is full of slots with its tag.
    fn store_with_a_damaged_table(dir: &Path) -> (Vec<String>, String) {
        let (store, ns) = open(dir);
        let keys: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        for first in [0, 1000] {
            for key in &keys[first..] {
                ns.put(key, key).expect("a put");
            }
            store.checkpoint().expect("a checkpoint");
        }
        let slots: Vec<(u64, Location)> = {
            let (core, guard) = (ns.core(), epoch::pin());
            let slot = |key: &String| {
                let hash = core.hash(1, key.as_bytes());
                let found = core.find(1, key.as_bytes(), hash, &guard);
                (hash, found.expect("intact").expect("it is there").location)
            };
            keys.iter().map(slot).collect()
        };
        drop(ns);
        store.close().expect("closed");

        let id = checkpoint::current(&OsVfs, dir).expect("it is read");
        let id = id.expect("a checkpoint");
        let saved = checkpoint::load(&OsVfs, dir, id).expect("a checkpoint");
        let (table, others) = (Table::new(), slots[0].1);
        (0..500_000).for_each(|id| assert!(table.insert(mix(id), others)));
        for (hash, location) in &slots {
            assert!(table.insert(*hash, *location));
        }
        let guard = epoch::pin();
        let buckets = |partition: usize| table.partitions[partition].buckets.load(&guard);
        let ends_a_page = |hash: u64| {
            let buckets = buckets(partition_of(hash));
            buckets.spot(hash).0 == 63 && buckets.len() > 64
        };
        let lost = (1..keys.len()).find(|key| {
            let (hash, location) = slots[*key];
            if !ends_a_page(hash) {
                return false;
            }
            assert!(table.remove(hash, location));
            (0..SLOTS).for_each(|_| assert!(table.insert(hash, others)));
            assert!(table.insert(hash, location));
            ends_a_page(hash)
        });
        let lost = lost.expect("a key");
        let path = dir.join(file_name(id));
        std::fs::remove_file(&path).expect("it is removed");
        let meta = Meta {
            partitions: Vec::new(),
            chunks: Vec::new(),
            ..saved.meta
        };
        table.begin_capture();
        checkpoint::save(&OsVfs, dir, saved.header, meta, &table, |_| Ok(())).expect("saved");

        let before = (0..partition_of(slots[lost].0)).map(|partition| buckets(partition).len());
        let before = before.sum::<usize>() * size_of::<Bucket>();
        let mut bytes = std::fs::read(&path).expect("it is read");
        bytes[DATA_START as usize + before + CHUNK_LEN] ^= 1;
        std::fs::write(&path, bytes).expect("it is written");
        let lost = keys[lost].clone();
        (keys, lost)
    }

    #[test]
    fn a_key_in_a_damaged_page_is_not_missing_where_others_of_its_tag_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_, lost) = store_with_a_damaged_table(dir.path());
        let (_store, ns) = open(dir.path());
        let found = ns.get(&lost).map(|value| value.is_some());
        assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    }

    #[test]
    fn no_segment_is_given_up_while_a_damaged_table_says_what_lives_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (keys, _) = store_with_a_damaged_table(dir.path());
        let (store, ns) = open(dir.path());
        // What is dead goes, but for the checkpoints that this needs.
        assert!(matches!(store.compact(), Err(Error::Corrupt { .. })));
        drop(ns);
        store.close().expect("closed");
        let (_store, ns) = open(dir.path());
        for key in &keys {
            let value = ns.get(key).expect("intact");
            assert_eq!(value.as_deref(), Some(key.as_bytes()), "{key}");
        }
    }

    /// Whoever forges how many entries a partition has gets a wrong number, and no more.
    #[test]
    fn a_forged_number_of_entries_is_a_wrong_number_alone() {
        let table = Table::new();
        for id in 0..2 {
            assert!(table.insert(mix(id), at(1, id)));
        }
        let forge = |image| Image {
            entries: 0,
            ..image
        };
        let forged: Vec<_> = images(&table).into_iter().map(forge).collect();
        let table = mapped(&forged).expect("a table");
        assert!(table.remove(mix(0), at(1, 0)));
        table.sweep(&[1]);
        assert_eq!((table.len(), find(&table, mix(1), 1)), (0, None));
    }

    #[test]
    fn a_table_of_more_or_fewer_partitions_is_none() {
        let mut images = images(&Table::new());
        assert!(mapped(&images).is_some());
        assert!(mapped(&images[1..]).is_none());
        images.extend(self::images(&Table::new()));
        assert!(mapped(&images).is_none());
    }

    /// A forged checkpoint may have words whose location is in no segment.
    #[test]
    fn a_word_of_no_segment_is_moved_with_the_others() {
        let mut images = images(&Table::new());
        images[0].bytes[8..16].copy_from_slice(&1u64.to_le_bytes());
        let table = mapped(&images).expect("a table");
        // All in the first partition.
        let hash = |id: u64| mix(id) >> 10;
        for id in 0..100 {
            assert!(table.insert(hash(id), at(1, id)));
        }
        for id in 0..100 {
            assert_eq!(find(&table, hash(id), id), Some(at(1, id)));
        }
    }

    #[test]
    fn hints_lead_to_the_home_bucket_also_after_growth() {
        let table = Table::new();
        for id in 0..100_000 {
            assert!(table.insert(mix(id), at(1, id)));
            let (hash, guard) = (mix(id / 2), epoch::pin());
            let partition = super::partition_of(hash);
            let hint = table.partitions[partition].hint.load(Ordering::Relaxed);
            let home = table.partition(hash).buckets.load(&guard).home(hash);
            assert_eq!(Buckets::hinted(hint, partition, hash), home);
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
