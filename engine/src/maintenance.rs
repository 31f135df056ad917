//! What an open store does beside reading and writing: checkpoints, key runs, compaction, and removing
//! files that nothing leads to.
//!
//! One thread does all of it, or whoever holds the lock on [`Maintenance`]. It takes the log's lock
//! only to note what the state is; nothing is written to a disk under it but the log itself.

use std::collections::HashSet;

use crate::compact::Pacing;
use crate::core::Core;
use crate::deletions::UnderWay;
use crate::error::{Error, Result, io_error};
use crate::format::checkpoint::{FRONT, Header, Meta, Retired, SegmentEntry, VERSION, file_name};
use crate::format::segment::SEGMENT_LEN;
use crate::index::checkpoint::{self, CURRENT, damaged_table};
use crate::index::keys::RunFiles;
use crate::index::runs::KeyRecord;
use crate::index::table::PARTITIONS;
use crate::log::segment::{large_path, segment_path};
use crate::reclaim::Reclaim;
use crate::sync::atomic::Ordering;

/// Checkpoints that are kept: the newest, and one to fall back to.
const KEPT: usize = 2;
/// A checkpoint is due after this much log, or this many times the table's size if that is more, so
/// that checkpoints stay a fraction of what is written.
const CHECKPOINT_MIN: u64 = 64 << 20;
const CHECKPOINT_SHARE: u64 = 5;
/// Retired segments make a checkpoint due, too, since two of them let their files go: so much of them,
/// this fraction of what is live, and this many times the table's size, whichever is most.
const RETIRED_MIN: u64 = 16 << 20;
const RETIRED_SHARE: u64 = 16;
const RETIRED_TABLES: u64 = 8;
/// So much when there is nothing else to do.
const RETIRED_IDLE: u64 = 4 << 20;
/// On closing a checkpoint is made after this much log, so that opening replays a few milliseconds' worth
/// at any size of the table.
const CLOSE_MIN: u64 = 1 << 20;
/// Memory for the newest keys, beyond which they become a run.
const MEMTABLE_MAX: usize = 64 << 20;
/// Space is kept back for a full disk once so much is live: this much, and what the indexes take.
const RESERVE_LIVE: u64 = 128 << 20;
const RESERVE_MIN: u64 = 8 << 20;
/// Large segments to be removed that are worth a flush of the log.
const GARBAGE_MAX: usize = 64;
/// What has expired is erased this many seconds later, in case the clock was wrong.
const GRACE: u64 = 3600;

const _: () = {
    assert!(KEPT >= 2, "one to fall back to");
    assert!(
        GRACE == rimstone_compaction::GRACE,
        "keys go with their records"
    );
    assert!(
        rimstone_compaction::CLASSES < FRONT,
        "no class is taken for none"
    );
    assert!(CLOSE_MIN < CHECKPOINT_MIN);
    assert!(RETIRED_IDLE < RETIRED_MIN);
    assert!(RESERVE_MIN < RESERVE_LIVE, "little of it");
    assert!(RETIRED_SHARE > 1);
    assert!(RETIRED_MIN < CHECKPOINT_MIN);
};

/// What maintenance remembers.
#[derive(Default)]
pub(crate) struct Maintenance {
    /// The checkpoints that could be opened, oldest first.
    pub(crate) kept: Vec<Kept>,
    /// Segments to be removed once all kept checkpoints are past their retirement, in that order.
    pub(crate) retired: Vec<Retired>,
    /// Whether the checkpoint that was opened is gone since its table is damaged.
    distrusts_table: bool,
    /// About how many bytes they have.
    pub(crate) retired_bytes: u64,
    pub(crate) reclaim: Reclaim,
    pub(crate) pacing: Pacing,
    /// The deletion that is being carried out.
    pub(crate) deleting: Option<UnderWay>,
    /// How many namespaces had been dropped when somebody last looked for what they held.
    pub(crate) drops: u64,
    /// Segments in which nobody looked since.
    pub(crate) unseen: Vec<u64>,
}

