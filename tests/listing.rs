//! What the ordered keys take of writes that a list shows nothing of, and what a scan shows beside writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rimstone::{Clock, Durability, ListOptions, Namespace, Options, PutOptions, Store, WriteBatch};
use rimstone_tests::{Doing, Gate, copy, fresh, open};
use tempfile::tempdir;

const KEYS: u32 = 2_000;

fn put_all(ns: &Namespace, value: &str, metadata: &str, expiration: Option<u64>) {
    for n in 0..KEYS {
        let mut options = PutOptions::new().metadata(format!("{metadata}{n}"));
        if let Some(expiration) = expiration {
            options = options.expiration(expiration);
        }
        ns.put_with(format!("key {n}"), value, &options).unwrap();
    }
}

fn assert_listed(ns: &Namespace, metadata: &str, expiration: Option<u64>) {
    let page = ns.list(&ListOptions::new().limit(10_000)).unwrap();
    assert_eq!(page.len(), KEYS as usize);
    for key in page.keys() {
        let n = String::from_utf8_lossy(&key.name[4..]).into_owned();
        assert_eq!(key.metadata, format!("{metadata}{n}").as_bytes());
        assert_eq!(key.expiration, expiration);
    }
}

fn index_bytes(store: &Store) -> u64 {
    store.stats().index_bytes
}

#[test]
fn an_overwrite_that_a_list_does_not_show_takes_no_memory() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    put_all(&ns, "first", "m", Some(5_000));
    store.checkpoint().unwrap();
    let without = index_bytes(&store);
    put_all(&ns, "second", "m", Some(5_000));
    assert_eq!(index_bytes(&store), without);
    assert_listed(&ns, "m", Some(5_000));

    let killed = copy(dir.path());
    let opened = open(killed.path(), &clock);
    let ns_opened = opened.namespace("n").unwrap();
    assert_eq!(index_bytes(&opened), without, "neither does replaying it");
    assert_listed(&ns_opened, "m", Some(5_000));
    assert_eq!(&ns_opened.get("key 7").unwrap().unwrap()[..], b"second");

    put_all(&ns, "third", "other", Some(5_000));
    assert!(index_bytes(&store) > without, "metadata changed");
    assert_listed(&ns, "other", Some(5_000));
    store.checkpoint().unwrap();
    put_all(&ns, "fourth", "other", None);
    assert!(index_bytes(&store) > without, "the expiration changed");
    assert_listed(&ns, "other", None);
}

/// What replaces an entry that expired is not like it, whatever a run still holds of that.
#[test]
fn a_put_after_an_expiry_is_listed() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    put_all(&ns, "first", "m", Some(1_010));
    store.checkpoint().unwrap();
    clock.advance(5_000);
    put_all(&ns, "second", "m", Some(7_000));
    store.checkpoint().unwrap();
    put_all(&ns, "third", "m", Some(7_000));
    assert_listed(&ns, "m", Some(7_000));
    drop(ns);
    store.close().unwrap();
    let store = open(dir.path(), &clock);
    assert_listed(&store.namespace("n").unwrap(), "m", Some(7_000));
}

#[test]
fn a_key_that_was_deleted_and_put_again_is_listed() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    let options = PutOptions::new()
        .metadata("m")
        .expiration_ttl(Duration::from_secs(50));
    for value in ["first", "second"] {
        ns.put_with("key", value, &options).unwrap();
    }
    store.checkpoint().unwrap();
    ns.put_with("key", "third", &options).unwrap();
    ns.delete("key").unwrap();
    ns.put_with("key", "fourth", &options).unwrap();
    ns.put_with("key", "fifth", &options).unwrap();
    for _ in 0..2 {
        let killed = copy(dir.path());
        let opened = open(killed.path(), &clock);
        let page = opened
            .namespace("n")
            .unwrap()
            .list(&ListOptions::new())
            .unwrap();
        let listed: Vec<_> = page.keys().map(|key| (key.name, key.metadata)).collect();
        assert_eq!(listed, [(&b"key"[..], &b"m"[..])]);
        store.checkpoint().unwrap();
    }
}

/// Sets a number to zero when it is dropped, also by a panic: others wait for that.
struct End<'a>(&'a AtomicU32);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// Batches before the first scan of the test below.
const WRITTEN: u32 = 50;

