//! The table from what all segments hold, when there is no checkpoint and the log is not whole any more:
//! segments were retired, and records moved.
//!
//! Of each key the record with the highest sequence number counts; a copy has that of its original, and
//! where both are there the copy counts. A tombstone takes its key's slot until the end. Retired
//! segments are passed over: of what they say nothing was needed when they were retired.

use std::sync::Arc;

use super::replay::{CROWDED, DAMAGED, Replay, is_same_key};
use super::scanned::records;
use crate::core::key_hash;
use crate::damage::Damage;
use crate::error::Result;
use crate::format::record::{Kind, Record, expires};
use crate::format::segment::SEGMENT_LEN;
use crate::index::runs::KeyRecord;
use crate::index::table::Location;
use crate::log::scan::{Scan, Step};
use crate::log::segment::Segment;
use crate::sync::epoch;

/// A segment, and where its records lie.
type Part = (Arc<Segment>, Vec<u32>);

impl Replay {
    /// Takes in all class segments that the log names and these parts of the front segments.
    pub(super) fn rebuild(&mut self, fronts: &[Part]) -> Result<()> {
        debug_assert_eq!(self.table.len(), 0, "it begins with nothing");
        debug_assert!(!self.is_rebuilt, "it is done once");
        self.is_rebuilt = true;
        self.is_exact = false;
        for (id, len) in std::mem::take(&mut self.checkpointed_classes) {
            let known = self.classes.entry(id).or_default();
            *known = len.max(*known);
        }
        // Also what the log says is there may have been retired: a checkpoint knows of records that are damaged.
        self.classes.retain(|id, _| !self.retirements.contains(id));
        let classes = self.class_parts()?;
        let staying = fronts
            .iter()
            .filter(|(s, _)| !self.retirements.contains(&s.id));
        let parts: Vec<&Part> = classes.iter().chain(staying).collect();
        debug_assert!(
            parts
                .iter()
                .all(|(_, offsets)| offsets.is_sorted_by(|a, b| a < b)),
            "each record is taken once"
        );
        for part in &parts {
            self.each(part, Replay::claim);
        }
        for part in fronts {
            self.each(part, Replay::apply_keyless);
        }
        for part in &parts {
            self.each(part, Replay::settle);
        }
        debug_assert!(
            parts.iter().all(|(segment, _)| {
                let counts = segment.usage.counts();
                counts.live <= counts.puts && counts.live_bytes <= SEGMENT_LEN
            }),
            "no more lives in a segment than was put there"
        );
        Ok(())
    }

