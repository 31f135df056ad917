//! A source in the same process: it can be asked, and written, while its key is locked.
//!
//! That is stronger than telling the cache afterwards. An entry is held only while the source has what
//! the entry was read from, so nobody who saw a write is given what was there before it, acknowledged or
//! not; and no ticket is needed, however long a read takes.

use crate::{Cache, Key, Value};

impl Cache {
    /// Stores what was read from the source if `is_current` says that the source still has it, and
    /// returns whether it did. The key is locked meanwhile, so `is_current` must be brief and not use the
    /// cache. Every write of the source goes through [`invalidate_with`](Cache::invalidate_with).
    ///
    /// # Panics
    /// If the entry would take 4 GiB or more.
    pub fn insert_if<'k>(
        &self,
        key: impl Into<Key<'k>>,
        value: Value<'_>,
        is_current: impl FnOnce() -> bool,
    ) -> bool {
        let key = key.into();
        let (hash, generation) = (self.hash(key), self.generation(key.namespace));
        let entry = self.newcomer(hash, key, value, self.now(), generation);
        let stored = self.store_by(hash, |shard, gone| match is_current() {
            true => self.put(shard, hash, entry, None, gone),
            false => Err(entry),
        });
        if !stored {
            self.0.counters.refuse();
        }
        stored
    }

    /// Forgets `key` and writes it at the source by `write`, whose result it returns. The key is locked
    /// meanwhile: who is given the old value asked before the write, and who asks later is not. `write`
    /// must be brief and not use the cache.
    pub fn invalidate_with<'k, R>(&self, key: impl Into<Key<'k>>, write: impl FnOnce() -> R) -> R {
        let key = key.into();
        let hash = self.hash(key);
        let (gone, written) = self.change(hash, |shard| {
            shard.fills.remove(hash, key);
            (shard.remove(hash, key), write())
        });
        self.farewell(gone);
        written
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;

    use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use shuttle::thread;

    use crate::schedules::explore;
    use crate::{Cache, Clock, Value};

    const KEY: &[u8] = b"key";

    struct Node {
        cache: Cache,
        source: AtomicU64,
        /// The newest version that a reader was given or a writer was told is written.
        seen: AtomicU64,
    }

    impl Node {
        fn read(&self) -> u64 {
            let version = |entry: &crate::Entry| entry.version();
            if let Some(version) = self.cache.get_with(KEY, None, version) {
                return version;
            }
            let read = self.source.load(SeqCst);
            let value = Value::from("value").version(read);
            let is_current = || self.source.load(SeqCst) == read;
            self.cache.insert_if(KEY, value, is_current);
            read
        }

        /// One read in two does not use the cache at all.
        fn read_some_way(&self, way: u64) -> u64 {
            if way.is_multiple_of(2) {
                self.read()
            } else {
                self.source.load(SeqCst)
            }
        }

        fn write(&self, version: u64) {
            let write = || self.source.store(version, SeqCst);
            self.cache.invalidate_with(KEY, write);
            self.seen.fetch_max(version, SeqCst);
        }
    }

    /// With a budget for no entry but this one, or for none: then each is evicted at once.
    fn explore_with(max_weight: u64) {
        explore(move || {
            let builder = Cache::builder(max_weight).max_entry_weight(max_weight);
            let node = Arc::new(Node {
                cache: builder.shards(2).clock(Clock::manual(1)).build(),
                source: AtomicU64::new(1),
                seen: AtomicU64::new(1),
            });
            let mut threads = Vec::new();
            for reader in 0..2 {
                let node = Arc::clone(&node);
                threads.push(thread::spawn(move || {
                    for n in 0..3 {
                        let floor = node.seen.load(SeqCst);
                        let read = node.read_some_way(reader + n);
                        assert!(read >= floor, "{read} after {floor}");
                        node.seen.fetch_max(read, SeqCst);
                    }
                }));
            }
            (2..=3).for_each(|version| node.write(version));
            assert_eq!(node.read(), 3);
            for thread in threads {
                thread.join().expect("a reader");
            }
            assert_eq!(node.read(), 3);
            node.cache.validate();
        });
    }

    #[test]
    fn nobody_reads_what_somebody_saw_replaced() {
        explore_with(1 << 20);
    }

    #[test]
    fn nor_while_entries_are_evicted() {
        explore_with(200);
    }

    #[test]
    fn what_expired_leaves_as_others_come() {
        explore(|| {
            let clock = Clock::manual(1);
            let builder = Cache::builder(1 << 20).shards(1).clock(clock.clone());
            let cache = builder.build();
            cache.insert_if(KEY, Value::from("brief").expiration(5), || true);
            clock.set(100);
            for n in 0..100u8 {
                cache.insert_if(&[n][..], Value::from("on"), || true);
            }
            assert_eq!((cache.len(), cache.stats().expired), (100, 1));
        });
    }

    #[test]
    fn what_the_source_no_longer_has_is_not_stored() {
        explore(|| {
            let cache = Cache::with_max_weight(1 << 20);
            assert!(!cache.insert_if(KEY, Value::from("old"), || false));
            assert!(cache.insert_if(KEY, Value::from("on"), || true));
            assert_eq!(cache.invalidate_with(KEY, || 7), 7);
            assert!(cache.is_empty());
            assert_eq!(cache.stats().refused, 1);
        });
    }
}
