//! A repair keeps all that can be read, shows nothing that is wrong, and tells the rest.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rimstone::{Clock, Error, ListOptions, Loss, Options, PutOptions, Repaired, Store};
use rimstone_tests::{Doing, Gate, copy, open, open_gated};
use tempfile::{TempDir, tempdir};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A closed store with every kind of file, and what its keys hold. Each value begins with its key.
fn store(clock: &Clock) -> (TempDir, State) {
    let dir = tempdir().unwrap();
    let mut state = State::new();
    for round in 0..4 {
        let store = open(dir.path(), clock);
        let ns = store.namespace("n").unwrap();
        let mut put = |key: String, value: String| {
            ns.put(&key, &value).unwrap();
            state.insert(key.into_bytes(), value.into_bytes());
        };
        for n in 0..30 {
            put(format!("key {n}"), format!("key {n} in round {round}"));
            put(
                format!("r{round} {n}"),
                format!("r{round} {n} {}", "x".repeat(200)),
            );
        }
        put(
            "large".to_owned(),
            format!("large {}", round.to_string().repeat(100_000)),
        );
        let deleted = format!("key {}", 20 + round);
        ns.delete(&deleted).unwrap();
        state.remove(deleted.as_bytes());
        if round < 3 {
            store.compact().unwrap();
            store.checkpoint().unwrap();
        }
        let mut put = |key: String, value: String| {
            ns.put(&key, &value).unwrap();
            state.insert(key.into_bytes(), value.into_bytes());
        };
        put("tail".to_owned(), format!("tail {round}"));
    }
    (dir, state)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| !path.ends_with("LOCK")).collect();
    paths.sort();
    paths
}

fn repair(dir: &Path, clock: &Clock) -> (TempDir, Repaired) {
    let (into, options) = (tempdir().unwrap(), Options::new().clock(clock.clone()));
    let before: Vec<_> = files(dir)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let repaired = options.clone().repair(dir, into.path(), |_, _| {}).unwrap();
    let after: Vec<_> = files(dir)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert!(before == after, "the damaged store stays as it is");
    assert!(options.scrub(into.path(), |_, _| {}).unwrap().is_empty());
    (into, repaired)
}

fn state(dir: &Path, clock: &Clock) -> State {
    let store = open(dir, clock);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let mut state = State::new();
    for ns in store.namespaces() {
        let page = ns.list(&ListOptions::new()).unwrap();
        assert!(page.cursor.is_none());
        for key in page.keys() {
            let value = ns.get(key.name).unwrap().unwrap();
            state.insert(key.name.to_vec(), value.to_vec());
        }
    }
    state
}

/// Repairs a damaged copy and checks that whatever is not as it was is reported. Returns how many keys are
/// missing, how many show an older value, and how many are there again though they were deleted.
fn check(dir: &Path, clock: &Clock, before: &State, what: &str) -> (usize, usize, usize) {
    let (into, repaired) = repair(dir, clock);
    let after = state(into.path(), clock);
    assert_eq!(repaired.entries, after.len() as u64);
    let tells_records = repaired.damage.iter().any(|d| d.loss == Loss::Records);
    let mut counts = (0, 0, 0);
    for (key, value) in before {
        let is_named = repaired.lost.iter().any(|lost| lost.key == *key);
        let shown = String::from_utf8_lossy(key);
        match after.get(key) {
            Some(found) if found == value => assert!(!is_named, "{what}: {shown}"),
            Some(older) => {
                assert!(
                    older.starts_with(key),
                    "{what}: {shown} has another's value"
                );
                assert!(tells_records && !is_named, "{what}: {shown} is older");
                counts.1 += 1;
            }
            None => {
                assert!(is_named || tells_records, "{what}: {shown} is missing");
                counts.0 += 1;
            }
        }
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        assert!(
            tells_records,
            "{what}: {} is back",
            String::from_utf8_lossy(key)
        );
        counts.2 += 1;
    }
    for lost in &repaired.lost {
        assert!(
            !after.contains_key(&lost.key) && lost.namespace == "n",
            "{what}: {lost:?}"
        );
    }
    counts
}

#[test]
fn an_intact_store_is_repaired_to_the_same() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    let (into, repaired) = repair(dir.path(), &clock);
    assert!(
        repaired.damage.is_empty() && repaired.lost.is_empty(),
        "{repaired:?}"
    );
    assert!(repaired.renamed.is_empty());
    assert!(state(into.path(), &clock) == before);
}

