//! Every short history, with the power cut at every operation of the disk.

use std::collections::HashSet;

use rimstone::{Clock, Durability, Namespace, PutOptions, Store, WriteBatch};
use rimstone_tests::{Cut, History, Seen, SimDisk, State, observe, open_on};

const NOW: u64 = 1_000;

/// One thing a user does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Put,
    PutLarge,
    PutUnsynced,
    Delete,
    Batch,
    Sync,
    Recreate,
    Reopen,
}

const ACTS: [Act; 8] = [
    Act::Put,
    Act::PutLarge,
    Act::PutUnsynced,
    Act::Delete,
    Act::Batch,
    Act::Sync,
    Act::Recreate,
    Act::Reopen,
];

fn keys() -> Vec<Vec<u8>> {
    ["a", "b", "c"].map(|key| key.as_bytes().to_vec()).to_vec()
}

/// A store, and what was done to it so far.
struct Session {
    disk: SimDisk,
    clock: Clock,
    store: Store,
    history: History,
    done: u8,
}

impl Session {
    fn start(disk: SimDisk) -> Session {
        let clock = Clock::manual(NOW);
        let store = open_on(&disk, &clock, Durability::Immediate).unwrap();
        let history = History::new(observe(&store, &keys()), disk.place());
        let done = 0;
        Session {
            disk,
            clock,
            store,
            history,
            done,
        }
    }

    fn start_with_namespace() -> Session {
        let mut session = Session::start(SimDisk::new());
        session.store.create_namespace("n").unwrap();
        let state = observe(&session.store, &keys());
        session.history = History::new(state, session.disk.place());
        session
    }

    fn ns(&self) -> Namespace {
        self.store.find_namespace("n").unwrap()
    }

    fn run(&mut self, act: Act) {
        self.done += 1;
        let mut state = self.history.newest().clone();
        let mut begun = self.disk.place();
        let entries = state.get_mut("n").unwrap();
        let put = |len, generation| Seen {
            value: vec![self.done; len],
            metadata: vec![],
            expiration: None,
            generation,
        };
        match act {
            Act::Put | Act::PutLarge | Act::PutUnsynced => {
                let len = if act == Act::PutLarge { 66_000 } else { 700 };
                let durability = match act {
                    Act::PutUnsynced => Durability::None,
                    _ => Durability::Immediate,
                };
                let options = PutOptions::new().durability(durability);
                let value = vec![self.done; len];
                let generation = self.ns().put_with("a", value, &options).unwrap();
                entries.insert(b"a".to_vec(), put(len, generation));
            }
            Act::Delete => {
                self.ns().delete("a").unwrap();
                entries.remove(&b"a"[..]);
            }
            Act::Batch => {
                let mut batch = WriteBatch::new();
                batch.delete(&self.ns(), "a");
                batch.put(&self.ns(), "b", vec![self.done; 600]);
                batch.put(&self.ns(), "c", vec![self.done; 10]);
                self.store.write(batch).unwrap();
                entries.remove(&b"a"[..]);
                for (key, len) in [("b", 600), ("c", 10)] {
                    let generation = self.ns().get_with_metadata(key).unwrap().unwrap();
                    let generation = generation.generation();
                    entries.insert(key.into(), put(len, generation));
                }
            }
            Act::Sync => self.store.sync().unwrap(),
            Act::Recreate => {
                self.store.drop_namespace(self.ns().id()).unwrap();
                self.history.add(State::new(), begun);
                begun = self.disk.place();
                self.history.promise(begun);
                self.store.create_namespace("n").unwrap();
                entries.clear();
            }
            Act::Reopen => self.reopen(),
        }
        self.history.add(state, begun);
        if act != Act::PutUnsynced {
            self.history.promise(self.disk.place());
        }
    }

    fn reopen(&mut self) {
        let (clock, disk) = (self.clock.clone(), self.disk.clone());
        let other = open_on(&SimDisk::new(), &clock, Durability::None).unwrap();
        drop(std::mem::replace(&mut self.store, other));
        self.store = open_on(&disk, &clock, Durability::Immediate).unwrap();
    }
}

/// Opens what a cut left, checks it against the history, and cuts again at once.
fn check(left: &SimDisk, history: &History, place: usize, context: &dyn std::fmt::Debug) {
    let clock = Clock::manual(NOW);
    let store = open_on(left, &clock, Durability::Immediate)
        .unwrap_or_else(|error| panic!("{context:?}: {error}"));
    let damage = store.stats().damage;
    assert!(damage.is_empty(), "{context:?}: {damage:?}");
    let seen = observe(&store, &keys());
    let explained = history.explain(&seen, place, NOW).is_some();
    assert!(explained, "{context:?}: {seen:#?}\n{history:#?}");
    let again = left.crash(Cut::LOST);
    let again = open_on(&again, &clock, Durability::Immediate).unwrap();
    assert_eq!(observe(&again, &keys()), seen, "{context:?}, opened again");
}

/// Cuts the power at every place since `first`. What leaves the same disk, with the same promises, is
/// tried once.
fn cut_everywhere(session: &Session, first: usize, context: &[Act]) -> usize {
    let mut tried = HashSet::new();
    for place in first..=session.disk.place() {
        for cut in Cut::kinds(u64::try_from(place).unwrap()) {
            let digest = session.disk.digest_at(place, cut);
            if tried.insert((digest, session.history.possible(place))) {
                let left = session.disk.crash_at(place, cut);
                check(&left, &session.history, place, &(context, place, cut));
            }
        }
    }
    tried.len()
}

/// A disk with a store that holds one small and one large value.
fn prepared() -> SimDisk {
    let mut session = Session::start_with_namespace();
    session.run(Act::Put);
    session.run(Act::PutLarge);
    drop(session.store);
    session.disk
}

/// Runs every sequence of `length` acts and cuts the power everywhere in it.
fn enumerate(length: u32) {
    let prepared = prepared();
    let mut cuts = 0;
    let sequences = ACTS.len().pow(length);
    for number in 0..sequences {
        let act = |at| ACTS[number / ACTS.len().pow(at) % ACTS.len()];
        let acts: Vec<_> = (0..length).map(act).collect();
        let mut session = Session::start(prepared.crash(Cut::KEPT));
        let first = session.disk.place();
        acts.iter().for_each(|act| session.run(*act));
        cuts += cut_everywhere(&session, first, &acts);
    }
    assert!(cuts > sequences, "each sequence was cut: {cuts}");
}

/// Rules 1, 2, 6 and 7, for every pair of acts: what a cut leaves is a state of the history, not
/// older than what was acknowledged as durable, and is called undamaged.
#[test]
fn every_pair_of_acts_survives_a_cut_at_every_operation() {
    enumerate(2);
}

/// As above, for longer sequences when asked: `RIMSTONE_ACTS=3`.
#[test]
fn every_longer_sequence_survives_when_asked() {
    if let Some(length) = std::env::var("RIMSTONE_ACTS")
        .ok()
        .and_then(|n| n.parse().ok())
    {
        enumerate(length);
    }
}
