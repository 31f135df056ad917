//! When compaction works, and how much: in the background in proportion to what is written, and all at
//! once when somebody asks for it.

use rimstone_compaction::{
    CostBenefit, Dead, Pace, Plan, SegmentStats, Segments, Strategy, Thorough,
};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::maintenance::Maintenance;
use crate::reclaim::Log;

/// Garbage that is not worth any work, in a small store.
const GARBAGE_MIN: u64 = 16 << 20;
/// However much waits for checkpoints, this fraction of the garbage that is allowed is left alone: less
/// would cost too much copying.
const GARBAGE_SHARE_MIN: u64 = 2;
/// Compaction that somebody asks for passes over a segment with less garbage than this.
const THOROUGH_PERCENT: u64 = 10;
/// On a full disk it passes over less.
const FULL_PERCENT: u64 = 3;
/// Bytes that are looked at in one step, and in one turn, after which others may have the log's
/// maintenance.
const STEP: u64 = 4 << 20;
const TURN: u64 = 64 << 20;
/// Compaction that is saved up while nothing has to be done.
const BURST: u64 = 64 << 20;

const _: () = {
    assert!(STEP <= TURN, "a turn has a step at least");
    assert!(STEP <= BURST, "a step can be saved up for");
    assert!(GARBAGE_SHARE_MIN > 1, "some of it is left alone, not all");
    assert!(FULL_PERCENT < THOROUGH_PERCENT);
    assert!(THOROUGH_PERCENT < 100);
};

/// How much compaction may do, and what was written when it last looked.
pub(crate) struct Pacing {
    pace: Pace,
    written: u64,
    /// How full of garbage the store is, in thousandths of what it may have.
    fullness: u64,
}

impl Default for Pacing {
    fn default() -> Pacing {
        Pacing {
            pace: Pace::new(BURST),
            written: 0,
            fullness: 0,
        }
    }
}

/// Keeps the store within its bound, what is retired and waits for checkpoints included.
struct Background {
    /// Garbage in sealed and retired segments that is allowed, in percent of what is live.
    garbage_max: u64,
    retired: u64,
}

impl Background {
    fn policy(&self, segments: &[SegmentStats]) -> Option<CostBenefit> {
        let live: u64 = segments.iter().map(|s| s.live_bytes).sum();
        let sealed = segments.iter().filter(|s| s.sealed);
        let garbage: u64 = sealed.map(|s| s.bytes.saturating_sub(s.live_bytes)).sum();
        let retired = self.retired.saturating_mul(100) / live.max(1);
        let least = self.garbage_max / GARBAGE_SHARE_MIN;
        let garbage_max = self.garbage_max.saturating_sub(retired).max(least);
        debug_assert!(garbage_max <= self.garbage_max);
        (garbage >= GARBAGE_MIN).then_some(CostBenefit { garbage_max })
    }

    fn fullness(&self, segments: &[SegmentStats]) -> u64 {
        let policy = self.policy(segments);
        policy.map_or(0, |policy| policy.fullness(segments))
    }
}

impl Strategy for Background {
    fn choose(&self, segments: &[SegmentStats], now: u64) -> Option<Plan> {
        match self.policy(segments) {
            Some(policy) => policy.choose(segments, now),
            None => Dead.choose(segments, now),
        }
    }
}

impl Core {
    /// Gives up what is dead, and moves what is live out of the segments that free most, as far as the
    /// store takes more space than it may. Works in proportion to what was written since the last time,
    /// with no such limit when the store is idle; writers wait for what it did not get done.
    pub(crate) fn compact(&self, state: &mut Maintenance, idle: bool) -> Result<()> {
        self.look_for_dropped(state, self.namespaces.drops() > state.drops, TURN);
        state.reclaim.filters.get_mut().allow(TURN);
        let mut turn = TURN;
        let mut worked = Ok(true);
        while turn > 0 && matches!(worked, Ok(true)) && !self.work.is_stopped() {
            self.earn(state);
            worked = self.work_on(state, idle, &mut turn);
            self.set_brake(state, matches!(worked, Ok(false)));
        }
        if worked? {
            // Others first; then it goes on.
            self.work.wake();
        }
        Ok(())
    }

    /// Finds out where there is something of dropped namespaces, in so many bytes of segments; in the others
    /// later.
    fn look_for_dropped(&self, state: &mut Maintenance, wanted: bool, bytes: u64) {
        state.drops = self.namespaces.drops();
        if wanted {
            state.unseen = self.segments.all().iter().map(|(_, s)| s.id).collect();
        }
        let mut left = bytes;
        while let Some(id) = state.unseen.last().copied().filter(|_| left > 0) {
            if let Some((number, segment)) = self.segment(id) {
                if !self.find_dropped(number, &segment) {
                    return;
                }
                left = left.saturating_sub(segment.end());
            }
            state.unseen.pop();
        }
        if !state.unseen.is_empty() {
            self.work.wake();
        }
    }

    fn background(&self, state: &Maintenance) -> Background {
        Background {
            garbage_max: self.space.saturating_sub(100),
            retired: state.retired_bytes,
        }
    }