/// Keys that nobody touches are in a scan exactly once and in order, whatever else is put, deleted, merged and
/// compacted between its pages, and what one batch wrote is on one page as that batch left it.
#[test]
fn a_scan_beside_writers_shows_each_untouched_key_once() {
    let (_dir, _clock, store, ns) = fresh();
    let still: Vec<String> = (0..300).map(|n| format!("{n:03} still")).collect();
    for key in &still {
        ns.put(key, "v").unwrap();
    }
    // Between those that stay: one key that comes and goes, and two that one batch writes.
    let write = |number: u32| {
        let place = number * 7 % 300;
        let mut batch = WriteBatch::new();
        let written = PutOptions::new().metadata(number.to_le_bytes());
        batch.put_with(&ns, format!("{place:03} twin a"), "v", &written);
        batch.put_with(&ns, format!("{place:03} twin b"), "v", &written);
        store.write(batch).unwrap();
        ns.put(format!("{place:03} once"), "v").unwrap();
        ns.delete(format!("{:03} once", (place + 150) % 300))
            .unwrap();
        if number.is_multiple_of(90) {
            ns.delete_prefix(format!("{place:03} twin")).unwrap();
        }
    };
    // Some at first, as all scans may be over before another thread has its turn.
    (0..WRITTEN).for_each(write);
    let scans_left = AtomicU32::new(40);
    let goes_on = || scans_left.load(Relaxed) > 0;
    let pairs = thread::scope(|scope| {
        scope.spawn(|| {
            (WRITTEN..u32::MAX)
                .take_while(|_| goes_on())
                .for_each(write)
        });
        scope.spawn(|| {
            while goes_on() {
                store.checkpoint().unwrap();
                store.compact().unwrap();
            }
        });
        let (_end, mut pairs) = (End(&scans_left), 0);
        while goes_on() {
            let mut listed = Vec::new();
            let mut options = ListOptions::new().limit(7);
            loop {
                let page = ns.list(&options).unwrap();
                let keys = page
                    .keys()
                    .map(|key| (key.name.to_vec(), key.metadata.to_vec()));
                let keys: Vec<_> = keys.collect();
                for two in keys.windows(2).filter(|two| two[0].0.ends_with(b"twin a")) {
                    pairs += 1;
                    assert!(two[1].0.ends_with(b"twin b"), "a half of a batch: {two:?}");
                    assert_eq!(two[0].1, two[1].1, "two batches on one page");
                }
                listed.extend(keys.into_iter().map(|(name, _)| name));
                let Some(cursor) = page.cursor else { break };
                options = options.cursor(cursor);
            }
            assert!(
                listed.is_sorted_by(|a, b| a < b),
                "in order, and none twice"
            );
            listed.retain(|name| name.ends_with(b"still"));
            assert!(
                listed.iter().eq(still.iter().map(String::as_bytes)),
                "one is missing"
            );
            scans_left.fetch_sub(1, Relaxed);
        }
        pairs
    });
    assert!(pairs > 100, "{pairs} pairs were seen");
}

/// The keys that a page shows while somebody puts a key behind each, and deletes the last.
fn shown_beside_writes(store: &Store, ns: &Namespace) -> Vec<String> {
    let mut shown = Vec::new();
    let page = ns.read_page(&ListOptions::new(), |key| {
        let name = String::from_utf8_lossy(key.name).into_owned();
        let mut batch = WriteBatch::new();
        batch.put(ns, format!("{name}+"), "v").delete(ns, "z");
        store.write(batch).unwrap();
        shown.push(name);
    });
    assert_eq!(page.unwrap(), None);
    shown
}

/// What is there after [`shown_beside_writes`], and once the last key was put again.
fn after_writes(before: &[String]) -> Vec<String> {
    let mut after: Vec<_> = before.iter().map(|name| format!("{name}+")).collect();
    after.extend_from_slice(before);
    after.sort();
    after.dedup();
    after
}

/// Rule 12: a page is of one moment, whatever is written while it is read: where keys lie in memory, in a run, and while
/// they are on their way from one to the other.
#[test]
fn a_page_shows_the_moment_in_which_it_began() {
    let (dir, gate) = (tempdir().unwrap(), Gate::default());
    let options = Options::new().durability(Durability::None);
    let store = options.vfs(Arc::new(gate.clone())).open(dir.path());
    let store = store.unwrap();
    let ns = store.namespace("n").unwrap();
    let mut names = ["a", "b", "z"].map(String::from).to_vec();
    for name in &names {
        ns.put(name, "v").unwrap();
    }
    assert_eq!(shown_beside_writes(&store, &ns), names, "in memory");
    for round in 0..2 {
        names = after_writes(&names);
        ns.put("z", "v").unwrap();
        gate.hold(Doing::Sync, ".run");
        let shown = thread::scope(|scope| {
            let checkpoint = scope.spawn(|| store.checkpoint());
            gate.await_someone();
            let shown = shown_beside_writes(&store, &ns);
            // Before anything fails, so that nobody waits for ever.
            gate.open();
            checkpoint.join().unwrap().unwrap();
            shown
        });
        assert_eq!(shown, names, "on their way to run {round}");
        names = after_writes(&names);
        ns.put("z", "v").unwrap();
        assert_eq!(
            shown_beside_writes(&store, &ns),
            names,
            "behind run {round}"
        );
    }
}

#[test]
fn a_page_is_lent_as_it_is_listed() {
    let (dir, clock) = (tempdir().unwrap(), Clock::manual(1_000));
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    put_all(&ns, "value", "m", Some(5_000));
    store.checkpoint().unwrap();
    put_all(&ns, "value", "other", None);
    for limit in [1, 7, 1000, 5000] {
        let (mut options, mut listed) = (ListOptions::new().limit(limit).prefix("key 1"), 0);
        loop {
            let page = ns.list(&options).unwrap();
            listed += page.len();
            let mut keys = page.keys();
            let lent = ns.read_page(&options, |key| assert_eq!(keys.next(), Some(key)));
            assert_eq!(keys.next(), None);
            drop(keys);
            assert_eq!(lent.unwrap(), page.cursor);
            match page.cursor {
                Some(cursor) => options = options.cursor(cursor),
                None => break,
            }
        }
        assert_eq!(listed, 1111, "1, 1x, 1xx and 1xxx");
    }
}
