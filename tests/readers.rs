//! Reading a store beside the process that writes it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rimstone::{Clock, Durability, Error, ListOptions, Options, PutOptions, Store};
use rimstone_tests::{Doing, Gate, copy, fresh, numbered_batch, open};
use tempfile::tempdir;

const CHILD: &str = "RIMSTONE_TEST_READ";

fn read(dir: &Path, clock: &Clock) -> Store {
    let options = Options::new().clock(clock.clone());
    options.open_read_only(dir).unwrap()
}

#[test]
fn a_reader_sees_one_instant_and_after_a_refresh_the_next() {
    let (dir, clock, store, ns) = fresh();
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("a", "1", &minute).unwrap();
    ns.put("large", vec![7; 100_000]).unwrap();
    let reader = read(dir.path(), &clock);
    let seen = reader.find_namespace("n").unwrap();
    assert_eq!(seen.id(), ns.id());
    ns.put("a", "2").unwrap();
    ns.delete("large").unwrap();
    ns.put("b", "3").unwrap();
    assert_eq!(&seen.get("a").unwrap().unwrap()[..], b"1");
    assert_eq!(seen.list(&ListOptions::new()).unwrap().len(), 2);
    assert_eq!(reader.stats().last_seqno + 3, store.stats().last_seqno);
    let newer = reader.refresh().unwrap();
    let now = newer.find_namespace("n").unwrap();
    assert_eq!(&now.get("a").unwrap().unwrap()[..], b"2");
    assert_eq!(&now.get("b").unwrap().unwrap()[..], b"3");
    assert!(now.get("large").unwrap().is_none());
    assert_eq!(now.list(&ListOptions::new()).unwrap().len(), 2);
    assert_eq!(&seen.get("a").unwrap().unwrap()[..], b"1");
    // Without anything new it is the same.
    let same = newer.refresh().unwrap();
    assert_eq!(same.stats().last_seqno, newer.stats().last_seqno);
    clock.advance(60);
    assert!(seen.get("a").unwrap().is_none(), "expired");
}

#[test]
fn a_reader_writes_nothing_and_locks_nobody_out() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let files = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> = entries
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect();
        all.sort();
        all
    };
    let missing = Store::open_read_only(dir.path());
    assert!(matches!(missing, Err(Error::Io { .. })));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    ns.put("a", "1").unwrap();
    store.checkpoint().unwrap();
    ns.put("a", "2").unwrap();
    // As a killed process leaves it.
    let dir = copy(dir.path());
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let before = files(dir.path());
    let reader = read(dir.path(), &clock);
    let seen = reader.find_namespace("n").unwrap();
    assert_eq!(&seen.get("a").unwrap().unwrap()[..], b"2");
    assert!(matches!(seen.put("a", "3"), Err(Error::ReadOnly)));
    assert!(matches!(seen.delete("a"), Err(Error::ReadOnly)));
    assert!(matches!(seen.put("a", [0; 100_000]), Err(Error::ReadOnly)));
    assert!(matches!(reader.create_namespace("m"), Err(Error::ReadOnly)));
    assert!(matches!(reader.checkpoint(), Err(Error::ReadOnly)));
    assert!(matches!(reader.compact(), Err(Error::ReadOnly)));
    drop(seen);
    reader.close().unwrap();
    assert!(files(dir.path()) == before);
    let reader = read(dir.path(), &clock);
    let store = open(dir.path(), &clock);
    store.namespace("n").unwrap().put("a", "3").unwrap();
    let newer = reader.refresh().unwrap().find_namespace("n").unwrap();
    assert_eq!(&newer.get("a").unwrap().unwrap()[..], b"3");
}

#[test]
fn a_value_that_was_replaced_under_a_reader_is_outdated_and_not_damaged() {
    let (dir, clock, store, ns) = fresh();
    ns.put("large", vec![1; 100_000]).unwrap();
    let reader = read(dir.path(), &clock);
    let seen = reader.find_namespace("n").unwrap();
    ns.put("large", vec![2; 100_000]).unwrap();
    store.compact().unwrap();
    let got = seen.get("large");
    assert!(matches!(got, Err(Error::Outdated)), "{got:?}");
    let newer = reader.refresh().unwrap().find_namespace("n").unwrap();
    assert_eq!(&newer.get("large").unwrap().unwrap()[..], &[2; 100_000]);
}

#[test]
fn a_large_value_whose_file_is_gone_though_nobody_wrote_is_damage() {
    let (dir, clock, store, ns) = fresh();
    ns.put("large", vec![1; 100_000]).unwrap();
    drop(ns);
    store.close().unwrap();
    // The log ends where its file does.
    let log = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(&log, &bytes[..end.next_multiple_of(8).min(bytes.len())]).unwrap();
    let reader = read(dir.path(), &clock);
    let same = reader.refresh().unwrap();
    assert_eq!(same.stats().last_seqno, reader.stats().last_seqno);
    fs::remove_file(rimstone_tests::newest(dir.path(), "large").unwrap()).unwrap();
    let got = reader.find_namespace("n").unwrap().get("large");
    assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
}

#[test]
fn a_backup_whose_large_values_go_meanwhile_is_of_a_newer_state() {
    let (dir, dest, clock) = (tempdir().unwrap(), tempdir().unwrap(), Clock::manual(1));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    ns.put("large", vec![1; 100_000]).unwrap();
    let reader = read(dir.path(), &clock);
    ns.put("large", vec![2; 100_000]).unwrap();
    store.compact().unwrap();
    reader.backup(dest.path()).unwrap();
    let backup = open(dest.path(), &clock);
    let value = backup.find_namespace("n").unwrap().get("large").unwrap();
    assert_eq!(&value.unwrap()[..], &[2; 100_000]);
}