    /// Allows as much compaction as belongs to what was written since.
    fn earn(&self, state: &mut Maintenance) {
        let written = self.log.lock().written;
        debug_assert!(written >= state.pacing.written, "what was written stays so");
        let bytes = written.saturating_sub(state.pacing.written);
        state.pacing.written = written;
        let background = self.background(state);
        let stats = self.as_log(state).stats(self.clock.confirmed());
        state.pacing.fullness = background.fullness(&stats);
        state.pacing.pace.written(bytes, state.pacing.fullness);
    }

    /// Lets writers wait for as much as compaction is behind.
    fn set_brake(&self, state: &mut Maintenance, is_done: bool) {
        if is_done && state.reclaim.under_way.is_none() {
            // Nothing is worth copying: they would wait in vain.
            state.pacing.pace.forgive();
        }
        self.brake.set(state.pacing.pace.debt());
    }

    /// Takes one step, of a new plan if none is under way; false if there is nothing to do now.
    fn work_on(&self, state: &mut Maintenance, idle: bool, turn: &mut u64) -> Result<bool> {
        let background = self.background(state);
        let mut log = self.as_log(state);
        if log.state.under_way.is_none() && !log.begin(&background, |_| true) {
            return Ok(false);
        }
        let budget = match idle && state.pacing.fullness > 0 {
            true => STEP,
            false => state.pacing.pace.available().min(STEP),
        };
        if budget == 0 && !state.reclaim.is_free {
            return Ok(false);
        }
        let bytes = self.step(state, budget)?;
        state.pacing.pace.spend(bytes);
        debug_assert!(*turn > 0);
        debug_assert!(*turn <= TURN, "others wait for the end of it");
        *turn = turn.saturating_sub(bytes);
        Ok(true)
    }

    /// Gives up every segment of which a tenth is dead, and says how many bytes of them are done with, and
    /// of how many. The log goes on in a new one.
    pub(crate) fn compact_all(
        &self,
        state: &mut Maintenance,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        self.finish_plan(state)?;
        debug_assert!(state.reclaim.under_way.is_none() || self.work.is_stopped());
        let before: Vec<u64> = self.segments.all().iter().map(|(_, s)| s.id).collect();
        // Before the log is locked, which writers would wait for.
        self.sync()?;
        self.rotate(&mut self.log.lock())?;
        self.as_log(state).close_classes();
        self.look_for_dropped(state, self.namespaces.dropped() > 0, u64::MAX);
        state.reclaim.filters.get_mut().allow(u64::MAX);
        let strategy = Thorough {
            garbage_min: THOROUGH_PERCENT,
        };
        let mut all = 0;
        while !self.work.is_stopped() {
            let mut log = self.as_log(state);
            let stats = log.stats(self.clock.confirmed());
            let left = stats
                .iter()
                .filter(|s| before.contains(&s.id) && strategy.is_worth(s));
            let left: u64 = left.map(|s| s.bytes).sum();
            all = all.max(left);
            progress(all - left, all);
            if !log.begin(&strategy, |segment| before.contains(&segment.id)) {
                break;
            }
            self.finish_plan(state)?;
        }
        Ok(())
    }

    /// Frees space on a full disk, from what was kept back for that, until as much can be kept back again
    /// or nothing more can be freed. Puts are refused meanwhile.
    pub(crate) fn make_room(&self, state: &mut Maintenance) -> Result<()> {
        self.reserve.set_working(true);
        let made = self.free_some(state);
        self.reserve.set_working(false);
        made
    }

    fn free_some(&self, state: &mut Maintenance) -> Result<()> {
        let strategy = Thorough {
            garbage_min: FULL_PERCENT,
        };
        // A plan must not need more space than there is.
        let most = self.reserve.len() / 2;
        debug_assert!(state.reclaim.retired.is_empty(), "the last plan was noted");
        state.reclaim.filters.get_mut().allow(u64::MAX);
        self.as_log(state).drop_plan();
        while !self.work.is_stopped() {
            if !state.retired.is_empty() {
                self.reserve.release();
                self.checkpoint(state)?;
                self.checkpoint(state)?;
                self.reserve.set_working(false);
                if self.reserve.has_room() {
                    break;
                }
                self.reserve.set_working(true);
            }
            if !self.as_log(state).begin(&strategy, |s| s.needed() <= most) {
                break;
            }
            self.reserve.release();
            self.finish_plan(state)?;
        }
        Ok(())
    }

    /// Carries the plan that is under way to its end.
    pub(crate) fn finish_plan(&self, state: &mut Maintenance) -> Result<()> {
        while state.reclaim.under_way.is_some() && !self.work.is_stopped() {
            self.step(state, STEP)?;
        }
        Ok(())
    }

