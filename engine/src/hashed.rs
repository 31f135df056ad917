//! Maps and sets of what is hashed already.

use std::hash::{BuildHasherDefault, Hasher};

/// For a `HashMap` or `HashSet` whose keys are hashes of keys: seeded by the store, so that nobody who writes
/// can choose them.
pub(crate) type ByHash = BuildHasherDefault<Hashed>;

/// A hash as it is.
#[derive(Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only `u64` is hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        debug_assert_eq!(self.0, 0, "a key is one number");
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
