//! What users do to a store, for longer than it takes to forget how it began.

use super::{FOREVER, Random, Store};

/// What is written and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Every key as often as any other, for ever.
    Overwrite,
    /// Four of five writes go to one key of five, for ever.
    Skewed,
    /// New keys, each deleted when another has come in its place.
    Delete,
    /// Lives from a minute to 35 days, one key in five for ever and overwritten as in `Skewed`, one in
    /// five of the others deleted early.
    Mixed,
    /// New keys that live for ten minutes to an hour.
    Expire,
}

/// How long the keys of [`Load::Mixed`] live, in seconds, each as often as any other.
const LIVES: [u64; 10] = [
    60, 300, 1_800, 3_600, 10_800, 43_200, 86_400, 259_200, 864_000, 3_024_000,
];

/// Does the `at`th of many writes to `keys` keys with values of so many bytes.
pub fn write(load: Load, store: &mut Store, random: &mut Random, keys: u32, at: u64, len: u64) {
    let count = u64::from(keys);
    let any = |random: &mut Random, below: u64| u32::try_from(random.below(below)).unwrap_or(0);
    let skewed = |random: &mut Random, below: u64| match random.below(5) {
        0 => any(random, below),
        _ => any(random, (below / 5).max(1)),
    };
    let new = u32::try_from(at).unwrap_or(u32::MAX).wrapping_add(keys);
    match load {
        Load::Overwrite => store.put(any(random, count), at, len, FOREVER),
        Load::Skewed => store.put(skewed(random, count), at, len, FOREVER),
        Load::Delete => {
            store.put(new, at, len, FOREVER);
            if at > count {
                // Not in the order of writing: half are deleted long before the others.
                let age = if random.below(2) == 0 {
                    count / 8
                } else {
                    count
                };
                store.delete(new.wrapping_sub(u32::try_from(age).unwrap_or(0)));
            }
        }
        Load::Mixed if random.below(5) == 0 => {
            store.put(skewed(random, count / 5), at, len, FOREVER);
        }
        Load::Mixed => {
            let life = LIVES[usize::try_from(random.below(10)).unwrap_or(0)];
            store.put(new, at, len, store.now + life);
            if random.below(5) == 0 {
                store.delete(new.wrapping_sub(any(random, 2_000)));
            }
        }
        Load::Expire => {
            let life = 600 + random.below(3_000);
            store.put(new, at, len, store.now + life);
        }
    }
}
