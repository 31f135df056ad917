//! Checkpoints: what opening replays, and what it does when one of its files is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use rimstone::{Clock, Error, ListOptions, Loss, Namespace, Options, Store, WriteBatch};
use rimstone_tests::{copy, fresh, newest, open};
use tempfile::tempdir;

/// A store with keys before its first checkpoint, between both, and after the second.
fn three_parts(dir: &Path, clock: &Clock) -> (Store, Namespace) {
    let store = open(dir, clock);
    let ns = store.namespace("n").unwrap();
    for part in 0..3 {
        for n in 0..100 {
            ns.put(format!("{part}:{n:03}"), format!("value {part} {n}"))
                .unwrap();
        }
        ns.put("shared", format!("{part}")).unwrap();
        ns.delete(format!("{part}:050")).unwrap();
        if part < 2 {
            store.checkpoint().unwrap();
        }
    }
    (store, ns)
}

fn assert_three_parts(store: &Store) {
    let ns = store.find_namespace("n").unwrap();
    for part in 0..3 {
        for n in 0..100 {
            let value = ns.get(format!("{part}:{n:03}")).unwrap();
            let expected = (n != 50).then(|| format!("value {part} {n}").into_bytes());
            assert_eq!(value.map(|v| v.to_vec()), expected, "{part}:{n:03}");
        }
    }
    assert_eq!(&ns.get("shared").unwrap().unwrap()[..], b"2");
    assert_eq!(ns.list(&ListOptions::new()).unwrap().len(), 298);
    let reverse = ns.list(&ListOptions::new().reverse().limit(2)).unwrap();
    let names: Vec<_> = reverse.keys().map(|k| k.name.to_vec()).collect();
    assert_eq!(names, [b"shared".to_vec(), b"2:099".to_vec()]);
}

#[test]
fn a_killed_store_opens_from_its_checkpoint_and_the_log_behind_it() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, _ns) = three_parts(dir.path(), &clock);
    let seqno = store.stats().checkpoint_seqno;
    assert!(seqno > 0);
    let killed = copy(dir.path());
    let store = open(killed.path(), &clock);
    assert_three_parts(&store);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    assert_eq!(store.stats().checkpoint_seqno, seqno);
}

#[test]
fn only_two_checkpoints_and_the_runs_they_need_are_kept() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, ns) = three_parts(dir.path(), &clock);
    for n in 0..20 {
        ns.put(format!("more {n}"), "value").unwrap();
        store.checkpoint().unwrap();
    }
    let count = |kind| {
        let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        names
            .filter(|path| path.extension().is_some_and(|e| e == kind))
            .count()
    };
    assert_eq!(count("ckpt"), 2);
    assert!(count("run") <= 20, "{} runs", count("run"));
    assert!(store.stats().runs <= 9, "{} runs", store.stats().runs);
}

/// Damages or removes one file of a killed store, and says what opening it reports.
fn opened_after(harm: impl Fn(&Path)) -> (Store, tempfile::TempDir) {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (_store, _ns) = three_parts(dir.path(), &clock);
    let killed = copy(dir.path());
    harm(killed.path());
    let store = open(killed.path(), &clock);
    assert_three_parts(&store);
    (store, killed)
}

/// Flips one bit at each of a hundred places of a file, one at a time.
fn flipped(path: &Path, mut test: impl FnMut()) {
    let bytes = fs::read(path).unwrap();
    for step in 0..100 {
        let mut damaged = bytes.clone();
        let at = step * (bytes.len() - 1) / 99;
        damaged[at] ^= 1 << (step % 8);
        fs::write(path, damaged).unwrap();
        test();
    }
}

#[test]
fn a_damaged_checkpoint_costs_time_and_no_key() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (_store, _ns) = three_parts(dir.path(), &clock);
    let killed = copy(dir.path());
    let path = newest(killed.path(), "ckpt").unwrap();
    let mut reported = 0;
    flipped(&path, || {
        let copy = copy(killed.path());
        let store = open(copy.path(), &clock);
        assert_three_parts(&store);
        reported += u32::from(!store.stats().damage.is_empty());
    });
    // What lies between the header and the first partition is not used.
    assert!(reported > 90, "{reported}");
}

#[test]
fn damage_to_current_is_reported_once_and_repaired() {
    let (store, dir) = opened_after(|dir| fs::write(dir.join("CURRENT"), "nonsense").unwrap());
    assert_eq!(store.stats().damage.len(), 1);
    drop(store);
    let store = open(dir.path(), &Clock::manual(1));
    assert_eq!(store.stats().damage, Vec::<String>::new());
}

