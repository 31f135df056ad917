//! Every short history: the power cut at every operation of the disk, and every operation failing.

use std::collections::HashSet;

use rimstone::Durability;
use rimstone_tests::{Cut, Fault, SimDisk, say};

use crate::session::{Act, Session};

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
        Act::Checkpoint,
        Act::Compact,
        Act::Reopen,
    ]
}

/// All sequences of `length` acts.
fn sequences(length: u32) -> impl Iterator<Item = Vec<Act>> {
    let acts = acts();
    (0..acts.len().pow(length)).map(move |number| {
        let act = |at| acts[number / acts.len().pow(at) % acts.len()].clone();
        (0..length).map(act).collect()
    })
}

/// A disk with a store that holds one small and one large value.
fn prepared() -> SimDisk {
    let mut session = Session::start(SimDisk::new(), Durability::Immediate);
    session.run(&Act::Create { ns: 0 });
    session.run(&put(700, Durability::Immediate));
    session.run(&put(66_000, Durability::Immediate));
    session.disk.crash(Cut::KEPT)
}

/// Cuts the power at every place. What leaves the same disk, with the same promises, is tried once.
/// Returns how many states were tried, and how many cuts led to them.
fn cut_everywhere(session: &Session, context: &[Act]) -> (usize, usize) {
    let (mut tried, mut cuts) = (HashSet::new(), 0);
    for place in session.opened()..=session.disk.place() {
        for cut in Cut::kinds(u64::try_from(place).unwrap()) {
            cuts += 1;
            let digest = session.disk.digest_at(place, cut);
            if tried.insert((digest, session.history.possible(place))) {
                let left = session.disk.crash_at(place, cut);
                drop(session.check_left(&left, place, &(context, cut)));
            }
        }
    }
    (tried.len(), cuts)
}

/// Runs every sequence, or one in `step`, and cuts the power everywhere in it.
fn cut_all(length: u32, step: usize) {
    let prepared = prepared();
    let (mut states, mut cuts) = (0, 0);
    for sequence in sequences(length).step_by(step) {
        let disk = prepared.crash(Cut::KEPT);
        let mut session = Session::start(disk, Durability::Immediate);
        sequence.iter().for_each(|act| session.run(act));
        let (tried, made) = cut_everywhere(&session, &sequence);
        (states, cuts) = (states + tried, cuts + made);
    }
    say(&format!(
        "{cuts} cuts of histories of {length} acts left {states} different states"
    ));
}

/// Runs every sequence, or one in `step`, with a fault at its first operation, its second, and so on; reopens, and cuts
/// the power.
fn fail_all(length: u32, step: usize) {
    let (prepared, mut runs) = (prepared(), 0);
    for sequence in sequences(length).step_by(step) {
        for (fault, lasting) in Fault::ALL.iter().flat_map(|f| [(*f, false), (*f, true)]) {
            for skip in 0.. {
                runs += 1;
                let disk = prepared.crash(Cut::KEPT);
                let mut session = Session::start(disk, Durability::Immediate);
                let calls = session.disk.calls();
                session.disk.fail(skip, fault, lasting);
                sequence.iter().for_each(|act| session.run(act));
                let hit = session.disk.calls() > calls + skip;
                for act in [Act::Reopen, put(10, Durability::Immediate)] {
                    session.run(&act);
                }
                let (back, cut) = (0, Cut::LOST);
                session.run(&Act::Cut { back, cut });
                if !hit {
                    break;
                }
            }
        }
    }
    say(&format!(
        "{runs} runs of histories of {length} acts, each with another failing operation"
    ));
}

/// How many acts a sequence has: as told by `RIMSTONE_ACTS`, else 2.
fn length() -> u32 {
    let asked = std::env::var("RIMSTONE_ACTS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Rules 1, 2, 6 and 7: whatever a user does, what a cut leaves is a state of the history, not older
/// than what was acknowledged as durable, and is called undamaged.
#[test]
fn every_short_history_survives_a_cut_at_every_operation() {
    cut_all(length(), 1);
}

/// The same of some histories that are one act longer; the step has no factor in common with the number of
/// acts, so that each act comes in each place.
#[test]
fn some_longer_histories_survive_a_cut_at_every_operation() {
    cut_all(length() + 1, 13);
}

/// Rules 1 and 6: whatever a user does, an operation that fails leaves what was acknowledged, readable
/// at once and after reopening; what was not acknowledged is there as a whole or not at all.
#[test]
fn every_short_history_survives_the_failure_of_every_operation() {
    // Every sequence is run anew for each operation and each way to fail: one act less.
    fail_all(length().saturating_sub(1), 1);
}

/// The same of some histories that are one act longer.
#[test]
fn some_longer_histories_survive_the_failure_of_every_operation() {
    fail_all(length(), 4);
}
