//! Versions below which a value must not come back.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::clock::Seconds;

/// Floors that a shard keeps one by one. More become one floor for all its keys, which refuses too
/// much, but never too little.
const FLOORS_MAX: usize = 1024;

/// For a while after a key was invalidated up to a version, an older value is refused: a source that
/// lags behind cannot bring it back. A floor is known by the hash of its key; two keys with one hash
/// share the higher one.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    floors: HashMap<u64, Floor, BuildHasherDefault<Hashed>>,
    of_all: Option<Floor>,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    version: u64,
    until: Seconds,
}

impl Floors {
    /// Refuses values of the key that are older than `version`, until then.
    pub(crate) fn raise(&mut self, hash: u64, version: u64, until: Seconds, now: Seconds) {
        if self.floors.len() >= FLOORS_MAX {
            self.floors.retain(|_, floor| floor.until > now);
        }
        if self.floors.len() >= FLOORS_MAX {
            let floors = self.floors.drain().map(|(_, floor)| floor);
            let of_all = self.of_all.filter(|floor| floor.until > now);
            self.of_all = floors.chain(of_all).reduce(Floor::both);
        }
        let floor = Floor { version, until };
        let held = self.floors.get(&hash).filter(|held| held.until > now);
        let raised = held.map_or(floor, |held| held.both(floor));
        self.floors.insert(hash, raised);
    }

    /// Whether it keeps no floor.
    pub(crate) fn is_empty(&self) -> bool {
        self.floors.is_empty() && self.of_all.is_none()
    }

    /// Whether a value of this version may come in; one without a version (0) only if no floor stands.
    pub(crate) fn admit(&self, hash: u64, version: u64, now: Seconds) -> bool {
        let floors = self.floors.get(&hash).into_iter().chain(&self.of_all);
        let mut standing = floors.filter(|floor| floor.until > now);
        standing.all(|floor| version >= floor.version)
    }
}

impl Floor {
    fn both(self, other: Floor) -> Floor {
        Floor {
            version: self.version.max(other.version),
            until: self.until.max(other.until),
        }
    }
}

/// A hash that is one already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_is_over_does_not_stand_again() {
        let mut floors = Floors::default();
        floors.raise(6, 9, 30, 0);
        assert!(!floors.admit(6, 8, 29));
        floors.raise(6, 1, 60, 30);
        assert!(floors.admit(6, 1, 31) && !floors.admit(6, 0, 31));
        for (version, now) in [(9, 60), (1, 90)] {
            (10..5000).for_each(|hash| floors.raise(hash, version, now + 30, now));
        }
        assert!(floors.admit(6, 1, 91), "nor does that of all");
    }

    #[test]
    fn a_floor_refuses_what_is_older_while_it_stands() {
        let mut floors = Floors::default();
        floors.raise(1, 5, 100, 0);
        assert!(!floors.admit(1, 4, 99) && !floors.admit(1, 0, 99));
        assert!(floors.admit(1, 5, 99) && floors.admit(2, 0, 99));
        assert!(floors.admit(1, 4, 100), "it stands no more");
    }

    #[test]
    fn a_flood_of_floors_refuses_more_and_not_less() {
        let mut floors = Floors::default();
        for hash in 0..5000 {
            floors.raise(hash, hash + 1, 100, 0);
        }
        assert!((0..5000).all(|hash| !floors.admit(hash, hash, 50)));
        assert!(floors.floors.len() <= FLOORS_MAX);
        assert!(floors.admit(7, 0, 100));
    }
}
