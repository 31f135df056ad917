//! Schedules of threads that meet in one cache, explored by `shuttle`: thousands at each run of the
//! tests, `RIMSTONE_SCHEDULES` of them for each test if it is set. A failure prints the schedule, and
//! `shuttle::replay` repeats it.
#![allow(
    clippy::indexing_slicing,
    reason = "tests: an index out of range fails them"
)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::time::Duration;

use shuttle::sync::atomic::AtomicU64;
use shuttle::thread;

use crate::{Cache, Clock, Lookup, Value, Waited};

pub(crate) fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("RIMSTONE_SCHEDULES").ok();
    let schedules = schedules.and_then(|n| n.parse().ok()).unwrap_or(2_000);
    shuttle::check_random(scenario, schedules);
}

/// A source of truth with one key, and the cache in front of it.
struct Node {
    cache: Cache,
    source: AtomicU64,
    /// The last version that a writer was told is written.
    acknowledged: AtomicU64,
    fetches: AtomicUsize,
}

const KEY: &[u8] = b"key";

fn node(max_weight: u64) -> Arc<Node> {
    let builder = Cache::builder(max_weight).max_entry_weight(max_weight);
    Arc::new(Node {
        cache: builder.shards(2).clock(Clock::manual(1)).build(),
        source: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        fetches: AtomicUsize::new(0),
    })
}

fn value(version: u64) -> Value<'static> {
    Value::from(version.to_le_bytes().to_vec())
}

fn version(entry: &crate::Entry) -> u64 {
    u64::from_le_bytes(entry.value().try_into().expect("eight bytes"))
}

impl Node {
    fn fetch(&self) -> Result<Value<'static>, ()> {
        self.fetches.fetch_add(1, SeqCst);
        Ok(value(self.source.load(SeqCst)))
    }

    fn read(&self) -> u64 {
        let entry = self.cache.try_get_with(KEY, None, || self.fetch());
        version(&entry.expect("the source answers"))
    }

    /// Writes the source, then tells the cache in one of its ways, then acknowledges.
    fn write(&self, written: u64, tell: fn(&Cache, u64)) {
        self.source.store(written, SeqCst);
        tell(&self.cache, written);
        self.acknowledged.store(written, SeqCst);
    }
}

fn put(cache: &Cache, written: u64) {
    cache.insert(KEY, value(written));
}

fn delete(cache: &Cache, _: u64) {
    cache.invalidate(KEY);
}

fn forget_namespace(cache: &Cache, _: u64) {
    cache.invalidate_namespace(0);
}

fn clear(cache: &Cache, _: u64) {
    cache.clear();
}

/// Readers fill while a writer writes: nobody sees less than was acknowledged before it asked. Of a
/// write that is not acknowledged yet, a reader may see the new value from the source, and then the old
/// one, which the cache is still to be told of.
fn readers_against_a_writer(tell: fn(&Cache, u64)) {
    explore(move || {
        let node = node(1 << 20);
        let mut threads = Vec::new();
        for _ in 0..2 {
            let node = Arc::clone(&node);
            threads.push(thread::spawn(move || {
                for _ in 0..3 {
                    let floor = node.acknowledged.load(SeqCst);
                    let seen = node.read();
                    assert!(seen >= floor, "{seen} after {floor}");
                }
            }));
        }
        (1..=2).for_each(|written| node.write(written, tell));
        assert_eq!(node.read(), 2);
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a reader"));
        assert_eq!(node.read(), 2);
        node.cache.validate();
    });
}

#[test]
fn a_fill_does_not_overtake_a_put() {
    readers_against_a_writer(put);
}

#[test]
fn a_fill_does_not_overtake_a_delete() {
    readers_against_a_writer(delete);
}

#[test]
fn a_fill_does_not_overtake_a_forgotten_namespace() {
    readers_against_a_writer(forget_namespace);
}

#[test]
fn a_fill_does_not_overtake_clear() {
    readers_against_a_writer(clear);
}

#[test]
fn one_of_many_fetches() {
    explore(|| {
        let node = node(1 << 20);
        let spawn = |node: Arc<Node>| thread::spawn(move || assert_eq!(node.read(), 0));
        let threads: Vec<_> = (0..3).map(|_| spawn(Arc::clone(&node))).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a reader"));
        assert_eq!(node.fetches.load(SeqCst), 1);
    });
}

/// Leaders give up, one waiter after the other takes over, and nobody is left waiting.
#[test]
fn a_leader_that_gives_up_is_followed() {
    explore(|| {
        let node = node(1 << 20);
        let spawn = |node: Arc<Node>, fails: bool| {
            thread::spawn(move || {
                let fetch = || if fails { Err(()) } else { node.fetch() };
                let entry = node.cache.try_get_with(KEY, None, fetch);
                assert!(fails || entry.is_ok());
            })
        };
        let threads = [true, false, true, false].map(|fails| spawn(Arc::clone(&node), fails));
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a reader"));
        assert_eq!(node.fetches.load(SeqCst), 1);
        assert!(matches!(node.cache.lookup(KEY, None), Lookup::Hit(_)));
    });
}

