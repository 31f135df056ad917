//! The hot cache: what it holds, and what may happen between a look at the log and a copy into it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rimstone::{
    CacheStats, CacheStatus, Clock, Durability, Error, Namespace, Options, PutOptions, ReadOptions,
    Store, Verify, WriteBatch,
};
use rimstone_tests::{Doing, Gate, copy};
use tempfile::tempdir;

const HOUR: Duration = Duration::from_secs(3600);

fn options(clock: &Clock) -> Options {
    let options = Options::new().durability(Durability::None).cache(8 << 20);
    options.clock(clock.clone())
}

fn open(dir: &Path) -> (Store, Namespace) {
    let store = options(&Clock::manual(1_000)).open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

fn hot() -> ReadOptions {
    ReadOptions::new().cache_ttl(HOUR)
}

/// The value of a key and what the cache had to do with it.
fn read(ns: &Namespace, key: &str, options: &ReadOptions) -> Option<(Vec<u8>, CacheStatus)> {
    let read = ns.read_with(key, options, |e| (e.value().to_vec(), e.cache_status()));
    read.unwrap()
}

/// How a key is read that may be in the cache.
fn status(ns: &Namespace, key: &str) -> CacheStatus {
    read(ns, key, &hot()).unwrap().1
}

fn put(ns: &Namespace, key: &str) {
    ns.put(key, "new").unwrap();
}

fn delete(ns: &Namespace, key: &str) {
    ns.delete(key).unwrap();
}

fn cached(store: &Store) -> CacheStats {
    store.stats().cache.unwrap()
}

#[test]
fn a_hit_is_all_of_the_entry_by_every_way_of_reading() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    for (key, len) in [
        ("empty", 0),
        ("small", 100),
        ("kib", 60_000),
        ("large", 300_000),
    ] {
        let put = PutOptions::new().metadata("{\"a\":1}").expiration(5_000);
        let generation = ns.put_with(key, vec![7; len], &put).unwrap();
        let around = ns.get_many(&[key]).unwrap().pop().unwrap().unwrap();
        assert_eq!(status(&ns, key), CacheStatus::Miss);
        assert_eq!(status(&ns, key), CacheStatus::Hit);
        assert_eq!(ns.get_with(key, &hot()).unwrap().unwrap(), around);
        let check = |e: rimstone::EntryRef<'_>| {
            assert_eq!((e.value().len(), e.metadata()), (len, &b"{\"a\":1}"[..]));
            assert_eq!((e.expiration(), e.generation()), (Some(5_000), generation));
        };
        ns.read_with(key, &hot(), check).unwrap().unwrap();
        let tried = ns.try_stream_with(key, &hot()).unwrap();
        for stream in [ns.stream_with(key, &hot()).unwrap(), tried.unwrap()] {
            let stream = stream.unwrap();
            assert_eq!(stream.cache_status(), CacheStatus::Hit);
            assert_eq!(stream.read_all().unwrap()[..], vec![7; len]);
            assert_eq!(
                stream.range(1..3).unwrap().len(),
                len.min(3).saturating_sub(1)
            );
            assert_eq!(stream.metadata(), b"{\"a\":1}");
            assert_eq!(
                (stream.expiration(), stream.generation()),
                (Some(5_000), generation)
            );
            let pieces: usize = stream.map(|piece| piece.unwrap().len()).sum();
            assert_eq!(pieces, len);
        }
    }
    assert_eq!(cached(&store).entries, 4);
}

/// The cache's clock has 32 bits.
#[test]
fn an_expiration_at_or_beyond_the_end_of_the_caches_clock_is_told_as_it_is() {
    let dir = tempdir().unwrap();
    let (_store, ns) = open(dir.path());
    let end = u64::from(u32::MAX);
    for at in [end - 1, end, end + 1] {
        let put = PutOptions::new().expiration(at);
        ns.put_with("k", "v", &put).unwrap();
        for _ in 0..3 {
            let entry = ns.get_with("k", &hot()).unwrap().unwrap();
            assert_eq!(entry.expiration(), Some(at));
        }
    }
}

#[test]
fn a_store_without_a_cache_says_so() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("k", "v").unwrap();
    assert_eq!(status(&ns, "k"), CacheStatus::Off);
    assert_eq!(
        ns.stream("k").unwrap().unwrap().cache_status(),
        CacheStatus::Off
    );
    assert_eq!(store.stats().cache, None);
}

