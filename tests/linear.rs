//! Each key is a register to real threads, while compaction moves its records.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rimstone::{Clock, Error, Namespace, PutOptions, Store};
use rimstone_tests::{Call, Dice, Did, Version, cases, is_linearizable, open, say};
use tempfile::tempdir;

const THREADS: usize = 4;
const KEYS: usize = 4;
/// Calls of each thread in one history.
const CALLS: usize = 16;

/// A value that tells which it is.
fn value(id: u64, dice: &mut Dice) -> Vec<u8> {
    let len = [8, 8, 100, 3000][dice.below(4)];
    let mut value = id.to_le_bytes().to_vec();
    value.resize(if dice.below(100) == 0 { 70_000 } else { len }, 0);
    value
}

fn version(value: &[u8], generation: u64) -> Version {
    let value = u64::from_le_bytes(value[..8].try_into().unwrap());
    Version { value, generation }
}

/// What a thread knows of a key.
#[derive(Clone, Copy, Default)]
struct Known {
    generation: Option<u64>,
}

fn get(ns: &Namespace, key: usize, dice: &mut Dice) -> Did {
    let key = [u8::try_from(key).unwrap()];
    Did::Get(match dice.below(3) {
        0 => ns
            .read(key, |entry| version(entry.value(), entry.generation()))
            .unwrap(),
        1 => {
            let found = ns.get_many(&[key]).unwrap().remove(0);
            found.map(|entry| version(entry.value(), entry.generation()))
        }
        _ => {
            let found = ns.get_with_metadata(key).unwrap();
            found.map(|entry| version(entry.value(), entry.generation()))
        }
    })
}

fn put(ns: &Namespace, key: usize, id: u64, dice: &mut Dice) -> Did {
    let value = value(id, dice);
    let generation = ns.put([u8::try_from(key).unwrap()], &value).unwrap();
    Did::Put(version(&value, generation))
}

fn put_if(ns: &Namespace, key: usize, before: Option<u64>, id: u64, dice: &mut Dice) -> Did {
    let (options, value) = (PutOptions::new(), value(id, dice));
    let options = match before {
        Some(generation) => options.if_generation(generation),
        None => options.if_absent(),
    };
    match ns.put_with([u8::try_from(key).unwrap()], &value, &options) {
        Ok(generation) => Did::PutIf {
            before,
            put: version(&value, generation),
        },
        Err(Error::Conflict { found }) => Did::Refused { before, found },
        Err(error) => panic!("{error}"),
    }
}

/// One thread's calls in one history, with their keys.
fn call_all(ns: &Namespace, seed: u64) -> Vec<(usize, Call)> {
    let mut dice = Dice::new(seed);
    let mut known = [Known::default(); KEYS];
    let calls = (0..CALLS as u64).map(|number| {
        let (key, what, id) = (dice.below(KEYS), dice.below(10), seed * 100 + number);
        let start = Instant::now();
        let did = match what {
            0..4 => get(ns, key, &mut dice),
            4..7 => put(ns, key, id, &mut dice),
            7..9 => put_if(ns, key, known[key].generation, id, &mut dice),
            _ => Did::Delete(ns.delete([u8::try_from(key).unwrap()]).unwrap()),
        };
        let end = Instant::now();
        known[key].generation = match &did {
            Did::Get(found) => found.map(|found| found.generation),
            Did::Put(put) | Did::PutIf { put, .. } => Some(put.generation),
            Did::Refused { found, .. } => *found,
            Did::Delete(_) | Did::Listed(_) => None,
        };
        (key, Call { start, end, did })
    });
    calls.collect()
}

/// Performs a number of histories and returns the calls of each thread in each. All begin without keys.
fn perform(store: &Store, histories: u64) -> Vec<Vec<Vec<(usize, Call)>>> {
    let ns = store.namespace("n").unwrap();
    let (together, done) = (Barrier::new(THREADS), AtomicBool::new(false));
    thread::scope(|scope| {
        let maintenance = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.compact().unwrap();
                store.checkpoint().unwrap();
            }
        });
        let thread = |number: u64| {
            let (ns, together) = (ns.clone(), &together);
            scope.spawn(move || {
                let history = |history: u64| {
                    if together.wait().is_leader() {
                        for key in 0..KEYS {
                            ns.delete([u8::try_from(key).unwrap()]).unwrap();
                        }
                    }
                    together.wait();
                    call_all(&ns, history * THREADS as u64 + number)
                };
                (0..histories).map(history).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS as u64).map(thread).collect();
        let calls = threads.into_iter().map(|thread| thread.join().unwrap());
        let calls = calls.collect();
        done.store(true, Ordering::Relaxed);
        maintenance.join().unwrap();
        calls
    })
}

