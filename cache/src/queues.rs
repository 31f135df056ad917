//! Who leaves next.
//!
//! 1. A newcomer waits in `small`. When that is over its share, its oldest entries go to main. The
//!    last of them, if nobody read it, duels with main's victim by worth, and the loser leaves.
//! 2. Main has a queue for each class of worth. An entry is stamped with the shard's age plus its
//!    worth, so each queue is sorted, and the victim is the least of the first ones. If it was read
//!    since it was placed, it is placed again with what it is worth now; else it leaves, and its stamp
//!    is the new age (GreedyDual: what is not read is overtaken by what is). How much frequency counts for worth is
//!    learned at these looks.
//! 3. A newcomer that left a moment ago moves the share of `small`: up, if it had left there too soon,
//!    and then it goes to main at once; down, if it had left main (as ARC does), or left long ago.
#![allow(clippy::indexing_slicing, reason = "a class is below 64")]

use crate::cost::{CLASSES, Ranking};
use crate::history::{Back, FREQUENCY_MAX, Left};
use crate::index::{Index, Spot};
use crate::rates::Rates;
use crate::slots::{List, Place, QUEUE, Slots};

/// The share of the weight that `small` has at first, and its bounds.
const SHARE: f64 = 0.1;
const SHARE_MIN: f64 = 0.01;
const SHARE_MAX: f64 = 0.75;
/// How far an entry that comes back moves the share, for each that is held, and how far at most.
const STEP: f64 = 6.0;
const STEP_MAX: f64 = 0.005;
/// What one that comes back late counts of that.
const LATE: f64 = 0.01;
/// In victims' worth.
const SLACK: f64 = 4.0;

/// An entry whose turn it is to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) at: u32,
    pub(crate) left: Left,
    pub(crate) spot: Spot,
}

#[derive(Debug)]
pub(crate) struct Queues {
    small: List,
    small_weight: u64,
    small_share: f64,
    main: Box<[List; CLASSES]>,
    /// The stamp of the first entry of each class; infinity where there is none.
    stamps: [f64; CLASSES],
    /// A bit for each class that holds something.
    occupied: u64,
    /// The class of the least stamp; any, if main is empty.
    least: usize,
    age: f64,
    /// The weight that left `small` and main of late.
    left: [f64; 2],
    /// How many left, ever: the time by which entries of main wait.
    departures: u32,
    rates: Rates,
    /// What the last victim of main was worth.
    last_worth: f64,
    weight: u64,
}

impl Default for Queues {
    fn default() -> Queues {
        Queues {
            small: List::default(),
            small_weight: 0,
            small_share: SHARE,
            main: Box::new([List::default(); CLASSES]),
            stamps: [f64::INFINITY; CLASSES],
            occupied: 0,
            least: 0,
            age: 0.0,
            left: [0.0; 2],
            departures: 0,
            rates: Rates::default(),
            last_worth: 0.0,
            weight: 0,
        }
    }
}

impl Queues {
    /// The weight of all entries.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The stamp of the last victim of main. Shards whose ages are level throw out what is worth the
    /// same.
    pub(crate) fn age(&self) -> f64 {
        self.age
    }

    /// How far the age may be ahead of another shard's before that one's victims are clearly worth less.
    pub(crate) fn slack(&self) -> f64 {
        SLACK * self.last_worth
    }

    /// Places a newcomer.
    pub(crate) fn admit(
        &mut self,
        slots: &mut Slots,
        at: u32,
        back: Option<Back>,
        ranking: Ranking,
    ) {
        if let Some(back) = back {
            self.move_share(slots.used(), back);
        }
        // What left main was not read there: it has to be read again before it goes back, else those of
        // a loop push each other out.
        match back {
            Some(Back::Soon(Left::Small)) => self.push_main(slots, at, ranking),
            _ => self.push_small(slots, at),
        }
    }

    /// Moves the share of `small` until as many come back for each byte that left it as for one that
    /// left main. A step is the same for all, so that the small ones, of which more fit, count for more.
    fn move_share(&mut self, held: u32, back: Back) {
        let step = (STEP / f64::from(held)).min(STEP_MAX);
        let [of_small, of_main] = self.left.map(|left| left + 1.0);
        let moved = match back {
            Back::Soon(Left::Small) => of_main / (of_small + of_main),
            Back::Soon(Left::Main) => -of_small / (of_small + of_main),
            // No `small` would have kept it, main might: without this a loop never gets what `small` has.
            Back::Late => -LATE,
        };
        self.small_share = (self.small_share + step * moved).clamp(SHARE_MIN, SHARE_MAX);
    }

