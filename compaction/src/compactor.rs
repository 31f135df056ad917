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
        debug_assert!(before.scanned <= self.progress.scanned);
        debug_assert!(
            before.copied <= self.progress.copied,
            "progress is never taken back"
        );
        debug_assert!(
            self.progress.copied <= self.progress.scanned,
            "only what was looked at is copied"
        );
        debug_assert!(
            done.is_err()
                || self.progress.is_done
                || self.progress.scanned >= before.scanned.saturating_add(budget),
            "a step that is not the last does all that it may"
        );
        if done.is_err() {
            segments.abandon();
        }
        debug_assert!(
            !self.progress.is_done || self.next == self.plan.scanned.len(),
            "all that had to be read was"
        );
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
        debug_assert!(!self.progress.is_done, "nothing is copied behind the end");
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
    debug_assert!(done.is_done, "without a bound it comes to its end");
    Ok(Some(done))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{CLASSES, LeastUsed, SegmentStats};

    /// A record of ten bytes: its number, what it is, and until when it is seen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Old {
        seqno: u64,
        is_pin: bool,
        last_visible: u64,
    }

    impl Record for Old {
        fn encoded_len(&self) -> u64 {
            10
        }

        fn seqno(&self) -> u64 {
            self.seqno
        }

        fn is_pin(&self) -> bool {
            self.is_pin
        }

        fn last_visible(&self) -> u64 {
            self.last_visible
        }
    }

    /// One segment to give up, of a log that says no more than it must. Records with odd numbers are live, and
    /// those up to `unwanted` may go.
    #[derive(Default)]
    struct Victim {
        records: Vec<Old>,
        unwanted: u64,
        /// Which scan and which copy fail.
        fails: (Option<u64>, Option<u64>),
        copied: Vec<(u64, u8)>,
        erased: Vec<u64>,
        installed: usize,
        abandoned: usize,
    }

    impl Segments for Victim {
        type Record = Old;
        type Scan = std::vec::IntoIter<Result<Old, &'static str>>;
        type Error = &'static str;

        fn stats(&self, _now: u64) -> Vec<SegmentStats> {
            let victim = SegmentStats {
                id: 1,
                sealed: true,
                bytes: 1_000,
                live: 5,
                live_bytes: 50,
                pins: 1,
                pin_bytes: 10,
                highest_pin: u64::MAX,
                last_visible: u64::MAX,
                ..SegmentStats::default()
            };
            let open = SegmentStats {
                id: 2,
                lowest_seqno: 10,
                ..SegmentStats::default()
            };
            vec![victim, open]
        }

        fn scan(&self, segment: u64) -> Result<Self::Scan, &'static str> {
            assert_eq!(segment, 1);
            let fails = |old: &Old| self.fails.0 == Some(old.seqno);
            let read = |old: &Old| if fails(old) { Err("unread") } else { Ok(*old) };
            Ok(self
                .records
                .iter()
                .map(read)
                .collect::<Vec<_>>()
                .into_iter())
        }

        fn is_live(&self, record: &Old) -> bool {
            record.seqno % 2 == 1
        }

        fn relocate(&mut self, record: Old, class: u8) -> Result<(), &'static str> {
            if self.fails.1 == Some(record.seqno) {
                return Err("full");
            }
            self.copied.push((record.seqno, class));
            Ok(())
        }

        fn erase(&mut self, record: Old) -> Result<(), &'static str> {
            self.erased.push(record.seqno);
            Ok(())
        }

        fn is_wanted(&self, record: &Old) -> bool {
            record.seqno > self.unwanted
        }

        fn install(&mut self, plan: &Plan) -> Result<(), &'static str> {
            assert_eq!((&plan.victims[..], plan.horizon), (&[1][..], 10));
            self.installed += 1;
            Ok(())
        }

        fn abandon(&mut self) {
            self.abandoned += 1;
        }
    }

    fn put(seqno: u64, last_visible: u64) -> Old {
        Old {
            seqno,
            is_pin: false,
            last_visible,
        }
    }

    fn pin(seqno: u64) -> Old {
        Old {
            seqno,
            is_pin: true,
            last_visible: u64::MAX,
        }
    }

    /// At second 10,000: what has no expiration, is erasable to the second, is not, and ends after 300 and 301.
    fn victim() -> Victim {
        let lasts = [u64::MAX, 6_399, 6_400, 10_300, 10_301];
        let puts = lasts.into_iter().zip((1..).step_by(2));
        let mut records: Vec<_> = puts.map(|(last, seqno)| put(seqno, last)).collect();
        records.extend([put(12, u64::MAX), pin(9), pin(10), pin(11)]);
        Victim {
            records,
            ..Victim::default()
        }
    }

    #[test]
    fn what_is_live_or_hides_something_is_copied_by_its_remaining_life_and_nothing_else() {
        let mut log = victim();
        let done = run(&mut log, &LeastUsed, 10_000).unwrap();
        // A log that cannot tell may hold what the pin above all staying numbers hides.
        let copied = [(1, CLASSES - 1), (5, 0), (7, 0), (9, 1), (11, CLASSES - 1)];
        assert_eq!(log.copied, copied);
        assert_eq!(log.erased, [3]);
        let done = done.map(|done| (done.scanned, done.copied, done.is_done));
        assert_eq!(done, Some((90, 50, true)));
        assert_eq!((log.installed, log.abandoned), (1, 0));
    }

    #[test]
    fn what_is_not_wanted_is_evicted_which_erases_unless_the_log_has_more_to_do() {
        let mut log = victim();
        log.unwanted = 7;
        run(&mut log, &LeastUsed, 10_000).unwrap();
        assert_eq!(log.copied, [(9, 1), (11, CLASSES - 1)]);
        assert_eq!(log.erased, [1, 3, 5, 7]);
    }

    #[test]
    fn a_step_looks_at_records_of_its_budget_and_at_one_at_least() {
        let mut log = victim();
        let plan = LeastUsed.choose(&log.stats(0), 0).unwrap();
        let mut compactor = Compactor::new(plan, 10_000);
        let mut step = |budget| compactor.step(&mut log, budget).unwrap();
        assert_eq!(step(0).scanned, 10);
        assert_eq!(step(10).scanned, 20);
        assert_eq!(step(11).scanned, 40);
        assert!(!step(50).is_done, "the budget was used up");
        assert!(step(0).is_done);
    }

    #[test]
    fn a_plan_that_fails_is_abandoned_and_installs_nothing() {
        for fails in [(Some(7), None), (None, Some(7))] {
            let mut log = victim();
            log.fails = fails;
            assert!(run(&mut log, &LeastUsed, 10_000).is_err());
            assert_eq!((log.installed, log.abandoned), (0, 1));
            assert_eq!(log.copied.len(), 2);
        }
    }
}
