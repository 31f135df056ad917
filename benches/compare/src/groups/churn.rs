//! Space and written bytes where keys are overwritten, deleted and expire, and gets while compaction runs.

use std::fs;

use crate::bench::Bench;
use crate::lives::Workload;
use crate::results::Unit;

const GROUP: &str = "churn";
/// Who takes part if nobody is named.
const ENGINES: [&str; 6] = [
    "rimstone",
    "lmdb",
    "fjall",
    "fjall-apart",
    "rocksdb",
    "rocksdb-blob",
];

pub fn run(bench: &mut Bench) {
    for (name, _) in Workload::ALL {
        if !bench.wants(GROUP, name) {
            continue;
        }
        for kind in bench.few(&ENGINES) {
            bench.say(&format!("{name}: {}", kind.name));
            let dir = bench.setup(kind, false).dir;
            fs::remove_dir_all(&dir).expect("removes");
            let found = bench.child(kind, &format!("churn {name}"));
            let mut add = |what: &str, unit, value: Option<f64>| {
                if let Some(value) = value {
                    bench.add(GROUP, &format!("{name}: {what}"), unit, kind.name, value);
                }
            };
            let number = |name: &str| found[name].as_f64();
            add("written / put", Unit::Times, number("written"));
            add("disk / live, mean", Unit::Times, number("mean"));
            add("disk / live, largest", Unit::Times, number("largest"));
            if kind.can.compacts {
                add("disk / live, compacted", Unit::Times, number("compacted"));
            }
            add(
                "MiB put in a second",
                Unit::Rate,
                number("rate").map(|r| r / 1048576.0),
            );
            let gets = |name: &str| found["gets"][name].as_f64();
            add("compaction", Unit::Time, gets("seconds").map(|s| s * 1e9));
            for share in ["p50", "p99.9"] {
                let (quiet, busy) = (gets(&format!("quiet {share}")), gets(share));
                add(&format!("get {share}, quiet"), Unit::Time, quiet);
                add(&format!("get {share}, compacting"), Unit::Time, busy);
                let ratio = quiet.zip(busy).map(|(quiet, busy)| busy / quiet);
                add(
                    &format!("get {share}, compacting / quiet"),
                    Unit::Times,
                    ratio,
                );
            }
            fs::remove_dir_all(&dir).expect("removes");
        }
    }
}
