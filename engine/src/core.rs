//! The rooms of an open store, joined: what a get and a commit walk through.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::brake::Brake;
use crate::capacity::{Capacity, PREALLOCATED};
use crate::clock::Clock;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::mark::Mark;
use crate::format::record::{Address, Record};
use crate::format::segment::{SEGMENT_LEN, StoreId};
use crate::hot::Hot;
use crate::index::checkpoint::damaged_table;
use crate::index::keys::Keys;
use crate::index::table::{Location, Table};
use crate::log::appender::{Appender, Spare};
use crate::log::commit::Queue;
use crate::log::mapped::Mapped;
use crate::log::segment::{Segment, Segments};
use crate::maintenance::Maintenance;
use crate::mem::Origin;
use crate::namespaces::{Namespaces, View};
use crate::options::{Durability, Verify};
use crate::recovery::LOCK;
use crate::reserve::Reserve;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::epoch::Guard;
use crate::vfs::Vfs;
use crate::worker::Signal;

/// A front segment becomes this fraction of what is live, and this long at least: each costs a flush.
const FRONT_SHARE: u64 = 8;
const FRONT_MIN: u64 = 16 << 20;

/// An open store.
pub(crate) struct Core {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) id: StoreId,
    pub(crate) clock: Clock,
    pub(crate) durability: Durability,
    pub(crate) verify: Verify,
    /// Space that the store may take, in percent of what is live.
    pub(crate) space: u64,
    /// What bounds the store, if it is a cache.
    pub(crate) capacity: Option<Capacity>,
    pub(crate) segments: Segments,
    pub(crate) table: Table,
    pub(crate) keys: Keys,
    pub(crate) namespaces: Namespaces,
    /// Serialises creating, renaming and dropping namespaces.
    pub(crate) naming: Mutex<()>,
    pub(crate) queue: Queue,
    pub(crate) log: Mutex<Appender>,
    /// The id of the next new file. Each epoch has ids of its own, so that none is used twice.
    pub(crate) next_file: AtomicU64,
    /// The front segment that `LOCK` names.
    pub(crate) marked: AtomicU64,
    pub(crate) poisoned: AtomicBool,
    /// The process that opened the store; no other may write.
    pub(crate) origin: Arc<Origin>,
    /// Whether the store was opened to be read, and another process may be writing it.
    pub(crate) is_read_only: bool,
    /// Ids of the large segments that live records point to. Changed by the committer, and when a
    /// segment is retired.
    pub(crate) larges: Mutex<HashSet<u64>>,
    /// Verified copies of what is read often.
    pub(crate) hot: Option<Hot>,
    /// Large segments that stay mapped.
    pub(crate) mapped: Mapped,
    /// Large segments that no record points to since this sequence number.
    pub(crate) garbage: Mutex<Vec<(u64, u64)>>,
    pub(crate) maintenance: Mutex<Maintenance>,
    /// Retired segments, as long as somebody reads them.
    pub(crate) held: Mutex<Vec<Weak<Segment>>>,
    /// Segments that compaction cannot read.
    pub(crate) stuck: AtomicU64,
    /// Why maintenance failed when it last tried.
    pub(crate) trouble: Mutex<Option<String>>,
    /// Whether a key run was found damaged.
    pub(crate) runs_are_damaged: AtomicBool,
    /// The sequence number of the newest checkpoint.
    pub(crate) checkpointed: AtomicU64,
    /// Space kept back for a full disk.
    pub(crate) reserve: Reserve,
    /// Slows writers down while compaction is behind.
    pub(crate) brake: Brake,
    /// Wakes the maintenance thread.
    pub(crate) work: Arc<Signal>,
    /// Wakes the thread that goes ahead of the writers.
    pub(crate) ahead: Arc<Signal>,
    /// Wakes the thread that flushes ahead of them.
    pub(crate) flush: Arc<Signal>,
    /// Wakes the thread that makes pages cheaper.
    pub(crate) pages: Arc<Signal>,
    /// What was found damaged when the store was opened.
    pub(crate) damage: Vec<Damage>,
    /// Held while the store is open for writing.
    pub(crate) lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// A record that the table points to, held by an epoch guard.
