//! Opening in a new process and getting one key.

use crate::bench::{Bench, turns};
use crate::engines::Kind;
use crate::files;
use crate::results::Unit;

const GROUP: &str = "open";
const CLEAN: &str = "open, clean";
const COLD: &str = "open, clean, nothing in memory";
const KILLED: &str = "open after kill -9, 1% overwritten";
const ROUNDS: usize = 3;

pub fn run(bench: &mut Bench) {
    if ![CLEAN, COLD, KILLED]
        .iter()
        .any(|row| bench.wants(GROUP, row))
    {
        return;
    }
    let stores = bench.stores();
    // Rows before may have put other bytes than those that are looked for.
    bench.data.fresh += 1;
    for &kind in &stores {
        bench.child(kind, "die");
    }
    for round in 0..bench.args.rounds.min(ROUNDS) {
        bench.say(&format!("open, round {}", round + 1));
        for kind in turns(&stores, round) {
            // Once unmeasured, as the first open after loading may have work left to do.
            bench.child(kind, "open");
            measure(bench, kind, CLEAN);
            files::drop_cache(&bench.dir_of(kind));
            measure(bench, kind, COLD);
        }
        bench.data.fresh += 1;
        for kind in turns(&stores, round) {
            bench.child(kind, "die");
            measure(bench, kind, KILLED);
        }
    }
}

fn measure(bench: &mut Bench, kind: Kind, row: &str) {
    let found = bench.child(kind, "open");
    let ns = found["ns"].as_f64().expect("opens");
    bench.add(GROUP, row, Unit::Time, kind.name, ns);
}
