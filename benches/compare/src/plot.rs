//! Bar charts of the groups, as SVG.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::engines::{KINDS, OWN};
use crate::results::{Results, Row, Unit};

/// Two panels side by side, each with a column of names, bars, and room for a figure behind them.
const PANEL: f64 = 430.0;
const NAMES: f64 = 76.0;
const BARS: f64 = 260.0;
const MARGIN: f64 = 24.0;
const BAR: f64 = 15.0;
const STEP: f64 = 20.0;
/// Above and below the bars of a panel.
const HEAD: f64 = 34.0;
const FOOT: f64 = 30.0;
/// Above and below all panels.
const TITLE: f64 = 48.0;
const CAPTION: f64 = 30.0;
/// Ourselves, what is no store, and the other stores.
const COLORS: [&str; 3] = ["#c2410c", "#d4d4d8", "#64748b"];
const NO_STORES: [&str; 3] = ["limit", "limit-crc", "ram-hash"];

/// Writes a file for each group into a directory.
pub fn draw(results: &Results, setting: &str, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for group in results.groups() {
        let rows: Vec<&Row> = results.rows().iter().filter(|r| r.group == group).collect();
        let text = chart(group, &rows, setting);
        fs::write(dir.join(format!("{group}.svg")), text)?;
    }
    Ok(())
}

fn chart(group: &str, rows: &[&Row], setting: &str) -> String {
    let columns = rows.len().min(2);
    let width = 2.0 * MARGIN + PANEL * columns as f64;
    let (mut body, mut y) = (String::new(), TITLE);
    for pair in rows.chunks(columns.max(1)) {
        for (column, row) in pair.iter().enumerate() {
            let x = MARGIN + PANEL * column as f64;
            let _ = writeln!(
                body,
                "<g transform=\"translate({x} {y})\">{}</g>",
                panel(row)
            );
        }
        y += pair.iter().map(|row| height(row)).fold(0.0, f64::max);
    }
    let total = y + CAPTION;
    let short = setting
        .lines()
        .find(|line| line.starts_with("commit"))
        .unwrap_or_default();
    let what = setting
        .lines()
        .find(|line| line.contains(" keys, "))
        .unwrap_or_default();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" \
         viewBox=\"0 0 {width} {total}\" font-family=\"Helvetica, Arial, sans-serif\" \
         font-size=\"12\" fill=\"#27272a\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"31\" font-size=\"18\" font-weight=\"bold\">{group}</text>\n\
         {body}\
         <text x=\"{MARGIN}\" y=\"{}\" font-size=\"11\" fill=\"#71717a\">\
         Logarithmic axes. {what}; {short}</text>\n</svg>\n",
        total - 14.0,
    )
}

fn height(row: &Row) -> f64 {
    HEAD + STEP * row.engines().count() as f64 + FOOT
}

fn panel(row: &Row) -> String {
    let figures: Vec<(&str, f64)> = KINDS
        .iter()
        .filter_map(|kind| Some((kind.name, row.median(kind.name)?)))
        .filter(|(_, value)| *value > 0.0)
        .collect();
    let axis = Axis::over(figures.iter().map(|(_, value)| *value));
    let bottom = HEAD + STEP * figures.len() as f64;
    let better = match row.unit {
        Unit::Rate => "longer is better",
        _ => "shorter is better",
    };
    let mut text = format!(
        "<text x=\"0\" y=\"20\" font-weight=\"bold\">{}\
         <tspan dx=\"8\" font-weight=\"normal\" fill=\"#71717a\">{better}</tspan></text>",
        row.name.replace('&', "&amp;").replace('<', "&lt;"),
    );
    for decade in axis.decades() {
        let x = NAMES + BARS * axis.position(decade);
        let _ = write!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD}\" y2=\"{bottom}\" stroke=\"#e4e4e7\"/>\
             <text x=\"{x:.1}\" y=\"{}\" font-size=\"10\" fill=\"#71717a\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 13.0,
            plain(&row.unit.text(decade)),
        );
    }
    for (n, (engine, value)) in figures.iter().enumerate() {
        let (y, len) = (HEAD + STEP * n as f64, BARS * axis.position(*value));
        let middle = y + BAR - 3.0;
        let (color, weight) = match *engine {
            OWN => (COLORS[0], "bold"),
            name if NO_STORES.contains(&name) => (COLORS[1], "normal"),
            _ => (COLORS[2], "normal"),
        };
        let _ = write!(
            text,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" font-weight=\"{weight}\">{engine}\
             </text><rect x=\"{NAMES}\" y=\"{y}\" width=\"{len:.1}\" height=\"{BAR}\" rx=\"2\" \
             fill=\"{color}\"/><text x=\"{:.1}\" y=\"{middle}\" font-size=\"11\" \
             font-weight=\"{weight}\">{}</text>",
            NAMES - 8.0,
            NAMES + len + 6.0,
            row.unit.text(*value),
        );
    }
    text
}

/// A round figure without its decimals.
fn plain(text: &str) -> String {
    text.replace(".00", "").replace(".0", "")
}

/// A logarithmic axis from a whole decade to the largest value.
struct Axis {
    first: i32,
    last: f64,
}

impl Axis {
    /// The axis of some values, with a little of a bar for the smallest.
    fn over(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let first = (low / 1.2).log10().floor() as i32;
        let last = high.log10().max(f64::from(first) + 1.0);
        Axis { first, last }
    }

    /// Where a value lies, from 0 to 1.
    fn position(&self, value: f64) -> f64 {
        let first = f64::from(self.first);
        (value.log10() - first) / (self.last - first)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let last = self.last.floor() as i32;
        (self.first..=last).map(|power| 10f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_its_values_in_order() {
        let axis = Axis::over([0.03, 5.0, 1000.0].into_iter());
        let places = [0.03, 5.0, 1000.0].map(|value| axis.position(value));
        assert!(places[0] > 0.0 && places[0] < places[1] && places[1] < places[2]);
        assert_eq!(places[2], 1.0);
        assert_eq!(axis.decades().count(), 6);
        assert_eq!(axis.position(0.01), 0.0);
    }

    #[test]
    fn a_chart_shows_every_engine_and_figure() {
        let mut results = Results::default();
        results.add("get", "get <b>", Unit::Time, OWN, 700.0);
        results.add("get", "get <b>", Unit::Time, "redb", 3600.0);
        let rows: Vec<&Row> = results.rows().iter().collect();
        let text = chart("get", &rows, "10 keys, small values\ncommit 1234");
        for part in [
            "rimstone",
            "700 ns",
            "redb",
            "3.60 µs",
            "get &lt;b>",
            "commit 1234",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
