//! Compaction: what it copies, what it gives up, and what a crash leaves of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rimstone::{Clock, Durability, Error, Namespace, Options, PutOptions, Store};
use rimstone_tests::{Cut, Doing, Gate, Names, SimDisk, Unsynced, copy, fresh, open, open_on};
use tempfile::tempdir;

/// More than the hour that expired data is kept, in case the clock was wrong.
const LATER: u64 = 4_000;

/// The files of a disk that hold records, and whether compaction wrote them.
fn segments(disk: &SimDisk) -> Vec<(PathBuf, bool)> {
    let files = disk.files().into_iter();
    let segments = files.filter(|path| path.extension().is_some_and(|e| e == "seg"));
    segments
        .map(|path| {
            let is_class = disk.bytes(&path)[10] == 2;
            (path, is_class)
        })
        .collect()
}

fn class_segments(disk: &SimDisk) -> Vec<PathBuf> {
    let all = segments(disk).into_iter();
    all.filter(|(_, is_class)| *is_class)
        .map(|(path, _)| path)
        .collect()
}

/// A store with a hundred keys, half of them deleted, and room for compaction to do something.
fn half_deleted(disk: &SimDisk, clock: &Clock) -> (Store, Namespace) {
    let store = open_on(disk, clock, Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    for key in 0..100u8 {
        ns.put([key], [key; 100]).unwrap();
    }
    for key in (0..100u8).step_by(2) {
        ns.delete([key]).unwrap();
    }
    (store, ns)
}

fn assert_half_deleted(store: &Store, context: &dyn std::fmt::Debug) {
    assert_eq!(store.stats().damage, Vec::<String>::new(), "{context:?}");
    let ns = store.find_namespace("n").unwrap();
    for key in 0..100u8 {
        let value = ns.get([key]).unwrap().map(|value| value.to_vec());
        let expected = (key % 2 == 1).then(|| vec![key; 100]);
        assert_eq!(value, expected, "key {key}, {context:?}");
    }
}

fn forget_derived(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg" && e != "large") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Wherever compaction is cut short, nothing is lost or comes back, and copies that the log does not know
/// of leave no file behind.
#[test]
fn a_cut_anywhere_in_compaction_changes_nothing_and_leaves_no_file() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, _ns) = half_deleted(&disk, &clock);
    let begin = disk.place();
    store.compact().unwrap();
    assert_eq!(class_segments(&disk).len(), 1);
    let kinds = [
        (Unsynced::Lost, Names::Lost),
        (Unsynced::Kept, Names::Kept),
        (Unsynced::Sectors(512), Names::Any),
    ];
    for place in begin..=disk.place() {
        for (bytes, names) in kinds {
            let seed = u64::try_from(place).unwrap();
            let left = disk.crash_at(place, Cut { bytes, names, seed });
            let store = open_on(&left, &clock, Durability::Immediate).unwrap();
            assert_half_deleted(&store, &(place, bytes));
            // Two checkpoints let go of what is retired; what is left then is what the store knows.
            store.checkpoint().unwrap();
            store.checkpoint().unwrap();
            let files = segments(&left).len();
            let known = usize::try_from(store.stats().segments).unwrap();
            assert_eq!(files, known, "{place} {bytes:?}");
        }
    }
}

/// What compaction did is the same in a store that is made anew from its segments.
#[test]
fn without_derived_files_every_copy_counts_once() {
    let (dir, clock, store, ns) = fresh();
    for round in 0..6u8 {
        for key in 0..60u8 {
            if key % 6 >= round {
                ns.put([key], [round; 100]).unwrap();
            } else if key % 7 == 0 {
                ns.delete([key]).unwrap();
            }
        }
        store.compact().unwrap();
        let rebuilt = copy(dir.path());
        forget_derived(rebuilt.path());
        let again = open(rebuilt.path(), &clock);
        assert_eq!(again.stats().damage, Vec::<String>::new());
        assert_eq!(again.stats().keys, store.stats().keys);
        assert_eq!(again.stats().live_bytes, store.stats().live_bytes);
        let other = again.find_namespace("n").unwrap();
        for key in 0..60u8 {
            let value = |ns: &Namespace| ns.get([key]).unwrap().map(|value| value.to_vec());
            assert_eq!(value(&ns), value(&other), "key {key} in round {round}");
        }
    }
}