/// A checkpoint file.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: u64,
    pub(crate) seqno: u64,
    pub(crate) runs: Vec<u64>,
}

impl Core {
    /// Does what is due. A failure is kept for [`Stats`](crate::Stats), and tried again.
    pub(crate) fn maintain(&self, idle: bool) {
        let mut state = self.maintenance.lock();
        if self.check_writable().is_err() {
            return;
        }
        self.note_segment();
        self.settle_table();
        self.keys.merge_memtable();
        if self.table.is_damaged() {
            // What cannot be done now is tried again with the next work, and on closing.
            let _ = self.forget_newest(&mut state);
        }
        if self.runs_are_damaged.load(Ordering::Acquire) {
            // What cannot be removed now is tried again with the next work, and on closing.
            let _ = self.forget_checkpoints(&mut state);
        }
        let done = self
            .remove_garbage(idle)
            .and_then(|()| match self.reserve.take_wanted() {
                true => self.make_room(&mut state),
                false => Ok(()),
            })
            .and_then(|()| self.compact(&mut state, idle));
        // A full disk is the time for a checkpoint, too: it lets go of what is retired.
        let is_full = matches!(done, Err(Error::Full)) && !state.retired.is_empty();
        let is_due = self.is_checkpoint_due(&state) || (idle && self.has_much_retired(&state));
        // What cannot be saved must not keep the memtable from being written.
        let can_save = !self.table.is_damaged() && !self.runs_are_damaged.load(Ordering::Acquire);
        let saved = if can_save && (is_full || is_due) {
            self.checkpoint(&mut state)
        } else {
            self.shrink_memtable()
        };
        let merged = match idle && can_save && self.keys.wants_one_run() {
            true => self.merge_for_pages(&mut state),
            false => Ok(()),
        };
        let deleted = self.carry_out_deletions(&mut state);
        let kept = self.keep_capacity(&mut state);
        let done = done.and(saved).and(merged).and(deleted).and(kept);
        let failed = done.err().map(|error| error.to_string());
        *self.trouble.lock() = failed.or_else(|| state.reclaim.trouble.clone());
    }

    /// Whether there is much to replay, or much to remove that only waits for checkpoints.
    pub(crate) fn is_checkpoint_due(&self, state: &Maintenance) -> bool {
        let since = self.log.lock().since_checkpoint;
        let table = u64::try_from(self.table.bucket_bytes()).unwrap_or(u64::MAX);
        since >= CHECKPOINT_MIN.max(table.saturating_mul(CHECKPOINT_SHARE))
            || state.retired_bytes >= self.retired_max(table)
    }

    /// Whether removing retired segments is worth a checkpoint when there is nothing else to do.
    fn has_much_retired(&self, state: &Maintenance) -> bool {
        let table = u64::try_from(self.table.bucket_bytes()).unwrap_or(u64::MAX);
        state.retired_bytes > RETIRED_IDLE.max(table.saturating_mul(2))
    }

    /// Bytes of retired segments that are worth a checkpoint: a fraction of what is live, but some times
    /// what the checkpoint takes.
    fn retired_max(&self, table: u64) -> u64 {
        let share = RETIRED_MIN.max(self.live_bytes() / RETIRED_SHARE);
        share.max(table.saturating_mul(RETIRED_TABLES))
    }

    /// Makes a checkpoint when closing, if replaying what follows the last one would take long.
    pub(crate) fn checkpoint_to_close(&self, state: &mut Maintenance) -> Result<()> {
        if self.runs_are_damaged.load(Ordering::Acquire) {
            return self.forget_checkpoints(state);
        }
        if self.table.is_damaged() {
            return self.forget_newest(state);
        }
        let since = self.log.lock().since_checkpoint;
        if since < CLOSE_MIN {
            return Ok(());
        }
        self.checkpoint(state)
    }

    /// Saves the state as it is now, so that opening replays only what comes after.
    pub(crate) fn checkpoint(&self, state: &mut Maintenance) -> Result<()> {
        if self.table.is_damaged() {
            return Err(damaged_table(&self.dir));
        }
        let saved = self.save_checkpoint(state);
        saved.inspect_err(|error| {
            // The damage may have been found just now.
            if !self.table.is_damaged() {
                self.distrust_runs_after(error);
            }
        })
    }

