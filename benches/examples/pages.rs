//! What listing costs: pages of 1000 keys and of one, and puts, after loading, after every key was overwritten
//! with the same metadata, in the store opened again with a hundredth of the keys given other metadata, and
//! right behind a writer that never rested.
//!
//! `cargo run --release -p rimstone-bench --example pages -- [KEYS] [ROUNDS]`
//!
//! Of some rounds, each of which asks for the same pages, it tells the first and the best. Instructions and cycles
//! of a page by themselves: `perf stat -e instructions:u,cycles:u` with 5 rounds and with 105.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints figures or stops"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use rimstone::{Durability, ListOptions, Namespace, Options, PutOptions, Store, WriteBatch};

const BATCH: usize = 1000;
/// Entries of a batch that makes some keys fresh.
const FRESH: usize = 100;

fn main() {
    let mut args = std::env::args().skip(1).map(|n| n.parse().unwrap());
    let (keys, rounds) = (args.next().unwrap_or(300_000), args.next().unwrap_or(5));
    let dir = tempfile::tempdir().unwrap();
    let (store, ns) = open(dir.path());
    let pages = |store: &Store, ns: &Namespace, name: &str| pages(store, ns, keys, rounds, name);
    let all: Vec<u64> = order(keys, 1).collect();
    put_all(&store, &ns, "load", &all, 0, BATCH);
    pages(&store, &ns, "after loading");
    let again: Vec<u64> = order(keys, 3).collect();
    put_all(&store, &ns, "overwrite, same metadata", &again, 0, BATCH);
    pages(&store, &ns, "after overwriting all");
    let first = |part: usize| again.chunks(again.len() / part).next().unwrap();
    let (few, some) = (first(100), first(4));
    put_each(&ns, "put, same metadata", some, 0);
    drop(ns);
    store.close().unwrap();

    let (store, ns) = open(dir.path());
    put_all(&store, &ns, "overwrite 1 %, other metadata", few, 1, FRESH);
    pages(&store, &ns, "opened again, after that");
    put_all(
        &store,
        &ns,
        "overwrite 25 %, other metadata",
        some,
        2,
        BATCH,
    );
    pages(&store, &ns, "behind a busy writer");
    store.checkpoint().unwrap();
    pages(&store, &ns, "after a checkpoint");
}

fn open(dir: &Path) -> (Store, Namespace) {
    let options = Options::new().durability(Durability::None);
    let store = options.open(dir).unwrap();
    let ns = store.namespace("pages").unwrap();
    (store, ns)
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

fn put_all(store: &Store, ns: &Namespace, name: &str, ids: &[u64], version: u64, batch: usize) {
    let (start, cpu) = (Instant::now(), cpu_time());
    for ids in ids.chunks(batch) {
        let mut batch = WriteBatch::new();
        for &id in ids {
            batch.put_with(ns, key(id), [byte(id); 400], &options(id, version));
        }
        store.write(batch).unwrap();
    }
    report(name, start, cpu, ids.len());
}

fn put_each(ns: &Namespace, name: &str, ids: &[u64], version: u64) {
    let (start, cpu) = (Instant::now(), cpu_time());
    for &id in ids {
        ns.put_with(key(id), [byte(id); 400], &options(id, version))
            .unwrap();
    }
    report(name, start, cpu, ids.len());
}

fn report(name: &str, start: Instant, cpu: f64, count: usize) {
    let wall = start.elapsed().as_nanos() as f64 / count as f64;
    let cpu = (cpu_time() - cpu) * 1e3 / count as f64;
    println!("{name}: {cpu:.0} ns each, {wall:.0} by the wall");
}

fn pages(store: &Store, ns: &Namespace, keys: u64, rounds: u64, name: &str) {
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
        let (mut first, mut best) = (None, f64::MAX);
        for _ in 0..rounds {
            let start = cpu_time();
            for from in &starts {
                let page = ns
                    .list(&ListOptions::new().start(from).limit(limit))
                    .unwrap();
                assert!(!page.is_empty());
            }
            let took = (cpu_time() - start) / starts.len() as f64;
            best = took.min(best);
            first.get_or_insert(took);
        }
        let first = first.unwrap_or_default();
        print!(", page of {limit} {best:.1} us (first round {first:.1})");
    }
    println!();
}

/// Time in which this thread ran, in microseconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap().as_secs_f64() * 1e6
}
