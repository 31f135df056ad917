//! Gets and lists from memory, all engines open at once.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::bench::{Bench, turns};
use crate::data::{Data, Entry, Key};
use crate::engines::{Kind, Subject, Touch, stored};
use crate::process::thread_time;
use crate::results::Unit;
use crate::stats::percentile;

/// Keys in a sequence of gets; rounds take slices of it.
const ASKED: usize = 1 << 20;
/// Gets between two puts of the background writer.
const MIXED: usize = 99;
/// Keys of a page, the limit of one in Workers KV.
const PAGE: usize = 1000;
/// Entries of a commit that makes a hundredth of the keys fresh.
const FRESH: usize = 100;

/// What one turn of an engine found: figures by name, and the digest of what was read.
type Turn = (Vec<(&'static str, f64)>, u64);

struct Row {
    group: &'static str,
    names: &'static [&'static str],
    unit: Unit,
    can: fn(&Kind) -> bool,
    turn: fn(&dyn Subject, &Asked, usize) -> Turn,
}

const ANY: fn(&Kind) -> bool = |_| true;
const LISTS: fn(&Kind) -> bool = |kind| kind.can.lists;
const WRITES: fn(&Kind) -> bool = |kind| kind.can.writes;

const ROWS: &[Row] = &[
    row("get", &["get uniform"], ANY, |engine, asked, round| {
        gets(
            engine,
            asked.take(&asked.uniform, round, 1),
            Touch::Ends,
            "get uniform",
        )
    }),
    row("get", &["get zipf 0.99"], ANY, |engine, asked, round| {
        gets(
            engine,
            asked.take(&asked.zipf, round, 1),
            Touch::Ends,
            "get zipf 0.99",
        )
    }),
    row(
        "get",
        &["get, every byte summed"],
        ANY,
        |engine, asked, round| {
            let keys = asked.take(&asked.uniform, round, 2);
            gets(engine, keys, Touch::All, "get, every byte summed")
        },
    ),
    row("get", &["get missing"], ANY, |engine, asked, round| {
        gets(
            engine,
            asked.take(&asked.missing, round, 1),
            Touch::Ends,
            "get missing",
        )
    }),
    row(
        "get",
        &["get 100 at once, each"],
        ANY,
        |engine, asked, round| {
            let keys = asked.take(&asked.uniform, round, 1);
            let (ns, digest) = cpu(|| engine.get_many(keys, 100));
            (
                vec![("get 100 at once, each", ns / keys.len() as f64)],
                digest,
            )
        },
    ),
    row(
        "latency",
        &["get p50", "get p99", "get p99.9"],
        ANY,
        |engine, asked, round| {
            let mut times = Vec::with_capacity(ASKED);
            let keys = asked.take(&asked.uniform, round, 1);
            let digest = engine.get_timed(keys, usize::MAX, &mut times);
            (
                percentiles(["get p50", "get p99", "get p99.9"], &mut times),
                digest,
            )
        },
    ),
    Row {
        group: "threads",
        names: &["gets by 1 thread", "gets by 2 threads"],
        unit: Unit::Rate,
        can: ANY,
        turn: |engine, asked, round| {
            let keys = asked.take(&asked.uniform, round, 1);
            let one = threads(engine, &[keys]);
            let two = threads(engine, &[keys, keys]);
            (
                vec![("gets by 1 thread", one), ("gets by 2 threads", two)],
                0,
            )
        },
    },
    row(
        "list",
        &["page of 1000 with metadata"],
        LISTS,
        |engine, asked, round| {
            let starts = asked.take(&asked.uniform, round, 1000);
            let (ns, digest) = cpu(|| engine.list(starts, PAGE));
            (
                vec![("page of 1000 with metadata", ns / starts.len() as f64)],
                digest,
            )
        },
    ),
    row("list", &["page of 1"], LISTS, |engine, asked, round| {
        let starts = asked.take(&asked.uniform, round, 10);
        let (ns, digest) = cpu(|| engine.list(starts, 1));
        (vec![("page of 1", ns / starts.len() as f64)], digest)
    }),
    // Last, as it changes what some engines hold.
    row("latency", &MIXED_NAMES, WRITES, mixed),
];

const MIXED_NAMES: [&str; 3] = ["99/1 get p50", "99/1 get p99", "99/1 get p99.9"];

const fn row(
    group: &'static str,
    names: &'static [&'static str],
    can: fn(&Kind) -> bool,
    turn: fn(&dyn Subject, &Asked, usize) -> Turn,
) -> Row {
    let unit = Unit::Time;
    Row {
        group,
        names,
        unit,
        can,
        turn,
    }
}

/// What is asked for, in slices.
struct Asked {
    uniform: Vec<Key>,
    zipf: Vec<Key>,
    missing: Vec<Key>,
    data: Data,
    /// Gets of a turn.
    gets: usize,
}

