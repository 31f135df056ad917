//! Damage hides a value, and never uncovers an older one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rimstone::{
    Clock, Error, ListOptions, Namespace, Options, PutOptions, SegmentSpace, Store, WriteBatch,
};
use rimstone_tests::{Doing, Gate, copy, open_gated};
use tempfile::{TempDir, tempdir};

/// More than the hour that expired data is kept, in case the clock was wrong.
const LATER: u64 = 4_000;

fn open(dir: &Path, clock: &Clock) -> (Store, Namespace) {
    let store = rimstone_tests::open(dir, clock);
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// Flips a bit of the byte `at` of the only place in the log that holds these bytes.
fn flip(dir: &Path, bytes: &str, at: usize) {
    let mut flipped = 0;
    for path in segments(dir) {
        let log = fs::read(&path).unwrap();
        let mut windows = log.windows(bytes.len());
        if let Some(place) = windows.position(|w| w == bytes.as_bytes()) {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let (byte, place) = (log[place + at] ^ 1, u64::try_from(place + at).unwrap());
            file.write_all_at(&[byte], place).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect()
}

/// Leaves the log alone.
fn remove_what_is_derived(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg") {
            fs::remove_file(path).unwrap();
        }
    }
}

fn assert_damaged(store: &Store, ns: &Namespace, key: &str) {
    let got = ns.get(key);
    assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
    let page = ns.list(&ListOptions::new()).unwrap();
    assert!(page.keys().any(|listed| listed.name == key.as_bytes()));
    assert!(!store.stats().poisoned);
}

fn a_flipped_bit_hides_the_value(has_checkpoint: bool) {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, ns) = open(dir.path(), &clock);
    for (key, value) in [("key", "old"), ("key", "the new one"), ("other", "value")] {
        ns.put(key, value).unwrap();
    }
    if has_checkpoint {
        store.checkpoint().unwrap();
    }
    drop(ns);
    store.close().unwrap();
    flip(dir.path(), "the new one", 5);
    for _ in 0..2 {
        let (store, ns) = open(dir.path(), &clock);
        assert_damaged(&store, &ns, "key");
        assert_eq!(&ns.get("other").unwrap().unwrap()[..], b"value");
    }
    remove_what_is_derived(dir.path());
    let (store, ns) = open(dir.path(), &clock);
    assert_eq!(store.stats().damage.len(), 1);
    assert_damaged(&store, &ns, "key");
    // A new value heals the key.
    ns.put("key", "newer").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"newer");
}

/// Puts zeros where the record of a key lies, whose value is so many times `v`.
fn erase(dir: &Path, key: &str, body: usize) {
    let [path] = &segments(dir)[..] else {
        panic!("the log is one segment")
    };
    let record = [key.as_bytes(), &vec![b'v'; body]].concat();
    let log = fs::read(path).unwrap();
    let place = log.windows(record.len()).position(|w| w == record);
    let place = place.unwrap() - 64;
    let zeros = vec![0; (64 + record.len()).next_multiple_of(8)];
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&zeros, u64::try_from(place).unwrap())
        .unwrap();
}

#[test]
fn what_lies_behind_zeros_in_the_log_is_found() {
    let clock = Clock::manual(1);
    for body in (0..200).step_by(8) {
        let dir = tempdir().unwrap();
        let (store, ns) = open(dir.path(), &clock);
        for key in ["the first", "the second", "the third"] {
            ns.put(key, vec![b'v'; body]).unwrap();
        }
        drop(ns);
        store.close().unwrap();
        erase(dir.path(), "the second", body);
        remove_what_is_derived(dir.path());
        let (store, ns) = open(dir.path(), &clock);
        assert_eq!(store.stats().damage.len(), 1, "{body}");
        for key in ["the first", "the third"] {
            assert_eq!(ns.get(key).unwrap().unwrap().len(), body);
        }
    }
}

#[test]
fn a_flipped_bit_in_a_value_never_serves_the_older_one() {
    a_flipped_bit_hides_the_value(false);
}

#[test]
fn a_flipped_bit_in_a_value_behind_a_checkpoint_never_serves_the_older_one() {
    a_flipped_bit_hides_the_value(true);
}