    /// Carries the plan that is under way on by about so many bytes, and returns how many it was. A
    /// segment that cannot be read costs the plan.
    fn step(&self, state: &mut Maintenance, budget: u64) -> Result<u64> {
        let stepped = self.as_log(state).step(budget);
        debug_assert!(
            state.reclaim.retired.is_empty() || state.reclaim.under_way.is_none(),
            "segments are retired by the last step of a plan"
        );
        debug_assert_eq!(
            state.reclaim.retired.is_empty(),
            state.reclaim.retired_bytes == 0,
            "each has bytes"
        );
        state.retired.append(&mut state.reclaim.retired);
        state.retired_bytes += std::mem::take(&mut state.reclaim.retired_bytes);
        let bytes = match stepped {
            Err(Error::Corrupt { .. }) => 0,
            stepped => stepped?,
        };
        if self.is_checkpoint_due(state) {
            self.checkpoint(state)?;
        }
        Ok(bytes)
    }

    pub(crate) fn as_log<'a>(&'a self, state: &'a mut Maintenance) -> Log<'a> {
        Log {
            core: self,
            state: &mut state.reclaim,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::{Clock, Durability, Namespace, Options, Store};

    /// Three sealed segments with puts and tombstones, of a namespace that exists and one that does not.
    fn prepared(dir: &std::path::Path) -> (Store, Namespace) {
        let options = || {
            let options = Options::new().clock(Clock::manual(1));
            options.durability(Durability::None)
        };
        for round in 0..3u8 {
            let store = options().open(dir).unwrap();
            let (ns, doomed) = (store.namespace("n").unwrap(), store.namespace("d").unwrap());
            for key in 0..200u8 {
                ns.put([round, key], [key; 50]).unwrap();
                doomed.put([round, key], [key; 50]).unwrap();
            }
            ns.delete([round, 0]).unwrap();
        }
        let store = options().open(dir).unwrap();
        let ns = store.namespace("n").unwrap();
        let doomed = store.find_namespace("d").unwrap().id();
        // Before maintenance can look: its lock is held by the test.
        let core = std::sync::Arc::clone(ns.core());
        let held = core.maintenance.lock();
        store.drop_namespace(doomed).unwrap();
        drop(held);
        (store, ns)
    }

    #[test]
    fn looking_for_dropped_namespaces_goes_on_where_it_was_and_ends_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let mut state = core.maintenance.lock();
        core.look_for_dropped(&mut state, true, 1);
        let unseen = state.unseen.len();
        assert!(unseen > 1, "one segment at a time");
        core.look_for_dropped(&mut state, false, 1);
        assert_eq!(state.unseen.len(), unseen - 1);
        core.look_for_dropped(&mut state, false, u64::MAX);
        assert_eq!(state.unseen.len(), 0);
        let dropped = |(_, s): &(u32, std::sync::Arc<crate::log::segment::Segment>)| {
            s.usage.state().dropped > 200 * 100
        };
        assert_eq!(core.segments.all().iter().filter(|s| dropped(s)).count(), 3);
        core.work.stop();
        core.look_for_dropped(&mut state, true, u64::MAX);
        assert_eq!(state.unseen.len(), unseen + 1, "the store is being closed");
    }

    #[test]
    fn what_was_dropped_is_looked_for_though_another_was_forgotten_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let mut state = core.maintenance.lock();
        core.compact(&mut state, false).unwrap();
        assert_eq!((core.namespaces.dropped(), state.unseen.len()), (1, 0));
        let (_, active) = core.log.lock().active();
        core.namespaces.forget_dropped(active.id);
        ns.delete_prefix("").unwrap();
        assert_eq!(core.namespaces.dropped(), 1);
        // It does not get further than to begin.
        core.work.stop();
        core.compact(&mut state, false).unwrap();
        assert!(!state.unseen.is_empty());
    }

    #[test]
    fn filters_are_made_a_few_at_a_time_and_not_while_the_store_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let all = core.segments.all();
        let (_, newest) = all
            .iter()
            .rfind(|(_, s)| s.usage.counts().pins > 0)
            .unwrap();
        let reading = crate::filters::Reading {
            store: core.id,
            work: &core.work,
        };
        let needed = |filters: &mut crate::filters::Filters, bytes| {
            filters.allow(bytes);
            filters.needed(newest.id, &all, &reading)
        };
        let mut filters = crate::filters::Filters::default();
        assert_eq!(needed(&mut filters, 0), None);
        assert_eq!(
            needed(&mut filters, 1),
            None,
            "its own, and none of the others"
        );
        // The tombstone is of a key that no other segment has.
        let whole = (0..4).find_map(|_| needed(&mut filters, 1));
        assert_eq!(whole, Some(0));
        core.work.stop();
        let mut filters = crate::filters::Filters::default();
        assert_eq!(needed(&mut filters, u64::MAX), None);
    }

    #[test]
    fn writers_do_not_wait_when_nothing_is_worth_compacting() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, ns) = prepared(dir.path());
        let core = ns.core();
        let mut state = core.maintenance.lock();
        state.pacing.pace.written(1 << 30, 1000);
        core.set_brake(&mut state, false);
        assert!(core.brake.debt() > 1 << 30, "there is something to do");
        core.set_brake(&mut state, true);
        assert_eq!(core.brake.debt(), 0);
    }
}
