//! Segments in which nothing is live go away, and nothing comes back with them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rimstone::{Clock, Durability, Error, Namespace, PutOptions, Store};
use rimstone_tests::{SimDisk, copy, fresh, newest, open, open_on};

/// More than the hour that expired data is kept, in case the clock was wrong.
const LATER: u64 = 4_000;

fn files(dir: &Path, kind: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|e| e == kind))
        .count()
}

/// Fills a segment so that compaction passes over it: the least that one takes is a megabyte, and what
/// has less than that is always worth giving up.
fn fill(ns: &Namespace) {
    for n in 0..20 {
        ns.put(format!("full {n}"), [7; 60_000]).unwrap();
    }
}

/// Opens the store again, which begins a new segment.
fn reopened(dir: &Path, clock: &Clock, store: Store, ns: Namespace) -> (Store, Namespace) {
    drop((store, ns));
    let store = open(dir, clock);
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// What a killed store holds for a key after its index was rebuilt from the log alone.
fn rebuilt(dir: &Path, clock: &Clock, key: &str) -> Option<Vec<u8>> {
    let copy = copy(dir);
    for entry in fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg" && e != "large") {
            fs::remove_file(path).unwrap();
        }
    }
    let store = open(copy.path(), clock);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let ns = store.find_namespace("n").unwrap();
    ns.get(key).unwrap().map(|value| value.to_vec())
}

#[test]
fn a_segment_whose_keys_were_all_overwritten_goes() {
    let (dir, clock, mut store, mut ns) = fresh();
    for round in 0..10 {
        for key in 0..100 {
            ns.put(format!("{key}"), format!("{round}")).unwrap();
        }
        (store, ns) = reopened(dir.path(), &clock, store, ns);
    }
    store.compact().unwrap();
    assert!(files(dir.path(), "seg") <= 3);
    assert_eq!(&ns.get("7").unwrap().unwrap()[..], b"9");
    assert_eq!(rebuilt(dir.path(), &clock, "7"), Some(b"9".to_vec()));
}

/// A tombstone stays while an older segment may hold what it deleted.
#[test]
fn a_deleted_key_does_not_come_back_when_its_tombstone_could_go() {
    let (dir, clock, store, ns) = fresh();
    ns.put("stays", "here").unwrap();
    ns.put("key", "old").unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.delete("key").unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.put("other", "value").unwrap();
    store.compact().unwrap();
    assert_eq!(ns.get("key").unwrap(), None);
    assert_eq!(rebuilt(dir.path(), &clock, "key"), None);
    assert_eq!(rebuilt(dir.path(), &clock, "stays"), Some(b"here".to_vec()));
}

/// Compaction leaves the older segment where it is, since almost all of it is live.
#[test]
fn a_deleted_key_does_not_come_back_when_compaction_passes_over_its_segment() {
    let (dir, clock, store, ns) = fresh();
    ns.put("key", "old").unwrap();
    fill(&ns);
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.delete("key").unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.put("other", "value").unwrap();
    store.compact().unwrap();
    assert_eq!(ns.get("key").unwrap(), None);
    assert_eq!(rebuilt(dir.path(), &clock, "key"), None);
}

/// A put that expires sooner than what it replaced leaves a tombstone behind.
#[test]
fn an_expired_key_does_not_uncover_an_older_version() {
    let (dir, clock, store, ns) = fresh();
    ns.put("key", "for ever").unwrap();
    fill(&ns);
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    let soon = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("key", "for a minute", &soon).unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.put("other", "value").unwrap();
    clock.advance(LATER);
    store.compact().unwrap();
    assert_eq!(ns.get("key").unwrap(), None);
    assert_eq!(rebuilt(dir.path(), &clock, "key"), None);
}

#[test]
fn expired_segments_go_an_hour_after_their_last_key() {
    let (dir, clock, store, ns) = fresh();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    for key in 0..100 {
        ns.put_with(format!("{key}"), vec![7; 70_000], &minute)
            .unwrap();
    }
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    ns.put("other", "value").unwrap();
    clock.advance(61);
    store.compact().unwrap();
    assert_eq!(files(dir.path(), "large"), 100, "the clock may be wrong");
    clock.advance(3600);
    let freed = store.compact().unwrap();
    assert!(freed > 7_000_000, "{freed}");
    assert_eq!(files(dir.path(), "large"), 0);
    assert_eq!(store.stats().keys, 1);
}

