//! Writes, expires, deletes and reads for long at a gentle rate, and fails if memory, descriptors,
//! mappings, threads or space grow, or a wrong byte is read.
//!
//! `cargo run --release -p rimstone-bench --example churn -- [MINUTES] [OPERATIONS_A_SECOND] [leak]`
//!
//! Time runs sixty times as fast for the store, so that what lives for hours expires within minutes, and
//! an hour of churn sees two days and a half. `leak` loses a little memory all the time: then it must fail.
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(
    clippy::indexing_slicing,
    reason = "a panic here ends a test, as it should"
)]

mod load;
mod sample;
mod slope;

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use load::Load;
use rimstone::{Clock, Durability, Options, Store};
use sample::Sample;
use slope::Judged;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);
/// Between two bursts of operations; short beside what people notice, long beside what waking costs.
const TICK: Duration = Duration::from_millis(10);
const TICKS: u64 = 100;
/// Seconds of the store's clock for each that passes.
const FAST: u64 = 60;
/// What `leak` loses in a second: 36 MiB an hour.
const LEAK: usize = 10 << 10;

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let minutes: f64 = args.next().map_or(Ok(60.0), |text| text.parse())?;
    let rate: u64 = args.next().map_or(Ok(10_000), |text| text.parse())?;
    let leak = args.next().is_some_and(|text| text == "leak");
    let dir = tempfile::tempdir()?;
    let clock = Clock::manual(1_700_000_000);
    let store = Options::new()
        .durability(Durability::Interval(Duration::from_secs(1)))
        .clock(clock.clone())
        .open(dir.path())?;
    let load = Load::fill(&store)?;
    let period = Duration::from_secs_f64(60.0 * minutes);
    let (samples, cpu) = churn(&store, &load, &clock, dir.path(), period, rate, leak)?;
    println!(
        "{} operations, {:.0} % of a core",
        load.count(),
        100.0 * cpu
    );
    let stats = store.stats();
    if let Some(error) = &stats.maintenance_error {
        println!("maintenance: {error}");
    }
    let calm = stats.maintenance_error.is_none() && stats.damage.is_empty();
    store.close()?;
    Ok(match judge(&samples) && calm {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Runs a writer and a reader, and looks at the process from time to time; what was seen, and how much
/// of a core it took.
fn churn(
    store: &Store,
    load: &Load,
    clock: &Clock,
    dir: &Path,
    period: Duration,
    rate: u64,
    leak: bool,
) -> Result<(Vec<Sample>, f64)> {
    let mut samples = Vec::new();
    // Half of them writes, half reads.
    let burst = (rate / TICKS / 2).max(1);
    let (began, cpu) = (Instant::now(), sample::processor_time());
    thread::scope(|scope| -> Result<()> {
        let threads = [
            scope.spawn(|| paced(began, period, |random| load.write(random, burst))),
            scope.spawn(|| paced(began, period, |random| load.read(random, burst))),
        ];
        let mut next = EVERY;
        let mut seconds = 0;
        println!("{}", Sample::HEAD);
        while began.elapsed() < period && threads.iter().all(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_secs(1));
            let passed = began.elapsed().as_secs() - seconds;
            seconds += passed;
            clock.advance(passed * FAST);
            if leak {
                std::mem::forget(std::hint::black_box(vec![
                    1u8;
                    LEAK * usize::try_from(passed)?
                ]));
            }
            if began.elapsed() >= next {
                next += EVERY;
                let sample = Sample::take(began.elapsed(), store, dir, load.longest())?;
                println!("{sample}");
                samples.push(sample);
            }
        }
        for thread in threads {
            thread.join().map_err(|_| "a wrong answer")??;
        }
        Ok(())
    })?;
    let took = began.elapsed().as_secs_f64();
    Ok((samples, (sample::processor_time() - cpu) / took))
}

/// Calls `burst` at every tick until the time is over. Who is late does not hurry afterwards.
fn paced(
    began: Instant,
    period: Duration,
    mut burst: impl FnMut(&mut fastrand::Rng) -> Result<()>,
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(5);
    while began.elapsed() < period {
        let start = Instant::now();
        burst(&mut random)?;
        thread::sleep(TICK.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// Prints what the second half says; whether nothing grows.
fn judge(samples: &[Sample]) -> bool {
    let half = &samples[samples.len() / 2..];
    let of = |value: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        half.iter().map(|s| (s.hours(), value(s))).collect()
    };
    // What grows by less in an hour than this is not told apart from what does not.
    let all = [
        Judged::new("anonymous memory, MiB", 1.0, of(|s| s.anonymous_mib())),
        Judged::new("descriptors", 4.0, of(|s| s.descriptors as f64)),
        Judged::new("mappings", 4.0, of(|s| s.maps as f64)),
        Judged::new("threads", 1.0, of(|s| s.threads as f64)),
    ];
    all.iter().for_each(|judged| println!("{judged}"));
    let worst = half.iter().max_by(|a, b| a.over().total_cmp(&b.over()));
    let spacious = worst.is_some_and(|sample| {
        let (disk, bound) = (sample.disk >> 20, sample.bound() >> 20);
        println!(
            "space: {disk} MiB at worst, its bound {bound} MiB, live {} MiB",
            sample.live >> 20
        );
        sample.disk > sample.bound()
    });
    if spacious {
        println!("TOO MUCH SPACE");
    }
    !spacious && all.iter().all(Judged::is_flat)
}
