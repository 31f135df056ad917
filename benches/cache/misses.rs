//! How often each cache misses: a simulator that reads requests one after the other and fetches what is
//! missing.

use std::time::Duration;

use bytes::Bytes;
use foyer_memory::{Cache as Foyer, CacheBuilder, LfuConfig, S3FifoConfig};
use quick_cache::OptionsBuilder;
use rimstone_cache::{Cache, Clock, MissCost, Value};

use crate::plot;
use crate::policies::{Policy, Rank, Ranked, S3Fifo, WTinyLfu};
use crate::workload::{self, Request, Workload};

/// What an entry takes beside its value, for every cache when sizes count: about what it is for ours.
const OVERHEAD: u64 = 128;

/// Ours, with one shard: what is simulated is the policy.
struct Ours {
    cache: Cache,
    clock: Clock,
    ttl: Option<u32>,
    bytes: Bytes,
}

impl Ours {
    fn new(workload: &Workload) -> Ours {
        let clock = Clock::manual(0);
        let mut ours = Ours {
            cache: Cache::with_max_weight(1 << 20),
            clock: clock.clone(),
            ttl: workload.ttl,
            bytes: Bytes::from(vec![0; if workload.sized { 100_000_000 } else { 0 }]),
        };
        let size = if workload.sized {
            1
        } else {
            ours.weight_of_one()
        };
        let builder = Cache::builder(workload.capacity * size)
            .shards(1)
            .clock(clock);
        let builder = builder.jitter(0.0).max_entry_weight(u64::MAX);
        ours.cache = builder.miss_cost(MissCost::objects()).build();
        ours
    }

    fn weight_of_one(&mut self) -> u64 {
        self.cache.insert(&[0; 8], Value::from(""));
        self.cache.weight()
    }
}

impl Policy for Ours {
    fn read(&mut self, request: Request, _: u64) -> bool {
        self.clock.set(request.time.into());
        let key = request.key.to_le_bytes();
        if self.cache.get_with(&key, None, |_| ()).is_some() {
            return true;
        }
        let size = if self.bytes.is_empty() {
            0
        } else {
            request.size as usize
        };
        let mut value = Value::from(self.bytes.slice(..size));
        if let Some(ttl) = self.ttl {
            value = value.ttl(Duration::from_secs(ttl.into()));
        }
        self.cache.insert(&key, value);
        false
    }
}

type Weighed = (u64, u32);

#[derive(Clone)]
struct ByWeight;

impl quick_cache::Weighter<u64, Weighed> for ByWeight {
    fn weight(&self, _: &u64, value: &Weighed) -> u64 {
        value.0
    }
}

/// The crates hold the weight and the end of each value's life.
enum Other {
    Quick(quick_cache::sync::Cache<u64, Weighed, ByWeight>),
    Moka(moka::sync::Cache<u64, Weighed>, u32),
    MiniMoka(mini_moka::sync::Cache<u64, Weighed>, u32),
    Foyer(Foyer<u64, Weighed>),
}

struct Crate {
    cache: Other,
    ttl: Option<u32>,
}

impl Crate {
    fn quick(workload: &Workload) -> Other {
        let items = if workload.sized {
            50_000
        } else {
            workload.capacity as usize
        };
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(workload.capacity)
            .shards(1)
            .build()
            .expect("options");
        Other::Quick(quick_cache::sync::Cache::with_options(
            options,
            ByWeight,
            Default::default(),
            Default::default(),
        ))
    }

    fn moka(workload: &Workload) -> Other {
        let builder = moka::sync::Cache::builder().max_capacity(units(workload, workload.capacity));
        let sized = workload.sized;
        let builder = builder.weigher(move |_, value: &Weighed| scaled(sized, value.0));
        Other::Moka(builder.build(), 0)
    }

    fn mini_moka(workload: &Workload) -> Other {
        let builder =
            mini_moka::sync::Cache::builder().max_capacity(units(workload, workload.capacity));
        let sized = workload.sized;
        let builder = builder.weigher(move |_, value: &Weighed| scaled(sized, value.0));
        Other::MiniMoka(builder.build(), 0)
    }

    fn foyer(workload: &Workload, config: impl Into<foyer_memory::EvictionConfig>) -> Other {
        let builder = CacheBuilder::new(workload.capacity as usize).with_shards(1);
        let builder = builder.with_weighter(|_: &u64, value: &Weighed| value.0 as usize);
        Other::Foyer(builder.with_eviction_config(config).build())
    }

