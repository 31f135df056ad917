//! Giving up segments: what the log is told, and what is taken away with them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::core::Core;
use crate::error::Result;
use crate::format::lists::Retire;
use crate::format::record::{Address, Kind, RECORD_MAX};
use crate::format::segment::SEGMENT_LEN;
use crate::log::commit::Op;
use crate::log::segment::Segment;
use crate::records::{Found, RECORDS_AT_ONCE, Records};
use crate::sync::epoch;
use crate::writer::BATCH_MAX;

/// Namespaces that are said again together: all of them may be more than a segment has room for.
const NAMED_AT_ONCE: usize = 256;
const _: () = assert!(NAMED_AT_ONCE * RECORD_MAX <= BATCH_MAX);

impl Core {
    /// A segment that was not retired, with its number.
    pub(crate) fn segment(&self, id: u64) -> Option<(u32, Arc<Segment>)> {
        let all = self.segments.all().into_iter();
        all.filter(|(_, segment)| segment.id == id).last()
    }

    /// Retires segments by one record of the log, before which what they say of namespaces is said again, and
    /// returns its sequence number: from here on nobody may need them but who reads them now, and the kept
    /// checkpoints.
    pub(crate) fn retire(&self, victims: &[(u32, Arc<Segment>)]) -> Result<u64> {
        debug_assert!(!victims.is_empty());
        let in_order = victims.is_sorted_by_key(|(_, segment)| segment.id);
        debug_assert!(in_order, "their files go in the order of the log");
        let (active, _) = self.log.lock().active();
        assert!(
            victims.iter().all(|(number, _)| *number != active),
            "the log goes on in a segment that stays"
        );
        let ids: Vec<u64> = victims.iter().map(|(_, segment)| segment.id).collect();
        let naming = self.naming.lock();
        let mut namespaces = self.namespaces_to_keep(&ids).into_iter().peekable();
        while namespaces.peek().is_some() {
            let some = namespaces.by_ref().take(NAMED_AT_ONCE).collect();
            self.commit(some, false)?;
        }
        let body = self.retirement(&ids).encode();
        let retire = Op::keyless(Kind::Retire, 0, body);
        let seqno = self.commit(vec![retire], false)?.generation;
        debug_assert!(seqno > 0, "a retirement is in the log");
        ids.iter()
            .for_each(|id| self.namespaces.forget_dropped(*id));
        drop(naming);
        Ok(seqno)
    }

    /// Takes away the slot of a record whose segment was retired, which replay repeats.
    pub(crate) fn forget(&self, found: &Found, seqno: u64) {
        debug_assert!(found.is_put(), "pins have no slots");
        let removed = self.table.remove(found.hash, found.location);
        if let Some(large) = found.large().filter(|_| removed) {
            self.larges.lock().remove(&large);
            self.garbage.lock().push((seqno, large));
        }
    }

    /// Logs again what segments say of namespaces. A dropped one may be forgotten when no front segment
    /// that stays is older, and so none says that it existed; but for the newest of all, whose number
    /// must not be given out again.
    fn namespaces_to_keep(&self, victims: &[u64]) -> Vec<Op> {
        let newest = self.namespaces.next_number().saturating_sub(1);
        let all = self.segments.all();
        let entries = self.namespaces.entries().into_iter();
        let entries = entries.filter(|entry| {
            let exists = self.namespaces.by_number(entry.number).is_some();
            let stays = |s: &Segment| !victims.contains(&s.id);
            let is_older = |s: &Segment| s.class.is_none() && s.id < entry.segment;
            let is_last = !all.iter().any(|(_, s)| stays(s) && is_older(s));
            victims.contains(&entry.segment) && (exists || entry.number == newest || !is_last)
        });
        debug_assert!(
            self.naming.is_locked(),
            "who changes one meanwhile would be undone"
        );
        entries
            .map(|entry| Op::keyless(Kind::Namespace, entry.number, entry.body))
            .collect()
    }

    /// What the log is told when these are retired: the front segments that others name as the one
    /// before them and that are gone, and all class segments that stay. So a rebuild from the log knows
    /// what is missing by right, and what is no part of the store.
    fn retirement(&self, victims: &[u64]) -> Retire {
        let mut staying = self.segments.all();
        staying.retain(|(_, segment)| !victims.contains(&segment.id));
        let ids: HashSet<u64> = staying.iter().map(|(_, segment)| segment.id).collect();
        debug_assert_eq!(
            ids.len(),
            staying.len(),
            "each segment has an id of its own"
        );
        debug_assert!(victims.iter().all(|id| !ids.contains(id)));
        let named = staying.iter().map(|(_, segment)| segment.previous);
        let classes = staying.iter().filter(|(_, s)| s.class.is_some());
        let class = |segment: &Segment| Address {
            segment: segment.id,
            offset: u32::try_from(segment.end()).unwrap_or(u32::MAX),
        };
        Retire {
            victims: victims.to_vec(),
            holes: named.filter(|id| *id != 0 && !ids.contains(id)).collect(),
            classes: classes
                .map(|(_, segment)| class(segment))
                .filter(|class| class.offset > 0)
                .collect(),
        }
    }

    /// Counts again how much of a segment is of namespaces that were dropped; false if the store is
    /// closed meanwhile.
    pub(crate) fn find_dropped(&self, number: u32, segment: &Arc<Segment>) -> bool {
        let exists = self.namespaces.numbers();
        let guard = epoch::pin();
        let mut bytes = 0;
        let records = Records::new(Arc::clone(segment), number, self.id);
        for (at, found) in records.flatten().enumerate() {
            if at.is_multiple_of(RECORDS_AT_ONCE) && self.work.is_stopped() {
                return false;
            }
            let is_dropped = found.is_put() && !exists.contains(&found.header.namespace);
            if is_dropped && self.holds(found.hash, found.location, &guard) {
                bytes += u64::try_from(found.header.record_len()).unwrap_or(0);
            }
        }
        debug_assert!(bytes <= SEGMENT_LEN, "no more than it holds");
        segment.usage.set_dropped(bytes);
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::format::namespace::NamespaceBody;
    use crate::format::record::Kind;
    use crate::log::commit::Op;
    use crate::{Durability, Options};

    #[test]
    fn more_namespaces_than_a_segment_has_room_for_outlive_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let options = || {
            Options::new()
                .durability(Durability::None)
                .without_threads()
        };
        let store = options().open(dir.path()).unwrap();
        let op = |number: u32| {
            let body = NamespaceBody {
                id: u128::from(number).to_le_bytes(),
                name: format!("{number:02048}").into_bytes(),
                ..NamespaceBody::default()
            };
            Op::keyless(Kind::Namespace, number, body.encode())
        };
        for thousand in 0..34u32 {
            let ops = (1..=1000).map(|n| op(thousand * 1000 + n)).collect();
            store.core().commit(ops, false).unwrap();
        }
        assert!(store.core().segments.all().len() > 1);
        store.compact().unwrap();
        let said = |store: &crate::Store| store.core().namespaces.entries();
        let before = said(&store);
        assert_eq!(before.len(), 34_000);
        store.close().unwrap();
        let store = options().open(dir.path()).unwrap();
        assert!(
            said(&store) == before,
            "of each the number, the name and where it is said"
        );
    }
}
