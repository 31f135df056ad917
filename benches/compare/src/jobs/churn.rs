//! What it costs an engine that its keys are overwritten, deleted and expire all the time.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rimstone::Clock;
use serde_json::{Value, json};

use crate::data::{Data, Key, Values};
use crate::engines::{Kind, Setup, Subject, stored};
use crate::files;
use crate::lives::{Lives, START, Workload};
use crate::process::written_bytes;
use crate::stats::percentile;

/// Writes of a commit.
const COMMIT: u64 = 100;
/// Bytes put between two flushes.
const FLUSH: u64 = 16 << 20;
/// How often the space is looked at.
const LOOKS: u64 = 64;
/// Entries that are compared at the end.
const COMPARED: usize = 10_000;
/// Gets between two looks whether compaction is done, and how long the quiet ones take.
const GETS: usize = 1000;
const QUIET: Duration = Duration::from_secs(2);

struct Churn<'e> {
    subject: &'e dyn Subject,
    expires: bool,
    clock: Clock,
    lives: Lives,
    /// Time in the engine.
    wall: Duration,
    flushed: u64,
}

/// Runs one workload in an empty directory, with about so many bytes live.
pub fn run(kind: Kind, dir: &Path, workload: Workload, live: u64) -> Value {
    let clock = Clock::manual(START);
    let mut setup = Setup::new(dir, &Data::new(0, Values::Small), false);
    setup.bytes = live;
    setup.clock = Some(clock.clone());
    setup.space = Some(workload.percent());
    let mut subject = kind.open(&setup);
    let mut churn = Churn {
        subject: &*subject,
        expires: kind.can.expires,
        clock,
        lives: Lives::new(workload, live),
        wall: Duration::ZERO,
        flushed: 0,
    };
    let (fill, measured) = churn.lives.writes();
    churn.write(fill, |_| {});
    let (wall, put, written) = (churn.wall, churn.lives.put, written_bytes());
    let mut disk = Vec::new();
    for _ in 0..LOOKS {
        churn.write(measured / LOOKS, |lives| {
            disk.push(files::disk_bytes(dir) as f64 / lives.live() as f64);
        });
    }
    files::sync(dir);
    let wall = churn.wall - wall;
    let (put, written) = (churn.lives.put - put, written_bytes() - written);
    let lives = churn.lives;
    let mut gets = json!({});
    if kind.can.tidies {
        gets = beside(&*subject, &lives.lasting(100_000));
    } else if kind.can.compacts {
        subject.compact();
    }
    compare(kind, &*subject, &lives);
    subject.sync();
    subject.close();
    files::sync(dir);
    json!({
        "written": written as f64 / put as f64,
        "mean": disk.iter().sum::<f64>() / disk.len() as f64,
        "largest": disk.iter().copied().fold(0.0, f64::max),
        "compacted": files::disk_bytes(dir) as f64 / lives.live() as f64,
        "rate": put as f64 / wall.as_secs_f64(),
        "gets": gets,
    })
}

impl Churn<'_> {
    /// The next writes, and a look at the end.
    fn write(&mut self, writes: u64, mut look: impl FnMut(&Lives)) {
        for _ in 0..writes.div_ceil(COMMIT) {
            let mut commit = self.lives.commit(COMMIT);
            self.clock.advance(self.lives.now() - self.clock.now());
            if !self.expires {
                commit.deleted.append(&mut commit.expired);
            }
            let start = Instant::now();
            self.subject.put_all(&commit.puts);
            if !commit.deleted.is_empty() {
                self.subject.remove(&commit.deleted);
            }
            if self.lives.put - self.flushed > FLUSH {
                self.flushed = self.lives.put;
                self.subject.sync();
            }
            self.wall += start.elapsed();
        }
        look(&self.lives);
    }
}

/// Gets with nothing else going on, and while all space is given back that can be.
fn beside(subject: &dyn Subject, keys: &[Key]) -> Value {
    let mut chunks = keys.chunks(GETS).cycle();
    let mut gets = |done: &dyn Fn() -> bool| {
        let mut times = Vec::new();
        while !done() {
            let keys = chunks.next().expect("keys");
            subject.get_timed(keys, usize::MAX, &mut times);
        }
        times
    };
    let start = Instant::now();
    let mut quiet = gets(&|| start.elapsed() > QUIET);
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let mut busy = thread::scope(|scope| {
        scope.spawn(|| {
            subject.tidy();
            done.store(true, Ordering::Release);
        });
        gets(&|| done.load(Ordering::Acquire))
    });
    let seconds = start.elapsed().as_secs_f64();
    if busy.len() < GETS {
        return json!({ "seconds": seconds });
    }
    json!({
        "seconds": seconds,
        "quiet p50": percentile(&mut quiet, 0.5),
        "quiet p99.9": percentile(&mut quiet, 0.999),
        "p50": percentile(&mut busy, 0.5),
        "p99.9": percentile(&mut busy, 0.999),
    })
}

/// What should be there is, byte by byte, and nothing else of what was.
fn compare(kind: Kind, subject: &dyn Subject, lives: &Lives) {
    for entry in lives.sample(COMPARED) {
        let found = subject.find(&entry.key);
        assert_eq!(found, Some(stored(&entry)), "{}", kind.name);
    }
    for key in lives.gone() {
        assert_eq!(
            subject.find(&key),
            None,
            "{}: deleted or expired",
            kind.name
        );
    }
}