/// Deleted keys do not come back when tombstones go, nor do tombstones stay for a segment that never
/// held their keys.
#[test]
fn tombstones_go_once_no_older_segment_may_hold_their_keys() {
    let (dir, clock, store, ns) = fresh();
    // Older than every tombstone, and it stays.
    ns.put("stays", vec![7; 60_000]).unwrap();
    for n in 0..20 {
        ns.put(format!("stays {n}"), vec![7; 60_000]).unwrap();
    }
    let store = {
        drop((store, ns));
        open(dir.path(), &clock)
    };
    let ns = store.namespace("n").unwrap();
    for round in 0..4 {
        for key in 0..2_000 {
            ns.put(format!("{round} {key}"), [7; 100]).unwrap();
            ns.delete(format!("{round} {key}")).unwrap();
        }
        store.compact().unwrap();
    }
    store.compact().unwrap();
    let tombstones: u64 = store.segments().iter().map(|s| s.tombstones).sum();
    // 8,000 were written, of 80 bytes each; a filter errs for one key in a thousand.
    assert!(tombstones < 80 * 200, "{tombstones} bytes of tombstones");
    assert_eq!(store.stats().keys, 21);
    let rebuilt = copy(dir.path());
    forget_derived(rebuilt.path());
    assert_eq!(open(rebuilt.path(), &clock).stats().keys, 21);
}

/// Nothing of a segment is read in which everything expired: it may be damaged.
#[test]
fn an_expired_segment_goes_without_being_read() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    for key in 0..100u8 {
        ns.put_with([key], [key; 100], &minute).unwrap();
    }
    drop((store, ns));
    let (sealed, _) = segments(&disk).remove(0);
    let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    disk.rot(&sealed, 5_000, &[0xff; 1_000]);
    assert_eq!(store.stats().keys, 100);
    clock.advance(LATER);
    store.compact().unwrap();
    assert_eq!(store.stats().keys, 0);
    assert_eq!(store.stats().live_bytes, 0);
    store.checkpoint().unwrap();
    assert!(disk.bytes(&sealed).is_empty(), "the file is gone");
    let again = open_on(&disk.crash(Cut::LOST), &clock, Durability::Immediate).unwrap();
    assert_eq!(again.stats().keys, 0);
}

/// A segment that holds something live and cannot be read stays as it is, and so does what it hides.
#[test]
fn a_damaged_segment_is_not_given_up() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, ns) = half_deleted(&disk, &clock);
    drop((store, ns));
    let (sealed, _) = segments(&disk).remove(0);
    let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    // The value of one of the keys that are there.
    let bytes = disk.bytes(&sealed);
    let at = bytes.windows(100).position(|w| w == [51; 100]).unwrap();
    disk.rot(&sealed, at as u64 + 50, &[0]);
    assert_eq!(store.stats().stuck_segments, 0);
    store.compact().unwrap();
    store.compact().unwrap();
    assert_eq!(store.stats().stuck_segments, 1);
    let ns = store.find_namespace("n").unwrap();
    assert!(matches!(ns.get([51]), Err(Error::Corrupt { .. })));
    assert_eq!(&ns.get([53]).unwrap().unwrap()[..], [53; 100]);
    assert_eq!(ns.get([50]).unwrap(), None);
    assert!(!disk.bytes(&sealed).is_empty(), "the file stays");
}

/// A class segment that is gone is not taken for one that was given up.
/// Where the record of a move begins in a segment, and the length of its body.
fn find_move(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut at = 128;
    loop {
        let header = bytes.get(at..at + 64)?;
        let key = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let body = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        match header[4] {
            0 => return None,
            7 => return Some((at, body)),
            _ => at += (64 + key + body).next_multiple_of(8),
        }
    }
}

