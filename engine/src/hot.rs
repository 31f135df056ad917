//! The hot cache in front of the index: verified copies of entries that are read often.
//!
//! A store without one answers the same. An entry is held only while the table points to the record that
//! it was copied from: it is copied in if the table still does while its key is locked in the cache, and
//! whoever changes the table does that, and throws the entry out, under the same lock. A move by compaction
//! changes neither bytes nor generation, so it leaves the entry alone. Copies pin no segment.

use rimstone_cache::{Cache, Key, Value};

use crate::admission::{Admission, Way};
use crate::entry::EntryRef;
use crate::options::ReadOptions;

/// An entry takes at most this part of the budget.
const ENTRY_PART: u64 = 8;
const _: () = assert!(ENTRY_PART > 1, "one entry does not fill it");

/// The cache of an open store.
pub(crate) struct Hot {
    cache: Cache,
    clock: rimstone_cache::Clock,
    admission: Admission,
    budget: u64,
}

impl Hot {
    /// A cache of so many bytes; none of no bytes.
    pub(crate) fn of(budget: u64, now: u64) -> Option<Hot> {
        let clock = rimstone_cache::Clock::manual(now);
        let builder = Cache::builder(budget).max_entry_weight(budget / ENTRY_PART);
        (budget > 0).then(|| Hot {
            cache: builder.clock(clock.clone()).build(),
            clock,
            admission: Admission::default(),
            budget,
        })
    }

    /// Begins a read of a key at a time.
    pub(crate) fn begin<'r>(
        &'r self,
        key: Key<'r>,
        options: &'r ReadOptions,
        now: u64,
    ) -> HotRead<'r> {
        // One who finds it behind moves it, once a second.
        if self.clock.now() < now {
            self.clock.set(now);
        }
        let way = match options.cache_ttl {
            Some(_) => Way::asked_for(),
            None => self.admission.way(),
        };
        HotRead {
            hot: self,
            key,
            options,
            way,
        }
    }

    /// Changes what the table has for a key, by `change`.
    pub(crate) fn change<R>(&self, key: Key<'_>, change: impl FnOnce() -> R) -> R {
        self.cache.invalidate_with(key, change)
    }

    /// Forgets a namespace that was dropped.
    pub(crate) fn forget(&self, namespace: u32) {
        self.cache.invalidate_namespace(namespace);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let stats = self.cache.stats();
        CacheStats {
            hits: stats.hits,
            misses: stats.misses,
            entries: stats.entries,
            bytes: stats.weight,
            evicted: stats.evicted,
            refused: stats.refused,
            plain_reads: self.admission.uses(),
        }
    }

    fn is_full(&self) -> bool {
        debug_assert!(self.budget > 0, "without a budget there is no cache");
        self.cache.weight() >= self.budget - self.budget / ENTRY_PART
    }
}

/// One read and the part that the cache has in it.
pub(crate) struct HotRead<'r> {
    hot: &'r Hot,
    key: Key<'r>,
    options: &'r ReadOptions,
    way: Way,
}

impl HotRead<'_> {
    /// The entry, if it is held and fresh enough. It is a handle and no loan: who lends it to others must
    /// not keep a part of the cache from being written meanwhile. `is_there` tells of its generation
    /// whether the reader may see it.
    pub(crate) fn get(&self, is_there: impl FnOnce(u64) -> bool) -> Option<rimstone_cache::Entry> {
        let ttl = self.options.cache_ttl;
        let found = self.way.asks().then(|| self.hot.cache.get(self.key, ttl))?;
        let found = found.filter(|entry| is_there(entry.version()));
        if found.is_some() {
            self.end();
        }
        found
    }

    /// Copies in what was read, if the table still points to it.
    pub(crate) fn fill(&self, entry: EntryRef<'_>, is_current: impl FnOnce() -> bool) {
        let len = (self.key.name.len() + entry.metadata.len()).saturating_add(entry.value.len());
        let room = self.hot.budget / ENTRY_PART;
        let fits = u64::try_from(len).is_ok_and(|len| len < room);
        // The cache's clock ends with 32 bits of seconds, the last of which is never.
        let expiration = u32::try_from(entry.expiration);
        let expiration = expiration.ok().filter(|at| *at != u32::MAX);
        let fills = self.way.fills() || (self.is_asked_for() && !self.hot.is_full());
        if let (true, true, Some(expiration)) = (fills, fits, expiration) {
            let value = Value::from(entry.value).metadata(entry.metadata);
            let value = value.version(entry.generation);
            let value = match expiration {
                0 => value,
                at => value.expiration(at.into()),
            };
            let value = match self.options.cache_ttl {
                Some(ttl) => value.ttl(ttl),
                None => value,
            };
            self.hot.cache.insert_if(self.key, value, is_current);
        }
        self.end();
    }

    /// Whether the reader wants the entry held. It comes in at once while there is room.
    fn is_asked_for(&self) -> bool {
        self.options.cache_ttl.is_some()
    }

    /// Ends a read that found nothing. That is not noted in the cache: the table, which is always in memory,
    /// tells it as fast.
    pub(crate) fn end(&self) {
        self.hot.admission.end(&self.way, || self.hot.is_full());
    }
}

/// Lends an entry of the cache.
pub(crate) fn lend(entry: &rimstone_cache::Entry) -> EntryRef<'_> {
    EntryRef {
        value: entry.value(),
        metadata: entry.metadata(),
        expiration: entry.expiration().unwrap_or(0),
        generation: entry.version(),
        cache_status: CacheStatus::Hit,
    }
}

/// What the hot cache had to do with a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheStatus {
    /// The store has none.
    #[default]
    Off,
    /// It gave a verified copy.
    Hit,
    /// It had none, or was not asked since that does not pay at the moment.
    Miss,
}

/// Numbers about the hot cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that asked it in vain. One that had to go on where it may wait for the disk counts twice.
    pub misses: u64,
    /// Entries that it holds.
    pub entries: u64,
    /// Bytes that they take of the budget.
    pub bytes: u64,
    /// Entries that made room for others.
    pub evicted: u64,
    /// Entries that were not stored, since they were overwritten while they were read, or too large.
    pub refused: u64,
    /// Whether reads without a `cache_ttl` use it at the moment, since it was measured that they gain.
    pub plain_reads: bool,
}
