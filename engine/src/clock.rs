//! The only place that asks what time it is.
#![allow(clippy::disallowed_methods, reason = "the clock seam itself")]

use std::sync::Arc;
use std::time::Instant;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How far the wall clock may run ahead of elapsed time before the jump has to prove itself, and
/// for how long: design rule "hiding and erasing differ".
const JUMP_SECONDS: u64 = 60;
const PROOF_SECONDS: u64 = 3600;

const _: () = assert!(JUMP_SECONDS < PROOF_SECONDS);

/// The time, in whole seconds since the Unix epoch, never going back.
///
/// Clones share one time. [`Clock::manual`] moves only when told to, for tests.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The latest time ever returned.
    latest: AtomicU64,
    source: Source,
    erase: Mutex<Erase>,
}

/// What the time is taken from: a wall clock, which may jump, and time that passes.
#[derive(Debug)]
enum Source {
    System { begin: Instant },
    Manual { wall: AtomicU64, elapsed: AtomicU64 },
}

impl Source {
    fn wall(&self) -> u64 {
        match self {
            Source::System { .. } => wall(),
            Source::Manual { wall, .. } => wall.load(Ordering::SeqCst),
        }
    }

    /// Seconds since the clock was made.
    fn elapsed(&self) -> u64 {
        match self {
            Source::System { begin } => begin.elapsed().as_secs(),
            Source::Manual { elapsed, .. } => elapsed.load(Ordering::SeqCst),
        }
    }
}

/// A slower clock for what cannot be undone: it advances at most with elapsed time and adopts a
/// forward jump of the wall clock only after running with it for an hour.
#[derive(Debug)]
struct Erase {
    time: u64,
    /// When that was, and when the wall clock jumped, in seconds since the clock was made.
    since: u64,
    jumped_at: Option<u64>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Clock {
        let begin = Instant::now();
        Clock::new(wall(), Source::System { begin })
    }

    /// A clock that stands at `seconds` until it is told otherwise.
    #[must_use]
    pub fn manual(seconds: u64) -> Clock {
        let (wall, elapsed) = (AtomicU64::new(seconds), AtomicU64::new(0));
        Clock::new(seconds, Source::Manual { wall, elapsed })
    }

    fn new(seconds: u64, source: Source) -> Clock {
        let erase = Mutex::new(Erase {
            time: seconds,
            since: 0,
            jumped_at: None,
        });
        Clock(Arc::new(Inner {
            latest: AtomicU64::new(seconds),
            source,
            erase,
        }))
    }

    /// Lets time pass on a manual clock; a system clock is left alone.
    pub fn advance(&self, seconds: u64) {
        if let Source::Manual { wall, elapsed } = &self.0.source {
            elapsed.fetch_add(seconds, Ordering::SeqCst);
            wall.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, forward or back, while no time passes; a system clock is left alone. The time that
    /// it tells never goes back all the same.
    pub fn jump(&self, to: u64) {
        if let Source::Manual { wall, .. } = &self.0.source {
            wall.store(to, Ordering::SeqCst);
        }
    }

    /// Seconds since the Unix epoch. Never less than an earlier answer.
    #[must_use]
    pub fn now(&self) -> u64 {
        let latest = self.0.latest.load(Ordering::Relaxed);
        let wall = self.0.source.wall();
        if wall > latest {
            self.0.latest.fetch_max(wall, Ordering::Relaxed);
        }
        wall.max(latest)
    }

    /// Raises the time to at least `seconds`, which an earlier process had seen.
    pub(crate) fn raise(&self, seconds: u64) {
        self.0.latest.fetch_max(seconds, Ordering::SeqCst);
        if let Source::Manual { wall, .. } = &self.0.source {
            wall.fetch_max(seconds, Ordering::SeqCst);
        }
        let mut erase = self.0.erase.lock();
        erase.time = erase.time.max(seconds);
    }

    /// The time by which data may be erased, and the time that may be persisted: a forward jump of
    /// the wall clock counts only once it has lasted an hour.
    pub(crate) fn confirmed(&self) -> u64 {
        let (now, instant) = (self.now(), self.0.source.elapsed());
        let mut erase = self.0.erase.lock();
        let before = erase.time;
        let elapsed = instant.saturating_sub(erase.since);
        let expected = erase.time.saturating_add(elapsed);
        if now <= expected.saturating_add(JUMP_SECONDS) {
            erase.jumped_at = None;
            erase.time = now.max(erase.time);
            erase.since = instant;
        } else {
            let jumped_at = *erase.jumped_at.get_or_insert(instant);
            if instant.saturating_sub(jumped_at) >= PROOF_SECONDS {
                erase.time = now;
                erase.since = instant;
                erase.jumped_at = None;
            }
            return erase
                .time
                .saturating_add(instant.saturating_sub(erase.since));
        }
        debug_assert!(
            erase.time >= before,
            "what was erased had expired, and stays so"
        );
        erase.time
    }
}

/// Time that passes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(instant())
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn instant() -> Instant {
    Instant::now()
}

/// The coarse clock: it is read on every get and costs a fifth of the precise one.
fn wall() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u64::try_from(time.tv_sec).unwrap_or(0)
}
