//! Gets of values that have to come from the disk.

use crate::bench::{Bench, turns};
use crate::files;
use crate::results::Unit;

const GROUP: &str = "cold";
const ROUNDS: usize = 3;

pub fn run(bench: &mut Bench) {
    if !["cold get p50", "cold get p99", "cold get, read"]
        .iter()
        .any(|row| bench.wants(GROUP, row))
    {
        return;
    }
    bench.say("cold get");
    let stores = bench.stores();
    for round in 0..bench.args.rounds.min(ROUNDS) {
        for kind in turns(&stores, round) {
            files::drop_cache(&bench.dir_of(kind));
            let found = bench.child(kind, "cold");
            let number = |name: &str| found[name].as_f64().expect("a number");
            let mut add = |row, unit, value| bench.add(GROUP, row, unit, kind.name, value);
            add("cold get p50", Unit::Time, number("p50"));
            add("cold get p99", Unit::Time, number("p99"));
            add("cold get, read", Unit::Bytes, number("read"));
        }
    }
}
