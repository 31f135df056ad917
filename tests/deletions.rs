//! Deleting all that begins with a prefix, and everything.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rimstone::{Clock, Durability, Error, ListOptions, Namespace, PutOptions, Store};
use rimstone_tests::{Cut, SimDisk, copy, fresh, open, open_on};
use tempfile::tempdir;

fn listed(ns: &Namespace) -> Vec<String> {
    let page = ns.list(&ListOptions::new().limit(10_000)).unwrap();
    assert_eq!(page.cursor, None);
    let names = page.keys().map(|key| String::from_utf8(key.name.to_vec()));
    names.map(|name| name.unwrap()).collect()
}

/// Waits for what maintenance does by itself.
fn eventually(store: &Store, holds: impl Fn(&Store) -> bool) {
    let waited = (0..1_000).any(|_| {
        let done = holds(store);
        if !done {
            std::thread::sleep(Duration::from_millis(20));
        }
        done
    });
    assert!(waited, "{:?}", store.stats());
}

fn rebuilt(dir: &Path, clock: &Clock) -> Store {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg" && e != "large") {
            fs::remove_file(path).unwrap();
        }
    }
    open(dir, clock)
}

#[test]
fn what_begins_with_the_prefix_is_gone_at_once_and_later_writes_are_not() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let (ns, other) = (store.namespace("n").unwrap(), store.namespace("o").unwrap());
    for key in ["a", "ab", "abc", "b"] {
        ns.put(key, "old").unwrap();
        other.put(key, "old").unwrap();
    }
    let old = ns.get_with_metadata("abc").unwrap().unwrap().generation();
    ns.delete_prefix("ab").unwrap();
    assert_eq!(ns.get("ab").unwrap(), None);
    assert_eq!(
        ns.get_many(&["abc", "b"]).unwrap().iter().flatten().count(),
        1
    );
    assert_eq!(ns.read("abc", |_| ()).unwrap(), None);
    assert_eq!(listed(&ns), ["a", "b"]);
    assert!(!ns.delete("ab").unwrap(), "it is gone");
    let same = PutOptions::new().if_generation(old);
    let refused = ns.put_with("abc", "new", &same);
    assert!(
        matches!(refused, Err(Error::Conflict { found: None })),
        "{refused:?}"
    );
    ns.put_with("abc", "new", &PutOptions::new().if_absent())
        .unwrap();
    assert_eq!(listed(&ns), ["a", "abc", "b"]);
    assert_eq!(&ns.get("abc").unwrap().unwrap()[..], b"new");
    eventually(&store, |store| store.stats().keys == 7);
    assert_eq!(listed(&ns), ["a", "abc", "b"]);
    assert_eq!(listed(&other), ["a", "ab", "abc", "b"]);
}

/// The handle, its id, its name and its cursors stay good.
#[test]
fn a_namespace_of_which_everything_was_deleted_goes_on() {
    let (dir, clock, store, ns) = fresh();
    for key in 0..100 {
        ns.put(format!("{key:02}"), "old").unwrap();
    }
    let page = ns.list(&ListOptions::new().limit(50)).unwrap();
    let mut writer = ns.writer("77", &PutOptions::new()).unwrap();
    writer.write(&[7; 100_000]).unwrap();
    ns.delete_prefix("").unwrap();
    assert_eq!(listed(&ns), Vec::<String>::new());
    assert_eq!(ns.get("07").unwrap(), None);
    ns.put("07", "new").unwrap();
    ns.put("70", "new").unwrap();
    writer.finish().unwrap();
    let rest = ListOptions::new().limit(50).cursor(page.cursor.unwrap());
    let rest = ns.list(&rest).unwrap();
    assert_eq!(
        rest.keys().map(|key| key.name).collect::<Vec<_>>(),
        [b"70", b"77"]
    );
    store.rename_namespace(ns.id(), "renamed").unwrap();
    ns.delete_prefix("7").unwrap();
    let id = ns.id();
    let killed = copy(dir.path());
    drop((ns, store));
    for store in [open(killed.path(), &clock), rebuilt(dir.path(), &clock)] {
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("renamed").unwrap();
        assert_eq!(ns.id(), id);
        assert_eq!(listed(&ns), ["07"]);
        assert_eq!(store.namespaces().len(), 1);
        store.drop_namespace(id).unwrap();
        assert!(matches!(ns.get("07"), Err(Error::NoSuchNamespace)));
        assert!(matches!(ns.put("07", ""), Err(Error::NoSuchNamespace)));
    }
}

