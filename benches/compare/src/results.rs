//! What was measured, and the ratios in it.

use serde_json::{Value, json};

use crate::engines::{BASE, OWN};
use crate::stats::{median, median_ratio};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Operations in a second.
    Rate,
    Bytes,
    /// Times of what is stored.
    Times,
    /// So many.
    Count,
}

impl Unit {
    fn more_is_better(self) -> bool {
        self == Unit::Rate
    }

    /// A figure with three digits.
    pub fn text(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let step = steps.iter().rev().find(|step| value >= step.0);
            let (scale, name) = step.copied().unwrap_or((steps[0].0, steps[0].1));
            format!("{} {name}", digits(value / scale))
                .trim_end()
                .to_owned()
        };
        match self {
            Unit::Time => scaled(&[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")]),
            Unit::Rate => scaled(&[(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s")]),
            Unit::Bytes => scaled(&[(1.0, "B"), (1024.0, "KiB"), (1048576.0, "MiB")]),
            Unit::Times => digits(value),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// A number with three digits that say something.
pub fn digits(value: f64) -> String {
    let decimals = match value {
        ..0.01 => 4,
        ..0.1 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// One row: what was measured of each engine, round by round.
pub struct Row {
    pub group: &'static str,
    pub name: String,
    pub unit: Unit,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    fn rounds(&self, engine: &str) -> Option<&[f64]> {
        let found = self.figures.iter().find(|(name, _)| *name == engine);
        found.map(|(_, rounds)| &rounds[..])
    }

    /// The median over rounds.
    pub fn median(&self, engine: &str) -> Option<f64> {
        self.rounds(engine).map(median)
    }

    /// How many times better than `other` an engine is: the median of the ratios within rounds.
    pub fn better(&self, engine: &str, other: &str) -> Option<f64> {
        let (a, b) = (self.rounds(engine)?, self.rounds(other)?);
        match self.unit.more_is_better() {
            true => median_ratio(a, b),
            false => median_ratio(b, a),
        }
    }

    /// The engines of which anything was measured.
    pub fn engines(&self) -> impl Iterator<Item = &'static str> {
        self.figures.iter().map(|(name, _)| *name)
    }
}

#[derive(Default)]
pub struct Results {
    rows: Vec<Row>,
}

impl Results {
    /// Adds the next round's figure of an engine.
    pub fn add(
        &mut self,
        group: &'static str,
        name: &str,
        unit: Unit,
        engine: &'static str,
        value: f64,
    ) {
        let same = |row: &Row| row.group == group && row.name == name;
        let at = self.rows.iter().position(same).unwrap_or_else(|| {
            let (name, figures) = (name.to_owned(), Vec::new());
            self.rows.push(Row {
                group,
                name,
                unit,
                figures,
            });
            self.rows.len() - 1
        });
        let figures = &mut self.rows[at].figures;
        match figures.iter_mut().find(|(name, _)| *name == engine) {
            Some((_, rounds)) => rounds.push(value),
            None => figures.push((engine, vec![value])),
        }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The groups, in the order in which they were measured.
    pub fn groups(&self) -> Vec<&'static str> {
        let mut groups = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group) {
                groups.push(row.group);
            }
        }
        groups
    }

    /// The row of this name, wherever it is.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    pub fn json(&self) -> Value {
        let figure = |row: &Row, (engine, rounds): &(&'static str, Vec<f64>)| {
            json!({
                "engine": engine,
                "median": median(rounds),
                "rounds": rounds,
                "times_better_than_lmdb": row.better(engine, BASE),
                "rimstone_times_better": row.better(OWN, engine),
            })
        };
        let row = |row: &Row| {
            let figures: Vec<_> = row.figures.iter().map(|f| figure(row, f)).collect();
            json!({
                "group": row.group,
                "row": row.name,
                "unit": format!("{:?}", row.unit).to_lowercase(),
                "figures": figures,
            })
        };
        self.rows.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_above_one_for_times_and_rates() {
        let mut results = Results::default();
        for (own, base) in [(2.0, 10.0), (4.0, 8.0), (3.0, 9.0)] {
            results.add("reads", "get", Unit::Time, OWN, own);
            results.add("reads", "get", Unit::Time, BASE, base);
            results.add("reads", "rate", Unit::Rate, OWN, base);
            results.add("reads", "rate", Unit::Rate, BASE, own);
        }
        for row in results.rows() {
            assert_eq!(row.better(OWN, BASE), Some(3.0), "{}", row.name);
            assert_eq!(row.better(BASE, OWN), Some(1.0 / 3.0), "{}", row.name);
            assert_eq!(row.better(OWN, "redb"), None);
        }
        assert_eq!(
            results.row("get").and_then(|row| row.median(OWN)),
            Some(3.0)
        );
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(Unit::Time.text(325.2), "325 ns");
        assert_eq!(Unit::Time.text(1234.0), "1.23 µs");
        assert_eq!(Unit::Time.text(12_345_678.0), "12.3 ms");
        assert_eq!(Unit::Rate.text(71_000.0), "71.0 k/s");
        assert_eq!(Unit::Bytes.text(10.7), "10.7 B");
        assert_eq!(Unit::Times.text(0.0421), "0.042");
    }
}
