//! Gets where the entries are four times the memory, in a control group of its own.

use std::time::Duration;

use crate::bench::{Bench, rounds_within, turns};
use crate::cgroup::Group;
use crate::files;
use crate::results::Unit;

const GROUP: &str = "starved";
const ROUNDS: usize = 3;
/// When no other round begins, and how long an engine may take for its part of one: a quarter of a minute if
/// it has what it needs.
const LONG: Duration = Duration::from_secs(150);
const LONGEST: Duration = Duration::from_secs(90);
/// How many times the memory the entries are.
const TIMES: u64 = 4;
/// Who takes part if nobody is named.
const ENGINES: [&str; 4] = ["rimstone", "lmdb", "fjall", "rocksdb"];
const ROWS: [(&str, &str, Unit); 6] = [
    ("starved p50", "p50", Unit::Time),
    ("starved p99", "p99", Unit::Time),
    ("starved, read", "read", Unit::Bytes),
    ("starved, by one", "one", Unit::Rate),
    ("starved, by two", "two", Unit::Rate),
    ("starved, 100 at once", "many", Unit::Rate),
];

pub fn run(bench: &mut Bench) {
    if !ROWS.iter().any(|(row, ..)| bench.wants(GROUP, row)) {
        return;
    }
    let memory = bench.data.logical_bytes() / TIMES;
    let group = match Group::new(memory) {
        Ok(group) => group,
        Err(reason) => {
            bench.note(format!(
                "SKIPPED {GROUP}, which needs a limit on memory: {reason}"
            ));
            return;
        }
    };
    let stores = bench.few(&ENGINES);
    for round in rounds_within(bench.args.rounds.min(ROUNDS), LONG) {
        for kind in turns(&stores, round) {
            bench.say(&format!("starved: {}", kind.name));
            files::drop_cache(&bench.dir_of(kind));
            let found = bench.starved(kind, memory, group.dir(), LONGEST);
            let Some(_) = found["p50"].as_f64() else {
                bench.note(format!(
                    "{} did not live in {} MiB, or not in {} s",
                    kind.name,
                    memory >> 20,
                    LONGEST.as_secs()
                ));
                continue;
            };
            for (row, name, unit) in ROWS {
                let value = found[name].as_f64().expect("a number");
                bench.add(GROUP, row, unit, kind.name, value);
            }
        }
    }
}