/// An acknowledged write is what the next read sees, whatever the `cache_ttl`.
#[test]
fn a_read_after_a_write_sees_it_whatever_the_cache_ttl() {
    type Write = fn(&Store, &Namespace);
    let writes: [(Write, Option<&str>); 8] = [
        (|_, ns| put(ns, "k"), Some("new")),
        (|_, ns| ns.delete_prefix("k").unwrap(), None),
        (|_, ns| ns.delete_prefix("").unwrap(), None),
        (|_, ns| delete(ns, "k"), None),
        (
            |store, ns| {
                let mut batch = WriteBatch::new();
                batch.put(ns, "other", "x").put(ns, "k", "new");
                store.write(batch).unwrap();
            },
            Some("new"),
        ),
        (
            |store, ns| {
                let mut batch = WriteBatch::new();
                batch.put(ns, "k", "between").delete(ns, "k");
                store.write(batch).unwrap();
            },
            None,
        ),
        (
            |_, ns| {
                let old = ns.get_with("k", &hot()).unwrap().unwrap();
                let put = PutOptions::new().if_generation(old.generation());
                ns.put_with("k", "new", &put).unwrap();
            },
            Some("new"),
        ),
        (
            |_, ns| {
                let mut writer = ns.writer("k", &PutOptions::new()).unwrap();
                writer.write(b"new").unwrap();
                writer.finish().unwrap();
            },
            Some("new"),
        ),
    ];
    for (write, expected) in writes {
        let dir = tempdir().unwrap();
        let (store, ns) = open(dir.path());
        ns.put("k", "old").unwrap();
        status(&ns, "k");
        assert_eq!(status(&ns, "k"), CacheStatus::Hit);
        write(&store, &ns);
        for _ in 0..3 {
            let seen = read(&ns, "k", &hot()).map(|(value, _)| value);
            assert_eq!(seen.as_deref(), expected.map(str::as_bytes));
        }
    }
}

#[test]
fn keys_of_two_namespaces_never_meet() {
    let dir = tempdir().unwrap();
    let (store, one) = open(dir.path());
    let two = store.namespace("two").unwrap();
    one.put("k", "1").unwrap();
    status(&one, "k");
    assert_eq!(read(&two, "k", &hot()), None);
    two.put("k", "2").unwrap();
    assert_eq!(read(&one, "k", &hot()).unwrap().0, b"1");
    assert_eq!(read(&two, "k", &hot()).unwrap().0, b"2");
    store.drop_namespace(one.id()).unwrap();
    let again = one.read_with("k", &hot(), |_| ());
    assert!(matches!(again, Err(Error::NoSuchNamespace)), "{again:?}");
    let anew = store.namespace("n").unwrap();
    assert_eq!(read(&anew, "k", &hot()), None);
    assert_eq!(read(&two, "k", &hot()).unwrap().0, b"2");
}

#[test]
fn an_expired_entry_is_missing_whatever_the_cache_ttl() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let store = options(&clock).open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("k", "v", &minute).unwrap();
    status(&ns, "k");
    clock.advance(59);
    assert_eq!(status(&ns, "k"), CacheStatus::Hit);
    clock.advance(1);
    assert_eq!(read(&ns, "k", &hot()), None);
    assert!(ns.stream_with("k", &hot()).unwrap().is_none());
    // An expiration beyond the cache's own clock is not cut short, or made for ever: it stays outside.
    ns.put_with("far", "v", &PutOptions::new().expiration(1 << 33))
        .unwrap();
    status(&ns, "far");
    assert_eq!(status(&ns, "far"), CacheStatus::Miss);
}

#[test]
fn a_copy_is_younger_than_the_cache_ttl_of_its_reader() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let store = options(&clock).open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("k", "v").unwrap();
    let minute = ReadOptions::new().cache_ttl(Duration::from_secs(60));
    let status = |options: &ReadOptions| read(&ns, "k", options).unwrap().1;
    assert_eq!(status(&minute), CacheStatus::Miss);
    clock.advance(59);
    assert_eq!(status(&minute), CacheStatus::Hit);
    clock.advance(1);
    assert_eq!(status(&minute), CacheStatus::Miss);
    assert_eq!(status(&hot()), CacheStatus::Hit, "another may take it");
}