#[test]
fn every_key_is_a_register_to_all_threads() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let store = open(dir.path(), &clock);
    let histories = u64::from(cases(10_000));
    let threads = perform(&store, histories);
    let (mut calls, mut overlapping) = (0, 0);
    for history in 0..usize::try_from(histories).unwrap() {
        for key in 0..KEYS {
            let of_key = threads.iter().flat_map(|thread| &thread[history]);
            let of_key: Vec<_> = of_key
                .filter(|(k, _)| *k == key)
                .map(|(_, c)| c.clone())
                .collect();
            calls += of_key.len();
            overlapping += of_key.iter().filter(|a| overlaps(a, &of_key)).count();
            assert!(
                is_linearizable(&of_key),
                "history {history}, key {key}: {of_key:#?}"
            );
        }
    }
    say(&format!(
        "{histories} histories, {calls} calls, {overlapping} beside another of the same key"
    ));
    assert!(overlapping > 0, "the threads meet");
}

fn overlaps(call: &Call, all: &[Call]) -> bool {
    let beside = |other: &&Call| other.start < call.end && call.start < other.end;
    all.iter().filter(beside).count() > 1
}

/// Calls at these times, which follow from nothing but their numbers.
fn history(calls: &[(u64, u64, Did)]) -> Vec<Call> {
    let zero = Instant::now();
    let at = |time| zero + Duration::from_nanos(time);
    let call = |(start, end, did): &(u64, u64, Did)| {
        let (start, end, did) = (at(*start), at(*end), did.clone());
        Call { start, end, did }
    };
    calls.iter().map(call).collect()
}

/// A checker that accepts everything would find nothing.
#[test]
fn the_checker_of_registers_tells_orders_from_none() {
    let one = Version {
        value: 1,
        generation: 1,
    };
    let two = Version {
        value: 2,
        generation: 2,
    };
    let puts = [(0, 10, Did::Put(one)), (20, 30, Did::Put(two))];
    let with = |more: &[(u64, u64, Did)]| is_linearizable(&history(&[&puts, more].concat()));
    assert!(with(&[]));
    assert!(with(&[(40, 50, Did::Get(Some(two)))]));
    assert!(with(&[(40, 50, Did::Listed(Some(0)))]));
    assert!(with(&[(5, 25, Did::Get(Some(one)))]));
    assert!(with(&[
        (0, 50, Did::Get(None)),
        (0, 50, Did::Get(Some(one)))
    ]));
    assert!(with(&[
        (40, 50, Did::Delete(true)),
        (40, 50, Did::Delete(false))
    ]));
    assert!(with(&[(
        15,
        18,
        Did::Refused {
            before: None,
            found: Some(1)
        }
    )]));
    for wrong in [
        // Stale, from the future, torn, lost, revived.
        vec![(40, 50, Did::Get(Some(one)))],
        vec![(12, 18, Did::Get(Some(two)))],
        vec![(
            40,
            50,
            Did::Get(Some(Version {
                value: 1,
                generation: 2,
            })),
        )],
        vec![(40, 50, Did::Get(None))],
        vec![(40, 50, Did::Listed(None))],
        vec![(40, 50, Did::Listed(Some(1)))],
        vec![(40, 50, Did::Delete(true)), (60, 70, Did::Get(Some(two)))],
        // Two threads that both saw the new value first and the old one then.
        vec![(0, 22, Did::Get(Some(two))), (23, 24, Did::Get(Some(one)))],
        vec![(40, 50, Did::Delete(true)), (40, 50, Did::Delete(true))],
        vec![(
            40,
            50,
            Did::Refused {
                before: Some(2),
                found: Some(2),
            },
        )],
        vec![(
            40,
            50,
            Did::PutIf {
                before: None,
                put: Version {
                    value: 3,
                    generation: 3,
                },
            },
        )],
        vec![(
            40,
            50,
            Did::Put(Version {
                value: 3,
                generation: 1,
            }),
        )],
    ] {
        assert!(!with(&wrong), "{wrong:?}");
    }
}
