//! Whether plain reads gain by the hot cache: measured on some of them while they are served.
//!
//! A get from the mapping takes some hundred nanoseconds, so asking a cache first may cost more than it
//! saves; or save a wait for the disk. Of every 64 reads one is timed, alternately by way of the cache and
//! around it. After so many of both, the cache is used on, or rests. While it rests nobody asks or fills
//! it. It is tried again after a rest that doubles each time, so that trials cost little where it never
//! pays.

use std::cell::Cell;

use crate::clock::Stopwatch;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A round ends with so many timed reads, which stand for 64 times as many.
const ROUND: u64 = 1024;
/// Rounds in which an empty cache fills before it is judged, if it is not full earlier.
const WARMING: u32 = 16;
/// The longest rest, in rounds: trials take 1.5 % of the reads then.
const REST_MAX: u32 = 1024;
/// The gain that is asked for, in 256ths of a doubling: 3 %. Less is noise.
const GAIN: u64 = 11;
/// One read in four fills, so that what is read once seldom comes in: copies that push others out cost more
/// than the reads themselves.
const FILLING: u32 = 4;

const _: () = {
    assert!(ROUND > 0);
    assert!(WARMING <= REST_MAX);
    assert!(FILLING > 0);
    assert!(GAIN > 0);
    assert!(GAIN < 256, "a gain, and less than a doubling");
    assert!(REST_MAX.is_multiple_of(WARMING), "rests double up to it");
};

thread_local! {
    static READS: Cell<u32> = const { Cell::new(0) };
}

/// A number that is spread evenly over all values, another at each call.
fn next() -> u32 {
    let next = READS.get().wrapping_add(0x9e37_79b9);
    READS.set(next);
    next
}

/// Whether a read of this turn fills: whatever its upper bits are, a multiple of it is spread evenly, too.
fn fills(turn: u32) -> bool {
    turn.wrapping_mul(0x85eb_ca6b) < u32::MAX / FILLING
}

/// How one read goes.
pub(crate) struct Way {
    asks: bool,
    fills: bool,
    timer: Option<Stopwatch>,
}

impl Way {
    /// By way of the cache, whatever it costs.
    pub(crate) fn asked_for() -> Way {
        Way {
            asks: true,
            fills: fills(next()),
            timer: None,
        }
    }

    pub(crate) fn asks(&self) -> bool {
        self.asks
    }

    pub(crate) fn fills(&self) -> bool {
        self.fills
    }
}

/// Decides how plain reads go.
#[derive(Default)]
pub(crate) struct Admission {
    rests: AtomicBool,
    by_cache: Timed,
    around: Timed,
    phase: Mutex<Phase>,
}

/// Reads of one way.
#[derive(Default)]
struct Timed {
    reads: AtomicU64,
    /// The sum of their times' logarithms, in 256ths of a doubling. A mean of times would be that of the
    /// few reads during which the thread lost its processor.
    logs: AtomicU64,
}

