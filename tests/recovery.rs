//! What a crash, a torn tail and damage do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimstone::{Clock, Error, Options, Store};
use rimstone_tests::{Doing, Gate, SimDisk, copy, fresh, newest, open};
use tempfile::{TempDir, tempdir};

/// Ten keys, and where the last byte of each record lies in the newest segment.
fn ten_keys(dir: &Path, clock: &Clock) -> (Store, Vec<usize>) {
    let store = open(dir, clock);
    let ns = store.namespace("n").unwrap();
    let mut ends = Vec::new();
    for n in 0..10u8 {
        ns.put([n], vec![n + 1; 100]).unwrap();
        let bytes = fs::read(newest(dir, "seg").unwrap()).unwrap();
        let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        ends.push(used);
    }
    (store, ends)
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (written, _) = ten_keys(dir.path(), &clock);
    let mut snapshot = copy(dir.path());
    for _ in 0..3 {
        let store = open(snapshot.path(), &clock);
        assert_eq!(
            store.stats().last_seqno,
            written.stats().last_seqno,
            "nothing is written that was not"
        );
        let ns = store.find_namespace("n").unwrap();
        for n in 0..10u8 {
            assert_eq!(&ns.get([n]).unwrap().unwrap()[..], &[n + 1; 100]);
        }
        assert!(store.stats().damage.is_empty());
        snapshot = copy(snapshot.path());
        let files = fs::read_dir(snapshot.path()).unwrap().count();
        assert!(files <= 3, "reopening leaves no segments behind: {files}");
    }
}

#[test]
fn a_segment_that_never_joined_the_log_changes_nothing() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (_store, _) = ten_keys(dir.path(), &clock);
    let copy = copy(dir.path());
    // An open that died before the tail was durable in its new segment.
    let header = fs::read(newest(dir.path(), "seg").unwrap()).unwrap();
    let unfinished = copy.path().join("00000000000000ff.new");
    fs::write(&unfinished, &header[..128]).unwrap();
    let store = open(copy.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert!((0..10u8).all(|n| ns.get([n]).unwrap().is_some()));
    assert!(!unfinished.exists());
}

#[test]
fn a_log_cut_anywhere_opens_as_a_prefix() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (_store, ends) = ten_keys(dir.path(), &clock);
    let last = *ends.last().unwrap();
    for cut in (128..last).step_by(13) {
        let copy = copy(dir.path());
        let path = newest(copy.path(), "seg").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[cut..].fill(0);
        fs::write(&path, &bytes).unwrap();
        let store = open(copy.path(), &clock);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let found = (0..10u8).take_while(|n| {
            store
                .find_namespace("n")
                .is_some_and(|ns| ns.get([*n]).unwrap().is_some())
        });
        assert_eq!(found.count(), whole, "cut at {cut}");
        assert!(store.stats().damage.is_empty(), "a torn tail is no damage");
    }
}

#[test]
fn a_damaged_record_that_was_durable_is_reported_and_the_others_stay() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 0..10u8 {
        ns.put([n], vec![n + 1; 100]).unwrap();
    }
    let copy = copy(dir.path());
    let path = newest(copy.path(), "seg").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(100).position(|w| w == [5u8; 100]).unwrap();
    bytes[at + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let store = open(copy.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(store.stats().damage.len(), 1);
    for n in (0..10u8).filter(|n| *n != 4) {
        assert_eq!(&ns.get([n]).unwrap().unwrap()[..], &[n + 1; 100]);
    }
    let damaged = ns.get([4]);
    assert!(matches!(damaged, Err(Error::Corrupt { .. })), "{damaged:?}");
}

#[test]
fn damage_under_an_open_store_is_never_served() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("k", vec![9; 100]).unwrap();
    let path = newest(dir.path(), "seg").unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(100).position(|w| w == [9u8; 100]).unwrap();
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[8], u64::try_from(at).unwrap()).unwrap();
    assert!(matches!(ns.get("k"), Err(Error::Corrupt { .. })));
}

#[test]
fn large_values_survive_a_kill_and_leave_no_files_once_deleted() {
    let (dir, clock, _store, ns) = fresh();
    ns.put("big", vec![3; 200_000]).unwrap();
    ns.put("big", vec![4; 200_000]).unwrap();
    let copy = copy(dir.path());
    let larges = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        names
            .filter(|p| p.extension().is_some_and(|e| e == "large"))
            .count()
    };
    let store = open(copy.path(), &clock);
    assert_eq!(larges(copy.path()), 1);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("big").unwrap().unwrap()[..], &[4; 200_000]);
    ns.delete("big").unwrap();
    drop((ns, store));
    drop(open(copy.path(), &clock));
    assert_eq!(larges(copy.path()), 0);
}

