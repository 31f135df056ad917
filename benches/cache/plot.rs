//! Pictures, written as SVG by hand.

use std::fmt::Write;

use crate::misses::{NAMES, Row};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 190.0;
const BAR: f64 = 4.0;
/// Entries of `NAMES` that are drawn, and their colours: ours first, Belady's bound last.
const DRAWN: [(usize, &str); 6] = [
    (0, "#c2410c"),
    (1, "#94a3b8"),
    (5, "#2563eb"),
    (6, "#16a34a"),
    (8, "#9333ea"),
    (10, "#111827"),
];

/// Draws the parts of the requests that miss, a group of bars for each workload, and returns the SVG.
pub fn misses(rows: &[Row]) -> String {
    let group = BAR * (DRAWN.len() as f64 + 3.0);
    let height = 60.0 + group * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (n, (at, colour)) in DRAWN.iter().enumerate() {
        let x = LEFT + 115.0 * n as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"12\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"22\">{}</text>",
            x + 15.0,
            NAMES[*at]
        );
    }
    let scale = (WIDTH - LEFT - 20.0) / 100.0;
    for percent in [0, 25, 50, 75, 100] {
        let x = LEFT + scale * f64::from(percent);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"50\" y2=\"{height}\" stroke=\"#e2e8f0\"/>"
        );
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"45\" text-anchor=\"middle\">{percent} %</text>"
        );
    }
    for (n, (name, misses)) in rows.iter().enumerate() {
        let top = 58.0 + group * n as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            top + group / 2.0
        );
        for (bar, (at, colour)) in DRAWN.iter().enumerate() {
            if let Some(part) = misses[*at] {
                let (y, width) = (top + BAR * bar as f64, 100.0 * part * scale);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
                );
            }
        }
    }
    svg + "</svg>\n"
}
