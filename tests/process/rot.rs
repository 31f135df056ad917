//! Damage to the files of a store, closed or open: whatever is read is what was written, or an error.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rimstone::{Error, Store};
use rimstone_tests::{Dice, Seen, State, cases, copy, say};
use tempfile::{TempDir, tempdir};

use super::{KEYS, apply, key, perform};

const ACTS: usize = 260;
const PAGE: usize = 4096;

/// All that each key ever held, the last at the end; `None` for nothing.
type History = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

/// A store after many acts, with checkpoints, runs, class segments and large values, and what it held when.
fn grown() -> (TempDir, Store, History) {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (mut state, mut history) = (State::new(), History::new());
    for number in 0..ACTS {
        perform(&store, number).unwrap();
        apply(&mut state, number);
        for key in (0..KEYS).map(key) {
            let now = state["n"].get(&key).map(|seen: &Seen| seen.value.clone());
            let held = history.entry(key).or_insert_with(|| vec![None]);
            if held.last() != Some(&now) {
                held.push(now);
            }
        }
        if number == ACTS / 2 {
            store.checkpoint().unwrap();
        }
    }
    (dir, store, history)
}

/// The files that hold something, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect();
    all.sort();
    all
}

/// Damages a file in one of the ways that disks have; `None` if nothing changed.
fn damage(path: &Path, dice: &mut Dice, may_shorten: bool) -> Option<String> {
    let bytes = fs::read(path).unwrap();
    // Most of a preallocated file was never written.
    let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let (at, page) = (dice.below(used), dice.below(used.div_ceil(PAGE)) * PAGE);
    let page_end = (page + PAGE).min(bytes.len());
    let write = |bytes: &[u8], at: usize| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    };
    let name = path.file_name().unwrap().to_string_lossy();
    let what = match dice.below(if may_shorten { 6 } else { 4 }) {
        0 => {
            write(&[bytes[at] ^ (1 << dice.below(8))], at);
            format!("a bit at {at}")
        }
        1 => {
            write(&vec![0; page_end - page], page);
            format!("zeros at {page}")
        }
        2 => {
            let other = dice.below(used.div_ceil(PAGE)) * PAGE;
            let len = (page_end - page).min(bytes.len() - other);
            write(&bytes[other..other + len], page);
            format!("page {other} at {page}")
        }
        3 => {
            let noise: Vec<u8> = (page..page_end)
                .map(|_| dice.roll().to_le_bytes()[0])
                .collect();
            write(&noise, page);
            format!("noise at {page}")
        }
        4 => {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(at as u64).unwrap();
            format!("cut at {at}")
        }
        _ => {
            fs::remove_file(path).unwrap();
            "gone".to_owned()
        }
    };
    let now = fs::read(path).unwrap_or_default();
    (now != bytes).then(|| format!("{name}: {what}"))
}

/// How many keys are damaged; whatever is read was written, and is the newest unless damage was reported.
fn read_all(store: &Store, history: &History, reported: bool, what: &str) -> usize {
    let mut damaged = 0;
    let Some(ns) = store.find_namespace("n") else {
        assert!(reported, "{what}: the namespace is gone and nobody says so");
        return KEYS;
    };
    for (key, held) in history {
        let got = match ns.get(key) {
            Ok(got) => got.map(|value| value.to_vec()),
            Err(Error::Corrupt { .. }) => {
                damaged += 1;
                continue;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        assert!(held.contains(&got), "{what}: {key:?} never held that");
        let is_newest = held.last() == Some(&got);
        assert!(
            is_newest || reported,
            "{what}: {key:?} is older and nobody says so"
        );
        damaged += usize::from(!is_newest);
    }
    damaged
}

#[test]
fn whatever_rots_in_a_closed_store_is_reported_and_never_served() {
    let (dir, store, history) = grown();
    let killed = copy(dir.path());
    store.close().unwrap();
    let (mut dice, mut told) = (Dice::of_run(3), [0, 0, 0]);
    let rounds = cases(120);
    for round in 0..rounds {
        let copy = copy(if round % 2 == 0 {
            dir.path()
        } else {
            killed.path()
        });
        let files = files(copy.path());
        let Some(what) = damage(&files[dice.below(files.len())], &mut dice, true) else {
            continue;
        };
        let store = match Store::open(copy.path()) {
            Ok(store) => store,
            Err(Error::Corrupt { .. } | Error::UnsupportedFormat { .. }) => {
                told[0] += 1;
                continue;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let reported = !store.stats().damage.is_empty();
        told[1] += usize::from(reported);
        // After a kill the end of the log may be cut off by right.
        let may_be_shorter = round % 2 == 1;
        told[2] += read_all(&store, &history, reported || may_be_shorter, &what);
    }
    let [refused, degraded, keys] = told;
    say(&format!(
        "{rounds} damaged files: {refused} stores refused, {degraded} degraded, {keys} keys affected"
    ));
    assert!(refused > 0 && degraded > 0);
}

#[test]
fn whatever_rots_under_an_open_store_is_never_served() {
    let (mut dice, mut keys) = (Dice::of_run(4), 0);
    let rounds = cases(40);
    let (dir, store, history) = grown();
    for _ in 0..rounds {
        let files = files(dir.path());
        let path = &files[dice.below(files.len())];
        let before = fs::read(path).unwrap();
        let Some(what) = damage(path, &mut dice, false) else {
            continue;
        };
        // Everything is in the log that is mapped: nothing may look older.
        keys += read_all(&store, &history, false, &what);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&before, 0).unwrap();
    }
    say(&format!(
        "{rounds} damages under an open store: {keys} keys affected"
    ));
    assert!(keys > 0);
    assert_eq!(read_all(&store, &history, false, "all is mended"), 0);
}
