//! The large values that stay mapped for the next read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;

use super::large::Large;

/// Each takes a mapping, of which a process has some 65,000.
const MAPPED_MAX: usize = 256;

/// The large values that were read last.
#[derive(Default)]
pub(crate) struct Mapped(Mutex<State>);

#[derive(Default)]
struct State {
    /// By id, each with the time when it was asked for last.
    larges: HashMap<u64, (Arc<Large>, u64)>,
    /// Counts what was asked for.
    time: u64,
}

impl State {
    fn oldest(&self) -> Option<u64> {
        let oldest = self.larges.iter().min_by_key(|(_, (_, asked))| *asked);
        oldest.map(|(id, _)| *id)
    }
}

impl Mapped {
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Large>> {
        let state = &mut *self.0.lock();
        state.time += 1;
        let (large, asked) = state.larges.get_mut(&id)?;
        *asked = state.time;
        Some(Arc::clone(large))
    }

    /// Keeps a value in the place of the one that was not asked for the longest.
    pub(crate) fn insert(&self, id: u64, large: Arc<Large>) {
        let mut state = self.0.lock();
        let is_full = state.larges.len() >= MAPPED_MAX && !state.larges.contains_key(&id);
        let evicted = if is_full { state.oldest() } else { None };
        let evicted = evicted.and_then(|id| state.larges.remove(&id));
        let time = state.time;
        let before = state.larges.insert(id, (large, time));
        // Unmapping takes its time: not under the lock.
        drop(state);
        drop((evicted, before));
    }

    /// Lets go of a value whose file is being removed; who reads it keeps it.
    pub(crate) fn forget(&self, id: u64) {
        let forgotten = self.0.lock().larges.remove(&id);
        drop(forgotten);
    }
}
