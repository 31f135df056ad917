//! What an entry consists of, counted and in one allocation: a header, the key, the metadata and
//! the value, so that the count shares a line of memory with what is read next.
//!
//! ```text
//! Header (48 bytes) | Bytes, if shared | name | metadata | version (8), if any | value, unless shared
//! ```
//!
//! A block never changes once it is made, but for its count and what its shard notes in it. A hit finds
//! there all it needs. But for hints to the processor in `prefetch.rs` and to the system in `pages.rs`, this
//! is the crate's only unsafe file.
#![allow(
    unsafe_code,
    reason = "one allocation of a header and bytes behind a thin pointer"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::Key;
use crate::clock::Seconds;
use crate::parts::{Body, Parts};
use crate::prefetch::prefetch;
use crate::sync::Memory;
use crate::sync::atomic::{AtomicU32, fence};

#[repr(C)]
struct Header {
    count: AtomicU32,
    value_len: u32,
    metadata_len: u32,
    namespace: u32,
    expiration: Seconds,
    /// The length of the name, and flags in the upper bits.
    name: u32,
    fetched: Seconds,
    fresh_until: Seconds,
    kept_until: AtomicU32,
    generation: u32,
    hash: u32,
    /// The number of the entry's slot, and in the upper bits its reads since it was placed.
    slot: AtomicU32,
    memory: Memory,
}

/// Reads that are counted between two looks of the eviction. From then on a read writes nothing.
pub(crate) const HITS_MAX: u8 = 3;
const HIT: u32 = 1 << 30;

const ABSENT: u32 = 1 << 31;
const SHARED: u32 = 1 << 30;
const VERSIONED: u32 = 1 << 29;
const NAME_MAX: u32 = VERSIONED - 1;

const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 48 || cfg!(feature = "loom"));
const _: () = assert!(HEADER.is_multiple_of(align_of::<Bytes>()));
const VERSION: usize = size_of::<u64>();
const LINE: usize = 64;
const LINES_AHEAD: usize = 3;
/// As for `Arc`: far below an overflow, far above any honest number of handles.
const COUNT_MAX: u32 = 1 << 30;

/// A counted handle of one pointer.
pub(crate) struct Block(NonNull<Header>);

// SAFETY: a block is bytes, a `Bytes` and an atomic count, all of which may be shared and sent.
unsafe impl Send for Block {}
// SAFETY: as above; nothing but the count changes after the block is made.
unsafe impl Sync for Block {}

impl Block {
    /// Bytes that a block of these parts takes, a shared value's included; `None` if a part is too
    /// long for a block.
    pub(crate) fn size_of(parts: &Parts<'_>) -> Option<u32> {
        u32::try_from(parts.key.name.len())
            .ok()
            .filter(|len| *len <= NAME_MAX)?;
        let (value, shared) = match &parts.body {
            Body::Copied(value) => (value.len(), 0),
            Body::Shared(value) => (value.len(), size_of::<Bytes>()),
            Body::Absent => (0, 0),
        };
        let rest = parts.key.name.len() + parts.metadata.len() + shared;
        u32::try_from(HEADER + rest + VERSION + value).ok()
    }