    fn save_checkpoint(&self, state: &mut Maintenance) -> Result<()> {
        if self.runs_are_damaged.load(Ordering::Acquire) {
            return Err(Error::Corrupt {
                path: self.dir.clone(),
                offset: 0,
                reason: "a key run is damaged; open the store again to make it anew",
            });
        }
        let id = self.new_file_id();
        let since = self.log.lock().since_checkpoint;
        let made = self.make_checkpoint(state, id);
        if made.is_err() {
            // It stays due.
            self.log.lock().since_checkpoint += since;
        }
        made?;
        self.remove_unused(state)?;
        self.merge_runs()?;
        self.keep_reserve();
        Ok(())
    }

    /// Keeps enough space back for a checkpoint and some compaction, in a store that is not small.
    fn keep_reserve(&self) {
        if self.live_bytes() >= RESERVE_LIVE {
            let index = self.table.bytes().saturating_add(self.keys.bytes());
            let index = u64::try_from(index).unwrap_or(u64::MAX);
            self.reserve.keep(index.saturating_add(RESERVE_MIN));
        }
    }

    fn make_checkpoint(&self, state: &mut Maintenance, id: u64) -> Result<()> {
        let (header, meta) = self.begin_checkpoint(id, &state.retired)?;
        let (seqno, mut runs) = (header.seqno, Vec::new());
        let dir = &self.dir;
        checkpoint::save(&*self.vfs, dir, header, meta, &self.table, |meta| {
            self.write_frozen()?;
            meta.runs = self.keys.run_ids();
            runs.clone_from(&meta.runs);
            self.sync()
        })?;
        assert!(
            self.log.lock().durable >= seqno,
            "a checkpoint is named when the log is durable through it (rule 3)"
        );
        let published = checkpoint::publish(&*self.vfs, dir, id);
        // Where nobody can tell, it may be named, and then has to stay.
        let is_named = || match checkpoint::current(&*self.vfs, dir) {
            Ok(current) => current == Some(id),
            Err(Error::Io { source, .. }) => source.kind() != std::io::ErrorKind::NotFound,
            Err(_) => true,
        };
        if published.is_err() && !is_named() {
            // Whoever finds it must be able to trust what it leads to, which nobody keeps for it.
            self.remove(&dir.join(file_name(id)))?;
            return published;
        }
        let newest = state.kept.last();
        debug_assert!(newest.is_none_or(|newest| newest.id < id), "ids rise");
        debug_assert!(
            newest.is_none_or(|newest| newest.seqno <= seqno),
            "a later one holds a later state"
        );
        state.kept.push(Kept { id, seqno, runs });
        self.checkpointed.store(seqno, Ordering::Relaxed);
        published
    }

    /// Notes that a key run is damaged, if that is what an error says.
    pub(crate) fn distrust_runs_after(&self, error: &Error) {
        if matches!(error, Error::Corrupt { .. }) {
            self.runs_are_damaged.store(true, Ordering::Release);
            self.work.wake();
        }
    }

    /// Removes the checkpoints, which name a damaged run: the next open makes everything anew from the
    /// log.
    fn forget_checkpoints(&self, state: &mut Maintenance) -> Result<()> {
        if state.kept.is_empty() {
            return Ok(());
        }
        self.remove(&self.dir.join(CURRENT))?;
        while let Some(kept) = state.kept.pop() {
            self.remove(&self.dir.join(file_name(kept.id)))?;
        }
        let synced = self.vfs.sync_dir(&self.dir);
        synced.map_err(|e| io_error("flushing", &self.dir, e))
    }

    /// Verifies what still lies in the checkpoint that was opened and brings it to memory, unless the
    /// store is closed meanwhile.
    fn settle_table(&self) {
        for partition in 0..PARTITIONS {
            if self.work.is_stopped() {
                break;
            }
            self.table.will_need(partition..partition.saturating_add(1));
            self.table.settle(partition);
        }
    }

