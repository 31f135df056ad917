//! Reads of many keys at once: what one of them waits for comes while the others wait, too.

use crate::core::Core;
use crate::entry::{Entry, EntryRef};
use crate::error::Result;
use crate::index::table::Location;
use crate::namespace::Namespace;
use crate::namespaces::View;
use crate::read::Lent;
use crate::sync::epoch::{self, Guard};

/// Keys whose buckets, then records, are fetched ahead together.
pub(crate) const PREFETCHED: usize = 32;
/// So many records are worth asking whether they have to be read from the disk, all of them at once.
const COLD_MIN: usize = 8;
const _: () = assert!(COLD_MIN <= PREFETCHED);

impl Namespace {
    /// Lends the entries of many keys to `f` in place, one after the other, each with the place of its key
    /// in `keys`. Missing keys are left out.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get); the first error ends the call.
    pub fn read_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut f: impl FnMut(usize, EntryRef<'_>),
    ) -> Result<()> {
        for (group, first) in keys.chunks(PREFETCHED).zip((0..).step_by(PREFETCHED)) {
            let guard = epoch::pin();
            let view = self.state.view()?;
            let hashes = self.prefetch(&view, group, &guard)?;
            for ((key, hash), place) in group.iter().zip(hashes).zip(first..) {
                if let Some(lent) = self.lend(&view, key.as_ref(), hash, None, &guard)? {
                    f(place, lent.entry());
                }
            }
        }
        Ok(())
    }

    /// Returns the entries of many keys, in their order.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get); the first error ends the call.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Entry>>> {
        let mut entries = Vec::with_capacity(keys.len());
        for group in keys.chunks(PREFETCHED) {
            let guard = epoch::pin();
            let view = self.state.view()?;
            let hashes = self.prefetch(&view, group, &guard)?;
            for (key, hash) in group.iter().zip(hashes) {
                let lent = self.lend(&view, key.as_ref(), hash, None, &guard)?;
                entries.push(lent.map(Lent::into_entry));
            }
        }
        debug_assert_eq!(entries.len(), keys.len(), "an answer for each");
        Ok(entries)
    }

    /// The hashes of the keys, after their buckets and then their records were asked for, all together.
    fn prefetch<K: AsRef<[u8]>>(
        &self,
        view: &View,
        keys: &[K],
        guard: &Guard,
    ) -> Result<[u64; PREFETCHED]> {
        let core = self.core();
        debug_assert!(keys.len() <= PREFETCHED, "a group is no larger");
        let mut hashes = [0; PREFETCHED];
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(view, key.as_ref())?;
            core.table.prefetch(*hash);
        }
        core.prefetch(hashes.get(..keys.len()).unwrap_or_default(), guard);
        Ok(hashes)
    }
}

impl Core {
    /// Starts to bring the records of at most [`PREFETCHED`] keys into the cache, all together.
    pub(crate) fn prefetch(&self, hashes: &[u64], guard: &Guard) {
        debug_assert!(hashes.len() <= PREFETCHED, "more would push each other out");
        let mut found = [None; PREFETCHED];
        for (found, hash) in found.iter_mut().zip(hashes) {
            // In rare cases another key's: then this one's comes when it is looked for.
            let location = self.table.find(*hash, guard, |_| true);
            let at = |location: Location| {
                let segment = self.segments.get(location.number(), guard)?;
                segment.prefetch_start(location.offset(), self.verify);
                Some((segment, location.offset()))
            };
            *found = location.and_then(at);
        }
        let found = || found.iter().flatten();
        // One of them tells for all: asking costs as much as a get from memory.
        let first = found().next().filter(|_| hashes.len() >= COLD_MIN);
        if first.is_some_and(|(segment, offset)| !segment.is_resident(*offset, 1)) {
            found().for_each(|(segment, at)| segment.will_need(*at));
        }
        // By now the first of them tell how long they are.
        found().for_each(|(segment, at)| segment.prefetch_rest(*at, self.verify));
    }
}
