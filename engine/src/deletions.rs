//! Deleting all that a namespace holds, or all that begins with a prefix: one record in the log, at once, at
//! any size.
//!
//! *Everything*: the namespace gets a new number, under which it holds nothing, and the old one is dropped
//! like that of a dropped namespace. No key is ever touched.
//!
//! *A prefix*: the state of the namespace says which prefix was deleted, and at which sequence number; reads
//! and conditions pass over what is older. Maintenance then writes a tombstone for each key, a few at a time,
//! and at last a state that no longer says so. Until then the state goes with the namespace wherever that
//! goes: into checkpoints, and into the log again when its segment is retired.

use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::namespace::{Deletion, NamespaceBody};
use crate::format::record::{HEADER_LEN, INLINE_MAX, KEY_MAX, Kind};
use crate::list::ListOptions;
use crate::log::commit::Op;
use crate::maintenance::Maintenance;
use crate::namespaces::{NAME_MAX, State};
use crate::options::Condition;
use crate::writer::BATCH_MAX;

/// Deletions of one namespace that may wait: what a record about it has room for. Whoever asks for more
/// carries the others out first.
const WAITING_MAX: usize = 64;
/// Keys that are deleted by one commit, and in one turn of maintenance.
const BATCH: usize = 256;
const TURN: usize = 64 << 10;

// A record about a namespace has room for all that wait.
const _: () = assert!(WAITING_MAX * (KEY_MAX + 16) + NAME_MAX + 32 < INLINE_MAX);
const _: () = {
    assert!(BATCH <= TURN);
    assert!(TURN.is_multiple_of(BATCH));
    assert!(BATCH * (HEADER_LEN + KEY_MAX) <= BATCH_MAX);
};

/// How far a deletion is that is being carried out.
pub(crate) struct UnderWay {
    number: u32,
    deletion: Deletion,
    cursor: Option<String>,
}

impl Core {
    /// Deletes everything in a namespace.
    pub(crate) fn clear(&self, state: &State, immediate: bool) -> Result<()> {
        self.origin.check()?;
        let _naming = self.naming.lock();
        let view = state.view()?;
        let body = |dropped| NamespaceBody {
            dropped,
            id: state.id.0,
            deletions: Vec::new(),
            name: state.name().into_bytes(),
        };
        let op = |number, dropped| Op::keyless(Kind::Namespace, number, body(dropped).encode());
        // The new one first: at no moment is there no namespace.
        let ops = vec![
            op(self.namespaces.next_number(), false),
            op(view.number, true),
        ];
        self.commit(ops, immediate)?;
        self.work.wake();
        Ok(())
    }

    /// Deletes everything that begins with a prefix which is not empty.
    pub(crate) fn delete_prefix(
        &self,
        state: &State,
        prefix: &[u8],
        immediate: bool,
    ) -> Result<()> {
        if prefix.len() > KEY_MAX {
            return Err(Error::InvalidKey { len: prefix.len() });
        }
        debug_assert!(
            !prefix.is_empty(),
            "everything is cleared, key by key is another way"
        );
        loop {
            // Nobody carries deletions out in a closed store, so there is no use in waiting for that.
            self.check_writable()?;
            let naming = self.naming.lock();
            let mut deletions = state.view()?.deletions().to_vec();
            // This one does all that they do.
            deletions.retain(|deletion| !deletion.prefix.starts_with(prefix));
            if deletions.len() >= WAITING_MAX {
                drop(naming);
                let mut maintenance = self.maintenance.lock();
                self.carry_out_all(&mut maintenance)?;
                continue;
            }
            deletions.push(Deletion {
                seqno: 0,
                prefix: prefix.to_vec(),
            });
            self.commit_deletions(state, deletions, immediate)?;
            self.work.wake();
            return Ok(());
        }
    }