/// What a process leaves that was killed after it retired a segment, before the next checkpoint.
fn killed_after_a_retirement(clock: &Clock, keys: usize) -> TempDir {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    drop(open(dir.path(), clock));
    let (store, ns) = open(dir.path(), clock);
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    for n in 0..keys {
        ns.put_with(format!("key {n}"), format!("value {n}"), &minute)
            .unwrap();
    }
    store.checkpoint().unwrap();
    drop((store, ns));
    let (store, ns) = open_gated(dir.path(), clock, &gate);
    ns.put("other", "value").unwrap();
    clock.advance(LATER);
    gate.fail(Doing::Create, ".ckpt");
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    copy(dir.path())
}

#[test]
fn a_retirement_that_is_replayed_takes_each_key_along() {
    for keys in [1, 3] {
        let clock = Clock::manual(1);
        let dir = killed_after_a_retirement(&clock, keys);
        let (store, _ns) = open(dir.path(), &clock);
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert_eq!(store.stats().keys, 1, "of {keys}");
    }
}

#[test]
fn a_retirement_replayed_over_damage_leaves_a_store_that_opens_again() {
    // The key, then the value.
    for at in [2, 8] {
        let clock = Clock::manual(1);
        let dir = killed_after_a_retirement(&clock, 3);
        flip(dir.path(), "key 1value 1", at);
        let (store, ns) = open(dir.path(), &clock);
        for n in 0..3 {
            assert!(ns.get(format!("key {n}")).unwrap().is_none());
        }
        for _ in 0..3 {
            store.checkpoint().unwrap();
        }
        drop((store, ns));
        let (store, ns) = open(dir.path(), &clock);
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert_eq!(&ns.get("other").unwrap().unwrap()[..], b"value");
    }
}

#[test]
fn an_expiring_put_over_a_damaged_record_revives_nothing() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    for (other, value) in [("one", "version 0"), ("two", "version 1")] {
        let (_store, ns) = open(dir.path(), &clock);
        // So much that compaction leaves the segment where it is.
        for n in 0..20 {
            ns.put(format!("{other} {n}"), [7; 60_000]).unwrap();
        }
        ns.put("key", value).unwrap();
    }
    let (store, ns) = open(dir.path(), &clock);
    flip(dir.path(), "keyversion 1", 1);
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("key", "version 2", &minute).unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"version 2");
    drop((store, ns));
    let (store, ns) = open(dir.path(), &clock);
    clock.advance(LATER);
    store.compact().unwrap();
    drop((store, ns));
    remove_what_is_derived(dir.path());
    let (_store, ns) = open(dir.path(), &clock);
    assert_eq!(ns.get("key").unwrap(), None);
    assert!(ns.get("one 0").unwrap().is_some());
}

#[test]
fn a_condition_over_a_damaged_record_fails() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    let generation = ns.put("key", "first owner").unwrap();
    flip(dir.path(), "keyfirst owner", 1);
    let absent = PutOptions::new().if_absent();
    let same = PutOptions::new().if_generation(generation);
    for condition in [absent, same] {
        let put = ns.put_with("key", "second owner", &condition);
        assert!(matches!(put, Err(Error::Corrupt { .. })), "{put:?}");
    }
    assert!(matches!(ns.get("key"), Err(Error::Corrupt { .. })));
    ns.put("key", "whoever").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"whoever");
}

/// Writes an entry twice with the metadata `new`, damages the first of these records, and lists. The second
/// says that a list shows nothing of it, which is not so any more.
fn a_list_after_damage_shows_the_newest_metadata(of: &str, has_checkpoint: bool) {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, ns) = open(dir.path(), &clock);
    let put = |value: &str, metadata: &str| {
        let options = PutOptions::new().metadata(metadata);
        ns.put_with("key", value, &options).unwrap();
    };
    put("first", "old");
    if has_checkpoint {
        store.checkpoint().unwrap();
    }
    put("second", "new");
    put("third", "new");
    drop(ns);
    store.close().unwrap();
    flip(dir.path(), &format!("{of}newsecond"), 0);
    for _ in 0..2 {
        let (store, ns) = open(dir.path(), &clock);
        let page = ns.list(&ListOptions::new()).unwrap();
        let listed: Vec<_> = page.keys().map(|key| key.metadata).collect();
        assert_eq!(listed, [b"new"]);
        assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"third");
        drop(ns);
        store.close().unwrap();
    }
}

