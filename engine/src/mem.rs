//! The engine's unsafe code, but for one block in `vfs/os.rs`: memory that is mapped or fetched ahead, and
//! pointers that readers follow without a lock.
//!
//! Everything here is wrapped in types whose methods are safe to call.
#![allow(
    unsafe_code,
    reason = "mappings and lock-free pointers; the rest of the engine denies it"
)]

use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::mm::Advice;

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::epoch::{Atomic, Guard, Owned};

/// Systems read at least so much ahead at once, and some forget what more is asked for.
pub(crate) const READ_AHEAD: usize = 128 << 10;
/// What takes longer than this many nanoseconds to touch came from a disk: the fastest need as much, and a page
/// fault that finds its page in memory a tenth.
const DISK: u64 = 10_000;

/// A mapping of a file, or memory that stands for one.
///
/// The file behind it is only appended to, and only its owner writes to it: bytes that were handed
/// out as a slice do not change. Whoever asks for a slice first checks that the range was written.
pub struct Map {
    raw: MmapRaw,
    /// Where the last page ends that could not be read, of a file that was copied; else 0.
    unread_end: u64,
}

impl Map {
    /// Wraps a mapping that nobody writes through.
    pub fn new(raw: MmapRaw) -> Map {
        let unread_end = 0;
        Map { raw, unread_end }
    }

    /// The same for a copy of a file of which not all could be read, up to here.
    pub(crate) fn unread_before(self, end: u64) -> Map {
        debug_assert!(end <= self.raw.len() as u64);
        Map {
            unread_end: end,
            ..self
        }
    }

    /// Where the last of what could not be read ends; 0 if all of it could.
    pub(crate) fn unread_end(&self) -> u64 {
        self.unread_end
    }

    /// A private copy of `bytes`, for file systems that cannot map.
    ///
    /// # Errors
    /// Fails if the memory cannot be had.
    pub fn from_bytes(bytes: &[u8]) -> std::io::Result<Map> {
        let mut map = MmapMut::map_anon(bytes.len().max(1))?;
        map.get_mut(..bytes.len())
            .unwrap_or_default()
            .copy_from_slice(bytes);
        Ok(Map::new(MmapRaw::from(map)))
    }

    /// Length of the mapping in bytes, which may exceed what the file holds.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// Starts to read a range from the disk, as far as it is mapped and not in memory.
    pub(crate) fn will_need(&self, start: usize, len: usize) {
        let end = start.saturating_add(len).min(self.raw.len());
        for at in (start..end).step_by(READ_AHEAD) {
            let len = end.saturating_sub(at).min(READ_AHEAD);
            debug_assert!(
                at + len <= self.raw.len(),
                "advice is for the mapping alone"
            );
            // Who touches it reads it, if this does not.
            let _ = self.raw.advise_range(memmap2::Advice::WillNeed, at, len);
        }
    }

    /// Starts to read a range from the disk if its first page comes from there, as the time tells that it takes.
    /// Each page of a mapping that reads nothing ahead is waited for by itself; and to ask for what is in memory
    /// anyway takes about as long as to read it.
    pub(crate) fn fetch(&self, start: usize, len: usize) {
        let watch = Stopwatch::start();
        std::hint::black_box(self.slice(start, 1).and_then(<[u8]>::first).copied());
        if watch.nanoseconds() > DISK {
            self.will_need(start, len);
        }
    }

    /// Where a byte of the mapping lies, or would if it were longer.
    #[inline]
    pub(crate) fn address(&self, offset: usize) -> usize {
        self.raw.as_ptr().addr().wrapping_add(offset)
    }

