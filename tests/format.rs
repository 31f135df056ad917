//! The format as `docs/format.md` tells it, and stores that were written before: the files in
//! `fixtures/` must open for ever.
//!
//! `RIMSTONE_WRITE_FIXTURES=1 cargo test -p rimstone-tests format` writes them again, with the bytes
//! of the hexdump in the document. `CONTRIBUTING.md` says when that may be done.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use rimstone::{Clock, ListOptions, Namespace, Options, PutOptions, Store};
use rimstone_tests::{copy, newest};
use tempfile::{TempDir, tempdir};

/// When the fixtures were written, as they see it.
const THEN: u64 = 1_700_000_000;
/// When some of their entries expire.
const EXPIRATION: u64 = 4_102_444_800;

#[test]
fn the_hexdump_in_the_document_is_the_smallest_store() {
    let dir = fixture("smallest");
    let bytes = fs::read(newest(dir.path(), "seg").unwrap()).unwrap();
    let document = fs::read_to_string(document()).unwrap();
    let (_, dump, _) = around_hexdump(&document);
    assert_eq!(dump, with_bytes(dump, &bytes));
}

#[test]
fn the_smallest_store_opens() {
    let dir = fixture("smallest");
    let store = open(dir.path());
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let flags = store.find_namespace("flags").unwrap();
    let entry = flags.get_with_metadata("user:1").unwrap().unwrap();
    assert_eq!(&entry.value()[..], b"on");
    assert_eq!(entry.metadata(), b"{\"v\":1}");
    assert_eq!(entry.expiration(), Some(EXPIRATION));
    assert_eq!(entry.generation(), 2);
    // The clean close had number 3; a record that changes nothing takes its place in the new segment.
    assert_eq!(store.stats().last_seqno, 4);
}

#[test]
fn a_store_with_every_kind_of_file_opens() {
    let dir = fixture("full");
    let kinds: BTreeMap<_, _> = ["seg", "large", "ckpt", "run"]
        .map(|kind| (kind, count(dir.path(), kind)))
        .into();
    let expected = [("seg", 2), ("large", 1), ("ckpt", 1), ("run", 1)];
    assert_eq!(kinds, expected.into());
    let store = open(dir.path());
    assert!(store.stats().checkpoint_seqno > 0);
    assert_eq!(store.stats().runs, 1);
    assert_full(&store);

    // The retired segment's file was there for the checkpoint's sake; two later ones let it go.
    store.compact().unwrap();
    assert_full(&store);
    assert!(!dir.path().join("0000000000000001.seg").exists());
}

#[test]
fn the_log_of_that_store_is_enough() {
    let dir = fixture("full");
    forget_all_but_the_log(dir.path());
    let store = open(dir.path());
    assert_eq!(store.stats().checkpoint_seqno, 0);
    assert_full(&store);
}

#[test]
fn a_store_that_was_compacted_opens() {
    let dir = fixture("compacted");
    let before = segments(dir.path());
    let kind = |path: &PathBuf| fs::read(path).unwrap()[10];
    let kinds: Vec<_> = before.iter().map(kind).collect();
    assert_eq!(
        kinds,
        [0, 2, 0],
        "one class segment between two front segments"
    );
    assert_compacted(&open(dir.path()));
    forget_all_but_the_log(dir.path());
    let store = open(dir.path());
    assert_eq!(store.stats().checkpoint_seqno, 0);
    assert_compacted(&store);

    // Compacting again moves what is live in them.
    store.compact().unwrap();
    assert_compacted(&store);
    assert!(!before.iter().any(|path| path.exists()));
}

#[test]
fn runs_of_every_version_are_listed() {
    for (name, version) in [("runs-1", 1), ("runs-2", 2)] {
        let dir = fixture(name);
        let versions: Vec<u8> = files(dir.path(), "run")
            .iter()
            .map(|path| fs::read(path).unwrap()[8])
            .collect();
        assert_eq!(versions, [version; 2], "{name}");
        let store = open(dir.path());
        assert_eq!(store.stats().runs, 2);
        assert_runs(&store);

        // With half as much more, merging makes one of all of them, of the version of today.
        let more = store.namespace("more").unwrap();
        (0..600).for_each(|n| put_listed(&more, n, 0));
        store.checkpoint().unwrap();
        assert_eq!(store.stats().runs, 1);
        assert_runs(&store);
    }
}

