//! A part of the cache, used by one writer or many readers at a time.

use std::sync::atomic::Ordering::Relaxed;

use crate::clock::{NEVER, Seconds};
use crate::cost::Ranking;
use crate::fill::Fills;
use crate::floors::Floors;
use crate::history::{FREQUENCY_MAX, History};
use crate::index::Index;
use crate::queues::{self, Queues};
use crate::slots::{HITS_MAX, Place, Slot, Slots};
use crate::wheel::{Turned, Wheel};
use crate::{Cause, Entry, Key};

/// What comes in.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) entry: Entry,
    pub(crate) kept_until: Seconds,
    pub(crate) generation: u32,
}

/// What went out. It is dropped when nothing is locked.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) entry: Entry,
    pub(crate) cause: Cause,
}

#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: Index,
    slots: Slots,
    queues: Queues,
    wheel: Wheel,
    history: History,
    pub(crate) fills: Fills,
    pub(crate) floors: Floors,
}

/// The half of a hash that is used inside a shard.
#[allow(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
#[inline]
fn half(hash: u64) -> u32 {
    hash as u32
}

impl Shard {
    #[inline]
    fn locate(&self, hash: u64, key: Key<'_>) -> Option<u32> {
        let hash = half(hash);
        self.index.find(hash, |at| {
            let slot = self.slots.get(at);
            let is_it = |entry: &Entry| entry.key() == key;
            slot.hash == hash && slot.entry.as_ref().is_some_and(is_it)
        })
    }

