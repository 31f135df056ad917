//! Rimstone beside other engines: the same entries, the same operations, one run.
//!
//! `cargo bench --manifest-path benches/compare/Cargo.toml` runs everything and ends with tables of
//! figures and ratios; `docs/performance.md` says how to read them.

mod args;
mod bench;
mod cgroup;
mod child;
mod data;
mod engines;
mod files;
mod floors;
mod groups;
mod jobs;
mod lives;
mod machine;
mod plot;
mod process;
mod results;
#[path = "../../sequences.rs"]
mod sequences;
mod stats;
mod table;

use std::path::Path;

use args::Args;
use bench::Bench;

/// Runs what the command line asks for, with its files in `target`; whether it is as it should be.
pub fn run(target: &Path) -> bool {
    let args = Args::of_process();
    if let Some(job) = &args.child {
        child::run(job, &args);
        return true;
    }
    let mut bench = Bench::new(args, target);
    for group in groups::ALL {
        group(&mut bench);
        bench.save();
    }
    bench.finish()
}
