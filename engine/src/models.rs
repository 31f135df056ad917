//! The engine's concurrent core under every schedule that `loom` tells apart, with the orderings of its
//! atomics: the table's slots and growth, the numbers of segments, the commit queue.
//!
//! The code is the engine's own. What differs is sizes (four partitions), the memory of buckets, and epochs,
//! of which there is a model (`sync/grace.rs`). Where three threads meet, a schedule takes the processor from
//! a thread that could go on four times at most, or as often as `LOOM_MAX_PREEMPTIONS` says.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use loom::thread;

use crate::format::record::Kind;
use crate::index::table::{Location, Table};
use crate::log::commit::{Op, Outcome, Queue, Request};
use crate::log::segment::Segments;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::epoch;

/// Of three threads, which have too many schedules for all of them.
const PREEMPTIONS: Option<usize> = Some(4);
/// Of two.
const ALL: Option<usize> = None;

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = preemptions.map(|few| builder.preemption_bound.unwrap_or(few));
    builder.check(model);
}

/// A hash in the first partition, with this home bucket and this tag.
fn hash(home: u64, tag: u64) -> u64 {
    home << 52 | tag << 34
}

/// The record of a key in its `version`: a location that tells whose it is.
fn at(version: u32, key: u64) -> Location {
    Location::new(version, key * 8)
}

/// The version of a key that the table has.
fn find(table: &Table, hash: u64, key: u64) -> Option<u32> {
    let guard = epoch::pin();
    let found = table.find(hash, &guard, |location| location.offset() == key * 8);
    found.map(Location::number)
}

/// A key that stays, in one bucket or the next, is found by each look, and never older than by the look
/// before.
fn look_twice(table: &Table, hash: u64, key: u64) {
    let first = find(table, hash, key).expect("it is there");
    let second = find(table, hash, key).expect("it is still there");
    assert!(first <= second, "{second} after {first}");
}

const KEY: u64 = 1;
const OTHER: u64 = 2;
const NEW: u64 = 3;

#[test]
fn readers_find_a_key_whatever_is_done_to_its_bucket() {
    explore(PREEMPTIONS, || {
        let table = Arc::new(Table::new());
        // Keys of one tag, which readers have to tell apart.
        let hash = hash(1, 5);
        assert!(table.insert(hash, at(1, OTHER)));
        assert!(table.insert(hash, at(1, KEY)));
        let gone = Arc::new(AtomicBool::new(false));
        let reader = || {
            let (table, gone) = (Arc::clone(&table), Arc::clone(&gone));
            thread::spawn(move || {
                look_twice(&table, hash, KEY);
                if gone.load(Ordering::Acquire) {
                    assert_eq!(find(&table, hash, OTHER), None);
                }
            })
        };
        let readers = [reader(), reader()];
        assert!(table.replace(hash, at(1, KEY), at(2, KEY)));
        assert!(table.remove(hash, at(1, OTHER)));
        gone.store(true, Ordering::Release);
        // Into the slot that is free now.
        assert!(table.insert(hash, at(3, NEW)));
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
        assert_eq!(find(&table, hash, KEY), Some(2));
        assert_eq!(find(&table, hash, NEW), Some(3));
    });
}

#[test]
fn readers_find_a_key_beyond_its_home_bucket_and_one_that_was_put_there() {
    explore(ALL, || {
        let table = Arc::new(Table::new());
        for key in 10..18 {
            assert!(table.insert(hash(1, key), at(1, key)));
        }
        let is_there = Arc::new(AtomicBool::new(false));
        let reader = {
            let (table, is_there) = (Arc::clone(&table), Arc::clone(&is_there));
            thread::spawn(move || {
                let was_there = is_there.load(Ordering::Acquire);
                let found = find(&table, hash(1, 5), KEY);
                assert!(found.is_some() || !was_there);
                if found.is_some() {
                    look_twice(&table, hash(1, 5), KEY);
                }
            })
        };
        // The home bucket is full.
        assert!(table.insert(hash(1, 5), at(1, KEY)));
        is_there.store(true, Ordering::Release);
        // A slot that is free now nearer home, the one that has its mark, must not make it vanish.
        assert!(table.remove(hash(1, 15), at(1, 15)));
        assert!(table.replace(hash(1, 5), at(1, KEY), at(2, KEY)));
        reader.join().unwrap();
    });
}

