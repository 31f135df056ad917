//! What is stored and what is asked for, the same for every engine and in every run.

use std::fmt::Write;

use fastrand::Rng;

use crate::sequences;

/// Seeds of the sequences, so that no two are the same.
const LOADED: u64 = 0;
const ASKED: u64 = 1;
const MISSED: u64 = 2;
const SKEWED: u64 = 3;
const OVERWRITTEN: u64 = 4;

/// Versions of entries that are neither loaded nor fresh.
const ROUND: u32 = 1 << 20;
const ANOTHER: u32 = 1 << 21;

/// One key in so many is overwritten by [`Data::freshen`].
const FRESH: u64 = 100;
/// Set in the id of a key that is never stored.
const MISSING: u64 = 1 << 63;
/// Entries of one [`batch`](Data::batches), at most, and their bytes, about.
const BATCH: usize = 10_000;
const BATCH_BYTES: usize = 16 << 20;

/// The sizes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Values {
    /// 8 to 24 bytes, so that very many keys fit into memory.
    Tiny,
    /// 100 bytes to 1 KiB.
    Small,
    /// 90 % up to 1 KiB, 9 % to 64 KiB, 0.9 % to 1 MiB, 0.1 % from 1 to 25 MiB.
    Mix,
    /// 1 MiB, every eighth 25 MiB.
    Large,
}

impl Values {
    fn len(self, rng: &mut Rng) -> usize {
        match self {
            Values::Tiny => rng.usize(8..=24),
            Values::Small => rng.usize(100..=1024),
            Values::Mix => match rng.u32(..1000) {
                0 => rng.usize(1 << 20..=25 << 20),
                1..10 => rng.usize(64 << 10..=1 << 20),
                10..100 => rng.usize(1 << 10..=64 << 10),
                _ => rng.usize(100..=1024),
            },
            Values::Large => [1 << 20, 25 << 20][usize::from(rng.u32(..8) == 0)],
        }
    }

    /// Bytes of a value, on average.
    pub fn mean(self) -> u64 {
        match self {
            Values::Tiny => 16,
            Values::Small => 562,
            Values::Mix => 22 << 10,
            Values::Large => 4 << 20,
        }
    }
}

/// A key of 25 to 48 bytes, without an allocation of its own: sequences of them are read in order.
#[derive(Clone, Copy)]
pub struct Key {
    len: u8,
    bytes: [u8; 48],
}

impl Key {
    /// It is before all others, and not empty: LMDB has no such keys.
    pub const LEAST: Key = Key {
        len: 1,
        bytes: [0; 48],
    };
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub metadata: Vec<u8>,
    pub value: Vec<u8>,
    /// When it expires, in seconds since the Unix epoch, in engines that know of that.
    pub expires: Option<u64>,
}

impl Entry {
    /// Bytes that the caller stores, the base of amplifications.
    pub fn logical_bytes(&self) -> u64 {
        (self.key.len() + self.metadata.len() + self.value.len()) as u64
    }
}

/// A set of entries: which keys there are and what they hold now.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    pub keys: u64,
    pub values: Values,
    /// How often the same hundredth of the keys was overwritten.
    pub fresh: u32,
}

impl Data {
    pub fn new(keys: u64, values: Values) -> Data {
        let fresh = 0;
        Data {
            keys,
            values,
            fresh,
        }
    }

    /// Bytes stored, about; caches are sized by it.
    pub fn bytes(&self) -> u64 {
        self.keys * (self.values.mean() + 37 + 36)
    }

    /// The key of an id: names of many kinds would share a prefix and differ somewhere in the
    /// middle, and the order of names is not that of ids.
    pub fn key(&self, id: u64) -> Key {
        let mixed = mix(id);
        let len = 25 + (mixed % 24) as usize;
        let mut text = String::with_capacity(64);
        let _ = write!(text, "object/{mixed:016x}/{:032x}", u128::from(id) << 64);
        let mut bytes = [0; 48];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Key {
            len: len as u8,
            bytes,
        }
    }

    /// What the key of this id holds now.
    pub fn entry(&self, id: u64) -> Entry {
        let version = if id.is_multiple_of(FRESH) {
            self.fresh
        } else {
            0
        };
        self.version(id, version)
    }

    fn version(&self, id: u64, version: u32) -> Entry {
        let mut rng = Rng::with_seed(mix(mix(id) ^ u64::from(version)));
        let metadata = if id.is_multiple_of(2) {
            rng.usize(16..=128)
        } else {
            0
        };
        let mut random = |len| {
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            bytes
        };
        let metadata = random(metadata);
        // The size belongs to the key, not to the version: space is compared with that after loading.
        let len = self.values.len(&mut Rng::with_seed(id));
        let value = random(len);
        let key = self.key(id).as_ref().to_vec();
        Entry {
            key,
            metadata,
            value,
            expires: None,
        }
    }

    /// Entries in the order in which every engine is loaded, a batch at a time.
    pub fn batches(&self) -> impl Iterator<Item = Vec<Entry>> + use<> {
        let data = *self;
        batches(sequences::shuffled(self.keys, LOADED), move |id| {
            data.entry(id)
        })
    }

    /// Every key once in another random order, with new bytes in each round.
    pub fn overwrites(&self, round: u32) -> impl Iterator<Item = Vec<Entry>> + use<> {
        let data = *self;
        let ids = match round {
            // The first round reaches every key, the others are random.
            0 => sequences::shuffled(self.keys, OVERWRITTEN),
            _ => sequences::uniform(
                self.keys,
                self.keys as usize,
                OVERWRITTEN + u64::from(round),
            ),
        };
        batches(ids, move |id| data.version(id, ROUND + round))
    }

