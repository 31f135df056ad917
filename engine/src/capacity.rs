//! A bound on what a store takes, for caches: what is least useful is evicted instead of growing further.
//!
//! An eviction is a delete in the log, after which its segment is retired like any other: so an evicted key
//! comes back neither after a crash nor after a rebuild, and `list` agrees with `get`. Which segment goes,
//! [`LeastUsed`] says; what of it was read lately is moved to class segments, as compaction does.
//!
//! What was read lately is known by a bit for the hash of a key. One read of eight is noted, in a map of
//! this turn; when half of the capacity was evicted, that becomes the map of the last turn, and a new one
//! begins. A bit that is set is not written again, so that hot keys cost no shared cache line.

use std::cell::Cell;
use std::time::Duration;

use rimstone_compaction::{LeastUsed, Segments};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::record::{HEADER_LEN, KEY_MAX, RECORD_MAX};
use crate::log::appender::STEP;
use crate::log::segment::Segment;
use crate::maintenance::Maintenance;
use crate::reclaim::Log;
use crate::records::{Found, Records};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::writer::BATCH_MAX;

/// The least capacity, and the least and greatest length of segments, which are a fraction of it.
const CAPACITY_MIN: u64 = 64 << 20;
const SEGMENT_MIN: u64 = 1 << 20;
const SEGMENT_SHARE: u64 = 64;
/// A segment leads to this many times its length of large values, so that they can be given up a few at a time.
const LARGE_MAX: u64 = 4;
/// Eviction begins when this fraction of the capacity is left, and ends when this one is; writers wait when
/// this one is left, so that there is space for what eviction itself writes before it frees anything.
const BEGIN_SHARE: u64 = 8;
const END_SHARE: u64 = 4;
const HOLD_SHARE: u64 = 16;
/// Of what lives in a segment this fraction is kept at most: so each segment that goes makes room.
const KEPT_SHARE: u64 = 2;
/// A bit of memory for so many bytes of capacity, and at most so many bits.
const BYTES_PER_BIT: u64 = 128;
const BITS_MAX: u64 = 1 << 30;
/// One read of so many is noted.
const SAMPLE: u64 = 8;

const _: () = {
    // It ends when more is left than when it began, and begins before anybody waits.
    assert!(END_SHARE < BEGIN_SHARE);
    assert!(BEGIN_SHARE < HOLD_SHARE);
    assert!(KEPT_SHARE > 1, "each segment that goes makes room");
    assert!(CAPACITY_MIN / SEGMENT_SHARE >= SEGMENT_MIN);
    assert!(SEGMENT_MIN >= RECORD_MAX as u64, "it holds any");
    assert!(PREALLOCATED as u64 >= STEP, "all of it is counted");
    assert!(BATCH * (HEADER_LEN + KEY_MAX) <= BATCH_MAX);
    assert!(CAPACITY_MIN / BYTES_PER_BIT >= 64);
    assert!(SAMPLE.is_power_of_two());
    assert!(SAMPLE > 1);
};
/// Rounds of eviction that may go without freeing anything, as writers go on meanwhile; then nothing is left
/// to evict.
const FRUITLESS_MAX: u32 = 8;
/// Evictions that are committed together.
const BATCH: usize = 256;
/// What a new segment takes before anything is in it.
pub(crate) const PREALLOCATED: usize = 1 << 20;
/// How long a writer waits before it looks whether there is room: it is woken when there is.
const WAIT: Duration = Duration::from_millis(100);

/// The bound of a store, and what is known of its use.
pub(crate) struct Capacity {
    max: u64,
    /// Bytes of all files when they were last counted, and what was written by then.
    counted: AtomicU64,
    counted_at: AtomicU64,
    written: AtomicU64,
    /// Whether there was nothing to evict and too little room.
    is_stuck: AtomicBool,
    read: Read,
    /// Bytes that were evicted in this turn.
    turned: AtomicU64,
    evicted_keys: AtomicU64,
    evicted_bytes: AtomicU64,
    waiting: Mutex<()>,
    changed: Condvar,
}

/// What was read in this turn and in the last.
struct Read {
    maps: [Box<[AtomicU64]>; 2],
    is_second: AtomicBool,
}

/// A plan to evict: what of its segment is kept.
pub(crate) struct Evicting {
    /// Bytes that may still be kept.
    may_keep: Cell<u64>,
    pub(crate) evicted: Vec<Found>,
}