#[test]
fn a_list_shows_the_newest_metadata_after_a_record_was_lost() {
    for has_checkpoint in [false, true] {
        a_list_after_damage_shows_the_newest_metadata("key", has_checkpoint);
    }
}

#[test]
fn a_list_shows_the_newest_metadata_after_metadata_was_damaged() {
    for has_checkpoint in [false, true] {
        a_list_after_damage_shows_the_newest_metadata("", has_checkpoint);
    }
}

/// A put compares its metadata with what the log holds only as far as that is verified.
#[test]
fn a_put_over_damaged_metadata_is_listed_with_its_own() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path(), &Clock::manual(1));
    let put = |metadata: &str| {
        let options = PutOptions::new().metadata(metadata);
        ns.put_with("key", "value", &options).unwrap();
    };
    put("abc");
    flip(dir.path(), "abcvalue", 0);
    put("`bc");
    let page = ns.list(&ListOptions::new()).unwrap();
    assert_eq!(page.keys().next().unwrap().metadata, b"`bc");
    drop(store);
}

/// Where the log is damaged, nothing that it does not name is removed: a repair may still want it.
#[test]
fn a_large_value_whose_record_is_damaged_keeps_its_file() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, ns) = open(dir.path(), &clock);
    ns.put("large key", vec![1; 100_000]).unwrap();
    store.sync().unwrap();
    ns.put("later", "which says that it was durable").unwrap();
    let killed = copy(dir.path());
    drop((store, ns));
    flip(killed.path(), "large key", 0);
    let is_large = |path: &Path| path.extension().is_some_and(|e| e == "large");
    for _ in 0..2 {
        drop(open(killed.path(), &clock));
        let files = fs::read_dir(killed.path()).unwrap();
        assert_eq!(
            files
                .filter(|e| is_large(&e.as_ref().unwrap().path()))
                .count(),
            1
        );
    }
}

/// What a process leaves that was killed after it moved the newest value of a key, and retired its segment, before
/// the next checkpoint. The one before it knows the older value.
fn killed_after_a_move(clock: &Clock) -> TempDir {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), clock);
    ns.put("key", "the old value").unwrap();
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    let (store, ns) = open_gated(dir.path(), clock, &gate);
    ns.put("key", "the new value").unwrap();
    for _ in 0..2 {
        ns.put("other", [7; 1000]).unwrap();
    }
    gate.fail(Doing::Create, ".ckpt");
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    copy(dir.path())
}

/// The segments that hold these bytes, in the order in which they were made.
fn holding(dir: &Path, bytes: &str) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let log = fs::read(path).unwrap();
        log.windows(bytes.len()).any(|w| w == bytes.as_bytes())
    };
    let mut found: Vec<_> = segments(dir).into_iter().filter(holds).collect();
    found.sort();
    found
}

/// Flips a bit of these bytes where they were put, and not where they were copied.
fn flip_first(dir: &Path, bytes: &str) {
    let both = holding(dir, bytes);
    assert_eq!(both.len(), 2, "where it was put, and where it was copied");
    let mut log = fs::read(&both[0]).unwrap();
    let place = log.windows(bytes.len()).position(|w| w == bytes.as_bytes());
    log[place.unwrap()] ^= 1;
    fs::write(&both[0], log).unwrap();
}

#[test]
fn a_moved_value_wins_over_the_older_one_though_its_own_record_is_damaged() {
    let clock = Clock::manual(1);
    let dir = killed_after_a_move(&clock);
    flip_first(dir.path(), "keythe new value");
    for _ in 0..2 {
        let (store, ns) = open(dir.path(), &clock);
        assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"the new value");
        assert_eq!(ns.get("other").unwrap().unwrap().len(), 1000);
        drop(ns);
        store.close().unwrap();
    }
}