/// All files of a directory, by name, with what is in them.
fn contents(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    all.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// A store with every kind of file and two segments, as a kill leaves it, with a file that was not finished, and as
/// closing does.
fn killed_and_closed() -> [TempDir; 2] {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, _) = ten_keys(dir.path(), &clock);
    store.close().unwrap();
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    ns.put("large", vec![1; 100_000]).unwrap();
    store.checkpoint().unwrap();
    ns.put("large", vec![2; 70_000]).unwrap();
    let killed = copy(dir.path());
    fs::write(killed.path().join("00000000000000ff.new"), "new").unwrap();
    drop(ns);
    store.close().unwrap();
    [killed, dir]
}

#[test]
fn a_newer_format_is_refused_by_name_and_nothing_changes() {
    for dir in killed_and_closed() {
        let path = newest(dir.path(), "seg").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        let crc = crc32(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let before = contents(dir.path());
        for _ in 0..2 {
            let refused = Store::open(dir.path());
            assert!(matches!(
                refused,
                Err(Error::UnsupportedFormat {
                    found: 9,
                    supported: 1,
                    ..
                })
            ));
            // Not as a whole, which a failure would print.
            assert!(contents(dir.path()) == before, "a file has changed");
        }
    }
}

/// CRC-32 (IEEE), bit by bit: the tests' own, so that they check the engine's.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn a_newer_checkpoint_is_refused_and_not_passed_over() {
    let (dir, clock, store, ns) = fresh();
    ns.put("key", "value").unwrap();
    store.checkpoint().unwrap();
    drop(ns);
    store.close().unwrap();
    let path = newest(dir.path(), "ckpt").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32(&bytes[..140]);
    bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let before = contents(dir.path());
    let refused = Options::new().clock(clock).open(dir.path());
    let newer = matches!(refused, Err(Error::UnsupportedFormat { found: 9, .. }));
    assert!(newer, "{:?}", refused.err());
    assert!(contents(dir.path()) == before, "a file has changed");
}

/// Whoever forges the lists of a checkpoint with their checksums costs the store that checkpoint and no more.
#[test]
fn a_checkpoint_that_counts_more_than_a_segment_holds_is_refused() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    for key in ["one", "two"] {
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        ns.put(key, "value").unwrap();
        store.checkpoint().unwrap();
        drop(ns);
        store.close().unwrap();
    }
    let path = newest(dir.path(), "ckpt").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (lists, len) = (word(&bytes, 120), word(&bytes, 128));
    let lists = usize::try_from(lists).unwrap()..usize::try_from(lists + len).unwrap();
    // The live bytes of its first segment.
    let live_bytes = lists.start + 32;
    assert_eq!(word(&bytes, live_bytes), 72, "a header, a key and a value");
    bytes[live_bytes..live_bytes + 8].fill(0xff);
    let crc = crc32(&bytes[lists]);
    bytes[92..96].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32(&bytes[..140]);
    bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();

    let store = open(dir.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(store.stats().damage.len(), 1, "{:?}", store.stats().damage);
    store.checkpoint().unwrap();
    store.compact().unwrap();
    for key in ["one", "two"] {
        assert_eq!(&ns.get(key).unwrap().unwrap()[..], b"value");
    }
}

/// A store whose log lies in two segments, and a large value; and these three files.
fn two_segments(clock: &Clock) -> (tempfile::TempDir, [std::path::PathBuf; 3]) {
    let dir = tempdir().unwrap();
    let (store, _) = ten_keys(dir.path(), clock);
    let first = newest(dir.path(), "seg").unwrap();
    store.close().unwrap();
    let store = open(dir.path(), clock);
    let ns = store.find_namespace("n").unwrap();
    ns.put("large", vec![7; 100_000]).unwrap();
    drop(ns);
    store.close().unwrap();
    let second = newest(dir.path(), "seg").unwrap();
    let large = newest(dir.path(), "large").unwrap();
    assert!(first.exists() && first != second);
    (dir, [first, second, large])
}

