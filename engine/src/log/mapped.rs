//! The large values that stay mapped for the next read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;

use super::large::Large;

/// Readers of two large values seldom meet: those of one part wait for each other, and write its lines.
const PARTS: usize = 16;
/// Each takes a mapping, of which a process has some 65,000, and its verified chunks are known as long as it stays.
const MAPPED_MAX: usize = 4096 / PARTS;
/// The system keeps 8 bytes for each page of 4 KiB that was touched: 16 MiB for all parts.
const BYTES_MAX: u64 = if cfg!(test) {
    64 << 10
} else {
    (8 << 30) / PARTS as u64
};

/// The large values that were read last, in parts: files are numbered, so that each has as many.
#[derive(Default)]
pub(crate) struct Mapped([Part; PARTS]);

#[derive(Default)]
#[repr(align(128))]
struct Part(Mutex<State>);

#[derive(Default)]
struct State {
    /// By id, each with the time when it was asked for last.
    larges: HashMap<u64, (Arc<Large>, u64)>,
    /// Of all of them.
    bytes: u64,
    /// Counts what was asked for.
    time: u64,
}

impl State {
    fn remove(&mut self, id: u64) -> Option<Arc<Large>> {
        let (large, _) = self.larges.remove(&id)?;
        debug_assert!(self.bytes >= large.len(), "the sum of all of them");
        self.bytes = self.bytes.saturating_sub(large.len());
        Some(large)
    }

    fn oldest(&self) -> Option<u64> {
        let oldest = self.larges.iter().min_by_key(|(_, (_, asked))| *asked);
        oldest.map(|(id, _)| *id)
    }
}

impl Mapped {
    fn part(&self, id: u64) -> &Mutex<State> {
        let [first, ..] = &self.0;
        let part = usize::try_from(id % PARTS as u64).unwrap_or(0);
        &self.0.get(part).unwrap_or(first).0
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Large>> {
        let state = &mut *self.part(id).lock();
        state.time += 1;
        let (large, asked) = state.larges.get_mut(&id)?;
        debug_assert!(*asked < state.time, "each asking has its own time");
        *asked = state.time;
        Some(Arc::clone(large))
    }

    /// Keeps a value in the place of those that were not asked for the longest.
    pub(crate) fn insert(&self, id: u64, large: Arc<Large>) {
        let mut state = self.part(id).lock();
        let mut gone = Vec::from_iter(state.remove(id));
        while state.larges.len() >= MAPPED_MAX || state.bytes + large.len() > BYTES_MAX {
            let Some(oldest) = state.oldest() else { break };
            gone.extend(state.remove(oldest));
        }
        state.time += 1;
        let time = state.time;
        state.bytes += large.len();
        state.larges.insert(id, (large, time));
        debug_assert!(state.larges.len() <= MAPPED_MAX);
        debug_assert!(state.bytes <= BYTES_MAX || state.larges.len() == 1);
        // Unmapping takes its time: not under the lock.
        drop(state);
        drop(gone);
    }

    /// Lets go of a value whose file is being removed; who reads it keeps it.
    pub(crate) fn forget(&self, id: u64) {
        let forgotten = self.part(id).lock().remove(id);
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
    use std::path::Path;

    fn large(dir: &Path, id: u64, value: &[u8]) -> Arc<Large> {
        let (path, vfs) = (dir.join(id.to_string()), Arc::new(OsVfs));
        let store = StoreId {
            id: [0; 16],
            secret: [0; 32],
        };
        let origin = Arc::new(Origin::here());
        let mut writer = LargeWriter::new(vfs.clone(), origin, path.clone(), id, store).unwrap();
        writer.write(value).unwrap();
        let pointer = writer.finish().unwrap();
        Large::open(&*vfs, path, pointer, Verify::FirstRead).unwrap()
    }

    #[test]
    fn only_so_many_stay_mapped_and_those_that_were_asked_for_last() {
        let dir = tempfile::tempdir().unwrap();
        let large = large(dir.path(), 1, b"value");
        let in_a_part = (0..MAPPED_MAX * 2).map(|n| (n * PARTS) as u64);
        let (mapped, ids) = (Mapped::default(), in_a_part);
        for id in ids.clone() {
            mapped.insert(id, Arc::clone(&large));
            assert!(mapped.get(0).is_some(), "asked for all the time");
        }
        let last = ids.clone().next_back();
        let kept: Vec<u64> = ids.filter(|id| mapped.get(*id).is_some()).collect();
        assert_eq!(kept.len(), MAPPED_MAX);
        assert_eq!(kept.last().copied(), last);
        mapped.forget(0);
        assert!(mapped.get(0).is_none());
    }

    #[test]
    fn only_so_many_bytes_stay_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let id = |n: u64| n * PARTS as u64;
        let (mapped, ids) = (Mapped::default(), (1..=4).map(id));
        for id in ids.clone() {
            let large = large(dir.path(), id, &[7; 20_000]);
            mapped.insert(id, Arc::clone(&large));
            mapped.insert(id, large);
        }
        assert!(
            ids.map(|id| mapped.get(id).is_some())
                .eq([false, true, true, true])
        );
        mapped.forget(id(2));
        mapped.insert(id(5), large(dir.path(), id(5), &[7; 20_000]));
        assert!(mapped.get(id(3)).is_some(), "there was room");
        mapped.insert(1, large(dir.path(), 1, &[7; 20_000]));
        assert!(
            mapped.get(id(3)).is_some(),
            "another part has room of its own"
        );
    }
}
