//! The cache: shards under locks, and one budget for all of them.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use crate::builder::{Builder, Settings};
use crate::clock::{Seconds, after};
use crate::key::Hasher;
use crate::pages::Pages;
use crate::room::Budget;
use crate::shard::{Ahead, Shard, half};
use crate::stats::{Counters, Read};
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::{Arc, RwLock, RwLockWriteGuard};
use crate::value::Life;
use crate::{Clock, Entry, Key, Stats, Value};

/// Counters of generations, among which namespaces are spread. Forgetting one namespace also forgets
/// those that share its counter.
const GENERATIONS: usize = if cfg!(feature = "loom") { 2 } else { 1024 };

/// A bounded cache of bytes. A clone is another handle of the same cache.
#[derive(Clone)]
pub struct Cache(pub(crate) Arc<Inner>);

/// On lines of memory of its own.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Apart<T>(pub(crate) T);

/// A lock and what others may know of its shard without it.
#[derive(Default)]
pub(crate) struct Locked {
    shard: RwLock<Shard>,
    /// The bits of its age, as it was when the shard was last written.
    pub(crate) age: AtomicU64,
    pub(crate) ahead: Ahead,
}

pub(crate) struct Inner {
    pub(crate) shards: Box<[Apart<Locked>]>,
    hasher: Hasher,
    pub(crate) settings: Settings,
    generations: Box<[AtomicU32]>,
    pub(crate) counters: Counters,
    pages: Pages,
    pub(crate) budget: Apart<Budget>,
}

impl Locked {
    pub(crate) fn read(&self) -> crate::sync::RwLockReadGuard<'_, Shard> {
        self.shard.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Shard> {
        self.shard.write()
    }
}

impl Cache {
    /// A cache of at most `max_weight` bytes with what else can be chosen as it is by default.
    #[must_use]
    pub fn with_max_weight(max_weight: u64) -> Cache {
        Cache::builder(max_weight).build()
    }

    /// Begins a cache of at most `max_weight` bytes: keys, values, metadata, and 144 bytes with each
    /// entry for tables and counts; 8 more with a version, and 32 more if the value stays the `Bytes` that
    /// it came in. An entry that is being stored may come on top of it.
    pub fn builder(max_weight: u64) -> Builder {
        Builder::new(max_weight)
    }

    pub(crate) fn new(max_weight: u64, max_entry: u64, shards: usize, settings: Settings) -> Cache {
        Cache(Arc::new(Inner {
            shards: std::iter::repeat_with(Apart::default)
                .take(shards)
                .collect(),
            hasher: Hasher::default(),
            settings,
            generations: (0..GENERATIONS).map(|_| AtomicU32::new(0)).collect(),
            counters: Counters::default(),
            pages: Pages::new(max_weight),
            budget: Apart(Budget::new(max_weight, max_entry)),
        }))
    }

