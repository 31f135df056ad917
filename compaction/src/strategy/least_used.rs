//! What a cache can best do without.

use super::{Dead, Plan, Strategy};
use crate::SegmentStats;

/// Gives up the segment that is least worth keeping, whatever lives in it:
///
/// ```text
///              live bytes   (part of the records that were read lately + 1/8)
///     worth =  ---------- * -------------------------------------------------
///                bytes             number of segments as new, or newer
/// ```
///
/// So what nobody reads goes first in, first out; a segment that is read much outlives eight rounds of
/// that, and dead bytes are worth nothing. What [`Dead`] finds comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastUsed;

const UNREAD: f64 = 0.125;
/// The least that a pin takes.
const PIN_MIN: u64 = 64;

const _: () = assert!(UNREAD > 0.0, "what nobody reads is worth its bytes");

impl Strategy for LeastUsed {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        Dead.choose(segments, now).or_else(|| {
            let mut ids: Vec<u64> = segments.iter().map(|s| s.id).collect();
            ids.sort_unstable();
            let newer = |id: u64| ids.len() - ids.partition_point(|other| *other < id);
            let worth = |s: &SegmentStats| {
                let live = s.live_bytes as f64 / s.bytes.max(1) as f64;
                let read = (s.hits as f64 / s.live.max(1) as f64).min(1.0);
                let worth = live * (read + UNREAD) / newer(s.id) as f64;
                debug_assert!(worth.is_finite());
                debug_assert!(worth >= 0.0, "worths can be compared");
                worth
            };
            // Copies of pins that are needed would only be copied again.
            let frees = |s: &&SegmentStats| {
                let needed = s.pin_bytes.saturating_mul(2) > s.pins.saturating_mul(PIN_MIN);
                s.sealed && (s.live > 0 || s.class.is_none() || !needed)
            };
            let candidates = segments.iter().filter(frees);
            let victim = candidates.min_by(|a, b| worth(a).total_cmp(&worth(b)))?;
            debug_assert!(victim.sealed, "what is written to is not given up");
            Plan::new(segments, |s| s.id == victim.id)
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn segment(id: u64, live_bytes: u64, hits: u64) -> SegmentStats {
        SegmentStats {
            id,
            sealed: true,
            bytes: 1_000,
            live: 10,
            live_bytes,
            hits,
            lowest_seqno: id,
            last_visible: u64::MAX,
            ..SegmentStats::default()
        }
    }

    fn victim(segments: &[SegmentStats]) -> Option<Vec<u64>> {
        LeastUsed.choose(segments, 0).map(|plan| plan.victims)
    }

    #[test]
    fn what_nobody_reads_goes_first_in_first_out() {
        let segments: Vec<_> = (1..9).map(|id| segment(id, 1_000, 0)).collect();
        assert_eq!(victim(&segments), Some(vec![1]));
    }

    #[test]
    fn what_is_read_outlives_what_is_newer() {
        let mut segments: Vec<_> = (1..9).map(|id| segment(id, 1_000, 0)).collect();
        segments[0].hits = 10;
        assert_eq!(victim(&segments), Some(vec![2]));
    }

    #[test]
    fn copies_of_pins_that_are_needed_are_not_copied_again() {
        let mut segments: Vec<_> = (1..4).map(|id| segment(id, 1_000, 0)).collect();
        segments[2] = SegmentStats {
            live: 0,
            live_bytes: 0,
            pins: 10,
            pin_bytes: 700,
            highest_pin: 100,
            class: Some(7),
            ..segments[2].clone()
        };
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[2].class = None;
        assert_eq!(victim(&segments), Some(vec![3]), "they were never copied");
        segments[2].class = Some(7);
        segments[2].pin_bytes = 70;
        assert_eq!(victim(&segments), Some(vec![3]), "most are not needed");
    }

    #[test]
    fn pins_are_needed_where_they_take_half_of_the_least_that_they_can() {
        let mut segments: Vec<_> = (1..3).map(|id| segment(id, 1_000, 0)).collect();
        segments[1] = SegmentStats {
            live: 0,
            live_bytes: 0,
            pins: 10,
            pin_bytes: 320,
            highest_pin: 100,
            class: Some(7),
            ..segments[1].clone()
        };
        assert_eq!(victim(&segments), Some(vec![2]));
        segments[1].pin_bytes = 321;
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[1].live = 1;
        assert_eq!(
            victim(&segments),
            Some(vec![2]),
            "a live record is a reason, too"
        );
    }

    /// Of two, the first is worth half as much as if it was the newest.
    #[test]
    fn what_a_segment_is_worth_is_what_lives_and_is_read_by_age() {
        let mut segments = [segment(2, 510, 0), segment(1, 1_000, 0)];
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[0].live_bytes = 490;
        assert_eq!(victim(&segments), Some(vec![2]));
        // A part of a longer one.
        segments[0].bytes = 400;
        segments[0].live_bytes = 220;
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[0].bytes = 1;
        segments[0].live_bytes = 1;
        segments[1].hits = 1;
        assert_eq!(victim(&segments), Some(vec![1]));
        // Half of its records are read: five eighths, halved.
        let mut segments = [segment(1, 1_000, 5), segment(2, 1_000, 2)];
        segments[1].live = 10;
        assert_eq!(victim(&segments), Some(vec![1]));
        segments[1].hits = 1;
        assert_eq!(victim(&segments), Some(vec![2]));
        // One record, which is read: nine eighths, halved.
        segments[0].live = 1;
        segments[0].hits = 1;
        segments[1].hits = 4;
        assert_eq!(victim(&segments), Some(vec![2]));
    }

    #[test]
    fn a_segment_that_is_mostly_dead_goes_before_older_ones() {
        let mut segments: Vec<_> = (1..4).map(|id| segment(id, 1_000, 0)).collect();
        segments[1].live_bytes = 100;
        assert_eq!(victim(&segments), Some(vec![2]));
        segments[1].sealed = false;
        assert_eq!(victim(&segments), Some(vec![1]));
    }
}
