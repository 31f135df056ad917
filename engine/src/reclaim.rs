//! Getting space back: what is live in a segment that is mostly dead moves to the end of the log, and
//! a segment in which nothing is live is retired.
//!
//! A move is a record in the log like any other, and is decided in its order: it happens only if the
//! table still names the record where compaction saw it. So a put that comes in between wins, and
//! replay comes to the same.

use std::collections::HashSet;
use std::sync::Arc;

use crate::core::{Core, key_hash};
use crate::error::Result;
use crate::format::checkpoint::Retired;
use crate::format::record::{INLINE_MAX, Kind, Record};
use crate::format::segment::{HEADER_LEN, SEGMENT_LEN};
use crate::index::table::Location;
use crate::log::commit::Op;
use crate::log::scan::{Scan, Step};
use crate::log::segment::Segment;
use crate::maintenance::{Maintenance, is_erasable};
use crate::options::Condition;

/// Space for each 100 bytes that are live, beyond the segment that is being written.
const SPACE_PERCENT: u64 = 130;
/// A segment is worth moving once this share of it is dead.
const DEAD_PERCENT: u64 = 10;
/// The least a segment takes on disk.
const SEGMENT_MIN: u64 = 1 << 20;
/// Ids that fit into a record: beyond that nothing is retired. At least 512 GB of log lie between.
const IDS_MAX: usize = INLINE_MAX / 8;
/// Bytes of records that are moved together.
const MOVE: usize = 256 << 10;

/// A record that a slot names.
struct Slot {
    hash: u64,
    location: Location,
    large: Option<u64>,
    is_dead: bool,
}

impl Core {
    /// Retires the segments in which nothing is live: of those that hold what older segments need,
    /// only the oldest. With `thorough` segments are read to find out.
    pub(crate) fn retire_dead(&self, state: &mut Maintenance, thorough: bool) -> Result<()> {
        let (active, _) = self.log.lock().active();
        let now = self.clock.confirmed();
        let mut oldest = true;
        for (number, segment) in self.segments.all() {
            if number == active {
                break;
            }
            let counts = segment.usage.counts();
            let expired = is_erasable(counts.last_visible.saturating_add(1), now);
            let slots = if counts.pins > 0 && !oldest {
                None
            } else if counts.live == 0 {
                Some(Vec::new())
            } else if expired || thorough {
                // All of it must be readable: a slot that is left would come to mean another segment.
                self.slots(number, &segment, now).filter(|slots| {
                    u64::try_from(slots.len()) == Ok(counts.live)
                        && slots.iter().all(|slot| slot.is_dead)
                })
            } else {
                None
            };
            let retired = match slots {
                Some(slots) => self.retire(state, number, &segment, &slots)?,
                None => false,
            };
            oldest &= retired;
        }
        Ok(())
    }

    /// What the table still needs of a segment; `None` if some of it is damaged.
    fn slots(&self, number: u32, segment: &Segment, now: u64) -> Option<Vec<Slot>> {
        let namespaces: HashSet<u32> = self.namespaces.all().iter().map(|s| s.number).collect();
        let mut slots = Vec::new();
        let mut scan = Scan::new(segment, HEADER_LEN as u64, segment.published(), 0);
        let guard = crossbeam_epoch::pin();
        loop {
            let (offset, record) = match scan.step() {
                Step::Record {
                    offset,
                    record,
                    is_intact: true,
                } => (offset, record),
                Step::Record { .. } | Step::Damage { .. } => return None,
                Step::End { .. } => return Some(slots),
            };
            let header = record.header;
            let location = Location::new(number, offset);
            let hash = key_hash(&self.id, header.namespace, record.key);
            if matches!(header.kind, Kind::Put | Kind::PutLarge)
                && self.holds(hash, location, &guard)
            {
                slots.push(Slot {
                    hash,
                    location,
                    large: record.large_pointer().map(|pointer| pointer.segment),
                    is_dead: is_erasable(header.expiration, now)
                        || !namespaces.contains(&header.namespace),
                });
            }
        }
    }