#[test]
fn a_segment_that_is_not_what_its_name_says_is_refused_with_the_reason() {
    let clock = Clock::manual(1);
    let (other, [others, ..]) = two_segments(&clock);
    let (dir, [first, second, large]) = two_segments(&clock);
    let intact = fs::read(&first).unwrap();
    let header = "the header is another file's, or the file is too long";
    let cases = [
        (fs::read(&second).unwrap(), header),
        (fs::read(&large).unwrap(), header),
        (intact[..127].to_vec(), "no segment header"),
        (fs::read(&others).unwrap(), "the segment is another store's"),
    ];
    let refused = |expected: &str| {
        for opened in [
            Options::new().clock(clock.clone()).open(dir.path()),
            Options::new()
                .clock(clock.clone())
                .open_read_only(dir.path()),
        ] {
            let reason = match opened {
                Err(Error::Corrupt { reason, offset, .. }) => {
                    // Of another store's it is where that is said.
                    assert!(offset == 0 || offset == 16, "{reason}: {offset}");
                    reason
                }
                other => panic!("{expected}: {:?}", other.err()),
            };
            assert_eq!(reason, expected);
        }
    };
    for (bytes, reason) in cases {
        fs::write(&first, bytes).unwrap();
        refused(reason);
    }
    fs::write(&first, &intact).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&first).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    refused(header);
    file.set_len(intact.len() as u64).unwrap();
    let store = open(dir.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    assert!((0..10u8).all(|n| ns.get([n]).unwrap().is_some()));
    drop(other);
}

/// Otherwise the next epoch would have the number of the one that is gone, and the names of its files.
#[test]
fn a_log_whose_last_epoch_is_gone_is_refused_where_other_files_tell() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), rimstone::Clock::manual(1));
    let open = || rimstone_tests::open(dir.path(), &clock);
    open().namespace("n").unwrap().put("key", "old").unwrap();
    open()
        .namespace("n")
        .unwrap()
        .put("key", vec![7; 100_000])
        .unwrap();
    let newest = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let large = rimstone_tests::newest(dir.path(), "large").unwrap();
    std::fs::remove_file(&newest).unwrap();
    let options = rimstone::Options::new().clock(clock.clone());
    // Which tells, too, as below.
    let lock = dir.path().join("LOCK");
    let mark = std::fs::read(&lock).unwrap();
    std::fs::write(&lock, "").unwrap();
    for _ in 0..2 {
        let opened = options.clone().open(dir.path());
        assert!(matches!(opened, Err(Error::Corrupt { path, .. }) if path == newest));
        let read = options.clone().open_read_only(dir.path());
        assert!(matches!(read, Err(Error::Corrupt { path, .. }) if path == newest));
        assert!(large.exists());
    }
    std::fs::remove_file(large).unwrap();
    std::fs::write(&lock, mark).unwrap();
    let opened = options.open(dir.path());
    assert!(matches!(opened, Err(Error::Corrupt { path, .. }) if path == newest));
    std::fs::write(&lock, "").unwrap();
    let store = open();
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"old");
}

/// Damage elsewhere does not explain it: no record says that a segment is gone in which the log went on.
#[test]
fn a_newest_segment_that_is_gone_is_missed_beside_other_damage() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, ends) = ten_keys(dir.path(), &clock);
    store.close().unwrap();
    let damaged = newest(dir.path(), "seg").unwrap();
    let store = open(dir.path(), &clock);
    store.find_namespace("n").unwrap().put("k", "v").unwrap();
    let killed = copy(dir.path());
    let gone = newest(killed.path(), "seg").unwrap();
    fs::remove_file(&gone).unwrap();
    let damaged = killed.path().join(damaged.file_name().unwrap());
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[ends[4] - 50] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let opened = Options::new().clock(clock).open(killed.path());
    assert!(matches!(opened, Err(Error::Corrupt { path, .. }) if path == gone));
}

/// The segment in which the log begins.
fn oldest(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segments = names.filter(|path| path.extension() == Some("seg".as_ref()));
    segments.min().unwrap()
}

/// What a scrub says of the records that are lost.
fn lost_records(dir: &Path) -> u64 {
    let found = Options::new().scrub(dir, |_, _| {}).unwrap();
    found.iter().filter_map(|damage| damage.records).sum()
}

