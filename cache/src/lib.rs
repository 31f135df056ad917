//! A cache in memory, bounded by weight, for values that expire and that others overwrite.
//!
//! What sets it apart is the fill. A reader that misses takes a [`Ticket`] *before* it goes to the
//! source; if the key is written or removed meanwhile, the ticket is void and the value it brings is
//! not stored. So a slow reader never puts an old value over a newer one. One reader at a time loads
//! a key; the others wait for it.
//!
//! ```
//! use rimstone_cache::{Cache, Entry};
//!
//! let cache: Cache<Box<[u8]>, String> = Cache::new(1 << 20);
//! let load = || Ok::<_, std::io::Error>(Entry::new("on".to_owned(), 2));
//! let now = 1_000;
//! assert_eq!(cache.get_or_load(&b"flag"[..], now, None, load).unwrap(), "on");
//! assert_eq!(cache.get(&b"flag"[..], now, None).as_deref(), Some("on"));
//!
//! // A writer changes the source first, then the cache, and then tells its own caller.
//! cache.remove(&b"flag"[..]);
//! assert_eq!(cache.get(&b"flag"[..], now, None), None);
//! ```
//!
//! Time is what the caller says it is, in seconds since any epoch. Each read may bring its own
//! `cache_ttl`: it then sees only what was loaded less than that many seconds ago, whatever other
//! readers accept.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "the only indices are those of shards, below their number"
)]

mod fill;
mod shard;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use fill::Fill;
pub use fill::Ticket;
use shard::{Held, Shard};

/// Enough that a few dozen threads seldom meet.
const SHARDS: usize = 64;
/// Far above any memory, and far enough from overflow that sums need no care.
const WEIGHT_MAX: u64 = 1 << 48;

/// A value on its way into the cache.
#[derive(Clone, Debug)]
pub struct Entry<V> {
    value: V,
    weight: u64,
    expiration: Option<u64>,
}

impl<V> Entry<V> {
    /// An entry that does not expire. Its weight is in the unit of [`Cache::new`], mostly bytes.
    #[must_use]
    pub fn new(value: V, weight: u64) -> Entry<V> {
        Entry {
            value,
            weight,
            expiration: None,
        }
    }

    /// Hides the entry from the second `expiration` on.
    #[must_use]
    pub fn expiration(mut self, expiration: u64) -> Entry<V> {
        self.expiration = Some(expiration);
        self
    }

    fn held_since(self, loaded: u64) -> Held<V> {
        Held {
            value: self.value,
            loaded,
            expiration: self.expiration,
        }
    }
}

/// What [`Cache::lookup`] finds.
#[derive(Debug)]
pub enum Lookup<'c, K: Hash + Eq + Clone, V: Clone> {
    /// The value.
    Hit(V),
    /// The right to load the value: no other reader will, until the ticket is used or dropped.
    Miss(Ticket<'c, K, V>),
}

/// A bounded cache. Cloning a key or a value should be cheap, as it is for an `Arc` or `Bytes`.
///
/// A value that says "not there" is a value like any other: use `Option` to cache absence.
#[derive(Debug)]
pub struct Cache<K, V> {
    shards: Box<[Mutex<Shard<K, V>>; SHARDS]>,
    hasher: RandomState,
    /// Changes while the shard is locked whose weight changes.
    weight: AtomicU64,
    /// The shard that evicts next.
    hand: AtomicUsize,
    max_weight: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// A cache whose entries weigh at most `max_weight` together. While an entry is being inserted
    /// its weight may come on top. An entry costs some 200 bytes of memory beyond its key and value,
    /// which its weight should include if the bound is to be one of memory.
    #[must_use]
    pub fn new(max_weight: u64) -> Cache<K, V> {
        Cache {
            shards: Box::new(std::array::from_fn(|_| Mutex::default())),
            hasher: RandomState::new(),
            weight: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
            max_weight: max_weight.min(WEIGHT_MAX),
        }
    }

