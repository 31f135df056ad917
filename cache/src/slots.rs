//! What eviction and expiry know of a shard's entries, in slots that are known by their numbers.
//!
//! Queues and timers are lists through the slots. A list holds numbers, not pointers: a mistake finds
//! the wrong entry, but never memory that is somebody else's.
#![allow(
    clippy::indexing_slicing,
    reason = "a number is below the capacity, a number modulo a chunk below the chunk's length"
)]

use std::ops::Range;

use crate::clock::{NEVER, Seconds};
use crate::prefetch::prefetch;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// A power of two: 3 KiB of slots, which come and go together, so that growth copies nothing.
const CHUNK: usize = 64;
const CHUNK_SLOTS: u32 = 64;

/// The list through the slots that an entry's queue is, and the one that its timer is.
pub(crate) const QUEUE: usize = 0;
pub(crate) const TIMER: usize = 1;

/// Where an entry waits for its eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: the slot is free.
    Free,
    Small,
    Main(u8),
}

/// What eviction and expiry know of an entry. A hit does not come here.
#[derive(Debug)]
pub(crate) struct Slot {
    /// When its turn to leave main comes, on the shard's scale of age.
    pub(crate) stamp: f64,
    pub(crate) hash: u32,
    pub(crate) weight: u32,
    /// When its timer goes off.
    pub(crate) timer: Seconds,
    /// How many had left the shard when it was placed in main. Of a free slot, its place among those.
    pub(crate) placed: u32,
    links: [Links; 2],
    pub(crate) place: Place,
    /// The bucket of the wheel, if it has a timer.
    pub(crate) bucket: Option<Bucket>,
    /// Reads and misses before it was placed, as far as they are remembered.
    pub(crate) frequency: u8,
}

const _: () = assert!(size_of::<Slot>() == 48);

/// A bucket of the wheel: level and digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) level: u8,
    pub(crate) digit: u8,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    prev: u32,
}

impl Slot {
    fn free() -> Slot {
        let alone = Links {
            next: NONE,
            prev: NONE,
        };
        Slot {
            stamp: 0.0,
            hash: 0,
            weight: 0,
            timer: NEVER,
            placed: 0,
            links: [alone; 2],
            place: Place::Free,
            bucket: None,
            frequency: 0,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.place == Place::Free
    }
}

/// A first-in first-out list through the slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
        }
    }
}

impl List {
    pub(crate) fn first(self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Has the memory of the third one brought near, whose turn comes after the next two.
    pub(crate) fn prefetch_third<const L: usize>(self, slots: &Slots) {
        if let Some(third) = self.iter::<L>(slots).nth(2) {
            slots.prefetch(third);
        }
    }

    pub(crate) fn push<const L: usize>(&mut self, slots: &mut Slots, at: u32) {
        slots.get_mut(at).links[L] = Links {
            next: NONE,
            prev: self.last,
        };
        match self.last {
            NONE => self.first = at,
            last => slots.get_mut(last).links[L].next = at,
        }
        self.last = at;
    }

    pub(crate) fn remove<const L: usize>(&mut self, slots: &mut Slots, at: u32) {
        let Links { next, prev } = slots.get(at).links[L];
        match prev {
            NONE => self.first = next,
            prev => slots.get_mut(prev).links[L].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => slots.get_mut(next).links[L].prev = prev,
        }
    }

    /// After a slot moved: its neighbours and the list learn its new number.
    pub(crate) fn renumber<const L: usize>(&mut self, slots: &mut Slots, new: u32) {
        let Links { next, prev } = slots.get(new).links[L];
        match prev {
            NONE => self.first = new,
            prev => slots.get_mut(prev).links[L].next = new,
        }
        match next {
            NONE => self.last = new,
            next => slots.get_mut(next).links[L].prev = new,
        }
    }

    /// The numbers in the list, oldest first.
    pub(crate) fn iter<const L: usize>(self, slots: &Slots) -> impl Iterator<Item = u32> {
        let next = move |at: &u32| Some(slots.get(*at).links[L].next).filter(|at| *at != NONE);
        std::iter::successors(self.first(), next)
    }
}

/// The slots of a shard. They never change their places while they are in use, but for the last ones
/// once many are free.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    #[allow(clippy::vec_box, reason = "growth moves pointers, not slots")]
    chunks: Vec<Box<[Slot; CHUNK]>>,
    /// The one that was used last comes last, and is taken next: it is still near.
    free: Vec<u32>,
}

