//! What an entry is worth: how often it is asked for, times what a miss costs, for each byte it takes.

/// What a miss costs: something fixed, and something for each byte of the value. Only the ratio
/// counts. It decides how much a small entry is preferred to a large one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MissCost {
    fixed: f64,
    per_byte: f64,
}

impl MissCost {
    /// A cost of `fixed + per_byte * bytes`; both should be positive, and `fixed` more than 0.
    #[must_use]
    pub fn new(fixed: f64, per_byte: f64) -> MissCost {
        let or = |cost: f64, else_: f64| {
            if cost.is_finite() && cost >= 0.0 {
                cost
            } else {
                else_
            }
        };
        MissCost {
            fixed: or(fixed, 1.0).max(1e-9),
            per_byte: or(per_byte, 0.0),
        }
    }

    /// Values come from this machine's disk: a read costs as much as the transfer of 16 KiB.
    #[must_use]
    pub fn local() -> MissCost {
        MissCost::new(1.0, 1.0 / f64::from(16 << 10))
    }

    /// Values come over a network: a round trip costs as much as the transfer of 4 MiB.
    #[must_use]
    pub fn remote() -> MissCost {
        MissCost::new(1.0, 1.0 / f64::from(4 << 20))
    }

    /// Each miss costs the same: the fewest misses, however many bytes they bring.
    #[must_use]
    pub fn objects() -> MissCost {
        MissCost::new(1.0, 0.0)
    }

    fn worth(self, rate: f64, weight: u32) -> f64 {
        let weight = f64::from(weight.max(1));
        rate * (self.fixed + self.per_byte * weight) / weight
    }
}

/// Classes of worth, two to each power of two.
pub(crate) const CLASSES: usize = 64;
/// The bits of a float that tell its power of two and which half of it.
const HALF: u32 = f64::MANTISSA_DIGITS - 2;

/// Sorts entries into classes by their worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranking {
    cost: MissCost,
    /// The upper bits of the least worth that has a class.
    base: u64,
}

impl Ranking {
    pub(crate) fn new(cost: MissCost) -> Ranking {
        // Nothing is lighter than this, so nothing is worth more.
        let most = cost.worth(f64::from(u8::MAX), 96).to_bits() >> HALF;
        let base = most.saturating_sub(CLASSES as u64 - 1);
        Ranking { cost, base }
    }

    #[allow(clippy::cast_possible_truncation, reason = "at most 63")]
    /// The class of an entry that is asked for at this rate.
    pub(crate) fn class(self, rate: f64, weight: u32) -> u8 {
        let half = self.cost.worth(rate, weight).to_bits() >> HALF;
        half.saturating_sub(self.base).min(CLASSES as u64 - 1) as u8
    }

    /// The least worth in a class, by which all of it is ranked.
    pub(crate) fn worth(self, class: u8) -> f64 {
        f64::from_bits((self.base + u64::from(class)) << HALF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_worth() {
        for cost in [MissCost::objects(), MissCost::local(), MissCost::remote()] {
            let ranking = Ranking::new(cost);
            for weight in [96, 1000, 1 << 20, 1 << 25] {
                for rate in (1..15).map(f64::from) {
                    let class = ranking.class(rate, weight);
                    assert!(ranking.class(rate + 1.0, weight) >= class);
                    let (worth, least) = (cost.worth(rate, weight), ranking.worth(class));
                    assert!(least <= worth && worth < 2.0 * least, "{weight} {rate}");
                }
            }
            assert!(ranking.class(1.0, 200) > ranking.class(1.0, 4000));
        }
    }
}
