//! Real threads and futures: what the schedules inside the crate explore, with everything as it is.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: an index out of range or a wrong byte fails them"
)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use rimstone_cache::{Cache, Lookup, Value, Waited};

/// Versions that the race between a writer and readers goes through.
const LAST: u64 = 5_000;

#[test]
fn a_reader_never_sees_less_than_was_acknowledged_before_it_began() {
    let (cache, source) = (Cache::with_max_weight(1 << 20), AtomicU64::new(0));
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1..=LAST {
                source.store(version, SeqCst);
                match version % 3 {
                    0 => drop(cache.insert("key", Value::from(&version.to_le_bytes()[..]))),
                    _ => cache.invalidate("key"),
                }
                acknowledged.store(version, SeqCst);
                thread::yield_now();
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut floor = 0;
                while floor < LAST {
                    floor = acknowledged.load(SeqCst);
                    let fetch = || {
                        let version = source.load(SeqCst);
                        thread::yield_now();
                        Ok::<_, ()>(Value::from(version.to_le_bytes().to_vec()))
                    };
                    let entry = cache.try_get_with("key", None, fetch).expect("it fetches");
                    let seen = u64::from_le_bytes(entry.value().try_into().expect("8 bytes"));
                    assert!(seen >= floor, "{seen} after {floor}");
                }
            });
        }
    });
}

#[test]
fn one_of_64_fetches_and_the_others_wait() {
    let (cache, fetches) = (Cache::with_max_weight(1 << 20), AtomicUsize::new(0));
    let together = Barrier::new(64);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                together.wait();
                let fetch = || {
                    fetches.fetch_add(1, SeqCst);
                    Ok::<_, ()>(Value::from("1"))
                };
                let entry = cache.try_get_with("key", None, fetch).expect("it fetches");
                assert_eq!(entry.value(), b"1");
            });
        }
    });
    assert_eq!(fetches.load(SeqCst), 1);
}

#[test]
fn a_leader_that_panics_is_followed() {
    let cache = Cache::with_max_weight(1 << 20);
    let Lookup::Lead(ticket) = cache.lookup("key", None) else {
        panic!("nothing is there")
    };
    let Lookup::Wait(waiter) = cache.lookup("key", None) else {
        panic!("somebody fetches")
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = ticket;
        panic!("the fetch failed");
    }));
    assert!(panicked.is_err());
    let Waited::Lead(ticket) = waiter.wait() else {
        panic!("it leads")
    };
    assert!(ticket.complete(Value::from("1")).stored);
    assert!(cache.contains_key("key", None));
}

#[test]
fn waiters_from_before_a_write_get_the_value_and_later_ones_start_anew() {
    let cache = Cache::with_max_weight(1 << 20);
    let Lookup::Lead(old) = cache.lookup("key", None) else {
        panic!("nothing is there")
    };
    let Lookup::Wait(before) = cache.lookup("key", None) else {
        panic!("somebody fetches")
    };
    cache.invalidate("key");
    let Lookup::Lead(new) = cache.lookup("key", None) else {
        panic!("the old fetch is of no use any more")
    };
    assert!(!old.complete(Value::from("old")).stored);
    assert!(matches!(before.wait(), Waited::Done(entry) if entry.value() == b"old"));
    assert!(new.complete(Value::from("new")).stored);
    assert!(matches!(cache.lookup("key", None), Lookup::Hit(entry) if entry.value() == b"new"));
}

/// Counts how often it is woken.
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_future_that_is_dropped_hands_over_to_one_that_waits() {
    let cache = Cache::with_max_weight(1 << 20);
    let counts = [0, 1, 2].map(|_| Arc::new(Woken(AtomicUsize::new(0))));
    let wakers = counts
        .each_ref()
        .map(|count| Waker::from(Arc::clone(count)));
    let [mut first, mut second, mut third] = wakers.each_ref().map(Context::from_waker);
    let never = || std::future::pending::<Result<Value<'static>, ()>>();
    let fetch = || std::future::ready(Ok::<_, ()>(Value::from("1")));

    let mut leader = Box::pin(cache.try_get_with_async("key", None, never));
    assert!(leader.as_mut().poll(&mut first).is_pending());
    let mut a = Box::pin(cache.try_get_with_async("key", None, fetch));
    let mut b = pin!(cache.try_get_with_async("key", None, fetch));
    assert!(a.as_mut().poll(&mut second).is_pending());
    assert!(b.as_mut().poll(&mut third).is_pending());

    drop(leader);
    let woken = || counts.each_ref().map(|count| count.0.load(SeqCst));
    assert_eq!(woken().iter().sum::<usize>(), 1, "one is woken");
    // The last to come is woken first; whoever it is, the other one takes over once it is dropped.
    drop(a);
    let Poll::Ready(Ok(entry)) = b.as_mut().poll(&mut third) else {
        panic!("it leads")
    };
    assert_eq!(entry.value(), b"1");
}
