//! The engine's only unsafe code: memory that is mapped from files or fetched ahead, and pointers that
//! readers follow without a lock.
//!
//! Everything here is wrapped in types whose methods are safe to call.
#![allow(
    unsafe_code,
    reason = "mappings and lock-free pointers; the rest of the engine denies it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch::{Atomic, Guard, Owned};
use memmap2::{MmapMut, MmapRaw};

/// A mapping of a file, or memory that stands for one.
///
/// The file behind it is only appended to, and only its owner writes to it: bytes that were handed
/// out as a slice do not change. Whoever asks for a slice first checks that the range was written.
pub struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Wraps a mapping that nobody writes through.
    pub fn new(raw: MmapRaw) -> Map {
        Map { raw }
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
        Ok(Map {
            raw: MmapRaw::from(map),
        })
    }

    /// Length of the mapping in bytes, which may exceed what the file holds.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The bytes of a range that is already written, or `None` beyond the mapping.
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

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.slice(0, self.len()).unwrap_or_default()
    }
}

/// Eight slots of the point index: one cache line.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket(pub(crate) [AtomicU64; 8]);

/// The buckets of one partition, on the heap or in a private mapping of a checkpoint.
pub(crate) enum BucketMemory {
    Owned(Box<[Bucket]>),
    Mapped {
        map: Arc<Map>,
        offset: usize,
        len: usize,
    },
}

impl BucketMemory {
    pub(crate) fn zeroed(len: usize) -> BucketMemory {
        BucketMemory::Owned((0..len).map(|_| Bucket::default()).collect())
    }

    /// Buckets in a private mapping, or `None` if they do not lie in it, aligned.
    pub(crate) fn mapped(map: Arc<Map>, offset: usize, len: usize) -> Option<BucketMemory> {
        let bytes = len.checked_mul(64)?;
        let base = map.raw.as_ptr() as usize;
        let fits = offset.checked_add(bytes)? <= map.raw.len();
        let aligned = base.checked_add(offset)?.is_multiple_of(64);
        (fits && aligned && cfg!(target_endian = "little")).then_some(BucketMemory::Mapped {
            map,
            offset,
            len,
        })
    }

    pub(crate) fn buckets(&self) -> &[Bucket] {
        match self {
            BucketMemory::Owned(buckets) => buckets,
            BucketMemory::Mapped { map, offset, len } => {
                // SAFETY: `mapped` checked that the offset lies in the mapping.
                let ptr = unsafe { map.raw.as_ptr().add(*offset) };
                // SAFETY: in bounds and aligned as `mapped` checked; the mapping is private and
                // writable, lives as long as `self`, and is reached through these atomics only once
                // the checkpoint was verified.
                unsafe { std::slice::from_raw_parts(ptr.cast::<Bucket>(), *len) }
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

    pub(crate) fn load<'g>(&'g self, guard: &'g Guard) -> &'g T {
        let shared = self.0.load(Ordering::Acquire, guard);
        // SAFETY: the cell is never null (`new` and `replace` store a value), and a replaced value is
        // destroyed only after every guard that could hold it, `guard` included, is gone.
        unsafe { shared.deref() }
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
pub(crate) fn prefetch<T>(items: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(items.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = items;
}