pub(crate) struct Found<'g> {
    pub(crate) location: Location,
    pub(crate) segment: &'g Arc<Segment>,
    pub(crate) record: Record<'g>,
}

impl Found<'_> {
    /// Where the record lies, for ever.
    pub(crate) fn address(&self) -> Address {
        Address {
            segment: self.segment.id,
            offset: u32::try_from(self.location.offset()).unwrap_or(u32::MAX),
        }
    }

    /// Whether who reads this namespace sees the record. Most never expire, and then nobody asks for the time.
    #[inline]
    pub(crate) fn is_visible(&self, view: &View, now: impl FnOnce() -> u64) -> bool {
        let header = &self.record.header;
        let is_expired = header.expiration != 0 && header.expiration <= now();
        !is_expired && !view.hides(self.record.key, header.seqno)
    }
}

/// The hash that places a key in the table: XXH3 (stable by specification), seeded by the store and
/// the namespace.
pub(crate) fn key_hash(id: &StoreId, namespace: u32, key: &[u8]) -> u64 {
    let spread = u64::from(namespace).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxh3_64_with_seed(key, id.hash_seed() ^ spread)
}

impl Core {
    pub(crate) fn hash(&self, namespace: u32, key: &[u8]) -> u64 {
        key_hash(&self.id, namespace, key)
    }

    /// What makes cursors trustworthy.
    pub(crate) fn secret(&self) -> [u8; 16] {
        let mut secret = [0u8; 16];
        secret.copy_from_slice(self.id.secret.get(8..24).unwrap_or(&[0; 16]));
        secret
    }

