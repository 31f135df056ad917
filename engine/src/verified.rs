//! What was verified since it was mapped.

use std::sync::OnceLock;

use crate::mem::prefetch;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A bit for each piece of a file.
#[derive(Debug)]
pub(crate) struct Verified {
    pieces: usize,
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Verified {
    /// None of so many pieces. It takes memory with the first.
    pub(crate) fn none(pieces: usize) -> Verified {
        Verified {
            pieces,
            words: OnceLock::new(),
        }
    }

    pub(crate) fn has(&self, piece: usize) -> bool {
        let word = self.words.get().and_then(|words| words.get(piece / 64));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (piece % 64) & 1 == 1)
    }

    /// Starts to bring the bit of a piece into the cache.
    pub(crate) fn prefetch(&self, piece: usize) {
        let words = self.words.get().and_then(|words| words.get(piece / 64..));
        words.into_iter().for_each(prefetch);
    }

    pub(crate) fn add(&self, piece: usize) {
        debug_assert!(piece < self.pieces, "a piece of the file");
        let words = self.words.get_or_init(|| {
            let words = self.pieces.div_ceil(64);
            debug_assert!(words > 0, "what has no pieces has none verified");
            std::iter::repeat_with(AtomicU64::default)
                .take(words)
                .collect()
        });
        if let Some(word) = words.get(piece / 64) {
            word.fetch_or(1 << (piece % 64), Ordering::Relaxed);
        }
        debug_assert!(self.has(piece), "nobody takes a bit away");
    }
}

#[cfg(test)]
mod tests {
    use super::Verified;

    #[test]
    fn each_piece_has_a_bit_of_its_own() {
        let verified = Verified::none(130);
        for piece in [0, 63, 64, 129] {
            assert!(!verified.has(piece));
            verified.add(piece);
            assert!(verified.has(piece));
        }
        assert_eq!((0..1000).filter(|piece| verified.has(*piece)).count(), 4);
    }
}