#[test]
fn checkpoints_of_every_version_open() {
    for (name, version) in [("runs-1", 1), ("checkpoint-2", 2)] {
        let dir = fixture(name);
        let newest = newest(dir.path(), "ckpt").unwrap();
        assert_eq!(fs::read(&newest).unwrap()[8], version, "{name}");
        let store = open(dir.path());
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert!(store.stats().checkpoint_seqno > 0, "nothing is replayed");
        let many = store.find_namespace("many").unwrap();
        assert!((0..600).all(|n| n % 20 == 5 || many.get(listed_key(n)).unwrap().is_some()));

        // What is saved from it is of the version of today.
        many.put("more", "").unwrap();
        store.checkpoint().unwrap();
        let newer = self::newest(dir.path(), "ckpt").unwrap();
        assert!(
            newer != newest && fs::read(newer).unwrap()[8] == 2,
            "{name}"
        );
    }
}

fn write_checkpoint() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let many = store.namespace("many").unwrap();
    (0..600).for_each(|n| put_listed(&many, n, 0));
    drop(many);
    store.checkpoint().unwrap();
    store.close().unwrap();
    save(dir.path(), "checkpoint-2");
}

fn write_smallest() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let flags = store.namespace("flags").unwrap();
    let options = PutOptions::new()
        .metadata("{\"v\":1}")
        .expiration(EXPIRATION);
    flags.put_with("user:1", "on", &options).unwrap();
    store.close().unwrap();
    save(dir.path(), "smallest");
}

fn write_full() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let ns = store.namespace("first").unwrap();
    ns.put("overwritten", "old").unwrap();
    drop((store, ns));
    trim(dir.path());

    let store = open(dir.path());
    let ns = store.find_namespace("first").unwrap();
    let options = PutOptions::new()
        .metadata("{\"type\":\"large\"}")
        .expiration(EXPIRATION);
    ns.put_with("large", large(), &options).unwrap();
    ns.put("before", "the checkpoint").unwrap();
    ns.put("deleted", "value").unwrap();
    ns.delete("deleted").unwrap();
    ns.put("sooner", "for ever").unwrap();
    let soon = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("sooner", "for a minute", &soon).unwrap();
    let dropped = store.namespace("dropped").unwrap();
    dropped.put("key", "value").unwrap();
    store.drop_namespace(dropped.id()).unwrap();
    store.checkpoint().unwrap();

    ns.put("overwritten", "new").unwrap();
    ns.put("before", "and after it").unwrap();
    // Nothing is live in the first segment now, and maintenance retires it.
    while store.stats().segments > 1 {
        std::thread::yield_now();
    }
    store.namespace("second").unwrap().put("key", "2").unwrap();
    drop(ns);
    store.close().unwrap();
    save(dir.path(), "full");
}

/// A store whose older records lie in a class segment, one of them overwritten since and one deleted.
fn write_compacted() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    let ns = store.namespace("first").unwrap();
    for key in ["deleted", "moved", "overwritten"] {
        ns.put(key, "old").unwrap();
    }
    ns.put("temporary", "value").unwrap();
    ns.delete("temporary").unwrap();
    store.compact().unwrap();
    ns.put("overwritten", "new").unwrap();
    ns.delete("deleted").unwrap();
    drop((store, ns));
    trim(dir.path());
    let store = open(dir.path());
    let ns = store.find_namespace("first").unwrap();
    ns.put("last", "new").unwrap();
    drop(ns);
    store.close().unwrap();
    save(dir.path(), "compacted");
}

fn assert_compacted(store: &Store) {
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let ns = store.find_namespace("first").unwrap();
    let page = ns.list(&ListOptions::new()).unwrap();
    let listed: Vec<_> = page.keys().map(|key| key.name.to_vec()).collect();
    assert_eq!(listed, [&b"last"[..], b"moved", b"overwritten"]);
    for (key, value) in [("last", "new"), ("moved", "old"), ("overwritten", "new")] {
        assert_eq!(&ns.get(key).unwrap().unwrap()[..], value.as_bytes());
    }
    let moved = ns.get_with_metadata("moved").unwrap().unwrap();
    assert_eq!(moved.generation(), 3, "a move is no write");
    assert_eq!(ns.get("deleted").unwrap(), None);
}