/// Where the last record of this kind begins in a segment, and the length of its body.
fn find_last(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    let (mut at, mut last) = (128, None);
    while let Some(header) = bytes.get(at..at + 64).filter(|header| header[4] != 0) {
        let key = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let body = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        if header[4] == kind {
            last = Some((at, body));
        }
        at += (64 + key + body).next_multiple_of(8);
    }
    last
}

/// What it retired is gone, and nothing else says that this is right.
#[test]
fn a_damaged_retirement_is_reported_and_the_log_opens() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, ns) = half_deleted(&disk, &clock);
    store.compact().unwrap();
    drop((store, ns));
    let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    for key in (1..100u8).step_by(4) {
        let ns = store.find_namespace("n").unwrap();
        ns.put([key], [key; 100]).unwrap();
    }
    store.compact().unwrap();
    drop(store);
    let mut damaged = 0;
    for (path, _) in segments(&disk) {
        let bytes = disk.bytes(&path);
        let Some((at, len)) = find_last(&bytes, 6) else {
            continue;
        };
        let left = disk.crash(Cut::KEPT);
        let last = at + 64 + len - 1;
        left.rot(&path, last as u64, &[bytes[last] ^ 1]);
        let vfs: &dyn rimstone::Vfs = &left;
        for path in left.files() {
            if path.extension().is_none_or(|e| e != "seg") && !path.ends_with("LOCK") {
                vfs.remove(&path).unwrap();
            }
        }
        let store = open_on(&left, &clock, Durability::Immediate).unwrap();
        let damage = store.stats().damage;
        damaged += damage
            .iter()
            .filter(|text| text.contains("missing"))
            .count();
        let ns = store.find_namespace("n").unwrap();
        for key in (1..100u8).step_by(2) {
            let value = ns.get([key]).unwrap().map(|value| value.to_vec());
            assert_eq!(value, Some(vec![key; 100]), "key {key}: {damage:?}");
        }
    }
    assert!(damaged > 0, "the damaged record was not needed");
}

/// The retire record that follows a damaged move must not take the keys along that were not moved.
#[test]
fn a_damaged_move_costs_no_key() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, _ns) = half_deleted(&disk, &clock);
    // Else the store is made anew from its segments, which needs no moves.
    store.checkpoint().unwrap();
    let begin = disk.place();
    store.compact().unwrap();
    let mut damaged = 0;
    for place in begin..=disk.place() {
        let left = disk.crash_at(place, Cut::KEPT);
        let store = open_on(&left, &clock, Durability::Immediate).unwrap();
        let ns = store.find_namespace("n").unwrap();
        for n in 0..3u8 {
            ns.put([200, n], "later").unwrap();
        }
        let left = left.crash(Cut::KEPT);
        for (path, is_class) in segments(&left) {
            let bytes = left.bytes(&path);
            let Some((at, len)) = find_move(&bytes).filter(|_| !is_class) else {
                continue;
            };
            let left = left.crash(Cut::KEPT);
            let last = at + 64 + len - 1;
            left.rot(&path, last as u64, &[bytes[last] ^ 1]);
            let store = open_on(&left, &clock, Durability::Immediate).unwrap();
            let ns = store.find_namespace("n").unwrap();
            for key in (1..100u8).step_by(2) {
                let value = ns.get([key]).unwrap().map(|value| value.to_vec());
                assert_eq!(value, Some(vec![key; 100]), "key {key}, {place}");
            }
            damaged += usize::from(!store.stats().damage.is_empty());
        }
    }
    assert!(damaged > 0, "no move was damaged");
}

#[test]
fn a_missing_class_segment_is_reported() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, ns) = half_deleted(&disk, &clock);
    store.compact().unwrap();
    drop((store, ns));
    let class = class_segments(&disk).remove(0);
    for derived in ["", "ckpt"] {
        let left = disk.crash(Cut::KEPT);
        let vfs: &dyn rimstone::Vfs = &left;
        for path in left.files() {
            let is_derived = path.extension().is_some_and(|e| e == derived);
            let is_current = !derived.is_empty() && path.ends_with("CURRENT");
            if path == class || is_derived || is_current {
                vfs.remove(&path).unwrap();
            }
        }
        let opened = open_on(&left, &clock, Durability::Immediate);
        let missing = matches!(&opened, Err(Error::Corrupt { path, .. }) if *path == class);
        assert!(missing, "{derived}: {:?}", opened.map(drop));
    }
}

