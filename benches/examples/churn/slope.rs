//! Whether something grows, though it goes up and down all the time.

use std::fmt::{self, Display, Formatter};

/// Parts of the time, of each of which the lowest value counts.
const PARTS: usize = 20;

/// How fast something grows in an hour.
///
/// Memory is a saw: it rises until a checkpoint or a merge, and where the last tooth ends says nothing. Its
/// lows are much steadier than its values, so the line goes through the lowest value of each twentieth
/// of the time. What is left of the teeth is in the error of that line's slope, twice which is granted:
/// with nineteen degrees of freedom a flat line exceeds that once in forty runs.
pub(crate) struct Judged {
    name: &'static str,
    limit: f64,
    slope: f64,
    error: f64,
    last: f64,
}

impl Judged {
    /// Judges values at times in hours; `limit` is how much may be added in an hour.
    pub(crate) fn new(name: &'static str, limit: f64, values: Vec<(f64, f64)>) -> Judged {
        let parts = values.chunks(values.len().div_ceil(PARTS).max(1));
        let low = |part: &[(f64, f64)]| part.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
        let lows: Vec<(f64, f64)> = parts.filter_map(low).collect();
        let (slope, error) = line(&lows);
        let last = lows.last().map_or(f64::NAN, |low| low.1);
        Judged {
            name,
            limit,
            slope,
            error,
            last,
        }
    }

    /// Whether it surely grows by no more than the limit, or the time was too short to say that it does.
    pub(crate) fn is_flat(&self) -> bool {
        self.slope - 2.0 * self.error <= self.limit
    }
}

impl Display for Judged {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Judged {
            name, slope, error, ..
        } = self;
        let verdict = if self.is_flat() { "flat" } else { "GROWS" };
        write!(
            f,
            "{name}: {:.1} at the end, {slope:+.2} an hour, give or take {:.2}: {verdict}",
            self.last,
            2.0 * error
        )
    }
}

/// The slope of the line with the least squares, and its standard error.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x0, y0) = (mean(|p| p.0), mean(|p| p.1));
    let sxx: f64 = points.iter().map(|(x, _)| (x - x0).powi(2)).sum();
    let sxy: f64 = points.iter().map(|(x, y)| (x - x0) * (y - y0)).sum();
    let slope = sxy / sxx;
    let rest = |(x, y): &(f64, f64)| (y - y0 - slope * (x - x0)).powi(2);
    let rest: f64 = points.iter().map(rest).sum();
    (slope, (rest / (n - 2.0) / sxx).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of samples each five seconds: a saw with teeth of 40 MiB, seven minutes each, on a line.
    fn saw(slope: f64) -> Judged {
        let values = (0..720).map(|n| {
            let hours = f64::from(n) / 720.0;
            let tooth = f64::from(n % 84) / 84.0 * 40.0;
            (hours, 100.0 + tooth.powi(2) / 40.0 + slope * hours)
        });
        Judged::new("memory", 1.0, values.collect())
    }

    #[test]
    fn a_saw_is_flat_and_a_slow_leak_under_it_is_found() {
        assert!(saw(0.0).is_flat(), "{}", saw(0.0));
        assert!(!saw(20.0).is_flat(), "{}", saw(20.0));
    }

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let points: Vec<_> = (0..20)
            .map(|n| (f64::from(n), 3.0 * f64::from(n)))
            .collect();
        let (slope, error) = line(&points);
        assert!(
            (slope - 3.0).abs() < 1e-9 && error < 1e-9,
            "{slope} {error}"
        );
        assert!(!Judged::new("leak", 1.0, points).is_flat());
    }

    #[test]
    fn nothing_is_flat_when_nothing_was_seen() {
        assert!(!Judged::new("memory", 1.0, Vec::new()).is_flat());
    }
}
