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
        debug_assert_eq!(
            victims.len() + staying.len(),
            segments.len(),
            "each goes or stays"
        );
        debug_assert!(
            staying.iter().all(|s| s.lowest_seqno >= horizon),
            "nothing that stays is older than the horizon"
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_its_victims_by_age_and_scans_those_that_need_it() {
        let segment = |id, lowest_seqno, live, highest_pin| SegmentStats {
            id,
            sealed: true,
            lowest_seqno,
            live,
            pins: u64::from(highest_pin > 0),
            highest_pin,
            ..SegmentStats::default()
        };
        let segments = [
            segment(5, 30, 1, 0),
            segment(4, 20, 0, 0),
            segment(3, 20, 0, 40),
            segment(2, 35, 0, 41),
            segment(1, 40, 7, 0),
        ];
        let plan = Plan::new(&segments, |segment| segment.id != 1);
        let expected = Plan {
            victims: vec![3, 4, 5, 2],
            scanned: vec![5, 2],
            horizon: 40,
        };
        assert_eq!(plan, Some(expected));
        assert_eq!(Plan::new(&segments, |_| false), None);
        let all = Plan::new(&segments, |_| true).map(|plan| (plan.scanned, plan.horizon));
        assert_eq!(
            all,
            Some((vec![5, 1], u64::MAX)),
            "pins hide nothing any more"
        );
    }
}
