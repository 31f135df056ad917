//! Histories of real threads on a store with a hot cache: nobody reads what somebody else already knew to
//! be replaced, acknowledged or only read, in the log or in the cache.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use rimstone::{
    Durability, Namespace, Options, PutOptions, ReadOptions, Store, Verify, WriteBatch,
};
use tempfile::tempdir;

const KEYS: usize = 4;
/// Writes of each key. Every fifth is a delete.
const WRITES: u64 = 1500;

/// What is known of one key: its versions are the numbers of its writes.
#[derive(Default)]
struct Register {
    /// The newest write that was begun.
    begun: AtomicU64,
    /// The newest that was acknowledged, or that a reader was given.
    known: AtomicU64,
}

fn name(key: usize) -> String {
    format!("key {key}")
}

/// A value that says its version, in one of the forms that values have.
fn value(version: u64) -> Vec<u8> {
    let len = [8, 100, 6_000, 70_000][usize::try_from(version / 2 % 4).unwrap()];
    let mut value = vec![version.to_le_bytes()[0]; len];
    value[..8].copy_from_slice(&version.to_le_bytes());
    value
}

/// The version of a value, all of whose bytes must belong to it.
fn version(bytes: &[u8]) -> u64 {
    let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == value(version), "bytes of two values");
    version
}

fn is_delete(version: u64) -> bool {
    version.is_multiple_of(5)
}

impl Register {
    fn write(&self, store: &Store, ns: &Namespace, key: usize, version: u64) {
        self.begun.store(version, SeqCst);
        let (name, value) = (name(key), value(version));
        match version % 10 {
            0 => {
                ns.delete(name).unwrap();
            }
            3 | 5 => {
                let mut batch = WriteBatch::new();
                batch.put(ns, &name, b"replaced in the same batch");
                if is_delete(version) {
                    batch.delete(ns, &name);
                } else {
                    batch.put(ns, &name, value);
                }
                store.write(batch).unwrap();
            }
            7 => {
                let far = PutOptions::new().expiration_ttl(Duration::from_secs(9_999));
                ns.put_with(name, value, &far).unwrap();
            }
            _ => {
                ns.put(name, value).unwrap();
            }
        }
        self.known.fetch_max(version, SeqCst);
    }

    fn read(&self, ns: &Namespace, key: usize, way: usize) {
        let (known, name) = (self.known.load(SeqCst), name(key));
        let seen = read(ns, &name, way);
        let begun = self.begun.load(SeqCst);
        let seen = match seen {
            Some(seen) => seen,
            // The oldest delete that explains it; before the first write there is nothing, either.
            None => (known..=begun).find(|v| is_delete(*v)).unwrap_or(u64::MAX),
        };
        assert!(
            seen >= known,
            "{name}: {seen} by way {way}, when {known} was known"
        );
        assert!(
            seen <= begun,
            "{name}: {seen} by way {way}, of {begun} written"
        );
        self.known.fetch_max(seen, SeqCst);
    }
}

/// The version that a reader sees, by way of the cache, around it, or as the store likes.
fn read(ns: &Namespace, name: &str, way: usize) -> Option<u64> {
    let hour = ReadOptions::new().cache_ttl(Duration::from_secs(3600));
    match way % 8 {
        0..4 => ns.read_with(name, &hour, |e| version(e.value())).unwrap(),
        4 => ns.read(name, |e| version(e.value())).unwrap(),
        5 => {
            let stream = ns.stream_with(name, &hour).unwrap();
            stream.map(|stream| version(&stream.read_all().unwrap()))
        }
        6 => ns.get(name).unwrap().map(|value| version(&value)),
        _ => {
            let entry = ns.get_many(&[name]).unwrap().pop().unwrap();
            entry.map(|entry| version(entry.value()))
        }
    }
}

/// Writers of all keys, readers of all keys, and compaction, at the same time.
fn histories(options: Options) {
    let dir = tempdir().unwrap();
    let store = options
        .durability(Durability::None)
        .open(dir.path())
        .unwrap();
    let ns = store.namespace("n").unwrap();
    let registers: [Register; KEYS] = Default::default();
    let (writing, reads) = (AtomicU64::new(2), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (store, ns, registers, writing) = (&store, &ns, &registers, &writing);
            scope.spawn(move || {
                for version in 1..=WRITES {
                    for key in (writer..KEYS).step_by(2) {
                        registers[key].write(store, ns, key, version);
                    }
                }
                writing.fetch_sub(1, SeqCst);
            });
        }
        for reader in 0..3 {
            let (ns, registers, writing, reads) = (&ns, &registers, &writing, &reads);
            scope.spawn(move || {
                let mut n = reader;
                while writing.load(SeqCst) > 0 {
                    n += 1;
                    registers[n * 7 % 5 % KEYS].read(ns, n * 7 % 5 % KEYS, n / 5);
                    reads.fetch_add(1, SeqCst);
                }
            });
        }
        scope.spawn(|| {
            while writing.load(SeqCst) > 0 {
                store.compact().unwrap();
            }
        });
    });
    let cache = store.stats().cache.unwrap();
    assert!(
        reads.load(SeqCst) > 0 && cache.hits > 0,
        "{reads:?} {cache:?}"
    );
    for (key, register) in registers.iter().enumerate() {
        (0..8).for_each(|way| register.read(&ns, key, way));
        assert_eq!(register.known.load(SeqCst), WRITES);
    }
}

#[test]
fn no_thread_reads_what_another_knows_to_be_replaced() {
    histories(Options::new().cache(8 << 20));
}

#[test]
fn nor_while_entries_are_evicted() {
    histories(Options::new().cache(64 << 10).verify(Verify::FirstRead));
}