    /// The bytes of a range that is already written, or `None` beyond the mapping.
    #[inline]
    pub fn slice(&self, start: usize, len: usize) -> Option<&[u8]> {
        let end = start.checked_add(len)?;
        if end > self.raw.len() {
            return None;
        }
        // SAFETY: `start` is within the mapping, checked above.
        let ptr = unsafe { self.raw.as_ptr().add(start) };
        // SAFETY: the range is within the mapping, which lives as long as `self`. Published bytes of
        // a segment are never written again (design rule 6: files are written once), so no write
        // overlaps the life of the slice.
        Some(unsafe { std::slice::from_raw_parts(ptr, len) })
    }
}

/// A mapping through which the end of a file is written.
pub struct WritableMap {
    raw: MmapRaw,
    /// Asked before each write, where the file system is a simulated one.
    ask: Option<Box<Ask>>,
}

/// Whether so many bytes from an offset on may be written.
type Ask = dyn Fn(u64, usize) -> bool + Send + Sync;

impl WritableMap {
    /// Wraps a mapping of a file that nobody else writes to.
    pub(crate) fn new(raw: MmapRaw) -> WritableMap {
        WritableMap { raw, ask: None }
    }

    /// The same for a simulation, which is asked whether there are pages for so many bytes from an offset on, and is so
    /// told where to look for them: they are there once whoever writes them has done anything else.
    pub fn asking(
        raw: MmapRaw,
        ask: impl Fn(u64, usize) -> bool + Send + Sync + 'static,
    ) -> WritableMap {
        WritableMap {
            raw,
            ask: Some(Box::new(ask)),
        }
    }

    /// Copies `bytes` to the file, behind all that anybody has a slice of. False, and nothing is written, if the
    /// system has no pages for them: who touches such a page is killed, and who asks for it is told.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> bool {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        let advice = memmap2::Advice::PopulateWrite;
        let refuses = |ask: &Ask| !ask(offset, bytes.len());
        if end > self.raw.len() || self.ask.as_deref().is_some_and(refuses) {
            return false;
        }
        if self.raw.advise_range(advice, start, bytes.len()).is_err() {
            return false;
        }
        // SAFETY: `start` is within the mapping, checked above.
        let to = unsafe { self.raw.as_mut_ptr().add(start) };
        // SAFETY: the range is within the mapping, checked above, and apart from `bytes`, which are not in a file.
        // No slice of it exists: only what was published is lent, and that is written once (design rule 6).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        true
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.slice(0, self.len()).unwrap_or_default()
    }
}

/// The process that a store was opened in. One that is forked from it has a copy of the store's memory, and
/// none of its threads: what it wrote would land where the other process writes.
pub(crate) struct Origin {
    /// A page that the system empties in a forked process, and that begins with something else before. So
    /// who writes asks memory, and not the system.
    page: Option<MmapRaw>,
    process: u32,
}

impl Origin {
    pub(crate) fn here() -> Origin {
        let process = std::process::id();
        Origin {
            page: marked_page(),
            process,
        }
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        match &self.page {
            Some(page) => {
                // No thread changes it, so it is a word of the system also where threads are explored.
                // SAFETY: `marked_page` made the page, which is longer than the word and aligned for it, is
                // only read as one, and lives as long as `self`.
                let word =
                    unsafe { std::sync::atomic::AtomicU64::from_ptr(page.as_mut_ptr().cast()) };
                word.load(Ordering::Relaxed) == 0
            }
            None => std::process::id() != self.process,
        }
    }

    /// # Errors
    /// `Forked` in a forked process.
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_elsewhere() {
            true => Err(Error::Forked),
            false => Ok(()),
        }
    }
}

/// A page that begins with a one, and with a zero in every forked process; `None` if the system has none.
fn marked_page() -> Option<MmapRaw> {
    let len = rustix::param::page_size();
    let mut page = MmapMut::map_anon(len).ok()?;
    *page.first_mut()? = 1;
    let page = MmapRaw::from(page);
    debug_assert!(page.len() >= size_of::<u64>());
    debug_assert!(page.as_ptr().cast::<u64>().is_aligned());
    // SAFETY: the page is anonymous memory of our own, so that the advice holds for nothing else.
    unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), len, Advice::LinuxWipeOnFork) }.ok()?;
    Some(page)
}