#[test]
fn without_anything_derived_nothing_is_lost() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    for path in files(dir.path()) {
        let kind = path.extension().and_then(|e| e.to_str());
        if !matches!(kind, Some("seg" | "large")) {
            fs::write(&path, b"damaged").unwrap();
        }
    }
    let counts = check(dir.path(), &clock, &before, "derived");
    assert_eq!(counts, (0, 0, 0));
}

#[test]
fn whatever_bit_is_flipped_a_repair_keeps_the_rest_and_tells() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    let (mut flips, mut sum) = (0, (0, 0, 0));
    for path in files(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = fs::read(&path).unwrap();
        let len = content
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        for at in (0..len).step_by((len / 10).max(1)) {
            let copy = copy(dir.path());
            let file = OpenOptions::new()
                .write(true)
                .open(copy.path().join(&name))
                .unwrap();
            file.write_all_at(&[content[at] ^ 4], at.try_into().unwrap())
                .unwrap();
            let (missing, older, back) =
                check(copy.path(), &clock, &before, &format!("{name} {at}"));
            // A flipped bit behind a segment's header takes one record.
            if at >= 128 {
                assert!(
                    missing + older + back <= 1,
                    "{name} {at}: {missing} {older} {back}"
                );
            }
            sum = (sum.0 + missing, sum.1 + older, sum.2 + back);
            flips += 1;
        }
    }
    assert!(flips > 70 && sum.0 > 8, "{flips}: {sum:?}");
}

#[test]
fn whatever_file_is_missing_a_repair_keeps_the_rest_and_tells() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    let mut refused = 0;
    for path in files(dir.path()) {
        let copy = copy(dir.path());
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::remove_file(copy.path().join(name)).unwrap();
        let again = rimstone_tests::copy(copy.path());
        let opened = Options::new().clock(clock.clone()).open(again.path());
        refused += u32::from(matches!(opened, Err(Error::Corrupt { .. })));
        drop(opened);
        check(copy.path(), &clock, &before, name);
    }
    assert!(refused > 1, "{refused}");
}

#[test]
fn a_key_that_is_listed_with_a_newer_write_does_not_get_the_older_value() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    for value in ["the old value", "the new value"] {
        ns.put("key", value).unwrap();
    }
    ns.put("other", "value").unwrap();
    store.checkpoint().unwrap();
    drop((ns, store));
    let path = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let mut content = fs::read(&path).unwrap();
    // In the key: nobody can read whose record it is.
    let at = content
        .windows(16)
        .position(|w| w == b"keythe new value")
        .unwrap();
    content[at] ^= 1;
    fs::write(&path, content).unwrap();
    let (into, repaired) = repair(dir.path(), &clock);
    let lost: Vec<_> = repaired.lost.iter().map(|lost| &lost.key[..]).collect();
    assert_eq!(lost, [b"key"]);
    let kept: Vec<_> = state(into.path(), &clock).into_keys().collect();
    assert_eq!(kept, [b"other"]);
}

/// Flips a bit in the key of the only record that holds this, so that nobody can tell whose it is.
fn damage_key(dir: &Path, content: &str) {
    let path = rimstone_tests::newest(dir, "seg").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let places = bytes.windows(content.len());
    let mut places = places.enumerate().filter(|(_, w)| *w == content.as_bytes());
    let (at, _) = places.next().unwrap();
    assert!(places.next().is_none());
    drop(places);
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_key_that_the_checkpoint_knows_a_newer_write_of_does_not_get_the_older_value() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    for n in 0..50 {
        ns.put(format!("key {n}"), "the old value").unwrap();
    }
    store.checkpoint().unwrap();
    for n in 0..50 {
        ns.put(format!("key {n}"), format!("the new value {n}!"))
            .unwrap();
    }
    ns.delete("key 8").unwrap();
    store.checkpoint().unwrap();
    ns.put("key 9", "the newest value").unwrap();
    drop((ns, store));
    damage_key(dir.path(), "key 7the new value 7!");
    damage_key(dir.path(), "key 9the new value 9!");
    // The runs only make it worse if they are gone.
    let run = rimstone_tests::newest(dir.path(), "run").unwrap();
    for _ in 0..2 {
        let (into, repaired) = repair(dir.path(), &clock);
        let lost: Vec<_> = repaired.lost.iter().map(|lost| &lost.key[..]).collect();
        assert_eq!(lost, [b"key 7"]);
        let state = state(into.path(), &clock);
        assert_eq!(state.len(), 48);
        for (key, value) in state {
            let n = String::from_utf8(key).unwrap().replace("key ", "");
            let newest = match n.as_str() {
                "9" => "the newest value".to_owned(),
                _ => format!("the new value {n}!"),
            };
            assert_eq!(value, newest.as_bytes());
        }
        _ = fs::remove_file(&run);
    }
}

