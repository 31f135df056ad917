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

impl Strategy for Thorough {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        Dead.choose(segments, now).or_else(|| {
            let is_worth = |s: &&SegmentStats| {
                s.sealed
                    && s.garbage().saturating_mul(100) >= s.bytes.saturating_mul(self.garbage_min)
            };
            let worth = segments.iter().filter(is_worth);
            let victim = worth.min_by_key(|s| (s.lowest_seqno, s.id))?;
            Plan::new(segments, |s| s.id == victim.id)
        })
    }
}
