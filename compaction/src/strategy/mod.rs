//! Which segments to give up.

mod cost_benefit;
mod dead;
mod least_used;
mod thorough;

use crate::SegmentStats;

pub use cost_benefit::CostBenefit;
pub use dead::Dead;
pub use least_used::LeastUsed;
pub use thorough::Thorough;

/// Chooses victims. Pure: the same segments at the same time give the same plan.
pub trait Strategy: Send + Sync {
    /// Returns what to do next, `None` if nothing is worth doing. `now` is in seconds, of the same
    /// clock as [`SegmentStats::last_visible`].
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan>;
}

/// Segments to be retired together, once what is needed of them is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The victims, those with the lowest sequence numbers first.
    pub victims: Vec<u64>,
    /// Those of them that must be scanned: something in them is live, or a pin may be needed.
    pub scanned: Vec<u64>,
    /// The lowest sequence number that any other segment holds, `u64::MAX` if there is none. A pin
    /// below it hides nothing.
    pub horizon: u64,
}

impl Plan {
    /// Returns the plan to retire those of `segments` that `is_victim` holds for, `None` without any.
    pub fn new(
        segments: &[SegmentStats],
        is_victim: impl Fn(&SegmentStats) -> bool,
    ) -> Option<Plan> {
        let (mut victims, staying): (Vec<_>, Vec<_>) = segments.iter().partition(|s| is_victim(s));
        victims.sort_unstable_by_key(|s| (s.lowest_seqno, s.id));
        let horizon = staying.iter().map(|s| s.lowest_seqno).min();
        let horizon = horizon.unwrap_or(u64::MAX);
        debug_assert!(
            victims
                .iter()
                .all(|victim| staying.iter().all(|other| victim.id != other.id)),
            "an id names one segment"
        );
        debug_assert!(
            victims.iter().all(|victim| victim.sealed),
            "what is written to is not given up"
        );
        let is_scanned = |s: &&&SegmentStats| s.live > 0 || s.needs_pins(horizon);
        (!victims.is_empty()).then(|| Plan {
            victims: victims.iter().map(|s| s.id).collect(),
            scanned: victims.iter().filter(is_scanned).map(|s| s.id).collect(),
            horizon,
        })
    }
}
