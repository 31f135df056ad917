//! What a shard remembers of keys that it does not hold. It is written on misses, evictions and
//! expiries, never by a hit.
#![allow(
    clippy::indexing_slicing,
    reason = "a place is below the number of words or ghosts"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "counters have four bits; of the time, the lower bits are wanted"
)]

use crate::index::spread;

/// The most that four bits count to.
pub(crate) const FREQUENCY_MAX: u8 = 15;
/// Words of a line of the sketch.
const WORDS: usize = 8;
/// Everything is halved after so many additions for each key that can be held: old fame fades.
const FADE_AFTER: usize = 3;
const LEN_MIN: usize = 64;
/// Ghosts, and so entries, for each line of the sketch: eight counters for one.
const KEYS_PER_LINE: usize = 16;

/// The parts of a ghost, and how many ticks of its time pass while as many keys leave as there is room
/// for ghosts.
const GHOST_HASH: u32 = (1 << 22) - 1;
const GHOST_SET: u32 = 1 << 22;
const GHOST_MAIN: u32 = 1 << 23;
const GHOST_TICK: u32 = 1 << 24;
const GHOST_TIME: u32 = 0xFF << 24;
const GHOST_TICKS: u32 = 64;

/// Which queue a key left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Small,
    Main,
}

/// Frequencies of keys (a count-min sketch of four bits), and which ones left not long ago.
#[derive(Debug)]
pub(crate) struct History {
    /// Lines of eight words of 16 counters; a key has one counter in each pair of words.
    sketch: Box<[[u64; WORDS]]>,
    additions: usize,
    /// Direct mapped; 0 is none. See `ghost`.
    ghosts: Box<[u32]>,
    /// Keys that left.
    left: u64,
}

impl Default for History {
    fn default() -> History {
        History::with_len(LEN_MIN)
    }
}

/// Spreads a hash anew: ghosts and sketch should not collide for the same keys.
fn mix(hash: u32) -> u64 {
    let product = u64::from(hash | 1 << 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

/// The four counters of a key in its line: word and shift.
fn counters(hash: u32) -> impl Iterator<Item = (usize, u32)> {
    let mut bits = mix(hash) >> 8;
    (0..WORDS / 2).map(move |pair| {
        let word = 2 * pair + (bits & 1) as usize;
        let shift = 4 * (bits >> 1 & 15) as u32;
        bits >>= 5;
        (word, shift)
    })
}

impl History {
    fn with_len(len: usize) -> History {
        History {
            sketch: vec![[0; WORDS]; len / KEYS_PER_LINE].into(),
            additions: 0,
            ghosts: vec![0; len].into(),
            left: 0,
        }
    }

    /// Keeps a history of about as many keys as `held`. One of another length has no ghosts yet.
    pub(crate) fn fit(&mut self, held: usize) {
        let len = self.ghosts.len();
        let wanted = if held > len {
            2 * len
        } else if held < len / 3 && len > LEN_MIN {
            len / 2
        } else {
            return;
        };
        let mut fitted = History::with_len(wanted);
        // Lines are found by the upper bits of the hash, so line `n` becomes `2n` and `2n + 1`.
        for (at, line) in fitted.sketch.iter_mut().enumerate() {
            *line = self.sketch[at * self.sketch.len() / (wanted / KEYS_PER_LINE)];
        }
        fitted.additions = self.additions;
        *self = fitted;
    }

    fn line(&self, hash: u32) -> usize {
        spread(hash, self.sketch.len())
    }

    /// How often the key was asked for, as far as is remembered: up to 15.
    pub(crate) fn frequency(&self, hash: u32) -> u8 {
        let line = &self.sketch[self.line(hash)];
        let counts = counters(hash).map(|(word, shift)| (line[word] >> shift & 15) as u8);
        counts.min().unwrap_or(0)
    }

    /// Remembers that the key was asked for so often, at least.
    pub(crate) fn remember(&mut self, hash: u32, frequency: u8) {
        let at = self.line(hash);
        let line = &mut self.sketch[at];
        for (word, shift) in counters(hash) {
            let count = line[word] >> shift & 15;
            let more = u64::from(frequency.min(FREQUENCY_MAX)).saturating_sub(count);
            line[word] += more << shift;
        }
        self.additions += 1;
        if self.additions > FADE_AFTER * self.ghosts.len() {
            self.fade();
        }
    }

    fn fade(&mut self) {
        self.additions = 0;
        for word in self.sketch.as_flattened_mut() {
            *word = *word >> 1 & 0x7777_7777_7777_7777;
        }
    }

    pub(crate) fn leave(&mut self, hash: u32, left: Left) {
        self.left += 1;
        self.ghosts[spread(hash, self.ghosts.len())] = self.ghost(hash, left);
    }

    /// Which queue the key left not long ago. It is then forgotten.
    pub(crate) fn comes_back(&mut self, hash: u32) -> Option<Left> {
        let at = spread(hash, self.ghosts.len());
        let ghost = std::mem::take(&mut self.ghosts[at]);
        let left = [Left::Small, Left::Main].into_iter();
        let mut left = left.filter(|left| (self.ghost(hash, *left) ^ ghost) & !GHOST_TIME == 0);
        let age = (self.ghost(hash, Left::Main) & GHOST_TIME).wrapping_sub(ghost & GHOST_TIME);
        // Who left longer ago is no sign that there was too little room.
        let recent = age / GHOST_TICK <= GHOST_TICKS / 2;
        left.next().filter(|_| recent)
    }

    /// A ghost that leaves now: 22 bits of the hash, one that is set, one for the queue, and eight of
    /// the time, which passes as keys leave. The hash's upper bits are where it lies.
    fn ghost(&self, hash: u32, left: Left) -> u32 {
        let ticks = self.left * u64::from(GHOST_TICKS) / self.ghosts.len() as u64;
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
        assert_eq!(history.comes_back(hash(1)), Some(Left::Small));
        assert_eq!(history.comes_back(hash(1)), None);
        assert_eq!(history.comes_back(hash(2)), Some(Left::Main));
        assert_eq!(history.comes_back(hash(3)), None);
        history.leave(hash(1), Left::Small);
        (100..100 + LEN_MIN as u32).for_each(|key| history.leave(hash(key), Left::Main));
        assert_eq!(history.comes_back(hash(1)), None, "too long ago");
    }
}
