//! A thread that waits for work, and what wakes it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Condvar, Mutex};

/// Wakes a thread that waits for work.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    wanted: bool,
    stopped: bool,
}

impl Signal {
    pub(crate) fn wake(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_one();
    }

    /// Whether work under way should end soon.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Waits until there is work or the time is over. Returns whether it was the time, `None` when
    /// there will be no more work.
    fn wait(&self, time: Duration) -> Option<bool> {
        let mut state = self.state.lock();
        let mut over = false;
        while !state.stopped && !state.wanted && !over {
            over = self.changed.wait_for(&mut state, time).timed_out();
        }
        let wanted = std::mem::take(&mut state.wanted);
        (!state.stopped).then_some(!wanted)
    }
}

/// A thread that does something each time it is woken, and from time to time.
pub(crate) struct Worker {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
}

impl Worker {
    #[allow(
        clippy::disallowed_methods,
        reason = "the only place that starts threads"
    )]
    pub(crate) fn start(
        name: &str,
        signal: Arc<Signal>,
        every: Duration,
        mut work: impl FnMut(bool) + Send + 'static,
    ) -> Result<Worker> {
        debug_assert!(!every.is_zero(), "a thread rests between two turns");
        let waiting = Arc::clone(&signal);
        let thread = Builder::new().name(name.into()).spawn(move || {
            while let Some(idle) = waiting.wait(every) {
                work(idle);
            }
        });
        let thread = thread.map_err(|source| Error::Io {
            doing: "starting a thread",
            path: name.into(),
            source,
        })?;
        Ok(Worker { signal, thread })
    }

    pub(crate) fn stop(self) {
        self.signal.stop();
        let _ = self.thread.join();
    }
}

/// Does two things at once, or one after the other where no thread can be had, or every schedule of threads
/// is tried.
#[allow(
    clippy::disallowed_methods,
    reason = "the only place that starts threads"
)]
pub(crate) fn both(first: impl FnOnce(), second: impl FnOnce() + Send) {
    if cfg!(any(feature = "loom", feature = "shuttle")) {
        first();
        return second();
    }
    let second = std::sync::Mutex::new(Some(second));
    let take = || second.lock().ok().and_then(|mut second| second.take());
    std::thread::scope(|scope| {
        let name = String::from("rimstone-open");
        let _ = std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || take().map(|second| second()));
        first();
    });
    // Nobody took it.
    if let Some(second) = take() {
        second();
    }
}
