//! One budget of bytes for all shards: how entries come in, and who leaves for them.

use std::sync::atomic::Ordering::Relaxed;

use crate::cache::Locked;
use crate::fill::Fill;
use crate::leaving::{Gone, Leaving};
use crate::shard::Shard;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::{Cache, Entry};

/// Timers that a write looks at.
const TIMERS_PER_WRITE: usize = 4;
/// Entries that are evicted while a shard is locked once.
const BATCH: usize = 16;

#[derive(Default)]
pub(crate) struct Budget {
    /// Changes while the shard is locked whose weight changes.
    weight: AtomicU64,
    max_weight: AtomicU64,
    max_entry_weight: u64,
    /// The shard that evicts next.
    hand: AtomicUsize,
    refreshing: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max_weight: u64, max_entry_weight: u64) -> Budget {
        Budget {
            max_weight: AtomicU64::new(max_weight),
            max_entry_weight,
            ..Budget::default()
        }
    }
}

impl Cache {
    /// The weight of all entries, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.0.budget.0.weight.load(Relaxed)
    }

    /// The budget, in bytes.
    #[must_use]
    pub fn max_weight(&self) -> u64 {
        self.0.budget.0.max_weight.load(Relaxed)
    }

    /// Changes the budget, and evicts down to it. The heaviest entry allowed stays what it was.
    pub fn set_max_weight(&self, max_weight: u64) {
        self.0.budget.0.max_weight.store(max_weight, Relaxed);
        self.make_room();
    }

    /// Frees what no reader can want any more, at most `limit` entries of it. Inserting does some of
    /// it, so nothing goes wrong if this is never called.
    pub fn maintain(&self, limit: usize) {
        let (now, mut steps) = (self.now(), limit);
        for at in 0..self.0.shards.len() {
            let mut gone = Leaving::default();
            self.change(at as u64, |shard| {
                gone.extend(std::iter::from_fn(|| shard.expire(now, &mut steps)));
            });
            self.farewell(gone);
        }
    }

    /// Stores an entry, that of a fill only while the fill still stands.
    pub(crate) fn store(&self, hash: u64, entry: Entry, fill: Option<&Arc<Fill>>) -> bool {
        let stored = self.store_by(hash, |shard, gone| self.put(shard, hash, entry, fill, gone));
        if !stored && fill.is_some() {
            self.0.counters.refuse();
        }
        stored
    }

    /// Locks a shard, stores by `put`, which returns an entry that it refuses, and makes room for that.
    /// Returns whether it was stored.
    pub(crate) fn store_by(
        &self,
        hash: u64,
        put: impl FnOnce(&mut Shard, &mut Leaving) -> Result<(), Entry>,
    ) -> bool {
        let mut gone = Leaving::default();
        let locked = self.shard(hash);
        let mut shard = locked.write();
        let before = shard.weight();
        // As what goes out, one that is refused is dropped when nothing is locked.
        let stored = put(&mut shard, &mut gone);
        if stored.is_ok() {
            self.expire_some(&mut shard, &mut gone);
        }
        if self.is_turn_of(&shard, before) {
            self.evict(&mut shard, before, &mut gone);
        }
        self.settle(locked, before, &shard);
        drop(shard);
        self.farewell(gone);
        self.make_room();
        stored.is_ok()
    }

    /// What a write does for what no reader can want any more.
    fn expire_some(&self, shard: &mut Shard, gone: &mut Leaving) {
        if shard.has_timers() {
            let (now, mut steps) = (self.now(), TIMERS_PER_WRITE);
            gone.extend(std::iter::from_fn(|| shard.expire(now, &mut steps)));
        }
    }

    /// Puts an entry into a locked shard, or returns it.
    pub(crate) fn put(
        &self,
        shard: &mut Shard,
        hash: u64,
        entry: Entry,
        fill: Option<&Arc<Fill>>,
        gone: &mut Leaving,
    ) -> Result<(), Entry> {
        let key = entry.key();
        if fill.is_some_and(|fill| !shard.fills.end(fill)) {
            return Err(entry);
        }
        shard.fills.remove(hash, key);
        let forgotten = entry.0.generation() != self.generation(key.namespace);
        if forgotten || self.is_old(shard, hash, &entry) {
            return Err(entry);
        }
        if u64::from(entry.weight()) > self.0.budget.0.max_entry_weight {
            gone.extend(shard.remove(hash, key));
            return Err(entry);
        }
        if let Some(replaced) = shard.insert(hash, entry, self.0.settings.ranking) {
            gone.push(replaced);
        }
        Ok(())
    }

    /// Whether a newer version is known.
    fn is_old(&self, shard: &Shard, hash: u64, new: &Entry) -> bool {
        let version = new.version();
        let newer =
            |held: &&Entry| held.0.generation() == new.0.generation() && held.version() > version;
        // Most have no version, and most shards no floor: nothing to look for.
        let replaced = version != 0 && shard.find(hash, new.key()).filter(newer).is_some();
        replaced || !shard.floors.is_empty() && !shard.floors.admit(hash, version, self.now())
    }

    /// Applies a change to a shard and to the weight of the whole. What it returns, entries among it,
    /// is dropped by the caller when nothing is locked.
    pub(crate) fn change<R>(&self, hash: u64, change: impl FnOnce(&mut Shard) -> R) -> R {
        let locked = self.shard(hash);
        let mut shard = locked.write();
        let before = shard.weight();
        let result = change(&mut shard);
        self.settle(locked, before, &shard);
        result
    }

    /// Tells the others what a change of a shard, which is still locked, did to its weight and age.
    fn settle(&self, locked: &Locked, before: u64, shard: &Shard) {
        let weight = &self.0.budget.0.weight;
        match shard.weight().checked_sub(before) {
            Some(0) => {}
            Some(more) => drop(weight.fetch_add(more, Relaxed)),
            None => drop(weight.fetch_sub(before - shard.weight(), Relaxed)),
        }
        locked.age.store(shard.age().to_bits(), Relaxed);
        shard.tell(&locked.ahead);
    }

    /// Whether the whole is over its budget, with a locked shard whose weight was `before` when it
    /// last told the others.
    fn is_over(&self, shard: &Shard, before: u64) -> bool {
        self.weight() - before + shard.weight() > self.max_weight()
    }

    /// Whether a shard that is locked already may be the one to evict from: not if what it would throw
    /// out is worth clearly more than what another would.
    fn is_turn_of(&self, shard: &Shard, before: u64) -> bool {
        let other = self.0.budget.0.hand.load(Relaxed);
        let other = self.shard(other as u64).age.load(Relaxed);
        self.is_over(shard, before) && shard.age() <= f64::from_bits(other) + shard.slack()
    }

    /// Evicts from a locked shard while the whole is over its budget.
    fn evict(&self, shard: &mut Shard, before: u64, gone: &mut Leaving) {
        for _ in 0..BATCH {
            if !self.is_over(shard, before) {
                break;
            }
            let Some(victim) = shard.evict(self.0.settings.ranking) else {
                break;
            };
            gone.push(victim);
        }
    }

    /// Evicts until the weight is within the budget: from one of two shards at a time, that of the
    /// lower age.
    pub(crate) fn make_room(&self) {
        let (mut idle, shards) = (0, self.0.shards.len());
        // After as many idle looks all shards were empty: others have yet to count what they hold.
        while self.weight() > self.max_weight() && idle <= 2 * shards {
            let hand = self.0.budget.0.hand.fetch_add(1, Relaxed);
            let age = |at: usize| f64::from_bits(self.shard(at as u64).age.load(Relaxed));
            let other = hand.wrapping_mul(0x9E37_79B9) >> 16;
            let younger = idle < shards && age(other) < age(hand);
            let at = if younger { other } else { hand } as u64;
            let mut gone = Leaving::default();
            self.change(at, |shard| {
                let before = shard.weight();
                self.evict(shard, before, &mut gone);
            });
            idle = if gone.is_empty() { idle + 1 } else { 0 };
            self.farewell(gone);
        }
    }

    /// Counts what went out, tells the listener, and drops it. Nothing is locked.
    pub(crate) fn farewell(&self, gone: impl IntoIterator<Item = Gone>) {
        for Gone { entry, cause } in gone {
            self.0.counters.gone(cause);
            if let Some(listener) = &self.0.settings.listener {
                listener(&entry, cause);
            }
        }
    }

    /// Counts one more fetch ahead of time, if there may be one.
    pub(crate) fn may_refresh(&self) -> bool {
        let (refreshing, max) = (&self.0.budget.0.refreshing, self.0.settings.refreshes_max);
        let may = refreshing.fetch_add(1, Relaxed) < max;
        if !may {
            self.refreshed();
        }
        may
    }

    pub(crate) fn refreshed(&self) {
        self.0.budget.0.refreshing.fetch_sub(1, Relaxed);
    }
}