/// Where the copy is found by its key and not by where the record was.
#[test]
fn a_moved_value_counts_where_it_is_though_its_own_record_is_damaged() {
    let clock = Clock::manual(1);
    let live = |is_damaged: bool| {
        let dir = killed_after_a_move(&clock);
        if is_damaged {
            flip_first(dir.path(), "keythe new value");
        }
        let (store, _ns) = open_alone(dir.path(), &clock, &Gate::default());
        assert_eq!(store.stats().damage.len(), usize::from(is_damaged));
        let all = store.segments().into_iter();
        all.map(|segment| (segment.class.is_some(), segment.live))
            .filter(|(_, live)| *live > 0)
            .collect::<Vec<_>>()
    };
    let whole = live(false);
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert_eq!(live(true), whole);
}

/// Whoever cannot be read may be newer than the copy, or another key.
#[test]
fn a_moved_value_does_not_win_over_one_that_cannot_be_read() {
    let clock = Clock::manual(1);
    let dir = killed_after_a_move(&clock);
    flip(dir.path(), "keythe old value", 0);
    flip_first(dir.path(), "keythe new value");
    let (store, ns) = open(dir.path(), &clock);
    assert_damaged(&store, &ns, "key");
}

#[test]
fn a_class_segment_that_is_shorter_than_the_log_says_is_damage() {
    let clock = Clock::manual(1);
    let dir = killed_after_a_move(&clock);
    let class = holding(dir.path(), "keythe new value").pop().unwrap();
    OpenOptions::new()
        .write(true)
        .open(&class)
        .unwrap()
        .set_len(128)
        .unwrap();
    let (store, ns) = open(dir.path(), &clock);
    let stem = class.file_name().unwrap().to_str().unwrap();
    let damage = store.stats().damage;
    assert!(
        damage.iter().any(|damage| damage.contains(stem)),
        "{damage:?}"
    );
    assert_damaged(&store, &ns, "key");
}

/// What a process leaves that was killed after it retired a segment with a large value, before the next
/// checkpoint.
fn killed_after_large_values_expired(clock: &Clock, larges: usize, is_moved: bool) -> TempDir {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open(dir.path(), clock);
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("large", [7; 100_000], &minute).unwrap();
    ns.put_with("small", "value", &minute).unwrap();
    for n in 1..larges {
        for value in [8, 9] {
            ns.put_with(format!("large {n}"), [value; 100_000], &minute)
                .unwrap();
        }
    }
    if is_moved {
        for n in 0..20 {
            ns.put("other", [n; 1000]).unwrap();
        }
        store.compact().unwrap();
        let segments = store.segments();
        let classes = segments.iter().filter(|segment| segment.class.is_some());
        assert!(classes.count() > 0, "{segments:?}");
    }
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    let (store, ns) = open_gated(dir.path(), clock, &gate);
    ns.put("other", "value").unwrap();
    let before = copy(dir.path());
    clock.advance(LATER);
    gate.fail(Doing::Create, ".ckpt");
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    let killed = copy(dir.path());
    // A thread of the store's may have removed them already, as the retirement is durable; a kill may come before.
    for large in fs::read_dir(before.path()).unwrap() {
        let large = large.unwrap();
        if large.path().extension() == Some("large".as_ref()) {
            fs::copy(large.path(), killed.path().join(large.file_name())).unwrap();
        }
    }
    killed
}

