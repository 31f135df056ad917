//! The way of a read: by the hot cache, if the store has one, else to the log, and a copy into the cache.

use bytes::Bytes;
use rimstone_cache::Key;

use crate::core::Found;
use crate::entry::{Entry, EntryRef, Value};
use crate::error::Result;
use crate::format::record::{Kind, Record};
use crate::hot::{self, CacheStatus, HotRead};
use crate::namespace::{COPY_MAX, Namespace, inline};
use crate::namespaces::View;
use crate::options::{ReadOptions, Verify};
use crate::stream::{Body, ValueStream};
use crate::sync::epoch::Guard;

impl Namespace {
    /// Begins a read by way of the hot cache, if there is one.
    #[inline]
    pub(crate) fn hot_read<'r>(
        &'r self,
        view: &View,
        key: &'r [u8],
        options: &'r ReadOptions,
    ) -> Option<HotRead<'r>> {
        let core = self.core();
        let hot = core.hot.as_ref()?;
        if core.origin.is_elsewhere() {
            return None;
        }
        let key = Key::from((view.number, key));
        Some(hot.begin(key, options, core.clock.now()))
    }

    /// What the hot cache holds of a key.
    #[inline]
    pub(crate) fn held(
        &self,
        view: &View,
        key: &[u8],
        hash: u64,
        read: Option<&HotRead<'_>>,
    ) -> Option<rimstone_cache::Entry> {
        // A deletion by prefix is seen a moment before the cache is told of it.
        let held = read?.get(|generation| !view.hides(key, generation))?;
        if let Some(capacity) = &self.core().capacity {
            capacity.note_hit(hash);
        }
        Some(held)
    }

    /// What is lent of the record of a key, all of it verified, and copied into the hot cache.
    #[inline]
    pub(crate) fn lend<'g>(
        &'g self,
        view: &View,
        key: &[u8],
        hash: u64,
        read: Option<&HotRead<'_>>,
        guard: &'g Guard,
    ) -> Result<Option<Lent<'g>>> {
        let lent = self.lookup(view, key, hash, guard, |found| {
            let large = self.large(&found)?;
            let large = large.map(|large| large.range(0, large.len())).transpose()?;
            debug_assert_eq!(large.is_some(), found.record.header.kind == Kind::PutLarge);
            let lent = Lent {
                large,
                found,
                cache_status: self.missed(),
            };
            // Verified once, a large value is lent from its mapping as cheaply as from a copy.
            if lent.large.is_none() || self.core().verify == Verify::Always {
                self.fill(view, &lent.found, lent.entry(), hash, read, guard);
            }
            Ok(lent)
        });
        end_if_missing(lent, read)
    }

    /// Copies a verified entry into the hot cache.
    #[inline]
    fn fill(
        &self,
        view: &View,
        found: &Found<'_>,
        entry: EntryRef<'_>,
        hash: u64,
        read: Option<&HotRead<'_>>,
        guard: &Guard,
    ) {
        if let Some(read) = read {
            // What was dropped, or deleted with its prefix, stays in the table for a while.
            let is_there = || {
                let (key, seqno) = (found.record.key, found.record.header.seqno);
                let now = self.state.view();
                now.is_ok_and(|now| now.number == view.number && !now.hides(key, seqno))
            };
            read.fill(entry, || {
                is_there() && self.core().holds(hash, found.location, guard)
            });
        }
    }

    /// Copies a verified entry whose value lies in its record into the hot cache.
    pub(crate) fn fill_inline(
        &self,
        view: &View,
        found: &Found<'_>,
        hash: u64,
        read: Option<&HotRead<'_>>,
        guard: &Guard,
    ) {
        if found.record.header.kind != Kind::PutLarge {
            let record = &found.record;
            let entry = record_entry(record, record.value(), self.missed());
            self.fill(view, found, entry, hash, read, guard);
        }
    }

    /// What a read that goes to the log says of the hot cache.
    pub(crate) fn missed(&self) -> CacheStatus {
        let hot = self.core().hot.as_ref();
        hot.map_or(CacheStatus::Off, |_| CacheStatus::Miss)
    }
}

/// Passes on what a read came to, and ends it if that is nothing.
#[inline]
pub(crate) fn end_if_missing<T>(
    found: Result<Option<T>>,
    read: Option<&HotRead<'_>>,
) -> Result<Option<T>> {
    if let (Ok(None), Some(read)) = (&found, read) {
        read.end();
    }
    found
}

/// A record that is lent, and its value if that lies elsewhere.
pub(crate) struct Lent<'g> {
    large: Option<Bytes>,
    found: Found<'g>,
    cache_status: CacheStatus,
}

impl Lent<'_> {
    #[inline]
    pub(crate) fn entry(&self) -> EntryRef<'_> {
        let record = &self.found.record;
        let value = self.large.as_deref().unwrap_or_else(|| record.value());
        record_entry(record, value, self.cache_status)
    }

    pub(crate) fn into_entry(self) -> Entry {
        let record = &self.found.record;
        Entry {
            metadata: Bytes::copy_from_slice(record.metadata()),
            expiration: record.header.expiration,
            generation: record.header.generation(),
            value: Value(self.large.unwrap_or_else(|| inline(&self.found))),
        }
    }
}

#[inline]
fn record_entry<'r>(
    record: &Record<'r>,
    value: &'r [u8],
    cache_status: CacheStatus,
) -> EntryRef<'r> {
    EntryRef {
        value,
        metadata: record.metadata(),
        expiration: record.header.expiration,
        generation: record.header.generation(),
        cache_status,
    }
}

/// An entry of the hot cache as readers get it. A small value is copied, so that who keeps it does not keep
/// the whole entry; a large one is shared.
pub(crate) fn copied(held: &rimstone_cache::Entry) -> Entry {
    let lent = hot::lend(held);
    Entry {
        value: Value(shared(held)),
        metadata: Bytes::copy_from_slice(lent.metadata),
        expiration: lent.expiration,
        generation: lent.generation,
    }
}

pub(crate) fn streamed(held: &rimstone_cache::Entry) -> ValueStream {
    let lent = hot::lend(held);
    ValueStream {
        body: Body::Inline(shared(held)),
        metadata: Bytes::copy_from_slice(lent.metadata),
        expiration: lent.expiration,
        generation: lent.generation,
        position: 0,
        cache_status: CacheStatus::Hit,
    }
}

fn shared(held: &rimstone_cache::Entry) -> Bytes {
    if held.value().len() <= COPY_MAX {
        Bytes::copy_from_slice(held.value())
    } else {
        held.to_bytes()
    }
}