/// Damage in a copy is reported like damage in what was copied, and nothing older is found instead.
#[test]
fn damage_in_a_class_segment_is_reported() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let (store, ns) = half_deleted(&disk, &clock);
    store.compact().unwrap();
    drop((store, ns));
    let class = class_segments(&disk).remove(0);
    let bytes = disk.bytes(&class);
    let at = bytes.windows(100).position(|w| w == [51; 100]).unwrap();
    disk.rot(&class, at as u64 + 50, &[0]);
    for rebuild in [false, true] {
        let left = disk.crash(Cut::KEPT);
        let vfs: &dyn rimstone::Vfs = &left;
        for path in left.files().iter().filter(|_| rebuild) {
            if path.extension().is_none_or(|e| e != "seg") && !path.ends_with("LOCK") {
                vfs.remove(path).unwrap();
            }
        }
        let store = open_on(&left, &clock, Durability::Immediate).unwrap();
        let damage = store.stats().damage;
        assert_eq!(damage.len(), usize::from(rebuild), "{damage:?}");
        let ns = store.find_namespace("n").unwrap();
        let got = ns.get([51]);
        assert!(
            matches!(got, Err(Error::Corrupt { .. })),
            "{got:?} {damage:?}"
        );
        assert_eq!(&ns.get([53]).unwrap().unwrap()[..], [53; 100]);
        assert_eq!(ns.get([50]).unwrap(), None);
    }
}

/// Compaction copies a record; before the log says so, the key is written. The copy is not what counts.
#[test]
fn a_put_between_a_copy_and_its_move_wins() {
    let (dir, gate, clock) = (tempdir().unwrap(), Gate::default(), Clock::manual(1));
    let options = Options::new().durability(Durability::None);
    let options = options.clock(clock.clone()).vfs(Arc::new(gate.clone()));
    let store = options.open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("key", "old").unwrap();
    ns.put("other", "value").unwrap();
    // The segment that the log goes on in is made; the one for copies waits. By then compaction has seen
    // that the first record is live.
    gate.hold_after(1, Doing::Create, ".new");
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| store.compact().unwrap());
        gate.await_someone();
        ns.put("key", "new").unwrap();
        gate.open();
        compaction.join().unwrap();
    });
    let rebuilt = copy(dir.path());
    forget_derived(rebuilt.path());
    let again = open(rebuilt.path(), &clock);
    for ns in [&ns, &again.find_namespace("n").unwrap()] {
        assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"new");
        assert_eq!(&ns.get("other").unwrap().unwrap()[..], b"value");
    }
}