#[test]
fn a_retirement_that_is_replayed_takes_large_values_along() {
    // In the segment they were put in, in one they were copied to, and beside a record that is damaged.
    for (larges, is_moved, is_damaged) in [
        (1, false, false),
        (2, false, false),
        (2, true, false),
        (2, false, true),
    ] {
        let clock = Clock::manual(1);
        let killed = killed_after_large_values_expired(&clock, larges, is_moved);
        if is_damaged {
            flip(killed.path(), "smallvalue", 0);
        }
        for _ in 0..2 {
            let (store, ns) = open(killed.path(), &clock);
            assert_eq!(store.stats().damage, Vec::<String>::new());
            assert_eq!(store.stats().keys, 1, "slots went with their segment");
            assert_eq!(rimstone_tests::newest(killed.path(), "large"), None);
            assert_eq!(ns.list(&ListOptions::new()).unwrap().len(), 1);
            drop(ns);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_class_segment_that_the_log_names_and_that_is_not_there_is_missed() {
    let clock = Clock::manual(1);
    let (dir, other) = (killed_after_a_move(&clock), killed_after_a_move(&clock));
    let class = |dir: &Path| holding(dir, "keythe new value").pop().unwrap();
    let (own, others) = (class(dir.path()), class(other.path()));
    let refused = || {
        let opened = Options::new().clock(clock.clone()).open(dir.path());
        let missed = matches!(&opened, Err(Error::Corrupt { path, .. }) if *path == own);
        assert!(missed, "{:?}", opened.map(drop));
    };
    let intact = fs::read(&own).unwrap();
    fs::copy(others, &own).unwrap();
    refused();
    fs::remove_file(&own).unwrap();
    refused();
    fs::write(&own, intact).unwrap();
    let (_store, ns) = open(dir.path(), &clock);
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"the new value");
}

/// Neither where it was put nor where it was copied can anybody read whose value that is.
#[test]
fn a_value_that_is_lost_in_both_places_is_told() {
    let clock = Clock::manual(1);
    let dir = killed_after_a_move(&clock);
    for path in holding(dir.path(), "keythe new value") {
        let mut log = fs::read(&path).unwrap();
        let place = log.windows(6).position(|w| w == b"keythe").unwrap();
        log[place] ^= 1;
        fs::write(&path, log).unwrap();
    }
    let (store, ns) = open(dir.path(), &clock);
    assert_ne!(store.stats().damage, Vec::<String>::new());
    match ns.get("key") {
        Ok(value) => assert_eq!(&value.unwrap()[..], b"the old value"),
        Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
    }
    assert_eq!(ns.get("other").unwrap().unwrap().len(), 1000);
}

/// How long a class segment was after each move to it, as records of the front segments say.
fn lens_after_moves(dir: &Path, class: &Path) -> Vec<u64> {
    let id = class.file_stem().unwrap().to_str().unwrap();
    let id = u64::from_str_radix(id, 16).unwrap().to_le_bytes();
    let mut lens = Vec::new();
    for path in segments(dir) {
        let log = fs::read(path).unwrap();
        let mut at = 128;
        while let Some(header) = log.get(at..at + 64).filter(|header| header[4] != 0) {
            let key = usize::from(u16::from_le_bytes([header[6], header[7]]));
            let body = u32::from_le_bytes(header[8..12].try_into().unwrap());
            let next = at + (64 + key + usize::try_from(body).unwrap()).next_multiple_of(8);
            if header[4] == 7 && log[at + 72..at + 80] == id {
                let len = u32::from_le_bytes(log[at + 80..at + 84].try_into().unwrap());
                lens.push(u64::from(len));
            }
            at = next;
        }
    }
    lens.sort_unstable();
    lens.dedup();
    lens
}

/// What a process leaves that was killed after it gave up two segments, one after the other, and copied what was live of both
/// to the same place, before the next checkpoint.
fn killed_after_two_moves(clock: &Clock) -> TempDir {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    for part in ["one", "two"] {
        let (_store, ns) = open(dir.path(), clock);
        for n in 0..40u8 {
            ns.put(format!("{part} {n}"), [n; 1000]).unwrap();
        }
    }
    let (store, ns) = open_gated(dir.path(), clock, &gate);
    store.checkpoint().unwrap();
    gate.fail(Doing::Create, ".ckpt");
    for n in (0..40u8).step_by(2) {
        ns.delete(format!("one {n}")).unwrap();
        ns.delete(format!("two {n}")).unwrap();
    }
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    copy(dir.path())
}

#[test]
fn a_class_segment_that_ends_after_the_first_of_its_moves_loses_what_came_with_the_second() {
    let clock = Clock::manual(1);
    let killed = killed_after_two_moves(&clock);
    let class = segments(killed.path()).into_iter();
    let mut class = class.filter(|path| fs::read(path).unwrap()[10] == 2);
    let class = class.next().unwrap();
    let lens = lens_after_moves(killed.path(), &class);
    assert_eq!(lens.len(), 2, "{lens:?}");
    let file = OpenOptions::new().write(true).open(&class).unwrap();
    file.set_len(lens[1]).unwrap();
    let whole = copy(killed.path());
    let (store, ns) = open(whole.path(), &clock);
    assert_eq!(store.stats().damage, Vec::<String>::new());
    for n in (1..40u8).step_by(2) {
        for part in ["one", "two"] {
            let value = ns.get(format!("{part} {n}")).unwrap();
            assert_eq!(value.unwrap()[..], [n; 1000]);
        }
    }
    drop((store, ns));
    file.set_len(lens[0]).unwrap();
    let (store, ns) = open(killed.path(), &clock);
    let (stem, damage) = (class.file_stem().unwrap(), store.stats().damage);
    let is_told = |damage: &String| damage.contains(stem.to_str().unwrap());
    assert!(damage.iter().any(is_told), "{damage:?}");
    let (mut found, mut lost) = (0, 0);
    for part in ["one", "two"] {
        for n in (1..40u8).step_by(2) {
            match ns.get(format!("{part} {n}")) {
                Ok(value) => {
                    assert_eq!(value.unwrap()[..], [n; 1000]);
                    found += 1;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                    lost += 1;
                }
            }
        }
    }
    assert_eq!((found, lost), (20, 20));
}

/// As `open_gated`, without threads that compact meanwhile.
fn open_alone(dir: &Path, clock: &Clock, gate: &Gate) -> (Store, Namespace) {
    let options = Options::new().vfs(Arc::new(gate.clone()));
    let store = options.clock(clock.clone()).without_threads().open(dir);
    let store = store.unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// What a process leaves that was killed after it moved half of forty keys and wrote some again, before the next
/// checkpoint; and the segments that it knew.
fn killed_after_moves(clock: &Clock) -> (TempDir, Vec<SegmentSpace>) {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let (store, ns) = open_alone(dir.path(), clock, &gate);
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    for n in 0..40u8 {
        ns.put(format!("key {n}"), [n; 1000]).unwrap();
    }
    ns.put_with("for a minute", [7; 3000], &minute).unwrap();
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    let (store, ns) = open_alone(dir.path(), clock, &gate);
    for n in (0..40).step_by(2) {
        ns.delete(format!("key {n}")).unwrap();
    }
    gate.fail(Doing::Create, ".ckpt");
    assert!(matches!(store.compact(), Err(Error::Io { .. })));
    for n in [1, 3] {
        ns.put(format!("key {n}"), "written again").unwrap();
    }
    clock.advance(LATER);
    (copy(dir.path()), store.segments())
}

/// Compaction goes by it.
#[test]
fn what_is_live_in_a_segment_is_known_after_a_kill_as_it_was() {
    let clock = Clock::manual(1);
    let (killed, before) = killed_after_moves(&clock);
    let classes = |all: Vec<SegmentSpace>| -> Vec<_> {
        let classes = all.into_iter().filter(|segment| segment.class.is_some());
        classes.collect()
    };
    let before = classes(before);
    assert!(before.iter().any(|segment| segment.live > 18 * 1000));
    assert!(before.iter().any(|segment| segment.expired > 3000));
    for _ in 0..2 {
        let (store, ns) = open_alone(killed.path(), &clock, &Gate::default());
        assert_eq!(classes(store.segments()), before);
        drop(ns);
        store.close().unwrap();
    }
}

/// What is damaged may be what says where its records went, but these were moved.
#[test]
fn a_segment_of_which_all_was_moved_goes_though_the_log_is_damaged() {
    let clock = Clock::manual(1);
    let (killed, before) = killed_after_moves(&clock);
    flip(killed.path(), "key 1written again", 4);
    let (store, ns) = open_alone(killed.path(), &clock, &Gate::default());
    assert_eq!(store.stats().damage.len(), 1, "{:?}", store.stats().damage);
    let begun = before.iter().map(|segment| segment.id).max().unwrap();
    let after = store.segments().into_iter().filter(|s| s.id <= begun);
    assert_eq!(
        after.map(|segment| segment.id).collect::<Vec<_>>(),
        before.iter().map(|segment| segment.id).collect::<Vec<_>>()
    );
    for n in (5..40u8).step_by(2) {
        assert_eq!(ns.get(format!("key {n}")).unwrap().unwrap()[..], [n; 1000]);
    }
}

#[test]
fn of_a_batch_of_which_one_record_is_damaged_the_others_stay() {
    let keys = ["one", "two", "three"];
    for (damaged, has_more) in keys.iter().flat_map(|key| [(key, false), (key, true)]) {
        let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
        let (store, ns) = open(dir.path(), &clock);
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.put(&ns, key, "value");
        }
        store.write(batch).unwrap();
        store.sync().unwrap();
        ns.put("durable", "value").unwrap();
        if has_more {
            ns.put("more", "value").unwrap();
        }
        let killed = copy(dir.path());
        drop(ns);
        store.close().unwrap();
        // In which the next segment says where this one ends.
        let followed = copy(dir.path());
        let (store, ns) = open(followed.path(), &clock);
        drop(ns);
        store.close().unwrap();
        for dir in [dir.path(), killed.path(), followed.path()] {
            flip(dir, &format!("{damaged}value"), 0);
            for _ in 0..3 {
                let (store, ns) = open(dir, &clock);
                assert_eq!(store.stats().damage.len(), 1, "{damaged}, {has_more}");
                assert!(ns.get(damaged).unwrap().is_none());
                for key in keys.iter().filter(|key| *key != damaged) {
                    assert_eq!(&ns.get(key).unwrap().unwrap()[..], b"value", "{damaged}");
                }
                assert!(ns.get("durable").unwrap().is_some());
            }
        }
    }
}

/// Nothing tells that it was durable but the record that the store was closed, which may not be.
#[test]
fn damage_at_the_end_of_a_closed_log_is_told_each_time() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, ns) = open(dir.path(), &clock);
    for key in ["one", "two"] {
        ns.put(key, "value").unwrap();
    }
    drop(ns);
    store.close().unwrap();
    flip(dir.path(), "twovalue", 0);
    for _ in 0..3 {
        let (store, ns) = open(dir.path(), &clock);
        assert_eq!(store.stats().damage.len(), 1);
        assert!(ns.get("one").unwrap().is_some() && ns.get("two").unwrap().is_none());
        drop(ns);
        store.close().unwrap();
    }
}

