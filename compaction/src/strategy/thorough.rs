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
            Plan::new(segments, |s| s.id == victim.id)
        })
    }
}
