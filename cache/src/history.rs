//! What a shard remembers of keys that it does not hold. It is written on misses, evictions and
//! expiries, never by a hit.
#![allow(clippy::indexing_slicing, reason = "a line is below their number")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "counters have four bits; of the time, the lower bits are wanted"
)]

use crate::index::spread;
use crate::prefetch::prefetch;

/// The most that four bits count to.
pub(crate) const FREQUENCY_MAX: u8 = 15;
/// Everything is halved after so many additions for each key that can be held: old fame fades.
const FADE_AFTER: usize = 3;
const LEN_MIN: usize = 64;
/// Ghosts, and so entries, for each line: it has eight counters for one.
const KEYS_PER_LINE: usize = 8;
const WORDS: usize = 4;

/// The parts of a ghost, and how many ticks of its time pass while as many keys leave as there is room
/// for ghosts.
const GHOST_HASH: u32 = (1 << 22) - 1;
const GHOST_SET: u32 = 1 << 22;
const GHOST_MAIN: u32 = 1 << 23;
const GHOST_TICK: u32 = 1 << 24;
const GHOST_TICKS: u32 = 64;
const _: () = assert!(GHOST_TICKS as usize <= LEN_MIN && LEN_MIN.is_power_of_two());

/// Which queue a key left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Small,
    Main,
}

/// How a key that left comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// So soon that a little more room would have kept it.
    Soon(Left),
    Late,
}

/// Frequencies of keys (a count-min sketch of four bits), and which ones left not long ago. All that
/// is known of a key is in one line of memory.
#[derive(Debug)]
pub(crate) struct History {
    lines: Box<[Line]>,
    additions: usize,
    /// Keys that left.
    left: u64,
}

#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Words of 16 counters; a key has one in each.
    counters: [u64; WORDS],
    /// See `ghost`; the newest first, then those that are none, which are 0.
    ghosts: [u32; KEYS_PER_LINE],
}

const _: () = assert!(size_of::<Line>() == 64);

impl Default for History {
    fn default() -> History {
        History::with_len(LEN_MIN)
    }
}