    fn get(&mut self, key: u64) -> Option<Weighed> {
        match &mut self.cache {
            Other::Quick(cache) => cache.get(&key),
            Other::Moka(cache, calls) => {
                // Its policy works in the background; let it keep up.
                *calls += 1;
                if calls.is_multiple_of(16) {
                    cache.run_pending_tasks();
                }
                cache.get(&key)
            }
            Other::MiniMoka(cache, calls) => {
                use mini_moka::sync::ConcurrentCacheExt;
                *calls += 1;
                if calls.is_multiple_of(16) {
                    cache.sync();
                }
                cache.get(&key)
            }
            Other::Foyer(cache) => cache.get(&key).map(|entry| *entry.value()),
        }
    }

    fn insert(&self, key: u64, value: Weighed) {
        match &self.cache {
            Other::Quick(cache) => cache.insert(key, value),
            Other::Moka(cache, _) => cache.insert(key, value),
            Other::MiniMoka(cache, _) => cache.insert(key, value),
            Other::Foyer(cache) => drop(cache.insert(key, value)),
        }
    }
}

/// moka weighs in 32 bits: sizes are counted in 128 bytes there.
fn units(workload: &Workload, weight: u64) -> u64 {
    if workload.sized { weight / 128 } else { weight }
}

fn scaled(sized: bool, weight: u64) -> u32 {
    (if sized { weight.div_ceil(128) } else { weight }) as u32
}

impl Policy for Crate {
    fn read(&mut self, request: Request, weight: u64) -> bool {
        let fresh = |(_, until): &Weighed| request.time < *until;
        if self.get(request.key).is_some_and(|value| fresh(&value)) {
            return true;
        }
        let until = self.ttl.map_or(u32::MAX, |ttl| request.time + ttl);
        self.insert(request.key, (weight, until));
        false
    }
}

/// The simple policies with a ttl: what is not fresh any more is a miss.
struct Timed {
    policy: Box<dyn Policy>,
    ttl: u32,
    fetched: std::collections::HashMap<u64, u32>,
}

impl Policy for Timed {
    fn read(&mut self, request: Request, weight: u64) -> bool {
        let fetched = self.fetched.get(&request.key);
        let fresh = fetched.is_some_and(|at| request.time < at + self.ttl);
        let hit = self.policy.read(request, weight) && fresh;
        if !hit {
            self.fetched.insert(request.key, request.time);
        }
        hit
    }
}

pub const NAMES: [&str; 11] = [
    "rimstone",
    "LRU",
    "S3-FIFO",
    "W-TinyLFU",
    "GDSF",
    "quick_cache",
    "moka",
    "mini-moka",
    "foyer LFU",
    "foyer S3-FIFO",
    "Belady",
];

fn policies(workload: &Workload) -> Vec<Option<Box<dyn Policy>>> {
    let (capacity, ttl) = (workload.capacity, workload.ttl);
    let simple = |policy: Box<dyn Policy>| -> Option<Box<dyn Policy>> {
        let fetched = Default::default();
        Some(match ttl {
            Some(ttl) => Box::new(Timed {
                policy,
                ttl,
                fetched,
            }),
            None => policy,
        })
    };
    let other = |cache| Some(Box::new(Crate { cache, ttl }) as Box<dyn Policy>);
    // Exact only where all entries are alike and stay.
    let exact = !workload.sized && ttl.is_none();
    vec![
        Some(Box::new(Ours::new(workload))),
        simple(Box::new(Ranked::new(Rank::Lru, capacity))),
        simple(Box::new(S3Fifo::new(capacity))),
        simple(Box::new(WTinyLfu::new(capacity))),
        simple(Box::new(Ranked::new(Rank::Gdsf, capacity))),
        other(Crate::quick(workload)),
        other(Crate::moka(workload)),
        other(Crate::mini_moka(workload)),
        other(Crate::foyer(workload, LfuConfig::default())),
        other(Crate::foyer(workload, S3FifoConfig::default())),
        exact.then(|| Box::new(Ranked::belady(&workload.requests, capacity)) as Box<dyn Policy>),
    ]
}

/// The part of the requests that miss.
fn misses(policy: &mut dyn Policy, workload: &Workload) -> f64 {
    let weight = |size: u32| {
        if workload.sized {
            u64::from(size) + OVERHEAD
        } else {
            1
        }
    };
    let mut read = |request: &&Request| !policy.read(**request, weight(request.size));
    workload.requests.iter().filter(&mut read).count() as f64 / workload.requests.len() as f64
}