#[test]
fn a_dropped_namespace_is_reclaimed_and_its_keys_stay_gone() {
    let (dir, clock, store, keep) = fresh();
    keep.put("stays", "here").unwrap();
    let (store, keep) = reopened(dir.path(), &clock, store, keep);
    let doomed = store.namespace("doomed").unwrap();
    for key in 0..1000 {
        doomed.put(format!("{key}"), vec![7; 1000]).unwrap();
    }
    let id = doomed.id();
    drop(doomed);
    let (store, keep) = reopened(dir.path(), &clock, store, keep);
    keep.put("stays", "moved on").unwrap();
    store.drop_namespace(id).unwrap();
    let (store, keep) = reopened(dir.path(), &clock, store, keep);
    keep.put("other", "value").unwrap();
    store.compact().unwrap();
    assert!(store.stats().keys <= 2, "{} keys", store.stats().keys);
    // A namespace made now, or after a rebuild, sees nothing of it.
    let again = store.namespace("doomed").unwrap();
    assert_eq!(again.get("7").unwrap(), None);
    assert_eq!(
        rebuilt(dir.path(), &clock, "stays"),
        Some(b"moved on".to_vec())
    );
}

#[test]
fn replaced_and_refused_large_values_leave_no_file() {
    let (dir, _clock, store, ns) = fresh();
    for round in 0..5u8 {
        ns.put("key", vec![round; 100_000]).unwrap();
    }
    let absent = PutOptions::new().if_absent();
    let refused = ns.put_with("key", vec![9; 100_000], &absent);
    assert!(
        matches!(refused, Err(Error::Conflict { .. })),
        "{refused:?}"
    );
    store.compact().unwrap();
    assert_eq!(files(dir.path(), "large"), 1);
    assert_eq!(ns.get("key").unwrap().unwrap()[..], [4; 100_000]);
}