#[test]
fn a_reader_whose_files_go_while_it_opens_opens_the_newer_ones() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    for round in 0..2 {
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        ns.put("key", format!("before {round}")).unwrap();
    }
    let store = open(dir.path(), &clock);
    store.checkpoint().unwrap();
    let interrupt = move || {
        let ns = store.namespace("n").unwrap();
        for round in 0..3 {
            ns.put("key", format!("after {round}")).unwrap();
            store.compact().unwrap();
            store.checkpoint().unwrap();
        }
    };
    let gate = Gate::default();
    gate.once_listed(interrupt);
    let options = Options::new().clock(clock).vfs(Arc::new(gate));
    let reader = options.open_read_only(dir.path()).unwrap();
    assert_eq!(reader.stats().damage, Vec::<String>::new());
    let ns = reader.find_namespace("n").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"after 2");
}

/// The log, which is read after that, says that its keys moved to a segment that was not listed.
#[test]
fn a_reader_that_listed_the_files_before_a_compaction_misses_no_key() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (writing, reading) = (Gate::default(), Gate::default());
    let options = |gate: &Gate| {
        Options::new()
            .clock(clock.clone())
            .vfs(Arc::new(gate.clone()))
    };
    let store = options(&writing).open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    store.checkpoint().unwrap();
    writing.fail(Doing::Create, ".ckpt");
    for key in 0..40u8 {
        ns.put([key], [key; 1000]).unwrap();
    }
    for key in (0..40u8).step_by(2) {
        ns.delete([key]).unwrap();
    }
    let compacting = store.clone();
    reading.once_listed(move || assert!(compacting.compact().is_err()));
    let reader = options(&reading).open_read_only(dir.path()).unwrap();
    let classes = store.segments().into_iter().filter(|s| s.class.is_some());
    assert!(classes.count() > 0, "its keys moved");
    assert_eq!(reader.stats().damage, Vec::<String>::new());
    let seen = reader.find_namespace("n").unwrap();
    for key in 0..40u8 {
        let value = seen.get([key]).unwrap().map(|value| value.to_vec());
        assert_eq!(value, (key % 2 == 1).then(|| vec![key; 1000]), "{key}");
    }
}

/// Each time something else is wrong: in the end that is what is told.
#[test]
fn a_directory_that_never_looks_the_same_twice_is_refused() {
    let (dir, clock, _store, _ns) = fresh();
    let strange = |n: u32| dir.path().join(format!("strange {n}"));
    fs::write(strange(0), "").unwrap();
    let gate = Gate::default();
    rename_when_listed(&gate, dir.path(), 0);
    let options = Options::new().clock(clock).vfs(Arc::new(gate));
    let refused = options.open_read_only(dir.path());
    let found = match refused.map(drop) {
        Err(Error::NotAStore { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    // It was looked at a hundred times.
    assert_eq!(found, "strange 99");
}

/// Renames a file after each listing of its directory, which others hear of in the next.
fn rename_when_listed(gate: &Gate, dir: &Path, n: u32) {
    let (again, dir) = (gate.clone(), dir.to_path_buf());
    gate.once_listed(move || {
        let name = |n: u32| dir.join(format!("strange {n}"));
        fs::rename(name(n), name(n + 1)).unwrap();
        rename_when_listed(&again, &dir, n + 1);
    });
}

/// Not a test of its own: the process that writes in `a_second_process_follows_one_that_is_killed`. Each
/// batch writes its number under every key; keys come and go, and segments with them.
#[test]
fn child_churns_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let options = Options::new().durability(Durability::None);
    let store = options.open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 1u64.. {
        store.write(numbered_batch(&ns, n, 8, 60_000)).unwrap();
        if n % 40 == 0 {
            store.compact().unwrap();
            store.checkpoint().unwrap();
            let line = format!("written {n}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

#[test]
fn a_second_process_follows_one_that_is_killed() {
    let dir = tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["readers::child_churns_until_it_is_killed", "--exact"])
        .arg("--nocapture")
        .env(CHILD, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut written = lines
        .map_while(|line| line.ok())
        .filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
    written.next().unwrap();
    let mut reader = Store::open_read_only(dir.path()).unwrap();
    let first = check(&reader);
    let (mut last, mut states, mut acknowledged) = (first, 0, 0);
    while states < 20 || acknowledged < first + 160 {
        let oldest = reader.clone();
        for _ in 0..10 {
            reader = reader.refresh().unwrap();
            let now = check(&reader);
            assert!(now >= last, "{now} after {last}");
            states += u64::from(now > last);
            last = now;
        }
        // What was opened long ago still answers, though its segments are gone.
        check(&oldest);
        acknowledged = written.next().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let reader = reader.refresh().unwrap();
    let seen = check(&reader);
    assert!(seen >= acknowledged);
    assert!(reader.stats().damage.is_empty(), "a torn tail is no damage");
    // Whoever recovers comes to the same.
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(check(&store), seen);
    assert_eq!(check(&reader.refresh().unwrap()), seen);
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
    assert!((1..8).all(|key| number(&format!("key {key}")) == n));
    assert_eq!(number(&format!("once {n:08}")), n);
    assert!(ns.get(format!("once {:08}", n + 1)).unwrap().is_none());
    let options = ListOptions::new().prefix("once ").reverse().limit(1);
    let page = ns.list(&options).unwrap();
    let newest = page.keys().next().unwrap().name.to_vec();
    assert_eq!(newest, format!("once {n:08}").into_bytes());
    match ns.get(format!("large {}", n % 3)) {
        Ok(value) => assert_eq!(&value.unwrap()[..], &[9; 70_000]),
        Err(error) => assert!(matches!(error, Error::Outdated), "{error}"),
    }
    n
}