/// A store whose keys lie in two runs of many blocks, the younger with tombstones, and in the log behind them.
///
/// `runs-1` was written by the last program that wrote version 1 of the run format, and is never written
/// again.
fn write_runs() {
    let dir = tempdir().unwrap();
    let store = open(dir.path());
    for (name, keys) in [("many", 600), ("few", 3), ("others", 200)] {
        let ns = store.namespace(name).unwrap();
        (0..keys).for_each(|n| put_listed(&ns, n, 0));
    }
    store.checkpoint().unwrap();
    let ns = store.find_namespace("many").unwrap();
    (0..600).step_by(10).for_each(|n| put_listed(&ns, n, 1));
    (0..600)
        .skip(5)
        .step_by(20)
        .for_each(|n| assert!(ns.delete(listed_key(n)).unwrap()));
    store.checkpoint().unwrap();
    assert_eq!(store.stats().runs, 2);
    (0..600).step_by(60).for_each(|n| put_listed(&ns, n, 2));
    drop(ns);
    store.close().unwrap();
    save(dir.path(), "runs-2");
}

fn listed_key(n: u32) -> String {
    format!("a/long/beginning/{:04}/{n}", n.wrapping_mul(7919) % 10_000)
}

fn put_listed(ns: &Namespace, n: u32, version: u32) {
    let (metadata, expiration) = listed(n, version);
    let mut options = PutOptions::new().metadata(metadata);
    if let Some(expiration) = expiration {
        options = options.expiration(expiration);
    }
    ns.put_with(listed_key(n), "value", &options).unwrap();
}

fn listed(n: u32, version: u32) -> Shown {
    let len = if n.is_multiple_of(2) { n % 90 } else { 0 };
    let metadata = (0..len).map(|at| (at + version).to_le_bytes()[0]);
    let expires = n.is_multiple_of(3);
    (
        metadata.collect(),
        expires.then_some(EXPIRATION + u64::from(n)),
    )
}

/// Metadata and expiration of a key.
type Shown = (Vec<u8>, Option<u64>);
type Listed = BTreeMap<Vec<u8>, Shown>;

fn expected_of_runs(name: &str) -> Listed {
    let keys = match name {
        "many" => 0..600,
        "few" => 0..3,
        _ => 0..200,
    };
    let is_deleted = |n: u32| name == "many" && n % 20 == 5;
    let version = |n: u32| match name {
        "many" if n.is_multiple_of(60) => 2,
        "many" if n.is_multiple_of(10) => 1,
        _ => 0,
    };
    keys.filter(|n| !is_deleted(*n))
        .map(|n| (listed_key(n).into_bytes(), listed(n, version(n))))
        .collect()
}

/// Lists all of it, in pages of every size that matters, and from every key on.
fn assert_runs(store: &Store) {
    assert_eq!(store.stats().damage, Vec::<String>::new());
    for name in ["many", "few", "others"] {
        let ns = store.find_namespace(name).unwrap();
        let expected = expected_of_runs(name);
        let forward: Vec<_> = expected.iter().collect();
        let backward: Vec<_> = expected.iter().rev().collect();
        for limit in [1, 31, 32, 33, 1000] {
            for (reverse, expected) in [(false, &forward), (true, &backward)] {
                let found = everything(&ns, limit, reverse);
                assert!(
                    found
                        .iter()
                        .map(|(k, v)| (k, v))
                        .eq(expected.iter().copied())
                );
            }
        }
        for key in expected.keys() {
            let page = ns.list(&ListOptions::new().start(key).limit(1)).unwrap();
            assert!(page.keys().map(|k| k.name).eq([&key[..]]));
        }
    }
}

fn everything(ns: &Namespace, limit: usize, reverse: bool) -> Vec<(Vec<u8>, Shown)> {
    let mut options = ListOptions::new().limit(limit);
    if reverse {
        options = options.reverse();
    }
    let mut found = Vec::new();
    loop {
        let page = ns.list(&options).unwrap();
        let listed =
            |k: rimstone::ListedKey<'_>| (k.name.to_vec(), (k.metadata.to_vec(), k.expiration));
        found.extend(page.keys().map(listed));
        match page.cursor {
            Some(cursor) => options = options.cursor(cursor),
            None => return found,
        }
    }
}

fn forget_all_but_the_log(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "seg" && e != "large") {
            fs::remove_file(path).unwrap();
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir, "seg")
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == kind))
        .collect();
    files.sort();
    files
}

