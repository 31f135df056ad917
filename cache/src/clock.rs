//! Seconds, as the owner of a cache or the machine counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

/// Whole seconds on a clock.
pub(crate) type Seconds = u32;

/// After the end of every clock.
pub(crate) const NEVER: Seconds = Seconds::MAX;

/// Where a cache takes the time from: whole seconds since any moment, for a hundred years.
///
/// A clone shows the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Manual(Arc<AtomicU32>),
    #[cfg(target_os = "linux")]
    Machine,
    #[cfg(not(target_os = "linux"))]
    Machine(Instant),
}

impl Clock {
    /// The machine's monotonic clock, which a read looks at for a few nanoseconds.
    #[must_use]
    pub fn machine() -> Clock {
        #[cfg(target_os = "linux")]
        return Clock(Source::Machine);
        #[cfg(not(target_os = "linux"))]
        return Clock(Source::Machine(Instant::now()));
    }

    /// A clock that shows `now` until it is [`set`](Clock::set): by a test, or once a second by
    /// somebody who has the time already.
    #[must_use]
    pub fn manual(now: u64) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicU32::new(seconds(now)))))
    }

    /// Sets a manual clock. One that went back is taken to stand still; the machine's cannot be set.
    pub fn set(&self, now: u64) {
        if let Source::Manual(clock) = &self.0 {
            clock.fetch_max(seconds(now), Ordering::Relaxed);
        }
    }

    /// Seconds since the clock's beginning.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.seconds().into()
    }

    pub(crate) fn seconds(&self) -> Seconds {
        match &self.0 {
            Source::Manual(clock) => clock.load(Ordering::Relaxed),
            #[cfg(target_os = "linux")]
            Source::Machine => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
                seconds(now.tv_sec.cast_unsigned())
            }
            #[cfg(not(target_os = "linux"))]
            Source::Machine(start) => seconds(start.elapsed().as_secs()),
        }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::machine()
    }
}

/// A moment; the end of the clock for all that is later.
pub(crate) fn seconds(moment: u64) -> Seconds {
    Seconds::try_from(moment).unwrap_or(NEVER)
}

/// The moment so long after `from`; never, for no time or one that is too long.
pub(crate) fn after(from: Seconds, time: Option<Duration>) -> Seconds {
    time.map_or(NEVER, |time| from.saturating_add(seconds(time.as_secs())))
}
