//! Logs that nobody writes, though all their checksums are right.

use std::path::Path;

use tempfile::{TempDir, tempdir};

use super::files::{Chain, Files};
use super::replay::{CROWDED, Replay};
use crate::format::lists::{Move, Relocation, Retire};
use crate::format::record::Kind;
use crate::format::segment::HEADER_LEN;
use crate::index::table::Location;
use crate::log::commit::Op;
use crate::log::scan::{Scan, Step};
use crate::vfs::OsVfs;
use crate::{Clock, Durability, Namespace, Options, Store};

fn open(dir: &Path) -> (Store, Namespace) {
    let store = Options::new().clock(Clock::manual(1)).open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

fn close(store: Store, ns: Namespace) {
    drop(ns);
    store.close().unwrap();
}

fn remove_what_is_derived(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "seg") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// A store with a key, this record, and another key.
fn with_record(kind: Kind, body: Vec<u8>) -> TempDir {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    store.checkpoint().unwrap();
    ns.put("before", "value").unwrap();
    let op = Op::keyless(kind, 9, body);
    ns.core().commit(vec![op], true).unwrap();
    ns.put("after", "value").unwrap();
    close(store, ns);
    dir
}

#[test]
fn a_record_whose_body_says_nothing_changes_nothing() {
    for kind in [Kind::Namespace, Kind::Retire, Kind::Move] {
        let dir = with_record(kind, vec![7; 3]);
        for is_rebuilt in [false, true] {
            if is_rebuilt {
                remove_what_is_derived(dir.path());
            }
            let (store, ns) = open(dir.path());
            assert_eq!(store.stats().damage, Vec::<String>::new());
            assert_eq!(store.namespaces().len(), 1);
            for key in ["before", "after"] {
                assert_eq!(&ns.get(key).unwrap().unwrap()[..], b"value", "{kind:?}");
            }
            close(store, ns);
        }
    }
}

#[test]
fn a_move_to_places_where_no_record_can_be_moves_nothing() {
    for new in [132, u32::MAX - 7] {
        let dir = tempdir().unwrap();
        let (store, ns) = open(dir.path());
        for key in 0..40u8 {
            ns.put([key], [key; 1000]).unwrap();
        }
        for key in (0..40u8).step_by(2) {
            ns.delete([key]).unwrap();
        }
        store.compact().unwrap();
        let core = ns.core();
        let all = core.segments.all();
        let (_, class) = all.iter().find(|(_, s)| s.class.is_some()).unwrap();
        let moved = Move {
            from: class.id,
            to: class.id,
            len: u32::try_from(class.published()).unwrap(),
            relocations: vec![Relocation {
                hash: 1,
                old: 128,
                new,
                len: 1064,
                expires: 0,
            }],
            ..Move::default()
        };
        let op = Op::keyless(Kind::Move, 0, moved.encode());
        core.commit(vec![op], true).unwrap();
        drop(all);
        close(store, ns);
        for is_rebuilt in [false, true] {
            if is_rebuilt {
                remove_what_is_derived(dir.path());
            }
            let (store, ns) = open(dir.path());
            assert_eq!(store.stats().damage, Vec::<String>::new());
            for key in 0..40u8 {
                let value = ns.get([key]).unwrap().map(|value| value.to_vec());
                assert_eq!(value, (key % 2 == 1).then(|| vec![key; 1000]));
            }
            close(store, ns);
        }
    }
}

/// What it says of itself afterwards is not found; it opens, and goes on in another segment.
#[test]
fn a_log_that_goes_on_in_a_segment_that_it_retired_opens() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    store.checkpoint().unwrap();
    let retire = Retire {
        victims: vec![ns.core().log.lock().active().1.id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], true).unwrap();
    ns.put("key", "in a segment that is gone").unwrap();
    close(store, ns);
    for _ in 0..2 {
        let (store, ns) = open(dir.path());
        assert!(ns.get("key").unwrap().is_none());
        ns.put("later", "value").unwrap();
        assert!(ns.get("later").unwrap().is_some());
        store.checkpoint().unwrap();
        close(store, ns);
    }
}

/// Nothing says that it is durable, so it is written again; and its segment goes, which would have gone for that.
#[test]
fn a_log_that_retires_a_segment_of_which_nothing_is_durable_opens() {
    let (dir, killed) = (tempdir().unwrap(), tempdir().unwrap());
    let options = Options::new().clock(Clock::manual(1));
    let store = options.durability(Durability::None).open(dir.path());
    let store = store.unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("key", "value").unwrap();
    let retire = Retire {
        victims: vec![ns.core().log.lock().active().1.id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], false).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    for _ in 0..2 {
        let (store, ns) = open(killed.path());
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"value");
        close(store, ns);
    }
}

/// Nobody can make keys of one hash, which has a secret seed. But what cannot be had is told.
#[test]
fn a_key_for_which_there_is_no_slot_is_told() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    close(store, ns);
    for is_rebuilt in [false, true] {
        let files = Files::list(&OsVfs, dir.path()).unwrap();
        let chain = Chain::read(&OsVfs, &files, 0, Err).unwrap();
        let front = chain.fronts.into_iter().next().unwrap();
        let (len, mut replay) = (front.len, Replay::new(front.header.store));
        let segment = replay.add(front, len).unwrap();
        let mut scan = Scan::new(&segment, HEADER_LEN as u64, 0, 0);
        let (offset, record) = loop {
            match scan.step() {
                Step::Record { offset, record, .. } if record.key == b"key" => {
                    break (u32::try_from(offset).unwrap(), record);
                }
                Step::End { .. } => panic!("the key is there"),
                _ => {}
            }
        };
        let hash = replay.hash(&record);
        let mut others = (1..10_000).map(|n| Location::new(9, 8 * n));
        assert!(others.any(|other| !replay.table.insert(hash, other)));
        match is_rebuilt {
            false => replay.apply(&record, hash, &segment, offset),
            true => replay.claim(&record, &segment, offset),
        }
        let [damage] = &replay.damage[..] else {
            panic!("{} damages", replay.damage.len())
        };
        assert_eq!((damage.reason, damage.offset), (CROWDED, offset.into()));
    }
}
