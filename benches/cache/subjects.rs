//! The caches whose calls are timed, behind one interface: keys of 17 bytes, values of 100.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foyer_memory::{CacheBuilder, LfuConfig, S3FifoConfig};
use rimstone_cache::{Cache, Entry, Value};

pub const VALUE: usize = 100;
const TTL: Duration = Duration::from_secs(3600);
/// What ours counts for an entry, so that the same number fits.
const WEIGHT: u64 = (96 + 48 + 17 + VALUE) as u64;

/// `user:` and twelve digits.
pub type Key = [u8; 17];

pub fn key(id: u64) -> Key {
    let text = format!("user:{id:012}");
    text.as_bytes().try_into().expect("17 bytes")
}

/// A cache under test. `read` looks at the first and the last byte of the value.
pub trait Subject: Send + Sync {
    fn read(&self, key: &Key) -> bool;
    fn insert(&self, key: &Key, value: &[u8]);
}

/// What a caller does at least with a value.
fn touch(value: &[u8]) -> bool {
    black_box((value.first(), value.last()));
    true
}

struct Lent(Cache);
struct Owned(Cache);
/// With a freshness limit of the reader.
struct Limited(Cache);

impl Subject for Lent {
    fn read(&self, key: &Key) -> bool {
        let read = |entry: &Entry| touch(entry.value());
        self.0.get_with(key, None, read).is_some()
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(key, Value::from(value));
    }
}

impl Subject for Owned {
    fn read(&self, key: &Key) -> bool {
        self.0
            .get(key, None)
            .is_some_and(|entry| touch(entry.value()))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(key, Value::from(value));
    }
}

impl Subject for Limited {
    fn read(&self, key: &Key) -> bool {
        let read = |entry: &Entry| touch(entry.value());
        self.0.get_with(key, Some(TTL), read).is_some()
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(key, Value::from(value).ttl(TTL));
    }
}

type Name = Box<[u8]>;

fn name(key: &Key) -> Name {
    key.as_slice().into()
}

struct Quick(quick_cache::sync::Cache<Name, Bytes>);