#[test]
fn a_key_that_the_checkpoint_knows_to_be_deleted_does_not_come_back() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    ns.put("deleted", "a value").unwrap();
    ns.put("kept", "a value").unwrap();
    ns.delete("deleted").unwrap();
    ns.put("next", "a value").unwrap();
    store.checkpoint().unwrap();
    drop((ns, store));
    let path = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let tombstone = bytes.windows(7).rposition(|w| w == b"deleted").unwrap();
    bytes[tombstone] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (into, repaired) = repair(dir.path(), &clock);
    assert_eq!(repaired.lost, []);
    let records = |d: &&rimstone::Damage| d.loss == Loss::Records;
    assert_eq!(repaired.damage.iter().filter(records).count(), 1);
    let kept: Vec<_> = state(into.path(), &clock).into_keys().collect();
    assert_eq!(kept, [&b"kept"[..], b"next"]);
}

#[test]
fn what_was_moved_since_the_checkpoint_is_kept() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    for round in 0..2 {
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        for n in 0..40 / (round + 1) {
            ns.put(format!("key {n}"), format!("key {n} in round {round}"))
                .unwrap();
        }
    }
    let store = open(dir.path(), &clock);
    store.checkpoint().unwrap();
    let checkpointed = copy(dir.path());
    store.compact().unwrap();
    assert!(
        store
            .segments()
            .iter()
            .any(|segment| segment.class.is_some())
    );
    drop(store);
    let before = state(copy(dir.path()).path(), &clock);
    // As if no checkpoint had been made since.
    let is_derived = |path: &&PathBuf| {
        path.extension()
            .is_none_or(|kind| kind == "ckpt" || kind == "run")
    };
    for path in files(dir.path()).iter().filter(is_derived) {
        fs::remove_file(path).unwrap();
    }
    for path in files(checkpointed.path()).iter().filter(is_derived) {
        fs::copy(path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let (into, repaired) = repair(dir.path(), &clock);
    assert_eq!(repaired.lost, []);
    assert!(state(into.path(), &clock) == before);
}

#[test]
fn a_key_whose_newest_value_is_damaged_is_left_out_and_named() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    let id = ns.id();
    let options = PutOptions::new()
        .metadata("meta")
        .expiration_ttl(Duration::from_secs(500));
    ns.put_with("kept", "a value", &options).unwrap();
    for value in ["the old value", "the new value"] {
        ns.put("key", value).unwrap();
    }
    drop(ns);
    drop(store);
    let path = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let mut content = fs::read(&path).unwrap();
    let at = content
        .windows(13)
        .position(|w| w == b"the new value")
        .unwrap();
    content[at] ^= 1;
    fs::write(&path, content).unwrap();
    let (into, repaired) = repair(dir.path(), &clock);
    assert_eq!(repaired.lost.len(), 1, "{:?}", repaired.lost);
    assert_eq!(repaired.lost[0].key, b"key");
    let store: Store = open(into.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(ns.id(), id);
    assert!(ns.get("key").unwrap().is_none());
    let entry = ns.get_with_metadata("kept").unwrap().unwrap();
    assert_eq!(
        (entry.metadata(), entry.expiration()),
        (&b"meta"[..], Some(1_500))
    );
    let locked = Options::new().repair(into.path(), dir.path().join("x"), |_, _| {});
    assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
}

/// Whether compaction wrote a segment.
fn is_class(path: &Path) -> bool {
    fs::read(path).unwrap()[10] == 2
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "seg")
}

