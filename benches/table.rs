//! The ratios of a run, from the estimates that criterion leaves in its directory.

use std::fmt::Write;
use std::fs;
use std::path::Path;

const ENGINES: [&str; 4] = ["rimstone", "lmdb", "map", "cache"];

/// A table with a line for each workload: median times, and how many times faster Rimstone is.
pub(crate) fn ratios(results: &Path) -> String {
    let mut table = String::from(
        "\n| workload | Rimstone | LMDB | map | cache | LMDB / Rimstone | map / Rimstone | cache / Rimstone |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let names = fs::read_dir(results).into_iter().flatten().flatten();
    let mut workloads: Vec<_> = names.map(|name| name.path()).collect();
    workloads.sort();
    for workload in workloads {
        let name = workload.file_name().unwrap_or_default().to_string_lossy();
        let medians = ENGINES.map(|engine| median(&workload, engine));
        let _ = write!(table, "| {name} |");
        for ns in medians {
            let _ = write!(table, " {} |", ns.map_or("-".into(), time));
        }
        for other in &medians[1..] {
            let ratio = other.zip(medians[0]).map(|(other, own)| other / own);
            let _ = write!(table, " {} |", ratio.map_or("-".into(), decimals));
        }
        table.push('\n');
    }
    table
}

/// Median nanoseconds of one iteration.
fn median(workload: &Path, engine: &str) -> Option<f64> {
    let text = fs::read(workload.join(engine).join("new/estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_slice(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// A ratio with the decimals that say something.
fn decimals(ratio: f64) -> String {
    format!("{ratio:.*}", if ratio < 0.1 { 4 } else { 2 })
}