impl Timed {
    fn add(&self, nanoseconds: u64) -> u64 {
        self.logs.fetch_add(log(nanoseconds), Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// The mean logarithm; what is counted begins anew.
    fn take(&self) -> u64 {
        let (logs, reads) = (
            self.logs.swap(0, Ordering::Relaxed),
            self.reads.swap(0, Ordering::Relaxed),
        );
        logs / reads.max(1)
    }
}

/// The logarithm to base 2, in 256ths, a line between powers of two.
fn log(n: u64) -> u64 {
    let n = n.max(1);
    let power = u64::from(n.ilog2());
    let rest = (n << n.leading_zeros()) << 1;
    power << 8 | rest >> 56
}

#[derive(Clone, Copy, Debug)]
struct Phase {
    state: State,
    /// Rounds of the next rest.
    rest: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The cache fills for at most so many more rounds.
    Warming(u32),
    Using,
    /// It is left alone for so many more rounds.
    Resting(u32),
}

impl Default for Phase {
    fn default() -> Phase {
        Phase {
            state: State::Warming(WARMING),
            rest: WARMING,
        }
    }
}

impl Phase {
    /// The phase after a round that took so long on the average, by either way.
    fn after(self, by_cache: u64, around: u64, is_full: bool) -> Phase {
        let (state, rest) = match self.state {
            State::Warming(rounds) if rounds > 0 && !is_full => {
                (State::Warming(rounds.saturating_sub(1)), self.rest)
            }
            State::Warming(_) | State::Using if by_cache.saturating_add(GAIN) <= around => {
                (State::Using, WARMING)
            }
            State::Warming(_) | State::Using => {
                let longer = self.rest.saturating_mul(2).min(REST_MAX);
                (State::Resting(self.rest), longer)
            }
            State::Resting(0) => (State::Warming(WARMING), self.rest),
            State::Resting(rounds) => (State::Resting(rounds.saturating_sub(1)), self.rest),
        };
        debug_assert!(
            (WARMING..=REST_MAX).contains(&rest),
            "it looks again some time"
        );
        debug_assert!(
            match state {
                State::Warming(rounds) => rounds <= WARMING,
                State::Resting(rounds) => rounds <= REST_MAX,
                State::Using => rest == WARMING || matches!(self.state, State::Using),
            },
            "no phase is without end"
        );
        Phase { state, rest }
    }

    fn rests(&self) -> bool {
        matches!(self.state, State::Resting(_))
    }
}

impl Admission {
    /// How the next plain read goes.
    pub(crate) fn way(&self) -> Way {
        let (turn, rests) = (next(), self.rests.load(Ordering::Relaxed));
        // Its upper bits go evenly through all values: six of them choose the timed reads, one their way.
        let is_timed = turn >> 26 == 0;
        let is_around = is_timed && turn >> 25 & 1 == 1;
        let asks = !rests && !is_around;
        Way {
            asks,
            fills: asks && fills(turn),
            timer: is_timed.then(Stopwatch::start),
        }
    }

    /// Whether plain reads use the cache.
    pub(crate) fn uses(&self) -> bool {
        !self.rests.load(Ordering::Relaxed)
    }

    /// Notes how long a read took.
    pub(crate) fn end(&self, way: &Way, is_full: impl FnOnce() -> bool) {
        if let Some(timer) = &way.timer {
            self.note(way.asks, timer.nanoseconds(), is_full);
        }
    }

    fn note(&self, by_cache: bool, nanoseconds: u64, is_full: impl FnOnce() -> bool) {
        let (way, other) = if by_cache {
            (&self.by_cache, &self.around)
        } else {
            (&self.around, &self.by_cache)
        };
        let reads = way.add(nanoseconds) + other.reads.load(Ordering::Relaxed);
        // Whoever finds it locked leaves the end of the round to the other.
        if reads >= ROUND
            && let Some(mut phase) = self.phase.try_lock()
        {
            *phase = phase.after(self.by_cache.take(), self.around.take(), is_full());
            self.rests.store(phase.rests(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds in which a read takes so long by the cache, and around it.
    fn rounds(admission: &Admission, count: u32, by_cache: u64, around: u64) -> u32 {
        let mut used = 0;
        for _ in 0..count {
            used += u32::from(admission.uses());
            for n in 0..ROUND {
                let by_cache = (n % 2 == 0).then_some(by_cache);
                let time = by_cache.unwrap_or(around);
                admission.note(by_cache.is_some(), time, || false);
            }
        }
        used
    }

    #[test]
    fn a_cache_that_pays_is_used() {
        let admission = Admission::default();
        assert_eq!(rounds(&admission, 100, 900, 1000), 100);
        assert!(admission.uses());
    }

    #[test]
    fn a_cache_that_does_not_pay_rests_longer_and_longer() {
        let admission = Admission::default();
        let used = rounds(&admission, 20_000, 1000, 1000);
        assert!(used < 600, "tried in {used} rounds of 20000");
        assert!(used > 300, "tried in {used} rounds of 20000");
    }

    #[test]
    fn a_cache_that_begins_to_pay_is_found_out() {
        let admission = Admission::default();
        rounds(&admission, 2000, 1100, 1000);
        rounds(&admission, 2 * REST_MAX, 300, 90_000);
        assert!(admission.uses());
        rounds(&admission, 1, 1100, 1000);
        assert!(
            !admission.uses(),
            "one round is enough to see that it is over"
        );
    }

    #[test]
    fn few_slow_reads_do_not_decide() {
        let admission = Admission::default();
        for n in 0..100 * ROUND {
            let by_cache = n % 2 == 0;
            // A thread that lost its processor for four milliseconds.
            let time = if n % 200 == 0 {
                4_000_000
            } else if by_cache {
                300
            } else {
                400
            };
            admission.note(by_cache, time, || false);
        }
        assert!(admission.uses());
    }

    #[test]
    fn of_all_reads_some_are_timed_by_either_way_and_few_fill() {
        let admission = Admission::default();
        let ways: Vec<Way> = (0..1 << 16).map(|_| admission.way()).collect();
        let count = |is: fn(&Way) -> bool| ways.iter().filter(|way| is(way)).count();
        assert!((900..1150).contains(&count(|way| way.timer.is_some())));
        assert!((400..600).contains(&count(|way| way.timer.is_some() && way.asks)));
        assert_eq!(count(|way| !way.asks && way.timer.is_none()), 0);
        assert!((14_000..18_000).contains(&count(|way| way.fills)));
        assert!((80..170).contains(&count(|way| way.timer.is_some() && way.fills)));
    }

    #[test]
    fn a_logarithm_grows_with_its_number() {
        let logs: Vec<u64> = [1, 2, 3, 4, 300, 310, 1 << 20, u64::MAX].map(log).to_vec();
        assert_eq!(logs.get(..4), Some(&[0, 256, 384, 512][..]));
        assert!(logs.is_sorted_by(|a, b| a < b));
    }
}