/// What compaction copied is named by checkpoints, too.
#[test]
fn a_store_whose_log_is_gone_keeps_what_was_copied() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    for path in files(dir.path()) {
        if is_segment(&path) && !is_class(&path) {
            fs::remove_file(path).unwrap();
        }
    }
    let opened = Options::new().clock(clock.clone()).open(dir.path());
    assert!(matches!(opened, Err(Error::Corrupt { .. })));
    let (missing, ..) = check(dir.path(), &clock, &before, "the log");
    assert!((1..before.len()).contains(&missing), "{missing}");
    // Without checkpoints nobody knows which of the copies count.
    for path in files(dir.path()) {
        if !is_segment(&path) {
            fs::remove_file(path).unwrap();
        }
    }
    for has_mark in [true, false] {
        let options = Options::new().clock(clock.clone());
        let opened = options.clone().open(dir.path());
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{has_mark}");
        let into = tempdir().unwrap();
        let repaired = options.repair(dir.path(), into.path(), |_, _| {});
        assert!(matches!(repaired, Err(Error::Corrupt { .. })), "{has_mark}");
        assert!(files(dir.path()).iter().all(|path| is_class(path)));
        fs::write(dir.path().join("LOCK"), "").unwrap();
    }
}

#[test]
fn a_store_of_which_no_segment_can_be_read_or_one_is_newer_is_not_repaired() {
    let clock = Clock::manual(1_000);
    let (dir, _) = store(&clock);
    let repaired = |dir: &Path| {
        let (into, options) = (tempdir().unwrap(), Options::new().clock(clock.clone()));
        options.repair(dir, into.path(), |_, _| {}).map(drop)
    };
    let newer = copy(dir.path());
    let path = rimstone_tests::newest(newer.path(), "seg").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crate::recovery::crc32(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
    let refused = repaired(newer.path());
    let is_newer = matches!(refused, Err(Error::UnsupportedFormat { found: 9, .. }));
    assert!(is_newer, "{refused:?}");
    for path in files(dir.path()).iter().filter(|path| is_segment(path)) {
        fs::write(path, "nonsense").unwrap();
    }
    let reason = match repaired(dir.path()) {
        Err(Error::Corrupt {
            reason, offset: 0, ..
        }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason, "no segment can be read");
    let nothing = repaired(tempdir().unwrap().path());
    let is_none = matches!(&nothing, Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound);
    assert!(is_none, "{nothing:?}");
}

#[test]
fn another_stores_checkpoint_says_nothing() {
    let clock = Clock::manual(1_000);
    let (dir, before) = store(&clock);
    let (other, _) = store(&clock);
    for _ in 0..2 {
        let store = open(other.path(), &clock);
        store.checkpoint().unwrap();
    }
    let foreign = rimstone_tests::newest(other.path(), "ckpt").unwrap();
    let place = dir.path().join(foreign.file_name().unwrap());
    assert!(!place.exists());
    fs::copy(&foreign, &place).unwrap();
    assert_eq!(check(dir.path(), &clock, &before, "foreign"), (0, 0, 0));
}

/// The log says that a segment was given up which the newest checkpoint names.
#[test]
fn copies_that_were_given_up_since_the_checkpoint_do_not_come_back() {
    let (dir, clock, gate) = (tempdir().unwrap(), Clock::manual(1_000), Gate::default());
    let (store, ns) = open_gated(dir.path(), &clock, &gate);
    for round in 0..2 {
        for n in 0..40 {
            ns.put(format!("key {n}"), format!("key {n} in round {round}"))
                .unwrap();
        }
        for n in (0..40).step_by(2) {
            ns.delete(format!("key {n}")).unwrap();
        }
        gate.open();
        if round == 1 {
            gate.fail(Doing::Create, ".ckpt");
        }
        let compacted = store.compact();
        assert_eq!(compacted.is_ok(), round == 0, "{compacted:?}");
        let is_copied = |segment: &rimstone::SegmentSpace| segment.class.is_some();
        assert_eq!(store.segments().iter().filter(|s| is_copied(s)).count(), 1);
    }
    let killed = copy(dir.path());
    let copies = files(killed.path()).into_iter();
    let copies = copies.filter(|path| is_segment(path) && is_class(path));
    assert_eq!(copies.count(), 2, "one is retired, and still there");
    let (into, repaired) = repair(killed.path(), &clock);
    assert_eq!(repaired.lost, []);
    let expected = |n: u32| {
        let (key, value) = (format!("key {n}"), format!("key {n} in round 1"));
        (key.into_bytes(), value.into_bytes())
    };
    let expected: State = (1..40).step_by(2).map(expected).collect();
    assert_eq!(state(into.path(), &clock), expected);
}

/// The record that gave a segment up is damaged. The one before it says that the segment is part of the store; but
/// a checkpoint knows better, and the tombstones of what the segment holds are gone with it.
#[test]
fn copies_that_the_checkpoint_knows_to_be_given_up_do_not_come_back() {
    let (dir, clock, gate) = (tempdir().unwrap(), Clock::manual(1_000), Gate::default());
    let (store, ns) = open_gated(dir.path(), &clock, &gate);
    for n in 0..40 {
        ns.put(format!("key {n}"), "a value").unwrap();
    }
    for n in (0..40).step_by(2) {
        ns.delete(format!("key {n}")).unwrap();
    }
    store.compact().unwrap();
    for n in (1..40).step_by(2) {
        ns.delete(format!("key {n}")).unwrap();
    }
    gate.fail(Doing::Create, ".ckpt");
    assert!(store.compact().is_err());
    gate.open();
    ns.put("kept", "a value").unwrap();
    store.checkpoint().unwrap();
    // Which says that all before it was durable.
    ns.put("next", "a value").unwrap();
    let killed = copy(dir.path());
    let classes = files(killed.path()).into_iter();
    let classes = classes.filter(|path| is_segment(path) && is_class(path));
    assert_eq!(classes.count(), 1, "it is retired, and still there");
    assert_eq!(damage_retirements(killed.path()), 1);
    // The runs only hide it.
    for _ in 0..2 {
        let (into, repaired) = repair(killed.path(), &clock);
        assert_eq!(repaired.lost, []);
        let kept: Vec<_> = state(into.path(), &clock).into_keys().collect();
        assert_eq!(kept, [b"kept", b"next"]);
        let runs = files(killed.path()).into_iter();
        for run in runs.filter(|path| path.extension().is_some_and(|kind| kind == "run")) {
            fs::remove_file(run).unwrap();
        }
    }
}

/// Flips a bit in the body of each record of the newest segment that retires others, and returns how many there are.
fn damage_retirements(dir: &Path) -> usize {
    let path = rimstone_tests::newest(dir, "seg").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let (mut at, mut count) = (128, 0);
    // As in docs/format.md: kind, length of the key, length of the body.
    while bytes[at + 4] != 0 {
        let key_len = u16::from_le_bytes(bytes[at + 6..at + 8].try_into().unwrap());
        let body_len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        let end = at + 64 + usize::from(key_len) + usize::try_from(body_len).unwrap();
        if bytes[at + 4] == 6 {
            bytes[end - 1] ^= 1;
            count += 1;
        }
        at = end.next_multiple_of(8);
    }
    fs::write(&path, bytes).unwrap();
    count
}

fn remove_what_is_derived(dir: &Path) {
    for path in files(dir) {
        let kind = path.extension().and_then(|e| e.to_str());
        if !matches!(kind, Some("seg" | "large")) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// What one process does, in a segment of its own.
fn session(dir: &Path, clock: &Clock, act: &dyn Fn(&Store)) {
    let store = open(dir, clock);
    act(&store);
    store.close().unwrap();
}

/// Its tombstone is read after the put that is newer: what was copied comes first.
#[test]
fn a_key_that_was_deleted_put_again_and_copied_is_listed() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let session = |act: &dyn Fn(&Store)| session(dir.path(), &clock, act);
    session(&|store| {
        let ns = store.namespace("n").unwrap();
        ns.put("key", "old").unwrap();
        for n in 0..20 {
            ns.put(format!("full {n}"), [7; 60_000]).unwrap();
        }
    });
    session(&|store| {
        let ns = store.namespace("n").unwrap();
        ns.delete("key").unwrap();
        for n in 20..40 {
            ns.put(format!("full {n}"), [7; 60_000]).unwrap();
        }
    });
    session(&|store| {
        let ns = store.namespace("n").unwrap();
        ns.put("key", "new").unwrap();
        for _ in 0..40 {
            ns.put("hot", [7; 60_000]).unwrap();
        }
        store.compact().unwrap();
        let mut classes = store.segments().into_iter();
        assert!(classes.any(|segment| segment.class.is_some()));
    });
    remove_what_is_derived(dir.path());
    let (into, repaired) = repair(dir.path(), &clock);
    assert_eq!(repaired.entries, 42);
    assert_eq!(state(into.path(), &clock)[&b"key"[..]], b"new");
}

#[test]
fn keys_of_a_namespace_whose_record_is_damaged_are_kept_under_another_name() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("the name of it").unwrap();
    ns.put("key", "value").unwrap();
    drop(ns);
    store.close().unwrap();
    remove_what_is_derived(dir.path());
    let log = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let name = b"the name of it";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at] ^= 1;
    fs::write(&log, bytes).unwrap();
    let (into, repaired) = repair(dir.path(), &clock);
    let [name] = &repaired.renamed[..] else {
        panic!("{:?}", repaired.renamed)
    };
    let store = open(into.path(), &clock);
    let ns = store.find_namespace(name).unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"value");
}