    /// Retires a segment: from here on nobody may need it but who reads it now, and the kept checkpoints.
    /// Dead records in it lose their slots, which replay repeats. False, and nothing happened, if the gaps
    /// of the log are too many for a record.
    fn retire(
        &self,
        state: &mut Maintenance,
        number: u32,
        segment: &Arc<Segment>,
        slots: &[Slot],
    ) -> Result<bool> {
        let mut ids = vec![segment.id];
        ids.extend(self.holes_without(segment.id));
        if ids.len() > IDS_MAX {
            return Ok(false);
        }
        let naming = self.naming.lock();
        let mut ops = self.namespaces_to_keep(segment.id);
        let ids = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        ops.push(Op::keyless(Kind::Retire, 0, ids));
        let seqno = self.commit(ops, false)?.generation;
        self.namespaces.forget_dropped(segment.id);
        drop(naming);
        for slot in slots {
            let removed = self.table.remove(slot.hash, slot.location);
            if let Some(large) = slot.large.filter(|_| removed) {
                self.larges.lock().remove(&large);
                self.garbage.lock().push((seqno, large));
            }
        }
        self.segments.remove(number);
        let id = segment.id;
        state.retired.push(Retired { id, seqno });
        Ok(true)
    }

    /// Logs again what a segment says of namespaces. A dropped one may be forgotten with the oldest
    /// segment, since what it held is gone with it; but for the newest of all, whose number must not be
    /// given out again.
    fn namespaces_to_keep(&self, segment: u64) -> Vec<Op> {
        let newest = self.namespaces.next_number().saturating_sub(1);
        let oldest = self.segments.all().first().map(|(_, s)| s.id);
        let entries = self.namespaces.entries().into_iter();
        let entries = entries.filter(|entry| {
            let exists = entry.body.first() == Some(&0);
            let needed = exists || entry.number == newest || oldest != Some(segment);
            entry.segment == segment && needed
        });
        entries
            .map(|entry| Op::keyless(Kind::Namespace, entry.number, entry.body))
            .collect()
    }

    /// The segments that others name as the one before them and that are gone, once this one is: so
    /// that a rebuild from the log knows what is missing by right. Each retirement says all of it, and
    /// so none is needed but the last.
    fn holes_without(&self, segment: u64) -> Vec<u64> {
        let all = self.segments.all();
        let stays: HashSet<u64> = all
            .iter()
            .map(|(_, s)| s.id)
            .filter(|id| *id != segment)
            .collect();
        let named = all
            .iter()
            .filter(|(_, s)| s.id != segment)
            .map(|(_, s)| s.previous);
        named.filter(|id| *id != 0 && !stays.contains(id)).collect()
    }

    /// Moves what is live out of the segments that free most, until the store takes no more space than
    /// it may.
    pub(crate) fn compact(&self, state: &mut Maintenance) -> Result<()> {
        while let Some((number, segment)) = self.victim(state) {
            if self.work.is_stopped() {
                break;
            }
            if !self.empty(state, number, &segment)? {
                break;
            }
            if self.is_checkpoint_due(state) {
                self.checkpoint(state)?;
            }
        }
        Ok(())
    }

    /// Empties every segment of which a share is dead, oldest first, but for those with tombstones that an
    /// older one needs. The log goes on in a new one.
    pub(crate) fn compact_all(&self, state: &mut Maintenance) -> Result<()> {
        let before = self.segments.all();
        self.rotate(&mut self.log.lock())?;
        for (number, segment) in before {
            if self.work.is_stopped() {
                break;
            }
            let may_go = may_go(number, &segment, &self.segments.all());
            if is_worth(&segment) && may_go {
                self.empty(state, number, &segment)?;
            }
            if self.is_checkpoint_due(state) {
                self.checkpoint(state)?;
            }
        }
        Ok(())
    }