    /// The entry of a key, whether or not it may be served.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: Key<'_>) -> Option<(&Slot, &Entry)> {
        let slot = self.slots.get(self.locate(hash, key)?);
        Some((slot, slot.entry.as_ref()?))
    }

    /// Puts an entry in, in place of what there was of its key, which is returned.
    pub(crate) fn insert(&mut self, hash: u64, new: Newcomer, ranking: Ranking) -> Option<Gone> {
        let weight = new.entry.weight();
        let held = self.locate(hash, new.entry.key());
        let at = held.unwrap_or_else(|| self.slots.take());
        if held.is_some() {
            self.wheel.remove(&mut self.slots, at);
            self.queues.remove(&mut self.slots, at);
        }
        let slot = self.slots.get_mut(at);
        let (timed, kept_until) = (new.kept_until != NEVER, new.kept_until);
        let old = slot.entry.replace(new.entry);
        *slot.kept_until.get_mut() = kept_until;
        slot.generation = new.generation;
        slot.weight = weight;
        match (held, slot.place) {
            (None, _) => self.admit(at, half(hash), ranking),
            (Some(_), Place::Main(_)) => self.queues.push_main(&mut self.slots, at, ranking),
            (Some(_), _) => self.queues.push_small(&mut self.slots, at),
        }
        if timed {
            self.wheel.insert(&mut self.slots, at, kept_until);
        }
        let cause = Cause::Replaced;
        old.map(|entry| Gone { entry, cause })
    }

    fn admit(&mut self, at: u32, hash: u32, ranking: Ranking) {
        self.history.fit(self.slots.used() as usize);
        let slot = self.slots.get_mut(at);
        slot.hash = hash;
        slot.frequency = (self.history.frequency(hash) + 1).min(FREQUENCY_MAX);
        let slots = &self.slots;
        self.index.insert(hash, at, |at| slots.get(at).hash);
        let left = self.history.comes_back(hash);
        self.queues.admit(&mut self.slots, at, left, ranking);
    }

    /// Takes a key's entry out.
    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Gone> {
        let at = self.locate(hash, key)?;
        self.take_out(at, Cause::Explicit)
    }

    /// Takes out the entry whose turn it is.
    pub(crate) fn evict(&mut self, ranking: Ranking) -> Option<Gone> {
        let (at, left) = self.queues.victim(&mut self.slots, ranking)?;
        self.history.leave(self.slots.get(at).hash, left);
        self.take_out(at, Cause::Size)
    }

    /// Takes out one entry that nobody may want any more; `None` if there is none. `steps` are left
    /// when it returns, and at 0 it stops.
    pub(crate) fn expire(&mut self, now: Seconds, steps: &mut usize) -> Option<Gone> {
        let kept_until = |slots: &Slots, at| slots.get(at).kept_until.load(Relaxed);
        while *steps > 0 {
            *steps -= 1;
            let Turned::Due(at) = self.wheel.turn(&mut self.slots, now, kept_until)? else {
                continue;
            };
            // A reader may have asked for more time since the timer was set.
            let until = kept_until(&self.slots, at);
            if until <= now {
                return self.take_out(at, Cause::Expired);
            }
            self.wheel.insert(&mut self.slots, at, until);
        }
        None
    }

    fn take_out(&mut self, at: u32, cause: Cause) -> Option<Gone> {
        let frequency = queues::frequency(&self.slots, at);
        self.queues.remove(&mut self.slots, at);
        self.wheel.remove(&mut self.slots, at);
        let slot = self.slots.give_back(at);
        // It may come back; what is known of it should count then.
        self.history.remember(slot.hash, frequency);
        let slots = &self.slots;
        self.index.remove(slot.hash, at, |at| slots.get(at).hash);
        self.shrink();
        let entry = slot.entry?;
        Some(Gone { entry, cause })
    }

    /// Takes everything out. What is known of frequencies stays, and floors do.
    pub(crate) fn clear(&mut self) -> Vec<Gone> {
        let slots = std::mem::take(&mut self.slots);
        self.index = Index::default();
        self.queues = Queues::default();
        self.wheel.clear();
        let entries = slots.into_entries();
        let cause = Cause::Explicit;
        entries.map(|entry| Gone { entry, cause }).collect()
    }

    /// Gives memory of free slots back.
    fn shrink(&mut self) {
        let Some(last) = self.slots.surplus() else {
            return;
        };
        self.slots.retire(&last);
        for from in last {
            if self.slots.get(from).entry.is_some() {
                let to = self.slots.relocate(from);
                self.queues.renumber(&mut self.slots, to);
                self.wheel.renumber(&mut self.slots, to);
                self.index.replace(self.slots.get(to).hash, from, to);
            }
        }
        self.slots.drop_last_chunk();
        self.history.fit(self.slots.used() as usize);
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.used() as usize
    }

    /// The weight of all entries.
    pub(crate) fn weight(&self) -> u64 {
        self.queues.weight()
    }

    pub(crate) fn age(&self) -> f64 {
        self.queues.age()
    }

    /// How far its age may be ahead of another's: the last victims' worth.
    pub(crate) fn slack(&self) -> f64 {
        self.queues.slack()
    }

    /// All entries with their frequencies.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Slot, &Entry, u8)> {
        let used = self.slots.iter();
        used.filter_map(|(at, slot)| {
            let frequency = queues::frequency(&self.slots, at);
            Some((slot, slot.entry.as_ref()?, frequency))
        })
    }

    /// Checks what always holds.
    pub(crate) fn validate(&self) {
        self.slots.validate();
        self.queues.validate(&self.slots);
        self.wheel.validate(&self.slots);
        assert_eq!(self.index.len(), self.len());
        assert_eq!(self.index.iter().count(), self.len());
        for (at, slot) in self.slots.iter() {
            assert!(self.index.find(slot.hash, |held| held == at).is_some());
            let weight = slot.entry.as_ref().map_or(0, Entry::weight);
            assert_eq!(slot.weight, weight);
            assert!(slot.hits.load(Relaxed) <= HITS_MAX);
            assert!(slot.frequency <= FREQUENCY_MAX);
            let timed = slot.bucket.is_some();
            assert_eq!(timed, slot.kept_until.load(Relaxed) != NEVER);
        }
    }
}