/// Eight slots of the point index: one cache line.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket(pub(crate) [AtomicU64; 8]);

#[cfg(not(feature = "loom"))]
const _: () = {
    assert!(size_of::<Bucket>() == 64, "a line of the cache");
    assert!(align_of::<Bucket>() == 64, "and no part of two");
    assert!(size_of::<AtomicU64>() == size_of::<u64>());
    assert!(HUGE_PAGE.is_power_of_two());
    assert!(HUGE_PAGE.is_multiple_of(size_of::<Bucket>()));
    assert!(REGION_MIN.is_multiple_of(size_of::<Bucket>()));
    assert!(REGION_SHARE > 1);
    assert!(READ_AHEAD.is_multiple_of(4096), "advice is for pages");
};

/// Anonymous memory that begins as zeroes, in huge pages where the system gives them: a probe that
/// misses the caches then waits for one line of memory instead of for its page tables, too.
#[cfg_attr(
    feature = "loom",
    allow(dead_code, reason = "its atomics are no words of memory")
)]
struct Region {
    raw: MmapRaw,
    /// Where the first huge page begins.
    start: usize,
    /// From there on.
    len: usize,
}

/// The size of a huge page, and the alignment that lets the system use one.
const HUGE_PAGE: usize = 2 << 20;

#[cfg_attr(
    feature = "loom",
    allow(dead_code, reason = "its atomics are no words of memory")
)]
impl Region {
    /// `None` if the system has no address space left.
    fn new(len: usize) -> Option<Region> {
        let mapped = MmapOptions::new()
            .len(len.checked_add(HUGE_PAGE)?)
            .no_reserve_swap()
            .map_anon();
        let raw = MmapRaw::from(mapped.ok()?);
        debug_assert!(raw.len() >= len + HUGE_PAGE, "room to begin at a huge page");
        let start = (raw.as_ptr() as usize).next_multiple_of(HUGE_PAGE) - raw.as_ptr() as usize;
        debug_assert!(start < HUGE_PAGE);
        debug_assert!(start + len <= raw.len(), "all of it is there");
        debug_assert!((raw.as_ptr() as usize + start).is_multiple_of(HUGE_PAGE));
        // Small pages are slower, no more. Tables that are made by the thousand are too small for a huge one.
        #[cfg(all(target_os = "linux", not(feature = "shuttle")))]
        let _ = raw.advise_range(memmap2::Advice::HugePage, start, len);
        Some(Region { raw, start, len })
    }

    fn first_bucket(&self) -> *mut Bucket {
        self.raw.as_mut_ptr().wrapping_add(self.start).cast()
    }
}

/// Bytes of the first region of an arena.
#[cfg(not(feature = "loom"))]
const REGION_MIN: usize = 1 << 20;
/// A further one is this fraction of all before it, so that its unused end is little.
#[cfg(not(feature = "loom"))]
const REGION_SHARE: usize = 4;

/// The memory of all buckets of a table. Partitions grow by small steps, one by one: what one leaves is
/// the next one's, and huge pages stay whole.
#[derive(Default)]
pub(crate) struct Arena(Mutex<Vec<Part>>);

/// A region of an arena.
#[cfg_attr(
    feature = "loom",
    allow(dead_code, reason = "its atomics are no words of memory")
)]
struct Part {
    region: Region,
    /// What nobody uses, in buckets: where it begins and ends. In order, and never side by side.
    holes: Vec<(usize, usize)>,
    /// Behind this nothing was ever used, so that no memory is there.
    reached: usize,
}

