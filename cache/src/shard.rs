//! The sequential core of a part of the cache: the entries, the order in which they leave, and the
//! loads that are under way.
//!
//! Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: *FIFO queues are all you need for cache
//! eviction*, SOSP 2023). A new key enters the *small* queue, which is kept at a tenth of the weight.
//! At its end a key that was read meanwhile goes over to the *main* queue; another leaves, and its
//! hash is remembered as a *ghost*. A key that comes while its ghost is remembered enters the main
//! queue at once. At the end of the main queue a key that was read is put back to the start, with
//! one read less to its credit. A scan of keys that are read once so passes through a tenth of the
//! cache and leaves the rest alone; a hit only counts, and moves nothing.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use crate::fill::Fill;

/// Reads that are remembered of a key, as in the paper.
const READS_MAX: u8 = 3;
/// The small queue gives way while it has more than one part in this many of the weight.
const SMALL_SHARE: u64 = 10;

/// A value and how long it may be served.
#[derive(Clone, Debug)]
pub(crate) struct Held<V> {
    pub(crate) value: V,
    pub(crate) loaded: u64,
    pub(crate) expiration: Option<u64>,
}

impl<V> Held<V> {
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expiration.is_some_and(|expiration| expiration <= now)
    }

    pub(crate) fn is_fresh(&self, now: u64, cache_ttl: Option<u64>) -> bool {
        let young = |ttl| now.saturating_sub(self.loaded) < ttl;
        !self.is_expired(now) && cache_ttl.is_none_or(young)
    }
}

#[derive(Debug)]
struct Slot<V> {
    held: Held<V>,
    weight: u64,
    reads: u8,
    small: bool,
    /// Tells this stay of the key from earlier ones, of which the queues may still hold a trace.
    stay: u64,
}

/// A part of the cache.
#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    slots: HashMap<K, Slot<V>>,
    pub(crate) fills: HashMap<K, Arc<Fill<V>>>,
    small: VecDeque<(K, u64)>,
    main: VecDeque<(K, u64)>,
    small_weight: u64,
    weight: u64,
    ghosts: VecDeque<u64>,
    remembered: HashSet<u64>,
    stays: u64,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Shard<K, V> {
        Shard {
            slots: HashMap::new(),
            fills: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_weight: 0,
            weight: 0,
            ghosts: VecDeque::new(),
            remembered: HashSet::new(),
            stays: 0,
        }
    }
}

impl<K: Hash + Eq + Clone, V> Shard<K, V> {
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The value of `key` as a reader at `now` may see it; counts the read.
    pub(crate) fn get<Q>(&mut self, key: &Q, now: u64, cache_ttl: Option<u64>) -> Option<&Held<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.slots.get_mut(key)?;
        if !slot.held.is_fresh(now, cache_ttl) {
            return None;
        }
        slot.reads = READS_MAX.min(slot.reads + 1);
        Some(&slot.held)
    }

    /// Whether `load` is the load of `key` that stands.
    pub(crate) fn is_filling(&self, key: &K, load: &Arc<Fill<V>>) -> bool {
        let standing = self.fills.get(key);
        standing.is_some_and(|standing| Arc::ptr_eq(standing, load))
    }

    /// Takes in a value and returns the one it replaced. A key that is already held keeps its place.
    pub(crate) fn insert(&mut self, key: K, hash: u64, held: Held<V>, weight: u64) -> Option<V> {
        self.weight += weight;
        if let Some(slot) = self.slots.get_mut(&key) {
            self.weight -= slot.weight;
            if slot.small {
                self.small_weight = self.small_weight - slot.weight + weight;
            }
            slot.weight = weight;
            return Some(std::mem::replace(&mut slot.held, held).value);
        }
        self.stays += 1;
        let (stay, small) = (self.stays, !self.remembered.remove(&hash));
        let queue = if small {
            &mut self.small
        } else {
            &mut self.main
        };
        queue.push_back((key.clone(), stay));
        self.small_weight += if small { weight } else { 0 };
        let slot = Slot {
            held,
            weight,
            reads: 0,
            small,
            stay,
        };
        self.slots.insert(key, slot);
        None
    }

    /// Takes out `key` and returns its value.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.slots.remove(key)?;
        self.weight -= slot.weight;
        self.small_weight -= if slot.small { slot.weight } else { 0 };
        self.sweep();
        Some(slot.held.value)
    }

    /// Takes out the entry whose turn it is and returns its value; `None` if nothing is held.
    pub(crate) fn evict(&mut self, hash: impl Fn(&K) -> u64) -> Option<V> {
        loop {
            let from_small = self.small_weight > self.weight / SMALL_SHARE || self.main.is_empty();
            let queue = if from_small {
                &mut self.small
            } else {
                &mut self.main
            };
            let (key, stay) = queue.pop_front()?;
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.stay == stay) else {
                continue;
            };
            if slot.reads > 0 {
                slot.reads = if slot.small { 0 } else { slot.reads - 1 };
                self.small_weight -= if slot.small { slot.weight } else { 0 };
                slot.small = false;
                self.main.push_back((key, stay));
                continue;
            }
            if slot.small {
                self.remember(hash(&key));
            }
            return self.remove(&key);
        }
    }

    /// Remembers as many ghosts as there are entries.
    fn remember(&mut self, hash: u64) {
        if self.remembered.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.slots.len() {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.remembered.remove(&oldest);
            }
        }
    }

    /// Drops the traces that removed entries left in the queues, once they are the greater part.
    fn sweep(&mut self) {
        let slots = &self.slots;
        if self.small.len() + self.main.len() > 2 * slots.len() + 16 {
            let held = |(key, stay): &(K, u64)| slots.get(key).is_some_and(|s| s.stay == *stay);
            self.small.retain(held);
            self.main.retain(held);
        }
    }

    /// Checks what always holds.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let small = self.slots.values().filter(|slot| slot.small);
        assert_eq!(self.small_weight, small.map(|slot| slot.weight).sum());
        assert_eq!(
            self.weight,
            self.slots.values().map(|slot| slot.weight).sum()
        );
        for (key, slot) in &self.slots {
            let queue = if slot.small { &self.small } else { &self.main };
            let places = queue
                .iter()
                .filter(|(k, stay)| k == key && *stay == slot.stay);
            assert_eq!(places.count(), 1);
        }
        assert!(self.small.len() + self.main.len() <= 2 * self.slots.len() + 16);
        assert!(self.remembered.len() <= self.ghosts.len());
    }
}