#[test]
fn a_reader_may_write_what_it_is_lent() {
    let dir = tempdir().unwrap();
    let (_store, ns) = open(dir.path());
    ns.put("k", "v").unwrap();
    for _ in 0..3 {
        // Under a lock of the cache this would wait for itself.
        let put = |e: rimstone::EntryRef<'_>| ns.put("k", e.value()).map(drop);
        ns.read_with("k", &hot(), put).unwrap().unwrap().unwrap();
        status(&ns, "k");
    }
}

#[test]
fn the_cache_stays_within_its_budget() {
    let dir = tempdir().unwrap();
    let store = Options::new()
        .durability(Durability::None)
        .cache(256 << 10)
        .open(dir.path())
        .unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 0..2000usize {
        let key = format!("{n}");
        ns.put(&key, vec![1; n * 37 % 40_000]).unwrap();
        status(&ns, &key);
        assert!(cached(&store).bytes <= 256 << 10);
    }
    let cache = cached(&store);
    assert!(cache.bytes > 128 << 10 && cache.evicted > 100, "{cache:?}");
}

/// Copies that push others out cost more than reads: of what is read once, few come in.
#[test]
fn a_full_cache_takes_in_a_part_of_what_is_read_once() {
    let dir = tempdir().unwrap();
    let options = Options::new().durability(Durability::None).cache(256 << 10);
    let store = options.open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 0..4000 {
        ns.put(format!("{n}"), [1; 1000]).unwrap();
        status(&ns, &format!("{n}"));
    }
    let evicted = cached(&store).evicted;
    assert!((500..1500).contains(&evicted), "{evicted}");
    // What is read again and again comes in, too.
    assert!((0..100).any(|_| status(&ns, "7") == CacheStatus::Hit));
}

/// What compaction moves stays in the cache, and the cache keeps no segment.
#[test]
fn a_move_leaves_the_cache_alone_and_it_pins_no_segment() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    for round in 0..2 {
        for n in 0..2000 {
            ns.put(format!("{n}"), vec![round; 10_000]).unwrap();
        }
        ns.put("k", vec![9; 20_000]).unwrap();
    }
    // Compaction in the background may move it between a look at the table and the copy.
    while status(&ns, "k") == CacheStatus::Miss {}
    let before = ns.get_with("k", &hot()).unwrap().unwrap();
    for n in 0..1900 {
        ns.delete(format!("{n}")).unwrap();
    }
    // Maintenance may have been faster.
    store.compact().unwrap();
    assert!(
        store
            .segments()
            .iter()
            .any(|s| s.class.is_some() && s.live > 0)
    );
    assert_eq!(status(&ns, "k"), CacheStatus::Hit);
    assert_eq!(ns.get_with("k", &hot()).unwrap().unwrap(), before);
    assert_eq!(ns.get_many(&["k"]).unwrap()[0].as_ref(), Some(&before));
    drop(before);
    // What went while somebody looked goes a little later.
    let is_free = || store.compact().is_ok() && store.stats().held_bytes == 0;
    assert!((0..100).any(|_| is_free()), "a segment is held");
}

/// Changes each occurrence of some bytes on disk, under an open store.
fn spoil(dir: &Path, bytes: &[u8]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        let places = content.windows(bytes.len()).enumerate();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (at, _) in places.filter(|(_, there)| *there == bytes) {
            file.write_all_at(b"!", u64::try_from(at).unwrap()).unwrap();
        }
    }
}

#[test]
fn damage_is_never_cached_and_a_copy_made_before_it_is_whole() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    let large = "before the damage".repeat(6_000);
    ns.put("copied", "before the damage").unwrap();
    ns.put("large copy", &large).unwrap();
    ns.put("spoilt", "before the damage").unwrap();
    ns.put("large spoilt", &large).unwrap();
    status(&ns, "copied");
    status(&ns, "large copy");
    spoil(dir.path(), b"before the damage");
    for _ in 0..3 {
        for spoilt in ["spoilt", "large spoilt"] {
            let spoilt = ns.read_with(spoilt, &hot(), |_| ());
            assert!(matches!(spoilt, Err(Error::Corrupt { .. })), "{spoilt:?}");
        }
        assert!(ns.stream_with("spoilt", &hot()).is_err());
        let copied = read(&ns, "copied", &hot()).unwrap();
        assert_eq!(copied, (b"before the damage".to_vec(), CacheStatus::Hit));
        let copied = read(&ns, "large copy", &hot()).unwrap();
        assert!(copied == (large.clone().into_bytes(), CacheStatus::Hit));
    }
    assert_eq!(cached(&store).entries, 2);
}

