//! The tables of a run.

use std::fmt::Write;

use crate::engines::{KINDS, OWN};
use crate::results::{Results, Row, digits};

/// Ratios below this lose; above it, they round to 1.
const EVEN: f64 = 0.995;

/// Two tables for each group: the figures, and how many times better Rimstone is than each.
pub fn tables(results: &Results) -> String {
    let mut text = String::new();
    for group in results.groups() {
        let rows: Vec<&Row> = results.rows().iter().filter(|r| r.group == group).collect();
        let has = |name: &&str| {
            rows.iter()
                .any(|row| row.engines().any(|other| other == *name))
        };
        let engines: Vec<_> = KINDS
            .iter()
            .map(|kind| kind.name)
            .filter(|n| has(n))
            .collect();
        let figures = |row: &Row, engine: &str| row.median(engine).map(|f| row.unit.text(f));
        let _ = writeln!(text, "\n{}", table(group, &rows, &engines, figures));
        let others: Vec<_> = engines.into_iter().filter(|name| *name != OWN).collect();
        if others.is_empty() || !has(&OWN) {
            continue;
        }
        let title = format!("{group}: times better than");
        let _ = writeln!(text, "{}", table(&title, &rows, &others, ratio));
    }
    text
}

/// How many times better Rimstone is, marked where it loses.
fn ratio(row: &Row, engine: &str) -> Option<String> {
    let ratio = row.better(OWN, engine)?;
    let mark = if ratio < EVEN { " loses" } else { "" };
    Some(digits(ratio) + mark)
}

/// A Markdown table that is aligned as text too.
fn table(
    title: &str,
    rows: &[&Row],
    engines: &[&str],
    cell: impl Fn(&Row, &str) -> Option<String>,
) -> String {
    let mut head = vec![title.to_owned()];
    head.extend(engines.iter().map(|&name| name.to_owned()));
    let body = rows.iter().map(|row| {
        let mut cells = vec![row.name.clone()];
        let figure = |engine: &&str| cell(row, engine).unwrap_or_else(|| "-".to_owned());
        cells.extend(engines.iter().map(figure));
        cells
    });
    let mut lines: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect();
    lines.insert(1, rule);
    let mut text = String::new();
    for line in lines {
        for (n, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = match n {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::BASE;
    use crate::results::Unit;

    #[test]
    fn losing_rows_are_marked_and_what_is_missing_is_a_dash() {
        let mut results = Results::default();
        results.add("reads", "get", Unit::Time, OWN, 500.0);
        results.add("reads", "get", Unit::Time, BASE, 2000.0);
        results.add("reads", "open", Unit::Time, OWN, 2e6);
        results.add("reads", "open", Unit::Time, BASE, 1e6);
        results.add("reads", "list", Unit::Time, OWN, 1e6);
        let expected = "
| reads | rimstone |    lmdb |
| ----- | -------- | ------- |
| get   |   500 ns | 2.00 µs |
| open  |  2.00 ms | 1.00 ms |
| list  |  1.00 ms |       - |

| reads: times better than |       lmdb |
| ------------------------ | ---------- |
| get                      |       4.00 |
| open                     | 0.50 loses |
| list                     |          - |

";
        assert_eq!(tables(&results), expected);
    }
}