    /// Makes a block with one handle, or none if a part is too long for it.
    pub(crate) fn new(parts: Parts<'_>) -> Option<Block> {
        Block::size_of(&parts)?;
        let (flags, value_len) = match &parts.body {
            Body::Copied(value) => (0, value.len()),
            Body::Shared(value) => (SHARED, value.len()),
            Body::Absent => (ABSENT, 0),
        };
        let versioned = if parts.version == 0 { 0 } else { VERSIONED };
        let header = Header {
            count: AtomicU32::new(1),
            value_len: u32::try_from(value_len).ok()?,
            metadata_len: u32::try_from(parts.metadata.len()).ok()?,
            namespace: parts.key.namespace,
            expiration: parts.expiration,
            name: u32::try_from(parts.key.name.len()).ok()? | flags | versioned,
            fetched: parts.fetched,
            fresh_until: parts.fresh_until,
            kept_until: AtomicU32::new(parts.kept_until),
            generation: parts.generation,
            hash: parts.hash,
            slot: AtomicU32::new(0),
            memory: Memory::default(),
        };
        let layout = header.layout();
        let mut at = header.name_at();
        // SAFETY: the layout is not empty, since it holds the header.
        let memory = unsafe { alloc(layout) };
        let Some(block) = NonNull::new(memory.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the memory is that of the layout, which begins with a header.
        unsafe { block.write(header) };
        let version = parts.version.to_le_bytes();
        let version = if versioned == 0 { &[] } else { &version[..] };
        let copied = match parts.body {
            Body::Copied(value) => value,
            Body::Absent => &[],
            Body::Shared(value) => {
                // SAFETY: the layout of a shared block has room for a `Bytes` after the header.
                let to = unsafe { block.add(1) }.cast::<Bytes>();
                // SAFETY: as above; it is aligned, since the header's size is a multiple of 8.
                unsafe { to.write(value) };
                &[]
            }
        };
        let mut copy = |part: &[u8]| {
            if !part.is_empty() {
                // SAFETY: the layout has room for all parts, one after the other, from `name_at` on.
                let to = unsafe { memory.add(at) };
                // SAFETY: as above; the memory is new, so the part cannot overlap it.
                unsafe { to.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
                at += part.len();
            }
        };
        copy(parts.key.name);
        copy(parts.metadata);
        copy(version);
        copy(copied);
        debug_assert_eq!(at, layout.size());
        Some(Block(block))
    }

    fn header(&self) -> &Header {
        // SAFETY: the header lives as long as any handle, and only its count changes.
        let header = unsafe { self.0.as_ref() };
        header.memory.read();
        header
    }

    /// Has its first lines brought near, of a small one all: who gets its memory next writes there.
    pub(crate) fn prefetch(&self) {
        let from = self.0.as_ptr().cast::<[u8; LINE]>();
        for line in 0..LINES_AHEAD {
            prefetch(from.wrapping_add(line));
        }
    }

    /// Has the lines behind the first one brought near.
    #[inline]
    pub(crate) fn prefetch_rest(&self) {
        let from = self.0.as_ptr().cast::<[u8; LINE]>();
        prefetch(from.wrapping_add(1));
        prefetch(from.wrapping_add(2));
    }

    pub(crate) fn address(&self) -> usize {
        self.0.addr().get()
    }

    /// Bytes of the block from `at` on.
    ///
    /// # Safety
    /// They must lie within the layout of the header.
    unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller keeps within the allocation.
        let from = unsafe { self.0.cast::<u8>().add(at) };
        // SAFETY: `new` wrote all bytes behind the header, and nobody changes them.
        unsafe { NonNull::slice_from_raw_parts(from, len).as_ref() }
    }

    pub(crate) fn key(&self) -> Key<'_> {
        let header = self.header();
        // SAFETY: the name lies there.
        let name = unsafe { self.bytes(header.name_at(), header.name_len()) };
        Key {
            namespace: header.namespace,
            name,
        }
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        let header = self.header();
        let at = header.name_at() + header.name_len();
        // SAFETY: the metadata lie behind the name.
        unsafe { self.bytes(at, header.metadata_len as usize) }
    }

    /// The value; nothing for an absent one.
    pub(crate) fn value(&self) -> &[u8] {
        if let Some(shared) = self.shared() {
            return shared;
        }
        let header = self.header();
        let at = header.version_at() + header.version_len();
        // SAFETY: the value lies behind the version.
        unsafe { self.bytes(at, header.value_len as usize) }
    }

    /// The value, if it is somebody's bytes.
    pub(crate) fn shared(&self) -> Option<&Bytes> {
        if self.header().name & SHARED == 0 {
            return None;
        }
        // SAFETY: a shared block has a `Bytes` behind its header.
        let shared = unsafe { self.0.add(1).cast::<Bytes>() };
        // SAFETY: `new` wrote it, and it lives as long as any handle.
        Some(unsafe { shared.as_ref() })
    }