    /// Returns the value of `key`, or `None` if there is none, if it expired by `now`, or if it was
    /// loaded `cache_ttl` seconds ago or earlier.
    pub fn get<Q>(&self, key: &Q, now: u64, cache_ttl: Option<u64>) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.read(key, now, cache_ttl, V::clone)
    }

    /// Lends what [`get`](Cache::get) returns to `f`, which must be brief and not use the cache: a
    /// part of the cache is locked meanwhile.
    pub fn read<Q, R>(
        &self,
        key: &Q,
        now: u64,
        cache_ttl: Option<u64>,
        f: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shards[self.place(key).0].lock();
        shard.get(key, now, cache_ttl).map(|held| f(&held.value))
    }

    /// Returns the value, or the right to load it. If another reader is loading it, waits for what
    /// that one brings; so a thread that holds a ticket must not look the same key up.
    pub fn lookup<Q>(&self, key: &Q, now: u64, cache_ttl: Option<u64>) -> Lookup<'_, K, V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + ToOwned,
        Q::Owned: Into<K>,
    {
        loop {
            let mut shard = self.shards[self.place(key).0].lock();
            if let Some(held) = shard.get(key, now, cache_ttl) {
                return Lookup::Hit(held.value.clone());
            }
            let Some(fill) = shard.fills.get(key).map(Arc::clone) else {
                let (key, fill): (K, _) = (key.to_owned().into(), Arc::new(Fill::default()));
                shard.fills.insert(key.clone(), Arc::clone(&fill));
                let cache = self;
                return Lookup::Miss(Ticket {
                    cache,
                    key,
                    fill,
                    now,
                });
            };
            drop(shard);
            if let Some(held) = fill.wait().filter(|held| held.is_fresh(now, cache_ttl)) {
                return Lookup::Hit(held.value);
            }
        }
    }

    /// Returns the value, loading it if it is missing; waits if another reader is loading it.
    ///
    /// # Errors
    /// What `load` returns. It is told to this caller only; a reader that waited then loads itself.
    pub fn get_or_load<Q, E>(
        &self,
        key: &Q,
        now: u64,
        cache_ttl: Option<u64>,
        load: impl FnOnce() -> Result<Entry<V>, E>,
    ) -> Result<V, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + ToOwned,
        Q::Owned: Into<K>,
    {
        match self.lookup(key, now, cache_ttl) {
            Lookup::Hit(value) => Ok(value),
            Lookup::Miss(ticket) => {
                let entry = load()?;
                let value = entry.value.clone();
                ticket.insert(entry);
                Ok(value)
            }
        }
    }

    /// Stores a value that was written to the source at `now`, in place of what was held. A load of
    /// the key that is under way will not be stored.
    ///
    /// Two writers of one key must call this in the order of their writes; where nothing orders them,
    /// both should [`remove`](Cache::remove) the key instead.
    pub fn insert(&self, key: K, entry: Entry<V>, now: u64) {
        let weight = entry.weight;
        self.store(key, entry.held_since(now), weight, None);
    }

    /// Forgets `key`: who looks it up from now on is not given what was loaded before. A load of the
    /// key that is under way will not be stored; readers that already wait for it are still given it.
    pub fn remove<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (at, _) = self.place(key);
        drop(self.change(at, |shard| {
            shard.fills.remove(key);
            shard.remove(key)
        }));
    }

    /// Forgets everything, as [`remove`](Cache::remove) does one key. Other threads may see it happen
    /// part by part.
    pub fn clear(&self) {
        for at in 0..SHARDS {
            drop(self.change(at, std::mem::take));
        }
    }

    /// The weight of all entries, those included that expired and were not evicted yet.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Stores a value, that of a load only while the load still stands.
    fn store(&self, key: K, held: Held<V>, weight: u64, load: Option<&Arc<Fill<V>>>) -> bool {
        let (at, hash) = self.place(&key);
        let fits = weight <= self.max_weight;
        let (stored, _dropped_unlocked) = self.change(at, |shard| {
            if load.is_some_and(|load| !shard.is_filling(&key, load)) {
                return (false, None);
            }
            shard.fills.remove(&key);
            if fits {
                (true, shard.insert(key, hash, held, weight))
            } else {
                (false, shard.remove(&key))
            }
        });
        self.shrink(at);
        stored
    }

    /// Lets other readers load `key`, if this load still stands.
    fn give_up(&self, key: &K, load: &Arc<Fill<V>>) {
        let (at, _) = self.place(key);
        let mut shard = self.shards[at].lock();
        if shard.is_filling(key, load) {
            shard.fills.remove(key);
        }
    }

    /// Evicts until the weight is within its bound: from the next shard above its share; if there is
    /// none, from the next that holds anything; from the one that just took an entry in only if
    /// nothing else is left. The bound is that of the whole cache, not of a shard, since a shard's
    /// share would be too small for a large value.
    fn shrink(&self, own: usize) {
        let share = self.max_weight / SHARDS as u64;
        let mut idle = 0;
        while self.weight() > self.max_weight {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let evicted = self.change(at, |shard| {
                let turn = match idle / SHARDS {
                    0 => at != own && shard.weight() > share,
                    1 => at != own,
                    _ => true,
                };
                let hash = |key: &K| self.hasher.hash_one(key);
                if turn { shard.evict(hash) } else { None }
            });
            idle = if evicted.is_some() && at != own {
                0
            } else {
                idle + 1
            };
        }
    }

    /// Applies a change to a shard and to the weight of the whole. What it returns, evicted values
    /// among it, is dropped by the caller when nothing is locked.
    fn change<R>(&self, at: usize, change: impl FnOnce(&mut Shard<K, V>) -> R) -> R {
        let mut shard = self.shards[at].lock();
        let before = shard.weight();
        let result = change(&mut shard);
        match shard.weight().checked_sub(before) {
            Some(more) => self.weight.fetch_add(more, Ordering::Relaxed),
            None => self
                .weight
                .fetch_sub(before - shard.weight(), Ordering::Relaxed),
        };
        result
    }

    /// The shard of a key, and its hash.
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> (usize, u64) {
        let hash = self.hasher.hash_one(key);
        ((hash >> 32) as usize % SHARDS, hash)
    }
}
