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
        debug_assert!(*asked < state.time, "each asking has its own time");
        *asked = state.time;
        Some(Arc::clone(large))
    }

    /// Keeps a value in the place of the one that was not asked for the longest.
    pub(crate) fn insert(&self, id: u64, large: Arc<Large>) {
        let mut state = self.0.lock();
        let is_full = state.larges.len() >= MAPPED_MAX && !state.larges.contains_key(&id);
        let evicted = if is_full { state.oldest() } else { None };
        let evicted = evicted.and_then(|id| state.larges.remove(&id));
        debug_assert!(
            evicted.is_some() == is_full,
            "one goes where there is no room"
        );
        let time = state.time;
        let before = state.larges.insert(id, (large, time));
        debug_assert!(state.larges.len() <= MAPPED_MAX);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::large::LargeWriter;
    use super::*;
    use crate::format::segment::StoreId;
    use crate::mem::Origin;
    use crate::options::Verify;
    use crate::vfs::OsVfs;

    #[test]
    fn only_so_many_stay_mapped_and_those_that_were_asked_for_last() {
        let dir = tempfile::tempdir().unwrap();
        let (path, vfs) = (dir.path().join("large"), Arc::new(OsVfs));
        let store = StoreId {
            id: [0; 16],
            secret: [0; 32],
        };
        let origin = Arc::new(Origin::here());
        let mut writer = LargeWriter::new(vfs.clone(), origin, path.clone(), 1, store).unwrap();
        writer.write(b"value").unwrap();
        let pointer = writer.finish().unwrap();
        let large = Large::open(&*vfs, path, pointer, Verify::FirstRead).unwrap();
        let (mapped, ids) = (Mapped::default(), 0..MAPPED_MAX as u64 * 2);
        for id in ids.clone() {
            mapped.insert(id, Arc::clone(&large));
            assert!(mapped.get(0).is_some(), "asked for all the time");
        }
        let kept: Vec<u64> = ids.filter(|id| mapped.get(*id).is_some()).collect();
        assert_eq!(kept.len(), MAPPED_MAX);
        assert_eq!(kept.last(), Some(&(MAPPED_MAX as u64 * 2 - 1)));
        mapped.forget(0);
        assert!(mapped.get(0).is_none());
    }
}