/// Space comes back by itself while the same keys are overwritten, and no reader ever misses one.
#[test]
fn readers_always_find_a_key_while_segments_go_under_them() {
    let (_dir, _clock, store, ns) = fresh();
    let value = |round: usize| vec![u8::try_from(round % 251).unwrap(); 60_000];
    for key in 0..4 {
        ns.put(format!("{key}"), value(0)).unwrap();
        ns.put(format!("large {key}"), vec![0; 70_000]).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (ns, done) = (&ns, &done);
            scope.spawn(move || {
                let mut at = reader;
                while !done.load(Ordering::Relaxed) {
                    at += 1;
                    let key = format!("{}", at % 4);
                    let value = ns.get(&key).unwrap().expect("the key was always there");
                    assert!(value.iter().all(|byte| *byte == value[0]));
                    let large = ns.get(format!("large {key}")).unwrap();
                    assert_eq!(large.expect("the key was always there").len(), 70_000);
                }
            });
        }
        for round in 0..6_000 {
            let key = round % 4;
            ns.put(format!("{key}"), value(round)).unwrap();
            if round % 20 == 0 {
                ns.put(format!("large {key}"), vec![7; 70_000]).unwrap();
            }
            if round % 1500 == 1499 {
                store.compact().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = store.stats();
    assert_eq!(stats.maintenance_error, None);
    // 360 MB were written; some dead segments wait for the next checkpoints.
    assert!(stats.disk_bytes < 160 << 20, "{} bytes", stats.disk_bytes);
}

/// Old keys that never change lie between keys that always do: every segment keeps something live, and
/// what is live moves.
#[test]
fn space_stays_bounded_when_every_segment_keeps_something_live() {
    let (dir, clock, store, ns) = fresh();
    let value = |n: u32| [&n.to_le_bytes()[..], &[7; 60_000]].concat();
    let mut generations = Vec::new();
    for n in 0..6_000u32 {
        ns.put("hot", value(n)).unwrap();
        if n.is_multiple_of(10) {
            generations.push(ns.put(format!("cold {n}"), value(n)).unwrap());
        }
    }
    // 400 MB were written, of which 36 are live. Maintenance works in the background.
    let bound = 36 * 13 / 10 + 16 + 2 * 16;
    let is_small = |_: &u32| {
        store.checkpoint().unwrap();
        let small = store.stats().disk_bytes < bound << 20;
        if !small {
            std::thread::sleep(Duration::from_millis(100));
        }
        small
    };
    assert!((0..600).any(|n| is_small(&n)), "{:?}", store.stats());
    let check = |ns: &Namespace| {
        for (at, n) in (0..6_000u32).step_by(10).enumerate() {
            let entry = ns.get_with_metadata(format!("cold {n}")).unwrap().unwrap();
            assert_eq!(entry.value()[..4], n.to_le_bytes());
            assert_eq!(entry.generation(), generations[at], "a move is no write");
        }
    };
    check(&ns);
    // A copy is what a killed process leaves only while maintenance has nothing to do.
    store.compact().unwrap();
    let killed = copy(dir.path());
    let store = open(killed.path(), &clock);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    check(&store.find_namespace("n").unwrap());
    assert_eq!(rebuilt(dir.path(), &clock, "cold 10"), Some(value(10)));
}

/// A move is decided in the order of the log: a put that comes before it wins.
#[test]
fn a_put_wins_over_a_move_of_what_it_replaces() {
    let (_dir, _clock, store, ns) = fresh();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        for round in 0..300u32 {
            for key in 0..200u32 {
                ns.put(key.to_le_bytes(), round.to_le_bytes()).unwrap();
            }
            for key in 0..200u32 {
                let value = ns.get(key.to_le_bytes()).unwrap().unwrap();
                assert_eq!(value[..], round.to_le_bytes());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A value that is to be moved is not thrown away because the move is refused.
#[test]
fn a_full_disk_costs_compaction_no_large_value() {
    let disk = SimDisk::new();
    let clock = Clock::manual(1);
    let store = open_on(&disk, &clock, Durability::None).unwrap();
    let ns = store.namespace("n").unwrap();
    for key in 0..40 {
        ns.put(format!("large {key}"), vec![7; 70_000]).unwrap();
        for part in 0..10 {
            ns.put(format!("{key} {part}"), vec![8; 60_000]).unwrap();
        }
    }
    for key in 0..40 {
        ns.delete(format!("{key} 1")).unwrap();
        for part in 2..6 {
            ns.put(format!("{key} {part}"), "short").unwrap();
        }
    }
    for room in [300_000, 1_300_000, 4_000_000, 9_000_000] {
        disk.limit(Some(disk.bytes_used() + room));
        let _full_or_not = store.compact();
        for key in 0..40 {
            let value = ns.get(format!("large {key}")).unwrap();
            assert_eq!(value.expect("it was never deleted").len(), 70_000);
        }
    }
}

/// What a rebuild must know of retired segments outlives the segment in which it was said.
#[test]
fn a_rebuild_knows_every_gap_of_the_log() {
    let (dir, clock, mut store, mut ns) = fresh();
    for round in 0..8 {
        ns.put("hot", format!("{round}")).unwrap();
        (store, ns) = reopened(dir.path(), &clock, store, ns);
        ns.put(format!("cold {round}"), "stays").unwrap();
        (store, ns) = reopened(dir.path(), &clock, store, ns);
    }
    ns.put("hot", "last").unwrap();
    // The cold segments stay, and each names a hot one that goes.
    let is_gone = |_: &u32| {
        store.checkpoint().unwrap();
        let gone = files(dir.path(), "seg") <= 11;
        if !gone {
            std::thread::sleep(Duration::from_millis(20));
        }
        gone
    };
    assert!((0..500).any(|n| is_gone(&n)), "{:?}", store.stats());
    for round in 0..8 {
        let key = format!("cold {round}");
        assert_eq!(rebuilt(dir.path(), &clock, &key), Some(b"stays".to_vec()));
    }
    assert_eq!(rebuilt(dir.path(), &clock, "hot"), Some(b"last".to_vec()));
}

/// The same, where the segment in which it was said is gone for certain.
#[test]
fn a_retirement_says_again_what_older_ones_said_of_gaps() {
    let (dir, clock, store, ns) = fresh();
    ns.put("hot", "0").unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    // It stays, and names the one before it, which goes.
    fill(&ns);
    let (mut store, mut ns) = reopened(dir.path(), &clock, store, ns);
    for round in 1..4 {
        ns.put("hot", format!("{round}")).unwrap();
        store.compact().unwrap();
        (store, ns) = reopened(dir.path(), &clock, store, ns);
    }
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    assert!(files(dir.path(), "seg") <= 5, "{:?}", store.stats());
    assert_eq!(rebuilt(dir.path(), &clock, "hot"), Some(b"3".to_vec()));
    assert!(rebuilt(dir.path(), &clock, "full 19").is_some());
}

/// The older checkpoint may have to be opened, and needs the segments that were live in it.
#[test]
fn a_retired_segment_stays_for_the_older_checkpoint() {
    let (dir, clock, store, ns) = fresh();
    ns.put("key", "old").unwrap();
    let (store, ns) = reopened(dir.path(), &clock, store, ns);
    store.checkpoint().unwrap();
    ns.put("key", "new").unwrap();
    let is_retired = |_: &u32| {
        std::thread::sleep(Duration::from_millis(20));
        store.stats().segments == 1
    };
    assert!((0..500).any(|n| is_retired(&n)), "{:?}", store.stats());
    store.checkpoint().unwrap();
    let killed = copy(dir.path());
    let newest = newest(killed.path(), "ckpt").unwrap();
    fs::write(newest, "damaged").unwrap();
    let store = open(killed.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"new");
}
