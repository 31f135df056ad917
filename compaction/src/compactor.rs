//! Carrying out a plan.

use crate::{Plan, Record, Segments, Strategy, class, is_erasable};

/// One plan on its way. Dropping it before it is done leaves the victims as they are; then tell the log
/// to [abandon](Segments::abandon) it.
///
/// It holds the scan that is under way and not the log, so that whoever paces it may keep it.
pub struct Compactor<C> {
    plan: Plan,
    now: u64,
    next: usize,
    scan: Option<C>,
    progress: Progress,
}

/// How far a plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of records that were looked at, and of those the ones that were copied.
    pub scanned: u64,
    /// Bytes of records that were copied.
    pub copied: u64,
    /// Whether the victims are retired.
    pub is_done: bool,
}

impl<C> Compactor<C> {
    /// Begins with a plan. What is erasable is judged by this one `now`.
    pub fn new(plan: Plan, now: u64) -> Compactor<C> {
        debug_assert!(!plan.victims.is_empty(), "a plan gives something up");
        let is_victim = |id| plan.victims.contains(id);
        debug_assert!(
            plan.scanned.iter().all(is_victim),
            "what stays is not scanned"
        );
        Compactor {
            plan,
            now,
            next: 0,
            scan: None,
            progress: Progress::default(),
        }
    }

    /// Looks at records of about `budget` bytes, at least one of them, and returns how far it is in
    /// all. The last step installs the plan.
    ///
    /// # Errors
    ///
    /// Whatever the log fails with. The plan is abandoned then: a segment with a record that cannot be
    /// read is not retired. No more steps may follow.
    pub fn step<S>(&mut self, segments: &mut S, budget: u64) -> Result<Progress, S::Error>
    where
        S: Segments<Scan = C>,
        C: Iterator<Item = Result<S::Record, S::Error>>,
    {
        debug_assert!(!self.progress.is_done, "no step follows the last one");
        let before = self.progress;
        let done = self.try_step(segments, budget);
        debug_assert!(
            before.scanned <= self.progress.scanned && before.copied <= self.progress.copied,
            "progress is never taken back"
        );
        debug_assert!(
            self.progress.copied <= self.progress.scanned,
            "only what was looked at is copied"
        );
        if done.is_err() {
            segments.abandon();
        }
        done.map(|()| self.progress)
    }

    fn try_step<S>(&mut self, segments: &mut S, budget: u64) -> Result<(), S::Error>
    where
        S: Segments<Scan = C>,
        C: Iterator<Item = Result<S::Record, S::Error>>,
    {
        let end = self.progress.scanned.saturating_add(budget.max(1));
        while self.progress.scanned < end && !self.progress.is_done {
            if let Some(scan) = &mut self.scan {
                match scan.next() {
                    Some(record) => self.visit(segments, record?)?,
                    None => self.scan = None,
                }
            } else if let Some(&victim) = self.plan.scanned.get(self.next) {
                self.scan = Some(segments.scan(victim)?);
                self.next += 1;
                debug_assert!(self.next <= self.plan.scanned.len(), "each is scanned once");
            } else {
                debug_assert!(self.scan.is_none(), "victims go when all of each was seen");
                segments.install(&self.plan)?;
                self.progress.is_done = true;
            }
        }
        Ok(())
    }

    fn visit<S>(&mut self, segments: &mut S, record: S::Record) -> Result<(), S::Error>
    where
        S: Segments<Scan = C>,
    {
        let bytes = record.encoded_len();
        debug_assert!(bytes > 0, "or a budget would never be used up");
        self.progress.scanned = self.progress.scanned.saturating_add(bytes);
        let class = if record.is_pin() {
            let hides =
                record.seqno() > self.plan.horizon && segments.may_hold_older(&record, &self.plan);
            hides.then(|| class(u64::MAX))
        } else if !segments.is_live(&record) {
            None
        } else if is_erasable(record.last_visible(), self.now) {
            return segments.erase(record);
        } else if !segments.is_wanted(&record) {
            return segments.evict(record);
        } else {
            Some(class(remaining(&record, self.now)))
        };
        if let Some(class) = class {
            debug_assert!(
                record.is_pin() || !is_erasable(record.last_visible(), self.now),
                "what is erasable is not copied"
            );
            self.progress.copied = self.progress.copied.saturating_add(bytes);
            segments.relocate(record, class)?;
        }
        Ok(())
    }
}

fn remaining(record: &impl Record, now: u64) -> u64 {
    match record.last_visible() {
        u64::MAX => u64::MAX,
        last => last.saturating_sub(now),
    }
}

/// Chooses a plan and carries it out without a pause. Returns `None` if there was nothing to do.
///
/// # Errors
///
/// As [`Compactor::step`].
pub fn run<S: Segments>(
    segments: &mut S,
    strategy: &dyn Strategy,
    now: u64,
) -> Result<Option<Progress>, S::Error> {
    let Some(plan) = strategy.choose(&segments.stats(now), now) else {
        return Ok(None);
    };
    let done = Compactor::new(plan, now).step(segments, u64::MAX)?;
    Ok(Some(done))
}