#[test]
fn of_two_checkpoints_the_newer_is_the_one_that_is_named_again() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, _ns) = three_parts(dir.path(), &clock);
    assert_eq!(fresh().2.stats().checkpoint_seqno, 0, "there is none");
    store.checkpoint().unwrap();
    let killed = copy(dir.path());
    let current = killed.path().join("CURRENT");
    let named = fs::read(&current).unwrap();
    fs::write(&current, "nonsense").unwrap();
    assert_three_parts(&open(killed.path(), &clock));
    assert_eq!(fs::read(current).unwrap(), named);
}

#[test]
fn a_missing_current_is_what_a_crash_in_the_first_checkpoint_leaves() {
    let (store, _dir) = opened_after(|dir| fs::remove_file(dir.join("CURRENT")).unwrap());
    assert_eq!(store.stats().damage, Vec::<String>::new());
}

#[test]
fn a_missing_or_damaged_run_is_rebuilt_from_the_log() {
    let (store, _dir) = opened_after(|dir| {
        for path in runs(dir) {
            fs::remove_file(path).unwrap();
        }
    });
    assert_eq!(store.stats().damage.len(), 1);
    let (store, _dir) = opened_after(|dir| {
        for path in runs(dir) {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    });
    assert_eq!(store.stats().damage.len(), 1);
}

/// All of them: the newest may be one that no checkpoint names yet.
fn runs(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let runs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "run"))
        .collect();
    assert!(!runs.is_empty());
    runs
}

#[test]
fn without_any_derived_file_the_log_is_enough() {
    let (store, _dir) = opened_after(|dir| {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "seg") {
                fs::remove_file(path).unwrap();
            }
        }
    });
    assert_eq!(store.stats().damage, Vec::<String>::new());
}

#[test]
fn a_checkpoint_is_taken_while_writers_go_on_and_holds_one_moment() {
    let (dir, clock, store, ns) = fresh();
    // Each round writes the same number to every key, one key after the other.
    let round = |n: u32| {
        for key in 0..500u32 {
            ns.put(key.to_le_bytes(), n.to_le_bytes()).unwrap();
        }
    };
    round(0);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..200).for_each(round));
        for _ in 0..10 {
            store.checkpoint().unwrap();
            let killed = copy(dir.path());
            let store = open(killed.path(), &clock);
            let ns = store.find_namespace("n").unwrap();
            let value = |key: u32| {
                let value = ns.get(key.to_le_bytes()).unwrap().unwrap();
                u32::from_le_bytes(value[..].try_into().unwrap())
            };
            let values: Vec<_> = (0..500).map(value).collect();
            // A prefix of the history: one step down, of one, somewhere.
            assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
            assert!(values[0] - values[499] <= 1, "{values:?}");
            // A slot from after the checkpoint would be met again, and doubled, by replay.
            assert_eq!(store.stats().keys, 500);
            assert_eq!(store.stats().damage, Vec::<String>::new());
        }
    });
}

#[test]
fn a_flipped_bit_in_a_run_fails_the_list_until_the_store_is_opened_again() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (_store, _ns) = three_parts(dir.path(), &clock);
    let killed = copy(dir.path());
    for path in runs(killed.path()) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[70] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let store = open(killed.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    let error = ns.list(&ListOptions::new()).err();
    assert!(matches!(error, Some(Error::Corrupt { .. })), "{error:?}");
    assert_eq!(&ns.get("shared").unwrap().unwrap()[..], b"2");
    drop((store, ns));
    for path in runs(killed.path()) {
        fs::remove_file(path).unwrap();
    }
    assert_three_parts(&open(killed.path(), &clock));
}

