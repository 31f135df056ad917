//! What overwriting costs in disk space, bytes written and memory.

use crate::bench::Bench;
use crate::results::Unit;

const GROUP: &str = "space";

pub fn run(bench: &mut Bench) {
    // Part of the name of every row.
    if !bench.wants(GROUP, "overwritten") {
        return;
    }
    let (keys, logical) = (bench.data.keys as f64, bench.data.logical_bytes() as f64);
    for kind in bench.stores() {
        bench.say(&format!("overwrite {}", kind.name));
        let found = bench.child(kind, "overwrite");
        let number = |name: &str| found[name].as_f64().expect("a number");
        let mut add = |row, unit, value| bench.add(GROUP, row, unit, kind.name, value);
        let rate = number("logical") / logical * keys / number("seconds");
        add("overwritten at", Unit::Rate, rate);
        add(
            "written / overwritten",
            Unit::Times,
            number("written") / number("logical"),
        );
        add(
            "disk / stored while overwritten",
            Unit::Times,
            number("disk") / logical,
        );
        add(
            "the same at its largest, overwritten",
            Unit::Times,
            number("largest") / logical,
        );
        if kind.can.compacts {
            let compacted = number("compacted") / logical;
            add(
                "disk / stored, overwritten, then compacted",
                Unit::Times,
                compacted,
            );
        }
        let memory = number("anonymous") / keys;
        add("memory per key, all overwritten once", Unit::Bytes, memory);
    }
}