/// A row of the table: the part of requests that miss, by policy.
pub type Row = (String, Vec<Option<f64>>);

/// `caches` are parts of the names of those that run.
fn row(workload: &Workload, caches: &str) -> Row {
    let chosen = |name: &str| caches.split(',').any(|part| name.contains(part));
    let run = |(policy, name): (Option<Box<dyn Policy>>, &str)| {
        let policy = policy.filter(|_| chosen(name));
        policy.map(|mut policy| misses(&mut *policy, workload))
    };
    let policies = policies(workload).into_iter().zip(NAMES);
    (workload.name.clone(), policies.map(run).collect())
}

pub fn run(part: &str, caches: &str) {
    println!("\nMisses in percent of the requests:\n");
    let mut rows = Vec::new();
    head();
    let fixed = workload::all().into_iter().chain(workload::unseen());
    for workload in fixed.chain(workload::tuned()).chain(workload::drawn()) {
        if workload.name.contains(part) {
            let row = row(&workload, caches);
            print_row(&row);
            rows.push((row, workload.kind()));
        }
    }
    for kind in ["unit sizes", "with sizes", "unseen", "tuned", "drawn"] {
        let rows: Vec<Row> = rows
            .iter()
            .filter(|row| row.1 == kind)
            .map(|row| row.0.clone())
            .collect();
        if !rows.is_empty() {
            summarize(&rows, kind);
        }
    }
    if part.is_empty() && caches.is_empty() {
        // Those that are drawn are many, and their names long.
        let named = rows
            .into_iter()
            .filter(|row| !matches!(row.1, "tuned" | "drawn"));
        let rows: Vec<Row> = named.map(|row| row.0).collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cache-misses.svg");
        std::fs::write(file, plot::misses(&rows)).expect("a picture");
        println!("\nDrawn in {file}");
    }
}

pub fn trace(file: &str, entries: &str) {
    let capacity = entries.parse().expect("a number of entries");
    let workload = Workload {
        name: "trace".to_owned(),
        requests: workload::read(file),
        capacity,
        sized: false,
        ttl: None,
    };
    head();
    print_row(&row(&workload, ""));
    let mean = workload
        .requests
        .iter()
        .map(|r| u64::from(r.size))
        .sum::<u64>()
        / workload.requests.len() as u64;
    let capacity = capacity * (mean + OVERHEAD);
    let workload = Workload {
        name: "trace, sizes".to_owned(),
        capacity,
        sized: true,
        ..workload
    };
    print_row(&row(&workload, ""));
}

fn head() {
    println!("| workload | {} |", NAMES.join(" | "));
    println!("|{}", " --- |".repeat(NAMES.len() + 1));
}

fn print_row((name, misses): &Row) {
    let cells = misses
        .iter()
        .map(|m| m.map_or("-".into(), |m| format!("{:.1}", 100.0 * m)));
    println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// How many fewer misses than others, on average and at worst; and how much of the way from LRU to
/// Belady's bound.
fn summarize(rows: &[Row], what: &str) {
    println!("\nRimstone, {what}:");
    for (at, name) in NAMES.iter().enumerate().skip(1) {
        let fewer = |row: &Row| Some(1.0 - row.1[0]? / row.1[at]?);
        let fewer: Vec<f64> = rows.iter().filter_map(fewer).collect();
        if fewer.is_empty() {
            continue;
        }
        let mean = 100.0 * fewer.iter().sum::<f64>() / fewer.len() as f64;
        let worst = 100.0 * fewer.iter().copied().fold(f64::INFINITY, f64::min);
        println!("- {mean:.1} % fewer misses than {name} on average, {worst:.1} % at worst");
    }
    for (at, name) in NAMES.iter().enumerate() {
        let gap = |row: &Row| Some((row.1[1]? - row.1[at]?, row.1[1]? - row.1[10]?));
        let gaps: Vec<(f64, f64)> = rows.iter().filter_map(gap).collect();
        let (closed, whole) = gaps
            .iter()
            .fold((0.0, 0.0), |sum, gap| (sum.0 + gap.0, sum.1 + gap.1));
        if whole > 0.0 {
            println!(
                "- {name} goes {:.0} % of the way from LRU to Belady's bound",
                100.0 * closed / whole
            );
        }
    }
}
