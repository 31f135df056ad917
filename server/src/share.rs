//! What one request's body takes of the memory for all bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::kv::{Fault, Result};

/// Given back when dropped, so it lives as long as the bytes it stands for.
pub(crate) struct Share {
    /// One permit a byte.
    memory: Arc<Semaphore>,
    taken: AtomicUsize,
}

impl Share {
    /// A share of nothing yet.
    pub(crate) fn of(memory: Arc<Semaphore>) -> Share {
        Share {
            memory,
            taken: AtomicUsize::new(0),
        }
    }

    /// Takes more, or says that there is none at the moment. Nobody waits: two that hold half of
    /// what they need would wait for each other.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        let busy = || {
            Fault::new(
                503,
                10022,
                "The server is busy with other bodies; try again",
            )
        };
        let permits = u32::try_from(bytes).map_err(|_| busy())?;
        let taken = self.memory.try_acquire_many(permits);
        taken.map_err(|_| busy())?.forget();
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.add_permits(*self.taken.get_mut());
    }
}
