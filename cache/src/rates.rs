//! What a frequency is worth: learned from how often entries of that frequency were read while they
//! waited in main.
//!
//! Where hot keys stay hot, an entry that was read twice as often will be again. Where they are soon
//! others, it is not: those that were read most are about to be read no more.
#![allow(clippy::indexing_slicing, reason = "a frequency is at most 15")]

use crate::history::FREQUENCY_MAX;

const FREQUENCIES: usize = FREQUENCY_MAX as usize + 1;
/// It learns after so many looks at entries for each that is held, and then half forgets them.
const LEARN_AFTER: usize = 3;
/// Besides what was seen, each frequency is taken to have been worth itself for this part of all the
/// time that was waited. With less, chance decides in loops, whose frequencies say nothing.
const MADE_UP: f64 = 0.1;
const RATE_MIN: f64 = 0.25;
const RATE_MAX: f64 = 64.0;

#[derive(Debug, Default)]
pub(crate) struct Rates {
    of: [Rate; FREQUENCIES],
    looks: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// `None` as long as a frequency is worth itself.
    learned: Option<f64>,
    /// Reads that were seen at the looks of late, and how long they took together.
    reads: f64,
    waited: f64,
}

impl Rates {
    /// What a frequency is worth, on a scale on which it would be worth itself.
    pub(crate) fn of(&self, frequency: u8) -> f64 {
        // A newcomer's own read may not count; then it is like one that was read once.
        let frequency = frequency.max(1);
        let learned = self.of[usize::from(frequency)].learned;
        learned.unwrap_or(f64::from(frequency))
    }

    /// Learns from an entry of main that was read so often while it waited for so many others to
    /// leave; `held` are there in all.
    pub(crate) fn look(&mut self, frequency: u8, reads: u8, waited: u32, held: u32) {
        let rate = &mut self.of[usize::from(frequency)];
        rate.reads += f64::from(reads);
        rate.waited += f64::from(waited);
        self.looks += 1;
        if self.looks > LEARN_AFTER * held as usize {
            self.learn();
        }
    }

    fn learn(&mut self) {
        let (mut reads, mut waited, mut expected) = (0.0, 0.0, 0.0);
        for (frequency, rate) in (0..).zip(&self.of) {
            reads += rate.reads;
            waited += rate.waited;
            expected += f64::from(frequency) * rate.waited;
        }
        if reads > 0.0 && expected > 0.0 {
            let (scale, made_up) = (expected / reads, MADE_UP * waited);
            for (frequency, rate) in (0..).zip(&mut self.of) {
                let reads = rate.reads * scale + made_up * f64::from(frequency);
                let learned = reads / (rate.waited + made_up);
                rate.learned = Some(learned.clamp(RATE_MIN, RATE_MAX));
            }
        }
        for rate in &mut self.of {
            rate.reads /= 2.0;
            rate.waited /= 2.0;
        }
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates after many looks at entries that were read so often in so long.
    fn learned(reads: impl Fn(u8) -> u8) -> Rates {
        let mut rates = Rates::default();
        for _ in 0..10 {
            (1..=10).for_each(|frequency| rates.look(frequency, reads(frequency), 10, 10));
        }
        rates
    }

    #[test]
    fn a_frequency_is_worth_itself_until_something_is_known() {
        let rates = Rates::default();
        assert!((1..=15).all(|frequency| rates.of(frequency) == f64::from(frequency)));
        assert_eq!(rates.of(0), 1.0);
    }

    #[test]
    fn what_is_read_as_often_as_it_was_stays_worth_itself() {
        let rates = learned(|frequency| frequency);
        assert!(
            (1..=15).all(|frequency| (rates.of(frequency) - f64::from(frequency)).abs() < 1e-9)
        );
    }

    #[test]
    fn what_is_read_no_more_is_worth_less() {
        let rates = learned(|frequency| if frequency > 5 { 0 } else { 2 });
        assert!((6..=10).all(|frequency| rates.of(frequency) < rates.of(5)));
        assert!(rates.of(1) > 2.0, "and the others more");
    }
}