impl Slots {
    #[inline]
    pub(crate) fn get(&self, at: u32) -> &Slot {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// Has the memory of a slot brought near: all of it, since a slot may lie on two lines.
    pub(crate) fn prefetch(&self, at: u32) {
        let slot = self.get(at);
        prefetch(slot);
        prefetch(&slot.frequency);
        prefetch(&slot.links);
    }

    /// Slots in use.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "no more are free than there are"
    )]
    pub(crate) fn used(&self) -> u32 {
        self.capacity() - self.free.len() as u32
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "a slot takes 48 bytes: numbers end long after memory"
    )]
    fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Returns a free slot's number, which the caller fills.
    pub(crate) fn take(&mut self) -> u32 {
        loop {
            if let Some(at) = self.free.pop() {
                return at;
            }
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let from = self.capacity();
        let chunk: Vec<Slot> = std::iter::repeat_with(Slot::free).take(CHUNK).collect();
        if let Ok(chunk) = chunk.into_boxed_slice().try_into() {
            self.chunks.push(chunk);
        }
        (from..self.capacity())
            .rev()
            .for_each(|at| self.add_free(at));
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "no more are free than there are"
    )]
    fn add_free(&mut self, at: u32) {
        let place = self.free.len() as u32;
        let slot = self.get_mut(at);
        (slot.place, slot.placed) = (Place::Free, place);
        self.free.push(at);
    }

    /// Frees a slot that is in no list.
    pub(crate) fn give_back(&mut self, at: u32) {
        debug_assert_eq!(self.get(at).bucket, None, "it has no timer");
        self.add_free(at);
    }

    /// The slots of the last chunk, if so many are free that it should go: an eighth, and two chunks.
    pub(crate) fn surplus(&self) -> Option<Range<u32>> {
        let free = self.free.len();
        let surplus = free > 2 * CHUNK && free > self.capacity() as usize / 8;
        surplus.then(|| self.capacity() - CHUNK_SLOTS..self.capacity())
    }

    /// Takes the free slots of the last chunk out of use, so that nothing moves there. It looks for none of
    /// them: who gives much back calls this for each chunk, with a lock held.
    pub(crate) fn retire(&mut self, last: &Range<u32>) {
        for at in last.clone() {
            if !self.get(at).is_free() {
                continue;
            }
            let place = self.get(at).placed;
            self.free.swap_remove(place as usize);
            if let Some(moved) = self.free.get(place as usize).copied() {
                self.get_mut(moved).placed = place;
            }
        }
        self.free.shrink_to(2 * self.free.len());
    }

    /// Moves a used slot of a retired chunk and returns its new number, which lists and index are to
    /// learn.
    pub(crate) fn relocate(&mut self, from: u32) -> u32 {
        let to = self.take();
        let slot = std::mem::replace(self.get_mut(from), Slot::free());
        *self.get_mut(to) = slot;
        to
    }

    /// Frees the last chunk, which is retired and empty.
    pub(crate) fn drop_last_chunk(&mut self) {
        self.chunks.pop();
    }

    /// All slots in use with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..).zip(slots).filter(|(_, slot)| !slot.is_free())
    }

    pub(crate) fn validate(&self) {
        assert_eq!(self.iter().count(), self.used() as usize);
        for (place, at) in (0..).zip(&self.free) {
            assert!(self.get(*at).is_free());
            assert_eq!(self.get(*at).placed, place);
        }
    }
}
