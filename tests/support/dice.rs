/// Pseudo-random numbers that follow from a seed, and from nothing else (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The sequence of this number in a run: the same each time, unless `RIMSTONE_SEED` numbers the runs.
    #[must_use]
    pub fn of_run(number: u32) -> Dice {
        let run = std::env::var("RIMSTONE_SEED").ok();
        let run: u32 = run.and_then(|run| run.parse().ok()).unwrap_or(0);
        Dice(u64::from(run) << 32 | u64::from(number))
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.roll() % end).unwrap_or(0)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// Who decides what is left open.
pub(crate) trait Choose {
    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize;
}

impl Choose for Dice {
    fn below(&mut self, end: usize) -> usize {
        Dice::below(self, end)
    }
}

/// Decides everything in every way, one way after the other: first always 0, and after each
/// [`turn`](Odometer::turn) the next.
#[derive(Debug, Default)]
pub(crate) struct Odometer {
    /// What was decided so far, below what.
    digits: Vec<(usize, usize)>,
    at: usize,
}

impl Odometer {
    /// How many decisions there were to make.
    pub(crate) fn places(&self) -> usize {
        self.digits.iter().filter(|(_, end)| *end > 1).count()
    }

    /// Goes on to the next way; false if there is none.
    pub(crate) fn turn(&mut self) -> bool {
        self.at = 0;
        while let Some((digit, end)) = self.digits.pop() {
            if digit + 1 < end {
                self.digits.push((digit + 1, end));
                return true;
            }
        }
        false
    }
}

impl Choose for Odometer {
    fn below(&mut self, end: usize) -> usize {
        if self.at == self.digits.len() {
            self.digits.push((0, end));
        }
        self.at += 1;
        self.digits[self.at - 1].0
    }
}
