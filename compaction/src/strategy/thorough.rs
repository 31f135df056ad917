//! What an operator asks for.

use super::{Dead, Plan, Strategy};
use crate::SegmentStats;

/// Gives up every sealed segment of which so many percent are garbage, lowest sequence numbers first.
///
/// As long as copies go to segments that are not sealed, each plan leaves one segment less.
#[derive(Clone, Copy, Debug)]
pub struct Thorough {
    /// The least garbage, in percent of a segment.
    pub garbage_min: u64,
}

impl Thorough {
    /// Whether a segment has enough garbage.
    pub fn is_worth(&self, segment: &SegmentStats) -> bool {
        let garbage = segment.garbage().saturating_mul(100);
        segment.sealed && garbage >= segment.bytes.saturating_mul(self.garbage_min)
    }
}

impl Strategy for Thorough {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        Dead.choose(segments, now).or_else(|| {
            let worth = segments.iter().filter(|s| self.is_worth(s));
            let victim = worth.min_by_key(|s| (s.lowest_seqno, s.id))?;
            debug_assert!(victim.sealed, "what is written to is not given up");
            Plan::new(segments, |s| s.id == victim.id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_enough_garbage_goes_the_oldest_first() {
        let segment = |id, live_bytes, lowest_seqno| SegmentStats {
            id,
            sealed: id != 4,
            bytes: 10_000,
            live: 1,
            live_bytes,
            lowest_seqno,
            last_visible: u64::MAX,
            ..SegmentStats::default()
        };
        let thorough = Thorough { garbage_min: 10 };
        let mut segments = vec![
            segment(1, 9_001, 1),
            segment(2, 9_000, 3),
            segment(3, 5_000, 2),
            segment(4, 0, 0),
        ];
        let mut chosen = Vec::new();
        while let Some(plan) = thorough.choose(&segments, 0) {
            segments.retain(|segment| !plan.victims.contains(&segment.id));
            chosen.push(plan.victims);
        }
        assert_eq!(chosen, [[3], [2]]);
    }
}