/// A waiting future that is dropped, just when it was woken to lead perhaps, passes that on.
#[test]
fn a_waiter_that_is_dropped_leaves_nobody_waiting() {
    explore(|| {
        let node = node(1 << 20);
        let Lookup::Lead(ticket) = node.cache.lookup(KEY, None) else {
            panic!("nothing is there")
        };
        let (dropping, waiting) = (Arc::clone(&node), Arc::clone(&node));
        let dropping = thread::spawn(move || {
            if let Lookup::Wait(waiter) = dropping.cache.lookup(KEY, None) {
                let mut waiter = pin!(waiter);
                let mut context = Context::from_waker(Waker::noop());
                let polled = waiter.as_mut().poll(&mut context);
                drop(polled);
            }
        });
        let waiting = thread::spawn(move || match waiting.cache.lookup(KEY, None) {
            Lookup::Wait(waiter) => match waiter.wait() {
                Waited::Lead(ticket) => drop(ticket.complete(value(7))),
                waited => panic!("nobody else fetched: {waited:?}"),
            },
            Lookup::Lead(ticket) => drop(ticket.complete(value(7))),
            other => panic!("nobody fetched: {other:?}"),
        });
        drop(ticket);
        dropping.join().expect("it does not wait");
        waiting.join().expect("it leads");
        assert_eq!(node.read(), 7);
    });
}

/// Stale values are served while one reader at a time fetches, whoever gives up; and none is served
/// once the key is invalidated.
#[test]
fn one_of_many_fetches_what_is_stale() {
    explore(|| {
        let clock = Clock::manual(1);
        let builder = Cache::builder(1 << 20).clock(clock.clone());
        let builder = builder.stale_while_revalidate(Duration::from_secs(100));
        let cache = builder.shards(1).build();
        let minute = Duration::from_secs(60);
        let aged = move |version| value(version).ttl(minute);
        cache.insert(KEY, aged(0));
        clock.set(70);
        let (tickets, invalidated) = (AtomicUsize::new(0), AtomicU64::new(0));
        let shared = Arc::new((cache, tickets, invalidated));
        let spawn = |gives_up: bool| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (cache, tickets, invalidated) = &*shared;
                let floor = invalidated.load(SeqCst);
                match cache.lookup(KEY, None) {
                    Lookup::Stale(entry, ticket) => {
                        assert_eq!((version(&entry), floor), (0, 0));
                        let Some(ticket) = ticket else { return };
                        assert_eq!(tickets.fetch_add(1, SeqCst), 0, "one at a time");
                        thread::yield_now();
                        tickets.fetch_sub(1, SeqCst);
                        if !gives_up {
                            ticket.complete(aged(1));
                        }
                    }
                    Lookup::Hit(entry) => assert_eq!(version(&entry), 1),
                    // After the key was invalidated, nothing is there to be served meanwhile.
                    Lookup::Lead(ticket) => drop(ticket.complete(aged(1))),
                    Lookup::Wait(waiter) => drop(waiter.wait()),
                    Lookup::Refresh(..) => panic!("that was not asked for"),
                }
            })
        };
        let threads = [true, false, true, false].map(spawn);
        thread::yield_now();
        shared.0.invalidate(KEY);
        shared.2.store(1, SeqCst);
        for thread in threads {
            thread.join().expect("a reader");
        }
        assert!(
            shared
                .0
                .get(KEY, None)
                .is_none_or(|entry| version(&entry) == 1)
        );
        shared.0.validate();
    });
}

/// A source that lags behind brings old versions, before and after the cache is told of a new one: who
/// is given something by the cache is never given less than was invalidated before it asked.
#[test]
fn a_fill_does_not_bring_back_what_is_below_the_floor() {
    explore(|| {
        let node = node(1 << 20);
        let read = |node: Arc<Node>, lag: u64| {
            thread::spawn(move || {
                for _ in 0..2 {
                    let known = node.acknowledged.load(SeqCst);
                    let cached = node.cache.get(KEY, None);
                    assert!(cached.is_none_or(|entry| entry.version() >= known));
                    if let Lookup::Lead(ticket) = node.cache.lookup(KEY, None) {
                        let written = node.source.load(SeqCst).saturating_sub(lag);
                        thread::yield_now();
                        drop(ticket.complete(value(written).version(written)));
                    }
                }
            })
        };
        let threads = [0, 1, 2].map(|lag| read(Arc::clone(&node), lag));
        (1..=3).for_each(|written| {
            let tell = |cache: &Cache, written| cache.invalidate_version(KEY, written);
            node.write(written, tell);
        });
        for thread in threads {
            thread.join().expect("a reader");
        }
        let held = node.cache.get(KEY, None);
        assert!(held.is_none_or(|entry| entry.version() == 3));
        node.cache.validate();
    });
}

/// What is read in place stays whole while it is replaced, evicted and invalidated.
#[test]
fn a_value_stays_whole_while_it_is_read() {
    explore(|| {
        let node = node(500);
        let writer = Arc::clone(&node);
        let writer = thread::spawn(move || {
            for written in 1..4u8 {
                writer.cache.insert(KEY, Value::from(vec![written; 40]));
                writer
                    .cache
                    .insert(&[written], Value::from(vec![written; 40]));
            }
            writer.cache.invalidate(KEY);
        });
        for _ in 0..3 {
            let whole = |value: &[u8]| value.windows(2).all(|pair| pair[0] == pair[1]);
            let read = node.cache.get_with(KEY, None, |entry| whole(entry.value()));
            assert_ne!(read, Some(false));
            let owned = node.cache.get(KEY, None);
            thread::yield_now();
            assert!(owned.is_none_or(|entry| whole(entry.value())));
        }
        writer.join().expect("a writer");
        node.cache.validate();
        assert!(node.cache.weight() <= 500);
    });
}

/// Several writers share the budget: once all are done it holds.
#[test]
fn the_budget_holds_once_writers_are_done() {
    explore(|| {
        let node = node(800);
        let spawn = |node: Arc<Node>, from: u8| {
            thread::spawn(move || {
                for key in from..from + 4 {
                    node.cache.insert(&[key], Value::from(vec![0; 60]));
                }
            })
        };
        let threads: Vec<_> = [0, 2, 100]
            .map(|from| spawn(Arc::clone(&node), from))
            .into();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a writer"));
        assert!(node.cache.weight() <= 800);
        node.cache.validate();
    });
}
