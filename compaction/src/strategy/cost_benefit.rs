//! What is worth copying for.

use super::{Dead, Plan, Strategy};
use crate::SegmentStats;

/// What lives longer than this counts as permanent: freeing space for three days is as good as for
/// ever, and what expires sooner is worth waiting for.
const LIFE_MAX: u64 = 3 * 86_400;

/// Keeps the sealed segments within a multiple of the live bytes, at the least cost.
///
/// What [`Dead`] finds comes first. Otherwise, when there is too much garbage, the victim is the
/// segment with the highest
///
/// ```text
///              garbage * min(life of the rest, 3 days) * sqrt(age of the rest)
///     score = -----------------------------------------------------------------
///                              bytes to copy + bytes / 64
/// ```
///
/// which is the space won per byte copied, times how long copying wins it over waiting for the rest to
/// die. Of that the expiration says one part, and the age guesses the other, since what has not been
/// overwritten for long will not be soon. It is the cost-benefit rule of the LFS cleaner (Rosenblum
/// and Ousterhout, *The Design and Implementation of a Log-Structured File System*, ACM Transactions on
/// Computer Systems 10(1), 1992: free space times age over cost) with the expiration beside the age.
/// The age is a difference of sequence numbers, so it needs no clock. Only its square root goes in: with
/// all of it uniform overwrites cost a quarter more, and others no less (`docs/decisions/0004`).
/// The cost has no term for reading, as dead records are not read, but a small one for the scan.
#[derive(Clone, Copy, Debug)]
pub struct CostBenefit {
    /// Garbage that is allowed in sealed segments, in percent of all live bytes. 30 keeps the store under 1.3 times its
    /// live bytes, not counting open segments.
    pub garbage_max: u64,
}

/// Copying begins at this share of the garbage that is allowed, so that the bound is kept while a plan
/// is being carried out.
const START_PERCENT: u64 = 90;
/// A segment with less than this fraction of garbage is not copied: a store that is full of pins which
/// are needed, and so above its bound, would be copied again and again for little.
const WORTH: u64 = 16;

const _: () = {
    assert!(START_PERCENT <= 100);
    assert!(WORTH > 1);
    assert!(LIFE_MAX > crate::GRACE, "or it could be erased");
};

impl Default for CostBenefit {
    fn default() -> CostBenefit {
        CostBenefit { garbage_max: 30 }
    }
}

impl Strategy for CostBenefit {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        Dead.choose(segments, now).or_else(|| {
            if self.fullness(segments) == 0 {
                return None;
            }
            let newest = segments.iter().map(|s| s.mean_seqno).max()?;
            let is_worth = |s: &&SegmentStats| s.sealed && s.garbage() > s.bytes / WORTH;
            let worth = segments.iter().filter(is_worth);
            let victim = worth.max_by(|a, b| score(a, newest).total_cmp(&score(b, newest)))?;
            debug_assert!(victim.sealed);
            debug_assert!(victim.garbage() > 0, "it frees something");
            Plan::new(segments, |s| s.id == victim.id)
        })
    }
}

impl CostBenefit {
    /// Returns how near the garbage is to its bound, in thousandths: 0 as long as nothing needs to be
    /// copied, 1000 and more when there is too much. [`Pace`](crate::Pace) wants to know.
    pub fn fullness(&self, segments: &[SegmentStats]) -> u64 {
        let live: u64 = segments.iter().map(|s| s.live_bytes).sum();
        let length: u64 = segments.iter().filter(|s| s.sealed).map(|s| s.bytes).sum();
        let garbage = length.saturating_sub(live);
        let max = live.saturating_mul(self.garbage_max) / 100;
        let start = max.saturating_mul(START_PERCENT) / 100;
        debug_assert!(start <= max, "it begins before the bound");
        let over = garbage.saturating_sub(start);
        over.saturating_mul(1000) / (max - start).max(1)
    }
}

/// For how many seconds copying wins space over waiting: the mean life of what would be copied. Pins do
/// not expire, and where there is nothing to copy there is nothing to wait for.
fn life(segment: &SegmentStats) -> f64 {
    if segment.needed() == 0 {
        return LIFE_MAX as f64;
    }
    let live = segment.live_bytes as f64 * segment.life.clamp(1, LIFE_MAX) as f64;
    let pins = segment.pin_bytes as f64 * LIFE_MAX as f64;
    let life = (live + pins) / segment.needed() as f64;
    debug_assert!(life > 0.0, "a segment that is needed is not free to copy");
    life
}

