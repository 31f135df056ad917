//! Records that are not in memory: asked for together, read where waiting is allowed.

use std::sync::Arc;

use rimstone::{Durability, Namespace, Options, Store};
use rimstone_tests::{Doing, Gate};
use tempfile::TempDir;

/// A store of whose files nothing seems to be in memory.
fn store() -> (TempDir, Gate, Store, Namespace) {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Gate::default());
    disk.fail(Doing::IsResident, "");
    let options = Options::new().durability(Durability::None);
    let store = options.vfs(Arc::new(disk.clone())).open(dir.path());
    let store = store.unwrap();
    let ns = store.namespace("n").unwrap();
    let _opening_asks_too = disk.failed();
    (dir, disk, store, ns)
}

/// One of a group tells for all of it, and of a small group nobody asks.
#[test]
fn many_keys_that_are_not_in_memory_are_what_single_gets_return() {
    let (_dir, disk, _store, ns) = store();
    let keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
    for (at, key) in keys.iter().enumerate().filter(|(at, _)| at % 5 != 0) {
        ns.put(key, vec![7; at * 50]).unwrap();
    }
    let single = keys.iter().map(|key| ns.get_with_metadata(key).unwrap());
    let single: Vec<_> = single.collect();
    assert_eq!(disk.failed(), 0, "a get waits for what it needs");
    assert_eq!(ns.get_many(&keys).unwrap(), single);
    assert_eq!(disk.failed(), 3, "three groups of 32, and four keys");
    let mut read = vec![None; keys.len()];
    ns.read_many(&keys, |at, entry| read[at] = Some(entry.value().to_vec()))
        .unwrap();
    let values = single
        .iter()
        .map(|e| e.as_ref().map(|e| e.value().to_vec()));
    assert!(read.into_iter().eq(values));
    assert_eq!(disk.failed(), 3);
}

#[test]
fn a_value_that_is_not_in_memory_is_not_streamed_without_waiting() {
    let (_dir, disk, _store, ns) = store();
    ns.put("k", "value").unwrap();
    assert!(ns.try_stream("k").unwrap().is_none(), "it would wait");
    assert_eq!(disk.failed(), 1);
    let stream = ns.stream("k").unwrap().unwrap();
    assert_eq!(stream.read_all().unwrap()[..], *b"value");
    let missing = ns.try_stream("missing").unwrap();
    assert!(missing.is_some_and(|stream| stream.is_none()));
}

/// Asking for files ahead, which opens them, is for those that are not in memory.
#[test]
fn where_nobody_can_tell_what_is_in_memory_opening_opens_each_segment_once() {
    let (dir, clock, store, ns) = rimstone_tests::fresh();
    ns.put("k", "value").unwrap();
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    drop(rimstone_tests::open(dir.path(), &clock));
    let names = std::fs::read_dir(dir.path()).unwrap();
    let segments =
        names.filter(|name| name.as_ref().unwrap().path().extension() == Some("seg".as_ref()));
    let disk = Gate::default();
    disk.seem_cold();
    disk.fail_after(segments.count(), Doing::Open, ".seg");
    let options = Options::new().clock(clock).vfs(Arc::new(disk.clone()));
    let store = options.open(dir.path()).unwrap();
    assert_eq!(disk.failed(), 0);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"value");
}

/// How often this thread waited for a page from a disk.
fn major_faults() -> usize {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.nth(9).unwrap().parse().unwrap()
}

#[test]
fn a_value_on_the_disk_is_not_waited_for_page_by_page() {
    // The directory for temporary files may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let values = [("in a record", 60_000), ("in a file", 4 << 20)];
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    // With the first page of a file the system reads those after it, sooner or later.
    ns.put("before", vec![7; 60_000]).unwrap();
    for (key, len) in values {
        ns.put(key, vec![7; len]).unwrap();
    }
    // Opening reads what comes after it.
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for (key, len) in values {
        let before = major_faults();
        assert!(ns.get(key).unwrap().unwrap().iter().all(|byte| *byte == 7));
        let (faults, pages) = (major_faults() - before, len / 4096);
        assert!(faults > 0, "{key}: it was in memory");
        assert!(faults * 3 < pages, "{key}: {faults} of {pages}");
    }
}

/// Files are asked for ahead of whoever needs them, and says that they cannot be had.
#[test]
fn a_file_that_cannot_be_asked_for_ahead_is_passed_over() {
    let (dir, clock, store, ns) = rimstone_tests::fresh();
    ns.put("k", "value").unwrap();
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    let nowhere = dir.path().join("0000000100000099.run");
    // The name of the checkpoint went from memory, or a segment that nobody read for long.
    for cold in ["CURRENT", "0000000100000000.seg"] {
        std::os::unix::fs::symlink("nowhere", &nowhere).unwrap();
        let disk = Gate::default();
        disk.fail(Doing::IsResident, cold);
        let options = Options::new().clock(clock.clone());
        let store = options
            .vfs(Arc::new(disk.clone()))
            .open(dir.path())
            .unwrap();
        assert_eq!(disk.failed(), 1, "the store is not in memory: {cold}");
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"value");
        assert!(
            nowhere.symlink_metadata().is_err(),
            "no checkpoint names it"
        );
        drop(ns);
        store.close().unwrap();
    }
}
