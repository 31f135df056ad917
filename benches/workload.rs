//! What is stored and what is asked for, the same for every engine and in every run.

use std::iter;

use fastrand::Rng;

/// Keys in each engine.
pub(crate) const KEYS: u64 = 1_000_000;
/// Keys in a sequence of gets; the benches go round.
const ASKED: usize = 1 << 20;
/// The skew of the zipf sequence.
const ZIPF: f64 = 0.99;

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
    let mut ids: Vec<u64> = (0..KEYS).collect();
    Rng::with_seed(seed).shuffle(&mut ids);
    ids
}

/// Stored keys, each as likely as any other.
pub(crate) fn uniform() -> Vec<Key> {
    let mut rng = Rng::with_seed(1);
    iter::repeat_with(|| key(rng.u64(..KEYS)))
        .take(ASKED)
        .collect()
}

/// Missing keys between stored ones.
pub(crate) fn missing() -> Vec<Key> {
    let mut rng = Rng::with_seed(2);
    iter::repeat_with(|| numbered(2 * rng.u64(..KEYS) + 1))
        .take(ASKED)
        .collect()
}

/// Stored keys, the one of rank `r` with a probability in proportion to `1 / r^0.99`. Ranks are
/// spread over the keys at random, not in the order of loading: hot keys are not neighbours.
pub(crate) fn zipf() -> Vec<Key> {
    let mut sum = 0.0;
    let weights = (1..=KEYS).map(|rank| (rank as f64).powf(-ZIPF));
    let cumulative: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let (ids, mut rng) = (shuffled(3), Rng::with_seed(4));
    let mut rank = || {
        let point = rng.f64() * sum;
        cumulative.partition_point(|&below| below <= point)
    };
    iter::repeat_with(|| key(ids[rank().min(ids.len() - 1)]))
        .take(ASKED)
        .collect()
}
