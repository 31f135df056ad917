//! What of a run was asked for from the disk, and when.
//!
//! A run is mapped without any reading ahead of the system's, which is right for a single key; a list asks by itself.
//! But asking for what is in memory costs as much as reading a hundred keys there, so it is not done
//! again at once.

use std::ops::Range;
use std::sync::OnceLock;

use super::BLOCK_LEN_MIN;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are asked for together. A list of a thousand keys is about as long.
pub(super) const WINDOW: usize = 64 << 10;
/// Seconds for which nothing is asked for again. What was needed within them is hardly the first to go where memory is
/// short.
const REST: u64 = 10;

const _: () = assert!(WINDOW / 2 > BLOCK_LEN_MIN, "more than a block");

/// When each window of a run was asked for last, in seconds; 0 is never.
pub(super) struct Ahead {
    len: usize,
    asked: OnceLock<Box<[AtomicU64]>>,
}

impl Ahead {
    /// Of a run of so many bytes. It takes memory with the first question.
    pub(super) fn of(len: usize) -> Ahead {
        Ahead {
            len,
            asked: OnceLock::new(),
        }
    }

    /// The windows that meet a range and are to be asked for.
    pub(super) fn due(&self, range: Range<usize>, now: u64) -> impl Iterator<Item = Range<usize>> {
        debug_assert!(range.start <= range.end, "nobody asks backwards");
        let asked = self.asked.get_or_init(|| {
            let windows = self.len.div_ceil(WINDOW);
            std::iter::repeat_with(AtomicU64::default)
                .take(windows)
                .collect()
        });
        let first = range.start / WINDOW;
        let met = asked.iter().enumerate().skip(first);
        met.take(range.end.div_ceil(WINDOW).saturating_sub(first))
            .filter(move |(_, last)| {
                let before = last.load(Ordering::Relaxed);
                let is_due = before == 0 || now.abs_diff(before) > REST;
                if is_due {
                    last.store(now, Ordering::Relaxed);
                }
                is_due
            })
            .map(|(window, _)| window * WINDOW..self.len.min((window + 1) * WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_asked_for_again_when_some_time_has_passed() {
        let soon = Ahead::of(WINDOW);
        assert_eq!(soon.due(0..1, REST / 2).count(), 1, "for the first time");
        assert_eq!(soon.due(0..1, REST / 2).count(), 0);
        let ahead = Ahead::of(2 * WINDOW + 5);
        let due = |range, now| {
            ahead
                .due(range, now)
                .map(|due| due.start)
                .collect::<Vec<_>>()
        };
        assert_eq!(due(10..WINDOW, 100), [0]);
        let all = 10..2 * WINDOW + 1;
        assert_eq!(due(all.clone(), 100 + REST), [WINDOW, 2 * WINDOW]);
        assert_eq!(due(all.clone(), 101 + REST), [0]);
        assert_eq!(due(all.clone(), 101 + REST), []);
        assert_eq!(due(all, 90), [0, WINDOW, 2 * WINDOW]);
        let last = ahead.due(2 * WINDOW..9 * WINDOW, 200);
        assert!(
            last.eq(std::iter::once(2 * WINDOW..2 * WINDOW + 5)),
            "to the end of the run"
        );
    }
}