/// Neither is it in the table or on the disk after a while, and no key was touched for it.
#[test]
fn what_was_deleted_gives_its_space_back() {
    for prefix in ["", "k"] {
        let dir = tempdir().unwrap();
        let clock = Clock::manual(1);
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        for key in 0..3_000 {
            ns.put(format!("k{key}"), vec![7; 10_000]).unwrap();
        }
        ns.put("k large", vec![7; 100_000]).unwrap();
        let written = store.stats().last_seqno;
        ns.delete_prefix(prefix).unwrap();
        if prefix.is_empty() {
            assert_eq!(store.stats().last_seqno, written + 2);
        }
        ns.put("k0", "stays").unwrap();
        store.compact().unwrap();
        let stats = store.stats();
        assert!(stats.disk_bytes < 8 << 20, "{prefix:?}: {stats:?}");
        assert_eq!(stats.keys, 1);
        assert_eq!(listed(&ns), ["k0"]);
        drop((ns, store));
        let store = rebuilt(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        assert_eq!((listed(&ns).len(), store.stats().keys), (1, 1));
    }
}

/// More prefixes than a record has room for.
#[test]
fn many_prefixes_are_deleted_one_after_the_other() {
    let (_dir, _clock, store, ns) = fresh();
    for key in 0..1_000 {
        ns.put(format!("{key:03}"), "value").unwrap();
    }
    for prefix in 0..100 {
        if prefix % 3 > 0 {
            ns.delete_prefix(format!("{prefix:02}")).unwrap();
        }
    }
    assert_eq!(listed(&ns).len(), 340);
    // A longer one is done with the shorter one.
    ns.delete_prefix("001").unwrap();
    ns.delete_prefix("0").unwrap();
    assert_eq!(listed(&ns).len(), 300);
    eventually(&store, |store| store.stats().keys == 300);
}

/// What was durable when the power went is deleted, and goes on to be carried out.
#[test]
fn a_deletion_survives_a_cut_before_it_is_carried_out() {
    for prefix in ["", "k"] {
        let (disk, clock) = (SimDisk::new(), Clock::manual(1));
        let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
        let ns = store.namespace("n").unwrap();
        for key in 0..50 {
            ns.put(format!("k{key}"), vec![7; 100]).unwrap();
        }
        let begin = disk.place();
        ns.delete_prefix(prefix).unwrap();
        let end = disk.place();
        ns.put("k7", "new").unwrap();
        let put = disk.place();
        store.compact().unwrap();
        for place in begin..=disk.place() {
            let left = disk.crash_at(place, Cut::LOST);
            let store = open_on(&left, &clock, Durability::Immediate).unwrap();
            assert_eq!(store.stats().damage, Vec::<String>::new());
            let ns = store.find_namespace("n").unwrap();
            let keys = listed(&ns);
            assert!(
                keys.len() <= 1 || (keys.len() == 50 && place < end),
                "{place}: {keys:?}"
            );
            assert!(place < put || keys == ["k7"], "{place}: {keys:?}");
            for key in (0..50).map(|key| format!("k{key}")) {
                assert_eq!(
                    ns.get(&key).unwrap().is_some(),
                    keys.contains(&key),
                    "{key}"
                );
            }
            eventually(&store, |store| {
                store.stats().keys == keys.len() as u64 || prefix.is_empty()
            });
        }
    }
}

/// A put that returned before is deleted, one that begins after is not; in between it may be either. And who
/// has seen a key deleted never sees what it held before.
#[test]
fn puts_race_deletions_and_are_on_one_side() {
    for prefix in ["", "k"] {
        let dir = tempdir().unwrap();
        let clock = Clock::manual(1);
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2u32 {
                let (ns, done) = (&ns, &done);
                scope.spawn(move || {
                    for n in 0u32.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("k{thread} {}", n % 50);
                        ns.put(&key, n.to_le_bytes()).unwrap();
                        // Deleted since, or what was put.
                        if let Some(value) = ns.get(&key).unwrap() {
                            assert_eq!(value[..], n.to_le_bytes());
                        }
                    }
                });
            }
            for round in 0..300u32 {
                let key = format!("k own {}", round % 7);
                ns.put(&key, "before").unwrap();
                ns.put("other", "stays").unwrap();
                ns.delete_prefix(prefix).unwrap();
                for _ in 0..20 {
                    assert_eq!(ns.get(&key).unwrap(), None);
                }
                ns.put(&key, "after").unwrap();
                assert_eq!(&ns.get(&key).unwrap().unwrap()[..], b"after");
                assert_eq!(ns.get("other").unwrap().is_some(), !prefix.is_empty());
            }
            done.store(true, Ordering::Relaxed);
        });
        ns.delete_prefix(prefix).unwrap();
        ns.put("k", "last").unwrap();
        let expected = if prefix.is_empty() {
            vec!["k"]
        } else {
            vec!["k", "other"]
        };
        assert_eq!(listed(&ns), expected);
        store.compact().unwrap();
        drop((ns, store));
        let store = rebuilt(dir.path(), &clock);
        assert_eq!(listed(&store.namespace("n").unwrap()), expected);
    }
}
