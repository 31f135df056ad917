//! Scrubbing finds every kind of damage and nothing else.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rimstone::{Clock, Damage, Loss, Options, PutOptions, Store};
use rimstone_tests::{copy, open};
use tempfile::{TempDir, tempdir};

/// A closed store with every kind of file: two checkpoints, runs, class segments, large values.
fn store(clock: &Clock) -> TempDir {
    let dir = tempdir().unwrap();
    for round in 0..3 {
        let store = open(dir.path(), clock);
        let ns = store.namespace("n").unwrap();
        for n in 0..40 {
            let key = format!("key {n}");
            ns.put(&key, format!("{key} in round {round}")).unwrap();
            ns.put(format!("round {round} {n}"), [7; 300]).unwrap();
        }
        ns.put("large", vec![round; 200_000]).unwrap();
        ns.delete(format!("key {round}")).unwrap();
        let hour = PutOptions::new().expiration_ttl(Duration::from_secs(3600));
        ns.put_with("expires", "soon", &hour).unwrap();
        store.compact().unwrap();
        store.checkpoint().unwrap();
        ns.put("tail", format!("of round {round}")).unwrap();
    }
    dir
}

fn scrub(dir: &Path, clock: &Clock) -> Vec<Damage> {
    let options = Options::new().clock(clock.clone());
    options.scrub(dir, |_, _| {}).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 16], at).unwrap();
}

#[test]
fn an_intact_store_has_no_damage_and_all_of_it_is_read() {
    let clock = Clock::manual(1_000);
    let dir = store(&clock);
    let before: Vec<_> = files(dir.path())
        .iter()
        .map(|p| fs::read(p).unwrap())
        .collect();
    let (mut last, mut calls) = ((0, 0), 0);
    let options = Options::new().clock(clock.clone());
    let found = options.scrub(dir.path(), |done, all| {
        assert!(done >= last.0 && done <= all);
        (last, calls) = ((done, all), calls + 1);
    });
    assert_eq!(found.unwrap(), Vec::<Damage>::new());
    assert!(
        last.0 == last.1 && last.1 > 250_000 && calls > 0,
        "{last:?}"
    );
    let after: Vec<_> = files(dir.path())
        .iter()
        .map(|p| fs::read(p).unwrap())
        .collect();
    assert!(before == after, "scrubbing writes nothing");
    let store = open(dir.path(), &clock);
    assert_eq!(store.scrub(|_, _| {}).unwrap(), Vec::<Damage>::new());
}

/// Flips a bit here and there in every file; whatever a get, a list or an open may meet later is found.
#[test]
fn a_flipped_bit_anywhere_is_found_unless_nobody_reads_it() {
    let clock = Clock::manual(1_000);
    let dir = store(&clock);
    let (mut found, mut flips, mut kinds) = (0, 0, [0; 3]);
    for path in files(dir.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = fs::read(&path).unwrap();
        // What lies behind the last record is zero.
        let len = content
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let step = (len / 60).max(1);
        for at in (0..len).step_by(step) {
            let copy = copy(dir.path());
            flip(&copy.path().join(&name), at.try_into().unwrap());
            let damage = scrub(copy.path(), &clock);
            flips += 1;
            found += u32::from(!damage.is_empty());
            let of_file = damage.iter().filter(|d| d.path.ends_with(&name));
            for damage in of_file {
                kinds[0] += u32::from(damage.loss == Loss::Nothing);
                kinds[1] += u32::from(damage.key.is_some());
                kinds[2] += u32::from(damage.loss == Loss::Records);
            }
            if damage.is_empty() {
                assert!(is_gap(&name, at, &content), "{name} at {at} of {len}");
            }
        }
    }
    assert!(
        flips > 300 && kinds.iter().all(|n| *n > 10),
        "{found} of {flips}, {kinds:?}"
    );
}

/// Whether `docs/format.md` says that nobody reads these bytes.
fn is_gap(name: &str, at: usize, content: &[u8]) -> bool {
    let padding = |from: usize| {
        // Behind a record, up to a multiple of 8.
        let end = from.next_multiple_of(8);
        name.ends_with(".seg") && end - from < 8
    };
    match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("ckpt") => (144..4096).contains(&at),
        Some("large") => (128..4096).contains(&at),
        Some("seg") => padding(at) && content[at] == 0,
        // How far the log reached is written in place, so that a damaged one means nothing.
        _ => name == "LOCK",
    }
}

#[test]
fn a_missing_file_is_found_or_was_not_needed() {
    let clock = Clock::manual(1_000);
    let dir = store(&clock);
    let mut found = 0;
    for path in files(dir.path()) {
        let copy = copy(dir.path());
        let name = path.file_name().unwrap();
        fs::remove_file(copy.path().join(name)).unwrap();
        let damage = scrub(copy.path(), &clock);
        found += u32::from(!damage.is_empty());
        let kind = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        if matches!(kind, "large" | "run") {
            assert!(
                damage.iter().any(|d| d.path.ends_with(name)),
                "{name:?}: {damage:?}"
            );
        }
    }
    assert!(found > 4, "{found}");
}

#[test]
fn an_open_store_is_scrubbed_beside_writers_and_compaction() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u32;
            while !is_done.load(Ordering::Relaxed) {
                ns.put(format!("key {}", n % 50), vec![1; 40_000]).unwrap();
                ns.put(format!("large {}", n % 3), vec![2; 70_000]).unwrap();
                n += 1;
                if n.is_multiple_of(100) {
                    store.compact().unwrap();
                }
            }
        });
        for _ in 0..15 {
            assert_eq!(store.scrub(|_, _| {}).unwrap(), Vec::<Damage>::new());
            let reader = Options::new().clock(clock.clone());
            assert_eq!(
                reader.scrub(dir.path(), |_, _| {}).unwrap(),
                Vec::<Damage>::new()
            );
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn damage_under_an_open_store_is_found_with_its_key() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    for value in ["the old value", "the new value"] {
        ns.put("key", value).unwrap();
    }
    ns.put("other", "intact").unwrap();
    let path = rimstone_tests::newest(dir.path(), "seg").unwrap();
    let content = fs::read(&path).unwrap();
    let place = |text: &str| {
        let at = content
            .windows(text.len())
            .position(|w| w == text.as_bytes());
        u64::try_from(at.unwrap()).unwrap()
    };
    let key = || Some(("n".to_owned(), b"key".to_vec()));
    flip(&path, place("the old value"));
    let found = store.scrub(|_, _| {}).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].loss, &found[0].key), (Loss::Dead, &key()));
    flip(&path, place("the new value"));
    let found = store.scrub(|_, _| {}).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[1].loss, &found[1].key), (Loss::Value, &key()));
    // The key itself: its record is found by who is listed.
    flip(&path, place("keythe new value"));
    let found = store.scrub(|_, _| {}).unwrap();
    let records = found.iter().filter(|d| d.loss == Loss::Records);
    assert_eq!(records.count(), 1, "{found:?}");
    let value = found.iter().find(|d| d.loss == Loss::Value);
    assert_eq!(value.unwrap().key, key());
    drop((ns, store));
    let store: Store = open(dir.path(), &clock);
    assert_eq!(store.stats().damage.len(), 2, "{:?}", store.stats().damage);
}