impl Evicting {
    /// Whether a record of so many bytes may be kept; then it counts.
    pub(crate) fn keep(&self, bytes: u64) -> bool {
        debug_assert!(bytes > 0, "each takes something of what may be kept");
        let left = self.may_keep.get().checked_sub(bytes);
        left.inspect(|left| self.may_keep.set(*left)).is_some()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.evicted.len() >= BATCH
    }
}

impl Capacity {
    pub(crate) fn new(max: u64) -> Capacity {
        let max = max.max(CAPACITY_MIN);
        let words = (max / BYTES_PER_BIT).min(BITS_MAX) / 64;
        let map = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Capacity {
            max,
            counted: AtomicU64::new(u64::MAX),
            counted_at: AtomicU64::new(0),
            written: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
            read: Read {
                maps: [map(), map()],
                is_second: AtomicBool::new(false),
            },
            turned: AtomicU64::new(0),
            evicted_keys: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// How long segments become, so that each is a small part of the capacity.
    pub(crate) fn segment_len(&self) -> u64 {
        let len = (self.max / SEGMENT_SHARE).max(SEGMENT_MIN);
        debug_assert!(len < self.max / HOLD_SHARE, "one more does not fill it");
        len
    }

    /// How many bytes of large values a segment leads to.
    pub(crate) fn large_max(&self) -> u64 {
        self.segment_len().saturating_mul(LARGE_MAX)
    }

    /// Notes that a record was read, one time of eight.
    pub(crate) fn note_read(&self, hash: u64, segment: &Segment) {
        if is_sampled() && self.read.note(hash) {
            segment.hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that the hot cache answered, one time of eight: where the record lies is not known.
    pub(crate) fn note_hit(&self, hash: u64) {
        if is_sampled() {
            self.read.note(hash);
        }
    }

    /// Whether a key with this hash was read lately.
    pub(crate) fn is_recent(&self, hash: u64) -> bool {
        self.read.maps.iter().any(|map| is_set(map, hash))
    }

    /// About how many bytes the store takes; more than any number before they were counted.
    fn used(&self) -> u64 {
        let since = self.counted_at.load(Ordering::Acquire);
        let since = self.written.load(Ordering::Relaxed).saturating_sub(since);
        self.counted.load(Ordering::Acquire).saturating_add(since)
    }

    fn is_due(&self) -> bool {
        self.used() > self.left(BEGIN_SHARE)
    }

    /// All but this fraction.
    fn left(&self, share: u64) -> u64 {
        debug_assert!(share > 1, "some of it is used");
        self.max - self.max / share
    }

    fn count(&self, used: impl FnOnce() -> u64) -> u64 {
        // What is written meanwhile may be counted twice.
        let at = self.written.load(Ordering::Relaxed);
        let used = used();
        debug_assert!(
            at >= self.counted_at.load(Ordering::Relaxed),
            "one counts at a time"
        );
        self.counted.store(used, Ordering::Release);
        self.counted_at.store(at, Ordering::Release);
        used
    }

    /// Wakes the writers that wait.
    fn release(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Ordering::Release);
        let _asleep = self.waiting.lock();
        self.changed.notify_all();
    }

    /// So many bytes were evicted; after half of the capacity a new turn begins.
    fn note_evicted(&self, keys: u64, bytes: u64) -> bool {
        self.evicted_keys.fetch_add(keys, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
        let turned = self.turned.fetch_add(bytes, Ordering::Relaxed);
        let is_over = turned.saturating_add(bytes) > self.max / 2;
        debug_assert!(keys > 0 || bytes == 0, "bytes belong to keys");
        if is_over {
            self.turned.store(0, Ordering::Relaxed);
            self.read.turn();
        }
        debug_assert!(self.turned.load(Ordering::Relaxed) <= self.max / 2);
        is_over
    }
}

impl Read {
    /// Notes a hash; false if it was known in this turn.
    fn note(&self, hash: u64) -> bool {
        let [first, second] = &self.maps;
        let is_second = self.is_second.load(Ordering::Relaxed);
        let map = if is_second { second } else { first };
        let (at, bit) = place(map, hash);
        let Some(word) = map.get(at) else {
            return false;
        };
        let is_new = word.load(Ordering::Relaxed) & bit == 0;
        is_new && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Begins a new turn: the map of the last but one is emptied for it.
    fn turn(&self) {
        let [first, second] = &self.maps;
        let is_second = !self.is_second.load(Ordering::Relaxed);
        let map = if is_second { second } else { first };
        map.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.is_second.store(is_second, Ordering::Relaxed);
    }
}

fn is_set(map: &[AtomicU64], hash: u64) -> bool {
    let (at, bit) = place(map, hash);
    let word = map.get(at);
    word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
}

/// The word and bit for a hash.
fn place(map: &[AtomicU64], hash: u64) -> (usize, u64) {
    let word = (u128::from(hash) * map.len() as u128) >> 64;
    debug_assert!(word < map.len() as u128);
    (usize::try_from(word).unwrap_or(0), 1 << (hash & 63))
}

/// One time of eight, at random: in step with what a thread reads, it would always note the same keys.
fn is_sampled() -> bool {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) };
    }
    let next = STATE.with(|state| {
        // Xorshift: three shifts, and any seed but 0.
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        debug_assert!(next != 0, "or it would stay so");
        state.set(next);
        next
    });
    next.is_multiple_of(SAMPLE)
}

impl Core {
    /// How many keys and bytes were evicted.
    pub(crate) fn evicted(&self) -> (u64, u64) {
        self.capacity.as_ref().map_or((0, 0), |capacity| {
            let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
            (load(&capacity.evicted_keys), load(&capacity.evicted_bytes))
        })
    }

    /// Bytes of all files of the store.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let names = self.vfs.list(&self.dir).unwrap_or_default();
        let len = |name| {
            let file = self.vfs.open(&self.dir.join(name));
            file.and_then(|file| file.len()).ok()
        };
        names.iter().filter_map(len).sum()
    }

    /// Counts what is about to be written in a cache; whoever does that for a user waits until there is
    /// room for it.
    ///
    /// # Errors
    /// `Full` if nothing is left that could be evicted, `Poisoned`.
    pub(crate) fn take_capacity(&self, bytes: usize, waits: bool) -> Result<()> {
        let Some(capacity) = &self.capacity else {
            return Ok(());
        };
        let bytes = u64::try_from(bytes).unwrap_or(0);
        let before = capacity.written.fetch_add(bytes, Ordering::Relaxed);
        // Each time that much more was written somebody has to look.
        let after = before.saturating_add(bytes);
        if capacity.is_due() && before / SEGMENT_MIN != after / SEGMENT_MIN {
            self.work.wake();
        }
        while waits && capacity.used() > capacity.left(HOLD_SHARE) {
            self.check_writable()?;
            if capacity.is_stuck.load(Ordering::Acquire) {
                return Err(Error::Full);
            }
            self.work.wake();
            let mut asleep = capacity.waiting.lock();
            capacity.changed.wait_for(&mut asleep, WAIT);
        }
        Ok(())
    }

    /// Evicts until the store takes less than its capacity by a good measure.
    pub(crate) fn keep_capacity(&self, state: &mut Maintenance) -> Result<()> {
        let Some(capacity) = self.capacity.as_ref().filter(|c| c.is_due()) else {
            return Ok(());
        };
        let mut used = capacity.count(|| self.disk_bytes());
        let end = capacity.left(END_SHARE);
        capacity.release(false);
        // Nothing was counted before the first time, and some is counted twice later.
        if !capacity.is_due() {
            return Ok(());
        }
        let mut fruitless = 0;
        while used > end && fruitless < FRUITLESS_MAX && !self.work.is_stopped() {
            let before = used;
            let most = (used - end).min(capacity.max / HOLD_SHARE);
            debug_assert!(most > 0, "each round asks for something");
            let made = self.make_room_in(state, most);
            used = capacity.count(|| self.disk_bytes());
            fruitless = if used < before { 0 } else { fruitless + 1 };
            let is_stuck = made.is_err() || fruitless == FRUITLESS_MAX;
            capacity.release(is_stuck && used > capacity.left(HOLD_SHARE));
            made?;
        }
        Ok(())
    }

    /// Evicts about so many bytes, and makes the two checkpoints after which they are gone.
    fn make_room_in(&self, state: &mut Maintenance, bytes: u64) -> Result<()> {
        self.evict(state, bytes.saturating_sub(state.retired_bytes))?;
        self.checkpoint(state)?;
        self.checkpoint(state)?;
        self.remove_garbage(true)
    }

    /// Evicts about so many bytes.
    fn evict(&self, state: &mut Maintenance, bytes: u64) -> Result<()> {
        let mut left = bytes;
        self.as_log(state).drop_plan();
        state.reclaim.filters.get_mut().allow(u64::MAX);
        while left > 0 && !self.work.is_stopped() {
            if !self.as_log(state).begin_to_evict() {
                break;
            }
            let before = (state.retired_bytes, self.evicted().1);
            self.finish_plan(state)?;
            // Large values are counted with what was evicted, small ones with their segment, too: less is
            // evicted at a time for it.
            let retired = state.retired_bytes.saturating_sub(before.0);
            let evicted = self.evicted().1.saturating_sub(before.1);
            left = left.saturating_sub(retired.max(evicted).max(1));
        }
        Ok(())
    }
}

impl Log<'_> {
    /// Begins to give up the segment that is least used.
    fn begin_to_evict(&mut self) -> bool {
        if !self.begin(&LeastUsed, |_| true) {
            return false;
        }
        debug_assert!(self.state.evicting.is_none());
        debug_assert!(self.core.capacity.is_some(), "only a cache evicts");
        let live = self.weight_of_plan();
        self.state.evicting = Some(Evicting {
            may_keep: Cell::new(live / KEPT_SHARE),
            evicted: Vec::new(),
        });
        true
    }