fn score(segment: &SegmentStats, newest: u64) -> f64 {
    let life = life(segment);
    let age = newest.saturating_sub(segment.mean_seqno) as f64 + 1.0;
    let cost = segment.needed() as f64 + (segment.bytes / 64 + 1) as f64;
    let score = segment.garbage() as f64 * life * age.sqrt() / cost;
    debug_assert!(score.is_finite());
    debug_assert!(score >= 0.0, "scores can be compared");
    score
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn segment(id: u64, live_bytes: u64) -> SegmentStats {
        SegmentStats {
            id,
            sealed: true,
            bytes: 6_400,
            live: 10,
            live_bytes,
            life: u64::MAX,
            lowest_seqno: id,
            mean_seqno: 500,
            last_visible: u64::MAX,
            ..SegmentStats::default()
        }
    }

    fn victim(segments: &[SegmentStats]) -> Option<Vec<u64>> {
        let plan = CostBenefit::default().choose(segments, 1_000_000);
        plan.map(|plan| plan.victims)
    }

    #[test]
    fn fullness_grows_from_ninety_percent_of_the_bound_to_the_bound() {
        assert_eq!(CostBenefit::default().garbage_max, 30);
        let fullness = |garbage: u64| {
            let full = SegmentStats {
                bytes: 1_000 + garbage,
                ..segment(1, 1_000)
            };
            let open = SegmentStats {
                sealed: false,
                bytes: 1 << 20,
                ..segment(2, 0)
            };
            CostBenefit { garbage_max: 40 }.fullness(&[full, open])
        };
        // 400 bytes are allowed, and 360 are no reason to begin.
        for (garbage, full) in [
            (0, 0),
            (360, 0),
            (361, 25),
            (380, 500),
            (400, 1_000),
            (500, 3_500),
        ] {
            assert_eq!(fullness(garbage), full, "{garbage}");
        }
        let dead = [segment(1, 0)];
        assert_eq!(
            CostBenefit::default().fullness(&dead),
            6_400_000,
            "nothing is allowed"
        );
    }

    #[test]
    fn nothing_is_copied_below_the_bound_or_for_less_than_a_part_of_a_segment() {
        // A quarter is garbage, all of it in one.
        let mut segments: Vec<_> = (1..4).map(|id| segment(id, 6_400)).collect();
        segments.push(segment(4, 2_000));
        assert_eq!(victim(&segments), None);
        segments[3].live_bytes = 500;
        assert_eq!(victim(&segments), Some(vec![4]));
        segments[3].sealed = false;
        assert_eq!(victim(&segments), None);
        let segments = [segment(1, 6_000), segment(2, 6_000), segment(3, 1)];
        let worth = CostBenefit { garbage_max: 0 };
        let chosen = |segments: &[SegmentStats]| worth.choose(segments, 0).map(|plan| plan.victims);
        assert_eq!(chosen(&segments[..2]), None, "a sixteenth is not enough");
        assert_eq!(chosen(&[segment(5, 5_999)]), Some(vec![5]));
        assert_eq!(chosen(&segments), Some(vec![3]));
        let mut open = segments;
        open[2].sealed = false;
        assert_eq!(chosen(&open), None, "it is not done yet");
    }

    #[test]
    fn of_two_alike_the_one_that_has_lasted_longer_is_copied() {
        let mut segments = [segment(1, 3_000), segment(2, 3_000)];
        segments[0].mean_seqno = 400;
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[0].mean_seqno = 600;
        assert_eq!(victim(&segments), Some(vec![2]));
    }

    #[test]
    fn a_score_is_space_by_life_by_the_root_of_age_over_cost() {
        let mut one = segment(1, 500);
        one.pin_bytes = 140;
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
        let score = |segment: &SegmentStats| super::score(segment, 508);
        assert!(near(life(&one), 259_200.0));
        let cost = 640.0 + 101.0;
        assert!(near(score(&one), 5_760.0 * 259_200.0 * 3.0 / cost));
        one.life = 100;
        let mean = (500.0 * 100.0 + 140.0 * 259_200.0) / 640.0;
        assert!(near(life(&one), mean));
        assert!(near(score(&one), 5_760.0 * mean * 3.0 / cost));
        one.pin_bytes = 0;
        one.life = 0;
        assert!(near(life(&one), 1.0), "it is there for a moment at least");
        one.live_bytes = 0;
        assert!(near(life(&one), 259_200.0), "nothing to wait for");
    }

    /// What is left of it is a tombstone, and waiting makes that no less.
    #[test]
    fn a_segment_that_expired_but_for_a_pin_is_not_kept_waiting() {
        let segment = |id, live_bytes, life, pin_bytes| SegmentStats {
            id,
            sealed: true,
            bytes: 1_000,
            live: 10,
            live_bytes,
            life,
            pins: 1,
            pin_bytes,
            highest_pin: 900,
            lowest_seqno: id,
            mean_seqno: 500,
            last_visible: u64::MAX,
            ..SegmentStats::default()
        };
        let segments = [segment(1, 500, u64::MAX, 0), segment(2, 0, 0, 100)];
        let plan = CostBenefit::default().choose(&segments, 1_000_000);
        assert_eq!(plan.map(|plan| plan.victims), Some(vec![2]));
    }
}
