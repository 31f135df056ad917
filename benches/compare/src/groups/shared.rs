//! Whether readers get in each other's way: processor time of gets by one, two and four threads, all of
//! the same key or each of keys of its own.
//!
//! A line of memory that every get writes, such as the word of a read-write lock, moves from core to core:
//! a get then costs more the more threads there are, on as few as two cores. `ram-hash` shows how much.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::reads::Subjects;
use crate::bench::{Bench, turns};
use crate::data::Key;
use crate::engines::{Subject, Touch};
use crate::process::thread_time;
use crate::results::Unit;
use crate::stats::median;

const GROUP: &str = "shared";
const THREADS: [usize; 3] = [1, 2, 4];
/// How long threads read in a turn, so that they surely meet, and gets between two looks at the time; each
/// has a view of its own, as those of a server do.
const LONG: Duration = Duration::from_millis(50);
const GETS: usize = 1000;

/// Threads that had less of two cores than this did not meet often enough to say anything.
const CORES: f64 = 1.5;

pub fn run(bench: &mut Bench, subjects: &Subjects) {
    bench.say(GROUP);
    let keys = bench.data.uniform(4);
    let mut cores = Vec::new();
    for round in 0..=bench.args.rounds {
        for kind in turns(&bench.kinds, round) {
            for (what, step) in [("the same key", 0), ("a key each", 1)] {
                let key = |n: usize| keys[n * step];
                let turn = THREADS.map(|threads| together(&*subjects[kind.name], threads, key));
                cores.push(turn[1].1);
                if round > 0 {
                    keep(bench, kind.name, what, turn.map(|(each, _)| each));
                }
            }
        }
    }
    let cores = median(&cores);
    if cores < CORES {
        let had = format!("two threads had {cores:.1} cores at once");
        bench.note(format!("{GROUP} says nothing here: {had}"));
    }
}

fn keep(bench: &mut Bench, engine: &'static str, what: &str, each: [f64; 3]) {
    for (threads, time) in THREADS.into_iter().zip(each) {
        let row = format!("{what}, {threads} at once");
        bench.add(GROUP, &row, Unit::Time, engine, time);
        if threads > 1 {
            let (row, ratio) = (format!("{row} / alone"), time / each[0]);
            bench.add(GROUP, &row, Unit::Times, engine, ratio);
        }
    }
}

pub fn wanted(bench: &Bench) -> bool {
    bench.wants(GROUP, "the same key, at once")
}

/// Nanoseconds of processor time for a get, a mean over threads that begin together, and how many cores
/// they had.
fn together(subject: &dyn Subject, threads: usize, key: impl Fn(usize) -> Key) -> (f64, f64) {
    let ready = Barrier::new(threads);
    let found: Vec<(f64, f64)> = thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|n| {
                let (keys, ready) = (vec![key(n); GETS], &ready);
                scope.spawn(move || {
                    ready.wait();
                    let (start, cpu, mut gets) = (Instant::now(), thread_time(), 0);
                    while start.elapsed() < LONG {
                        subject.get(&keys, 1, Touch::Ends);
                        gets += keys.len();
                    }
                    let (cpu, wall) = (thread_time() - cpu, start.elapsed());
                    let each = cpu.as_nanos() as f64 / gets as f64;
                    (each, cpu.as_secs_f64() / wall.as_secs_f64())
                })
            })
            .collect();
        let found = readers.into_iter().map(|r| r.join().expect("reads"));
        found.collect()
    });
    let each: f64 = found.iter().map(|(each, _)| each).sum();
    let cores = found.iter().map(|(_, cores)| cores).sum();
    (each / threads as f64, cores)
}
