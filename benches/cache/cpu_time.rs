//! Time in which a thread ran.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time of this thread, its page faults included. Unlike wall time it does not count
/// the moments in which another process had the core.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.try_into().expect("a time after zero")
}