#[test]
fn readers_find_a_key_while_its_partition_grows() {
    explore(ALL, || {
        let table = Arc::new(Table::new());
        // One more is one too many for four buckets.
        for key in 1..25 {
            assert!(table.insert(hash(key % 4, key), at(1, key)));
        }
        let before = table.bytes();
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || look_twice(&table, hash(KEY, KEY), KEY))
        };
        assert!(table.insert(hash(2, 25), at(1, 25)));
        assert!(table.bytes() > before, "it grew");
        assert!(table.replace(hash(KEY, KEY), at(1, KEY), at(2, KEY)));
        reader.join().unwrap();
        assert_eq!(find(&table, hash(KEY, KEY), KEY), Some(2));
        assert_eq!(find(&table, hash(2, 25), 25), Some(1));
    });
}

/// While a reader may have loaded a slot, the number in it means the segment that it meant then, or none.
#[test]
fn a_number_is_another_segments_only_after_every_reader_that_may_hold_it() {
    explore(ALL, || {
        let (table, segments) = (Table::new(), Segments::<u64>::new());
        let hash = hash(1, 5);
        // The offset of a location tells the segment.
        let record = |number, id: u64| Location::new(number, id * 8);
        let old = segments.add(Arc::new(10));
        assert!(table.insert(hash, record(old, 10)));
        let shared = Arc::new((table, segments));
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (table, segments) = &*shared;
                let guard = epoch::pin();
                let location = table.find(hash, &guard, |_| true).expect("it is there");
                let segment = segments.get(location.number(), &guard);
                let is_same = |id: &Arc<u64>| **id * 8 == location.offset();
                assert!(segment.is_none_or(is_same), "{segment:?} at {location:?}");
            })
        };
        let (table, segments) = &*shared;
        let copy = segments.add(Arc::new(20));
        assert!(table.replace(hash, record(old, 10), record(copy, 20)));
        segments.remove(old);
        let next = segments.add(Arc::new(30));
        reader.join().unwrap();
        // Nobody is left who may hold it.
        let last = segments.add(Arc::new(40));
        assert!([next, last].contains(&old), "{next} and {last}, not {old}");
    });
}

/// A log in memory, as far as the queue of writers knows one.
#[derive(Default)]
struct Log {
    is_led: AtomicBool,
    written: Mutex<Vec<u32>>,
    /// How many are durable.
    durable: AtomicU64,
}

impl Log {
    /// Writes, flushes, then acknowledges a group.
    fn commit(&self, group: &[Arc<Request>]) {
        let is_led = self.is_led.swap(true, Ordering::Relaxed);
        assert!(!is_led, "one leads at a time");
        let mut generations = Vec::new();
        for request in group {
            let mut written = self.written.lock();
            written.extend(request.ops.iter().map(|op| op.namespace));
            generations.push(u64::try_from(written.len()).unwrap());
        }
        let durable = generations.last().copied().expect("somebody waits");
        self.durable.store(durable, Ordering::Relaxed);
        self.is_led.store(false, Ordering::Relaxed);
        for (request, generation) in group.iter().zip(generations) {
            let existed = false;
            request.finish(Ok(Outcome {
                generation,
                existed,
            }));
        }
    }

    /// Commits what this writer wants.
    fn write(&self, queue: &Queue, writer: u32) {
        let op = Op::keyless(Kind::Namespace, writer, Vec::new());
        let request = Request::new(vec![op], true);
        let outcome = queue.submit(&request, |group| self.commit(group)).unwrap();
        assert!(self.durable.load(Ordering::Relaxed) >= outcome.generation);
        let place = usize::try_from(outcome.generation).unwrap() - 1;
        assert_eq!(self.written.lock().get(place), Some(&writer));
    }
}

#[test]
fn every_writer_is_committed_once_and_acknowledged_after_its_flush() {
    explore(PREEMPTIONS, || {
        let shared = Arc::new((Queue::default(), Log::default()));
        let writer = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.1.write(&shared.0, number))
        };
        let writers = [writer(1), writer(2)];
        shared.1.write(&shared.0, 3);
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        let mut written = shared.1.written.lock().clone();
        written.sort_unstable();
        assert_eq!(written, [1, 2, 3]);
    });
}
