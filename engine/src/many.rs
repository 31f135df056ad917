//! Reads of many keys at once: what one of them waits for comes while the others wait, too.

use crate::core::Core;
use crate::entry::{Entry, EntryRef};
use crate::error::Result;
use crate::hot;
use crate::index::table::Location;
use crate::namespace::Namespace;
use crate::namespaces::View;
use crate::options::ReadOptions;
use crate::read::{self, Lent};
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
            let ahead = self.prefetch(&view, group, &guard)?;
            for ((key, hash), place) in group.iter().zip(ahead.hashes).zip(first..) {
                if let Some(one) = self.one(&view, key.as_ref(), hash, ahead.is_cold, &guard)? {
                    f(place, one.entry());
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
            let ahead = self.prefetch(&view, group, &guard)?;
            for (key, hash) in group.iter().zip(ahead.hashes) {
                let one = self.one(&view, key.as_ref(), hash, ahead.is_cold, &guard)?;
                entries.push(one.map(One::into_entry));
            }
        }
        debug_assert_eq!(entries.len(), keys.len(), "an answer for each");
        Ok(entries)
    }

    /// The entry of one of many keys. Among those that wait for the disk it is looked for in the hot cache first,
    /// as a read of one key does; from memory, all together come as fast without.
    fn one<'g>(
        &'g self,
        view: &View,
        key: &[u8],
        hash: u64,
        is_cold: bool,
        guard: &'g Guard,
    ) -> Result<Option<One<'g>>> {
        let options = ReadOptions::new();
        let read = is_cold.then(|| self.cold_read(view, key, &options));
        let read = read.flatten();
        if let Some(held) = self.held(view, key, hash, read.as_ref()) {
            return Ok(Some(One::Held(held)));
        }
        let lent = self.lend(view, key, hash, read.as_ref(), guard)?;
        Ok(lent.map(One::Lent))
    }

    /// Asks for the buckets of the keys and then for their records, all together; but, if those have to be read from
    /// the disk, not for what the hot cache holds.
    fn prefetch<K: AsRef<[u8]>>(&self, view: &View, keys: &[K], guard: &Guard) -> Result<Ahead> {
        let core = self.core();
        debug_assert!(keys.len() <= PREFETCHED, "a group is no larger");
        let mut hashes = [0; PREFETCHED];
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(view, key.as_ref())?;
            core.table.prefetch(*hash);
        }
        let is_held = |at: usize| {
            let key = keys.get(at);
            key.is_some_and(|key| self.is_held(view, key.as_ref()))
        };
        let asked = hashes.get(..keys.len()).unwrap_or_default();
        let is_cold = core.prefetch(asked, is_held, guard);
        Ok(Ahead { hashes, is_cold })
    }
}

/// Keys whose records were asked for.
struct Ahead {
    hashes: [u64; PREFETCHED],
    /// Whether they have to be read from the disk.
    is_cold: bool,
}

/// The entry of one of many keys.
enum One<'g> {
    Held(rimstone_cache::Entry),
    Lent(Lent<'g>),
}

impl One<'_> {
    fn entry(&self) -> EntryRef<'_> {
        match self {
            One::Held(held) => hot::lend(held),
            One::Lent(lent) => lent.entry(),
        }
    }

    fn into_entry(self) -> Entry {
        match self {
            One::Held(held) => read::copied(&held),
            One::Lent(lent) => lent.into_entry(),
        }
    }
}

impl Core {
    /// Starts to bring the records of at most [`PREFETCHED`] keys into the processor's caches, all together, and
    /// returns whether they have to be read from the disk. Those that are held elsewhere, by their places in
    /// `hashes`, then are not.
    pub(crate) fn prefetch(
        &self,
        hashes: &[u64],
        is_held: impl Fn(usize) -> bool,
        guard: &Guard,
    ) -> bool {
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
        // One of them tells for all: asking costs as much as a get from memory.
        let first = found.iter().flatten().next();
        let first = first.filter(|_| hashes.len() >= COLD_MIN);
        let is_cold = first.is_some_and(|(segment, offset)| !segment.is_resident(*offset, 1));
        if is_cold {
            for (found, at) in found.iter_mut().zip(0..) {
                *found = found.filter(|_| !is_held(at));
            }
            let found = found.iter().flatten();
            found.for_each(|(segment, at)| segment.will_need(*at));
        }
        // By now the first of them tell how long they are.
        let found = found.iter().flatten();
        found.for_each(|(segment, at)| segment.prefetch_rest(*at, self.verify));
        is_cold
    }
}
