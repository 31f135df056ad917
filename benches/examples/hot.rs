//! What the hot cache gains: gets with and without it, in turns.
//!
//! `cargo run --release -p rimstone-bench --example hot -- WORKLOAD [BYTES]`
//!
//! - `warm`: everything is in memory, without a cache, with one for a tenth of the records' bytes, and with one
//!   for all. Gets of 100 bytes, of 4 KiB and of 1 MiB, skewed (zipf 0.99), uniform
//!   and missing; processor time for each get, medians of rounds in turns, and times of single gets.
//! - `starved [BYTES]`: some 800 MB of values of so many bytes (100 unless said otherwise), read by processes
//!   that have 224 MiB, the page cache included, in turns: one without a cache, one with 96 MiB of it. Skewed,
//!   uniform, and skewed in batches of 100, each of which counts as one. Needs
//!   the memory controller of cgroup v1 or v2, and root.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a bench that goes wrong should stop"
)]

#[path = "../sequences.rs"]
mod sequences;

use std::fs::{self, File};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rimstone::{Durability, Namespace, Options, ReadOptions, Store, WriteBatch};
use rustix::fs::Advice;
use rustix::time::{ClockId, clock_gettime};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MIB: u64 = 1 << 20;
/// The memory of a starved process, and the part of it that is the cache's.
const STARVED: u64 = 224 * MIB;
const STARVED_CACHE: u64 = 96 * MIB;
const STARVED_DATA: u64 = 800_000_000;
/// What a record takes beside its value.
const HEAD: u64 = 88;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).map_or(Ok(100), |text| text.parse::<u64>());
    match args.first().map(String::as_str) {
        Some("warm") => warm(),
        Some("starved") => starved(number(1)?),
        Some("arm") => arm(Path::new(&args[1]), number(2)?, number(3)?, &args[4]),
        _ => Err("name a workload: warm or starved".into()),
    }
}

fn key(id: u64) -> [u8; 17] {
    let text = format!("user:{id:012}");
    text.as_bytes().try_into().expect("17 bytes")
}

fn open(dir: &Path, cache: u64) -> Result<(Store, Namespace)> {
    let options = Options::new().durability(Durability::None).cache(cache);
    let store = options.open(dir)?;
    let ns = store.namespace("hot")?;
    Ok((store, ns))
}

/// Stores so many values in a random order.
fn load(dir: &Path, keys: u64, len: usize, cache: u64) -> Result<(Store, Namespace)> {
    let (store, ns) = open(dir, cache)?;
    let mut value = vec![0; len];
    for ids in sequences::shuffled(keys, 1).chunks(100) {
        let mut batch = WriteBatch::new();
        for id in ids {
            fastrand::Rng::with_seed(*id).fill(&mut value);
            batch.put(&ns, key(*id), &value);
        }
        store.write(batch)?;
    }
    Ok((store, ns))
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.try_into().unwrap_or_default()
}

/// One way to read.
struct Arm<'a> {
    name: &'static str,
    ns: &'a Namespace,
    options: ReadOptions,
    /// Processor nanoseconds of a get, one number a round.
    rounds: Vec<f64>,
    /// Nanoseconds of single gets.
    singles: Vec<u64>,
}

impl Arm<'_> {
    fn get(&self, id: u64) -> bool {
        let sum = |e: rimstone::EntryRef<'_>| black_box(e.value()).len();
        let read = self.ns.read_with(key(id), &self.options, sum);
        black_box(read.expect("a read")).is_some()
    }

    /// One get, or many at once.
    fn read(&self, ids: &[u64]) {
        if let [id] = ids {
            self.get(*id);
        } else {
            let keys: Vec<[u8; 17]> = ids.iter().map(|id| key(*id)).collect();
            let sum = |_, e: rimstone::EntryRef<'_>| _ = black_box(e.value()).len();
            self.ns.read_many(&keys, sum).expect("a read");
        }
    }

    fn round(&mut self, ids: &[u64]) {
        let began = cpu();
        for id in ids {
            self.get(*id);
        }
        let took = (cpu() - began).as_nanos() as f64;
        self.rounds.push(took / ids.len() as f64);
    }

    fn singles(&mut self, ids: &[u64]) {
        for id in ids {
            let began = Instant::now();
            self.get(*id);
            self.singles
                .push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(0));
        }
    }

    fn median(&mut self) -> f64 {
        self.rounds.sort_unstable_by(f64::total_cmp);
        self.rounds[self.rounds.len() / 2]
    }
}

fn percentile(times: &mut [u64], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100] as f64 / 1e3
}

