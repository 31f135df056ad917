//! Gets of threads that also put, with compaction beside them, and the longest of a million puts.

use std::time::Duration;

use serde_json::Value;

use crate::bench::{Bench, rounds_within, turns};
use crate::results::Unit;

const GROUP: &str = "stalls";
const ROUNDS: usize = 3;
/// When no other round begins, and how long an engine may take for its part of one, of which its job needs 48
/// seconds at most.
const LONG: Duration = Duration::from_secs(150);
const LONGEST: Duration = Duration::from_secs(120);
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
    let names = |who| ROWS.iter().map(move |(row, ..)| format!("{row}, {who}"));
    let mut rows = WHO.iter().flat_map(names);
    if !rows.any(|row| bench.wants(GROUP, &row)) {
        return;
    }
    let stores = bench.stores();
    for round in rounds_within(bench.args.rounds.min(ROUNDS), LONG) {
        for kind in turns(&stores, round) {
            bench.say(&format!("stalls: {}", kind.name));
            let found = bench.child_within(kind, &format!("stalls {round}"), LONGEST);
            if found.is_null() {
                let longest = LONGEST.as_secs();
                bench.note(format!("{GROUP}: {} took over {longest} s", kind.name));
                continue;
            }
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
