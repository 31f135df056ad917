//! The cache's concurrent core under every schedule that `loom` tells apart, with the orderings of its atomics:
//! fetches against writes, who is woken, what an entry's header counts, the budget.
//!
//! The code is the cache's own. What differs is that there are two generations of namespaces, and that entries are
//! larger. Where three threads meet, a schedule takes the processor from a thread that could go on three times at
//! most, or as often as `LOOM_MAX_PREEMPTIONS` says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::pin::pin;
use std::task::{Context, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use loom::thread;

use crate::block::HITS_MAX;
use crate::{Cache, Clock, Entry, Key, Lookup, Value, Waited};

const KEY: &[u8] = b"key";

/// Of three threads, which have too many schedules for all of them.
const PREEMPTIONS: Option<usize> = Some(3);
/// Of two.
const ALL: Option<usize> = None;

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = preemptions.map(|few| builder.preemption_bound.unwrap_or(few));
    builder.check(model);
}

fn cache(shards: usize) -> Cache {
    let builder = Cache::builder(1 << 20).shards(shards);
    builder.clock(Clock::manual(1)).build()
}

fn value(version: u64) -> Value<'static> {
    Value::from(version.to_le_bytes().to_vec())
}

fn version(entry: &Entry) -> u64 {
    u64::from_le_bytes(entry.value().try_into().expect("eight bytes"))
}

/// A source with one key and the cache in front of it. The source itself orders nothing: what readers see of it,
/// they see by the cache.
struct Node {
    cache: Cache,
    source: AtomicU64,
    fetches: AtomicUsize,
}

impl Node {
    fn new() -> Arc<Node> {
        Arc::new(Node {
            cache: cache(1),
            source: AtomicU64::new(1),
            fetches: AtomicUsize::new(0),
        })
    }

    fn fetch(&self) -> Result<Value<'static>, ()> {
        self.fetches.fetch_add(1, Relaxed);
        Ok(value(self.source.load(Relaxed)))
    }

    fn read(&self) -> u64 {
        let entry = self.cache.try_get_with(KEY, None, || self.fetch());
        version(&entry.expect("the source answers"))
    }
}

/// Whatever a fetch saw of the source, the cache does not hold it after it was told of a write, and who asks then is
/// not given it.
fn a_fetch_against_a_write(tell: fn(&Cache)) {
    explore(ALL, move || {
        let node = Node::new();
        let reader = Arc::clone(&node);
        let reader = thread::spawn(move || reader.read());
        node.source.store(2, Relaxed);
        tell(&node.cache);
        assert_eq!(node.read(), 2, "it was told");
        assert!((1..=2).contains(&reader.join().unwrap()));
        assert_eq!(node.read(), 2, "and stays so");
        node.cache.validate();
    });
}

#[test]
fn a_fetch_does_not_overtake_a_put() {
    a_fetch_against_a_write(|cache| assert!(cache.insert(KEY, value(2))));
}

#[test]
fn a_fetch_does_not_overtake_a_delete() {
    a_fetch_against_a_write(|cache| cache.invalidate(KEY));
}

#[test]
fn a_fetch_does_not_overtake_clear() {
    a_fetch_against_a_write(Cache::clear);
}

#[test]
fn a_fetch_does_not_overtake_a_forgotten_namespace() {
    a_fetch_against_a_write(|cache| cache.invalidate_namespace(0));
}

/// A copy from a source that is asked, and written, while its key is locked: who saw the new value is never given
/// the old one, acknowledged or not.
#[test]
fn a_copy_does_not_outlive_what_it_was_copied_from() {
    explore(ALL, || {
        let node = Node::new();
        let reader = Arc::clone(&node);
        let reader = thread::spawn(move || {
            let read = reader.source.load(Relaxed);
            let is_current = || reader.source.load(Relaxed) == read;
            reader.cache.insert_if(KEY, value(read), is_current);
            let held = reader.cache.get_with(KEY, None, version);
            assert!(held.is_none_or(|held| held >= read));
        });
        let write = || node.source.store(2, Relaxed);
        node.cache.invalidate_with(KEY, write);
        assert!(node.cache.get_with(KEY, None, version) != Some(1));
        reader.join().unwrap();
        assert!(node.cache.get_with(KEY, None, version) != Some(1));
    });
}

/// Of those who wait for a ticket that is dropped one leads, and the others are given what that one fetches.
#[test]
fn a_ticket_that_is_dropped_wakes_one_who_waits() {
    explore(PREEMPTIONS, || {
        let node = Node::new();
        let Lookup::Lead(ticket) = node.cache.lookup(KEY, None) else {
            panic!("nothing is there")
        };
        let readers = [0, 1].map(|_| {
            let reader = Arc::clone(&node);
            thread::spawn(move || assert_eq!(reader.read(), 1))
        });
        drop(ticket);
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
        assert_eq!(node.fetches.load(Relaxed), 1);
    });
}

