//! How many bytes are written for each byte that users write, at which space, with and without
//! classes. `cargo run --release -p rimstone-compaction --example amplification`
#![allow(clippy::print_stdout, reason = "it prints a table")]

#[path = "../tests/support/mod.rs"]
mod support;

use rimstone_compaction::CostBenefit;
use support::load::{Load, write};
use support::{Background, Random, Store};

const SEGMENT: u64 = 1 << 15;
const SEEDS: u64 = 2;

fn main() {
    println!(
        "| load | garbage allowed | classes | write amplification | space, mean | space, highest |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (load, name) in [
        (Load::Overwrite, "overwrites, uniform"),
        (Load::Skewed, "overwrites, 80/20"),
        (Load::Delete, "deletes"),
        (Load::Mixed, "mixed lives"),
        (Load::Mixed, "mixed lives, moves of 96 bytes"),
    ] {
        let move_len = if name.ends_with("96 bytes") { 96 } else { 32 };
        for garbage in [30, 35, 50] {
            for classed in [false, true] {
                // Without expirations there is only one class.
                if classed && load != Load::Mixed {
                    continue;
                }
                let runs = (0..SEEDS).map(|seed| life(load, garbage, classed, move_len, seed));
                let runs: Vec<_> = runs.collect();
                let mean = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / SEEDS as f64;
                let highest = runs.iter().map(|r| r.highest).fold(0.0, f64::max);
                let spread = runs.iter().map(|r| (r.written - mean(|r| r.written)).abs());
                println!(
                    "| {name} | {garbage} % | {} | {:.2} ± {:.2} | {:.2} | {highest:.2} |",
                    if classed { "8" } else { "1" },
                    mean(|r| r.written),
                    spread.fold(0.0, f64::max),
                    mean(|r| r.space),
                );
            }
        }
    }
}

struct Run {
    written: f64,
    space: f64,
    highest: f64,
}

fn life(load: Load, garbage_max: u64, classed: bool, move_len: u64, seed: u64) -> Run {
    let mut random = Random::new(seed);
    let mut store = Store::new(SEGMENT);
    store.classed = classed;
    store.move_len = move_len;
    let mut background = Background::new(CostBenefit { garbage_max }, SEGMENT);
    // For `Mixed` a write each nine seconds: half of them take a month.
    let (keys, writes) = match load {
        Load::Mixed => (20_000, 600_000),
        _ => (10_000, 150_000),
    };
    let (mut space, mut samples, mut highest) = (0.0, 0u64, 0.0f64);
    let mut before = (0, 0);
    for at in 0..writes {
        if load == Load::Mixed && at % 2 == 0 {
            store.now += 18;
        }
        let len = 64 + random.below(128);
        write(load, &mut store, &mut random, keys, at, len);
        background.work(&mut store, SEGMENT / 4);
        if at == writes / 2 {
            before = (store.written, store.copied);
        } else if at > writes / 2 && at % 500 == 0 {
            let sealed = store.bytes().1 as f64 / store.live_bytes() as f64;
            space += sealed;
            samples += 1;
            highest = highest.max(sealed);
        }
    }
    let (written, copied) = (store.written - before.0, store.copied - before.1);
    Run {
        written: (written + copied) as f64 / written as f64,
        space: space / samples as f64,
        highest,
    }
}
