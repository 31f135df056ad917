//! When to merge which runs.

use std::ops::Range;

/// Runs that may stay. A page asks each of them.
pub(super) const RUNS_MAX: usize = 8;
/// Runs of like size that are worth a merge.
const WIDTH_MIN: usize = 4;
const _: () = assert!(WIDTH_MIN > 1 && WIDTH_MIN < RUNS_MAX);

/// Returns the runs to merge next, newest first as their sizes are given, or `None`.
///
/// Three rules, in this order. When the younger runs together are half the size of the oldest, all
/// become one: so the oldest is rewritten only after growing by half, and what is dead stays below a
/// share. When four or more neighbours are of like size, none larger than all its younger neighbours
/// together, they become one. When there are still more than [`RUNS_MAX`], the cheapest neighbours
/// that bring it down to that do.
///
/// Only neighbours in age are ever merged, so of two runs the younger holds the newer records.
pub(crate) fn pick_merge(sizes: &[u64]) -> Option<Range<usize>> {
    let (&oldest, younger) = sizes.split_last()?;
    if younger.is_empty() {
        return None;
    }
    let younger_bytes = younger
        .iter()
        .fold(0u64, |sum, &size| sum.saturating_add(size));
    if younger_bytes >= oldest.div_ceil(2) {
        return Some(0..sizes.len());
    }
    debug_assert!(sizes.len() > 1, "one run is merged already");
    for start in 0..younger.len() {
        let mut sum = 0u64;
        let alike = younger.iter().skip(start).take_while(|&&size| {
            let fits = sum == 0 || size <= sum;
            sum = sum.saturating_add(size);
            fits
        });
        let width = alike.count();
        debug_assert!(
            start + width <= younger.len(),
            "the oldest is merged with all or none"
        );
        if width >= WIDTH_MIN {
            return Some(start..start + width);
        }
    }
    if sizes.len() <= RUNS_MAX {
        return None;
    }
    let width = sizes.len() - RUNS_MAX + 1;
    let cost = |window: &[u64]| {
        window
            .iter()
            .fold(0u64, |sum, &size| sum.saturating_add(size))
    };
    let windows = sizes.windows(width).map(cost).enumerate();
    let (start, _) = windows.min_by_key(|&(_, cost)| cost)?;
    debug_assert!(width > 1);
    debug_assert!(start + width <= sizes.len());
    Some(start..start + width)
}