    /// Removes the checkpoint that the store was opened from, once, since its table is damaged; none was
    /// made after it. The next open begins from the one before it.
    fn forget_newest(&self, state: &mut Maintenance) -> Result<()> {
        let (false, Some(newest)) = (state.distrusts_table, state.kept.last()) else {
            return Ok(());
        };
        let mut older = state.kept.iter().rev().skip(1);
        match older.next() {
            Some(older) => checkpoint::publish(&*self.vfs, &self.dir, older.id)?,
            None => self.remove(&self.dir.join(CURRENT))?,
        }
        self.remove(&self.dir.join(file_name(newest.id)))?;
        state.kept.pop();
        state.distrusts_table = true;
        Ok(())
    }

    /// Notes the state between two groups of the committer, and sets apart what it may change.
    fn begin_checkpoint(&self, id: u64, retired: &[Retired]) -> Result<(Header, Meta)> {
        let mut log = self.log.lock();
        self.check_writable()?;
        let (_, position) = log.next();
        let header = Header {
            version: VERSION,
            store: self.id,
            id,
            seqno: log.seqno,
            position,
            epoch: log.epoch(),
            time: self.clock.confirmed(),
            meta_offset: 0,
            meta_len: 0,
            meta_crc: 0,
        };
        debug_assert_eq!(log.buffered(), 0, "between two groups");
        debug_assert!(log.durable <= log.seqno, "what is durable was given out");
        debug_assert!(
            retired
                .iter()
                .all(|retired| self.segment(retired.id).is_none()),
            "in use or retired"
        );
        let segments = self.segments.all().into_iter();
        let segments = segments.map(|(number, segment)| {
            let state = segment.usage.state();
            let (since, expiries) = state.expiries.parts();
            SegmentEntry {
                number,
                id: segment.id,
                len: segment.end(),
                class: segment.class.unwrap_or(FRONT),
                counts: state.counts,
                dropped: state.dropped,
                since,
                expiries,
            }
        });
        // A class segment that the log does not name yet is no part of the store.
        let segments = segments.filter(|entry| entry.len > 0);
        let segments = segments.inspect(|entry| {
            debug_assert!(entry.len <= SEGMENT_LEN, "it would be refused");
            debug_assert!(entry.number > 0, "0 is no segment");
        });
        let meta = Meta {
            segments: segments.collect(),
            retired: retired.to_vec(),
            namespaces: self.namespaces.entries(),
            larges: sorted(self.larges.lock().iter().copied()),
            ..Meta::default()
        };
        let is_active = |entry: &SegmentEntry| entry.id == position.segment;
        debug_assert!(
            meta.segments.iter().any(is_active),
            "the log goes on in one"
        );
        self.table.begin_capture();
        self.keys.freeze();
        log.since_checkpoint = 0;
        Ok((header, meta))
    }

    fn shrink_memtable(&self) -> Result<()> {
        if self.keys.bytes() < MEMTABLE_MAX {
            return Ok(());
        }
        self.keys.freeze();
        self.write_frozen()?;
        self.merge_runs()
    }

    fn write_frozen(&self) -> Result<()> {
        let next_id = || self.new_file_id();
        self.keys
            .write_frozen(&self.run_files(&next_id), self.dead_keys())
    }

    fn merge_runs(&self) -> Result<()> {
        let next_id = || self.new_file_id();
        let files = self.run_files(&next_id);
        while self.keys.merge(&files, self.dead_keys())? {}
        Ok(())
    }

    /// Makes one run of all, unless the store is closed meanwhile: a page that asks several has paid for that, and
    /// nobody writes just now. The checkpoint that keeps it is a sixth of what was merged.
    fn merge_for_pages(&self, state: &mut Maintenance) -> Result<()> {
        let next_id = || self.new_file_id();
        let files = RunFiles {
            is_stopped: &|| self.work.is_stopped(),
            ..self.run_files(&next_id)
        };
        let merged = self.keys.merge_all(&files, self.dead_keys());
        match merged.inspect_err(|error| self.distrust_runs_after(error))? {
            true => self.checkpoint(state),
            false => Ok(()),
        }
    }

