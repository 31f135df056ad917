//! What is stored and what is asked for, the same for every engine and in every run.

use std::iter;

use fastrand::Rng;

use crate::sequences;

/// Keys in each engine.
pub(crate) const KEYS: u64 = 1_000_000;
/// Keys in a sequence of gets; the benches go round.
const ASKED: usize = 1 << 20;

pub(crate) type Key = [u8; 17];

/// The key of an entry. Only even numbers are stored, so that a missing key has stored neighbours.
pub(crate) fn key(id: u64) -> Key {
    numbered(2 * id)
}

fn numbered(number: u64) -> Key {
    let text = format!("user:{number:012}");
    text.as_bytes().try_into().expect("17 bytes")
}

pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) metadata: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// An entry: 100 to 128 random bytes, and 32 bytes of metadata for every other key.
pub(crate) fn entry(id: u64) -> Entry {
    let mut rng = Rng::with_seed(id);
    let len = rng.usize(100..=128);
    let mut bytes = |len| iter::repeat_with(|| rng.u8(..)).take(len).collect();
    Entry {
        key: key(id),
        metadata: bytes(if id.is_multiple_of(2) { 32 } else { 0 }),
        value: bytes(len),
    }
}

/// All ids in a random order, the order in which every engine is loaded.
pub(crate) fn shuffled(seed: u64) -> Vec<u64> {
    sequences::shuffled(KEYS, seed)
}

/// Stored keys, each as likely as any other.
pub(crate) fn uniform() -> Vec<Key> {
    let ids = sequences::uniform(KEYS, ASKED, 1);
    ids.into_iter().map(key).collect()
}

/// Missing keys between stored ones.
pub(crate) fn missing() -> Vec<Key> {
    let ids = sequences::uniform(KEYS, ASKED, 2);
    ids.into_iter().map(|id| numbered(2 * id + 1)).collect()
}

/// Stored keys, few of them asked for most of the time.
pub(crate) fn zipf() -> Vec<Key> {
    let ids = sequences::zipf(KEYS, ASKED, 4);
    ids.into_iter().map(key).collect()
}
