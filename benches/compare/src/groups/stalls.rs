//! Gets of threads that also put, with compaction beside them, and the longest of a million puts.

use serde_json::Value;

use crate::bench::{Bench, turns};
use crate::results::Unit;

const GROUP: &str = "stalls";
const ROUNDS: usize = 3;
/// How many threads.
const WHO: [&str; 2] = ["by one", "by two"];
/// What is measured of each, and where the job says so.
const ROWS: [(&str, &str, Unit); 6] = [
    ("99/1 p50 beside compaction", "/p50", Unit::Time),
    ("99/1 p99 beside compaction", "/p99", Unit::Time),
    ("99/1 p99.9 beside compaction", "/p99.9", Unit::Time),
    ("longest of a million", "/puts/longest", Unit::Time),
    ("over 1 ms of a million", "/puts/over 1 ms", Unit::Count),
    ("over 10 ms of a million", "/puts/over 10 ms", Unit::Count),
];

pub fn run(bench: &mut Bench) {
    if !ROWS.iter().any(|(row, ..)| bench.wants(GROUP, row)) {
        return;
    }
    let stores = bench.stores();
    for round in 0..bench.args.rounds.min(ROUNDS) {
        for kind in turns(&stores, round) {
            bench.say(&format!("stalls: {}", kind.name));
            let found = bench.child(kind, &format!("stalls {round}"));
            for (threads, who) in WHO.iter().enumerate() {
                for (row, at, unit) in ROWS {
                    let value = found[threads].pointer(at).and_then(Value::as_f64);
                    let row = format!("{row}, {who}");
                    bench.add(GROUP, &row, unit, kind.name, value.expect("a number"));
                }
            }
        }
    }
}