/// Writers, readers and compaction at once; then what the log alone gives is what readers saw last.
#[test]
fn what_is_written_while_compaction_runs_is_there_after_a_rebuild() {
    let (dir, clock, store, ns) = fresh();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
            }
        });
        let writers: Vec<_> = (0..2u32)
            .map(|writer| {
                let ns = &ns;
                scope.spawn(move || {
                    for round in 0..40u32 {
                        for key in (writer..400).step_by(2) {
                            match (round + key) % 5 {
                                0 => drop(ns.delete(key.to_le_bytes()).unwrap()),
                                _ => drop(ns.put(key.to_le_bytes(), round.to_le_bytes()).unwrap()),
                            }
                        }
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let rebuilt = copy(dir.path());
    forget_derived(rebuilt.path());
    let again = open(rebuilt.path(), &clock);
    for ns in [&ns, &again.find_namespace("n").unwrap()] {
        for key in 0..400u32 {
            let value = ns
                .get(key.to_le_bytes())
                .unwrap()
                .map(|value| value.to_vec());
            let expected = ((39 + key) % 5 != 0).then(|| 39u32.to_le_bytes().to_vec());
            assert_eq!(value, expected, "key {key}");
        }
    }
}

/// A value that somebody holds stays as it is when its segment goes, and is counted.
#[test]
fn a_value_outlives_its_segment_and_is_counted() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("key", vec![1; 60_000]).unwrap();
    let value = ns.get("key").unwrap().unwrap();
    let sealed = segments(&disk).remove(0).0;
    ns.put("key", vec![2; 60_000]).unwrap();
    store.compact().unwrap();
    assert!(disk.bytes(&sealed).is_empty(), "the file is gone");
    assert!(store.stats().held_bytes > 60_000);
    assert_eq!(value[..], [1; 60_000]);
    drop(value);
    // Whoever reads at this moment may still keep the list of segments that it was in.
    let is_let_go = |_: &u32| {
        ns.put("other", "value").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        store.stats().held_bytes == 0
    };
    assert!((0..1_000).any(|n| is_let_go(&n)));
}

/// What a dropped namespace held counts as dead, and goes though other keys lie between.
#[test]
fn a_dropped_namespace_between_others_is_reclaimed_in_the_background() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let store = open(dir.path(), &clock);
    let (keep, doomed) = (
        store.namespace("n").unwrap(),
        store.namespace("doomed").unwrap(),
    );
    for key in 0..1_500u32 {
        doomed.put(key.to_le_bytes(), vec![7; 60_000]).unwrap();
        if key % 10 == 0 {
            keep.put(key.to_le_bytes(), vec![8; 1_000]).unwrap();
        }
    }
    store.drop_namespace(doomed.id()).unwrap();
    drop(doomed);
    let is_reclaimed = |_: &u32| {
        let small = store.stats().live_bytes < 40 << 20;
        if !small {
            std::thread::sleep(Duration::from_millis(50));
        }
        small
    };
    assert!((0..600).any(|n| is_reclaimed(&n)), "{:?}", store.stats());
    for key in (0..1_500u32).step_by(10) {
        assert!(keep.get(key.to_le_bytes()).unwrap().is_some());
    }
}

/// On a full disk deletes go on, from space that was kept back, and so does compaction; puts are refused
/// until there is as much space again, and then go on without anybody's help.
#[test]
fn a_full_disk_refuses_puts_until_compaction_made_room() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(1));
    let store = open_on(&disk, &clock, Durability::None).unwrap();
    let ns = store.namespace("n").unwrap();
    for key in 0..2_600u32 {
        ns.put(key.to_le_bytes(), vec![7; 60_000]).unwrap();
    }
    store.checkpoint().unwrap();
    let reserve = Path::new(rimstone_tests::DIR).join("RESERVE");
    assert!(disk.bytes(&reserve).len() > 8 << 20, "space is kept back");
    disk.limit(Some(disk.bytes_used() + (2 << 20)));
    let refused = (0..3_000).find_map(|n| ns.put(format!("{n}"), vec![8; 60_000]).err());
    assert!(matches!(refused, Some(Error::Full)), "{refused:?}");
    for key in 0..2_000u32 {
        assert!(ns.delete(key.to_le_bytes()).unwrap());
    }
    let goes_on = |_: &u32| {
        std::thread::sleep(Duration::from_millis(20));
        (0..40).all(|n| ns.put(format!("more {n}"), vec![9; 60_000]).is_ok())
    };
    assert!((0..1_000).any(|n| goes_on(&n)), "{:?}", store.stats());
    assert!(!store.stats().poisoned);
    store.sync().unwrap();
    let left = disk.crash(Cut::LOST);
    let again = open_on(&left, &clock, Durability::None).unwrap();
    for ns in [&ns, &again.find_namespace("n").unwrap()] {
        assert!((0..2_000u32).all(|key| ns.get(key.to_le_bytes()).unwrap().is_none()));
        assert!((2_000..2_600u32).all(|key| ns.get(key.to_le_bytes()).unwrap().is_some()));
        assert!((0..40).all(|n| ns.get(format!("more {n}")).unwrap().is_some()));
    }
}
