//! Rimstone beside LMDB, a map in memory and our own cache: the same entries, the same operations,
//! one run.
//!
//! `cargo bench -p rimstone-bench` runs everything and ends with a table of ratios; a part of a
//! name as an argument runs only the workloads that contain it. `docs/performance.md` says how to
//! read the table.
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: its indices are in range, and it prints its result"
)]

mod cpu_time;
mod engines;
mod sequences;
mod table;
mod workload;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode};
use rimstone::{Durability, ListOptions, PutOptions};

use cpu_time::CpuTime;
use engines::{Engines, Lmdb, PAGE, open_store, page_of, stored, value};
use workload::{Key, entry};

fn main() {
    // In the target directory, which is on a disk where the directory for temporary files may not be.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let results = target.join("criterion");
    // Ratios are formed within one run, so no estimate of an earlier one may stay.
    let _ = std::fs::remove_dir_all(&results);
    let dir = tempfile::tempdir_in(target).expect("a directory");
    engines::load(dir.path());
    let mut wall = settings(WallTime, &results);
    open(&mut wall, dir.path());

    let engines = Engines::open(dir.path());
    engines.verify();
    let (uniform, zipf) = (workload::uniform(), workload::zipf());
    let mut cpu = settings(CpuTime, &results);
    copied(&mut cpu, "get uniform, copied", &uniform, &engines);
    copied(&mut cpu, "get zipf 0.99, copied", &zipf, &engines);
    lent(&mut cpu, "get uniform, lent", &uniform, &engines);
    lent(&mut cpu, "get zipf 0.99, lent", &zipf, &engines);
    lent(&mut cpu, "get missing", &workload::missing(), &engines);
    for count in [32, 100] {
        get_many(&mut cpu, count, &uniform, &engines);
    }
    list(&mut cpu, &uniform, &engines);
    put(&mut wall, &uniform, &engines);
    put_flushed(&mut wall, &uniform, &engines);
    wall.final_summary();
    print!("{}", table::ratios(&results));
}

/// Short, so that all of it runs in two minutes. What only one thread does is measured by its
/// processor time; what waits for the disk, by the wall.
fn settings<M: Measurement>(measurement: M, results: &Path) -> Criterion<M> {
    Criterion::default()
        .with_measurement(measurement)
        .sample_size(20)
        .nresamples(2000)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .output_directory(results)
        .configure_from_args()
}

/// Measures `op` over `inputs`, which go round.
fn row<M: Measurement, I, R>(
    group: &mut BenchmarkGroup<'_, M>,
    engine: &str,
    inputs: impl Iterator<Item = I> + Clone,
    mut op: impl FnMut(I) -> R,
) {
    let mut inputs = inputs.cycle();
    group.bench_function(engine, |b| b.iter(|| inputs.next().map(&mut op)));
}

/// What a caller does at least with a value that it is lent.
fn touch(value: &[u8]) -> (usize, Option<u8>, Option<u8>) {
    (value.len(), value.first().copied(), value.last().copied())
}

/// Gets of values that become the caller's own.
fn copied(criterion: &mut Criterion<CpuTime>, name: &str, keys: &[Key], engines: &Engines) {
    let txn = engines.lmdb.read();
    let copy = |stored: &[u8]| Box::<[u8]>::from(value(stored));
    let mut group = criterion.benchmark_group(name);
    row(&mut group, "rimstone", keys.iter(), |key| {
        engines.namespace.get(key).expect("gets")
    });
    row(&mut group, "lmdb", keys.iter(), |key| {
        engines.lmdb.get(&txn, key).map(copy)
    });
    row(&mut group, "map", keys.iter(), |key| {
        let map = engines.hashed.read().expect("a lock");
        map.get(&key[..]).map(|stored| copy(stored))
    });
    row(&mut group, "cache", keys.iter(), |key| {
        engines.cache.get(key, None)
    });
    group.finish();
}

/// Gets of values that are lent for the moment.
fn lent(criterion: &mut Criterion<CpuTime>, name: &str, keys: &[Key], engines: &Engines) {
    let txn = engines.lmdb.read();
    let mut group = criterion.benchmark_group(name);
    row(&mut group, "rimstone", keys.iter(), |key| {
        let read = engines.namespace.read(key, |entry| touch(entry.value()));
        read.expect("reads")
    });
    row(&mut group, "lmdb", keys.iter(), |key| {
        engines
            .lmdb
            .get(&txn, key)
            .map(|stored| touch(value(stored)))
    });
    row(&mut group, "map", keys.iter(), |key| {
        let map = engines.hashed.read().expect("a lock");
        map.get(&key[..]).map(|stored| touch(value(stored)))
    });
    row(&mut group, "cache", keys.iter(), |key| {
        let read = |entry: &rimstone_cache::Entry| touch(entry.value());
        engines.cache.get_with(key, None, read)
    });
    group.finish();
}