#[cfg_attr(
    feature = "loom",
    allow(dead_code, reason = "its atomics are no words of memory")
)]
impl Part {
    /// The first hole that is large enough.
    fn take(&mut self, len: usize) -> Option<usize> {
        debug_assert!(len > 0, "a partition has buckets");
        let fits = |(start, end): &(usize, usize)| end - start >= len;
        let at = self.holes.iter().position(fits)?;
        let hole = self.holes.get_mut(at)?;
        let first = hole.0;
        hole.0 += len;
        if hole.0 == hole.1 {
            self.holes.remove(at);
        }
        self.reached = self.reached.max(first + len);
        self.check();
        Some(first)
    }

    /// What holds of the holes whenever nobody changes them.
    fn check(&self) {
        let all = self.region.len / size_of::<Bucket>();
        debug_assert!(self.holes.iter().all(|hole| hole.0 < hole.1));
        debug_assert!(self.holes.is_sorted_by(|a, b| a.1 < b.0), "in order");
        debug_assert!(self.holes.last().is_none_or(|hole| hole.1 <= all), "there");
        debug_assert!(self.reached <= all, "nothing was used behind it");
    }

    fn give_back(&mut self, first: usize, len: usize) {
        let (mut start, mut end) = (first, first + len);
        debug_assert!(end <= self.reached, "it was in use");
        let from = self.holes.partition_point(|hole| hole.1 < start);
        let to = self.holes.partition_point(|hole| hole.0 <= end);
        for hole in self.holes.drain(from..to) {
            debug_assert!(hole.1 <= start || hole.0 >= end, "it was in use");
            (start, end) = (start.min(hole.0), end.max(hole.1));
        }
        self.holes.insert(from, (start, end));
        self.check();
    }

    fn is_unused(&self) -> bool {
        let all = self.region.len / size_of::<Bucket>();
        self.holes.first() == Some(&(0, all))
    }

    /// Bytes that were used, and are not now.
    fn unused(&self) -> usize {
        let reached = |hole: &(usize, usize)| hole.1.min(self.reached).saturating_sub(hole.0);
        self.holes.iter().map(reached).sum::<usize>() * size_of::<Bucket>()
    }
}

impl Arena {
    /// The atomics of `loom` are no words of memory.
    #[cfg(feature = "loom")]
    pub(crate) fn buckets(self: &Arc<Arena>, len: usize) -> Option<BucketMemory> {
        let buckets: Box<[Bucket]> = (0..len).map(|_| Bucket::default()).collect();
        Some(BucketMemory {
            first: NonNull::new(Box::leak(buckets).as_mut_ptr())?,
            len,
            owner: Owner::Boxed,
        })
    }

    /// Buckets with whatever words were there before; `None` if the system has no address space for them.
    #[cfg(not(feature = "loom"))]
    pub(crate) fn buckets(self: &Arc<Arena>, len: usize) -> Option<BucketMemory> {
        let bytes = len.checked_mul(size_of::<Bucket>())?;
        let mut parts = self.0.lock();
        for part in parts.iter_mut() {
            if let Some(first) = part.take(len) {
                return self.memory(part, first, len);
            }
        }
        let all: usize = parts.iter().map(|part| part.region.len).sum();
        let region = Region::new(bytes.max(all / REGION_SHARE).max(REGION_MIN))?;
        let mut part = Part {
            holes: vec![(0, region.len / size_of::<Bucket>())],
            region,
            reached: 0,
        };
        let first = part.take(len)?;
        let memory = self.memory(&part, first, len);
        parts.push(part);
        memory
    }

    #[cfg(not(feature = "loom"))]
    fn memory(self: &Arc<Arena>, part: &Part, first: usize, len: usize) -> Option<BucketMemory> {
        debug_assert!((first + len) * size_of::<Bucket>() <= part.region.len);
        Some(BucketMemory {
            first: NonNull::new(part.region.first_bucket().wrapping_add(first))?,
            len,
            owner: Owner::Arena(Arc::clone(self)),
        })
    }

