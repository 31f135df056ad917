//! The simulated disk forgets what it may forget, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use rimstone::{Clock, Durability, Vfs};
use rimstone_tests::{Cut, DIR, Fault, Names, SimDisk, Unsynced, open_alone};

const A: &str = "/store/a";

/// A disk with the durable file `/store/a` of 2000 bytes.
fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.create(Path::new(A)).unwrap();
    file.write_at(&[1; 2000], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk
}

#[test]
fn a_cut_keeps_synced_bytes_and_loses_others_by_policy() {
    let disk = disk();
    let file = disk.open(Path::new(A)).unwrap();
    file.write_at(&[2; 1000], 500).unwrap();
    let map = file.map(2000).unwrap();
    assert_eq!(map.slice(500, 1000), Some(&[2; 1000][..]));
    let left = |cut| disk.crash(cut).bytes(Path::new(A));
    assert_eq!(left(Cut::LOST), [1; 2000]);
    assert_eq!(left(Cut::KEPT), disk.bytes(Path::new(A)));
    let torn = (0..100).map(|seed| {
        let bytes = Unsynced::Sectors(512);
        let cut = Cut {
            bytes,
            seed,
            ..Cut::LOST
        };
        left(cut)
    });
    let mut torn: Vec<_> = torn.collect();
    assert!(torn.iter().all(|bytes| bytes[..500] == [1; 500]));
    assert!(
        torn.iter()
            .all(|bytes| bytes[512..1024].iter().all(|b| *b == bytes[512]))
    );
    torn.sort_unstable();
    torn.dedup();
    assert_eq!(torn.len(), 8, "three sectors are each old or new");
}

#[test]
fn a_name_is_durable_once_its_directory_was_synced() {
    let disk = disk();
    let (a, b, c) = (Path::new(A), Path::new("/store/b"), Path::new("/store/c"));
    disk.create(b).unwrap();
    disk.rename(a, c).unwrap();
    assert_eq!(disk.crash(Cut::LOST).files(), [a]);
    assert_eq!(disk.crash(Cut::KEPT).files(), [b, c]);
    assert_eq!(disk.crash(Cut::KEPT).bytes(c), [1; 2000]);
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk.remove(b).unwrap();
    assert_eq!(disk.crash(Cut::LOST).files(), [b, c]);
    let cut = |seed| Cut {
        bytes: Unsynced::Lost,
        names: Names::Any,
        seed,
    };
    let files = |seed| disk.crash(cut(seed)).files().len();
    assert!((0..20).any(|seed| files(seed) == 1) && (0..20).any(|seed| files(seed) == 2));
}

