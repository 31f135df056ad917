//! The log as compaction sees it. Which segments to give up, and what of them to keep, the crate
//! `rimstone_compaction` decides; here copies are made, moves committed and segments retired.
//!
//! A move is a record in the log like any other, and is decided in its order: it happens only if the
//! table still names the record where compaction saw it. So a put that comes in between wins, and
//! replay comes to the same.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rimstone_compaction::{
    Compactor, Plan, Progress, SegmentStats, Segments, Strategy, is_erasable,
};

use crate::capacity::{Capacity, Evicting};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::filters::{Filters, Reading};
use crate::format::checkpoint::Retired;
use crate::format::segment::SEGMENT_LEN;
use crate::index::checkpoint::damaged_table;
use crate::index::table::Location;
use crate::log::appender::STEP;
use crate::log::class::{ClassFiles, Classes, Source};
use crate::log::segment::Segment;
use crate::records::{Found, Records};
use crate::sync::atomic::Ordering;
use crate::sync::epoch;

/// The least a segment takes on disk.
const SEGMENT_MIN: u64 = 1 << 20;

/// A class segment becomes this fraction of what is live, so that those which are open are little of it,
/// and this long at least.
const CLASS_SHARE: u64 = 64;
const CLASS_MIN: u64 = 8 << 20;
/// Tombstones matter where they are more than this fraction of a segment.
const PINS_SHARE: u64 = 32;
/// Segments of which it is found out at once how many of their tombstones are needed.
const LOOKS_MAX: usize = 8;

const _: () = {
    assert!(CLASS_MIN >= SEGMENT_MIN);
    assert!(CLASS_MIN <= SEGMENT_LEN);
    assert!(SEGMENT_MIN >= STEP, "what a new segment takes is counted");
};

/// What compaction remembers between its steps.
#[derive(Default)]
pub(crate) struct Reclaim {
    /// The plan that is being carried out, and how far it is.
    pub(crate) under_way: Option<Compactor<Records>>,
    progress: Progress,
    /// Whether nothing has to be read for it.
    pub(crate) is_free: bool,
    classes: Classes,
    /// Records that the table names and that go with their segment.
    pub(crate) erased: Vec<Found>,
    /// The segment that is being read.
    reading: Cell<u64>,
    pub(crate) filters: RefCell<Filters>,
    /// The segments that are not of the plan, and how long class segments become.
    pub(crate) others: Vec<(u32, Arc<Segment>)>,
    class_len: u64,
    /// How many of a segment's tombstones are needed, in thousandths, as far as somebody looked.
    needed: RefCell<HashMap<u64, u64>>,
    /// Segments that go without being read: all in them expired long ago.
    unread: HashSet<u64>,
    /// Segments that could not be read. They stay as they are.
    stuck: HashSet<u64>,
    /// Why the last of them could not.
    pub(crate) trouble: Option<String>,
    /// What of the plan may be kept, if it is to evict.
    pub(crate) evicting: Option<Evicting>,
    /// Segments that were retired by the last plan, and their bytes.
    pub(crate) retired: Vec<Retired>,
    pub(crate) retired_bytes: u64,
}

impl Reclaim {
    /// Whether copies may still be added to this class segment.
    pub(crate) fn is_open(&self, segment: u64) -> bool {
        self.classes.is_open(segment)
    }

    /// What holds between two plans.
    fn check_idle(&self) {
        debug_assert!(self.erased.is_empty(), "it was forgotten");
        debug_assert!(self.retired.is_empty(), "it was noted");
        debug_assert!(self.others.is_empty(), "of no plan");
        debug_assert!(self.unread.is_empty(), "it was swept");
        debug_assert!(self.classes.is_settled(), "the log knows of every copy");
        debug_assert!(self.evicting.is_none(), "evictions are over");
        debug_assert_eq!(self.progress, Progress::default(), "each plan begins anew");
    }
}

