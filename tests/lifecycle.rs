//! Closing, failing and going on: what threads and faults do to a store as a whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rimstone::{Clock, Durability, Error, Namespace, Options, PutOptions, Result, Store};
use rimstone_tests::{Doing, Gate};
use tempfile::tempdir;

/// Segments are created under this name, and flushed as that.
const SEGMENT: &str = ".new";
const CHECKPOINT: &str = ".ckpt";

fn open(dir: &Path, gate: &Gate, durability: Durability) -> (Store, Namespace) {
    let options = Options::new().durability(durability);
    let store = options.vfs(Arc::new(gate.clone())).open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// A store with segments of which nothing is live, before the active one.
fn with_dead_segments(dir: &Path, gate: &Gate) -> (Store, Namespace) {
    drop(open(dir, gate, Durability::None));
    for value in ["old", "older"] {
        let (_store, ns) = open(dir, gate, Durability::None);
        ns.put("key", value).unwrap();
    }
    let (store, ns) = open(dir, gate, Durability::None);
    ns.put("key", "new").unwrap();
    (store, ns)
}

/// A store in which compaction has something to do, and maintenance was not told.
fn with_an_expired_segment(dir: &Path, gate: &Gate) -> (Store, Namespace) {
    let clock = Clock::manual(1);
    let open = || {
        let options = Options::new().vfs(Arc::new(gate.clone()));
        let store = options.clock(clock.clone()).open(dir).unwrap();
        let ns = store.namespace("n").unwrap();
        (store, ns)
    };
    // So much that compaction leaves the segments where they are.
    let fill = |ns: &Namespace, name: &str| {
        for n in 0..20 {
            ns.put(format!("{name} {n}"), [7; 60_000]).unwrap();
        }
    };
    fill(&open().1, "first");
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    open().1.put_with("doomed", "value", &minute).unwrap();
    let (store, ns) = open();
    ns.put("key", "value").unwrap();
    fill(&ns, "last");
    clock.advance(4_000);
    (store, ns)
}

fn files(dir: &Path, kind: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(kind))
        .count()
}

/// Closes a store in a thread, which answers whether the gate was open when it was closed.
fn closing(store: &Store, gate: &Gate) -> JoinHandle<(Result<()>, bool)> {
    let (store, gate) = (store.clone(), gate.clone());
    thread::spawn(move || {
        let closed = store.close();
        (closed, gate.is_open())
    })
}

/// Looks a few times, while threads that should wait have time to go wrong.
fn stays(holds: impl Fn() -> bool) {
    for _ in 0..20 {
        assert!(holds());
        thread::sleep(Duration::from_millis(10));
    }
}

fn close_waits_for(work: fn(&Store) -> Result<()>) {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = with_an_expired_segment(dir.path(), &gate);
    gate.hold(Doing::Sync, CHECKPOINT);
    let working = store.clone();
    let worker = thread::spawn(move || work(&working));
    gate.await_someone();
    let closer = closing(&store, &gate);
    stays(|| matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    gate.open();
    let (closed, was_open) = closer.join().unwrap();
    closed.unwrap();
    assert!(was_open, "closed while the work went on");
    // It was done, or told in time that it was too late.
    let worked = worker.join().unwrap();
    assert!(
        matches!(worked, Ok(()) | Err(Error::Poisoned)),
        "{worked:?}"
    );
    drop((store, ns));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"value");
}

#[test]
fn closing_waits_for_a_checkpoint_under_way() {
    close_waits_for(Store::checkpoint);
}

#[test]
fn closing_waits_for_a_compaction_under_way() {
    close_waits_for(|store| store.compact().map(drop));
}

#[test]
fn whoever_closes_returns_only_when_everything_is_durable() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), &gate, Durability::None);
    ns.put("key", "value").unwrap();
    gate.hold(Doing::Sync, SEGMENT);
    let first = closing(&store, &gate);
    gate.await_someone();
    let second = closing(&store, &gate);
    stays(|| !second.is_finished());
    gate.open();
    for closer in [first, second] {
        let (closed, was_open) = closer.join().unwrap();
        closed.unwrap();
        assert!(was_open, "closed before the flush");
    }
}

#[test]
fn a_checkpoint_that_failed_stays_due_and_is_made_on_closing() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), &gate, Durability::None);
    for key in 0..40 {
        ns.put(format!("{key}"), vec![7; 60_000]).unwrap();
    }
    gate.fail(Doing::Sync, CHECKPOINT);
    assert!(matches!(store.checkpoint(), Err(Error::Io { .. })));
    assert_eq!(files(dir.path(), CHECKPOINT), 0);
    gate.open();
    drop(ns);
    store.close().unwrap();
    assert_eq!(files(dir.path(), CHECKPOINT), 1);
}