    /// Returns the entry of `key` if it is fresh, and `None` if there is none or it is not. The entry
    /// may say that there is [no such key](Entry::is_absent).
    ///
    /// With a `cache_ttl`, fresh is what was put or fetched less than so many seconds ago, whatever
    /// other readers accept; without, what is younger than its own ttl.
    #[inline]
    #[must_use]
    pub fn get<'k>(&self, key: impl Into<Key<'k>>, cache_ttl: Option<Duration>) -> Option<Entry> {
        self.get_with(key, cache_ttl, Entry::clone)
    }

    /// Lends what [`get`](Cache::get) returns to `f`, in place: nothing is copied or counted. `f`
    /// must be brief and not use the cache: a part of it cannot be written meanwhile.
    #[inline]
    pub fn get_with<'k, R>(
        &self,
        key: impl Into<Key<'k>>,
        cache_ttl: Option<Duration>,
        f: impl FnOnce(&Entry) -> R,
    ) -> Option<R> {
        let key = key.into();
        let hash = self.hash(key);
        let locked = self.shard(hash);
        locked.ahead.prefetch_read(hash);
        let shard = locked.read();
        let found = shard.find(hash, key);
        let found = found.filter(|entry| self.is_fresh(entry, cache_ttl));
        let Some(entry) = found else {
            drop(shard);
            self.count(Read::Miss);
            return None;
        };
        self.touch(entry, cache_ttl);
        self.count(if entry.is_absent() {
            Read::Negative
        } else {
            Read::Hit
        });
        Some(f(entry))
    }

    /// Returns what [`get`](Cache::get) would, but leaves no trace: the entry is not kept for longer.
    #[must_use]
    pub fn peek<'k>(&self, key: impl Into<Key<'k>>, cache_ttl: Option<Duration>) -> Option<Entry> {
        let key = key.into();
        let hash = self.hash(key);
        let shard = self.shard(hash).read();
        let found = shard.find(hash, key);
        let fresh = found.filter(|entry| self.is_fresh(entry, cache_ttl));
        fresh.cloned()
    }

    /// Whether [`get`](Cache::get) would return an entry. Leaves no trace.
    #[must_use]
    pub fn contains_key<'k>(&self, key: impl Into<Key<'k>>, cache_ttl: Option<Duration>) -> bool {
        self.peek(key, cache_ttl).is_some()
    }

    /// Stores a value that was written to the source, in place of what was held, and returns whether
    /// it did: not if a newer version is known, or if it is too heavy; then nothing older is held
    /// either. A fetch of the key that is under way will not be stored.
    ///
    /// Two writers of one key must call this in the order of their writes. Where nothing orders them,
    /// values need [versions](Value::version), or both [`invalidate`](Cache::invalidate) the key.
    ///
    /// # Panics
    /// If the entry would take 4 GiB or more.
    pub fn insert<'k>(&self, key: impl Into<Key<'k>>, value: Value<'_>) -> bool {
        let key = key.into();
        let (hash, generation) = (self.hash(key), self.generation(key.namespace));
        let entry = self.newcomer(hash, key, value, self.now(), generation);
        self.store(hash, entry, None)
    }

    /// Forgets `key`: who asks from now on is not given what was there before. A fetch of the key that
    /// is under way will not be stored; those who already wait for it are still given its value.
    pub fn invalidate<'k>(&self, key: impl Into<Key<'k>>) {
        let key = key.into();
        let hash = self.hash(key);
        let gone = self.change(hash, |shard| {
            shard.fills.remove(hash, key);
            shard.remove(hash, key)
        });
        self.farewell(gone);
    }

    /// Forgets what is older than `version` of `key`, and refuses it for as long as a fetch may take:
    /// a source that lags behind cannot bring it back. A value without a version counts as older.
    pub fn invalidate_version<'k>(&self, key: impl Into<Key<'k>>, version: u64) {
        let key = key.into();
        let (hash, now) = (self.hash(key), self.now());
        let until = after(now, Some(self.0.settings.fill_timeout));
        let gone = self.change(hash, |shard| {
            shard.floors.raise(hash, version, until, now);
            shard.fills.remove(hash, key);
            let held = shard.find(hash, key)?;
            let older = held.version() < version;
            older.then(|| shard.remove(hash, key)).flatten()
        });
        self.farewell(gone);
    }

    /// Forgets all keys of a namespace, in no time: they are not looked for, but no longer served. One
    /// namespace in a thousand is forgotten with it.
    pub fn invalidate_namespace(&self, namespace: u32) {
        self.generation_of(namespace).fetch_add(1, Release);
    }

    /// Forgets everything, as [`invalidate`](Cache::invalidate) does one key. Other threads may see it
    /// happen part by part.
    pub fn clear(&self) {
        for at in 0..self.0.shards.len() {
            let gone = self.change(at as u64, |shard| {
                shard.fills.clear();
                shard.clear()
            });
            self.farewell(gone);
        }
    }

    /// Entries held, those included that are no longer served.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locks().map(|locked| locked.read().len()).sum()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What happened so far, and what is held.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.len() as u64,
            weight: self.weight(),
            ..self.0.counters.stats()
        }
    }

    /// At most `count` entries that are read most, hottest first: to fetch them ahead of time, or to
    /// warm another cache. Looks at every entry.
    #[must_use]
    pub fn hottest(&self, count: usize) -> Vec<Entry> {
        let mut hottest = Vec::new();
        for locked in self.locks() {
            let shard = locked.read();
            for (entry, frequency) in shard.iter() {
                if self.is_fresh(entry, None) {
                    hottest.push((frequency, entry.clone()));
                }
            }
            drop(shard);
            hottest.sort_by_key(|(frequency, _)| std::cmp::Reverse(*frequency));
            hottest.truncate(count);
        }
        hottest.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The clock it goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.settings.clock
    }

    #[inline]
    pub(crate) fn now(&self) -> Seconds {
        self.0.settings.clock.seconds()
    }

    #[inline]
    pub(crate) fn hash(&self, key: Key<'_>) -> u64 {
        self.0.hasher.hash(key)
    }

    fn locks(&self) -> impl Iterator<Item = &Locked> {
        self.0.shards.iter().map(|Apart(locked)| locked)
    }

    /// The shard of a hash, chosen by bits that the shard itself does not use.
    #[allow(
        clippy::indexing_slicing,
        reason = "the number of shards is a power of two"
    )]
    #[inline]
    pub(crate) fn shard(&self, hash: u64) -> &Locked {
        let Apart(locked) = &self.0.shards[self.place(hash)];
        locked
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "below the number of shards"
    )]
    #[inline]
    fn place(&self, hash: u64) -> usize {
        ((hash >> 32 ^ hash) & (self.0.shards.len() as u64 - 1)) as usize
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "the rest of a division by their number"
    )]
    fn generation_of(&self, namespace: u32) -> &AtomicU32 {
        &self.0.generations[namespace as usize % GENERATIONS]
    }

    pub(crate) fn generation(&self, namespace: u32) -> u32 {
        self.generation_of(namespace).load(Acquire)
    }

    pub(crate) fn count(&self, read: Read) {
        self.0.counters.read(read);
    }

    /// An entry on its way into a shard.
    pub(crate) fn newcomer(
        &self,
        hash: u64,
        key: Key<'_>,
        value: Value<'_>,
        fetched: Seconds,
        generation: u32,
    ) -> Entry {
        let negative = value.is_absent().then_some(self.0.settings.negative_ttl);
        let ttl = value.own_ttl().or(negative);
        let ahead = &self.shard(hash).ahead;
        ahead.prefetch_write(hash);
        let ttl = ttl.map(|ttl| {
            let early = ttl.as_secs_f64() * self.0.settings.jitter;
            ttl - Duration::from_secs(spread(hash, early))
        });
        let fresh_until = after(fetched, ttl);
        let life = Life {
            fetched,
            fresh_until,
            kept_until: self.kept_until(fresh_until, value.own_expiration()),
            generation,
            hash: half(hash),
        };
        let entry = Entry(value.into_block(key, life));
        let tables = || ahead.lines(hash);
        self.0.pages.look(hash, entry.0.address(), tables);
        entry
    }

    /// Checks what always holds, looking at everything.
    ///
    /// # Panics
    /// If it does not.
    #[doc(hidden)]
    pub fn validate(&self) {
        let guards: Vec<_> = self.locks().map(Locked::write).collect();
        let weigh = |shard: &RwLockWriteGuard<'_, Shard>| {
            shard.validate();
            shard.weight()
        };
        assert_eq!(guards.iter().map(weigh).sum::<u64>(), self.weight());
    }
}

/// A number of seconds up to `most` that depends on the key.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a time that long is cut short, not wrong"
)]
fn spread(hash: u64, most: f64) -> u64 {
    match most as u64 {
        0 => 0,
        most => (hash >> 8) % (most + 1),
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Cache");
        debug.field("weight", &self.weight());
        debug.field("max_weight", &self.max_weight());
        debug.finish_non_exhaustive()
    }
}
