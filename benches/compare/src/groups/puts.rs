//! Overwriting single keys, each put a commit of its own.

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Instant;

use rustix::fs::{FallocateFlags, fallocate};

use crate::bench::{Bench, turns};
use crate::data::Entry;
use crate::engines::{Kind, Subject, stored};
use crate::results::Unit;
use crate::stats::percentile;

const GROUP: &str = "put";
const PLAIN: &str = "put, not flushed";
const DURABLE: &str = "durable put p50";
const RATE: &str = "durable puts, 1 thread";
const EIGHT: &str = "durable puts, 8 threads";
/// What nothing can do with less: an append and a flush.
const LIMIT: &str = "limit";
/// Half of the puts of a turn, not flushed and flushed.
const PLAIN_PUTS: usize = 10_000;
const DURABLE_PUTS: usize = 500;
/// Bytes of the values of a turn, about: large ones are fewer.
const BYTES: u64 = 256 << 20;
const THREADS: usize = 8;
/// Where the numbers of entries begin, so that nobody writes the same bytes twice.
const PLAIN_FROM: u64 = 1 << 29;
const FLUSHED: u64 = 1 << 30;

pub fn run(bench: &mut Bench) {
    if bench.wants(GROUP, PLAIN) {
        bench.say(PLAIN);
        let stores = bench.stores();
        measure(bench, &stores, false);
    }
    if [DURABLE, RATE, EIGHT]
        .iter()
        .any(|row| bench.wants(GROUP, row))
    {
        bench.say(DURABLE);
        let stores = bench.stores();
        measure(bench, &stores, true);
    }
}

fn measure(bench: &mut Bench, stores: &[Kind], durable: bool) {
    let open = |kind: &Kind| (kind.name, kind.open(&bench.setup(*kind, durable)));
    let subjects: Vec<(&str, Box<dyn Subject>)> = stores.iter().map(open).collect();
    let data = bench.data;
    let most = if durable { DURABLE_PUTS } else { PLAIN_PUTS };
    let fit = BYTES / data.values.mean() / 2;
    let puts = most.min(usize::try_from(fit).unwrap_or(most));
    let limit = bare_file(bench);
    for round in 0..=bench.args.rounds {
        let first = (2 * round * puts) as u64 + if durable { FLUSHED } else { PLAIN_FROM };
        let numbers = first..first + 2 * puts as u64;
        let entries: Vec<Entry> = numbers.map(|n| data.another(n)).collect();
        for kind in turns(stores, round) {
            let found = subjects.iter().find(|(name, _)| *name == kind.name);
            let subject = &*found.expect("opened").1;
            let figures = match durable {
                true => durable_puts(&entries, |entry| subject.put(entry)),
                false => vec![plain_puts(&entries, subject)],
            };
            keep(bench, round, kind.name, figures);
        }
        if durable {
            let append = |entry: &Entry| append(&limit, entry);
            keep(bench, round, LIMIT, durable_puts(&entries, append));
        }
    }
    for (_, subject) in subjects {
        subject.sync();
        subject.close();
    }
}

type Figure = (&'static str, Unit, f64);

/// Every round but the first, which warms.
fn keep(bench: &mut Bench, round: usize, engine: &'static str, figures: Vec<Figure>) {
    for (row, unit, value) in figures.into_iter().filter(|_| round > 0) {
        bench.add(GROUP, row, unit, engine, value);
    }
}

fn plain_puts(entries: &[Entry], subject: &dyn Subject) -> Figure {
    let start = Instant::now();
    entries.iter().for_each(|entry| subject.put(entry));
    let each = start.elapsed().as_nanos() as f64 / entries.len() as f64;
    (PLAIN, Unit::Time, each)
}

/// One half by one thread, the other by eight.
fn durable_puts(entries: &[Entry], put: impl Fn(&Entry) + Sync) -> Vec<Figure> {
    let (first, second) = entries.split_at(entries.len() / 2);
    let begin = Instant::now();
    let mut times: Vec<u64> = Vec::new();
    for entry in first {
        let start = Instant::now();
        put(entry);
        times.push(start.elapsed().as_nanos() as u64);
    }
    let one = first.len() as f64 / begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    thread::scope(|scope| {
        for part in second.chunks(second.len().div_ceil(THREADS)) {
            let put = &put;
            scope.spawn(move || part.iter().for_each(put));
        }
    });
    let eight = second.len() as f64 / begin.elapsed().as_secs_f64();
    vec![
        (DURABLE, Unit::Time, percentile(&mut times, 0.5)),
        (RATE, Unit::Rate, one),
        (EIGHT, Unit::Rate, eight),
    ]
}

/// A file with room for all that is appended.
fn bare_file(bench: &Bench) -> File {
    let file = File::create(bench.dir().join("bare")).expect("a file");
    fallocate(&file, FallocateFlags::empty(), 0, 256 << 20).expect("room");
    file.sync_all().expect("flushes");
    file
}

fn append(mut file: &File, entry: &Entry) {
    let record = [&entry.key[..], &stored(entry)].concat();
    file.write_all(&record).expect("appends");
    file.sync_data().expect("flushes");
}
