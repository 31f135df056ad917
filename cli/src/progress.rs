//! A bar for what takes long, and how to make it take longer.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;

/// A bar of bytes on standard error, and only where somebody looks.
pub(crate) fn bar(doing: &str) -> Outcome<ProgressBar> {
    let bar = ProgressBar::new(0);
    let template = format!("{{bar:40}} {{bytes}} of {{total_bytes}} {doing}, {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template)?);
    Ok(bar)
}

/// Waits so that no more than a number of bytes a second are read.
pub(crate) struct Pace {
    rate: Option<u64>,
    since: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Pace {
        Pace {
            rate,
            since: Instant::now(),
        }
    }

    /// Waits until so many bytes may have been read.
    pub(crate) fn wait(&self, done: u64) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(done as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.since.elapsed()));
        }
    }
}

/// Bytes a second, as in `800`, `64K`, `20M` or `1G`.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 0,
    };
    let rate = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    rate.filter(|rate| *rate > 0)
        .ok_or_else(|| "give bytes a second, as in 20M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn a_rate_is_a_number_of_bytes_with_or_without_a_unit() {
        assert_eq!(rate("800"), Ok(800));
        assert_eq!(rate("20M"), Ok(20 << 20));
        for text in ["", "0", "M", "20MM", "x", "-1", "99999999999G"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
