//! Timers of entries: a wheel of wheels, to free memory when its time has come. Whether an entry may
//! be served does not depend on it; every read looks at the time itself.
//!
//! A moment is six digits of base 64. An entry waits on the level of the highest digit in which its
//! moment differs from the wheel's, in the bucket of that digit, and comes down as time goes on.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a level is below 6, a digit below 64"
)]

use crate::clock::Seconds;
use crate::slots::{Bucket, List, Slots, TIMER};

const BITS: u32 = 6;
const LEVELS: usize = 6;
const DIGITS: usize = 1 << BITS;

#[derive(Debug)]
pub(crate) struct Wheel {
    /// Everything before this moment has been taken out.
    now: Seconds,
    lists: Box<[[List; DIGITS]; LEVELS]>,
    /// A bit for each list that holds something.
    occupied: [u64; LEVELS],
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            now: 0,
            lists: Box::new([[List::default(); DIGITS]; LEVELS]),
            occupied: [0; LEVELS],
        }
    }
}

fn digit(moment: Seconds, level: usize) -> usize {
    (moment >> (BITS * level as u32)) as usize % DIGITS
}

impl Wheel {
    /// Sets the timer of a slot, which has none, to `moment`. One that is over is due at once.
    pub(crate) fn insert(&mut self, slots: &mut Slots, at: u32, moment: Seconds) {
        slots.get_mut(at).timer = moment;
        let moment = moment.max(self.now);
        let differs = Seconds::BITS - (moment ^ self.now).leading_zeros();
        let level = differs.saturating_sub(1) as usize / BITS as usize;
        let digit = digit(moment, level);
        slots.get_mut(at).bucket = Some(Bucket {
            level: level as u8,
            digit: digit as u8,
        });
        self.lists[level][digit].push::<TIMER>(slots, at);
        self.occupied[level] |= 1 << digit;
    }

    /// Takes the timer of a slot away, if it has one.
    pub(crate) fn remove(&mut self, slots: &mut Slots, at: u32) {
        let Some(bucket) = slots.get_mut(at).bucket.take() else {
            return;
        };
        let list = self.list(bucket);
        list.remove::<TIMER>(slots, at);
        if list.first().is_none() {
            self.occupied[usize::from(bucket.level)] &= !(1 << bucket.digit);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == [0; LEVELS]
    }

    pub(crate) fn clear(&mut self) {
        *self.lists = [[List::default(); DIGITS]; LEVELS];
        self.occupied = [0; LEVELS];
    }

    /// After a slot moved.
    pub(crate) fn renumber(&mut self, slots: &mut Slots, new: u32) {
        if let Some(bucket) = slots.get(new).bucket {
            self.list(bucket).renumber::<TIMER>(slots, new);
        }
    }

    fn list(&mut self, bucket: Bucket) -> &mut List {
        &mut self.lists[usize::from(bucket.level)][usize::from(bucket.digit)]
    }

    /// Takes out one slot whose moment is `now` or before, or moves one nearer to its end. `None` once
    /// there is nothing left to do.
    pub(crate) fn turn(&mut self, slots: &mut Slots, now: Seconds) -> Option<Turned> {
        // Buckets of upper levels that the wheel has reached come down first.
        for level in (1..LEVELS).rev() {
            let list = self.lists[level][digit(self.now, level)];
            if let Some(at) = list.first() {
                self.remove(slots, at);
                self.insert(slots, at, slots.get(at).timer);
                return Some(Turned::Nearer);
            }
        }
        for level in 0..LEVELS {
            let from = digit(self.now, level);
            let ahead = self.occupied[level] >> from << from;
            if ahead == 0 {
                continue;
            }
            let shift = BITS * level as u32;
            let above = u64::from(self.now) >> shift >> BITS << BITS;
            let reached = (above | u64::from(ahead.trailing_zeros())) << shift;
            let Some(reached) = Seconds::try_from(reached).ok().filter(|to| *to <= now) else {
                break;
            };
            self.now = self.now.max(reached);
            let list = self.lists[level][ahead.trailing_zeros() as usize];
            let at = list.first().filter(|_| level == 0);
            return Some(at.map_or(Turned::Nearer, |at| {
                self.remove(slots, at);
                Turned::Due(at)
            }));
        }
        self.now = self.now.max(now);
        None
    }

    pub(crate) fn validate(&self, slots: &Slots) {
        for (level, lists) in self.lists.iter().enumerate() {
            for (digit, list) in lists.iter().enumerate() {
                let occupied = self.occupied[level] & (1 << digit) != 0;
                assert_eq!(occupied, list.first().is_some());
                for at in list.iter::<TIMER>(slots) {
                    let bucket = slots.get(at).bucket.expect("it has a timer");
                    assert_eq!(
                        (bucket.level as usize, bucket.digit as usize),
                        (level, digit)
                    );
                    assert!(!slots.get(at).is_free());
                }
            }
        }
        let timers = self.lists.as_flattened().iter();
        let timers = timers.flat_map(|list| list.iter::<TIMER>(slots)).count();
        let with = |(_, slot): &(u32, &crate::slots::Slot)| slot.bucket.is_some();
        assert_eq!(timers, slots.iter().filter(with).count());
    }
}

/// What a turn of the wheel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The timer of this slot has gone off.
    Due(u32),
    Nearer,
}