/// The segment in which it was put was in use when the checkpoint was made, the one in which it was deleted came later,
/// and the log says of both that nothing is needed of them.
#[test]
fn a_key_that_was_deleted_since_the_checkpoint_does_not_come_back_when_both_segments_were_given_up()
{
    let (dir, clock, gate) = (tempdir().unwrap(), Clock::manual(1), Gate::default());
    for round in 0..3 {
        let (store, ns) = open_gated(dir.path(), &clock, &gate);
        match round {
            0 => assert!(ns.put("key", "value").is_ok()),
            1 => store.checkpoint().unwrap(),
            _ => assert!(ns.delete("key").unwrap()),
        }
        drop(ns);
        store.close().unwrap();
    }
    let (store, ns) = open_gated(dir.path(), &clock, &gate);
    ns.put("other", "value").unwrap();
    gate.fail(Doing::Create, ".ckpt");
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    let killed = copy(dir.path());
    let holds = |path: &PathBuf| {
        is_segment(path) && fs::read(path).unwrap().windows(8).any(|w| w == b"keyvalue")
    };
    assert!(
        files(killed.path()).iter().any(holds),
        "its file waits to be removed"
    );
    let (into, _) = repair(killed.path(), &clock);
    let after = state(into.path(), &clock);
    assert_eq!(after.into_keys().collect::<Vec<_>>(), [b"other"]);
}

