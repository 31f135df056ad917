//! Every short history: the power cut at every operation of the disk, and every operation failing.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use rimstone::Durability;
use rimstone_tests::{Cut, Fault, Left, SimDisk, State, say};

use crate::session::{Act, INTERVAL, MAPPED_FROM, Session};

fn put(len: usize, durability: Durability) -> Act {
    let (ns, key, ttl) = (0, 1, None);
    Act::Put {
        ns,
        key,
        len,
        ttl,
        durability,
    }
}

/// What the short histories are made of.
fn acts() -> Vec<Act> {
    let keys = vec![(1, None), (2, Some(600)), (4, Some(10))];
    let durability = Durability::Immediate;
    vec![
        put(700, Durability::Immediate),
        put(66_000, Durability::Immediate),
        put(700, Durability::None),
        put(66_000, Durability::None),
        Act::Delete { ns: 0, key: 1 },
        Act::Batch {
            ns: 0,
            keys,
            durability,
        },
        Act::DeletePrefix {
            ns: 0,
            prefix: vec![1],
        },
        Act::DeletePrefix {
            ns: 0,
            prefix: vec![],
        },
        Act::Sync,
        Act::Drop { ns: 0 },
        Act::Create { ns: 0 },
        Act::Rename { from: 0, to: 1 },
        Act::Checkpoint,
        Act::Compact,
        Act::Maintain { idle: true },
        Act::Reopen,
    ]
}

/// Acts, how durable they are that do not say so, and from where on the log is written through memory.
#[derive(Clone, Debug)]
struct Sequence {
    acts: Vec<Act>,
    durability: Durability,
    mapped_from: Option<u64>,
}

impl Sequence {
    /// Begins it on a disk that holds what this one does.
    fn begin(&self, prepared: &SimDisk) -> Session {
        let disk = prepared.crash(Cut::KEPT);
        disk.map_from(self.mapped_from);
        Session::start(disk, self.durability)
    }

    /// The same with maintenance that flushes, if there is any.
    fn at_an_interval(&self) -> Option<Sequence> {
        let maintains = |act: &Act| matches!(act, Act::Maintain { .. });
        self.acts.iter().any(maintains).then(|| Sequence {
            durability: INTERVAL,
            ..self.clone()
        })
    }
}

/// All sequences of up to so many acts, the shorter first and in every way that the log can be written; of the
/// longest each in one. Those with maintenance are there twice: also with a store that flushes at an interval.
fn sequences(length: u32) -> Vec<Sequence> {
    let acts = acts();
    let of_length = |count: u32| {
        let acts = &acts;
        (0..acts.len().pow(count)).flat_map(move |number| {
            let act = |at| acts[number / acts.len().pow(at) % acts.len()].clone();
            let acts: Vec<Act> = (0..count).map(act).collect();
            // Three ways have no factor in common with the number of acts, so that each comes in each place.
            let ways = (0..).zip(MAPPED_FROM);
            let wanted = ways.filter(move |(way, _)| count < length || number % 3 == *way);
            wanted.flat_map(move |(_, mapped_from)| {
                let immediate = Sequence {
                    acts: acts.clone(),
                    durability: Durability::Immediate,
                    mapped_from,
                };
                let interval = immediate.at_an_interval();
                std::iter::once(immediate).chain(interval)
            })
        })
    };
    (0..=length).flat_map(of_length).collect()
}

/// Says that no more sequences are wanted if the thread that has it panics.
struct LastIfPanicking<'a>(&'a AtomicUsize);

impl Drop for LastIfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(usize::MAX / 2, Relaxed);
        }
    }
}

