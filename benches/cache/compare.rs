//! The hot cache beside other caches: what a call costs, what an entry takes, how often it misses.
//!
//! `cargo bench` runs everything; `-- speed`, `-- memory` or `-- misses` a part; `-- trace FILE ENTRIES`
//! replays a file with room for so many entries. `speed insert rimstone,quick` times one kind of call,
//! of caches whose names hold one of those words. `docs/performance.md` says how to read the tables.

mod cpu_time;
mod memory;
mod misses;
mod plot;
mod policies;
mod speed;
mod subjects;
mod workload;

fn main() {
    // Cargo adds `--bench` to what the user gives.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => {
            speed::run("", "");
            memory::run();
            misses::run("", "");
        }
        ["speed"] => speed::run("", ""),
        ["speed", part] => speed::run(part, ""),
        ["speed", part, caches] => speed::run(part, caches),
        ["memory"] => memory::run(),
        ["misses"] => misses::run("", ""),
        ["misses", part] => misses::run(part, ""),
        ["misses", part, caches] => misses::run(part, caches),
        ["trace", file, entries] => misses::trace(file, entries),
        _ => panic!("speed [PART [CACHES]], memory, misses [PART [CACHES]], or trace FILE ENTRIES"),
    }
}
