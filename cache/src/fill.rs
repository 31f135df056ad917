//! A load that is under way: who may bring its value, and who waits for it.

use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::shard::Held;
use crate::{Cache, Entry};

/// One load of one key. It stands in its shard until it ends or the key is written; a write takes it
/// out, and a load that no longer stands there is not stored.
#[derive(Debug)]
pub(crate) struct Fill<V> {
    /// `None` while it runs, `Some(None)` if it ended without a value.
    outcome: Mutex<Option<Option<Held<V>>>>,
    ended: Condvar,
}

impl<V> Default for Fill<V> {
    fn default() -> Fill<V> {
        Fill {
            outcome: Mutex::new(None),
            ended: Condvar::new(),
        }
    }
}

impl<V: Clone> Fill<V> {
    /// What the load brought, once it has ended.
    pub(crate) fn wait(&self) -> Option<Held<V>> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(held) => return held.clone(),
                None => self.ended.wait(&mut outcome),
            }
        }
    }

    /// Ends the load; the first outcome stays.
    fn end(&self, held: Option<Held<V>>) {
        self.outcome.lock().get_or_insert(held);
        self.ended.notify_all();
    }
}

/// The right to load one key, taken at the miss. Dropping it lets another reader load.
#[derive(Debug)]
#[must_use = "other readers of the key wait until the ticket is used or dropped"]
pub struct Ticket<'c, K: Hash + Eq + Clone, V: Clone> {
    pub(crate) cache: &'c Cache<K, V>,
    pub(crate) key: K,
    pub(crate) fill: Arc<Fill<V>>,
    pub(crate) now: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Ticket<'_, K, V> {
    /// Hands in what was loaded, gives it to those who wait, and returns whether it was stored: not
    /// if the key was inserted or removed since the ticket was taken, and not if the entry is heavier
    /// than the cache. Its age counts from when the ticket was taken.
    pub fn insert(self, entry: Entry<V>) -> bool {
        let weight = entry.weight;
        let held = entry.held_since(self.now);
        let (key, load) = (self.key.clone(), Some(&self.fill));
        let stored = self.cache.store(key, held.clone(), weight, load);
        self.fill.end(Some(held));
        stored
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Drop for Ticket<'_, K, V> {
    fn drop(&mut self) {
        self.cache.give_up(&self.key, &self.fill);
        self.fill.end(None);
    }
}