    /// Overwrites a hundredth of the keys; the entries to put.
    pub fn freshen(&mut self) -> impl Iterator<Item = Vec<Entry>> + use<> {
        self.fresh += 1;
        self.freshest()
    }

    /// The hundredth of the keys that was overwritten last.
    pub fn freshest(&self) -> impl Iterator<Item = Vec<Entry>> + use<> {
        let data = *self;
        let ids = (0..self.keys).step_by(FRESH as usize).collect();
        batches(ids, move |id| data.entry(id))
    }

    /// New bytes for a key at random, other ones for each `n`: some engines write nothing if the
    /// bytes are those that they hold.
    pub fn another(&self, n: u64) -> Entry {
        let id = mix(n) % self.keys;
        self.version(id, ANOTHER + n as u32)
    }

    /// Bytes that the caller stores.
    pub fn logical_bytes(&self) -> u64 {
        let entries = (0..self.keys).map(|id| self.entry(id));
        entries.map(|entry| entry.logical_bytes()).sum()
    }

    /// Stored keys, each as likely as any other.
    pub fn uniform(&self, count: usize) -> Vec<Key> {
        self.keys_of(sequences::uniform(self.keys, count, ASKED))
    }

    /// Stored keys, few of them asked for most of the time.
    pub fn zipf(&self, count: usize) -> Vec<Key> {
        self.keys_of(sequences::zipf(self.keys, count, SKEWED))
    }

    /// Keys that are not stored, anywhere between stored ones.
    pub fn missing(&self, count: usize) -> Vec<Key> {
        let ids = sequences::uniform(self.keys, count, MISSED);
        self.keys_of(ids.into_iter().map(|id| id | MISSING).collect())
    }

    fn keys_of(&self, ids: Vec<u64>) -> Vec<Key> {
        ids.into_iter().map(|id| self.key(id)).collect()
    }
}

fn batches(ids: Vec<u64>, entry: impl Fn(u64) -> Entry) -> impl Iterator<Item = Vec<Entry>> {
    let mut ids = ids.into_iter().peekable();
    std::iter::from_fn(move || {
        ids.peek()?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(id) = ids.next() else { break };
            let entry = entry(id);
            bytes += entry.logical_bytes() as usize;
            batch.push(entry);
        }
        Some(batch)
    })
}

/// A bijection (the finaliser of SplitMix64), so that keys of different ids differ.
fn mix(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_differ_and_have_the_promised_sizes() {
        let data = Data::new(10_000, Values::Small);
        let stored = (0..data.keys).map(|id| data.key(id).as_ref().to_vec());
        let missing = (0..data.keys).map(|id| data.key(id | MISSING).as_ref().to_vec());
        let keys: HashSet<_> = stored.chain(missing).collect();
        assert_eq!(keys.len(), 20_000);
        assert!(keys.iter().all(|key| (25..=48).contains(&key.len())));
    }

    #[test]
    fn batches_hold_every_key_once() {
        let data = Data::new(25_000, Values::Tiny);
        for batches in [
            data.batches().collect::<Vec<_>>(),
            data.overwrites(0).collect(),
        ] {
            let keys: HashSet<_> = batches.iter().flatten().map(|e| &e.key).collect();
            assert_eq!(keys.len(), 25_000);
            assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 25_000);
        }
    }

    #[test]
    fn freshening_changes_a_hundredth() {
        let mut data = Data::new(1000, Values::Small);
        let before: Vec<_> = (0..data.keys).map(|id| data.entry(id)).collect();
        let put: Vec<_> = data.freshen().flatten().collect();
        let changed: Vec<_> = (0..data.keys)
            .map(|id| data.entry(id))
            .filter(|entry| !before.contains(entry))
            .collect();
        assert_eq!(changed.len(), 10);
        assert_eq!(changed, put);
    }

    #[test]
    fn sizes_of_the_mix_are_as_described() {
        let mut rng = Rng::with_seed(7);
        let lens: Vec<usize> = (0..100_000).map(|_| Values::Mix.len(&mut rng)).collect();
        let share = |from, to| {
            lens.iter()
                .filter(|&&len| (from..to).contains(&len))
                .count()
        };
        assert!((89_000..91_000).contains(&share(0, 1025)));
        assert!((8_500..9_500).contains(&share(1025, 64 << 10)));
        assert!((800..1000).contains(&share(64 << 10, 1 << 20)));
        assert!((60..140).contains(&share(1 << 20, (25 << 20) + 1)));
        let mean = lens.iter().sum::<usize>() as f64 / lens.len() as f64;
        let said = Values::Mix.mean() as f64;
        assert!((0.8..1.25).contains(&(mean / said)), "{mean} {said}");
    }

    #[test]
    fn zipf_asks_in_proportion_to_the_rank() {
        let ids = sequences::zipf(1000, 200_000, 9);
        let mut counts = vec![0u32; 1000];
        for id in ids {
            counts[id as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1, 2, 4, 10, 30] {
            let expected = 200_000.0 * f64::from(rank).powf(-0.99) / sum;
            let got = f64::from(counts[rank as usize - 1]);
            assert!(
                (got / expected - 1.0).abs() < 0.1,
                "{rank}: {got} {expected}"
            );
        }
    }
}
