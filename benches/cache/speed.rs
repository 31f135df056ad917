//! What a call costs, in processor time of the thread: all caches loaded at once, and timed in turn, a
//! short slice each, so that all meet the same moments of a busy machine.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use fastrand::Rng;

use crate::cpu_time;
use crate::subjects::{Key, Make, SUBJECTS, Subject, VALUE, key};
use crate::workload::{Zipf, scramble};

const KEYS: usize = 1_000_000;
const SKEW: f64 = 0.99;
const SLICE: usize = 100_000;
const ROUNDS: usize = 7;

/// What one request does.
type Op = fn(&dyn Subject, &Key);

struct Row {
    name: &'static str,
    /// Nanoseconds of processor time of one call: with one thread and with two.
    ns: [f64; 2],
    /// Calls in a second with two threads, as a multiple of those with one.
    scaling: f64,
}

/// `part` is in the name of what is timed, one of `caches` in that of each cache.
pub fn run(part: &str, caches: &str) {
    let zipf = Zipf::new(KEYS, SKEW);
    let mut rng = Rng::with_seed(1);
    // Ranks are spread over the keys: hot ones are not neighbours.
    let draw = || key(scramble(zipf.draw(&mut rng)) % 1_000_000_000_000);
    let keys: Vec<Key> = std::iter::repeat_with(draw).take(SLICE * 10).collect();
    let all: Vec<Key> = (0..KEYS as u64)
        .map(|n| key(scramble(n) % 1_000_000_000_000))
        .collect();
    let new: Vec<Key> = (0..3_000_000)
        .map(|n| key(1_000_000_000_000 - 1 - n))
        .collect();
    let chosen = |name: &str| caches.split(',').any(|part| name.contains(part));
    let bounded = |name: &str| chosen(name) && !name.starts_with("map");

    if "hit".contains(part) {
        let subjects = load(&all, 2 * KEYS, chosen);
        let hit: Op = |subject, key| assert!(subject.read(key), "it is held");
        table(
            "hit, 1 M entries, zipf 0.99",
            measure(&subjects, &keys, hit),
        );
    }
    if "mixed".contains(part) {
        let subjects = load(&all[..KEYS / 5], KEYS / 10, bounded);
        let mixed: Op = |subject, key| {
            if !subject.read(key) {
                subject.insert(key, &[7; VALUE]);
            }
        };
        table(
            "get, insert on a miss; room for 100,000 of 1 M",
            measure(&subjects, &keys, mixed),
        );
    }
    if "insert".contains(part) {
        let subjects = load(&all[..KEYS / 5], KEYS / 10, bounded);
        let insert: Op = |subject, key| subject.insert(key, &[7; VALUE]);
        table(
            "insert of new keys, room for 100,000",
            measure(&subjects, &new, insert),
        );
    }
}

type Loaded = Vec<(&'static str, Arc<dyn Subject>)>;

fn load(keys: &[Key], entries: usize, wanted: impl Fn(&str) -> bool) -> Loaded {
    let wanted = SUBJECTS.iter().filter(|(name, _)| wanted(name));
    let make = |(name, make): &(&'static str, Make)| {
        let subject = make(entries);
        keys.iter().for_each(|key| subject.insert(key, &[7; VALUE]));
        // What works in the background gets its chance.
        keys.iter().take(SLICE).for_each(|key| {
            black_box(subject.read(key));
        });
        (*name, subject)
    };
    wanted.map(make).collect()
}

fn measure(subjects: &Loaded, keys: &[Key], op: Op) -> Vec<Row> {
    // Timed slices come after another one that is not: a cache in use finds its hot entries near.
    let mut slices = keys.chunks_exact(SLICE).cycle();
    let mut times = vec![[const { Vec::new() }; 4]; subjects.len()];
    for round in 0..=ROUNDS {
        let warm = slices.next().expect("they go round");
        let slice = slices.next().expect("they go round");
        // Whoever comes first finds a colder machine: another one each time.
        for turn in 0..subjects.len() {
            let at = (turn + round) % subjects.len();
            let subject = &subjects[at].1;
            together(subject, &[warm], op);
            let alone = together(subject, &[slice], op);
            let (left, right) = warm.split_at(SLICE / 2);
            let both = together(subject, &[left, right], op);
            // The first round fills, warms and settles.
            if round > 0 {
                let measured = [alone.0, both.0, alone.1, both.1];
                times[at]
                    .iter_mut()
                    .zip(measured)
                    .for_each(|(times, time)| times.push(time));
            }
        }
    }
    let row = |(times, (name, _)): (&mut [Vec<f64>; 4], &(&'static str, Arc<dyn Subject>))| {
        let [alone, both, wall_alone, wall_both] = times.each_mut().map(|times| median(times));
        Row {
            name,
            ns: [alone, both],
            scaling: wall_alone / wall_both,
        }
    };
    times.iter_mut().zip(subjects).map(row).collect()
}

/// Runs the slices in a thread each; returns processor and wall nanoseconds for each key.
fn together(subject: &Arc<dyn Subject>, slices: &[&[Key]], op: Op) -> (f64, f64) {
    let started = Instant::now();
    let run = |keys: &[Key]| {
        let from = cpu_time::now();
        keys.iter().for_each(|key| op(&**subject, key));
        cpu_time::now() - from
    };
    let cpu: f64 = thread::scope(|scope| {
        let threads: Vec<_> = slices
            .iter()
            .map(|keys| scope.spawn(|| run(keys)))
            .collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ran"));
        times.map(|time| time.as_nanos() as f64).sum()
    });
    let keys: usize = slices.iter().map(|keys| keys.len()).sum();
    (
        cpu / keys as f64,
        started.elapsed().as_nanos() as f64 / keys as f64,
    )
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn table(what: &str, rows: Vec<Row>) {
    println!("\n{what}:\n");
    println!(
        "| cache | CPU ns, 1 thread | x quick_cache | CPU ns, 2 threads | x quick_cache | 2 / 1 threads |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let quick = rows
        .iter()
        .find(|row| row.name == "quick_cache")
        .map_or([1.0; 2], |row| row.ns);
    for Row {
        name,
        ns: [alone, both],
        scaling,
    } in rows
    {
        let (x1, x2) = (alone / quick[0], both / quick[1]);
        println!("| {name} | {alone:.0} | {x1:.2} | {both:.0} | {x2:.2} | {scaling:.2} |");
    }
}