    /// Takes buckets back that nothing refers to any more.
    #[cfg(not(feature = "loom"))]
    fn give_back(&self, first: *const Bucket, len: usize) {
        let mut parts = self.0.lock();
        let offset = |part: &Part| first.addr().wrapping_sub(part.region.first_bucket().addr());
        let Some(at) = parts.iter().position(|part| offset(part) < part.region.len) else {
            debug_assert!(false, "they came from here");
            return;
        };
        let is_last = at + 1 == parts.len();
        if let Some(part) = parts.get_mut(at) {
            part.give_back(offset(part) / size_of::<Bucket>(), len);
            if !is_last && part.is_unused() {
                parts.remove(at);
            }
        }
    }

    /// Memory that is there, and that nobody uses.
    pub(crate) fn unused(&self) -> usize {
        self.0.lock().iter().map(Part::unused).sum()
    }
}

/// The buckets of one partition: a part of an arena or of a private mapping.
pub(crate) struct BucketMemory {
    first: NonNull<Bucket>,
    len: usize,
    owner: Owner,
}

enum Owner {
    #[cfg(not(feature = "loom"))]
    Arena(Arc<Arena>),
    Map {
        map: Arc<Map>,
        offset: usize,
    },
    #[cfg(feature = "loom")]
    Boxed,
}

// SAFETY: buckets are atomics, and the memory they lie in lives as long as its owner, which is `Send`
// and `Sync` itself.
unsafe impl Send for BucketMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for BucketMemory {}

impl BucketMemory {
    /// Buckets in a private mapping, or `None` if they do not lie in it, aligned.
    pub(crate) fn mapped(map: Arc<Map>, offset: usize, len: usize) -> Option<BucketMemory> {
        let bytes = len.checked_mul(size_of::<Bucket>())?;
        let base = map.raw.as_mut_ptr();
        let fits = offset.checked_add(bytes)? <= map.raw.len();
        let aligned = (base as usize)
            .checked_add(offset)?
            .is_multiple_of(align_of::<Bucket>());
        (fits && aligned && cfg!(target_endian = "little")).then_some(())?;
        // SAFETY: the offset lies in the mapping, checked above.
        let at = unsafe { base.add(offset) };
        Some(BucketMemory {
            first: NonNull::new(at.cast())?,
            len,
            owner: Owner::Map { map, offset },
        })
    }

    /// Starts to read them from the disk, if they lie in a file.
    pub(crate) fn will_need(&self) {
        if let Owner::Map { map, offset } = &self.owner {
            debug_assert!(*offset + self.len * size_of::<Bucket>() <= map.raw.len());
            map.will_need(*offset, self.len * size_of::<Bucket>());
        }
    }

    pub(crate) fn buckets(&self) -> &[Bucket] {
        debug_assert!(self.first.is_aligned(), "a line of the cache each");
        // SAFETY: in bounds and aligned, as `Arena::memory` and `mapped` see to; the memory is writable,
        // reached through these atomics alone, and lives as long as the owner, hence `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl Drop for BucketMemory {
    fn drop(&mut self) {
        match &self.owner {
            #[cfg(not(feature = "loom"))]
            Owner::Arena(arena) => arena.give_back(self.first.as_ptr(), self.len),
            Owner::Map { .. } => {}
            #[cfg(feature = "loom")]
            Owner::Boxed => {
                let buckets = std::ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
                // SAFETY: `Arena::buckets` leaked the box, and nobody else drops it.
                drop(unsafe { Box::from_raw(buckets) });
            }
        }
    }
}

/// A pointer that readers follow under an epoch guard while a writer replaces it.
///
/// What it pointed to before is freed once no guard that could have seen it is left.
pub(crate) struct EpochCell<T>(Atomic<T>);

impl<T: Send + Sync + 'static> EpochCell<T> {
    pub(crate) fn new(value: T) -> EpochCell<T> {
        EpochCell(Atomic::new(value))
    }

    #[inline]
    pub(crate) fn load<'g>(&'g self, guard: &'g Guard) -> &'g T {
        let shared = self.0.load(Ordering::Acquire, guard);
        // SAFETY: the cell is never null (`new` and `replace` store a value), and a replaced value is
        // destroyed only after every guard that could hold it, `guard` included, is gone.
        unsafe { shared.deref() }
    }

