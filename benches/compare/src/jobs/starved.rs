//! Gets of an engine whose entries do not fit into memory.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::data::{Data, Key};
use crate::engines::{Subject, Touch};
use crate::process::read_bytes;
use crate::stats::percentile;

/// How long each figure is measured, and half as long what is most asked for finds its place in memory.
const LONG: Duration = Duration::from_secs(4);
/// Keys between two looks at the time, and of a batch.
const KEYS: usize = 100;
/// Keys that are looked for first.
const SOUGHT: u64 = 500;

/// Gets of random keys by one thread, by two, and many at once.
pub fn run(subject: &dyn Subject, data: Data) -> Value {
    let step = (data.keys / SOUGHT).max(1) as usize;
    for id in (0..data.keys).step_by(step) {
        assert!(
            subject.find(data.key(id).as_ref()).is_some(),
            "a key is gone"
        );
    }
    let random = |seed| Asked {
        data,
        random: Rng::with_seed(seed),
    };
    let get = |keys: &[Key]| {
        subject.get(keys, usize::MAX, Touch::Ends);
    };
    run_for(LONG / 2, random(1), get);
    let (read, mut times) = (read_bytes(), Vec::new());
    let one = run_for(LONG, random(2), |keys| {
        subject.get_timed(keys, usize::MAX, &mut times);
    });
    let read = (read_bytes() - read) as f64 / times.len() as f64;
    let two: f64 = thread::scope(|scope| {
        let start = |seed| scope.spawn(move || run_for(LONG, random(seed), get));
        let threads = [start(3), start(4)];
        threads
            .map(|thread| thread.join().expect("reads"))
            .iter()
            .sum()
    });
    let many = run_for(LONG, random(5), |keys| {
        subject.get_many(keys, KEYS);
    });
    json!({
        "p50": percentile(&mut times, 0.5),
        "p99": percentile(&mut times, 0.99),
        "read": read,
        "one": one,
        "two": two,
        "many": many,
    })
}

/// Random keys without end, so that no list of them takes memory.
struct Asked {
    data: Data,
    random: Rng,
}

/// Calls `get` with other keys for so long; how many keys in a second.
fn run_for(long: Duration, mut asked: Asked, mut get: impl FnMut(&[Key])) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < long {
        let ids = std::iter::repeat_with(|| asked.random.u64(..asked.data.keys));
        let keys: Vec<Key> = ids.take(KEYS).map(|id| asked.data.key(id)).collect();
        get(&keys);
        count += keys.len();
    }
    count as f64 / start.elapsed().as_secs_f64()
}