#[test]
fn a_segment_that_is_gone_is_named_once() {
    let clock = Clock::manual(1_000);
    let (dir, _) = store(&clock);
    drop(open(dir.path(), &clock));
    let segments = files(dir.path())
        .into_iter()
        .filter(|path| is_segment(path));
    let (classes, fronts): (Vec<_>, Vec<_>) = segments.partition(|path| is_class(path));
    for gone in [classes.last(), fronts.last()] {
        let gone = gone.unwrap().file_name().unwrap();
        let harmed = copy(dir.path());
        fs::remove_file(harmed.path().join(gone)).unwrap();
        // Beside other damage.
        let run = rimstone_tests::newest(harmed.path(), "run").unwrap();
        fs::write(run, "damaged").unwrap();
        let (_, repaired) = repair(harmed.path(), &clock);
        let named = repaired
            .damage
            .iter()
            .filter(|damage| damage.path.ends_with(gone));
        let named: Vec<_> = named.map(|damage| damage.offset).collect();
        assert_eq!(named, [0], "{gone:?}: {:?}", repaired.damage);
    }
}

/// Its clock is behind that of who wrote.
#[test]
fn what_had_expired_when_the_log_ended_does_not_come_back() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    for key in ["key", "later"] {
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
        ns.put_with(key, "value", &minute).unwrap();
        drop(ns);
        store.close().unwrap();
        clock.advance(60);
    }
    remove_what_is_derived(dir.path());
    let behind = Clock::manual(1_000);
    let (into, _) = repair(dir.path(), &behind);
    let kept: Vec<_> = state(into.path(), &behind).into_keys().collect();
    assert_eq!(kept, [b"later"]);
}

/// Somebody put back what was lost and found; the segment in which the key was deleted is not among it.
#[test]
fn a_segment_that_no_checkpoint_knows_any_more_does_not_count() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let session = |act: &dyn Fn(&Store)| session(dir.path(), &clock, act);
    session(&|store| {
        store.namespace("n").unwrap().put("key", "value").unwrap();
    });
    let path = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let bytes = fs::read(&path).unwrap();
    session(&|store| {
        store.namespace("n").unwrap().delete("key").unwrap();
    });
    session(&|store| {
        store.namespace("n").unwrap().put("other", "value").unwrap();
        store.compact().unwrap();
    });
    assert!(!path.exists());
    fs::write(&path, bytes).unwrap();
    let (into, _) = repair(dir.path(), &clock);
    let kept: Vec<_> = state(into.path(), &clock).into_keys().collect();
    assert_eq!(kept, [b"other"]);
    assert_eq!(state(dir.path(), &clock).len(), 1);
    assert!(!path.exists(), "and is removed");
}