    /// Bytes that live in the segments of the plan, large values included.
    fn weight_of_plan(&self) -> u64 {
        let mut victims = self.core.segments.all();
        let stays = |id| self.state.others.iter().any(|(_, other)| other.id == id);
        victims.retain(|(_, segment)| !stays(segment.id));
        let records = victims
            .into_iter()
            .flat_map(|(number, segment)| Records::new(segment, number, self.core.id));
        let live = records.flatten().filter(|found| self.is_live(found));
        live.map(|found| found.weight()).sum()
    }

    /// Deletes what is to be evicted, as far as it is still what its key holds.
    pub(crate) fn commit_evictions(&mut self) -> Result<()> {
        let Some(evicting) = &mut self.state.evicting else {
            return Ok(());
        };
        debug_assert!(
            evicting.evicted.len() <= BATCH,
            "committed when there are enough"
        );
        let mut evicted = std::mem::take(&mut evicting.evicted);
        let bytes = evicted.iter().map(Found::weight).sum();
        let keys = u64::try_from(evicted.len()).unwrap_or(0);
        while !evicted.is_empty() {
            let exists = self.core.namespaces.numbers();
            let (rest, gone): (Vec<_>, Vec<_>) = evicted
                .into_iter()
                .partition(|found| exists.contains(&found.namespace()));
            evicted = rest;
            // It goes with its namespace.
            self.state.erased.extend(gone);
            let ops = evicted.iter().map(|found| found.eviction(self.core));
            match self.core.commit(ops.collect::<Result<_>>()?, false) {
                // Dropped meanwhile: look again.
                Err(Error::NoSuchNamespace) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        // Of a namespace in which everything was deleted meanwhile.
        evicted.retain(|found| self.core.namespaces.was_dropped(found.namespace()));
        self.state.erased.append(&mut evicted);
        let capacity = self.core.capacity.as_ref();
        if capacity.is_some_and(|capacity| capacity.note_evicted(keys, bytes)) {
            for (_, segment) in self.core.segments.all() {
                let hits = segment.hits.load(Ordering::Relaxed);
                segment.hits.store(hits / 2, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Clock, Durability, Options};

    #[test]
    fn opening_evicts_nothing_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let options = Options::new().durability(Durability::None);
            let options = options.clock(Clock::manual(1)).capacity(CAPACITY_MIN);
            options.open(dir.path()).unwrap()
        };
        let ns = open().namespace("n").unwrap();
        for key in 0..13_000 {
            ns.put(format!("{key}"), [1; 4000]).unwrap();
        }
        drop(ns);
        let ns = open().namespace("n").unwrap();
        let core = ns.core();
        let capacity = core.capacity.as_ref().unwrap();
        core.keep_capacity(&mut core.maintenance.lock()).unwrap();
        // Maintenance may have counted before.
        capacity.counted.store(u64::MAX, Ordering::Release);
        core.keep_capacity(&mut core.maintenance.lock()).unwrap();
        assert!(capacity.used() > capacity.left(END_SHARE) && !capacity.is_due());
        assert_eq!(core.evicted(), (0, 0));
    }
}
