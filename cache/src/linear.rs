//! Histories of puts, deletes and reads through the cache, under schedules of `shuttle`: each is checked
//! against a register for each key. There must be an order of its calls that agrees with the times at
//! which they began and ended, and in which every read returns what was written last.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;
use shuttle::thread;

use crate::schedules::explore;
use crate::{Cache, Clock, Value};

const KEYS: usize = 2;
const THREADS: usize = 3;
const CALLS: usize = 4;

/// What a register holds; `None` for no such key.
type Held = Option<u64>;

#[derive(Clone, Copy, Debug)]
enum Did {
    Wrote(Held),
    Read(Held),
}

/// A call with the moments at which it began and ended.
#[derive(Clone, Copy, Debug)]
struct Call {
    began: usize,
    ended: usize,
    did: Did,
}

/// The source of truth, one register a key, with the cache in front of it.
struct Store {
    cache: Cache,
    /// The lock is held while a key is written, so that the cache is told in the order of the writes.
    sources: [Mutex<()>; KEYS],
    held: [Mutex<Held>; KEYS],
    histories: [Mutex<Vec<Call>>; KEYS],
    moments: AtomicUsize,
}

impl Store {
    fn new() -> Store {
        // So little that the keys evict each other now and then.
        let builder = Cache::builder(350).max_entry_weight(350);
        Store {
            cache: builder.shards(2).clock(Clock::manual(1)).build(),
            sources: Default::default(),
            held: Default::default(),
            histories: Default::default(),
            moments: AtomicUsize::new(0),
        }
    }

    /// Does something at random with a random key.
    fn call(&self, written: u64) {
        let at = thread_rng().gen_range(0..KEYS);
        let began = self.moments.fetch_add(1, SeqCst);
        let did = match thread_rng().gen_range(0..5) {
            0 => self.write(at, Some(written)),
            1 => self.write(at, None),
            _ => self.read(at),
        };
        let ended = self.moments.fetch_add(1, SeqCst);
        let call = Call { began, ended, did };
        self.histories[at].lock().expect("a lock").push(call);
    }

    fn write(&self, at: usize, held: Held) -> Did {
        let key = [at as u8];
        let _order = self.sources[at].lock().expect("a lock");
        *self.held[at].lock().expect("a lock") = held;
        match held {
            Some(written) => drop(self.cache.insert(&key, value(written))),
            // Both ways to tell of a delete, and one that tells more.
            None => match thread_rng().gen_range(0..4) {
                0 => drop(self.cache.insert(&key, Value::absent())),
                1 => self.cache.invalidate_namespace(0),
                2 => self.cache.clear(),
                _ => self.cache.invalidate(&key),
            },
        }
        Did::Wrote(held)
    }

    fn read(&self, at: usize) -> Did {
        let fetch = || -> Result<Value<'static>, ()> {
            let held = *self.held[at].lock().expect("a lock");
            thread::yield_now();
            // Now and then the one who fetches gives up, and somebody else has to.
            let fails = thread_rng().gen_range(0..4) == 0;
            let found = held.map_or(Value::absent(), value);
            if fails { Err(()) } else { Ok(found) }
        };
        loop {
            if let Ok(entry) = self.cache.try_get_with(&[at as u8], None, fetch) {
                let bytes = entry.value().try_into();
                return Did::Read(bytes.ok().map(u64::from_le_bytes));
            }
        }
    }
}

fn value(written: u64) -> Value<'static> {
    Value::from(written.to_le_bytes().to_vec())
}

/// Whether the calls can be put in an order. `done` are those that are, as bits; what was tried is not
/// tried again.
fn agrees(calls: &[Call], done: u64, held: Held, tried: &mut HashSet<(u64, Held)>) -> bool {
    if done == (1 << calls.len()) - 1 {
        return true;
    }
    if !tried.insert((done, held)) {
        return false;
    }
    let left = || (0..calls.len()).filter(|at| done >> at & 1 == 0);
    // What ended before another began comes before it.
    let first_end = left().map(|at| calls[at].ended).min();
    let mut next = left().filter(|at| Some(calls[*at].began) < first_end);
    next.any(|at| match calls[at].did {
        Did::Wrote(held) => agrees(calls, done | 1 << at, held, tried),
        Did::Read(seen) => seen == held && agrees(calls, done | 1 << at, held, tried),
    })
}

fn is_linearizable(calls: &[Call]) -> bool {
    agrees(calls, 0, None, &mut HashSet::new())
}

#[test]
fn the_model_knows_a_register() {
    let call = |began, ended, did| Call { began, ended, did };
    let write = call(0, 3, Did::Wrote(Some(1)));
    let read = |began, ended, seen| call(began, ended, Did::Read(seen));
    // While it is written either may be seen, but never the new value first.
    assert!(is_linearizable(&[
        write,
        read(1, 2, None),
        read(4, 5, Some(1))
    ]));
    assert!(is_linearizable(&[
        write,
        read(1, 4, None),
        read(2, 5, Some(1))
    ]));
    assert!(!is_linearizable(&[write, read(4, 5, None)]));
    let (new, old) = (read(1, 2, Some(1)), read(4, 5, None));
    assert!(!is_linearizable(&[call(0, 6, write.did), new, old]));
}

#[test]
fn reads_through_fills_agree_with_a_register() {
    explore(|| {
        let store = Arc::new(Store::new());
        let run = |thread: usize| {
            let store = Arc::clone(&store);
            let calls =
                move || (0..CALLS).for_each(|call| store.call((thread * CALLS + call) as u64));
            thread::spawn(calls)
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("it calls"));
        for history in &store.histories {
            let history = history.lock().expect("a lock");
            assert!(is_linearizable(&history), "{history:#?}");
        }
        store.cache.validate();
    });
}