    /// Under the lock on naming.
    fn commit_deletions(
        &self,
        state: &State,
        deletions: Vec<Deletion>,
        immediate: bool,
    ) -> Result<()> {
        debug_assert!(self.naming.is_locked(), "two could forget each other's");
        debug_assert!(deletions.len() <= WAITING_MAX);
        let body = NamespaceBody {
            dropped: false,
            id: state.id.0,
            deletions,
            name: state.name().into_bytes(),
        };
        debug_assert!(
            body.deletions
                .iter()
                .all(|deletion| deletion.prefix.len() <= KEY_MAX),
            "a record has room for them"
        );
        let op = Op::keyless(Kind::Namespace, state.number(), body.encode());
        self.commit(vec![op], immediate).map(drop)
    }

    /// Whether there are deletions that are not carried out.
    pub(crate) fn is_deleting(&self) -> bool {
        self.namespaces
            .all()
            .iter()
            .any(|state| state.is_deleting())
    }

    /// Carries all deletions out that were asked for so far, unless the store is closed meanwhile.
    pub(crate) fn carry_out_all(&self, maintenance: &mut Maintenance) -> Result<()> {
        while self.is_deleting() && !self.work.is_stopped() {
            self.carry_out_some(maintenance)?;
        }
        Ok(())
    }

    /// Carries deletions out, as far as one turn goes.
    pub(crate) fn carry_out_deletions(&self, maintenance: &mut Maintenance) -> Result<()> {
        if !self.is_deleting() {
            return Ok(());
        }
        self.carry_out_some(maintenance)?;
        if self.is_deleting() {
            // Others first; then it goes on.
            self.work.wake();
        }
        Ok(())
    }

