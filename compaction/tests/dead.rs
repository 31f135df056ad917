//! What can be retired for nothing.
#![allow(clippy::unwrap_used, reason = "test code may panic")]

use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use rimstone_compaction::{Dead, GRACE, SegmentStats, Strategy};

/// The rule for a log without relocation: oldest first, and with pins only when it is the oldest.
fn oldest_first(segments: &[SegmentStats], now: u64) -> Vec<u64> {
    let mut oldest = true;
    let mut retired = Vec::new();
    for s in segments {
        if !s.sealed {
            break;
        }
        let expired = s.last_visible != u64::MAX && s.last_visible + 1 + GRACE <= now;
        if (s.pins == 0 || oldest) && (s.live == 0 || expired) {
            retired.push(s.id);
        } else {
            oldest = false;
        }
    }
    retired
}

fn stats(ordered: bool) -> impl proptest::strategy::Strategy<Value = Vec<SegmentStats>> {
    let last_visible = prop_oneof![Just(u64::MAX), 0u64..10_000];
    let one = (0u64..3, 0u64..2, last_visible, 1u64..40, 0u64..20);
    proptest::collection::vec(one, 1..12).prop_map(move |all| {
        let last = all.len() as u64 - 1;
        let segments = (0u64..)
            .zip(all)
            .map(|(at, (live, pins, last_visible, lowest, more))| {
                let lowest_seqno = if ordered { at * 100 } else { lowest };
                SegmentStats {
                    id: at + 1,
                    sealed: at < last,
                    bytes: 100,
                    live,
                    pins,
                    highest_pin: (lowest_seqno + more) * pins,
                    lowest_seqno,
                    last_visible,
                    ..SegmentStats::default()
                }
            });
        segments.collect()
    })
}

proptest! {
    #[test]
    fn without_relocation_dead_is_oldest_first(segments in stats(true), now in 0u64..20_000) {
        let plan = Dead.choose(&segments, now);
        let victims = plan.map(|plan| plan.victims).unwrap_or_default();
        prop_assert_eq!(victims, oldest_first(&segments, now));
    }

    #[test]
    fn dead_takes_all_that_hides_nothing_in_what_stays(segments in stats(false), now in 0u64..20_000) {
        let victims = Dead.choose(&segments, now).map(|plan| plan.victims).unwrap_or_default();
        let staying = segments.iter().filter(|s| !victims.contains(&s.id));
        let horizon = staying.map(|s| s.lowest_seqno).min().unwrap();
        for s in &segments {
            let is_dead = s.sealed && (s.live == 0 || s.last_visible.saturating_add(1 + GRACE) <= now);
            let is_free = s.pins == 0 || s.highest_pin <= horizon;
            if victims.contains(&s.id) {
                prop_assert!(is_dead && is_free, "{} may not go", s.id);
            } else if s.pins == 0 {
                prop_assert!(!is_dead, "{} may go", s.id);
            }
        }
    }
}