#[test]
fn a_cut_can_be_made_at_any_earlier_place() {
    let disk = disk();
    let before = disk.place();
    let file = disk.open(Path::new(A)).unwrap();
    file.write_at(&[2; 2000], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(
        disk.crash_at(before, Cut::LOST).bytes(Path::new(A)),
        [1; 2000]
    );
    assert_eq!(disk.crash(Cut::LOST).bytes(Path::new(A)), [2; 2000]);
    let interrupted = disk.crash_at(before, Cut::KEPT).bytes(Path::new(A));
    assert_eq!(interrupted, [2; 2000], "the write that was under way");
    assert_eq!(
        disk.digest_at(before, Cut::LOST),
        disk.digest_at(before + 1, Cut::LOST)
    );
}

#[test]
fn a_failed_sync_forgets_bytes_that_can_still_be_read() {
    let disk = disk();
    let file = disk.open(Path::new(A)).unwrap();
    file.write_at(&[2; 2000], 0).unwrap();
    disk.fail(0, Fault::Forget, false);
    assert!(file.sync().is_err());
    assert_eq!(disk.bytes(Path::new(A)), [2; 2000]);
    file.sync().unwrap();
    assert_eq!(disk.crash(Cut::KEPT).bytes(Path::new(A)), [1; 2000]);
}

#[test]
fn space_is_limited_and_comes_back() {
    let disk = disk();
    disk.limit(Some(3000));
    let file = disk.create(Path::new("/store/b")).unwrap();
    let full = file.allocate(1001).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    file.allocate(1000).unwrap();
    assert!(file.write_at(&[1; 10], 995).is_err());
    disk.remove(Path::new(A)).unwrap();
    file.write_at(&[1; 10], 995).unwrap();
    assert_eq!(disk.bytes_used(), 1005);
}

/// What cuts at the last place can make of the file.
fn all_left(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let timeline = disk.timeline();
    let moment = timeline.moments(disk.place()).next().unwrap();
    assert_eq!(moment.place(), disk.place());
    let left = moment.all().into_iter().map(SimDisk::of);
    left.map(|disk| disk.bytes(Path::new(A))).collect()
}

#[test]
fn all_subsets_of_five_parts_are_tried_and_samples_of_more() {
    let disk = disk();
    let file = disk.open(Path::new(A)).unwrap();
    // Four sectors and a length.
    file.write_at(&[2; 300], 1400).unwrap();
    file.write_at(&[3; 600], 1900).unwrap();
    let left = all_left(&disk);
    let whole = |bytes: &&Vec<u8>| {
        let beyond = bytes.get(2048..).unwrap_or_default();
        let sectors = [
            &bytes[1400..1536],
            &bytes[1536..1700],
            &bytes[1900..2000],
            beyond,
        ];
        sectors.iter().all(|s| s.iter().all(|b| *b == s[0]))
    };
    let count = |len| left.iter().filter(whole).filter(|b| b.len() == len).count();
    // Two versions of a sector, three, and two; beyond the old length there is nothing.
    assert_eq!((count(2500), count(2000)), (12, 6));
    file.write_at(&[4; 2000], 0).unwrap();
    assert!((12..=32).contains(&all_left(&disk).len()));
}

#[test]
fn a_sector_may_be_written_back_while_it_is_being_filled() {
    let disk = disk();
    disk.open(Path::new(A))
        .unwrap()
        .write_at(&[2; 100], 600)
        .unwrap();
    let bytes = Unsynced::Halves;
    let filled = |seed| {
        let left = disk
            .crash(Cut {
                bytes,
                seed,
                ..Cut::KEPT
            })
            .bytes(Path::new(A));
        let end = left.iter().rposition(|b| *b == 2).map_or(600, |at| at + 1);
        assert!(
            left[600..end].iter().all(|b| *b == 2),
            "a part from the front"
        );
        end - 600
    };
    let filled: BTreeSet<_> = (0..100).map(filled).collect();
    assert!(filled.len() > 20 && filled.contains(&0) && filled.iter().all(|len| *len <= 100));
}

/// By a store, as nobody else can.
#[test]
fn what_is_written_through_memory_is_a_change_at_its_place() {
    let disk = SimDisk::new();
    disk.map_from(Some(0));
    let store = open_alone(&disk, &Clock::manual(1), Durability::None).unwrap();
    let ns = store.namespace("n").unwrap();
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "seg");
    let segment = disk.files().into_iter().find(is_segment).unwrap();
    let has = |disk: &SimDisk, byte| {
        let bytes = disk.bytes(&segment);
        bytes.windows(700).any(|value| *value == [byte; 700])
    };
    let mut places = Vec::new();
    for byte in 1..=2 {
        places.push(disk.place());
        ns.put("k", [byte; 700]).unwrap();
        assert!(has(&disk, byte), "at once");
    }
    assert_eq!(disk.place(), places[1] + 1);
    assert_eq!(places[1], places[0] + 1);
    let left = disk.crash_at(places[0], Cut::KEPT);
    assert!(has(&left, 1) && !has(&left, 2));
    let bytes = Unsynced::Halves;
    let torn = |seed| {
        disk.digest_at(
            places[1],
            Cut {
                bytes,
                seed,
                ..Cut::KEPT
            },
        )
    };
    assert!((0..100).map(torn).collect::<BTreeSet<_>>().len() > 50);
    assert!(!has(&disk.crash(Cut::LOST), 1));
    store.sync().unwrap();
    assert!(has(&disk.crash(Cut::LOST), 1) && has(&disk.crash(Cut::LOST), 2));
    let mapped = disk.mapped_writes();
    disk.fail(0, Fault::Io, false);
    ns.put("k", [3; 700]).unwrap();
    assert_eq!((disk.failures(), disk.mapped_writes()), (1, mapped));
    assert!(has(&disk, 3), "by a call, as there are no pages");
}

#[test]
fn reads_fail_where_told_and_changes_go_on() {
    let disk = disk();
    let file = disk.open(Path::new(A)).unwrap();
    disk.fail(1, Fault::Read, true);
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["a"]);
    let mut byte = [0];
    assert!(disk.list(Path::new(DIR)).is_err() && disk.open(Path::new(A)).is_err());
    assert!(file.read_at(&mut byte, 0).is_err() && file.map(10).is_err());
    assert!(file.map_private().is_err());
    file.write_at(&[2; 10], 0).unwrap();
    assert_eq!(disk.failures(), 5);
    disk.heal();
    file.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [2]);
}

#[test]
fn random_numbers_follow_from_what_lies_on_the_disk() {
    let roll = |disk: &SimDisk| {
        let mut bytes = [0; 20];
        disk.random(&mut bytes).unwrap();
        bytes
    };
    let (disk, other) = (disk(), disk().crash(Cut::KEPT));
    let first = roll(&other);
    assert_ne!(roll(&other), first);
    assert_eq!(roll(&disk.crash(Cut::LOST)), first);
    disk.rot(Path::new(A), 7, &[9]);
    assert_ne!(roll(&disk.crash(Cut::LOST)), first);
}
