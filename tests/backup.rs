//! A backup is the store at one sequence number, whatever goes on beside it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rimstone::{Clock, Durability, Error, Loss, Options, Store};
use rimstone_tests::{
    Cut, Fault, Gate, Names, SimDisk, Unsynced, fresh, numbered_batch, open, open_alone, open_on,
};
use tempfile::tempdir;

/// Batch number `n` writes its number under every key; some keys come and go.
fn write(store: &Store, n: u64) {
    let ns = store.namespace("n").unwrap();
    store.write(numbered_batch(&ns, n, 4, 30_000)).unwrap();
}

/// Checks that a store is in the state after one of the batches, and returns which.
fn check(store: &Store) -> u64 {
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let ns = store.find_namespace("n").unwrap();
    let number = |key: &str| {
        let value = ns.get(key).unwrap().unwrap();
        u64::from_le_bytes(value[..8].try_into().unwrap())
    };
    let n = number("key 0");
    assert!((1..4).all(|key| number(&format!("key {key}")) == n));
    assert!((1..=n).all(|n| number(&format!("once {n:08}")) == n));
    assert!(ns.get(format!("once {:08}", n + 1)).unwrap().is_none());
    assert!(ns.get(format!("large {}", n % 3)).unwrap().is_some());
    assert!(ns.get(format!("large {}", (n + 1) % 3)).unwrap().is_none());
    n
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Whether a file holds what it held, but for zeros that were put behind it.
fn is_same(before: &[u8], after: &[u8]) -> bool {
    let (start, rest) = after.split_at(before.len().min(after.len()));
    start == before && rest.iter().all(|byte| *byte == 0)
}

/// Takes backups while a thread writes and another compacts; with `is_reader` from a read-only store, as
/// another process has it.
fn backups_are_states_between_batches(is_reader: bool) {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let store = open(dir.path(), &clock);
    let options = Options::new().clock(clock.clone());
    let (is_done, written) = (AtomicBool::new(false), AtomicU64::new(1));
    write(&store, 1);
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 2..2_000 {
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                write(&store, n);
                written.store(n, Ordering::SeqCst);
                if n % 50 == 0 && is_reader {
                    store.compact().unwrap();
                }
            }
        });
        scope.spawn(|| {
            // Who reads beside it needs a moment without two checkpoints.
            while !is_done.load(Ordering::Relaxed) && !is_reader {
                store.compact().unwrap();
            }
        });
        for _ in 0..6 {
            let dest = tempdir().unwrap();
            let before = written.load(Ordering::SeqCst);
            if is_reader {
                let reader = options.clone().open_read_only(dir.path()).unwrap();
                reader.backup(dest.path()).unwrap();
            } else {
                store.backup(dest.path()).unwrap();
            }
            let after = written.load(Ordering::SeqCst) + 1;
            taken.push((before..=after, contents(dest.path()), dest));
        }
        is_done.store(true, Ordering::Relaxed);
    });
    for n in 1..40 {
        write(&store, written.load(Ordering::SeqCst) + n);
    }
    store.compact().unwrap();
    drop(store);
    for (range, before, dest) in taken {
        let after = contents(dest.path());
        assert!(before.keys().eq(after.keys()));
        for (path, bytes) in &before {
            assert!(is_same(bytes, &after[path]), "{} changed", path.display());
        }
        let found = options.clone().scrub(dest.path(), |_, _| {}).unwrap();
        assert!(found.is_empty(), "{found:?}");
        for _ in 0..2 {
            let n = check(&open(dest.path(), &clock));
            assert!(range.contains(&n), "{n} in {range:?}");
        }
        // The log alone is enough, too.
        for path in contents(dest.path()).keys() {
            if matches!(
                path.extension().and_then(|e| e.to_str()),
                Some("ckpt" | "run")
            ) {
                fs::remove_file(path).unwrap();
            }
        }
        _ = fs::remove_file(dest.path().join("CURRENT"));
        assert!(range.contains(&check(&open(dest.path(), &clock))));
    }
}

#[test]
fn a_backup_beside_writers_and_compaction_is_one_state_and_stays_it() {
    backups_are_states_between_batches(false);
}

#[test]
fn a_backup_of_another_process_s_store_is_one_state_and_stays_it() {
    backups_are_states_between_batches(true);
}

