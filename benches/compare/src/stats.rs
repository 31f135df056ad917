//! Medians and percentiles.

/// The middle of some values, or the mean of the middle two. NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The smallest of some values than which at least this share of them is not larger.
pub fn percentile(values: &mut [u64], share: f64) -> f64 {
    let rank = (values.len() as f64 * share).ceil() as usize;
    let at = rank.clamp(1, values.len()) - 1;
    *values.select_nth_unstable(at).1 as f64
}

/// The median over rounds of `a / b`, each within its round.
pub fn median_ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    let middle = median(&ratios);
    middle.is_finite().then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut values: Vec<u64> = (1..=1000).rev().collect();
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert_eq!(percentile(&mut values, share), expected);
        }
        assert_eq!(percentile(&mut [7], 0.5), 7.0);
        assert_eq!(percentile(&mut [9, 7], 0.5), 7.0);
    }

    #[test]
    fn ratios_are_formed_within_rounds() {
        // A slow second round must not move the ratio, as that of two medians would.
        let (a, b) = ([10.0, 100.0, 20.0], [5.0, 50.0, 40.0]);
        assert_eq!(median_ratio(&a, &b), Some(2.0));
        assert_eq!(median(&a) / median(&b), 0.5);
        assert_eq!(median_ratio(&[], &[]), None);
        assert_eq!(median_ratio(&[0.0], &[0.0]), None);
    }
}
