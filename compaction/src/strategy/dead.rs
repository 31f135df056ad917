//! What can be retired without copying anything.

use std::collections::HashSet;

use super::{Plan, Strategy};
use crate::{SegmentStats, is_erasable};

/// Retires the segments in which nothing is live, or all has expired more than
/// [`GRACE`](crate::GRACE) seconds ago; one with pins only when no segment that stays holds a lower
/// sequence number than they do.
///
/// No record has to be copied, and of segments with no live record none has to be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dead;

impl Strategy for Dead {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        let is_dead =
            |s: &&SegmentStats| s.sealed && (s.live == 0 || is_erasable(s.last_visible, now));
        let mut victims: HashSet<u64> = segments.iter().filter(is_dead).map(|s| s.id).collect();
        // Each segment that must stay for its pins may lower the horizon for others.
        loop {
            let plan = Plan::new(segments, |s| victims.contains(&s.id))?;
            let before = victims.len();
            for s in segments {
                if s.needs_pins(plan.horizon) {
                    victims.remove(&s.id);
                }
            }
            if victims.len() == before {
                let goes = |s: &&SegmentStats| victims.contains(&s.id);
                debug_assert!(
                    segments
                        .iter()
                        .filter(goes)
                        .all(|s| !s.needs_pins(plan.horizon)),
                    "no pin goes that may hide something"
                );
                return Some(plan);
            }
        }
    }
}