/// Runs every sequence, on all processors, until one fails.
fn run_all(sequences: &[Sequence], run: impl Fn(&Sequence) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        let _last = LastIfPanicking(&next);
        while let Some(sequence) = sequences.get(next.fetch_add(1, Relaxed)) {
            run(sequence);
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

/// A disk with a store that holds one small and one large value.
fn prepared() -> SimDisk {
    let mut session = Session::start(SimDisk::new(), Durability::Immediate);
    session.run(&Act::Create { ns: 0 });
    session.run(&put(700, Durability::Immediate));
    session.run(&put(66_000, Durability::Immediate));
    session.disk.crash(Cut::KEPT)
}

/// What stores showed on disks that cuts left. All that opening does follows from what lies on the disk,
/// random numbers too, so that a disk on which the same lies need not be opened again.
#[derive(Default)]
struct Revealed {
    by_disk: Mutex<HashMap<u64, Arc<State>>>,
    states: Mutex<HashSet<Arc<State>>>,
}

impl Revealed {
    fn of(&self, left: Left, session: &Session, context: &dyn Debug) -> Arc<State> {
        let digest = left.digest();
        if let Some(seen) = self.by_disk.lock().unwrap().get(&digest) {
            return Arc::clone(seen);
        }
        let disk = SimDisk::of(left);
        disk.map_from(way_of(digest));
        let (_, seen) = session.reveal(&disk, context);
        let seen = self.share(seen);
        let mut by_disk = self.by_disk.lock().unwrap();
        by_disk.insert(digest, Arc::clone(&seen));
        seen
    }

    /// Many disks show the same.
    fn share(&self, seen: State) -> Arc<State> {
        let mut states = self.states.lock().unwrap();
        let same = states.get(&seen).cloned();
        same.unwrap_or_else(|| {
            let new = Arc::new(seen);
            states.insert(Arc::clone(&new));
            new
        })
    }

    fn len(&self) -> usize {
        self.by_disk.lock().unwrap().len()
    }
}

/// How recovery writes the log of a disk: in each way that of some, and always the same.
fn way_of(digest: u64) -> Option<u64> {
    let way = digest % u64::try_from(MAPPED_FROM.len()).unwrap();
    MAPPED_FROM[usize::try_from(way).unwrap()]
}

/// Runs a sequence and cuts the power at every place of its last act, in every way. Returns how many cuts
/// that was. What came before is the end of a shorter sequence.
fn cut_last_act(prepared: &SimDisk, sequence: &Sequence, revealed: &Revealed) -> usize {
    let mut session = sequence.begin(prepared);
    let mut from = 0;
    for act in &sequence.acts {
        from = session.disk.place();
        session.run(act);
    }
    let mut cuts = 0;
    for moment in session.disk.timeline().moments(from) {
        for (way, left) in moment.all().into_iter().enumerate() {
            cuts += 1;
            let context = (sequence, way);
            let seen = revealed.of(left, &session, &context);
            session.explain(&seen, moment.place(), &context);
        }
    }
    cuts
}

/// Runs a sequence with a fault at its first operation, its second, and so on; reopens, and cuts the
/// power. Returns how many runs that was.
fn fail_each_operation(prepared: &SimDisk, sequence: &Sequence) -> usize {
    let mut runs = 0;
    for (fault, lasting) in Fault::ALL.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        for skip in 0.. {
            runs += 1;
            let mut session = sequence.begin(prepared);
            session.disk.fail(skip, fault, lasting);
            sequence.acts.iter().for_each(|act| session.run(act));
            let was_hit = session.disk.failures() > 0;
            session.run(&Act::Reopen);
            session.run(&put(10, Durability::Immediate));
            let (back, cut) = (0, Cut::LOST);
            session.run(&Act::Cut { back, cut });
            if !was_hit {
                break;
            }
        }
    }
    runs
}

/// How many acts a sequence has: as told by `RIMSTONE_ACTS`, else 3.
fn length() -> u32 {
    let asked = std::env::var("RIMSTONE_ACTS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// Rules 1, 2, 6 and 7: whatever a user does, what a cut leaves is a state of the history, not older
/// than what was acknowledged as durable, and is called undamaged.
#[test]
fn every_short_history_survives_a_cut_at_every_operation() {
    let (prepared, revealed) = (prepared(), Revealed::default());
    let (sequences, cuts) = (sequences(length()), AtomicUsize::new(0));
    run_all(&sequences, |sequence| {
        cuts.fetch_add(cut_last_act(&prepared, sequence, &revealed), Relaxed);
    });
    say(&format!(
        "{} cuts of {} histories left {} different disks; {} writes went through memory",
        cuts.load(Relaxed),
        sequences.len(),
        revealed.len(),
        prepared.mapped_writes()
    ));
    assert!(prepared.mapped_writes() > 0);
}

/// Rules 1 and 6: whatever a user does, an operation that fails leaves what was acknowledged, readable
/// at once and after reopening; what was not acknowledged is there as a whole or not at all.
#[test]
fn every_short_history_survives_the_failure_of_every_operation() {
    // Every sequence is run anew for each operation and each way to fail: one act less, and of the longest
    // two of five. That has no factor in common with the number of acts, so that each comes in each place.
    let mut sequences = sequences(length().saturating_sub(1).max(1));
    let longest = sequences.last().map_or(0, |last| last.acts.len());
    let mut number = 0;
    sequences.retain(|sequence| {
        number += 1;
        sequence.acts.len() < longest || number % 5 < 2
    });
    let (prepared, runs) = (prepared(), AtomicUsize::new(0));
    run_all(&sequences, |sequence| {
        runs.fetch_add(fail_each_operation(&prepared, sequence), Relaxed);
    });
    say(&format!(
        "{} runs of {} histories, each with another failing operation; {} writes went through memory",
        runs.load(Relaxed),
        sequences.len(),
        prepared.mapped_writes()
    ));
    assert!(prepared.mapped_writes() > 0);
}