impl Subject for Quick {
    fn read(&self, key: &Key) -> bool {
        self.0.get(&key[..]).is_some_and(|value| touch(&value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(name(key), Bytes::copy_from_slice(value));
    }
}

/// Keys of 8 bytes in the table itself: quick_cache's best case, and ours with as long a key.
struct QuickNumbers(quick_cache::sync::Cache<u64, Bytes>);
struct Numbers(Cache);

fn number(key: &Key) -> u64 {
    key.iter()
        .skip(5)
        .fold(0, |n, digit| 10 * n + u64::from(digit - b'0'))
}

impl Subject for QuickNumbers {
    fn read(&self, key: &Key) -> bool {
        self.0.get(&number(key)).is_some_and(|value| touch(&value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(number(key), Bytes::copy_from_slice(value));
    }
}

impl Subject for Numbers {
    fn read(&self, key: &Key) -> bool {
        let read = |entry: &Entry| touch(entry.value());
        self.0
            .get_with(&number(key).to_le_bytes(), None, read)
            .is_some()
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0
            .insert(&number(key).to_le_bytes(), Value::from(value));
    }
}

/// quick_cache with a deadline in the value, looked at by hand.
struct QuickTtl(quick_cache::sync::Cache<Name, (Bytes, Instant)>);

impl Subject for QuickTtl {
    fn read(&self, key: &Key) -> bool {
        let fresh = |(value, until): (Bytes, Instant)| Instant::now() < until && touch(&value);
        self.0.get(&key[..]).is_some_and(fresh)
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        let until = Instant::now() + TTL;
        self.0
            .insert(name(key), (Bytes::copy_from_slice(value), until));
    }
}

struct Moka(moka::sync::Cache<Name, Bytes>);

/// An end for each entry.
struct PerEntry;

impl moka::Expiry<Name, Bytes> for PerEntry {
    fn expire_after_create(&self, _: &Name, _: &Bytes, _: Instant) -> Option<Duration> {
        Some(TTL)
    }
}

impl Subject for Moka {
    fn read(&self, key: &Key) -> bool {
        self.0.get(&key[..]).is_some_and(|value| touch(&value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(name(key), Bytes::copy_from_slice(value));
    }
}

struct MiniMoka(mini_moka::sync::Cache<Name, Bytes>);

impl Subject for MiniMoka {
    fn read(&self, key: &Key) -> bool {
        self.0
            .get(&Box::from(&key[..]))
            .is_some_and(|value| touch(&value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        self.0.insert(name(key), Bytes::copy_from_slice(value));
    }
}

struct Foyer(foyer_memory::Cache<Name, Bytes>);

impl Subject for Foyer {
    fn read(&self, key: &Key) -> bool {
        self.0
            .get(&key[..])
            .is_some_and(|entry| touch(entry.value()))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        drop(self.0.insert(name(key), Bytes::copy_from_slice(value)));
    }
}

/// No bound, no policy; in place and as a handle.
struct Map(RwLock<HashMap<Name, Bytes>>);
struct MapOwned(RwLock<HashMap<Name, Bytes>>);

impl Subject for Map {
    fn read(&self, key: &Key) -> bool {
        let map = self.0.read().expect("a lock");
        map.get(&key[..]).is_some_and(|value| touch(value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        let mut map = self.0.write().expect("a lock");
        map.insert(name(key), Bytes::copy_from_slice(value));
    }
}

impl Subject for MapOwned {
    fn read(&self, key: &Key) -> bool {
        let value = self.0.read().expect("a lock").get(&key[..]).cloned();
        value.is_some_and(|value| touch(&value))
    }

    fn insert(&self, key: &Key, value: &[u8]) {
        let mut map = self.0.write().expect("a lock");
        map.insert(name(key), Bytes::copy_from_slice(value));
    }
}

pub type Make = fn(usize) -> Arc<dyn Subject>;

fn ours(entries: usize) -> Cache {
    Cache::with_max_weight(entries as u64 * WEIGHT)
}

/// Every subject with room for so many entries; `quick_cache` is what others are compared with.
pub const SUBJECTS: [(&str, Make); 14] = [
    ("rimstone, lent", |n| Arc::new(Lent(ours(n)))),
    ("rimstone, owned", |n| Arc::new(Owned(ours(n)))),
    ("rimstone, lent, cacheTtl", |n| Arc::new(Limited(ours(n)))),
    ("quick_cache", |n| {
        Arc::new(Quick(quick_cache::sync::Cache::new(n)))
    }),
    ("quick_cache, ttl by hand", |n| {
        Arc::new(QuickTtl(quick_cache::sync::Cache::new(n)))
    }),
    ("rimstone, lent, 8-byte keys", |n| {
        Arc::new(Numbers(ours(n)))
    }),
    ("quick_cache, u64 keys", |n| {
        Arc::new(QuickNumbers(quick_cache::sync::Cache::new(n)))
    }),
    ("moka, expiry", |n| {
        let builder = moka::sync::Cache::builder().max_capacity(n as u64);
        Arc::new(Moka(builder.expire_after(PerEntry).build()))
    }),
    ("moka", |n| Arc::new(Moka(moka::sync::Cache::new(n as u64)))),
    ("mini-moka", |n| {
        Arc::new(MiniMoka(mini_moka::sync::Cache::new(n as u64)))
    }),
    ("foyer LFU", |n| {
        Arc::new(Foyer(
            CacheBuilder::new(n)
                .with_eviction_config(LfuConfig::default())
                .build(),
        ))
    }),
    ("foyer S3-FIFO", |n| {
        Arc::new(Foyer(
            CacheBuilder::new(n)
                .with_eviction_config(S3FifoConfig::default())
                .build(),
        ))
    }),
    ("map under a lock, lent", |_| {
        Arc::new(Map(RwLock::default()))
    }),
    ("map under a lock, owned", |_| {
        Arc::new(MapOwned(RwLock::default()))
    }),
];