/// A move that cannot be repeated now is not passed over: what comes behind it gives up where its records were.
#[test]
fn a_segment_that_cannot_be_measured_or_mapped_now_fails_the_opening_and_loses_nothing() {
    let clock = Clock::manual(1);
    let killed = killed_after_two_moves(&clock);
    for doing in [Doing::Measure, Doing::Map] {
        fail_each(doing, killed.path(), &clock);
    }
}

/// Lets one after the other fail.
fn fail_each(doing: Doing, killed: &Path, clock: &Clock) {
    let mut refused = 0;
    for passes in 0.. {
        let harmed = copy(killed);
        let gate = Gate::default();
        gate.fail_after(passes, doing, ".seg");
        let options = Options::new().vfs(Arc::new(gate.clone()));
        let opened = options.clock(clock.clone()).open(harmed.path());
        let failed = gate.failed();
        let check = |store: &Store| {
            assert_eq!(store.stats().damage, Vec::<String>::new(), "{passes}");
            let ns = store.namespace("n").unwrap();
            for n in (1..40u8).step_by(2) {
                for part in ["one", "two"] {
                    let value = ns.get(format!("{part} {n}")).unwrap();
                    assert_eq!(value.unwrap()[..], [n; 1000], "{passes}: {part} {n}");
                }
            }
        };
        gate.open();
        match opened {
            Ok(store) => check(&store),
            Err(Error::Io { .. }) => refused += 1,
            Err(error) => panic!("{passes}: {error}"),
        }
        check(&open(harmed.path(), clock).0);
        if failed == 0 {
            break;
        }
    }
    assert!(
        refused > 3,
        "each segment is asked for: {refused}, {doing:?}"
    );
}