    /// 0 if it has none.
    pub(crate) fn version(&self) -> u64 {
        let header = self.header();
        // SAFETY: the version lies behind the metadata.
        let bytes = unsafe { self.bytes(header.version_at(), header.version_len()) };
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    pub(crate) fn expiration(&self) -> Seconds {
        self.header().expiration
    }

    pub(crate) fn fetched(&self) -> Seconds {
        self.header().fetched
    }

    #[inline]
    pub(crate) fn fresh_until(&self) -> Seconds {
        self.header().fresh_until
    }

    pub(crate) fn kept_until(&self) -> Seconds {
        self.header().kept_until.load(Ordering::Relaxed)
    }

    /// Has it kept until then, if that is later.
    pub(crate) fn keep_until(&self, until: Seconds) {
        if self.kept_until() < until {
            self.header().kept_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.header().generation
    }

    pub(crate) fn hash(&self) -> u32 {
        self.header().hash
    }

    pub(crate) fn slot(&self) -> u32 {
        self.header().slot.load(Ordering::Relaxed) % HIT
    }

    /// Notes the slot and forgets the reads. The shard must be locked for writing.
    pub(crate) fn set_slot(&self, slot: u32) {
        debug_assert!(slot < HIT);
        self.header().slot.store(slot, Ordering::Relaxed);
    }

    #[allow(clippy::cast_possible_truncation, reason = "two bits")]
    #[inline]
    pub(crate) fn hits(&self) -> u8 {
        (self.header().slot.load(Ordering::Relaxed) / HIT) as u8
    }

    /// Counts a read, until it has been read often enough. Two readers at once may count for one. The
    /// shard must be locked for reading, so that the slot stays.
    #[inline]
    pub(crate) fn touch(&self) {
        let slot = self.header().slot.load(Ordering::Relaxed);
        if slot / HIT < HITS_MAX.into() {
            self.header().slot.store(slot + HIT, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.header().name & ABSENT != 0
    }

    /// Bytes it takes, a shared value's included.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "`size_of` bounds the sum of all parts"
    )]
    pub(crate) fn size(&self) -> u32 {
        let header = self.header();
        let shared = header.name & SHARED != 0;
        header.layout().size() as u32 + if shared { header.value_len } else { 0 }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> u32 {
        self.header().count.load(Ordering::Relaxed)
    }
}

impl Header {
    fn name_len(&self) -> usize {
        (self.name & NAME_MAX) as usize
    }

    fn name_at(&self) -> usize {
        let shared = self.name & SHARED != 0;
        HEADER + if shared { size_of::<Bytes>() } else { 0 }
    }

    fn version_at(&self) -> usize {
        self.name_at() + self.name_len() + self.metadata_len as usize
    }

    fn version_len(&self) -> usize {
        let versioned = self.name & VERSIONED != 0;
        if versioned { VERSION } else { 0 }
    }

    fn layout(&self) -> Layout {
        let shared = self.name & SHARED != 0;
        let value = if shared { 0 } else { self.value_len as usize };
        let size = self.version_at() + self.version_len() + value;
        match Layout::from_size_align(size, align_of::<Header>().max(align_of::<Bytes>())) {
            Ok(layout) => layout,
            // `size_of` has bounded the sum.
            Err(_) => unreachable!("a block of {size} bytes"),
        }
    }
}

impl Clone for Block {
    fn clone(&self) -> Block {
        // Relaxed, as for `Arc`: who has a handle has seen the block being made.
        let count = self.header().count.fetch_add(1, Ordering::Relaxed);
        if count > COUNT_MAX {
            // Handles were forgotten; a count that wraps would free what is in use.
            std::process::abort();
        }
        Block(self.0)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Release: all uses by this handle come before the end. Acquire below: before the end,
        // all uses by the others.
        if self.header().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        self.header().memory.end();
        let layout = self.header().layout();
        if self.shared().is_some() {
            // SAFETY: a shared block has a `Bytes` behind its header.
            let shared = unsafe { self.0.add(1).cast::<Bytes>() };
            // SAFETY: this was the last handle, so nobody uses it again.
            unsafe { shared.drop_in_place() };
        }
        // SAFETY: the memory came from `alloc` with this layout, and this was the last handle. The
        // header itself has nothing to drop.
        unsafe { dealloc(self.0.cast().as_ptr(), layout) };
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Block");
        debug.field("key", &self.key());
        debug.field("value_len", &self.value().len());
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