/// The log while a step of compaction is under way.
pub(crate) struct Log<'a> {
    pub(crate) core: &'a Core,
    pub(crate) state: &'a mut Reclaim,
}

impl Segments for Log<'_> {
    type Record = Found;
    type Scan = Records;
    type Error = Error;

    fn stats(&self, now: u64) -> Vec<SegmentStats> {
        let (active, _) = self.core.log.lock().active();
        let all = self.core.segments.all();
        let needed = self.needed_pins(&all);
        let stats = all.iter().map(|(number, segment)| {
            let is_open = *number == active || self.state.classes.is_open(segment.id);
            // One that cannot be read stays, like one that is written to.
            let sealed = !is_open && !self.state.stuck.contains(&segment.id);
            let mut stats = segment_stats(segment, sealed, now);
            let share = needed.get(&segment.id).copied().unwrap_or(1000);
            stats.pin_bytes = stats.pin_bytes.saturating_mul(share) / 1000;
            debug_assert!(share <= 1000, "in thousandths");
            stats
        });
        stats.collect()
    }

    fn scan(&self, id: u64) -> Result<Records> {
        self.state.reading.set(id);
        let (number, segment) = self.core.segment(id).ok_or(Error::Poisoned)?;
        debug_assert!(
            !self.state.classes.is_open(id),
            "what is read is not written to"
        );
        Ok(Records::new(segment, number, self.core.id))
    }

    fn is_live(&self, record: &Found) -> bool {
        let guard = epoch::pin();
        record.is_put() && self.core.holds(record.hash, record.location, &guard)
    }

    fn may_hold_older(&self, pin: &Found, plan: &Plan) -> bool {
        let mut filters = self.state.filters.borrow_mut();
        // What is copied meanwhile is live, and so no older record of a deleted key.
        let others = &self.state.others;
        debug_assert!(others.iter().all(|(_, s)| !plan.victims.contains(&s.id)));
        filters.may_hold(others, &self.reading(), pin.hash, pin.header.seqno)
    }

    fn relocate(&mut self, found: Found, class: u8) -> Result<()> {
        debug_assert!(
            found.is_put() || found.is_tombstone(),
            "what is said of namespaces is said again, not copied"
        );
        let (number, offset) = (found.header.namespace, found.location.offset());
        if self.core.namespaces.by_number(number).is_none() {
            // It was dropped with all it held: its tombstones hide nothing that anybody can ask for. But
            // where the log is damaged, the record that made it may be what is missing.
            if !self.core.damage.is_empty() && !self.core.namespaces.was_dropped(number) {
                return Err(found
                    .segment
                    .damage(offset, "a namespace that nobody knows"));
            }
            return self.erase(found);
        }
        let record = found.segment.record(offset)?;
        if !record.body_is_intact() {
            return Err(found.segment.damage(offset, "record body checksum"));
        }
        debug_assert_eq!(
            record.header.seqno, found.header.seqno,
            "a copy keeps its number"
        );
        debug_assert!(
            self.state
                .others
                .iter()
                .all(|(_, other)| other.id != found.segment.id),
            "only victims are copied from"
        );
        let from = Source {
            segment: &found.segment,
            number: found.location.number(),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            hash: found.hash,
        };
        let next_id = || self.core.new_file_id();
        let files = class_files(self.core, self.state.class_len, &next_id);
        self.state.classes.push(&files, class, &from, &record)?;
        self.core.take_capacity(record.header.record_len(), false)?;
        if self.state.classes.wants_flush() {
            self.commit_moves()?;
        }
        Ok(())
    }

    fn is_wanted(&self, found: &Found) -> bool {
        let Some(evicting) = &self.state.evicting else {
            return true;
        };
        let weight = found.weight();
        let is_hidden =
            found.header.expiration != 0 && found.header.expiration <= self.core.clock.now();
        let recent = self.core.capacity.as_ref().map(|c| c.is_recent(found.hash));
        !is_hidden && recent.unwrap_or(true) && evicting.keep(weight)
    }

    fn evict(&mut self, found: Found) -> Result<()> {
        let Some(evicting) = &mut self.state.evicting else {
            return self.erase(found);
        };
        debug_assert!(found.is_put(), "tombstones have nothing to evict");
        debug_assert!(!evicting.is_full(), "a full batch was committed");
        evicting.evicted.push(found);
        if evicting.is_full() {
            self.commit_evictions()?;
        }
        Ok(())
    }

    fn erase(&mut self, record: Found) -> Result<()> {
        if record.is_put() {
            self.state.erased.push(record);
        }
        Ok(())
    }

    fn install(&mut self, plan: &Plan) -> Result<()> {
        self.commit_moves()?;
        self.commit_evictions()?;
        debug_assert!(
            self.state.classes.is_settled(),
            "the log knows of every copy (rule 2)"
        );
        let mut victims: Vec<_> = plan
            .victims
            .iter()
            .filter_map(|id| self.core.segment(*id))
            .collect();
        // In the order of the log: what an older one says of namespaces and of gaps must not outlive what a
        // newer one says.
        victims.sort_by_key(|(_, segment)| segment.id);
        debug_assert_eq!(victims.len(), plan.victims.len(), "nobody else retires any");
        debug_assert!(self.state.under_way.is_none(), "it is being stepped");
        let is_open = |segment: &Segment| self.state.classes.is_open(segment.id);
        debug_assert!(!victims.iter().any(|(_, segment)| is_open(segment)));
        self.check_empty(&victims)?;
        debug_assert!(
            self.state
                .evicting
                .as_ref()
                .is_none_or(|e| e.evicted.is_empty()),
            "evictions are in the log before their segment goes (rule 5)"
        );
        let seqno = self.core.retire(&victims)?;
        debug_assert!(
            self.state
                .retired
                .last()
                .is_none_or(|last| last.seqno < seqno),
            "they go in the order of retirement"
        );
        for found in std::mem::take(&mut self.state.erased) {
            self.core.forget(&found, seqno);
        }
        let unread = |(_, segment): &&(u32, Arc<Segment>)| self.state.unread.contains(&segment.id);
        let unread: Vec<u32> = victims.iter().filter(unread).map(|(n, _)| *n).collect();
        if !unread.is_empty() {
            self.core.table.sweep(&unread);
            self.state.unread.clear();
        }
        self.state.needed.borrow_mut().clear();
        self.state.others.clear();
        self.state.evicting = None;
        for (number, segment) in victims {
            debug_assert!(number > 0, "0 is no segment");
            self.core.segments.remove(number);
            self.core.held.lock().push(Arc::downgrade(&segment));
            let id = segment.id;
            self.state.filters.borrow_mut().forget(id);
            self.state.retired.push(Retired { id, seqno });
            self.state.retired_bytes += segment.end().max(SEGMENT_MIN);
        }
        Ok(())
    }

    fn abandon(&mut self) {
        let next_id = || self.core.new_file_id();
        let files = class_files(self.core, self.state.class_len, &next_id);
        let may_remove = self.core.check_writable().is_ok();
        self.state.classes.abandon(&files, may_remove);
        self.state.others.clear();
        self.state.erased.clear();
        self.state.unread.clear();
        self.state.evicting = None;
    }
}

