//! Stores that are caches: a bound on what they take, which evicts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rimstone::{Clock, Durability, ListOptions, Namespace, Options, Store};
use rimstone_tests::{Cut, DIR, SimDisk, Unsynced, open, open_on};
use tempfile::tempdir;

const CAPACITY: u64 = 64 << 20;

fn cache(dir: &Path) -> Store {
    let options = Options::new()
        .durability(Durability::None)
        .capacity(CAPACITY);
    options.clock(Clock::manual(1)).open(dir).unwrap()
}

fn listed(ns: &Namespace) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut options = ListOptions::new();
    loop {
        let page = ns.list(&options).unwrap();
        keys.extend(
            page.keys()
                .map(|key| String::from_utf8(key.name.to_vec()).unwrap()),
        );
        match page.cursor {
            Some(cursor) => options = options.cursor(cursor),
            None => return keys,
        }
    }
}

fn value(n: usize) -> Vec<u8> {
    vec![u8::try_from(n % 251).unwrap(); 4_000]
}

fn forget_derived(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg" && e != "large") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Four times the capacity is written, and some keys are read all the time.
#[test]
fn the_capacity_is_kept_and_what_is_read_stays() {
    let dir = tempdir().unwrap();
    let store = cache(dir.path());
    let ns = store.namespace("n").unwrap();
    let (keys, hot) = (64_000, 100);
    for n in 0..keys {
        ns.put(format!("{n}"), value(n)).unwrap();
        for read in 0..4 {
            // Spread over what nobody reads.
            let key = (n * 4 + read) % hot * 60;
            let got = ns.get(format!("{key}")).unwrap();
            assert!(
                n < key || got.is_some_and(|got| got[..] == value(key)),
                "{key} at {n}"
            );
        }
        if n % 500 == 0 {
            let stats = store.stats();
            assert!(stats.disk_bytes <= CAPACITY, "{n}: {stats:?}");
        }
    }
    let stats = store.stats();
    assert_eq!((stats.maintenance_error, stats.stuck_segments), (None, 0));
    assert!(stats.evicted_bytes > 3 * CAPACITY && stats.evicted_keys > 40_000);
    let there = listed(&ns);
    // A good part of the capacity is in use.
    assert!(there.len() * 4_000 > 32 << 20, "{} keys", there.len());
    store.close().unwrap();
    // Reads go on. Eviction may have been under way when that was listed.
    let left = listed(&ns);
    assert!(left.is_subset(&there));
    let there = left;
    drop(ns);
    // The same in a store that is opened again, and in one that is made anew from its segments.
    for _ in 0..2 {
        let store = open(dir.path(), &Clock::manual(1));
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        assert!(
            listed(&ns) == there,
            "{} keys, not {}",
            listed(&ns).len(),
            there.len()
        );
        for n in 0..keys {
            let key = format!("{n}");
            let got = ns.get(&key).unwrap();
            assert_eq!(got.is_some(), there.contains(&key), "{key}");
            assert!(got.is_none_or(|got| got[..] == value(n)));
        }
        drop((store, ns));
        forget_derived(dir.path());
    }
}

#[test]
fn large_values_count() {
    let dir = tempdir().unwrap();
    let store = cache(dir.path());
    let ns = store.namespace("n").unwrap();
    for n in 0..300u32 {
        ns.put(n.to_le_bytes(), vec![7; 1 << 20]).unwrap();
        assert_eq!(ns.get(0u32.to_le_bytes()).unwrap().unwrap().len(), 1 << 20);
        let stats = store.stats();
        assert!(stats.disk_bytes <= CAPACITY, "{n}: {stats:?}");
    }
    assert_eq!(store.stats().maintenance_error, None);
    assert!(ns.get(299u32.to_le_bytes()).unwrap().is_some());
    assert!(listed_count(&ns) > 16);
}

fn listed_count(ns: &Namespace) -> usize {
    ns.list(&ListOptions::new()).unwrap().len()
}

/// Whatever a power cut leaves after an eviction was durable, it does not bring the key back.
#[test]
fn evicted_keys_do_not_come_back_after_a_cut() {
    let disk = SimDisk::new();
    let clock = Clock::manual(1);
    let options = Options::new()
        .durability(Durability::None)
        .clock(clock.clone());
    let store = options
        .vfs(Arc::new(disk.clone()))
        .capacity(CAPACITY)
        .open(DIR)
        .unwrap();
    let ns = store.namespace("n").unwrap();
    let keys = 1_800usize;
    for n in 0..keys {
        ns.put(format!("{n}"), vec![7; 60_000]).unwrap();
    }
    assert!(store.stats().evicted_keys > 0);
    let there = listed(&ns);
    store.sync().unwrap();
    let durable = disk.place();
    for n in 0..200 {
        ns.put(format!("new {n}"), vec![7; 60_000]).unwrap();
    }
    let end = disk.place();
    for at in 0..8 {
        let place = durable + (end - durable) * at / 7;
        let bytes = if at % 2 == 0 {
            Unsynced::Lost
        } else {
            Unsynced::Sectors(4096)
        };
        let left = disk.crash_at(place, Cut { bytes, ..Cut::LOST });
        let store = open_on(&left, &clock, Durability::None).unwrap();
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        let left = listed(&ns);
        let mut old = left.iter().filter(|key| !key.starts_with("new"));
        assert!(old.all(|key| there.contains(key)), "{place}");
        for key in (0..keys).map(|n| format!("{n}")) {
            assert_eq!(
                ns.get(&key).unwrap().is_some(),
                left.contains(&key),
                "{key}"
            );
        }
    }
}

/// Namespaces are dropped and emptied while what they hold is being evicted.
#[test]
fn eviction_and_deletions_do_not_get_in_each_others_way() {
    let dir = tempdir().unwrap();
    let store = cache(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0usize.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let ns = store.namespace("b").unwrap();
                for n in 0..300 {
                    ns.put(format!("{n}"), value(n)).unwrap();
                }
                match round % 3 {
                    0 => ns.delete_prefix("").unwrap(),
                    1 => ns.delete_prefix("1").unwrap(),
                    _ => store.drop_namespace(ns.id()).unwrap(),
                }
            }
        });
        let ns = store.namespace("a").unwrap();
        for n in 0..40_000 {
            ns.put(format!("{n}"), value(n)).unwrap();
            assert_eq!(ns.get(format!("{n}")).unwrap().unwrap()[..], value(n));
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = store.stats();
    assert_eq!((stats.maintenance_error, stats.stuck_segments), (None, 0));
    assert!(stats.evicted_keys > 0 && stats.disk_bytes <= CAPACITY);
}