/// Row 7 of the faults: never silently shorter.
#[test]
fn a_closed_log_that_was_cut_tells_how_many_records_are_lost() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, ends) = ten_keys(dir.path(), &clock);
    let newest_before = store.stats().last_seqno;
    store.close().unwrap();
    let last = *ends.last().unwrap();
    for cut in (128..last).step_by(13) {
        let copy = copy(dir.path());
        let path = newest(copy.path(), "seg").unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(u64::try_from(cut).unwrap()).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let lost = u64::try_from(10 - whole).unwrap();
        // Before the first key the namespace was created.
        let lost = lost + u64::from(lost_records(copy.path()) > 10);
        assert_eq!(lost_records(copy.path()), lost, "cut at {cut}");
        let found = Options::new().scrub(copy.path(), |_, _| {}).unwrap();
        let gap = found.iter().find(|damage| damage.records.is_some());
        // From the last record that is whole to where the record begins that says it was closed.
        let (from, to) = (gap.unwrap().offset, last.next_multiple_of(8));
        assert!(from <= u64::try_from(cut).unwrap());
        assert_eq!(gap.unwrap().len, Some(u64::try_from(to).unwrap() - from));
        let store = open(copy.path(), &clock);
        assert_eq!(store.stats().damage.len(), 1, "{:?}", store.stats().damage);
        assert!(store.stats().damage[0].contains("lost"));
        let ns = store.namespace("n").unwrap();
        for n in 0..10u8 {
            assert_eq!(ns.get([n]).unwrap().is_some(), usize::from(n) < whole);
        }
        assert!(
            ns.put("k", "v").unwrap() > newest_before,
            "a number of its own"
        );
    }
    // The record that says that it was closed is no loss.
    let copy = copy(dir.path());
    let file = fs::OpenOptions::new()
        .write(true)
        .open(newest(copy.path(), "seg").unwrap());
    file.unwrap()
        .set_len(u64::try_from(last).unwrap().next_multiple_of(8))
        .unwrap();
    assert!(open(copy.path(), &clock).stats().damage.is_empty());
}

/// How many records are lost by damage to these bytes, if that is known.
fn lost_by_damage_to(dir: &Path, range: Range<usize>) -> Option<u64> {
    let log = newest(dir, "seg").unwrap();
    let intact = fs::read(&log).unwrap();
    let mut bytes = intact.clone();
    bytes[range].fill(0xff);
    fs::write(&log, bytes).unwrap();
    let found = Options::new().scrub(dir, |_, _| {}).unwrap();
    fs::write(&log, intact).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].records
}

#[test]
fn how_many_records_damage_took_is_told_where_one_came_before() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, ends) = ten_keys(dir.path(), &clock);
    store.close().unwrap();
    // A key lies before a value of a hundred bytes.
    let key = |n: usize| ends[n] - 101..ends[n] - 100;
    assert_eq!(lost_by_damage_to(dir.path(), key(5)), Some(1));
    assert_eq!(
        lost_by_damage_to(dir.path(), key(5).start..ends[7]),
        Some(3)
    );
    // The first of all records created the namespace.
    assert_eq!(lost_by_damage_to(dir.path(), key(0)), Some(1));
    assert_eq!(lost_by_damage_to(dir.path(), 128..ends[0]), None);
}

#[test]
fn a_newest_segment_that_is_gone_is_missed_whether_or_not_the_store_was_closed() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    drop(ten_keys(dir.path(), &clock));
    let store = open(dir.path(), &clock);
    let ns = store.find_namespace("n").unwrap();
    ns.put("k", "v").unwrap();
    ns.put("k", "w").unwrap();
    store.sync().unwrap();
    let killed = copy(dir.path());
    drop(ns);
    store.close().unwrap();
    // With the record that bears the number of the one that closed the store before.
    for (dir, lost) in [(killed.path(), None), (dir.path(), Some(3))] {
        let newest = newest(dir, "seg").unwrap();
        fs::remove_file(&newest).unwrap();
        let opened = Options::new().clock(clock.clone()).open(dir);
        assert!(matches!(opened, Err(Error::Corrupt { path, offset: 0, .. }) if path == newest));
        let found = Options::new().scrub(dir, |_, _| {}).unwrap();
        assert!(
            found.iter().any(|damage| damage.path == newest),
            "{found:?}"
        );
        if let Some(lost) = lost {
            assert_eq!(lost_records(dir), lost);
            let mut gaps = found.iter().filter(|damage| damage.records.is_some());
            assert!(
                gaps.all(|gap| gap.len.is_none()),
                "it is of another segment"
            );
        }
    }
    // Nor is a store whose segments are all gone taken for a new one.
    fs::remove_file(newest(dir.path(), "seg").unwrap()).unwrap();
    let opened = Options::new().clock(clock).open(dir.path());
    assert!(matches!(opened, Err(Error::Corrupt { .. })));
}

