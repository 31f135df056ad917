//! What the cache promises, one thread at a time.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: an index out of range or a wrong byte fails them"
)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rimstone_cache::{Builder, Cache, Cause, Clock, Entry, Lookup, MissCost, Ticket, Value};

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn builder(clock: &Clock) -> Builder {
    let builder = Cache::builder(1 << 20).clock(clock.clone()).jitter(0.0);
    builder.shards(4)
}

fn lead(cache: &Cache, key: &str) -> Ticket {
    match cache.lookup(key, None) {
        Lookup::Lead(ticket) => ticket,
        other => panic!("{key}: {other:?}"),
    }
}

fn bytes(entry: Option<Entry>) -> Option<Bytes> {
    entry.map(|entry| entry.to_bytes())
}

#[test]
fn an_entry_weighs_what_it_holds_and_144_bytes() {
    let cache = Cache::with_max_weight(1 << 20);
    let weight = |value: Value| {
        cache.insert("name", value);
        cache.weight() - 4
    };
    assert_eq!(weight(Value::from("")), 144);
    assert_eq!(weight(Value::from("value").metadata(b"meta")), 144 + 5 + 4);
    assert_eq!(weight(Value::from("value").version(7)), 144 + 5 + 8);
    let kept = Bytes::from(vec![7; 20_000]);
    assert_eq!(weight(Value::from(kept)), 144 + 20_000 + 32);
}

#[test]
fn an_entry_is_what_was_put() {
    let cache = Cache::with_max_weight(1 << 20);
    for value in [Bytes::from_static(b"short"), vec![7; 20_000].into()] {
        let put = Value::from(value.clone())
            .metadata(b"meta")
            .version(9)
            .expiration(1 << 30);
        assert!(cache.insert((3, "key"), put));
        let entry = cache.get((3, "key"), None).expect("it is there");
        assert_eq!(
            (entry.value(), entry.metadata()),
            (&value[..], &b"meta"[..])
        );
        assert_eq!((entry.version(), entry.expiration()), (9, Some(1 << 30)));
        assert_eq!(entry.to_bytes(), value);
        assert!(cache.get((4, "key"), None).is_none(), "another namespace");
        let lent = cache.get_with((3, "key"), None, |entry| entry.value().len());
        assert_eq!(lent, Some(value.len()));
    }
    cache.validate();
}

#[test]
fn a_long_value_is_kept_without_a_copy() {
    let cache = Cache::with_max_weight(1 << 20);
    let value = Bytes::from(vec![1; 50_000]);
    cache.insert("key", Value::from(value.clone()));
    let held = bytes(cache.get("key", None)).expect("held");
    assert_eq!(held.as_ptr(), value.as_ptr());
}

