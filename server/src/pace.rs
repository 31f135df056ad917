//! How fast a client moves a body while we wait for it.

use std::time::Duration;

use crate::limits::Limits;

/// Bytes moved, and the time spent waiting for the client to move them. Time that the disk takes
/// is not the client's.
#[derive(Default)]
pub(crate) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Whether the client had its chance and is below the least rate.
    pub(crate) fn is_slow(&self, limits: &Limits) -> bool {
        let owed = u128::from(limits.rate) * self.waited.as_millis() / 1000;
        self.waited > limits.pause && u128::from(self.bytes) < owed
    }
}