#[test]
fn a_backup_holds_all_that_was_acknowledged_and_shares_its_files() {
    let (dir, dest, clock) = (tempdir().unwrap(), tempdir().unwrap(), Clock::manual(1));
    let store = open(dir.path(), &clock);
    for n in 1..=5 {
        write(&store, n);
    }
    store.backup(dest.path()).unwrap();
    write(&store, 6);
    let larges = contents(dest.path()).into_keys();
    let mut larges = larges.filter(|path| path.extension().is_some_and(|e| e == "large"));
    let large = larges.next().unwrap();
    let shared = dir.path().join(large.file_name().unwrap());
    assert_eq!(
        fs::metadata(&large).unwrap().ino(),
        fs::metadata(shared).unwrap().ino()
    );
    // What is done to the one does not show in the other.
    let backup = open(dest.path(), &clock);
    assert_eq!(check(&backup), 5);
    write(&backup, 6);
    write(&backup, 7);
    backup.compact().unwrap();
    assert_eq!((check(&store), check(&backup)), (6, 7));
    let again = store.backup(dest.path());
    assert!(matches!(again, Err(Error::NotEmpty { .. })), "{again:?}");
}

/// Compaction in the background adds to class segments between its steps.
#[test]
fn a_backup_does_not_share_a_class_segment_that_is_still_added_to() {
    let (_dir, _clock, store, ns) = fresh();
    let mut taken = Vec::new();
    for n in 0..240u32 {
        for key in 0..40 {
            // Of each MiB a little is never written again.
            let kept = if key == 0 {
                n
            } else {
                1_000 + (n * 40 + key) % 333
            };
            ns.put(format!("key {kept}"), vec![7; 25_000]).unwrap();
        }
        if n < 100 || n % 4 != 0 || taken.len() == 10 {
            continue;
        }
        let classes = store.segments().into_iter().filter(|s| s.class.is_some());
        let classes: Vec<_> = classes.map(|s| format!("{:016x}.seg", s.id)).collect();
        if !classes.is_empty() {
            let dest = tempdir().unwrap();
            store.backup(dest.path()).unwrap();
            let of_class =
                |(path, _): &(PathBuf, _)| classes.iter().any(|name| path.ends_with(name));
            let held: Vec<_> = contents(dest.path()).into_iter().filter(of_class).collect();
            taken.push((held, dest));
        }
    }
    assert!(taken.len() > 5, "{}", taken.len());
    for (path, bytes) in taken.iter().flat_map(|(held, _)| held) {
        assert!(
            is_same(bytes, &fs::read(path).unwrap()),
            "{} changed",
            path.display()
        );
    }
}

#[test]
fn without_links_files_are_copied() {
    let (dir, dest, clock) = (tempdir().unwrap(), tempdir().unwrap(), Clock::manual(1));
    let options = Options::new().vfs(Arc::new(Gate::default()));
    let store = options.clock(clock.clone()).open(dir.path()).unwrap();
    for n in 1..=5 {
        write(&store, n);
    }
    store.compact().unwrap();
    store.backup(dest.path()).unwrap();
    for path in contents(dest.path()).keys() {
        assert_eq!(fs::metadata(path).unwrap().nlink(), 1);
    }
    assert_eq!(check(&open(dest.path(), &clock)), 5);
}