impl Log<'_> {
    fn reading(&self) -> Reading<'_> {
        Reading {
            store: self.core.id,
            work: &self.core.work,
        }
    }

    /// How many of each segment's tombstones are needed, in thousandths. Looks at a few segments each
    /// time: those where it matters, and of which it is not known since something was retired.
    fn needed_pins(&self, all: &[(u32, Arc<Segment>)]) -> HashMap<u64, u64> {
        let mut needed = self.state.needed.borrow_mut();
        let mut filters = self.state.filters.borrow_mut();
        let unknown = all.iter().filter(|(_, segment)| {
            let counts = segment.usage.counts();
            let matters = counts.pin_bytes > segment.end() / PINS_SHARE || counts.live == 0;
            let matters = matters && counts.pins > 0;
            matters && !needed.contains_key(&segment.id)
        });
        let unknown: Vec<u64> = unknown.take(LOOKS_MAX).map(|(_, s)| s.id).collect();
        for id in unknown {
            if let Some(share) = filters.needed(id, all, &self.reading()) {
                debug_assert!(share <= 1000, "in thousandths");
                needed.insert(id, share);
            }
        }
        needed.clone()
    }

    /// Makes the copies durable, then lets the table point to them where it points to the originals.
    fn commit_moves(&mut self) -> Result<()> {
        for op in self.state.classes.flush()? {
            self.core.commit(vec![op], false)?;
        }
        debug_assert!(!self.state.classes.wants_flush(), "all of it was flushed");
        self.state.classes.settle();
        Ok(())
    }

    /// Before segments are retired: the table names nothing in them but what is left behind knowingly. It
    /// is never made to name more of a sealed segment, so what holds when it is looked at holds for ever.
    fn check_empty(&mut self, victims: &[(u32, Arc<Segment>)]) -> Result<()> {
        let erased = self.state.erased.iter().map(|found| found.location);
        let erased: HashSet<Location> = erased.collect();
        for (number, segment) in victims {
            if self.state.unread.contains(&segment.id) || segment.usage.counts().live == 0 {
                continue;
            }
            self.state.reading.set(segment.id);
            for found in Records::new(Arc::clone(segment), *number, self.core.id) {
                let found = found?;
                if self.is_live(&found) && !erased.contains(&found.location) {
                    let offset = found.location.offset();
                    return Err(segment.damage(offset, "compaction left a live record behind"));
                }
            }
            if self.core.table.is_damaged() {
                // Nobody knows what of it lives. The next open does, and replay would repeat the retirement.
                return Err(damaged_table(&self.core.dir));
            }
        }
        Ok(())
    }

    /// Of these segments, those that need not be read to be given up: nobody asks for what they say.
    fn skip_unread(&mut self, plan: &mut Plan, stats: &[SegmentStats], now: u64) {
        let (core, unread) = (self.core, &mut self.state.unread);
        plan.scanned.retain(|id| {
            let stats = stats.iter().find(|s| s.id == *id);
            let is_idle = stats
                .is_some_and(|s| is_erasable(s.last_visible, now) && !s.needs_pins(plan.horizon));
            let has_larges = || {
                let segment = core.segment(*id);
                segment.is_none_or(|(_, segment)| segment.usage.counts().larges > 0)
            };
            let skipped = is_idle && !has_larges();
            if skipped {
                unread.insert(*id);
            }
            !skipped
        });
    }

    /// Gives up the plan that is under way.
    pub(crate) fn drop_plan(&mut self) {
        if self.state.under_way.take().is_some() {
            self.state.progress = Progress::default();
            self.abandon();
        }
    }

    /// Lets what was copied so far be compacted, too.
    pub(crate) fn close_classes(&mut self) {
        self.state.classes.close_if(|_| true);
    }

    /// Begins with what this strategy wants, of the segments that `may_go` holds for; false if it is
    /// nothing.
    pub(crate) fn begin(
        &mut self,
        strategy: &dyn Strategy,
        may_go: impl Fn(&SegmentStats) -> bool,
    ) -> bool {
        debug_assert!(self.state.under_way.is_none(), "one plan at a time");
        self.state.check_idle();
        let now = self.core.clock.confirmed();
        self.state.classes.close_if(|segment| {
            let counts = segment.usage.counts();
            // One of tombstones that are needed would only be copied again.
            let is_dead = counts.live == 0 || is_erasable(counts.last_visible, now);
            is_dead && counts.pins == 0
        });
        let mut stats = self.stats(now);
        for segment in &mut stats {
            segment.sealed &= may_go(segment);
        }
        let Some(mut plan) = strategy.choose(&stats, now) else {
            return false;
        };
        let is_sealed = |id: &u64| stats.iter().any(|s| s.id == *id && s.sealed);
        debug_assert!(
            plan.victims.iter().all(is_sealed),
            "what is written to stays"
        );
        self.skip_unread(&mut plan, &stats, now);
        self.state.others = self.core.segments.all();
        self.state
            .others
            .retain(|(_, segment)| !plan.victims.contains(&segment.id));
        debug_assert!(
            self.state.others.len() + plan.victims.len() >= stats.len(),
            "a segment goes or stays"
        );
        let live: u64 = stats.iter().map(|s| s.live_bytes).sum();
        let longest = self.core.capacity.as_ref().map(Capacity::segment_len);
        let class_len = (live / CLASS_SHARE).max(CLASS_MIN);
        self.state.class_len = class_len.min(longest.unwrap_or(u64::MAX));
        debug_assert!(self.state.class_len >= SEGMENT_MIN);
        debug_assert!(
            self.state.unread.iter().all(|id| plan.victims.contains(id)),
            "what stays is not swept"
        );
        self.state.is_free = plan.scanned.is_empty();
        self.state.evicting = None;
        self.state.under_way = Some(Compactor::new(plan, now));
        true
    }

    /// Carries the plan on by about so many bytes, and returns how many it was.
    pub(crate) fn step(&mut self, budget: u64) -> Result<u64> {
        let Some(mut compactor) = self.state.under_way.take() else {
            return Ok(0);
        };
        let before = self.state.progress.scanned;
        match compactor.step(self, budget) {
            Ok(progress) => {
                self.state.progress = progress;
                debug_assert!(progress.scanned >= before);
                debug_assert!(progress.copied <= progress.scanned);
                let bytes = progress.scanned.saturating_sub(before);
                if progress.is_done {
                    self.state.progress = Progress::default();
                } else {
                    self.state.under_way = Some(compactor);
                }
                Ok(bytes)
            }
            Err(error) => {
                self.state.progress = Progress::default();
                if matches!(error, Error::Corrupt { .. }) {
                    self.state.stuck.insert(self.state.reading.get());
                    let stuck = u64::try_from(self.state.stuck.len()).unwrap_or(u64::MAX);
                    self.core.stuck.store(stuck, Ordering::Relaxed);
                    self.state.trouble = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}

fn class_files<'a>(core: &'a Core, len: u64, next_id: &'a dyn Fn() -> u64) -> ClassFiles<'a> {
    ClassFiles {
        len,
        vfs: &*core.vfs,
        dir: &core.dir,
        segments: &core.segments,
        store: core.id,
        epoch: core.next_file.load(Ordering::Relaxed) >> 32,
        time: core.clock.confirmed(),
        next_id,
    }
}

/// What is known of a segment without reading it.
pub(crate) fn segment_stats(segment: &Segment, sealed: bool, now: u64) -> SegmentStats {
    let state = segment.usage.state();
    let counts = state.counts;
    let (kept, life) = state.expiries.live(now, u64::MAX);
    debug_assert!(segment.end() <= SEGMENT_LEN);
    SegmentStats {
        id: segment.id,
        sealed,
        bytes: segment.end().max(SEGMENT_MIN),
        live: counts.live,
        live_bytes: kept.min(counts.live_bytes).saturating_sub(state.dropped),
        life,
        pins: counts.pins,
        pin_bytes: counts.pin_bytes,
        highest_pin: counts.highest_pin,
        lowest_seqno: counts.lowest_seqno,
        mean_seqno: counts.seqno_sum / counts.puts.max(1),
        last_visible: counts.last_visible,
        hits: segment.hits.load(Ordering::Relaxed),
        class: segment.class,
    }
}