    /// The sealed segment to empty next: the one with most dead bytes that can go once it is empty;
    /// `None` while the store keeps to its space.
    fn victim(&self, state: &Maintenance) -> Option<(u32, Arc<Segment>)> {
        // In this order: a segment that the log went on in since is not in the list.
        let all = self.segments.all();
        let (active, _) = self.log.lock().active();
        let live: u64 = all.iter().map(|(_, s)| s.usage.counts().live_bytes).sum();
        let mut sealed = all.clone();
        sealed.retain(|(number, s)| *number != active && !state.stuck.contains(&s.id));
        let bytes: u64 = sealed.iter().map(|(_, s)| size(s)).sum();
        if bytes
            <= (live / 100)
                .saturating_mul(SPACE_PERCENT)
                .saturating_add(SEGMENT_LEN)
        {
            return None;
        }
        let best = sealed
            .iter()
            .filter(|(number, segment)| is_worth(segment) && may_go(*number, segment, &all));
        let best = best.max_by_key(|(_, segment)| dead(segment)).cloned();
        // All that are worth it wait for older ones: then the oldest has to go, if it can be read.
        best.or_else(|| {
            let oldest = sealed.first().filter(|(n, _)| is_oldest(*n, &all));
            let waiting = sealed.iter().any(|(_, s)| is_worth(s));
            oldest.filter(|_| waiting).cloned()
        })
    }

    /// Moves what is live out of a segment and retires it. False if that has to wait, and for ever if it
    /// cannot be read.
    fn empty(&self, state: &mut Maintenance, number: u32, segment: &Arc<Segment>) -> Result<bool> {
        let now = self.clock.confirmed();
        let Some(slots) = self.slots(number, segment, now) else {
            state.stuck.insert(segment.id);
            return Ok(false);
        };
        let (mut ops, mut bytes) = (Vec::new(), 0);
        for slot in slots.iter().filter(|slot| !slot.is_dead) {
            let record = segment.record(slot.location.offset())?;
            bytes += record.header.record_len();
            ops.push(moving(&record, slot));
            if bytes >= MOVE {
                self.commit(std::mem::take(&mut ops), false)?;
                bytes = 0;
            }
        }
        if !ops.is_empty() {
            self.commit(ops, false)?;
        }
        let left = self.slots(number, segment, now).unwrap_or_default();
        let all = u64::try_from(left.len()) == Ok(segment.usage.counts().live);
        if all && left.iter().all(|slot| slot.is_dead) {
            return self.retire(state, number, segment, &left);
        }
        Ok(false)
    }
}

/// Whether nothing that was deleted comes back without this segment, once it is empty: it holds no
/// tombstone, or there is no older segment, also none that cannot be read.
fn may_go(number: u32, segment: &Segment, all: &[(u32, Arc<Segment>)]) -> bool {
    segment.usage.counts().pins == 0 || is_oldest(number, all)
}

fn is_oldest(number: u32, all: &[(u32, Arc<Segment>)]) -> bool {
    all.first().is_some_and(|(oldest, _)| *oldest == number)
}

fn size(segment: &Segment) -> u64 {
    segment.published().max(SEGMENT_MIN)
}

fn dead(segment: &Segment) -> u64 {
    size(segment).saturating_sub(segment.usage.counts().live_bytes)
}

fn is_worth(segment: &Segment) -> bool {
    dead(segment) >= size(segment) / 100 * DEAD_PERCENT
}

/// The operation that moves a record to the end of the log.
fn moving(record: &Record<'_>, slot: &Slot) -> Op {
    let header = &record.header;
    Op {
        kind: header.kind,
        namespace: header.namespace,
        hash: slot.hash,
        key: record.key.to_vec(),
        body: record.body.to_vec(),
        body_crc: header.body_crc,
        metadata_len: header.metadata_len,
        expiration: header.expiration,
        condition: Condition::None,
        moved: Some(slot.location),
    }
}