#[test]
fn a_cache_begins_empty_after_reopening() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("k", "old").unwrap();
    status(&ns, "k");
    let killed = copy(dir.path());
    ns.put("k", "new").unwrap();
    drop((store, ns));
    for (dir, expected) in [(dir.path(), "new"), (killed.path(), "old")] {
        let (_store, ns) = open(dir);
        let (value, status) = read(&ns, "k", &hot()).unwrap();
        assert_eq!(
            (&value[..], status),
            (expected.as_bytes(), CacheStatus::Miss)
        );
    }
}

/// Verified once, large values are lent from their mappings, and need no copy.
#[test]
fn values_verified_once_are_copied_only_if_they_are_small() {
    let dir = tempdir().unwrap();
    let options = options(&Clock::manual(1_000)).verify(Verify::FirstRead);
    let store = options.open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("large", vec![1; 100_000]).unwrap();
    ns.put("small", vec![1; 10_000]).unwrap();
    for (key, expected) in [("large", CacheStatus::Miss), ("small", CacheStatus::Hit)] {
        status(&ns, key);
        assert_eq!(status(&ns, key), expected);
    }
}

/// A reader looks a key up, and before it has copied the entry into the cache, something happens. What
/// it copies must not be found by those who come later.
#[test]
fn a_late_copy_does_not_undo_what_happened_meanwhile() {
    type Happening = fn(&Store, &Namespace, &Clock);
    let happenings: [(&str, Happening); 7] = [
        ("put", |_, ns, _| put(ns, "k")),
        ("delete", |_, ns, _| delete(ns, "k")),
        ("delete and put", |_, ns, _| {
            ns.delete("k").unwrap();
            ns.put("k", "new").unwrap();
        }),
        ("batch", |store, ns, _| {
            let mut batch = WriteBatch::new();
            batch.put(ns, "other", "x").put(ns, "k", "new");
            store.write(batch).unwrap();
        }),
        ("drop", |store, ns, _| {
            store.drop_namespace(ns.id()).unwrap();
            store.namespace("n").unwrap();
        }),
        ("expiry", |_, _, clock| clock.advance(60)),
        ("compaction", |store, ns, _| {
            (0..1000).for_each(|n| delete(ns, &n.to_string()));
            store.compact().unwrap();
        }),
    ];
    for (name, happen) in happenings {
        let (dir, gate, clock) = (tempdir().unwrap(), Gate::default(), Clock::manual(1_000));
        let options = options(&clock).vfs(Arc::new(gate.clone()));
        let store = options.open(dir.path()).unwrap();
        let ns = store.namespace("n").unwrap();
        let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
        for n in 0..1000 {
            ns.put(n.to_string(), [0; 20_000]).unwrap();
        }
        // A large value, since its reader opens a file after it looked the key up.
        ns.put_with("k", vec![1; 100_000], &minute).unwrap();
        gate.hold_one(Doing::Open, ".large");
        std::thread::scope(|scope| {
            let late = scope.spawn(|| read(&ns, "k", &hot()).map(|(value, _)| value.len()));
            gate.await_someone();
            happen(&store, &ns, &clock);
            gate.open();
            // It may be given what there was when it asked, or nothing.
            let late = late.join().unwrap();
            assert!(late.is_none_or(|len| len == 100_000 || len == 3), "{name}");
        });
        let ns = store.namespace("n").unwrap();
        for _ in 0..3 {
            let expected = ns.get_many(&["k"]).unwrap().pop().unwrap();
            let expected = expected.map(|entry| entry.value().to_vec());
            let seen = read(&ns, "k", &hot()).map(|(value, _)| value);
            assert!(seen == expected, "after {name}");
        }
        let left = ns.get_many(&["k"]).unwrap().pop().unwrap();
        assert_eq!(
            left.is_some(),
            ["put", "delete and put", "batch", "compaction"].contains(&name)
        );
    }
}