    /// The record the table holds for a key, visible or not.
    ///
    /// # Errors
    /// `Corrupt` if the key was not found and a record that may be its own is damaged.
    #[inline]
    pub(crate) fn find<'g>(
        &'g self,
        namespace: u32,
        key: &[u8],
        hash: u64,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        let (mut found, mut has_others) = (None, false);
        self.table.find(hash, guard, |location| {
            found = self.found_at(location, namespace, key, guard);
            has_others |= found.is_none();
            found.is_some()
        });
        match found {
            Some(found) => Ok(Some(found)),
            None if has_others => self.find_among_others(namespace, key, hash, guard),
            None => self.check_table(hash, guard).map(|()| None),
        }
    }

    /// The record at a location, if it is intact and that of the key.
    #[inline]
    fn found_at<'g>(
        &'g self,
        location: Location,
        namespace: u32,
        key: &[u8],
        guard: &'g Guard,
    ) -> Option<Found<'g>> {
        let segment = self.segments.get(location.number(), guard)?;
        segment.prefetch(location.offset(), self.verify);
        let record = segment.intact(location.offset())?;
        (record.header.namespace == namespace && record.key == key).then_some(Found {
            location,
            segment,
            record,
        })
    }

    /// The same where the table may also point to another key's record, to a damaged one, or to one that is
    /// gone: who finds none tells which.
    #[cold]
    fn find_among_others<'g>(
        &'g self,
        namespace: u32,
        key: &[u8],
        hash: u64,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        loop {
            let mut found = None;
            let mut others = Vec::new();
            self.table.find(hash, guard, |location| {
                found = self.found_at(location, namespace, key, guard);
                if found.is_none() {
                    let segment = self.segments.get(location.number(), guard);
                    let record = segment.map(|segment| segment.record(location.offset()));
                    others.push((location, record.and_then(Result::err)));
                }
                found.is_some()
            });
            if found.is_some() {
                return Ok(found);
            }
            if others.is_empty() {
                return self.check_table(hash, guard).map(|()| None);
            }
            // A segment may have been reclaimed, and its number given to another, since its slot was
            // loaded; the key then has another slot.
            let is_there = |(location, _): &(Location, _)| self.holds(hash, *location, guard);
            if others.iter().all(is_there) {
                let damage = others.into_iter().find_map(|(_, error)| error);
                // Behind them a page of the table may be damaged.
                let is_missing = || self.check_table(hash, guard).map(|()| None);
                return damage.map_or_else(is_missing, Err);
            }
        }
    }

    /// # Errors
    /// `Corrupt` if the table of the checkpoint is damaged where this hash would be: then nobody knows
    /// what the key holds until the next open replays the log.
    pub(crate) fn check_table(&self, hash: u64, guard: &Guard) -> Result<()> {
        if self.table.is_damaged_at(hash, guard) {
            return Err(damaged_table(&self.dir));
        }
        Ok(())
    }

    /// What was found damaged, as text.
    pub(crate) fn damage(&self) -> Vec<String> {
        let mut damage: Vec<String> = self.damage.iter().map(Damage::to_string).collect();
        if self.table.is_damaged() {
            damage.push(damaged_table(&self.dir).to_string());
        }
        damage
    }

    /// Whether the table still has a slot with this location for `hash`.
    pub(crate) fn holds(&self, hash: u64, location: Location, guard: &Guard) -> bool {
        self.table.find(hash, guard, |l| l == location).is_some()
    }

    /// Whether a write of this durability waits for a flush. One that asks for a shorter interval than
    /// the store has does.
    pub(crate) fn is_immediate(&self, durability: Durability) -> bool {
        match (durability, self.durability) {
            (Durability::Immediate, _) => true,
            (Durability::Interval(asked), Durability::Interval(every)) => asked < every,
            (Durability::Interval(_), _) => true,
            (Durability::None, _) => false,
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.origin.check()?;
        if self.is_read_only {
            Err(Error::ReadOnly)
        } else if self.poisoned.load(Ordering::Acquire) {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Whether puts may take space: `Full` while there is none kept back for what frees it.
    pub(crate) fn check_room(&self) -> Result<()> {
        debug_assert!(!self.is_read_only, "who only reads takes no space");
        if self.reserve.has_room() {
            return Ok(());
        }
        self.work.wake();
        Err(Error::Full)
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn new_file_id(&self) -> u64 {
        debug_assert!(!self.is_read_only, "who only reads makes no files");
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        debug_assert!(
            id << 32 != 0,
            "the names of the next epoch are not this one's"
        );
        id
    }

    /// Makes every acknowledged write durable. Writers that do not wait for a flush go on meanwhile.
    pub(crate) fn sync(&self) -> Result<()> {
        self.origin.check()?;
        let (segment, seqno, end) = {
            let log = self.log.lock();
            self.check_writable()?;
            if log.durable == log.seqno {
                return Ok(());
            }
            debug_assert!(log.durable < log.seqno, "what is durable was given out");
            log.written()
        };
        // What lies in earlier segments is durable.
        debug_assert!(end <= segment.published(), "what is flushed was written");
        segment.sync().inspect_err(|_| self.poison())?;
        self.log.lock().note_flush(segment.id, seqno, end);
        Ok(())
    }

    /// Does ahead of the writers what they would have to wait for: preallocates, and makes the file of the
    /// next segment. If it cannot, they do it themselves.
    pub(crate) fn go_ahead(&self) {
        let Some(ahead) = self.log.lock().ahead() else {
            return;
        };
        if self.check_writable().is_err() {
            return;
        }
        let file = &ahead.segment.file;
        let allocated = ahead.allocate.filter(|to| file.allocate(*to).is_ok());
        let spare = ahead.wants_spare.then(|| {
            let id = self.new_file_id();
            Spare::ahead(&*self.vfs, &self.dir, id).ok()
        });
        let mut log = self.log.lock();
        let is_done = allocated.is_some() == ahead.allocate.is_some()
            && !spare.as_ref().is_some_and(Option::is_none);
        log.note_ahead(ahead.segment.id, allocated, spare.flatten(), is_done);
    }

    /// Flushes ahead of the writers, if that is worth it, what will have to be durable when the log goes on in
    /// the next segment.
    fn flush_ahead(&self) {
        let is_worth = self.log.lock().has_much_unflushed();
        if is_worth {
            // A failure poisons the store, which is how writers learn of it.
            let _ = self.sync();
        }
    }

    /// What the thread that flushes does in its turn: at an interval all of it, else what is worth it.
    pub(crate) fn flush_in_turn(&self) {
        match self.durability {
            // A failure poisons the store, which is how writers learn of it.
            Durability::Interval(_) => drop(self.sync()),
            _ => self.flush_ahead(),
        }
    }

    /// Notes in `LOCK` how far the log reaches, durably as all that it says: so whoever opens the store knows
    /// what is missing should it end before that.
    pub(crate) fn note_end(&self) {
        let log = self.log.lock();
        // Under the lock: a segment that could not be named has poisoned the store.
        if self.check_writable().is_err() {
            return;
        }
        let (segment, seqno, end) = log.written();
        debug_assert!(
            log.durable <= seqno,
            "what was not given out is not durable"
        );
        let is_durable = log.durable == seqno;
        let mark = Mark {
            store: self.id.id,
            seqno: log.durable,
            segment: segment.id,
            len: if is_durable { end } else { 0 },
        };
        drop(log);
        debug_assert!(mark.seqno <= seqno, "no more is promised than was written");
        debug_assert!(mark.len == 0 || mark.seqno == seqno);
        self.marked.store(segment.id, Ordering::Relaxed);
        // Where it fails less is known of a damaged store, and nothing else.
        let _ = self.vfs.note(&self.dir.join(LOCK), &mark.encode());
    }

    /// Notes it once the log went on in another segment.
    pub(crate) fn note_segment(&self) {
        let active = self.log.lock().written().0.id;
        if self.marked.load(Ordering::Relaxed) != active {
            self.note_end();
        }
    }

    /// Begins a new segment, between two groups of the committer. If it cannot be created, on a full disk
    /// say, nothing changes.
    pub(crate) fn rotate(&self, log: &mut Appender) -> Result<()> {
        self.check_writable()?;
        debug_assert_eq!(log.buffered(), 0, "between two groups");
        // Its length can be relied on, then.
        log.sync().inspect_err(|_| self.poison())?;
        self.take_capacity(PREALLOCATED, false)?;
        debug_assert!(log.durable >= log.seqno, "all of it was flushed");
        let next = log.prepare(self.new_file_id(), self.clock.confirmed())?;
        self.size_segments(log);
        log.rotate(&self.segments, next)
            .inspect_err(|_| self.poison())
    }

    /// Says how long the segments of the log become, so that the one which is open, and those that wait to be given
    /// up, are a small part of the store. Where space is bounded so is each.
    pub(crate) fn size_segments(&self, log: &mut Appender) {
        let Some(capacity) = &self.capacity else {
            let enough = SEGMENT_LEN.saturating_mul(FRONT_SHARE);
            let len = self.segments.live_bytes(enough) / FRONT_SHARE;
            let len = len.clamp(FRONT_MIN, SEGMENT_LEN);
            return log.limit_segments(len, SEGMENT_LEN, u64::MAX);
        };
        let len = capacity.segment_len().min(SEGMENT_LEN);
        log.limit_segments(len, len, capacity.large_max());
    }

    /// Bytes of the records that the index points to.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.live_bytes(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn segments_grow_with_what_is_live_or_follow_the_capacity() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().without_threads().open(dir.path()).unwrap();
        let core = store.core();
        assert_eq!(core.log.lock().segment_len(), FRONT_MIN);
        let (_, segment) = core.log.lock().active();
        let mut live = 0;
        for (more, expected) in [(128, 16), (128, 32), (264, 64), (4096, 64)] {
            segment.usage.gain(more * MIB, 0);
            live += more * MIB;
            assert_eq!(core.live_bytes(), live);
            core.rotate(&mut core.log.lock()).unwrap();
            assert_eq!(core.log.lock().segment_len(), expected * MIB, "{live}");
        }
        store.close().unwrap();
        let options = Options::new().without_threads().capacity(256 * MIB);
        let store = options.open(dir.path()).unwrap();
        assert_eq!(store.core().log.lock().segment_len(), 4 * MIB);
    }
}
