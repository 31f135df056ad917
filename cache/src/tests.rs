use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use proptest::prelude::*;

use crate::{Cache, Entry, Lookup, Ticket};

const MAX_WEIGHT: u64 = 100;
/// Versions that the race between a writer and readers goes through.
const LAST: u64 = 20_000;

fn miss<'c>(cache: &'c Cache<u64, u64>, key: u64, now: u64) -> Ticket<'c, u64, u64> {
    match cache.lookup(&key, now, None) {
        Lookup::Miss(ticket) => ticket,
        Lookup::Hit(value) => panic!("{key} is {value}"),
    }
}

#[test]
fn a_fill_loses_to_a_write() {
    let cache = Cache::new(MAX_WEIGHT);
    let ticket = miss(&cache, 1, 0);
    cache.remove(&1);
    assert!(!ticket.insert(Entry::new(10, 1)), "removed meanwhile");
    assert_eq!(cache.get(&1, 0, None), None);

    let ticket = miss(&cache, 1, 0);
    cache.insert(1, Entry::new(12, 1), 0);
    assert!(!ticket.insert(Entry::new(11, 1)), "written meanwhile");
    assert_eq!(cache.get(&1, 0, None), Some(12));

    let (late, stays) = (miss(&cache, 2, 0), 2);
    cache.clear();
    let next = miss(&cache, stays, 0);
    assert!(!late.insert(Entry::new(20, 1)), "another load stands");
    assert!(next.insert(Entry::new(21, 1)));
    assert_eq!(cache.get(&stays, 0, None), Some(21));
}

#[test]
fn a_read_sees_only_what_is_as_young_as_it_asks() {
    let cache = Cache::new(MAX_WEIGHT);
    cache.insert(1, Entry::new(10, 1).expiration(1_100), 1_000);
    assert_eq!(cache.get(&1, 1_029, Some(30)), Some(10));
    assert_eq!(cache.get(&1, 1_030, Some(30)), None);
    assert_eq!(cache.get(&1, 1_030, Some(60)), Some(10), "another reader");
    assert_eq!(cache.get(&1, 1_099, None), Some(10));
    assert_eq!(cache.get(&1, 1_100, None), None, "expired");
}

#[test]
fn one_reader_loads_and_the_others_wait() {
    let (cache, loads) = (Cache::<u64, u64>::new(MAX_WEIGHT), AtomicU64::new(0));
    let together = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                let load = || Ok::<_, ()>(Entry::new(loads.fetch_add(1, SeqCst), 1));
                assert_eq!(cache.get_or_load(&1, 0, None, load), Ok(0));
            });
        }
    });
    assert_eq!(loads.load(SeqCst), 1);
}

#[test]
fn who_waited_for_a_load_that_failed_loads() {
    let cache = Cache::<u64, u64>::new(MAX_WEIGHT);
    let ticket = miss(&cache, 1, 0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let load = || Ok::<_, ()>(Entry::new(2, 1));
            cache.get_or_load(&1, 0, None, load)
        });
        drop(ticket);
        assert_eq!(waiting.join().expect("no panic"), Ok(2));
    });
    let failed = cache.get_or_load(&3, 0, None, || Err("no"));
    assert_eq!(failed, Err("no"));
    drop(miss(&cache, 3, 0));
}

#[test]
fn a_value_of_the_whole_bound_fits_and_a_heavier_one_does_not() {
    let cache = Cache::new(MAX_WEIGHT);
    for key in 0..50 {
        cache.insert(key, Entry::new(key, 2), 0);
    }
    cache.insert(99, Entry::new(1, MAX_WEIGHT), 0);
    assert_eq!(
        (cache.get(&99, 0, None), cache.weight()),
        (Some(1), MAX_WEIGHT)
    );
    assert!(!miss(&cache, 7, 0).insert(Entry::new(7, MAX_WEIGHT + 1)));
    cache.insert(99, Entry::new(2, MAX_WEIGHT + 1), 0);
    assert_eq!(
        (cache.get(&99, 0, None), cache.weight()),
        (None, 0),
        "not the old value"
    );
}

#[test]
fn a_scan_leaves_what_is_read_often() {
    let cache = Cache::new(2_000);
    let often = 0..1_000;
    for key in often.clone().chain(often.clone()) {
        if cache.get(&key, 0, None).is_none() {
            cache.insert(key, Entry::new(key, 1), 0);
        }
    }
    for key in 10_000..30_000 {
        cache.insert(key, Entry::new(key, 1), 0);
    }
    let kept = often
        .filter(|key| cache.get(key, 0, None).is_some())
        .count();
    assert!(kept > 900, "{kept} of 1000 were kept");
}