#[test]
fn a_restored_store_is_the_backup_and_leaves_it_alone() {
    let (dir, dest, clock) = (tempdir().unwrap(), tempdir().unwrap(), Clock::manual(1));
    let backup = dir.path().join("backup");
    let store = open(&dir.path().join("store"), &clock);
    for n in 1..=5 {
        write(&store, n);
    }
    store.compact().unwrap();
    write(&store, 6);
    store.backup(&backup).unwrap();
    let before = contents(&backup);
    let options = Options::new().clock(clock.clone());
    options
        .clone()
        .restore(&backup, dest.path(), |_, _| {})
        .unwrap();
    let restored = open(dest.path(), &clock);
    assert_eq!(check(&restored), 6);
    write(&restored, 7);
    drop(restored);
    assert!(contents(&backup) == before);
    let again = options.clone().restore(&backup, dest.path(), |_, _| {});
    assert!(matches!(again, Err(Error::NotEmpty { .. })), "{again:?}");
    assert_eq!(check(&open(dest.path(), &clock)), 7);
    // A damaged one is not restored; damage that loses nothing is no obstacle.
    let (kinds, mut refused) = (["seg", "large", "run", "ckpt"], 0);
    for kind in kinds {
        let path = rimstone_tests::newest(&backup, kind).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let place = if kind == "large" { 5_000 } else { 20 };
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found = options.clone().scrub(&backup, |_, _| {}).unwrap();
        assert!(!found.is_empty(), "{kind}");
        let other = dir.path().join(kind);
        let done = options.clone().restore(&backup, &other, |_, _| {});
        if found
            .iter()
            .any(|damage| matches!(damage.loss, Loss::Value | Loss::Records))
        {
            assert!(matches!(done, Err(Error::Corrupt { .. })), "{done:?}");
            assert!(!other.exists());
            refused += 1;
        } else {
            assert_eq!(check(&open(&other, &clock)), 6);
        }
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(refused, 2);
}

#[test]
fn a_backup_that_is_cut_short_does_not_open_and_a_whole_one_is_durable() {
    let clock = Clock::manual(1);
    let prepared = || {
        let disk = SimDisk::new();
        let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
        for n in 1..=3 {
            write(&store, n);
        }
        store.compact().unwrap();
        write(&store, 4);
        (disk, store)
    };
    let dest = Path::new("/backup");
    let options = |disk: &SimDisk| {
        Options::new()
            .vfs(Arc::new(disk.clone()))
            .clock(clock.clone())
    };
    let (disk, store) = prepared();
    let before = disk.place();
    store.backup(dest).unwrap();
    let after = disk.place();
    drop(store);
    let mut whole = 0;
    for at in before..=after {
        for names in [Names::Lost, Names::Kept, Names::Any] {
            let seed = u64::try_from(at).unwrap();
            let bytes = Unsynced::Sectors(512);
            let cut = disk.crash_at(at, Cut { seed, bytes, names });
            let backup = options(&cut).create(false).open(dest);
            match backup {
                Ok(backup) => {
                    assert_eq!(check(&backup), 4, "cut at {at}");
                    whole += 1;
                }
                Err(Error::NotAStore { .. } | Error::Io { .. }) => assert!(at < after),
                Err(error) => panic!("cut at {at}: {error}"),
            }
            let store = open_on(&cut, &clock, Durability::Immediate).unwrap();
            assert_eq!(check(&store), 4);
        }
    }
    assert!(whole >= 3, "{whole}");
}

#[test]
fn a_backup_that_fails_leaves_an_empty_directory_and_can_be_tried_again() {
    let clock = Clock::manual(1);
    let (mut failed, dest) = (0, Path::new("/backup"));
    for at in 0.. {
        let disk = SimDisk::new();
        let store = open_alone(&disk, &clock, Durability::Immediate).unwrap();
        write(&store, 1);
        store.compact().unwrap();
        disk.fail(at, Fault::Io, false);
        let done = store.backup(dest);
        let is_poisoned = store.stats().poisoned;
        disk.heal();
        if done.is_ok() {
            break;
        }
        failed += 1;
        if !is_poisoned {
            store.backup(dest).unwrap();
            drop(store);
            let options = Options::new()
                .vfs(Arc::new(disk.clone()))
                .clock(clock.clone());
            assert_eq!(check(&options.open(dest).unwrap()), 1, "failed at {at}");
        }
    }
    assert!(failed > 10, "{failed}");
}

/// The directory of a store belongs to it alone, and with anything else in it the store does not open.
#[test]
fn no_backup_repair_or_restore_goes_into_the_directory_of_what_it_is_made_of() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let options = Options::new().clock(clock.clone());
    let store = open(dir.path(), &clock);
    write(&store, 1);
    let inside = dir.path().join("inside");
    let mut results = vec![store.backup(&inside)];
    drop(store);
    let repaired = options.clone().repair(dir.path(), &inside, |_, _| {});
    results.push(repaired.map(drop));
    results.push(options.restore(dir.path(), &inside, |_, _| {}));
    for result in results {
        assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    }
    assert!(!inside.exists());
    assert_eq!(check(&open(dir.path(), &clock)), 1);
}