/// The first damage that is met is not all that a scrub tells.
#[test]
fn a_newest_segment_that_is_gone_is_missed_beside_a_header_that_is_damaged() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    for _ in 0..3 {
        let store = open(dir.path(), &clock);
        let ns = store.namespace("n").unwrap();
        // Its file tells that there was a segment of this epoch.
        ns.put("large", vec![7; 100_000]).unwrap();
        drop(ns);
        store.close().unwrap();
    }
    let (damaged, gone) = (oldest(dir.path()), newest(dir.path(), "seg").unwrap());
    fs::remove_file(&gone).unwrap();
    fs::write(dir.path().join("LOCK"), "").unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[20] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let found = Options::new().scrub(dir.path(), |_, _| {}).unwrap();
    for path in [damaged, gone] {
        assert!(found.iter().any(|d| d.path == path), "{path:?}: {found:?}");
    }
}

#[test]
fn a_segment_that_was_cut_in_the_middle_of_the_log_tells_how_many_records_are_lost() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let (store, ends) = ten_keys(dir.path(), &clock);
    store.close().unwrap();
    let cut = newest(dir.path(), "seg").unwrap();
    let store = open(dir.path(), &clock);
    store.find_namespace("n").unwrap().put("k", "v").unwrap();
    store.close().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&cut).unwrap();
    file.set_len(u64::try_from(ends[6]).unwrap().next_multiple_of(8))
        .unwrap();
    // Three keys, and that the store was closed.
    assert_eq!(lost_records(dir.path()), 4);
    let store = open(dir.path(), &clock);
    let told = store.stats().damage;
    let counted = |damage: &String| damage.ends_with("4 records are lost");
    assert!(told.iter().any(counted), "{told:?}");
    let ns = store.find_namespace("n").unwrap();
    assert!(ns.get("k").unwrap().is_some() && ns.get([6]).unwrap().is_some());
    assert!(ns.get([7]).unwrap().is_none());
}

#[test]
fn a_store_has_a_relative_name_or_is_the_root() {
    for name in ["store", "/"] {
        let (disk, clock) = (SimDisk::default(), Clock::manual(1));
        for value in ["first", "second"] {
            let options = Options::new().vfs(Arc::new(disk.clone()));
            let store = options.clock(clock.clone()).open(name).unwrap();
            let ns = store.namespace("n").unwrap();
            ns.put(value, value).unwrap();
            assert_eq!(&ns.get("first").unwrap().unwrap()[..], b"first");
            drop(ns);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_lock_that_cannot_be_taken_is_an_error() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("LOCK")).unwrap();
    let refused = Store::open(dir.path());
    assert!(matches!(
        refused,
        Err(Error::Io {
            doing: "locking",
            ..
        })
    ));
}

/// Whose parent cannot be flushed: its name was there before.
#[test]
fn a_store_is_opened_by_a_descriptor_of_its_directory() {
    let dir = tempdir().unwrap();
    let opened = fs::File::open(dir.path()).unwrap();
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    for n in 0..2u8 {
        let store = Store::open(&path).unwrap();
        let ns = store.namespace("n").unwrap();
        ns.put([n], [n]).unwrap();
        assert!((0..=n).all(|n| ns.get([n]).unwrap().unwrap()[..] == [n]));
    }
    assert!(newest(dir.path(), "seg").is_some());
}

#[test]
fn a_name_that_is_not_durable_is_no_store() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let parent = dir.path().join("parent");
    fs::create_dir(&parent).unwrap();
    let open = || {
        let options = Options::new().vfs(Arc::new(gate.clone()));
        options.open(parent.join("store"))
    };
    gate.fail(Doing::Sync, "parent");
    let refused = open();
    let told = matches!(
        &refused,
        Err(Error::Io { doing: "flushing", path, .. }) if *path == parent
    );
    assert!(told, "{:?}", refused.err());
    gate.open();
    open()
        .unwrap()
        .namespace("n")
        .unwrap()
        .put("k", "v")
        .unwrap();
    // Once there is a segment, the name is durable.
    gate.fail(Doing::Sync, "parent");
    let ns = open().unwrap().find_namespace("n").unwrap();
    assert!(ns.get("k").unwrap().is_some());
}

