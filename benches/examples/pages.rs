//! What listing costs: pages of 1000 keys and of one, and puts, after loading, after every key was overwritten
//! with the same metadata, and after a hundredth was given other metadata.
//!
//! `cargo run --release -p rimstone-bench --example pages -- [KEYS]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints figures or stops"
)]

use std::time::{Duration, Instant};

use rimstone::{Durability, ListOptions, Namespace, Options, PutOptions, Store, WriteBatch};

const BATCH: usize = 1000;
const ROUNDS: usize = 5;

fn main() {
    let keys = std::env::args()
        .nth(1)
        .map_or(300_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new()
        .durability(Durability::None)
        .open(dir.path())
        .unwrap();
    let ns = store.namespace("pages").unwrap();
    let all: Vec<u64> = order(keys, 1).collect();
    put_all(&store, &ns, "load", &all, 0);
    pages(&store, &ns, keys, "after loading");
    let again: Vec<u64> = order(keys, 3).collect();
    put_all(&store, &ns, "overwrite, same metadata", &again, 0);
    pages(&store, &ns, keys, "after overwriting all");
    put_each(&ns, "put, same metadata", &again, 0);
    let some: Vec<u64> = again.iter().copied().take(again.len() / 100).collect();
    put_all(&store, &ns, "overwrite 1 %, other metadata", &some, 1);
    pages(&store, &ns, keys, "after that");
    store.checkpoint().unwrap();
    pages(&store, &ns, keys, "after a checkpoint");
}

/// All numbers below `keys`, far from their order.
fn order(keys: u64, seed: u64) -> impl Iterator<Item = u64> {
    let mut all: Vec<u64> = (0..keys).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut all);
    all.into_iter()
}

/// Names share a beginning and differ somewhere in the middle.
fn key(id: u64) -> String {
    let mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("object/{mixed:016x}/{:04}", id % 10_000)
}

fn options(id: u64, version: u64) -> PutOptions {
    let metadata = if id.is_multiple_of(2) { 72 } else { 0 };
    PutOptions::new().metadata(vec![byte(id + version); metadata])
}

fn byte(n: u64) -> u8 {
    n.to_le_bytes()[0]
}

fn put_all(store: &Store, ns: &Namespace, name: &str, ids: &[u64], version: u64) {
    let start = Instant::now();
    for ids in ids.chunks(BATCH) {
        let mut batch = WriteBatch::new();
        for &id in ids {
            batch.put_with(ns, key(id), [byte(id); 400], &options(id, version));
        }
        store.write(batch).unwrap();
    }
    report(name, start, ids.len());
}

fn put_each(ns: &Namespace, name: &str, ids: &[u64], version: u64) {
    let start = Instant::now();
    for &id in ids {
        ns.put_with(key(id), [byte(id); 400], &options(id, version))
            .unwrap();
    }
    report(name, start, ids.len());
}

fn report(name: &str, start: Instant, count: usize) {
    let each = start.elapsed().as_nanos() as f64 / count as f64;
    println!("{name}: {each:.0} ns each, by the wall");
}

fn pages(store: &Store, ns: &Namespace, keys: u64, name: &str) {
    let stats = store.stats();
    print!(
        "{name}: {} runs, {:.1} bytes of index a key",
        stats.runs,
        stats.index_bytes as f64 / keys as f64
    );
    for limit in [1000, 1] {
        let starts: Vec<String> = order(keys, 5)
            .take(2_000 / limit.min(20))
            .map(key)
            .collect();
        // The last of some rounds: what pages ask for often is put in order for them.
        let mut took = 0.0;
        for _ in 0..ROUNDS {
            let start = cpu_time();
            for from in &starts {
                let page = ns
                    .list(&ListOptions::new().start(from).limit(limit))
                    .unwrap();
                assert!(!page.is_empty());
            }
            took = cpu_time() - start;
        }
        print!(", page of {limit} {:.1} us", took / starts.len() as f64);
    }
    println!();
}

/// Time in which this thread ran, in microseconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap().as_secs_f64() * 1e6
}
