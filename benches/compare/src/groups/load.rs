//! Loading an empty engine in bulk: not durable until one flush at the end.

use std::fs;

use crate::bench::{Bench, turns};
use crate::engines::Kind;
use crate::results::Unit;

const GROUP: &str = "load";
/// Loading is long, and less moved by other work than a get is.
const ROUNDS: usize = 2;

pub fn run(bench: &mut Bench) {
    // It begins with empty directories.
    if bench.args.only("churn") {
        return;
    }
    let rounds = if bench.wants(GROUP, "load") {
        ROUNDS
    } else {
        1
    };
    for round in 0..rounds {
        for kind in turns(&bench.kinds, round) {
            // Others are loaded where they are read.
            if kind.can.files || bench.wants(GROUP, "load") {
                bench.say(&format!("load {}", kind.name));
                load(bench, kind);
            }
        }
    }
}

fn load(bench: &mut Bench, kind: Kind) {
    let dir = bench.setup(kind, false).dir;
    fs::remove_dir_all(&dir).expect("removes");
    let found = bench.child(kind, "load");
    let number = |name: &str| found[name].as_f64().expect("a number");
    let (keys, logical) = (bench.data.keys as f64, number("logical"));
    let mut add = |row, unit, value| bench.add(GROUP, row, unit, kind.name, value);
    add("bulk load, wall", Unit::Rate, keys / number("seconds"));
    add(
        "bulk load, CPU per key",
        Unit::Time,
        number("cpu") / keys * 1e9,
    );
    add(
        "memory of the process per key",
        Unit::Bytes,
        number("anonymous") / keys,
    );
    if kind.can.files {
        add("written / stored", Unit::Times, number("written") / logical);
        add("disk / stored", Unit::Times, number("disk") / logical);
    }
}