    fn each(&mut self, part: &Part, f: impl Fn(&mut Replay, &Record<'_>, &Arc<Segment>, u32)) {
        let (segment, offsets) = part;
        for (offset, record) in records(segment, offsets) {
            f(self, &record, segment, offset);
        }
    }

    /// The class segments that are part of the store. All of each was durable when the log named it.
    fn class_parts(&mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut classes: Vec<_> = self.classes.iter().map(|(id, len)| (*id, *len)).collect();
        classes.sort_unstable();
        for (id, len) in classes {
            let Some(file) = self.take_found(id) else {
                continue;
            };
            debug_assert!(file.is_class());
            debug_assert!(len <= SEGMENT_LEN);
            let segment = self.add(file, len)?;
            segment.usage.commit(len);
            let offsets = self.class_offsets(&segment);
            parts.push((segment, offsets));
        }
        Ok(parts)
    }

    fn class_offsets(&mut self, segment: &Arc<Segment>) -> Vec<u32> {
        let mut offsets = Vec::new();
        let mut scan = Scan::of_class(segment);
        loop {
            match scan.step() {
                Step::Record {
                    offset, is_intact, ..
                } => {
                    if !is_intact {
                        self.damage.push(Damage::body(&segment.path, offset));
                    }
                    offsets.extend(u32::try_from(offset));
                }
                Step::Damage { offset, next } => {
                    self.damage
                        .push(Damage::bytes(&segment.path, offset, next, DAMAGED))
                }
                Step::End { .. } => {
                    debug_assert!(offsets.is_sorted(), "records lie in their order");
                    return offsets;
                }
            }
        }
    }

    /// Gives a key's slot to a put or tombstone, if none that is as new has it.
    pub(super) fn claim(&mut self, record: &Record<'_>, segment: &Arc<Segment>, offset: u32) {
        let header = &record.header;
        let len = u64::try_from(header.record_len()).unwrap_or(0);
        match header.kind {
            Kind::Put | Kind::PutLarge => segment.usage.note(header),
            Kind::Tombstone => segment.usage.pin(len, header.seqno),
            _ => return,
        }
        let hash = key_hash(&self.id, header.namespace, record.key);
        let new = self.location_in(segment, offset);
        let guard = epoch::pin();
        let mut newest = 0;
        let old = self.table.find(hash, &guard, |location| {
            let segment = self.segments.get(location.number(), &guard);
            let old = segment.and_then(|s| s.record(location.offset()).ok());
            let old = old.filter(|old| is_same_key(old, record));
            newest = old.map_or(0, |old| old.header.seqno);
            old.is_some()
        });
        let has_slot = match old {
            Some(_) if newest >= header.seqno => true,
            Some(old) => self.table.replace(hash, old, new),
            None => self.table.insert(hash, new),
        };
        if !has_slot {
            let offset = u64::from(offset);
            self.damage.push(Damage::at(&segment.path, offset, CROWDED));
        }
    }

    /// Applies what the log says of namespaces and retired segments. What a retired one says of namespaces
    /// was said again.
    fn apply_keyless(&mut self, record: &Record<'_>, segment: &Arc<Segment>, offset: u32) {
        let stays = !self.retirements.contains(&segment.id);
        let kind = record.header.kind;
        if kind == Kind::Retire || (kind == Kind::Namespace && stays) {
            self.apply(record, self.hash(record), segment, offset);
        }
    }

    /// Counts a put that has its key's slot in the end, and takes the slot from a tombstone.
    fn settle(&mut self, record: &Record<'_>, segment: &Arc<Segment>, offset: u32) {
        let header = &record.header;
        let hash = key_hash(&self.id, header.namespace, record.key);
        let location = self.location_in(segment, offset);
        match header.kind {
            Kind::Tombstone => {
                let was_newest = self.table.remove(hash, location);
                if was_newest && self.is_salvage {
                    self.list(record);
                }
            }
            Kind::Put | Kind::PutLarge => {
                let guard = epoch::pin();
                let held = self.table.find(hash, &guard, |held| held == location);
                if held.is_some() {
                    self.count(record, segment);
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, record: &Record<'_>, segment: &Segment) {
        let header = &record.header;
        let len = u64::try_from(header.record_len()).unwrap_or(0);
        segment.usage.gain(len, expires(header.expiration));
        if let Some(pointer) = record.large_pointer() {
            self.larges.insert(pointer.segment);
        }
        if self.is_salvage {
            self.named.insert(header.namespace);
        }
        self.list(record);
    }

    /// Takes the newest record of a key in among those that are listed.
    fn list(&mut self, record: &Record<'_>) {
        let header = &record.header;
        let is_intact = record.body_is_intact();
        self.keys.apply([KeyRecord {
            namespace: header.namespace,
            key: record.key,
            metadata: if is_intact { record.metadata() } else { &[] },
            expiration: header.expiration,
            seqno: header.seqno,
            tombstone: header.kind == Kind::Tombstone,
        }]);
    }

    /// The place of a record of one of the parts, all of which have numbers.
    fn location_in(&self, segment: &Segment, offset: u32) -> Location {
        let number = self.numbers.get(&segment.id).map_or(0, |(n, _)| *n);
        debug_assert!(number > 0, "0 is no segment");
        Location::new(number, offset.into())
    }
}