#[test]
fn a_file_between_two_segments_that_is_none_belongs_to_nobody() {
    let clock = Clock::manual(1);
    for has_checkpoint in [false, true] {
        let (dir, [first, second, _]) = two_segments(&clock);
        if has_checkpoint {
            let store = open(dir.path(), &clock);
            store.checkpoint().unwrap();
            store.close().unwrap();
        } else {
            remove_what_is_derived(dir.path());
        }
        let between = first.with_file_name("0000000100000007.seg");
        assert!(first < between && between < second);
        fs::write(&between, "nonsense").unwrap();
        let store = open(dir.path(), &clock);
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        assert!((0..10u8).all(|n| ns.get([n]).unwrap().is_some()));
        assert_eq!(ns.get("large").unwrap().unwrap()[..], [7; 100_000]);
    }
}

fn remove_what_is_derived(dir: &Path) {
    for kind in ["ckpt", "run"] {
        while let Some(path) = newest(dir, kind) {
            fs::remove_file(path).unwrap();
        }
    }
    let _none_was_made = fs::remove_file(dir.join("CURRENT"));
}

#[test]
fn a_segment_that_cannot_be_opened_now_is_not_missing() {
    let (dir, clock, store, ns) = fresh();
    ns.put("key", "value").unwrap();
    drop(ns);
    store.close().unwrap();
    let gate = Gate::default();
    gate.fail(Doing::Open, ".seg");
    let options = Options::new().clock(clock).vfs(Arc::new(gate.clone()));
    let refused = options.clone().open(dir.path()).map(drop);
    let told = matches!(
        &refused,
        Err(Error::Io {
            doing: "opening",
            ..
        })
    );
    assert!(told, "{refused:?}");
    gate.open();
    let ns = options.open(dir.path()).unwrap().find_namespace("n");
    assert!(ns.unwrap().get("key").unwrap().is_some());
}

/// An open that was cut short after the log went on in its segment leaves the one that held nothing.
#[test]
fn an_empty_segment_that_the_log_left_out_goes() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, _) = ten_keys(dir.path(), &clock);
    store.close().unwrap();
    let _empty = open(dir.path(), &clock);
    let killed = copy(dir.path());
    let empty = newest(killed.path(), "seg").unwrap();
    let content = fs::read(&empty).unwrap();
    open(killed.path(), &clock).close().unwrap();
    assert!(!empty.exists() && newest(killed.path(), "seg").unwrap() > empty);
    remove_what_is_derived(killed.path());
    for _ in 0..2 {
        fs::write(&empty, &content).unwrap();
        let store = open(killed.path(), &clock);
        assert!(!empty.exists());
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        assert!((0..10u8).all(|n| ns.get([n]).unwrap().is_some()));
    }
}

/// What may not be durable is megabytes, and is written again piece by piece.
#[test]
fn a_long_tail_is_written_again_whole() {
    let (dir, clock, _store, ns) = fresh();
    for n in 0..60u8 {
        ns.put([n], vec![n; 60_000]).unwrap();
    }
    ns.put([7], "newer").unwrap();
    let killed = copy(dir.path());
    for _ in 0..2 {
        let store = open(killed.path(), &clock);
        assert_eq!(store.stats().damage, Vec::<String>::new());
        let ns = store.find_namespace("n").unwrap();
        for n in (0..60u8).filter(|n| *n != 7) {
            assert_eq!(ns.get([n]).unwrap().unwrap()[..], vec![n; 60_000]);
        }
        assert_eq!(&ns.get([7]).unwrap().unwrap()[..], b"newer");
    }
}

/// It speaks of a file that must not be mapped.
#[test]
fn what_speaks_of_a_file_that_is_gone_goes() {
    let (dir, clock, store, ns) = fresh();
    drop((store, ns));
    let gone = dir.path().join("00000001000000ff.pread");
    fs::write(&gone, "").unwrap();
    drop(open(dir.path(), &clock));
    assert!(!gone.exists());
}

/// Though nothing but the checkpoint knows how long the log was.
#[test]
fn a_log_that_is_shorter_than_its_checkpoint_says_is_damage() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1));
    let (store, ends) = ten_keys(dir.path(), &clock);
    store.checkpoint().unwrap();
    let killed = copy(dir.path());
    fs::write(killed.path().join("LOCK"), "").unwrap();
    let log = newest(killed.path(), "seg").unwrap();
    let log = fs::OpenOptions::new().write(true).open(log).unwrap();
    log.set_len(u64::try_from(ends[8]).unwrap()).unwrap();
    let store = open(killed.path(), &clock);
    let told = store.stats().damage;
    assert!(told.iter().any(|told| told.contains("missing")), "{told:?}");
    let ns = store.find_namespace("n").unwrap();
    assert!(ns.get([8]).unwrap().is_some());
    assert!(matches!(ns.get([9]), Err(Error::Corrupt { .. })));
}