fn assert_full(store: &Store) {
    assert_eq!(store.stats().damage, Vec::<String>::new());
    let names: Vec<_> = store.namespaces().iter().map(|ns| ns.name()).collect();
    assert_eq!(names, ["first", "second"]);
    let ns = store.find_namespace("first").unwrap();
    let text = |key| {
        let value = ns.get(key).unwrap();
        value.map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    assert_eq!(text("overwritten").as_deref(), Some("new"));
    assert_eq!(text("before").as_deref(), Some("and after it"));
    assert_eq!(text("sooner").as_deref(), Some("for a minute"));
    assert_eq!(text("deleted"), None);
    let entry = ns.get_with_metadata("large").unwrap().unwrap();
    assert_eq!(&entry.value()[..], large());
    assert_eq!(entry.metadata(), b"{\"type\":\"large\"}");
    assert_eq!(entry.expiration(), Some(EXPIRATION));
    let second = store.find_namespace("second").unwrap();
    assert_eq!(&second.get("key").unwrap().unwrap()[..], b"2");
    let page = ns.list(&ListOptions::new()).unwrap();
    let listed: Vec<_> = page.keys().map(|k| (k.name, k.expiration)).collect();
    let expected: [(&[u8], _); 4] = [
        (b"before", None),
        (b"large", Some(EXPIRATION)),
        (b"overwritten", None),
        (b"sooner", Some(THEN + 60)),
    ];
    assert_eq!(listed, expected);
}

/// The smallest value that gets a file of its own.
fn large() -> Vec<u8> {
    (0..65_537u32).map(|n| n.to_le_bytes()[0]).collect()
}

fn open(dir: &Path) -> Store {
    let options = Options::new().clock(Clock::manual(THEN));
    options.open(dir).unwrap()
}

fn count(dir: &Path, kind: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let of_kind = |path: &PathBuf| path.extension().is_some_and(|e| e == kind);
    names.filter(of_kind).count()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md")
}

/// A copy of a fixture, since opening a store writes to it.
fn fixture(name: &str) -> TempDir {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("RIMSTONE_WRITE_FIXTURES").is_some() {
            write_smallest();
            write_full();
            write_compacted();
            write_runs();
            write_checkpoint();
            write_hexdump();
        }
    });
    copy(&fixtures().join(name))
}

/// Puts a store into the fixtures.
fn save(dir: &Path, name: &str) {
    trim(dir);
    let to = fixtures().join(name);
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Gives back the space that segments reserved: a closed store needs none of it.
fn trim(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "seg") {
            let mut bytes = fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            // Behind its last byte that is not zero a clean close has 11 more.
            bytes.truncate((used + 12).next_multiple_of(8));
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// The document before, in, and after the block with the hexdump.
fn around_hexdump(document: &str) -> (&str, &str, &str) {
    let start = document.find("```hexdump\n").unwrap() + "```hexdump\n".len();
    let (before, rest) = document.split_at(start);
    let (dump, after) = rest.split_at(rest.find("```").unwrap());
    (before, dump, after)
}

/// The hexdump with these bytes: each line has an offset, as many bytes as it had, and its meaning.
fn with_bytes(dump: &str, bytes: &[u8]) -> String {
    let (mut out, mut at) = (String::new(), 0);
    for line in dump.lines() {
        let (_, rest) = line.split_once("  ").unwrap();
        let (old, meaning) = rest.split_once("  ").unwrap();
        let len = old.split(' ').count();
        let digits = bytes[at..at + len].iter().map(|byte| format!("{byte:02x}"));
        let digits: Vec<_> = digits.collect();
        let (digits, meaning) = (digits.join(" "), meaning.trim_start());
        out.push_str(&format!("{at:04x}  {digits:<47}  {meaning}\n"));
        at += len;
    }
    assert!(
        bytes[at..].iter().all(|byte| *byte == 0),
        "bytes beyond {at} are not in the hexdump"
    );
    out
}

fn write_hexdump() {
    let segment = newest(&fixtures().join("smallest"), "seg").unwrap();
    let text = fs::read_to_string(document()).unwrap();
    let (before, dump, after) = around_hexdump(&text);
    let dump = with_bytes(dump, &fs::read(segment).unwrap());
    fs::write(document(), format!("{before}{dump}{after}")).unwrap();
}
