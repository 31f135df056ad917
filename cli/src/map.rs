//! A picture of a store's segments: one bar each, by class, with what is live, expired and dead in it.

use std::fmt::Write as _;

use rimstone::SegmentSpace;

/// Bars in a row, and their measures in pixels.
const COLUMNS: usize = 6;
const BAR: (f64, f64) = (150.0, 14.0);
const GAP: (f64, f64) = (10.0, 8.0);
const LEFT: f64 = 20.0;
const HEADING: f64 = 26.0;
const TOP: f64 = 74.0;

/// What a bar shows, from the left.
const PARTS: [(&str, &str); 4] = [
    ("live", "#2f7d5b"),
    ("expired", "#e0a13a"),
    ("tombstones", "#7a6fb0"),
    ("dead", "#c9ccd1"),
];

/// Names a class as users know it: by the life that its records had left.
pub(crate) fn class_name(class: Option<u8>) -> &'static str {
    match class {
        None => "written by users",
        Some(0) => "5 minutes",
        Some(1) => "30 minutes",
        Some(2) => "3 hours",
        Some(3) => "12 hours",
        Some(4) => "2 days",
        Some(5) => "8 days",
        Some(6) => "longer",
        Some(_) => "for ever",
    }
}

/// Draws the segments as an SVG document.
pub(crate) fn draw(segments: &[SegmentSpace]) -> String {
    let longest = segments.iter().map(|s| s.bytes).max().unwrap_or(1).max(1);
    let mut classes: Vec<Option<u8>> = segments.iter().map(|s| s.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut body = String::new();
    let mut y = TOP;
    for class in classes {
        let members: Vec<_> = segments.iter().filter(|s| s.class == class).collect();
        let bytes: u64 = members.iter().map(|s| s.bytes).sum();
        let heading = format!(
            "{}: {} of {} MiB",
            class_name(class),
            count(members.len()),
            bytes >> 20
        );
        text(&mut body, LEFT, y, &heading, 13);
        y += HEADING - 14.0;
        for row in members.chunks(COLUMNS) {
            for (column, segment) in (0u32..).zip(row) {
                let x = LEFT + f64::from(column) * (BAR.0 + GAP.0);
                bar(&mut body, segment, longest, x, y);
            }
            y += BAR.1 + GAP.1;
        }
        y += HEADING;
    }
    let width = 2.0 * LEFT + 6.0 * (BAR.0 + GAP.0) - GAP.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, LEFT, 28.0, "Segments", 18);
    legend(&mut out);
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

fn count(segments: usize) -> String {
    match segments {
        1 => "1 segment".to_owned(),
        n => format!("{n} segments"),
    }
}

fn legend(out: &mut String) {
    let mut x = LEFT;
    for (name, colour) in PARTS {
        rectangle(out, x, 40.0, 12.0, 12.0, colour);
        text(out, x + 18.0, 51.0, name, 12);
        x += 110.0;
    }
}

/// One segment; the length of its bar is its own, as a share of the longest.
fn bar(out: &mut String, segment: &SegmentSpace, longest: u64, x: f64, y: f64) {
    let scale = BAR.0 / longest as f64;
    let parts = [
        segment.live,
        segment.expired,
        segment.tombstones,
        segment.dead(),
    ];
    let _ = write!(
        out,
        "<g><title>{:016x}: {} bytes, {} live</title>",
        segment.id, segment.bytes, segment.live
    );
    let mut at = x;
    for (bytes, (_, colour)) in parts.into_iter().zip(PARTS) {
        let width = bytes as f64 * scale;
        if width > 0.0 {
            rectangle(out, at, y, width, BAR.1, colour);
        }
        at += width;
    }
    out.push_str("</g>\n");
}

fn rectangle(out: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, text: &str, size: u32) {
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"#222\">{text}</text>"
    );
}
