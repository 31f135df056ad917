//! How much compaction may do, and when writers should wait for it.

/// A token bucket that is filled by writing: compaction works in proportion to what users write, in
/// steps, and never in one long burst.
///
/// Each byte written allows `r` bytes of compaction to be read and copied, where `r` grows with the
/// square of how full the store is ([`CostBenefit::fullness`](crate::CostBenefit::fullness)), from a
/// half to eight. Reclaiming a byte from a segment that is three quarters live takes reading four, so
/// eight catches up in any store whose garbage is above its bound of 30 percent.
///
/// ```
/// use rimstone_compaction::Pace;
///
/// let mut pace = Pace::new(1 << 20);
/// pace.written(100_000, 500);
/// assert_eq!(pace.available(), 237_500);
/// pace.spend(237_500);
/// assert_eq!(pace.available(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Pace {
    burst: u64,
    tokens: u64,
    debt: u64,
}

/// Bytes of compaction for each byte written, in thousandths, when the store is nearly empty of garbage
/// and when it is at the bound.
const RATE_MIN: u64 = 500;
const RATE_MAX: u64 = 8_000;
const _: () = {
    assert!(RATE_MIN < RATE_MAX);
    assert!(RATE_MAX <= u64::MAX / 1_000_000, "times a square");
};

impl Pace {
    /// Returns a bucket that holds so many bytes, so that what was saved up in quiet times is not
    /// spent all at once.
    pub fn new(burst: u64) -> Pace {
        debug_assert!(burst > 0, "something can be saved up");
        Pace {
            burst,
            tokens: 0,
            debt: 0,
        }
    }

    /// Users wrote so many bytes into a store that is so full.
    pub fn written(&mut self, bytes: u64, fullness: u64) {
        let full = fullness.min(1000);
        let rate = RATE_MIN + (RATE_MAX - RATE_MIN) * full * full / 1_000_000;
        debug_assert!((RATE_MIN..=RATE_MAX).contains(&rate));
        let earned = u128::from(bytes) * u128::from(rate) / 1000;
        let tokens = u128::from(self.tokens) + earned;
        let spill = tokens.saturating_sub(u128::from(self.burst));
        self.tokens = u64::try_from(tokens - spill).unwrap_or(self.burst);
        // At the bound what spills is work that compaction did not get done.
        let spill = u64::try_from(spill).unwrap_or(u64::MAX);
        self.debt = match fullness >= 1000 {
            true => self.debt.saturating_add(spill),
            false => 0,
        };
        debug_assert!(
            self.tokens <= self.burst,
            "no more is saved up than a burst"
        );
        debug_assert!(
            self.debt == 0 || self.tokens == self.burst || spill == 0,
            "only what spills is owed"
        );
    }

    /// Returns how many bytes of compaction may be done now.
    pub fn available(&self) -> u64 {
        self.tokens.saturating_add(self.debt)
    }

    /// There is nothing that compaction could do: whatever it is behind, nobody waits for it.
    pub fn forgive(&mut self) {
        self.debt = 0;
    }

    /// Compaction read or copied so many bytes.
    pub fn spend(&mut self, bytes: u64) {
        let before = self.available();
        let rest = bytes.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(bytes);
        self.tokens = self.tokens.saturating_sub(rest);
        debug_assert!(
            self.available() == before.saturating_sub(bytes),
            "each byte once"
        );
    }

    /// Returns how many bytes compaction is behind, 0 as long as the store is within its bound. A
    /// writer waits for as long as these take: little at first, more the further it runs ahead, and
    /// never without end, as the debt grows only by what is written.
    pub fn debt(&self) -> u64 {
        self.debt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_writers_save_up_one_burst_and_no_debt() {
        let mut pace = Pace::new(1_000);
        pace.written(1_000_000, 999);
        assert_eq!((pace.available(), pace.debt()), (1_000, 0));
    }

    #[test]
    fn writers_over_the_bound_owe_what_compaction_did_not_do() {
        let mut pace = Pace::new(1_000);
        pace.written(1_000, 1_000);
        assert_eq!((pace.available(), pace.debt()), (8_000, 7_000));
        pace.spend(7_500);
        assert_eq!((pace.available(), pace.debt()), (500, 0));
        pace.written(1_000, 2_000);
        assert_eq!(pace.debt(), 7_500);
        pace.forgive();
        assert_eq!((pace.available(), pace.debt()), (1_000, 0));
        pace.written(1_000, 2_000);
        pace.written(0, 0);
        assert_eq!((pace.available(), pace.debt()), (1_000, 0));
    }

    #[test]
    fn the_rate_grows_with_fullness() {
        let earned = |fullness| {
            let mut pace = Pace::new(u64::MAX);
            pace.written(1_000, fullness);
            pace.available()
        };
        assert!((0..1_000).all(|fullness| earned(fullness) <= earned(fullness + 1)));
        assert_eq!((earned(0), earned(u64::MAX)), (500, 8_000));
    }
}
