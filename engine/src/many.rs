//! Reads of many keys at once: what one of them waits for comes while the others wait, too.

use crate::entry::{Entry, EntryRef};
use crate::error::Result;
use crate::index::table::Location;
use crate::namespace::Namespace;
use crate::namespaces::View;
use crate::read::Lent;
use crate::sync::epoch::{self, Guard};

/// Keys whose buckets, then records, are fetched ahead together.
const PREFETCHED: usize = 32;
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
        Ok(entries)
    }

    /// The hashes of the keys, after their buckets and then their records were asked for, all together.
    fn prefetch<K: AsRef<[u8]>>(&self, view: &View, keys: &[K], guard: &Guard) -> Result<Vec<u64>> {
        let core = self.core();
        let hash = |key: &K| {
            let hash = self.hash(view, key.as_ref())?;
            core.table.prefetch(hash);
            Ok(hash)
        };
        debug_assert!(keys.len() <= PREFETCHED, "more would push each other out");
        let hashes = keys.iter().map(hash).collect::<Result<Vec<u64>>>()?;
        let segment = |location: Location| core.segments.get(location.number(), guard);
        let mut found = Vec::with_capacity(keys.len());
        for hash in &hashes {
            core.table.candidates(*hash, guard, |location| {
                if let Some(segment) = segment(location) {
                    segment.prefetch_start(location.offset(), core.verify);
                    found.push((segment, location.offset()));
                }
            });
        }
        // One of them tells for all: asking costs as much as a get from memory.
        let first = found.first().filter(|_| found.len() >= COLD_MIN);
        if first.is_some_and(|(segment, offset)| !segment.is_resident(*offset, 1)) {
            found
                .iter()
                .for_each(|(segment, at)| segment.will_need(*at));
        }
        // By now the first of them tell how long they are.
        for (segment, offset) in found {
            segment.prefetch_rest(offset, core.verify);
        }
        Ok(hashes)
    }
}
