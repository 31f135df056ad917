//! Whole lives of a store, random and short.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code may panic"
)]

mod support;

use rimstone_compaction::{
    Compactor, CostBenefit, Dead, GRACE, Plan, SegmentStats, Segments, Strategy,
};
use support::{FOREVER, Fault, Random, Store};

/// Retires a few sealed segments, whatever they hold.
struct Any(u64);

impl Strategy for Any {
    fn choose(&self, segments: &[SegmentStats], _: u64) -> Option<Plan> {
        let mut random = Random::new(self.0);
        let chosen: Vec<bool> = segments.iter().map(|_| random.below(4) == 0).collect();
        let is_chosen = |s: &SegmentStats| {
            segments
                .iter()
                .zip(&chosen)
                .any(|(other, chosen)| *chosen && other.id == s.id)
        };
        Plan::new(segments, |s| s.sealed && is_chosen(s))
    }
}

/// By which rule a plan leaves tombstones behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// No segment outside the plan holds a lower sequence number than the tombstone.
    LowestSeqno,
    /// No segment outside the plan is older than the victims.
    Age,
    /// No segment outside the plan holds a lower sequence number than the lowest of the victims.
    LowestOfVictims,
    /// No sealed segment outside the plan holds a lower sequence number than the tombstone.
    OpenSegmentsForgotten,
}

impl Rule {
    fn apply(self, mut plan: Plan, segments: &[SegmentStats]) -> Plan {
        let staying = || segments.iter().filter(|s| !plan.victims.contains(&s.id));
        let victims = || segments.iter().filter(|s| plan.victims.contains(&s.id));
        let all_or_nothing = |is_hidden: bool| if is_hidden { 0 } else { u64::MAX };
        plan.horizon = match self {
            Rule::LowestSeqno => plan.horizon,
            Rule::Age => {
                let oldest = victims().map(|s| s.id).min().unwrap();
                all_or_nothing(staying().any(|s| s.id < oldest))
            }
            Rule::LowestOfVictims => {
                let lowest = victims().map(|s| s.lowest_seqno).min().unwrap();
                all_or_nothing(staying().any(|s| s.lowest_seqno < lowest))
            }
            Rule::OpenSegmentsForgotten => {
                let sealed = staying().filter(|s| s.sealed).map(|s| s.lowest_seqno);
                sealed.min().unwrap_or(u64::MAX)
            }
        };
        let needed = |s: &&SegmentStats| s.live > 0 || s.needs_pins(plan.horizon);
        plan.scanned = victims().filter(needed).map(|s| s.id).collect();
        plan
    }
}

/// What users asked for, up to each sequence number.
#[derive(Default)]
struct Model {
    writes: Vec<Write>,
}

/// A sequence number, a key, and a value with the last second in which it is visible.
type Write = (u64, u32, Option<(u64, u64)>);

impl Model {
    fn get(&self, key: u32, now: u64) -> Option<u64> {
        let newest = self.writes.iter().rev().find(|(_, of, _)| *of == key)?;
        let (value, last_visible) = newest.2?;
        (now <= last_visible).then_some(value)
    }
}

struct History {
    store: Store,
    model: Model,
    random: Random,
    rule: Rule,
    compactor: Option<Compactor<<Store as Segments>::Scan>>,
}

const KEYS: u64 = 12;

impl History {
    fn new(seed: u64, rule: Rule) -> History {
        let mut random = Random::new(seed);
        let mut store = Store::new(400 + 100 * random.below(10));
        store.filter = [u32::MAX, 5, 0][usize::try_from(random.below(3)).unwrap()];
        store.moves_max = [usize::MAX, 2][usize::try_from(random.below(2)).unwrap()];
        History {
            store,
            model: Model::default(),
            random,
            rule,
            compactor: None,
        }
    }