#[test]
fn a_reader_never_sees_less_than_was_acknowledged_before_it_began() {
    let (cache, source) = (Cache::<u64, u64>::new(MAX_WEIGHT), AtomicU64::new(0));
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..=LAST {
                source.store(version, SeqCst);
                cache.remove(&1);
                acknowledged.store(version, SeqCst);
                thread::yield_now();
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut floor = 0;
                while floor < LAST {
                    floor = acknowledged.load(SeqCst);
                    let load = || {
                        let version = source.load(SeqCst);
                        thread::yield_now();
                        Ok::<_, ()>(Entry::new(version, 1))
                    };
                    let seen = cache.get_or_load(&1, 0, None, load).expect("loads");
                    assert!(seen >= floor, "{seen} after {floor}");
                }
            });
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Get { key: u64, cache_ttl: Option<u64> },
    Insert { key: u64, weight: u64, life: u64 },
    Remove { key: u64 },
    Begin { key: u64 },
    Finish { weight: u64, life: u64 },
    GiveUp,
    Clear,
    Advance { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (key, weight, life) = (0..40u64, 0..=MAX_WEIGHT / 4, 0..50u64);
    prop_oneof![
        8 => (key.clone(), prop::option::of(0..20u64)).prop_map(|(key, cache_ttl)| Step::Get { key, cache_ttl }),
        6 => (key.clone(), weight.clone(), life.clone()).prop_map(|(key, weight, life)| Step::Insert { key, weight, life }),
        2 => key.clone().prop_map(|key| Step::Remove { key }),
        4 => key.prop_map(|key| Step::Begin { key }),
        4 => (weight, life).prop_map(|(weight, life)| Step::Finish { weight, life }),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Clear),
        2 => (0..10u64).prop_map(|seconds| Step::Advance { seconds }),
    ]
}

/// What the cache may return for a key: this or nothing.
struct Known {
    value: u64,
    loaded: u64,
    expiration: u64,
}

proptest! {
    /// The cache may forget what it likes, but what it returns is the newest value, not expired and
    /// as young as asked for; a ticket is good if, and only if, its key was left alone; and the weight
    /// keeps its bound.
    #[test]
    fn every_history_agrees_with_a_map(steps in prop::collection::vec(step(), 1..200)) {
        let cache = Cache::<u64, u64>::new(MAX_WEIGHT);
        let mut known = HashMap::<u64, Known>::new();
        // Tickets in the order they were taken, and whether they are still good.
        let mut tickets: Vec<(u64, u64, bool, Ticket<'_, u64, u64>)> = Vec::new();
        let mut now = 1_000;
        for (value, step) in (0u64..).zip(steps) {
            match step {
                Step::Get { key, cache_ttl } => if let Some(value) = cache.get(&key, now, cache_ttl) {
                    let known = known.get(&key).expect("never removed");
                    prop_assert_eq!(value, known.value);
                    prop_assert!(now < known.expiration);
                    prop_assert!(cache_ttl.is_none_or(|ttl| now < known.loaded + ttl));
                },
                Step::Insert { key, weight, life } => {
                    cache.insert(key, Entry::new(value, weight).expiration(now + life), now);
                    known.insert(key, Known { value, loaded: now, expiration: now + life });
                    void(&mut tickets, |of| of == key);
                }
                Step::Remove { key } => {
                    cache.remove(&key);
                    known.remove(&key);
                    void(&mut tickets, |of| of == key);
                }
                // A second lookup would wait for the first.
                Step::Begin { key } if tickets.iter().any(|t| t.0 == key && t.2) => {}
                Step::Begin { key } => if let Lookup::Miss(ticket) = cache.lookup(&key, now, None) {
                    tickets.push((key, now, true, ticket));
                },
                Step::Finish { weight, life } => if !tickets.is_empty() {
                    let (key, loaded, good, ticket) = tickets.remove(0);
                    let expiration = now + life;
                    prop_assert_eq!(ticket.insert(Entry::new(value, weight).expiration(expiration)), good);
                    if good {
                        known.insert(key, Known { value, loaded, expiration });
                    }
                },
                Step::GiveUp => drop(tickets.pop()),
                Step::Clear => {
                    cache.clear();
                    known.clear();
                    void(&mut tickets, |_| true);
                }
                Step::Advance { seconds } => now += seconds,
            }
            let shards = cache.shards.iter().map(|shard| shard.lock());
            let weight: u64 = shards.map(|shard| { shard.validate(); shard.weight() }).sum();
            prop_assert_eq!(cache.weight(), weight);
            prop_assert!(weight <= MAX_WEIGHT);
        }
    }
}

fn void(tickets: &mut [(u64, u64, bool, Ticket<'_, u64, u64>)], of: impl Fn(u64) -> bool) {
    for ticket in tickets.iter_mut().filter(|ticket| of(ticket.0)) {
        ticket.2 = false;
    }
}