    fn run_files<'a>(&'a self, next_id: &'a dyn Fn() -> u64) -> RunFiles<'a> {
        RunFiles {
            vfs: &*self.vfs,
            dir: &self.dir,
            store: self.id.id,
            next_id,
            is_stopped: &|| false,
        }
    }

    /// Whether nobody will ask for a key again: it expired long ago, or its namespace was dropped.
    /// For keys that were written before this is called.
    fn dead_keys(&self) -> impl Fn(&KeyRecord<'_>) -> bool {
        let now = self.clock.confirmed();
        let namespaces = self.namespaces.numbers();
        move |record| is_erasable(record.expiration, now) || !namespaces.contains(&record.namespace)
    }

    /// Removes the files of large values that no record leads to any more, once that is durable.
    pub(crate) fn remove_garbage(&self, all: bool) -> Result<()> {
        let mut garbage = std::mem::take(&mut *self.garbage.lock());
        let mut durable = self.log.lock().durable;
        let waiting = garbage.iter().filter(|(seqno, _)| *seqno > durable).count();
        if waiting >= GARBAGE_MAX || (all && waiting > 0) {
            self.sync()?;
            durable = u64::MAX;
        }
        garbage.retain(|(seqno, large)| {
            let removable = *seqno <= durable;
            if removable {
                self.mapped.forget(*large);
                // If it cannot be removed now, the next open does.
                let _ = self.vfs.remove(&large_path(&self.dir, *large));
            }
            !removable
        });
        debug_assert!(
            garbage.iter().all(|(seqno, _)| *seqno > durable),
            "a value goes when what replaced it is durable, and then it does"
        );
        self.garbage.lock().append(&mut garbage);
        Ok(())
    }

    /// Removes the files that no kept checkpoint, no record and no key run leads to.
    fn remove_unused(&self, state: &mut Maintenance) -> Result<()> {
        while state.kept.len() > KEPT {
            let path = self.dir.join(file_name(state.kept.remove(0).id));
            self.remove(&path)?;
        }
        debug_assert!(!state.kept.is_empty(), "one was made just now");
        debug_assert!(
            state.kept.is_sorted_by(|a, b| a.id < b.id),
            "the newest comes last"
        );
        let mut runs: HashSet<u64> = self.keys.run_ids().into_iter().collect();
        state.kept.iter().for_each(|kept| runs.extend(&kept.runs));
        let names = self.vfs.list(&self.dir);
        for name in names.map_err(|e| io_error("listing", &self.dir, e))? {
            let id = name
                .strip_suffix(".run")
                .map(|id| u64::from_str_radix(id, 16));
            if id.is_some_and(|id| id.is_ok_and(|id| !runs.contains(&id))) {
                self.remove(&self.dir.join(name))?;
            }
        }
        let past = state.kept.iter().map(|kept| kept.seqno).min().unwrap_or(0);
        while let Some(first) = state.retired.first().filter(|first| first.seqno <= past) {
            assert!(
                self.segment(first.id).is_none(),
                "a file goes when no slot can name it (rule 4)"
            );
            self.remove(&segment_path(&self.dir, first.id))?;
            state.retired.remove(0);
            if state.retired.is_empty() {
                state.retired_bytes = 0;
            }
            // In the order of retirement, also after a power cut.
            let synced = self.vfs.sync_dir(&self.dir);
            synced.map_err(|e| io_error("flushing", &self.dir, e))?;
        }
        Ok(())
    }

    fn remove(&self, path: &std::path::Path) -> Result<()> {
        match self.vfs.remove(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("removing", path, e))
            }
            _ => Ok(()),
        }
    }
}

fn sorted(ids: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    debug_assert!(ids.is_sorted_by(|a, b| a < b), "they come from a set");
    ids
}

/// Whether what expires then may be erased. An expiration of 0 is never.
pub(crate) fn is_erasable(expiration: u64, now: u64) -> bool {
    expiration != 0 && expiration.saturating_add(GRACE) <= now
}
