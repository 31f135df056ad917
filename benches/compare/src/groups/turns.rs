//! What an engine does in its turn with all entries in memory, row by row.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Instant;

use crate::data::{Data, Entry, Key};
use crate::engines::{Kind, Subject, Touch};
use crate::process::thread_time;
use crate::results::Unit;
use crate::stats::percentile;

/// Keys in a sequence of gets; rounds take slices of it.
const ASKED: usize = 1 << 20;
/// Keys of a page, the limit of one in Workers KV.
const PAGE: usize = 1000;
/// Keys of a batch.
const BATCH: usize = 100;
/// Gets between two puts of the background writer, and with one view.
const MIXED: usize = 99;
/// Entries of a commit of the writer that never rests, at most, and their bytes, about.
const BUSY: u64 = 1000;
const BUSY_BYTES: u64 = 4 << 20;
/// Where the numbers of its entries begin.
const BUSY_FROM: u64 = 1 << 28;

/// The figures of a turn, one for each name of the row, and the digest of what was read.
pub type Turn = (Vec<f64>, u64);

type Take = fn(&dyn Subject, &Asked, usize) -> Turn;

pub struct Row {
    pub group: &'static str,
    pub names: &'static [&'static str],
    pub unit: Unit,
    /// Which engines can do it.
    pub can: fn(&Kind) -> bool,
    pub turn: Take,
}

/// Processor time of one thread, but for latencies and what takes two threads, which are by the wall.
/// What changes entries is last.
pub const ROWS: &[Row] = &[
    row("get", &["get uniform"], uniform),
    row("get", &["get zipf 0.99"], zipf),
    row("get", &["get, every byte summed"], summed),
    row("get", &["get missing"], missing),
    row("get", &["get 100 at once, each"], batch),
    row("latency", &["get p50", "get p99", "get p99.9"], latency),
    row(
        "threads",
        &["gets by 1 thread", "gets by 2 threads"],
        readers,
    )
    .rate(),
    row("list", &["page of 1000 with metadata"], page).only(|kind| kind.can.lists),
    row("list", &["page of 1"], seek).only(|kind| kind.can.lists),
    row(
        "latency",
        &["99/1 get p50", "99/1 get p99", "99/1 get p99.9"],
        mixed,
    )
    .only(|kind| kind.can.writes),
    row(
        "latency",
        &[
            "get p50, busy writer",
            "get p99, busy writer",
            "get p99.9, busy writer",
        ],
        busy,
    )
    .only(|kind| kind.can.writes),
];

const fn row(group: &'static str, names: &'static [&'static str], turn: Take) -> Row {
    let (unit, can): (_, fn(&Kind) -> bool) = (Unit::Time, |_| true);
    Row {
        group,
        names,
        unit,
        can,
        turn,
    }
}

impl Row {
    const fn only(self, can: fn(&Kind) -> bool) -> Row {
        Row { can, ..self }
    }

    const fn rate(self) -> Row {
        Row {
            unit: Unit::Rate,
            ..self
        }
    }
}

/// What is asked for, in slices.
pub struct Asked {
    uniform: Vec<Key>,
    zipf: Vec<Key>,
    missing: Vec<Key>,
    data: Data,
    /// Gets of a turn.
    gets: usize,
}

impl Asked {
    pub fn new(data: Data) -> Asked {
        // A turn reads about 100 MiB, at least a few gets, and at most so many that it ends soon.
        let gets = ((100 << 20) / data.values.mean()).clamp(200, 50_000) as usize;
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
        let start = round % (keys.len() / self.gets) * self.gets;
        &keys[start..start + (self.gets / part).max(20)]
    }
}

fn uniform(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    each(keys, || engine.get(keys, usize::MAX, Touch::Ends))
}

fn zipf(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.zipf, round, 1);
    each(keys, || engine.get(keys, usize::MAX, Touch::Ends))
}

fn summed(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 2);
    each(keys, || engine.get(keys, usize::MAX, Touch::All))
}

fn missing(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.missing, round, 1);
    each(keys, || engine.get(keys, usize::MAX, Touch::Ends))
}

fn batch(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    each(keys, || engine.get_many(keys, BATCH))
}

fn page(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let starts = asked.take(&asked.uniform, round, 1000);
    each(starts, || engine.list(starts, PAGE))
}

fn seek(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let starts = asked.take(&asked.uniform, round, 10);
    each(starts, || engine.list(starts, 1))
}

/// Nanoseconds of this thread for each key.
fn each(keys: &[Key], read: impl FnOnce() -> u64) -> Turn {
    let start = thread_time();
    let digest = read();
    let took = thread_time() - start;
    (vec![took.as_nanos() as f64 / keys.len() as f64], digest)
}

fn latency(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    let mut times = Vec::with_capacity(keys.len());
    let digest = engine.get_timed(keys, usize::MAX, &mut times);
    (percentiles(&mut times), digest)
}

fn percentiles(times: &mut [u64]) -> Vec<f64> {
    let shares = [0.5, 0.99, 0.999];
    shares.map(|share| percentile(times, share)).to_vec()
}

/// Gets while another thread writes one entry for every 99 of them. What is read depends on time, so
/// that there is no digest.
fn mixed(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    let mut times = Vec::with_capacity(keys.len());
    let (due, puts) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        scope.spawn(|| {
            puts.into_iter()
                .for_each(|n| engine.put(&asked.data.another(n)))
        });
        for (n, keys) in keys.chunks(MIXED).enumerate() {
            due.send((round * asked.gets + n) as u64).expect("a writer");
            engine.get_timed(keys, MIXED, &mut times);
        }
        drop(due);
    });
    (percentiles(&mut times), 0)
}

/// Gets while another thread overwrites as fast as it can, and the engine tidies up behind it.
fn busy(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    let mut times = Vec::with_capacity(keys.len());
    let done = AtomicBool::new(false);
    let busy = (BUSY_BYTES / asked.data.values.mean()).clamp(1, BUSY);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = BUSY_FROM + ((round as u64) << 20);
            while !done.load(Ordering::Relaxed) {
                let entries: Vec<Entry> = (n..n + busy).map(|n| asked.data.another(n)).collect();
                engine.put_all(&entries);
                n += busy;
            }
        });
        engine.get_timed(keys, MIXED, &mut times);
        done.store(true, Ordering::Relaxed);
    });
    (percentiles(&mut times), 0)
}

/// Gets in a second by one thread, and by two at once.
fn readers(engine: &dyn Subject, asked: &Asked, round: usize) -> Turn {
    let keys = asked.take(&asked.uniform, round, 1);
    let rates = [1, 2].map(|threads| together(engine, keys, threads));
    (rates.to_vec(), 0)
}

/// Every thread reads all keys, each beginning at another place.
fn together(engine: &dyn Subject, keys: &[Key], threads: usize) -> f64 {
    let ready = Barrier::new(threads + 1);
    let start = thread::scope(|scope| {
        for n in 0..threads {
            let ready = &ready;
            scope.spawn(move || {
                let (last, first) = keys.split_at(n * keys.len() / threads);
                ready.wait();
                engine.get(first, usize::MAX, Touch::Ends);
                engine.get(last, usize::MAX, Touch::Ends);
            });
        }
        ready.wait();
        Instant::now()
    });
    (threads * keys.len()) as f64 / start.elapsed().as_secs_f64()
}