impl Asked {
    fn new(data: Data) -> Asked {
        // A turn reads about 100 MiB, at least a few gets, and at most so many that it ends soon.
        let gets = ((100 << 20) / data.values.mean()).clamp(200, 100_000) as usize;
        Asked {
            uniform: data.uniform(ASKED),
            zipf: data.zipf(ASKED),
            missing: data.missing(ASKED),
            data,
            gets,
        }
    }

    /// The next keys of a sequence, as many as a turn asks for or a part of that.
    fn take<'k>(&self, keys: &'k [Key], round: usize, part: usize) -> &'k [Key] {
        let turns = keys.len() / self.gets;
        let start = round % turns * self.gets;
        &keys[start..start + (self.gets / part).max(20)]
    }
}

pub fn run(bench: &mut Bench) {
    let wanted = |row: &&Row| row.names.iter().any(|name| bench.wants(row.group, name));
    let rows: Vec<&Row> = ROWS.iter().filter(wanted).collect();
    if rows.is_empty() {
        return;
    }
    let subjects = open(bench);
    let asked = Asked::new(bench.data);
    for row in rows {
        bench.say(row.names[0]);
        measure(bench, row, &subjects, &asked);
    }
    subjects.into_values().for_each(Subject::close);
}

/// Opens all engines, with a hundredth of the keys just overwritten, and checks every byte.
fn open(bench: &mut Bench) -> HashMap<&'static str, Box<dyn Subject>> {
    let mut data = bench.data;
    let fresh: Vec<Entry> = data.freshen().flatten().collect();
    bench.data = data;
    let mut subjects = HashMap::new();
    for kind in bench.kinds.clone() {
        bench.say(&format!("read all of {}", kind.name));
        let mut subject = kind.open(&bench.setup(kind, false));
        if kind.can.files {
            fresh
                .chunks(FRESH)
                .for_each(|entries| subject.put_all(entries));
        } else {
            subject.load(&mut data.batches());
        }
        for entry in data.batches().flatten() {
            assert_eq!(
                subject.find(&entry.key),
                Some(stored(&entry)),
                "{}",
                kind.name
            );
        }
        subjects.insert(kind.name, subject);
    }
    subjects
}

/// A round that does not count, then those that do.
fn measure(
    bench: &mut Bench,
    row: &Row,
    subjects: &HashMap<&'static str, Box<dyn Subject>>,
    asked: &Asked,
) {
    let kinds: Vec<Kind> = bench.kinds.iter().copied().filter(row.can).collect();
    for round in 0..=bench.args.rounds {
        let mut expected = None;
        for kind in turns(&kinds, round) {
            let (figures, digest) = (row.turn)(&*subjects[kind.name], asked, round);
            let (first, of) = *expected.get_or_insert((digest, kind.name));
            assert_eq!(digest, first, "{} and {of} read other bytes", kind.name);
            for (name, value) in figures {
                if round > 0 {
                    bench.add(row.group, name, row.unit, kind.name, value);
                }
            }
        }
    }
}

/// Nanoseconds of this thread that something takes, and what it returns.
fn cpu(f: impl FnOnce() -> u64) -> (f64, u64) {
    let start = thread_time();
    let digest = f();
    ((thread_time() - start).as_nanos() as f64, digest)
}

fn gets(engine: &dyn Subject, keys: &[Key], touch: Touch, name: &'static str) -> Turn {
    let (ns, digest) = cpu(|| engine.get(keys, usize::MAX, touch));
    (vec![(name, ns / keys.len() as f64)], digest)
}

fn percentiles(names: [&'static str; 3], times: &mut [u64]) -> Vec<(&'static str, f64)> {
    let shares = names.into_iter().zip([0.5, 0.99, 0.999]);
    shares
        .map(|(name, share)| (name, percentile(times, share)))
        .collect()
}

/// Gets while another thread writes one entry for every 99 of them. What is read depends on time, so
/// that there is no digest.
fn mixed(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    let mut times = Vec::with_capacity(keys.len());
    let (due, puts) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in puts {
                engine.put(&asked.data.another(n));
            }
        });
        for (n, keys) in keys.chunks(MIXED).enumerate() {
            due.send((round * asked.gets + n) as u64).expect("a writer");
            engine.get_timed(keys, MIXED, &mut times);
        }
        drop(due);
    });
    (percentiles(MIXED_NAMES, &mut times), 0)
}

/// Gets in a second by as many threads as there are sequences, all together.
fn threads(engine: &dyn Subject, sequences: &[&[Key]]) -> f64 {
    let ready = Barrier::new(sequences.len() + 1);
    let start = thread::scope(|scope| {
        for (n, keys) in sequences.iter().enumerate() {
            let ready = &ready;
            scope.spawn(move || {
                ready.wait();
                // Threads that read the same keys read them at different times.
                let (second, first) = keys.split_at(n * keys.len() / 2);
                engine.get(first, usize::MAX, Touch::Ends);
                engine.get(second, usize::MAX, Touch::Ends);
            });
        }
        ready.wait();
        Instant::now()
    });
    let gets: usize = sequences.iter().map(|keys| keys.len()).sum();
    gets as f64 / start.elapsed().as_secs_f64()
}