/// A store whose table is too large to be verified while it is opened.
fn many_keys(dir: &Path, clock: &Clock) {
    let store = open(dir, clock);
    let ns = store.namespace("n").unwrap();
    for batch in 0..100u32 {
        let mut writes = WriteBatch::new();
        for n in 0..5_000 {
            writes.put(&ns, key(batch * 5_000 + n), b"value");
        }
        store.write(writes).unwrap();
        if batch == 90 {
            store.checkpoint().unwrap();
        }
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
}

fn key(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

#[test]
fn a_large_table_that_is_damaged_says_so_and_the_next_open_heals_it() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    many_keys(dir.path(), &clock);
    let path = newest(dir.path(), "ckpt").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // In the table's middle, where no partition begins or ends at once.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();

    let store = open(dir.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    let mut lost = Vec::new();
    for n in 0..500_000 {
        match ns.get(key(n)) {
            Ok(value) => assert_eq!(&value.unwrap()[..], b"value", "{n}"),
            Err(Error::Corrupt { .. }) => lost.push(n),
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert!((1..5_000).contains(&lost.len()), "{} keys", lost.len());
    // Nothing may be written where nobody knows what is there, nor saved.
    let refused = ns.put(key(lost[0]), b"new").unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
    assert!(matches!(
        ns.delete(key(lost[0])),
        Err(Error::Corrupt { .. })
    ));
    assert!(matches!(store.checkpoint(), Err(Error::Corrupt { .. })));
    assert_eq!(store.stats().damage.len(), 1, "{:?}", store.stats().damage);
    let other = (0..500_000).find(|n| !lost.contains(n)).unwrap();
    ns.put(key(other), b"newer").unwrap();
    store.close().unwrap();
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let left = names.filter(|path| path.extension().is_some_and(|e| e == "ckpt"));
    assert_eq!(left.count(), 1, "the older one stays, the damaged one goes");

    let store = open(dir.path(), &clock);
    assert!(store.stats().checkpoint_seqno > 0);
    let ns = store.find_namespace("n").unwrap();
    for n in 0..500_000 {
        let expected = if n == other { &b"newer"[..] } else { b"value" };
        assert_eq!(&ns.get(key(n)).unwrap().unwrap()[..], expected, "{n}");
    }
    assert_eq!(store.stats().damage, Vec::<String>::new());
}

#[test]
fn a_large_table_is_whole_when_it_is_opened_changed_and_saved_again() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    many_keys(dir.path(), &clock);
    for round in 0..3u32 {
        let store = open(dir.path(), &clock);
        let ns = store.find_namespace("n").unwrap();
        for n in (round * 10..500_000).step_by(1_000) {
            ns.put(key(n), round.to_le_bytes()).unwrap();
            ns.delete(key(n + 1)).unwrap();
        }
        store.checkpoint().unwrap();
        store.close().unwrap();
    }
    let store = open(dir.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(store.stats().keys, 500_000 - 1_500);
    for n in 0..500_000 {
        let value = ns.get(key(n)).unwrap().map(|value| value.to_vec());
        let expected = match (n % 1_000, n % 10) {
            (0 | 10 | 20, _) => Some((n % 1_000 / 10).to_le_bytes().to_vec()),
            (1 | 11 | 21, _) => None,
            _ => Some(b"value".to_vec()),
        };
        assert_eq!(value, expected, "{n}");
    }
}

/// Where the log changes a key of a damaged page, opening begins again from the checkpoint before.
#[test]
fn a_large_table_that_is_damaged_where_the_log_goes_on_costs_its_checkpoint() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    many_keys(dir.path(), &clock);
    let harm = |dir: &Path| {
        let path = newest(dir, "ckpt").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let damaged = copy(dir.path());
    harm(damaged.path());
    let lost = {
        let store = open(damaged.path(), &clock);
        let ns = store.find_namespace("n").unwrap();
        (0..500_000).find(|n| ns.get(key(*n)).is_err()).unwrap()
    };
    for is_durable in [false, true] {
        let killed = copy(dir.path());
        let store = open(killed.path(), &clock);
        let ns = store.find_namespace("n").unwrap();
        ns.put(key(lost), b"newer").unwrap();
        if is_durable {
            store.sync().unwrap();
            ns.put("another", b"value").unwrap();
        }
        let killed = copy(killed.path());
        harm(killed.path());
        let store = open(killed.path(), &clock);
        assert_eq!(store.stats().damage.len(), 1, "{:?}", store.stats().damage);
        let ns = store.find_namespace("n").unwrap();
        assert_eq!(&ns.get(key(lost)).unwrap().unwrap()[..], b"newer");
        for n in (0..500_000).step_by(97).filter(|n| *n != lost) {
            assert_eq!(&ns.get(key(n)).unwrap().unwrap()[..], b"value", "{n}");
        }
    }
}

/// The log has all of them; of keys in a damaged page of the table it alone decides.
#[test]
fn a_repair_beside_a_large_table_that_is_damaged_keeps_every_key() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    many_keys(dir.path(), &clock);
    let path = newest(dir.path(), "ckpt").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (into, options) = (tempdir().unwrap(), Options::new().clock(clock.clone()));
    let repaired = options.repair(dir.path(), into.path(), |_, _| {}).unwrap();
    assert_eq!((repaired.entries, &repaired.lost[..]), (500_000, &[][..]));
    let nothing = |damage: &rimstone::Damage| damage.loss == Loss::Nothing;
    assert!(repaired.damage.iter().all(nothing), "{:?}", repaired.damage);
    let store = open(into.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    for n in (0..500_000).step_by(97) {
        assert_eq!(&ns.get(key(n)).unwrap().unwrap()[..], b"value", "{n}");
    }
}