/// One that was woken to lead, and is dropped, wakes the other.
#[test]
fn a_waiter_that_is_dropped_passes_its_turn_on() {
    explore(PREEMPTIONS, || {
        let node = Node::new();
        let Lookup::Lead(ticket) = node.cache.lookup(KEY, None) else {
            panic!("nothing is there")
        };
        let Lookup::Wait(dropped) = node.cache.lookup(KEY, None) else {
            panic!("somebody fetches")
        };
        let reader = Arc::clone(&node);
        let reader = thread::spawn(move || assert_eq!(reader.read(), 1));
        let dropping = thread::spawn(move || {
            let mut waiter = pin!(dropped);
            let mut context = Context::from_waker(Waker::noop());
            drop(waiter.as_mut().poll(&mut context));
        });
        drop(ticket);
        reader.join().unwrap();
        dropping.join().unwrap();
        assert_eq!(node.fetches.load(Relaxed), 1);
    });
}

/// Who waits is given what was fetched, or asks again if a write came between; nobody waits for ever.
#[test]
fn a_superseded_ticket_still_ends_the_waiting() {
    explore(PREEMPTIONS, || {
        let node = Node::new();
        let Lookup::Lead(ticket) = node.cache.lookup(KEY, None) else {
            panic!("nothing is there")
        };
        let Lookup::Wait(waiter) = node.cache.lookup(KEY, None) else {
            panic!("somebody fetches")
        };
        let writer = Arc::clone(&node);
        let writer = thread::spawn(move || {
            writer.source.store(2, Relaxed);
            writer.cache.invalidate(KEY);
            assert_eq!(writer.read(), 2, "who asks after the write starts anew");
        });
        let waiting = thread::spawn(move || match waiter.wait() {
            Waited::Done(entry) => assert_eq!(version(&entry), 1),
            waited => panic!("the fetch came to something: {waited:?}"),
        });
        let completed = ticket.complete(value(1));
        assert_eq!(version(&completed.entry), 1);
        writer.join().unwrap();
        waiting.join().unwrap();
        assert_eq!(node.read(), 2);
    });
}

/// Reads count up to three in the word that also says where the entry's slot is, however they meet.
#[test]
fn reads_are_counted_and_leave_the_slot_alone() {
    explore(PREEMPTIONS, || {
        let cache = cache(1);
        cache.insert(KEY, value(1));
        let held = cache.get(KEY, None).expect("it is held");
        cache.get_with(KEY, None, |_| ()).expect("it is held");
        let slot = held.0.slot();
        let readers = [0, 1].map(|_| {
            let cache = cache.clone();
            thread::spawn(move || cache.get_with(KEY, None, version))
        });
        let counted = held.0.hits();
        assert!((2..=HITS_MAX).contains(&counted));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Some(1));
        }
        assert_eq!((held.0.slot(), held.0.hits()), (slot, HITS_MAX));
        cache.validate();
    });
}

/// The memory of an entry is given back after its last use by any thread, whoever drops the last handle.
#[test]
fn an_entry_is_freed_after_its_last_use() {
    explore(ALL, || {
        let cache = cache(1);
        cache.insert(KEY, value(1));
        let reader = cache.clone();
        let reader = thread::spawn(move || {
            let held = reader.get(KEY, None);
            held.map(|entry| version(&entry))
        });
        cache.invalidate(KEY);
        assert!(matches!(reader.join().unwrap(), None | Some(1)));
    });
}

/// What shards tell of their weights, without a lock for all of them, adds up, and is not above the budget once all
/// writers are done.
#[test]
fn the_weights_of_shards_add_up() {
    explore(PREEMPTIONS, || {
        let cache = cache(2);
        cache.insert(&[0][..], value(1));
        let one = cache.weight();
        cache.set_max_weight(2 * one);
        let shard = |key: u8| std::ptr::from_ref(cache.shard(cache.hash(Key::from(&[key]))));
        let other = (2..).find(|key| shard(*key) != shard(1)).unwrap();
        let writers = [1, other].map(|key: u8| {
            let cache = cache.clone();
            thread::spawn(move || cache.insert(&[key][..], value(1)))
        });
        for writer in writers {
            assert!(writer.join().unwrap());
        }
        // Writers who meet may each make room for all.
        assert!((one..=2 * one).contains(&cache.weight()));
        cache.validate();
    });
}