#[test]
fn a_writer_that_panics_within_the_store_poisons_it_and_holds_nobody_up() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), &gate, Durability::Immediate);
    ns.put("key", "value").unwrap();
    gate.panic(Doing::Sync, SEGMENT);
    let panicking = ns.clone();
    let writer = thread::spawn(move || panicking.put("key", "another"));
    assert!(writer.join().is_err());
    gate.open();
    assert!(store.stats().poisoned);
    assert!(matches!(ns.put("key", "value"), Err(Error::Poisoned)));
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"value");
    drop(ns);
    let _ = store.close();
    let (_store, ns) = open(dir.path(), &gate, Durability::Immediate);
    // It was written, and nobody was told.
    let value = ns.get("key").unwrap().unwrap();
    assert!([&b"value"[..], b"another"].contains(&&value[..]));
    assert!(ns.put("key", "value").is_ok());
}

#[test]
fn a_poisoned_store_leaves_no_files_of_large_values() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), &gate, Durability::Immediate);
    gate.fail(Doing::Sync, SEGMENT);
    assert!(ns.put("key", "value").is_err());
    assert!(store.stats().poisoned);
    for key in 0..5 {
        let put = ns.put(format!("{key}"), vec![7; 200_000]);
        assert!(matches!(put, Err(Error::Poisoned)), "{put:?}");
    }
    assert_eq!(files(dir.path(), ".large"), 0);
}

/// What this process still has mapped or open of the files that were removed from a directory.
#[cfg(target_os = "linux")]
fn removed_and_held(dir: &Path) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let open = open.map(|path| path.to_string_lossy().into_owned());
    let held = maps.lines().map(str::to_owned).chain(open);
    let dir = dir.to_string_lossy().into_owned();
    held.filter(|name| name.contains(&dir) && name.ends_with("(deleted)"))
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn segments_that_were_removed_are_neither_mapped_nor_open() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = with_dead_segments(dir.path(), &gate);
    let before = files(dir.path(), ".seg");
    store.compact().unwrap();
    assert!(files(dir.path(), ".seg") < before);
    // Readers of other tests may hold them a little longer.
    let are_gone = |_| {
        let held = removed_and_held(dir.path());
        if !held.is_empty() {
            thread::sleep(Duration::from_millis(10));
            ns.get("key").unwrap();
        }
        held.is_empty()
    };
    assert!((0..500).any(are_gone), "{:?}", removed_and_held(dir.path()));
}

#[test]
fn an_interval_shorter_than_that_of_the_store_counts_as_immediate() {
    let hour = Durability::Interval(Duration::from_secs(3600));
    let second = Durability::Interval(Duration::from_secs(1));
    for durability in [Durability::None, hour] {
        let (dir, gate) = (tempdir().unwrap(), Gate::default());
        let (store, ns) = open(dir.path(), &gate, durability);
        ns.put("key", "value").unwrap();
        let stats = store.stats();
        assert!(stats.durable_seqno < stats.last_seqno, "{durability:?}");
        let options = PutOptions::new().durability(second);
        ns.put_with("key", "value", &options).unwrap();
        let stats = store.stats();
        assert_eq!(stats.durable_seqno, stats.last_seqno, "{durability:?}");
    }
}

#[test]
fn a_segment_that_cannot_be_created_refuses_writes_until_it_can() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), &gate, Durability::None);
    gate.fail(Doing::Create, SEGMENT);
    let put = |key: u32| ns.put(format!("{key}"), vec![7; 60_000]);
    let refused = (0..2000).find(|key| put(*key).is_err()).unwrap();
    for _ in 0..3 {
        let again = put(refused);
        assert!(matches!(again, Err(Error::Io { .. })), "{again:?}");
    }
    assert!(!store.stats().poisoned);
    assert!(ns.get(format!("{refused}")).unwrap().is_none());
    gate.open();
    put(refused).unwrap();
    drop(ns);
    store.close().unwrap();
    let ns = Store::open(dir.path())
        .unwrap()
        .find_namespace("n")
        .unwrap();
    for key in 0..=refused {
        assert_eq!(ns.get(format!("{key}")).unwrap().unwrap().len(), 60_000);
    }
}

/// Going ahead of the writers is for logs of some MiB: a small store stays as large as it is.
#[test]
fn a_small_store_does_not_grow_by_itself() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 0..50 {
        ns.put(format!("{n}"), vec![7; 60_000]).unwrap();
        // Three megabytes in the end: what is preallocated doubles, and there is no second segment; `LOCK`
        // has a few bytes.
        let bytes = store.stats().disk_bytes;
        assert!(bytes <= (4 << 20) + 64, "{bytes} bytes after {n}");
    }
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        let bytes = store.stats().disk_bytes;
        assert!(bytes <= (4 << 20) + 64, "{bytes} bytes");
    }
}
