//! Gets and puts of the same threads while the engine compacts and takes checkpoints, and the puts that
//! take longest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::data::{Data, Key};
use crate::engines::Subject;
use crate::stats::percentile;

/// Gets of a view, and to one put.
const GETS: usize = 99;
/// How long a mix is measured, and the puts at most.
const LONG: Duration = Duration::from_secs(4);
const MOST: Duration = Duration::from_secs(20);
/// Between two compactions.
const REST: Duration = Duration::from_millis(100);
/// Where the numbers of entries begin, how many belong to a thread, and to a round.
const FROM: u64 = 3 << 29;
const PER_THREAD: u64 = 1 << 26;
const PER_ROUND: u64 = 1 << 28;

pub struct Stalls<'e> {
    pub subject: &'e dyn Subject,
    pub data: Data,
    pub tidies: bool,
    pub puts: u64,
    pub round: u64,
}

impl Stalls<'_> {
    /// A mix and puts alone, by one thread and by two.
    pub fn run(&self) -> Value {
        let threads = [1, 2].map(|threads| {
            let mut gets = self.mix(threads);
            let puts = self.puts(threads);
            json!({
                "p50": percentile(&mut gets, 0.5),
                "p99": percentile(&mut gets, 0.99),
                "p99.9": percentile(&mut gets, 0.999),
                "puts": puts,
            })
        });
        json!(threads)
    }

    /// Times of gets with one put to 99 of them, while all space is given back again and again.
    fn mix(&self, threads: u64) -> Vec<u64> {
        let done = AtomicBool::new(false);
        let start = Instant::now();
        thread::scope(|scope| {
            if self.tidies {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        self.subject.tidy();
                        thread::sleep(REST);
                    }
                });
            }
            let mixers: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.mix_one(thread, start)))
                .collect();
            let times = mixers.into_iter().map(|mixer| mixer.join().expect("mixes"));
            let times = times.collect::<Vec<_>>().concat();
            done.store(true, Ordering::Release);
            times
        })
    }

    fn mix_one(&self, thread: u64, start: Instant) -> Vec<u64> {
        let (mut times, mut n) = (Vec::new(), self.from(thread));
        let mut random = Rng::with_seed(n);
        while start.elapsed() < LONG {
            let id = || random.u64(..self.data.keys);
            let ids = std::iter::repeat_with(id).take(GETS);
            let keys: Vec<Key> = ids.map(|id| self.data.key(id)).collect();
            self.subject.get_timed(&keys, GETS, &mut times);
            self.subject.put(&self.data.another(n));
            n += 1;
        }
        times
    }

    /// Puts as fast as threads can; how long they took, counts for each million of them.
    fn puts(&self, threads: u64) -> Value {
        let start = Instant::now();
        let times: Vec<u64> = thread::scope(|scope| {
            let putters: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.put_one(thread, self.puts / threads, start)))
                .collect();
            let times = putters
                .into_iter()
                .map(|putter| putter.join().expect("puts"));
            times.collect::<Vec<_>>().concat()
        });
        let over = |limit: Duration| {
            let over = times
                .iter()
                .filter(|&&time| u128::from(time) > limit.as_nanos());
            over.count() as f64 * 1e6 / times.len() as f64
        };
        json!({
            "longest": times.iter().max(),
            "over 1 ms": over(Duration::from_millis(1)),
            "over 10 ms": over(Duration::from_millis(10)),
            "count": times.len(),
        })
    }

    fn put_one(&self, thread: u64, count: u64, start: Instant) -> Vec<u64> {
        let mut times = Vec::with_capacity(count as usize);
        // Other numbers than those of the mix.
        let from = self.from(thread) + PER_THREAD / 2;
        for n in from..from + count {
            let entry = self.data.another(n);
            let before = Instant::now();
            self.subject.put(&entry);
            times.push(before.elapsed().as_nanos() as u64);
            if start.elapsed() > MOST {
                break;
            }
        }
        times
    }

    fn from(&self, thread: u64) -> u64 {
        FROM + self.round * PER_ROUND + thread * PER_THREAD
    }
}