    /// Counts who leaves; half of it is forgotten after as much as there is.
    fn count_left(&mut self, weight: u32, left: Left) {
        self.departures = self.departures.wrapping_add(1);
        self.left[left as usize] += f64::from(weight);
        if self.left.iter().sum::<f64>() > self.weight as f64 {
            self.left = self.left.map(|left| left / 2.0);
        }
    }

    pub(crate) fn push_small(&mut self, slots: &mut Slots, at: u32) {
        let slot = slots.get_mut(at);
        slot.place = Place::Small;
        let weight = u64::from(slot.weight);
        self.weight += weight;
        self.small_weight += weight;
        self.small.push::<QUEUE>(slots, at);
    }

    /// Places an entry in main by its frequency.
    pub(crate) fn push_main(&mut self, slots: &mut Slots, at: u32, ranking: Ranking) {
        let slot = slots.get_mut(at);
        let class = ranking.class(self.rates.of(slot.frequency), slot.weight);
        slot.place = Place::Main(class);
        slot.placed = self.departures;
        slot.stamp = self.age + ranking.worth(class);
        self.weight += u64::from(slot.weight);
        let queue = &mut self.main[usize::from(class)];
        let first = queue.first().is_none();
        queue.push::<QUEUE>(slots, at);
        if first {
            self.look_at_first(slots, class);
        }
    }

    /// After the first entry of a class became another one.
    fn look_at_first(&mut self, slots: &Slots, class: u8) {
        let first = self.main[usize::from(class)].first();
        let stamp = first.map_or(f64::INFINITY, |at| slots.get(at).stamp);
        self.stamps[usize::from(class)] = stamp;
        let bit = 1 << class;
        self.occupied = self.occupied & !bit | if first.is_some() { bit } else { 0 };
        if usize::from(class) == self.least {
            self.least = self.least_stamp();
        } else if stamp < self.stamps[self.least] {
            self.least = class.into();
        }
    }

    /// The class whose first entry has the least stamp.
    fn least_stamp(&self) -> usize {
        let mut set = self.occupied;
        let mut least = (f64::INFINITY, 0);
        while set != 0 {
            let class = set.trailing_zeros() as usize;
            if self.stamps[class] < least.0 {
                least = (self.stamps[class], class);
            }
            set &= set - 1;
        }
        least.1
    }

    /// Takes an entry out of its queue.
    pub(crate) fn remove(&mut self, slots: &mut Slots, at: u32) {
        let (place, weight) = (slots.get(at).place, u64::from(slots.get(at).weight));
        self.weight -= weight;
        match place {
            Place::Free => unreachable!("slot {at} is in no queue"),
            Place::Small => {
                self.small_weight -= weight;
                self.small.remove::<QUEUE>(slots, at);
                self.small.prefetch_third::<QUEUE>(slots);
            }
            Place::Main(class) => {
                let queue = &mut self.main[usize::from(class)];
                let first = queue.first() == Some(at);
                queue.remove::<QUEUE>(slots, at);
                queue.prefetch_third::<QUEUE>(slots);
                if first {
                    self.look_at_first(slots, class);
                }
            }
        }
    }

    /// After a slot moved.
    pub(crate) fn renumber(&mut self, slots: &mut Slots, new: u32) {
        match slots.get(new).place {
            Place::Free => {}
            Place::Small => self.small.renumber::<QUEUE>(slots, new),
            Place::Main(class) => self.main[usize::from(class)].renumber::<QUEUE>(slots, new),
        }
    }

    #[cfg(test)]
    pub(crate) fn small_share(&self) -> f64 {
        self.small_share
    }

    #[cfg(test)]
    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The queues whose first entries are others since one left here. If main lost a duel, both are.
    pub(crate) fn moved(&self, left: Left) -> impl Iterator<Item = List> {
        let main = (left == Left::Main).then(|| self.main[self.least]);
        std::iter::once(self.small).chain(main)
    }

    /// The entry whose turn it is to leave, still in its queue; `None` if there is none.
    pub(crate) fn victim(
        &mut self,
        slots: &mut Slots,
        index: &Index,
        ranking: Ranking,
    ) -> Option<Victim> {
        let victim = self.choose(slots, index, ranking)?;
        self.count_left(slots.get(victim.at).weight, victim.left);
        Some(victim)
    }

