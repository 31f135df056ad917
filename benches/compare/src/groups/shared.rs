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

const GROUP: &str = "shared";
const THREADS: [usize; 3] = [1, 2, 4];
/// How long threads read in a turn, so that they surely meet, and gets between two looks at the time; each
/// has a view of its own, as those of a server do.
const LONG: Duration = Duration::from_millis(50);
const GETS: usize = 1000;

pub fn run(bench: &mut Bench, subjects: &Subjects) {
    bench.say(GROUP);
    let keys = bench.data.uniform(THREADS.len().max(4));
    for round in 0..=bench.args.rounds {
        for kind in turns(&bench.kinds, round) {
            let subject = &*subjects[kind.name];
            for (what, step) in [("the same key", 0), ("a key each", 1)] {
                let mut first = None;
                for threads in THREADS {
                    let own = |n: usize| keys[n * step];
                    let each = together(subject, threads, own);
                    if round == 0 {
                        continue;
                    }
                    let row = format!("{what}, {threads} at once");
                    bench.add(GROUP, &row, Unit::Time, kind.name, each);
                    let ratio = each / *first.get_or_insert(each);
                    if threads > 1 {
                        bench.add(
                            GROUP,
                            &format!("{row} / alone"),
                            Unit::Times,
                            kind.name,
                            ratio,
                        );
                    }
                }
            }
        }
    }
}

pub fn wanted(bench: &Bench) -> bool {
    bench.wants(GROUP, "the same key, at once")
}

/// Nanoseconds of processor time for a get, a mean over threads that begin together.
fn together(subject: &dyn Subject, threads: usize, key: impl Fn(usize) -> Key) -> f64 {
    let ready = Barrier::new(threads);
    let times: Vec<f64> = thread::scope(|scope| {
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
                    (thread_time() - cpu).as_nanos() as f64 / gets as f64
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().expect("reads"))
            .collect()
    });
    times.iter().sum::<f64>() / threads as f64
}