/// Spreads a hash anew: a key's counters should not follow from its line.
fn mix(hash: u32) -> u64 {
    let product = u64::from(hash | 1 << 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

/// How far each counter of a key is shifted in its word.
fn shifts(hash: u32) -> [u32; WORDS] {
    let bits = mix(hash) >> 8;
    [0, 4, 8, 12].map(|from| 4 * (bits >> from & 15) as u32)
}

/// For how long a ghost has been one, in ticks.
fn age(ghost: u32, now: u32) -> u32 {
    (now & !(GHOST_TICK - 1)).wrapping_sub(ghost & !(GHOST_TICK - 1)) / GHOST_TICK
}

impl History {
    fn with_len(len: usize) -> History {
        History {
            lines: vec![Line::default(); len / KEYS_PER_LINE].into(),
            additions: 0,
            left: 0,
        }
    }

    /// Keys that there is room for.
    fn len(&self) -> usize {
        self.lines.len() * KEYS_PER_LINE
    }

    /// Keeps a history of about as many keys as `held`. One of another length has no ghosts yet.
    #[inline]
    pub(crate) fn fit(&mut self, held: usize) {
        let len = self.len();
        if held > len {
            self.change_len(2 * len);
        } else if held < len / 3 && len > LEN_MIN {
            self.change_len(len / 2);
        }
    }

    #[cold]
    fn change_len(&mut self, wanted: usize) {
        let (len, mut fitted) = (self.len(), History::with_len(wanted));
        // Lines are found by the upper bits of the hash, so line `n` becomes `2n` and `2n + 1`.
        for (at, line) in fitted.lines.iter_mut().enumerate() {
            line.counters = self.lines[at * len / wanted].counters;
        }
        fitted.additions = self.additions;
        *self = fitted;
    }

    fn line(&self, hash: u32) -> usize {
        spread(hash, self.lines.len())
    }

    /// Has the memory of what is known of a key brought near.
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(&self.lines[self.line(hash)]);
    }

    pub(crate) fn lines(&self) -> *const [Line] {
        &*self.lines
    }

    /// How often the key was asked for, as far as is remembered: up to 15.
    pub(crate) fn frequency(&self, hash: u32) -> u8 {
        let line = &self.lines[self.line(hash)];
        let counters = line.counters.iter().zip(shifts(hash));
        let counts = counters.map(|(word, shift)| (word >> shift & 15) as u8);
        counts.min().unwrap_or(0)
    }

    /// Remembers that the key was asked for so often, at least.
    pub(crate) fn remember(&mut self, hash: u32, frequency: u8) {
        let at = self.line(hash);
        let counters = self.lines[at].counters.iter_mut();
        for (word, shift) in counters.zip(shifts(hash)) {
            let count = *word >> shift & 15;
            let more = u64::from(frequency.min(FREQUENCY_MAX)).saturating_sub(count);
            *word += more << shift;
        }
        self.additions += 1;
        if self.additions > FADE_AFTER * self.len() {
            self.fade();
        }
    }

    fn fade(&mut self) {
        self.additions = 0;
        for line in &mut self.lines {
            for word in &mut line.counters {
                *word = *word >> 1 & 0x7777_7777_7777_7777;
            }
        }
    }

    /// Notes which queue a key left, in place of the oldest ghost of its line.
    pub(crate) fn leave(&mut self, hash: u32, left: Left) {
        self.left += 1;
        let new = self.ghost(hash, left);
        let at = self.line(hash);
        let ghosts = &mut self.lines[at].ghosts;
        ghosts.copy_within(..KEYS_PER_LINE - 1, 1);
        ghosts[0] = new;
    }

    /// How the key comes back to a shard that holds so many, if it is known to have left. That is then
    /// forgotten.
    pub(crate) fn comes_back(&mut self, hash: u32, held: usize) -> Option<Back> {
        let now = self.ghost(hash, Left::Small);
        let at = self.line(hash);
        let ghosts = &mut self.lines[at].ghosts;
        let same = |ghost: &u32| (ghost ^ now) & (GHOST_HASH | GHOST_SET) == 0;
        let found = ghosts.iter().position(same)?;
        let ghost = ghosts[found];
        ghosts.copy_within(found + 1.., found);
        ghosts[KEYS_PER_LINE - 1] = 0;
        let others = age(ghost, now) as usize * (self.len() / GHOST_TICKS as usize);
        Some(match ghost & GHOST_MAIN {
            _ if others > held / 2 => Back::Late,
            0 => Back::Soon(Left::Small),
            _ => Back::Soon(Left::Main),
        })
    }

    /// A ghost that leaves now: 22 bits of the hash, one that is set, one for the queue, and eight of
    /// the time, which passes as keys leave. The hash's upper bits are where it lies.
    fn ghost(&self, hash: u32, left: Left) -> u32 {
        // The same as `left * GHOST_TICKS / len`: both are powers of two, and `len` is not less.
        let ticks = self.left >> (self.len().ilog2() - GHOST_TICKS.ilog2());
        let time = (ticks as u32).wrapping_mul(GHOST_TICK);
        let from = if left == Left::Main { GHOST_MAIN } else { 0 };
        hash & GHOST_HASH | GHOST_SET | from | time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u32) -> u32 {
        key.wrapping_mul(0x9E37_79B9)
    }

    #[test]
    fn frequencies_are_remembered_and_fade() {
        let mut history = History::default();
        for key in 1..20 {
            history.remember(hash(key), 6);
        }
        assert!((1..20).all(|key| history.frequency(hash(key)) >= 6));
        history.fade();
        assert!((1..20).all(|key| history.frequency(hash(key)) == 3));
        history.fit(1000);
        assert!(
            (1..20).all(|key| history.frequency(hash(key)) == 3),
            "grown"
        );
    }

    #[test]
    fn a_ghost_comes_back_once() {
        let mut history = History::default();
        history.leave(hash(1), Left::Small);
        history.leave(hash(2), Left::Main);
        let mut back = |key| history.comes_back(hash(key), 20);
        assert_eq!(back(1), Some(Back::Soon(Left::Small)));
        assert_eq!(back(1), None);
        assert_eq!(back(2), Some(Back::Soon(Left::Main)));
        assert_eq!(back(3), None);
    }

    #[test]
    fn a_ghost_is_late_after_half_as_many_as_are_held() {
        let mut history = History::default();
        for (held, others, late) in [(40, 20, false), (40, 21, true), (60, 30, false)] {
            history.leave(hash(1), Left::Main);
            // They leave elsewhere: a line forgets its oldest ghost.
            (1..=others).for_each(|key| history.leave(key, Left::Small));
            let back = history.comes_back(hash(1), held);
            let soon = Back::Soon(Left::Main);
            assert_eq!(back, Some(if late { Back::Late } else { soon }), "{held}");
        }
        history.leave(1, Left::Main);
        (2..=9).for_each(|key| history.leave(key, Left::Small));
        assert_eq!(history.comes_back(1, 100), None, "eight others of its line");
    }
}