/// Many gets in one call, copied out with their metadata.
fn get_many(criterion: &mut Criterion<CpuTime>, count: usize, keys: &[Key], engines: &Engines) {
    let batches = || keys.chunks_exact(count);
    let mut group = criterion.benchmark_group(format!("get_many of {count}"));
    row(&mut group, "rimstone", batches(), |keys| {
        engines.namespace.get_many(keys).expect("gets")
    });
    row(&mut group, "lmdb", batches(), |keys| {
        let txn = engines.lmdb.read();
        let get = |key| engines.lmdb.get(&txn, key).map(Box::<[u8]>::from);
        keys.iter().map(get).collect::<Vec<_>>()
    });
    row(&mut group, "map", batches(), |keys| {
        let map = engines.hashed.read().expect("a lock");
        let get = |key: &Key| map.get(&key[..]).cloned();
        keys.iter().map(get).collect::<Vec<_>>()
    });
    group.finish();
}

/// Pages of keys with metadata from random keys on. Rimstone returns a page that is the caller's
/// own; the others lend keys and metadata one by one.
fn list(criterion: &mut Criterion<CpuTime>, starts: &[Key], engines: &Engines) {
    let mut group = criterion.benchmark_group(format!("list page of {PAGE}"));
    row(&mut group, "rimstone", starts.iter(), |start| {
        let options = ListOptions::new().start(start).limit(PAGE);
        let page = engines.namespace.list(&options).expect("lists");
        visit(page.keys().map(|key| (key.name, key.metadata)));
    });
    row(&mut group, "lmdb", starts.iter(), |start| {
        let txn = engines.lmdb.read();
        visit(engines.lmdb.page(&txn, start));
    });
    row(&mut group, "map", starts.iter(), |start| {
        let map = engines.ordered.read().expect("a lock");
        visit(page_of(&map, start));
    });
    group.finish();
}

fn visit<'k>(keys: impl Iterator<Item = (&'k [u8], &'k [u8])>) {
    for (name, metadata) in keys {
        black_box((touch(name), touch(metadata)));
    }
}

/// Overwrites existing keys, each put a commit of its own that reaches the operating system.
fn put(criterion: &mut Criterion, keys: &[Key], engines: &Engines) {
    let value = entry(1).value;
    let options = PutOptions::new().durability(Durability::None);
    let mut group = criterion.benchmark_group("put, Durability None");
    row(&mut group, "rimstone", keys.iter(), |key| {
        engines
            .namespace
            .put_with(key, &value, &options)
            .expect("puts")
    });
    row(&mut group, "lmdb", keys.iter(), |key| {
        engines.lmdb.put(key, &stored(&[], &value));
    });
    row(&mut group, "map", keys.iter(), |key| {
        let mut map = engines.hashed.write().expect("a lock");
        map.insert(key.as_slice().into(), stored(&[], &value))
    });
    group.finish();
}

/// The same, each put on the disk before it returns, by one thread. Nothing in memory is like it.
fn put_flushed(criterion: &mut Criterion, keys: &[Key], engines: &Engines) {
    engines.flush();
    let value = entry(1).value;
    let options = PutOptions::new().durability(Durability::Immediate);
    let mut group = criterion.benchmark_group("put, Durability Immediate");
    row(&mut group, "rimstone", keys.iter(), |key| {
        engines
            .namespace
            .put_with(key, &value, &options)
            .expect("puts")
    });
    row(&mut group, "lmdb", keys.iter(), |key| {
        engines.lmdb.put(key, &stored(&[], &value));
    });
    group.finish();
}

/// Opens what was closed cleanly and gets one key.
fn open(criterion: &mut Criterion, dir: &Path) {
    let key = workload::key(0);
    let mut group = criterion.benchmark_group("open, clean");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("rimstone", |b| {
        let open = || {
            let (store, namespace) = open_store(dir);
            assert!(namespace.get(key).expect("gets").is_some());
            (store, namespace)
        };
        b.iter_batched(|| (), |()| open(), BatchSize::PerIteration);
    });
    group.bench_function("lmdb", |b| {
        let open = || {
            let lmdb = Lmdb::open(dir);
            assert!(lmdb.get(&lmdb.read(), &key).is_some());
            lmdb
        };
        b.iter_batched(|| (), |()| open(), BatchSize::PerIteration);
    });
    group.finish();
}
