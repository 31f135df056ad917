//! What a record of the log changes: it takes the place of the one that it names.

use std::sync::Arc;

use super::replay::{CROWDED, Replay};
use crate::core::key_hash;
use crate::damage::Damage;
use crate::error::Result;
use crate::format::lists::{Move, Retire};
use crate::format::record::{self, Address, Kind, Record, Replaced};
use crate::index::runs::KeyRecord;
use crate::index::table::Location;
use crate::log::segment::Segment;
use crate::sync::epoch;

/// The record that another takes the place of.
struct Old {
    location: Location,
    len: u32,
    expires: u32,
    large: Option<u64>,
}

/// Records whose buckets are fetched ahead together.
const PREFETCHED: usize = 32;

impl Replay {
    /// Applies the records of a segment, one after the other.
    pub(super) fn apply_all<'a>(
        &mut self,
        segment: &Arc<Segment>,
        mut records: impl Iterator<Item = Result<(u32, Record<'a>)>>,
    ) -> Result<()> {
        let mut group = Vec::with_capacity(PREFETCHED);
        loop {
            for record in records.by_ref().take(PREFETCHED) {
                let (offset, record) = record?;
                let hash = self.hash(&record);
                self.table.prefetch(hash);
                group.push((offset, record, hash));
            }
            if group.is_empty() {
                return Ok(());
            }
            debug_assert!(group.len() <= PREFETCHED, "no more than comes at once");
            for (offset, record, hash) in group.drain(..) {
                self.apply(&record, hash, segment, offset);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
        }
    }

    /// The hash of a record's key.
    pub(super) fn hash(&self, record: &Record<'_>) -> u64 {
        key_hash(&self.id, record.header.namespace, record.key)
    }

    /// The record that another replaces: the one it names, or, where that one may be gone, whichever
    /// the key has, since an older version must not come back.
    fn old(&self, record: &Record<'_>, hash: u64) -> Option<Old> {
        let guard = epoch::pin();
        let at = |location: Location| {
            let segment = self.segments.get(location.number(), &guard)?;
            segment.record(location.offset()).ok()
        };
        let Replaced {
            address,
            len,
            expires,
            large,
            ..
        } = record.header.replaced;
        let named = self.location(address);
        if self.is_exact && self.damage.is_empty() {
            let location = named?;
            // Where the value lies is all that the record that is here does not say.
            let old = large.then(|| at(location)).flatten();
            return Some(Old {
                location,
                len,
                expires,
                large: old.and_then(|old| old.large_pointer()).map(|p| p.segment),
            });
        }
        let namespace = record.header.namespace;
        let location = self.table.find(hash, &guard, |location| {
            named == Some(location)
                || at(location)
                    .is_some_and(|old| old.header.namespace == namespace && old.key == record.key)
        })?;
        let old = at(location);
        let len = old.map_or(len, |old| {
            u32::try_from(old.header.record_len()).unwrap_or(len)
        });
        let expires = old.map_or(expires, |old| record::expires(old.header.expiration));
        let large = old.and_then(|old| old.large_pointer()).map(|p| p.segment);
        Some(Old {
            location,
            len,
            expires,
            large,
        })
    }

    /// Applies one record, which lies at this place.
    pub(super) fn apply(
        &mut self,
        record: &Record<'_>,
        hash: u64,
        segment: &Arc<Segment>,
        offset: u32,
    ) {
        let header = &record.header;
        debug_assert!(
            u64::from(offset) < segment.published(),
            "what is applied can be read"
        );
        // A put whose body was damaged takes its slot, so that nothing older is found; reading it fails.
        // That of every record was looked at before: without damage there is none.
        let is_intact = self.damage.is_empty() || record.body_is_intact();
        match header.kind {
            Kind::Namespace | Kind::Retire | Kind::Move if !is_intact => return,
            Kind::Put | Kind::PutLarge => {
                if self.apply_put(record, hash, segment, offset) {
                    return;
                }
            }
            Kind::Tombstone => {
                segment.usage.add(header);
                let old = self.old(record, hash);
                if let Some(old) = old.filter(|old| self.table.remove(hash, old.location)) {
                    self.release(&old);
                }
            }
            Kind::Namespace => {
                self.namespaces
                    .apply(header.namespace, record.body, segment.id, header.seqno);
                return;
            }
            Kind::Retire => {
                let retire = Retire::decode(record.body).unwrap_or_default();
                for id in retire.victims {
                    self.retire(id, header.seqno);
                }
                return;
            }
            Kind::Move => {
                if let Some(moved) = Move::decode(record.body).filter(|_| !self.is_rebuilt) {
                    self.relocate(&moved);
                }
                return;
            }
            Kind::Close => return,
        }
        self.keys.apply([KeyRecord {
            namespace: header.namespace,
            key: record.key,
            metadata: if is_intact { record.metadata() } else { &[] },
            expiration: header.expiration,
            seqno: header.generation(),
            tombstone: header.kind == Kind::Tombstone,
        }]);
    }

    /// Lets the table point to a put. Returns whether the ordered keys hold what they would take of it:
    /// it took the place of the very record that it names, and which lists alike. Where that record may
    /// have been lost, or may not be what was taken, nobody knows.
    fn apply_put(
        &mut self,
        record: &Record<'_>,
        hash: u64,
        segment: &Arc<Segment>,
        offset: u32,
    ) -> bool {
        let address = Address {
            segment: segment.id,
            offset,
        };
        let Some(new) = self.location(address) else {
            return false;
        };
        debug_assert_eq!(new.offset(), u64::from(offset));
        segment.usage.add(&record.header);
        let lists_alike =
            record.header.replaced.lists_alike && self.is_exact && self.damage.is_empty();
        let old = self.old(record, hash);
        let replaced = old.filter(|old| self.table.replace(hash, old.location, new));
        if let Some(old) = &replaced {
            // A moved record shares its large value with the one before it, and takes it over below.
            self.release(old);
        } else if !self.table.insert(hash, new) {
            let offset = u64::from(offset);
            self.damage.push(Damage::at(&segment.path, offset, CROWDED));
        }
        if let Some(pointer) = record.large_pointer() {
            self.larges.insert(pointer.segment);
        }
        lists_alike && replaced.is_some()
    }

    /// Counts a record that the table no longer points to.
    fn release(&mut self, old: &Old) {
        let guard = epoch::pin();
        if let Some(segment) = self.segments.get(old.location.number(), &guard) {
            segment.usage.lose(u64::from(old.len), old.expires);
        }
        if let Some(large) = old.large {
            self.larges.remove(&large);
        }
    }
}