#[test]
fn a_reader_sees_only_what_is_as_young_as_it_asks() {
    let clock = Clock::manual(1_000);
    let cache = builder(&clock).build();
    let ttl = Duration::from_secs(60);
    cache.insert("key", Value::from("1").ttl(ttl).expiration(1_300));
    clock.set(1_030);
    assert!(cache.get("key", seconds(30)).is_none());
    assert!(cache.get("key", seconds(31)).is_some(), "another reader");
    assert!(cache.get("key", None).is_some());
    clock.set(1_060);
    assert!(cache.get("key", None).is_none(), "its own ttl is over");
    assert!(cache.get("key", seconds(300)).is_some(), "a patient reader");
    clock.set(1_299);
    cache.maintain(1_000);
    assert!(
        cache.get("key", seconds(300)).is_some(),
        "it asked for more time"
    );
    clock.set(1_300);
    assert!(cache.get("key", seconds(1_000)).is_none(), "it expired");
    assert!(matches!(
        cache.lookup("key", seconds(1_000)),
        Lookup::Lead(_)
    ));
    cache.maintain(1_000);
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn who_peeks_keeps_nothing_for_longer() {
    let clock = Clock::manual(100);
    let cache = builder(&clock).build();
    cache.insert("key", Value::from("1").ttl(Duration::from_secs(10)));
    assert!(cache.peek("key", seconds(60)).is_some());
    assert!(cache.contains_key("key", seconds(60)));
    clock.set(120);
    cache.maintain(100);
    assert!(cache.is_empty());
}

#[test]
fn absence_is_held_until_a_value_comes() {
    let clock = Clock::manual(1_000);
    let cache = builder(&clock)
        .negative_ttl(Duration::from_secs(10))
        .build();
    cache.insert("key", Value::absent());
    assert!(cache.get("key", None).expect("known").is_absent());
    assert_eq!(cache.stats().negative_hits, 1);
    cache.insert("key", Value::from("now"));
    assert_eq!(bytes(cache.get("key", None)), Some("now".into()));
    cache.insert("key", Value::absent());
    clock.set(1_010);
    assert!(cache.get("key", None).is_none());
}

#[test]
fn a_fill_does_not_bring_back_what_was_deleted() {
    let cache = Cache::with_max_weight(1 << 20);
    let ticket = lead(&cache, "key");
    cache.invalidate("key");
    let completed = ticket.complete(Value::from("old"));
    assert!(!completed.stored);
    assert_eq!(completed.entry.value(), b"old", "for its own use");
    assert!(cache.get("key", None).is_none());
    assert_eq!(cache.stats().refused, 1);
}

#[test]
fn a_fill_does_not_replace_what_was_put() {
    let cache = Cache::with_max_weight(1 << 20);
    let ticket = lead(&cache, "key");
    cache.insert("key", Value::from("new"));
    assert!(!ticket.complete(Value::from("old")).stored);
    assert_eq!(bytes(cache.get("key", None)), Some("new".into()));
}

#[test]
fn a_fill_does_not_survive_clear_nor_its_namespace() {
    let cache = Cache::with_max_weight(1 << 20);
    let ticket = lead(&cache, "key");
    cache.clear();
    let next = lead(&cache, "key");
    assert!(
        !ticket.complete(Value::from("old")).stored,
        "another stands"
    );
    assert!(next.complete(Value::from("new")).stored);
    assert_eq!(bytes(cache.get("key", None)), Some("new".into()));

    let Lookup::Lead(ticket) = cache.lookup((5, "key"), None) else {
        panic!("nothing is there")
    };
    cache.insert((5, "other"), Value::from("kept"));
    cache.invalidate_namespace(5);
    assert!(cache.get((5, "other"), None).is_none());
    let Lookup::Lead(next) = cache.lookup((5, "key"), None) else {
        panic!("a fill of a forgotten namespace stands")
    };
    assert!(!ticket.complete(Value::from("old")).stored);
    assert!(next.complete(Value::from("new")).stored);
    assert!(cache.get((5, "key"), None).is_some());
    assert!(cache.get("key", None).is_some(), "of another namespace");
}

#[test]
fn an_older_version_does_not_come_back() {
    let clock = Clock::manual(1_000);
    let cache = builder(&clock)
        .fill_timeout(Duration::from_secs(60))
        .build();
    cache.insert("key", Value::from("7").version(7));
    assert!(!cache.insert("key", Value::from("6").version(6)));
    cache.invalidate_version("key", 7);
    assert_eq!(bytes(cache.get("key", None)), Some("7".into()), "not older");
    cache.invalidate_version("key", 8);
    assert!(cache.get("key", None).is_none());
    assert!(
        !lead(&cache, "key")
            .complete(Value::from("7").version(7))
            .stored
    );
    assert!(
        !cache.insert("key", Value::from("?")),
        "nobody knows its version"
    );
    assert!(cache.insert("key", Value::from("8").version(8)));
    cache.invalidate("key");
    clock.set(1_060);
    assert!(
        cache.insert("key", Value::from("7").version(7)),
        "no fill takes so long"
    );
}

#[test]
fn one_caller_fetches_what_is_stale_and_all_are_served() {
    let clock = Clock::manual(1_000);
    let stale = Duration::from_secs(20);
    let cache = builder(&clock).stale_while_revalidate(stale).build();
    let value = |text: &'static str| Value::from(text).ttl(Duration::from_secs(10));
    cache.insert("key", value("old"));
    clock.set(1_010);
    assert!(
        cache.get("key", None).is_none(),
        "a plain get wants it fresh"
    );
    let Lookup::Stale(entry, Some(ticket)) = cache.lookup("key", None) else {
        panic!("it may be served")
    };
    assert_eq!(entry.value(), b"old");
    assert!(matches!(cache.lookup("key", None), Lookup::Stale(_, None)));
    drop(ticket);
    let Lookup::Stale(_, Some(ticket)) = cache.lookup("key", None) else {
        panic!("the next one fetches")
    };
    assert!(ticket.complete(value("new")).stored);
    assert!(matches!(cache.lookup("key", None), Lookup::Hit(entry) if entry.value() == b"new"));
    clock.set(1_040);
    assert!(
        matches!(cache.lookup("key", None), Lookup::Lead(_)),
        "too stale"
    );
    let failed = cache.try_get_with("key", None, || Err("no"));
    assert_eq!(failed.map(|entry| entry.to_bytes()), Err("no"));
    cache.insert("key", value("old"));
    clock.set(1_055);
    let failed = cache.try_get_with("key", None, || Err("no"));
    assert_eq!(
        failed.map(|entry| entry.to_bytes()),
        Ok("old".into()),
        "better than nothing"
    );
    assert_eq!(cache.stats().stale_hits, 4);
}

#[test]
fn a_hot_entry_is_fetched_before_it_is_stale_by_one_caller() {
    let clock = Clock::manual(1_000);
    let cache = builder(&clock).refresh_ahead(0.1).max_refreshes(1).build();
    for key in ["hot", "hot too", "cold"] {
        cache.insert(key, Value::from("1").ttl(Duration::from_secs(100)));
    }
    for _ in 0..3 {
        let _ = (cache.get("hot", None), cache.get("hot too", None));
    }
    clock.set(1_089);
    assert!(
        matches!(cache.lookup("hot", None), Lookup::Hit(_)),
        "too early"
    );
    clock.set(1_090);
    assert!(matches!(cache.lookup("cold", None), Lookup::Hit(_)));
    let Lookup::Refresh(entry, ticket) = cache.lookup("hot", None) else {
        panic!("it is time")
    };
    assert_eq!(entry.value(), b"1");
    assert!(
        matches!(cache.lookup("hot", None), Lookup::Hit(_)),
        "one at a time"
    );
    assert!(
        matches!(cache.lookup("hot too", None), Lookup::Hit(_)),
        "one in all"
    );
    assert!(
        ticket
            .complete(Value::from("2").ttl(Duration::from_secs(100)))
            .stored
    );
    assert_eq!(bytes(cache.get("hot", None)), Some("2".into()));
    assert!(matches!(cache.lookup("hot too", None), Lookup::Refresh(..)));
}

#[test]
fn what_is_fetched_together_does_not_end_together() {
    let clock = Clock::manual(0);
    let cache = Cache::builder(1 << 20).clock(clock.clone()).build();
    for key in 0..100u8 {
        cache.insert(&[key], Value::from("1").ttl(Duration::from_secs(1000)));
    }
    let fresh = || {
        (0..100u8)
            .filter(|key| cache.contains_key(&[*key], None))
            .count()
    };
    clock.set(949);
    assert_eq!(fresh(), 100);
    clock.set(975);
    assert!((20..80).contains(&fresh()), "{}", fresh());
    clock.set(1000);
    assert_eq!(fresh(), 0);
}

#[test]
fn a_value_of_25_mib_is_kept_whatever_the_number_of_shards() {
    for shards in [1, 64, 256] {
        let cache = Cache::builder(256 << 20).shards(shards).build();
        for key in 0..100_000u32 {
            cache.insert(&key.to_le_bytes(), Value::from("small"));
        }
        let value = Bytes::from(vec![1; 25 << 20]);
        assert!(cache.insert("large", Value::from(value)));
        assert!(cache.contains_key("large", None));
        assert_eq!(cache.len(), 100_001, "there was room");
    }
}

#[test]
fn an_entry_heavier_than_allowed_is_refused_and_nothing_older_stays() {
    let cache = Cache::builder(1 << 20).max_entry_weight(1000).build();
    assert!(cache.insert("key", Value::from(vec![0; 800])));
    assert!(!cache.insert("key", Value::from(vec![0; 1000])));
    assert!(cache.get("key", None).is_none());
    assert!(
        !lead(&cache, "key")
            .complete(Value::from(vec![0; 1000]))
            .stored
    );
    assert_eq!((cache.len(), cache.weight()), (0, 0));
}

#[test]
fn a_scan_leaves_what_is_read_often() {
    let cache = Cache::builder(1_000 * 220).shards(1).build();
    let often = || (0..500u32).map(u32::to_le_bytes);
    let value = || Value::from(vec![0; 64]);
    for key in often().chain(often()) {
        if cache.get(&key, None).is_none() {
            cache.insert(&key, value());
        }
    }
    for key in 10_000..30_000u32 {
        cache.insert(&key.to_le_bytes(), value());
    }
    let kept = often().filter(|key| cache.contains_key(key, None)).count();
    assert!(kept > 450, "{kept} of 500 were kept");
}

#[test]
fn small_entries_stay_for_longer_than_large_ones() {
    let cache = Cache::builder(1 << 20)
        .miss_cost(MissCost::objects())
        .shards(1)
        .build();
    let (small, large) = (
        |key: u32| (1, key.to_le_bytes()),
        |key: u32| (2, key.to_le_bytes()),
    );
    for round in 0..50 {
        for key in 0..100 {
            let (namespace, name) = small(key);
            if cache.get((namespace, &name), None).is_none() {
                cache.insert((namespace, &name), Value::from(vec![0; 100]));
            }
            let (namespace, name) = large(round * 7 + key % 20);
            if cache.get((namespace, &name), None).is_none() {
                cache.insert((namespace, &name), Value::from(vec![0; 60_000]));
            }
        }
    }
    let kept = (0..100)
        .map(small)
        .filter(|(n, name)| cache.contains_key((*n, name), None))
        .count();
    assert!(kept > 95, "{kept} of 100 were kept");
}

/// Names and causes.
type Heard = Vec<(Vec<u8>, Cause)>;

#[test]
fn the_listener_hears_of_each_entry_once_and_may_use_the_cache() {
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let cell: Arc<Mutex<Option<Cache>>> = Arc::default();
    let (log, inner) = (Arc::clone(&heard), Arc::clone(&cell));
    let clock = Clock::manual(0);
    let listener = move |entry: &Entry, cause| {
        let name = entry.key().name.to_vec();
        if let Some(cache) = inner.lock().expect("a lock").clone() {
            let held = cache.get(entry.key(), None);
            assert!(held.is_none_or(|held| held.value() != b"old"));
        }
        log.lock().expect("a lock").push((name, cause));
    };
    let cache = builder(&clock).eviction_listener(listener).build();
    *cell.lock().expect("a lock") = Some(cache.clone());
    cache.insert("a", Value::from("old"));
    cache.insert("a", Value::from("new"));
    cache.insert("b", Value::from("old").ttl(Duration::from_secs(5)));
    clock.set(5);
    cache.maintain(100);
    cache.invalidate("a");
    cache.insert("c", Value::from("old"));
    cache.set_max_weight(0);
    cache.set_max_weight(1 << 20);
    cache.insert("d", Value::from("old"));
    cache.clear();
    let names = |name: &[u8], cause| (name.to_vec(), cause);
    let expected = [
        names(b"a", Cause::Replaced),
        names(b"b", Cause::Expired),
        names(b"a", Cause::Explicit),
        names(b"c", Cause::Size),
        names(b"d", Cause::Explicit),
    ];
    assert_eq!(*heard.lock().expect("a lock"), expected);
    let stats = cache.stats();
    assert_eq!(
        (
            stats.replaced,
            stats.expired,
            stats.invalidated,
            stats.evicted
        ),
        (1, 1, 2, 1)
    );
    *cell.lock().expect("a lock") = None;
}

#[test]
fn the_hottest_come_first() {
    let cache = Cache::with_max_weight(1 << 20);
    for key in 0..10u8 {
        cache.insert(&[key], Value::from("1"));
        for _ in 0..key.min(3) {
            let _ = cache.get(&[key], None);
        }
    }
    let hottest: Vec<_> = cache
        .hottest(8)
        .iter()
        .map(|entry| entry.key().name[0])
        .collect();
    assert!(hottest[..7].iter().all(|key| *key >= 3), "{hottest:?}");
    assert_eq!(hottest[7], 2);
}

#[test]
fn a_value_whose_destructor_uses_the_cache_is_dropped_unlocked() {
    struct Owner(Cache, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &[0; 5000]
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.insert("from a destructor", Value::from("1"));
            self.1.fetch_add(1, SeqCst);
        }
    }
    let (cache, dropped) = (Cache::builder(1 << 16).shards(1).build(), Arc::default());
    let value = || {
        Value::from(Bytes::from_owner(Owner(
            cache.clone(),
            Arc::clone(&dropped),
        )))
    };
    for key in 0..100u8 {
        cache.insert(&[key], value());
    }
    cache.insert(&[99], value());
    cache.invalidate(&[99]);
    cache.clear();
    assert_eq!(dropped.load(SeqCst), 101);
    // Also one that is refused: the source has another by now; a newer version is known; it is too heavy.
    assert!(!cache.insert_if(&[1], value(), || false));
    cache.invalidate_version(&[1], 9);
    assert!(!cache.insert(&[1], value().version(3)));
    assert!(!cache.insert(&[2], value().metadata(&[0; 4000])));
    assert_eq!(dropped.load(SeqCst), 104);
}