    fn choose(&mut self, slots: &mut Slots, index: &Index, ranking: Ranking) -> Option<Victim> {
        loop {
            let share = self.small_share * self.weight as f64;
            let over = self.small_weight as f64 > share;
            let rival = self.first_of_main();
            let Some(oldest) = self.small.first().filter(|_| over || rival.is_none()) else {
                let Some(victim) = self.look(slots, index, rival?, Left::Main, ranking) else {
                    continue;
                };
                self.grow_old(slots, victim.at, ranking);
                return Some(victim);
            };
            let Some(newer) = self.look(slots, index, oldest, Left::Small, ranking) else {
                continue;
            };
            let slot = slots.get(oldest);
            let surplus = self.small_weight - u64::from(slot.weight);
            if surplus as f64 > share {
                self.promote(slots, oldest, ranking);
                continue;
            }
            // The read that brought it in does not count here: in a loop, all newcomers would win
            // against those whose turn to be read again is yet to come.
            let rate = self.rates.of(slot.frequency.saturating_sub(1));
            let class = ranking.class(rate, slot.weight);
            let Some(rival) = rival else {
                return Some(newer);
            };
            let Some(older) = self.look(slots, index, rival, Left::Main, ranking) else {
                continue;
            };
            if !beats(slots, class, rival) {
                return Some(newer);
            }
            self.promote(slots, oldest, ranking);
            self.grow_old(slots, rival, ranking);
            return Some(older);
        }
    }

    /// The age becomes the stamp of main's victim.
    fn grow_old(&mut self, slots: &Slots, victim: u32, ranking: Ranking) {
        let slot = slots.get(victim);
        self.age = slot.stamp.max(self.age);
        if let Place::Main(class) = slot.place {
            self.last_worth = ranking.worth(class);
        }
    }

    fn promote(&mut self, slots: &mut Slots, at: u32, ranking: Ranking) {
        self.remove(slots, at);
        self.push_main(slots, at, ranking);
    }

    /// Looks at the first entry of a queue, which may leave; but if it was read since it was placed, it is
    /// placed in main, by its new frequency.
    fn look(
        &mut self,
        slots: &mut Slots,
        index: &Index,
        at: u32,
        left: Left,
        ranking: Ranking,
    ) -> Option<Victim> {
        let (used, slot) = (slots.used(), slots.get_mut(at));
        let spot = index.locate(slot.hash, |entry| entry.0.slot() == at);
        let Some((spot, entry)) = spot.and_then(|spot| Some((spot, index.at(spot)?))) else {
            unreachable!("slot {at} has no entry");
        };
        let reads = entry.0.hits();
        if left == Left::Main {
            let waited = self.departures.wrapping_sub(slot.placed);
            self.rates.look(slot.frequency, reads, waited, used);
        }
        if reads == 0 {
            return Some(Victim { at, left, spot });
        }
        entry.0.set_slot(at);
        slot.frequency = (slot.frequency + reads).min(FREQUENCY_MAX);
        self.promote(slots, at, ranking);
        None
    }

    /// The first entry of main, by stamp.
    fn first_of_main(&self) -> Option<u32> {
        self.main[self.least].first()
    }

    pub(crate) fn validate(&self, slots: &Slots) {
        let weigh = |list: List| -> u64 {
            let slots = list.iter::<QUEUE>(slots).map(|at| slots.get(at));
            slots.map(|slot| u64::from(slot.weight)).sum()
        };
        assert_eq!(self.small_weight, weigh(self.small));
        let main: u64 = self.main.iter().map(|list| weigh(*list)).sum();
        assert_eq!(self.weight, self.small_weight + main);
        let mut count = self.small.iter::<QUEUE>(slots).count();
        for (class, list) in (0..).zip(self.main.iter()) {
            let mut last = f64::NEG_INFINITY;
            assert_eq!(self.occupied >> class & 1 == 1, list.first().is_some());
            for at in list.iter::<QUEUE>(slots) {
                let slot = slots.get(at);
                assert_eq!(slot.place, Place::Main(class));
                assert!(last <= slot.stamp, "a queue is sorted");
                last = slot.stamp;
                count += 1;
            }
            let first = list.first().map(|at| slots.get(at).stamp);
            let stamp = self.stamps[usize::from(class)];
            assert!(stamp == first.unwrap_or(f64::INFINITY));
            assert!(stamp >= self.stamps[self.least]);
        }
        assert_eq!(count, slots.used() as usize);
        assert!((SHARE_MIN..=SHARE_MAX).contains(&self.small_share));
    }
}

/// Whether a class is worth more than that of an entry of main.
fn beats(slots: &Slots, class: u8, rival: u32) -> bool {
    matches!(slots.get(rival).place, Place::Main(of) if class > of)
}
