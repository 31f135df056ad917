//! Repeats what compaction did: records that were copied, and segments that were retired.

use std::sync::Arc;

use super::replay::{MISSING, Replay, is_same_key};
use crate::core::key_hash;
use crate::damage::Damage;
use crate::error::{Error, io_error};
use crate::format::checkpoint::Retired;
use crate::format::lists::{Move, Relocation};
use crate::format::record::{self, Address};
use crate::format::segment::HEADER_LEN;
use crate::index::table::Location;
use crate::log::scan::{Scan, Step};
use crate::log::segment::Segment;
use crate::sync::epoch;

impl Replay {
    /// Repeats a move: what the table still names goes to its new place.
    pub(super) fn relocate(&mut self, moved: &Move) {
        debug_assert!(!self.is_rebuilt, "a rebuild takes in the copies themselves");
        // One that is missing is told of later, as the log may say that it was retired.
        let Some(to) = self.class_segment(moved) else {
            return;
        };
        to.usage.receive(moved);
        let from = self.numbers.get(&moved.from).map(|(_, s)| Arc::clone(s));
        for relocation in &moved.relocations {
            let at = |segment, offset| self.location(Address { segment, offset });
            let Some(new) = at(moved.to, relocation.new) else {
                continue;
            };
            let old = from.as_ref().zip(at(moved.from, relocation.old));
            let from = old.filter(|(_, old)| self.table.replace(relocation.hash, *old, new));
            if let Some((from, _)) = from {
                from.usage.lose(relocation.bytes(), relocation.expires);
                to.usage.gain(relocation.bytes(), relocation.expires);
            } else if !self.damage.is_empty() {
                self.overtake(relocation, &to, new);
            }
        }
    }

    /// The segment that a move is to, as long as the move says that it is.
    fn class_segment(&mut self, moved: &Move) -> Option<Arc<Segment>> {
        let len = u64::from(moved.len);
        if let Some(file) = self.take_found(moved.to) {
            // Which tells of what is missing. Another store's is told with those that are not there.
            return match self.add(file, len) {
                Err(error @ Error::Io { .. }) => self.fail(error),
                added => added.ok(),
            };
        }
        let segment = Arc::clone(&self.numbers.get(&moved.to)?.1);
        let there = match segment.file.len() {
            Err(e) => return self.fail(io_error("reading", &segment.path, e)),
            Ok(there) => there,
        };
        if there < len {
            let missing = Damage::bytes(&segment.path, there, len, MISSING);
            self.damage.push(missing);
        }
        segment.publish(len.min(there));
        debug_assert!(segment.published() >= len.min(there));
        debug_assert_eq!(segment.id, moved.to);
        Some(segment)
    }

    /// What was moved is not passed over: the log goes on to say that nothing is needed of where it was.
    fn fail<T>(&mut self, error: Error) -> Option<T> {
        self.failed = Some(error);
        None
    }

    /// With damage in the log the table may name an older version of what was copied.
    fn overtake(&mut self, relocation: &Relocation, to: &Arc<Segment>, new: Location) {
        debug_assert!(!self.damage.is_empty(), "only what is damaged is overtaken");
        let Ok(copy) = to.record(new.offset()) else {
            return;
        };
        let guard = epoch::pin();
        let mut older = None;
        self.table.find(relocation.hash, &guard, |location| {
            let segment = self.segments.get(location.number(), &guard);
            let record = segment.and_then(|s| s.record(location.offset()).ok());
            let is_older = record.is_some_and(|record| {
                is_same_key(&record, &copy) && record.header.seqno < copy.header.seqno
            });
            older = segment.zip(record).filter(|_| is_older);
            is_older && self.table.replace(relocation.hash, location, new)
        });
        if let Some((segment, record)) = older {
            let len = u64::try_from(record.header.record_len()).unwrap_or(0);
            let expires = record::expires(record.header.expiration);
            segment.usage.lose(len, expires);
            to.usage.gain(relocation.bytes(), relocation.expires);
        }
    }

    /// Repeats a retirement: whatever slots the segment still has are those of dead records.
    pub(super) fn retire(&mut self, id: u64, seqno: u64) {
        let is_in_use = seqno <= self.in_use.0 && self.in_use.1.contains(&id);
        if is_in_use || (self.is_rebuilt && self.classes.contains_key(&id)) {
            // A later record or checkpoint says that it is part of the store: it had stayed, as below.
            return;
        }
        let live = self.numbers.get(&id).map(|(_, s)| s.usage.counts().live);
        if live.is_some_and(|live| live > 0) && !self.damage.is_empty() {
            // What was live was moved away, but the record that says so may be the damaged one. The
            // segment stays, and is emptied again.
            return;
        }
        self.retired.push(Retired { id, seqno });
        self.namespaces.forget_dropped(id);
        let Some((number, segment)) = self.numbers.remove(&id) else {
            // Its file is gone, and nothing of it was replayed.
            return;
        };
        debug_assert_eq!(segment.id, id);
        let counts = segment.usage.counts();
        if counts.larges > 0 {
            self.remove_slots(number, &segment, counts.live);
        }
        if counts.live > 0 {
            // Also of records that can no longer be read. Slots must not come to mean another segment.
            self.table.sweep(&[number]);
        }
        self.segments.remove(number);
        debug_assert!(!self.numbers.contains_key(&id), "nothing names it any more");
    }

    /// Removes the slots that a segment still has, and forgets their large values.
    fn remove_slots(&mut self, number: u32, segment: &Segment, mut left: u64) {
        let mut scan = match segment.class {
            Some(_) => Scan::of_class(segment),
            None => Scan::new(segment, HEADER_LEN as u64, segment.published(), 0),
        };
        debug_assert!(number > 0, "0 is no segment");
        while left > 0 {
            match scan.step() {
                Step::Record { offset, record, .. } => {
                    let hash = key_hash(&self.id, record.header.namespace, record.key);
                    if self.table.remove(hash, Location::new(number, offset)) {
                        left -= 1;
                        if let Some(pointer) = record.large_pointer() {
                            self.larges.remove(&pointer.segment);
                        }
                    }
                }
                Step::Damage { .. } => {}
                Step::End { .. } => break,
            }
        }
    }
}