    fn carry_out_some(&self, maintenance: &mut Maintenance) -> Result<()> {
        let mut left = TURN;
        for state in self.namespaces.all() {
            let (number, deletions) = (state.number(), state.deletions());
            for deletion in deletions.iter() {
                let is_it = |u: &UnderWay| u.number == number && u.deletion == *deletion;
                let mut under_way = maintenance.deleting.take().filter(is_it);
                let under_way = under_way.get_or_insert_with(|| UnderWay {
                    number,
                    deletion: deletion.clone(),
                    cursor: None,
                });
                let carried_out = self.carry_out(&state, under_way, &mut left);
                let is_done = match carried_out {
                    // It was dropped, with all it held.
                    Err(Error::NoSuchNamespace) => break,
                    done => done?,
                };
                if !is_done {
                    maintenance.deleting = Some(UnderWay {
                        number,
                        deletion: deletion.clone(),
                        cursor: under_way.cursor.take(),
                    });
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes tombstones for what a deletion took away; true once that is all, and the log says so.
    fn carry_out(
        &self,
        state: &Arc<State>,
        under_way: &mut UnderWay,
        left: &mut usize,
    ) -> Result<bool> {
        let UnderWay {
            number,
            deletion,
            cursor,
        } = under_way;
        loop {
            if *left == 0 || self.work.is_stopped() {
                return Ok(false);
            }
            debug_assert!(*left <= TURN);
            debug_assert!(left.is_multiple_of(BATCH));
            let mut options = ListOptions::new().prefix(&deletion.prefix).limit(BATCH);
            options.cursor.clone_from(cursor);
            // At the beginning of time nothing has expired.
            let page = self
                .keys
                .list(&state.all_of(*number), &options, &self.secret(), 0);
            let page = page.inspect_err(|error| self.distrust_runs_after(error))?;
            debug_assert!(
                page.keys()
                    .all(|key| key.name.starts_with(&deletion.prefix)),
                "nothing else is deleted"
            );
            debug_assert!(page.len() <= BATCH);
            let older = page.keys().filter(|key| key.seqno < deletion.seqno);
            let ops: Vec<Op> = older
                .map(|key| self.deletion_before(*number, key.name, deletion.seqno))
                .collect();
            debug_assert!(ops.len() <= BATCH);
            *left = left.saturating_sub(BATCH);
            if !ops.is_empty() {
                self.commit(ops, false)?;
            }
            *cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let _naming = self.naming.lock();
        let mut deletions = state.view()?.deletions().to_vec();
        deletions.retain(|other| other != deletion);
        debug_assert!(cursor.is_none(), "all of it was looked at");
        if state.number() == *number && deletions.len() < state.deletions().len() {
            self.commit_deletions(state, deletions, false)?;
        }
        Ok(true)
    }

    /// Deletes a key if it was last written before a sequence number.
    pub(crate) fn deletion_before(&self, number: u32, key: &[u8], seqno: u64) -> Op {
        let place = (number, self.hash(number, key));
        Op {
            condition: Condition::Before(seqno),
            ..Op::keyed(Kind::Tombstone, place, key, &[], &[])
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::log::commit::Request;
    use crate::{
        CacheStatus, Clock, Durability, Namespace, Options, PutOptions, ReadOptions, Store,
    };

    fn open(dir: &std::path::Path) -> Store {
        let options = Options::new().durability(Durability::None);
        options.clock(Clock::manual(1)).open(dir).unwrap()
    }

    fn prepared(dir: &std::path::Path) -> (Store, Namespace) {
        let store = open(dir);
        let ns = store.namespace("n").unwrap();
        for key in ["k1", "k2", "other"] {
            ns.put(key, "old").unwrap();
        }
        (store, ns)
    }

    fn keys(ns: &Namespace) -> Vec<Vec<u8>> {
        let page = ns.list(&ListOptions::new()).unwrap();
        page.keys().map(|key| key.name.to_vec()).collect()
    }

    /// Nobody carries it out here, as the test holds the lock on maintenance.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "what a killed process leaves")]
    fn a_deletion_goes_with_the_namespace_into_checkpoints_and_retirements() {
        let (dir, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let mut state = core.maintenance.lock();
        ns.delete_prefix("k").unwrap();
        ns.put("k2", "new").unwrap();
        core.checkpoint(&mut state).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
        }
        let again = open(killed.path());
        let again = again.find_namespace("n").unwrap();
        for ns in [&ns, &again] {
            assert_eq!(keys(ns), [&b"k2"[..], b"other"]);
            assert_eq!(ns.get("k1").unwrap(), None);
            assert_eq!(&ns.get("k2").unwrap().unwrap()[..], b"new");
        }
        core.carry_out_all(&mut state).unwrap();
        assert!(!core.is_deleting());
        assert_eq!(core.table.len(), 2);
        assert_eq!(keys(&ns), [&b"k2"[..], b"other"]);
    }

    /// The lock on maintenance keeps the deletion from being carried out.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a writer beside the page")]
    fn a_page_without_a_deletion_has_nothing_that_was_put_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let _state = core.maintenance.lock();
        std::thread::scope(|scope| {
            let delete = || {
                ns.delete_prefix("k").unwrap();
                ns.put("later", "new").unwrap();
            };
            let held = ns.state.held(|| {
                let deleting = scope.spawn(delete);
                // It would be done by then, if it did not wait.
                (0..1000).for_each(|_| std::thread::yield_now());
                (!deleting.is_finished(), ns.get("later").unwrap())
            });
            let (view, found) = held.unwrap();
            assert_eq!(found, (true, None));
            assert!(view.deletions().is_empty());
        });
        assert_eq!(keys(&ns), [&b"later"[..], b"other"]);
    }

    /// The checkpoint knows of a deletion whose record can no longer be read.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "what a killed process leaves")]
    fn a_repair_does_not_bring_back_what_was_deleted_with_its_prefix() {
        let (dir, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let into = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let mut state = core.maintenance.lock();
        ns.delete_prefix("k").unwrap();
        core.checkpoint(&mut state).unwrap();
        // Says that what was before it was durable.
        ns.put("k2", "new").unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            if path.extension().is_some_and(|kind| kind == "seg") {
                // Of the two records of the namespace the newer one.
                let id = bytes.windows(16).rposition(|w| w == ns.id().0).unwrap();
                *bytes.get_mut(id).unwrap() ^= 1;
            }
            std::fs::write(killed.path().join(name), bytes).unwrap();
        }
        let options = Options::new().clock(Clock::manual(1));
        let repaired = options
            .repair(killed.path(), into.path(), |_, _| {})
            .unwrap();
        assert_eq!(repaired.damage.len(), 1, "{:?}", repaired.damage);
        let again = open(into.path()).find_namespace("n").unwrap();
        assert_eq!(keys(&again), [&b"k2"[..], b"other"]);
        assert_eq!(again.get("k1").unwrap(), None);
    }

    /// Those who see it at once in the table must not see what is older in the cache.
    #[test]
    fn a_deletion_is_seen_in_the_hot_cache_before_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::None).cache(1 << 20);
        let store = options.clock(Clock::manual(1)).open(dir.path()).unwrap();
        let ns = store.namespace("n").unwrap();
        ns.put("k1", "old").unwrap();
        let hot = ReadOptions::new().cache_ttl(std::time::Duration::from_secs(60));
        let read = || ns.read_with("k1", &hot, |e| e.cache_status()).unwrap();
        assert_eq!(read(), Some(CacheStatus::Miss));
        assert_eq!(read(), Some(CacheStatus::Hit));
        let core = ns.core();
        let _held = core.maintenance.lock();
        let mut body = ns.state.body(false);
        body.deletions.push(Deletion {
            seqno: 0,
            prefix: b"k".to_vec(),
        });
        let seqno = store.stats().last_seqno + 1;
        let segment = core.log.lock().next().1.segment;
        core.namespaces
            .apply(ns.state.number(), &body.encode(), segment, seqno);
        assert_eq!(read(), None);
        assert_eq!(ns.get_with("k1", &hot).unwrap(), None);
    }

    /// A put may come between the look at the list of keys and the tombstone.
    #[test]
    fn the_tombstone_of_a_deletion_spares_what_was_put_since() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let (core, number) = (ns.core(), ns.state.number());
        let generation = ns.put("k1", "new").unwrap();
        let delete = |before| core.commit(vec![core.deletion_before(number, b"k1", before)], false);
        delete(generation).unwrap();
        assert_eq!(&ns.get("k1").unwrap().unwrap()[..], b"new");
        delete(generation + 1).unwrap();
        assert_eq!(ns.get("k1").unwrap(), None);
    }

    /// The segment that tells of it is retired before it is carried out, and no checkpoint is left.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "what a killed process leaves")]
    fn a_namespace_with_a_waiting_deletion_outlives_the_segment_that_tells_of_it() {
        let (dir, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, ns) = prepared(dir.path());
        // The newest namespace is kept whatever it is like.
        store.namespace("newest").unwrap();
        let core = ns.core();
        let mut state = core.maintenance.lock();
        ns.delete_prefix("k").unwrap();
        core.compact_all(&mut state, |_, _| {}).unwrap();
        for _ in 0..50 {
            ns.put("other", "new").unwrap();
        }
        core.compact_all(&mut state, |_, _| {}).unwrap();
        assert!(!state.retired.is_empty() && state.kept.is_empty());
        core.sync().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
        }
        let again = open(killed.path());
        let again = again.find_namespace("n").expect("it was never dropped");
        assert_eq!(keys(&again), [b"other"]);
        assert_eq!(again.get("k1").unwrap(), None);
    }

    /// As many wait as may, and nobody carries them out any more.
    #[test]
    fn a_deletion_too_many_in_a_closed_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ns) = prepared(dir.path());
        let held = ns.core().maintenance.lock();
        for prefix in 0..WAITING_MAX {
            ns.delete_prefix(format!("{prefix:03}")).unwrap();
        }
        ns.core().work.stop();
        drop(held);
        store.close().unwrap();
        assert!(matches!(ns.delete_prefix("more"), Err(Error::Poisoned)));
    }

    /// Both come in one group of the committer.
    #[test]
    fn a_condition_behind_a_deletion_knows_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let generation = ns.put("k1", "seen").unwrap();
        let _held = core.maintenance.lock();
        let mut body = ns.state.body(false);
        body.deletions.push(Deletion {
            seqno: 0,
            prefix: b"k".to_vec(),
        });
        let deletion = Op::keyless(Kind::Namespace, ns.state.number(), body.encode());
        let same = PutOptions::new().if_generation(generation);
        let put = ns.put_op(b"k1", b"built on what was seen", &same).unwrap();
        core.lead(&[deletion, put].map(|op| Request::new(vec![op], false)));
        assert_eq!(ns.get("k1").unwrap(), None);
    }
}