    fn step(&mut self) {
        let key = u32::try_from(self.random.below(KEYS)).unwrap();
        match self.random.below(100) {
            0..40 => self.put(key),
            40..60 => {
                self.store.delete(key);
                self.model.writes.push((self.store.seqno(), key, None));
            }
            60..66 => {
                let times = [1, 100, GRACE, 10 * GRACE];
                self.store.now += times[usize::try_from(self.random.below(4)).unwrap()];
            }
            66..70 => self.store.sync(),
            70..72 => {
                self.compactor = None;
                let kept = self.store.crash(&mut self.random);
                self.model.writes.retain(|(seqno, ..)| *seqno <= kept);
            }
            _ => self.compact(),
        }
    }

    fn put(&mut self, key: u32) {
        let (value, kind) = (self.random.next(), self.random.below(6));
        let last_visible = match kind {
            0..3 => FOREVER,
            _ => self.store.now + [0, 50, 5_000][usize::try_from(kind - 3).unwrap()],
        };
        if self.random.below(8) == 0 {
            self.store.put_large(key, value, last_visible);
        } else {
            let len = self.random.below(200);
            self.store.put(key, value, len, last_visible);
        }
        let write = (self.store.seqno(), key, Some((value, last_visible)));
        self.model.writes.push(write);
    }

    /// A part of a plan, so that users write and power fails between the parts.
    fn compact(&mut self) {
        if self.compactor.is_none() {
            let any = Any(self.random.next());
            let bound = CostBenefit { garbage_max: 10 };
            let strategies: [&dyn Strategy; 4] = [&any, &any, &bound, &Dead];
            let strategy = strategies[usize::try_from(self.random.below(4)).unwrap()];
            let stats = self.store.stats(self.store.now);
            if let Some(plan) = strategy.choose(&stats, self.store.now) {
                let plan = self.rule.apply(plan, &stats);
                self.compactor = Some(Compactor::new(plan, self.store.now));
            }
        }
        if let Some(compactor) = &mut self.compactor {
            let budget = 1 + self.random.below(1_000);
            if self.random.below(20) == 0 {
                self.store.abandon();
                self.compactor = None;
            } else if compactor.step(&mut self.store, budget).unwrap().is_done {
                self.compactor = None;
            }
        }
    }

    /// Whether the store, and the store that a rebuild would make, hold what the model does.
    fn agrees(&self) -> bool {
        let rebuilt = self.store.rebuilt();
        (0..u32::try_from(KEYS).unwrap()).all(|key| {
            let expected = self.model.get(key, self.store.now);
            self.store.get(key) == expected && rebuilt.get(key) == expected
        })
    }
}

/// Returns how many of so many histories end with another answer than the model's.
fn wrong(histories: u64, fault: Fault, rule: Rule) -> u64 {
    let is_wrong = |seed: &u64| {
        let mut history = History::new(*seed, rule);
        history.store.fault = fault;
        (0..300).any(|at| {
            history.step();
            at % 10 == 0 && !history.agrees()
        })
    };
    (0..histories).filter(is_wrong).count() as u64
}

#[test]
fn tombstones_left_behind_by_age_bring_deleted_keys_back_and_by_sequence_number_never() {
    assert_eq!(wrong(cases(3_000), Fault::None, Rule::LowestSeqno), 0);
    for rule in [
        Rule::Age,
        Rule::LowestOfVictims,
        Rule::OpenSegmentsForgotten,
    ] {
        let wrong = wrong(1_000, Fault::None, rule);
        // Far more than one, so that a change which hides the fault is noticed.
        assert!(wrong > 50, "{rule:?}: {wrong} of 1000");
    }
}

#[test]
fn planted_faults_are_caught() {
    for fault in [Fault::MoveAlways, Fault::RemoveEarly, Fault::FlushLate] {
        let wrong = wrong(300, fault, Rule::LowestSeqno);
        assert!(wrong > 0, "{fault:?}");
    }
}

/// More with `RIMSTONE_CASES`, as all tests of the workspace.
fn cases(default: u64) -> u64 {
    let more = std::env::var("RIMSTONE_CASES").ok();
    more.and_then(|n| n.parse().ok())
        .unwrap_or(default)
        .max(default)
}