    /// Starts to bring the value into the cache, for who will have a guard when it is there.
    #[inline]
    pub(crate) fn prefetch(&self) {
        #[cfg(not(any(feature = "loom", feature = "shuttle")))]
        {
            // SAFETY: guards are for values that are looked at, and of this one only its address is.
            let guard = unsafe { crossbeam_epoch::unprotected() };
            prefetch_at(self.0.load(Ordering::Relaxed, guard).as_raw().addr());
        }
    }

    pub(crate) fn replace(&self, value: T, guard: &Guard) {
        let old = self.0.swap(Owned::new(value), Ordering::AcqRel, guard);
        // SAFETY: `old` was just unlinked by the swap, so no new reader can find it, and it is
        // unlinked once only.
        unsafe { guard.defer_destroy(old) };
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        let atomic = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: `&mut self` shows that no reader is left, and the cell owns its value.
        drop(unsafe { atomic.try_into_owned() });
    }
}

/// Starts to bring the cache line in which `items` begin into the cache, without waiting for it.
#[inline]
pub(crate) fn prefetch<T>(items: &[T]) {
    prefetch_at(items.as_ptr().addr());
}

/// Starts to bring the cache line at an address into the cache, whatever may be there.
#[inline]
pub(crate) fn prefetch_at(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = std::ptr::without_provenance(address);
        // SAFETY: a prefetch changes nothing and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{Arena, Bucket, BucketMemory, REGION_MIN};
    use crate::sync::atomic::Ordering;

    const PER_REGION: usize = REGION_MIN / size_of::<Bucket>();

    /// Writes `with` to each bucket, and returns whether all had `from`.
    fn mark(memory: &BucketMemory, from: u64, with: u64) -> bool {
        let words = memory.buckets().iter().map(|bucket| &bucket.0[7]);
        words.fold(true, |all, word| {
            all & (word.swap(with, Ordering::Relaxed) == from)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// What is lent is whole and nobody else's, and what came back is lent again.
        #[test]
        fn buckets_are_lent_to_one_at_a_time(
            lens in prop::collection::vec(1..PER_REGION / 8, 1..400),
            keep in 1usize..24,
        ) {
            let arena = Arc::new(Arena::default());
            let mut lent = VecDeque::new();
            for (number, len) in (1u64..).zip(lens) {
                let memory = arena.buckets(len).unwrap();
                prop_assert_eq!(memory.buckets().len(), len);
                mark(&memory, 0, number);
                lent.push_back((number, memory));
                if lent.len() > keep {
                    let at = usize::try_from(number).unwrap() * 7 % lent.len();
                    let (number, memory) = lent.remove(at).unwrap();
                    prop_assert!(mark(&memory, number, 0));
                }
                let parts = arena.0.lock();
                let apart = |holes: &[(usize, usize)]| holes.is_sorted_by(|a, b| a.1 < b.0);
                prop_assert!(parts.iter().all(|part| apart(&part.holes)));
            }
            for (number, memory) in lent {
                prop_assert!(mark(&memory, number, 0));
            }
            prop_assert_eq!(arena.0.lock().len(), 1, "regions that nobody uses are gone");
            let all = arena.buckets(PER_REGION / 2).unwrap();
            prop_assert_eq!(all.buckets().len(), PER_REGION / 2);
        }
    }

    #[test]
    fn what_was_never_lent_is_not_unused() {
        let arena = Arc::new(Arena::default());
        let (first, second) = (arena.buckets(10).unwrap(), arena.buckets(20).unwrap());
        assert_eq!(arena.unused(), 0);
        drop(first);
        assert_eq!(arena.unused(), 10 * size_of::<Bucket>());
        drop(second);
        assert_eq!(arena.unused(), 30 * size_of::<Bucket>());
    }
}