fn warm() -> Result<()> {
    println!(
        "| values | gets | way | CPU ns | to none | p50 µs | p99 µs |\n|---|---|---|---|---|---|---|"
    );
    for (keys, len, rounds) in [
        (1_000_000, 100, 21),
        (100_000, 4096, 21),
        (100, 1 << 20, 11),
    ] {
        let dirs = [
            tempfile::tempdir()?,
            tempfile::tempdir()?,
            tempfile::tempdir()?,
        ];
        let tenth = keys * (len as u64 + HEAD) / 10;
        let (_none, without) = load(dirs[0].path(), keys, len, 0)?;
        let (_some, some) = load(dirs[1].path(), keys, len, tenth)?;
        let (_all, all) = load(dirs[2].path(), keys, len, 1 << 30)?;
        let hour = ReadOptions::new().cache_ttl(Duration::from_secs(3600));
        let count = if len > 65_536 { 2_000 } else { 1 << 20 };
        let shift = |ids: Vec<u64>| ids.into_iter().map(|id| id + keys).collect();
        let sequences: [(&str, Vec<u64>); 3] = [
            ("zipf 0.99", sequences::zipf(keys, count, 2)),
            ("uniform", sequences::uniform(keys, count, 3)),
            ("missing", shift(sequences::uniform(keys, count, 4))),
        ];
        for (name, ids) in &sequences {
            let arm = |name, ns, options| Arm {
                name,
                ns,
                options,
                rounds: Vec::new(),
                singles: Vec::new(),
            };
            let mut arms = [
                arm("none", &without, ReadOptions::new()),
                arm("a tenth, plain", &some, ReadOptions::new()),
                arm("a tenth, cache_ttl", &some, hour),
                arm("all, plain", &all, ReadOptions::new()),
                arm("all, cache_ttl", &all, hour),
            ];
            // Everything is in memory, and the cache as full as it will be.
            arms.iter().for_each(|arm| {
                ids.iter()
                    .for_each(|id| assert!(arm.get(*id) == (*id < keys)))
            });
            for slice in ids.chunks(ids.len() / rounds).take(rounds) {
                arms.iter_mut().for_each(|arm| arm.round(slice));
            }
            for slice in ids.chunks(ids.len() / rounds).take(rounds) {
                arms.iter_mut().for_each(|arm| arm.singles(slice));
            }
            let none = arms[0].median();
            for arm in &mut arms {
                let (cpu, times) = (arm.median(), &mut arm.singles);
                let (p50, p99) = (percentile(times, 50), percentile(times, 99));
                let (way, ratio) = (arm.name, cpu / none);
                println!(
                    "| {len} B | {name} | {way} | {cpu:.0} | {ratio:.2} | {p50:.2} | {p99:.2} |"
                );
            }
        }
    }
    Ok(())
}

fn starved(len: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let keys = STARVED_DATA / (len + HEAD);
    load(dir.path(), keys, usize::try_from(len)?, 0)?
        .0
        .close()?;
    println!("{keys} values of {len} bytes\n");
    println!(
        "| gets | cache MiB | CPU µs | µs | p50 µs | p99 µs | device bytes | hits |\n|---|---|---|---|---|---|---|---|"
    );
    for gets in ["zipf", "uniform", "batches"] {
        for cache in [0, STARVED_CACHE, 0, STARVED_CACHE] {
            forget(dir.path())?;
            let limit = Limit::new()?;
            let child = Command::new(std::env::current_exe()?)
                .arg("arm")
                .arg(dir.path())
                .args([cache.to_string(), keys.to_string(), gets.to_owned()])
                .env("RIMSTONE_HOT_CGROUP", &limit.0)
                .status()?;
            if !child.success() {
                return Err("a starved process failed".into());
            }
        }
    }
    Ok(())
}

/// Drops a store's files from the page cache, so that who reads them has them on its account.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let file = File::open(entry?.path())?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// A group of processes with little memory.
struct Limit(PathBuf);

impl Limit {
    fn new() -> Result<Limit> {
        let name = format!("rimstone-hot-{}", std::process::id());
        let (root, file) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        };
        let limit = Limit(Path::new(root).join(name));
        let made = fs::create_dir_all(&limit.0)
            .and_then(|()| fs::write(limit.0.join(file), STARVED.to_string()));
        made.map_err(|error| format!("no memory controller here: {error}"))?;
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}

/// One starved process.
fn arm(dir: &Path, cache: u64, keys: u64, gets: &str) -> Result<()> {
    let group = PathBuf::from(std::env::var("RIMSTONE_HOT_CGROUP")?);
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())?;
    let (store, ns) = open(dir, cache)?;
    let count = 600_000;
    let ids = match gets {
        "uniform" => sequences::uniform(keys, count, 3),
        _ => sequences::zipf(keys, count, 2),
    };
    let batch = if gets == "batches" { 100 } else { 1 };
    let arm = Arm {
        name: "",
        ns: &ns,
        options: ReadOptions::new(),
        rounds: Vec::new(),
        singles: Vec::new(),
    };
    // A time for each phase, since a get may wait for the disk.
    let mut times = Vec::new();
    let run = |seconds: u64, times: &mut Vec<u64>| {
        let began = Instant::now();
        for ids in ids.chunks(batch).cycle() {
            let get = Instant::now();
            arm.read(ids);
            times.push(u64::try_from(get.elapsed().as_nanos()).unwrap_or(0));
            if began.elapsed() > Duration::from_secs(seconds) {
                break;
            }
        }
    };
    run(20, &mut Vec::new());
    let (before, bytes, hits) = (cpu(), device_bytes()?, hits(&store));
    run(10, &mut times);
    let reads = times.len() as f64;
    let cpu = (cpu() - before).as_nanos() as f64 / reads / 1e3;
    let mean = times.iter().sum::<u64>() as f64 / reads / 1e3;
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    let device = (device_bytes()? - bytes) as f64 / reads;
    let hits = (self::hits(&store) - hits) as f64 / reads;
    let mib = cache / MIB;
    println!(
        "| {gets} | {mib} | {cpu:.1} | {mean:.1} | {p50:.1} | {p99:.1} | {device:.0} | {hits:.2} |"
    );
    Ok(())
}

fn hits(store: &Store) -> u64 {
    store.stats().cache.map_or(0, |cache| cache.hits)
}

/// Bytes that this process had read from the disk.
fn device_bytes() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(line.ok_or("no read_bytes")?.parse()?)
}
