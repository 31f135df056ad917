//! Seeded sequences of ids: the order in which entries are loaded, and that in which they are asked
//! for. The same in every run and for every engine.

use std::iter;

use fastrand::Rng;

/// The skew of [`zipf`].
const SKEW: f64 = 0.99;

/// All ids below `keys`, in a random order.
pub(crate) fn shuffled(keys: u64, seed: u64) -> Vec<u64> {
    let mut ids: Vec<u64> = (0..keys).collect();
    Rng::with_seed(seed).shuffle(&mut ids);
    ids
}

/// Ids below `keys`, each as likely as any other.
pub(crate) fn uniform(keys: u64, count: usize, seed: u64) -> Vec<u64> {
    let mut rng = Rng::with_seed(seed);
    iter::repeat_with(|| rng.u64(..keys)).take(count).collect()
}

/// Ids below `keys`, the one of rank `r` with a probability in proportion to `1 / r^0.99`. Ranks are
/// spread over the ids at random: hot ids are neighbours neither in name nor in loading order.
pub(crate) fn zipf(keys: u64, count: usize, seed: u64) -> Vec<u64> {
    let mut sum = 0.0;
    let weights = (1..=keys).map(|rank| (rank as f64).powf(-SKEW));
    let cumulative: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let (ids, mut rng) = (shuffled(keys, !seed), Rng::with_seed(seed));
    let mut rank = || {
        let point = rng.f64() * sum;
        cumulative.partition_point(|&below| below <= point)
    };
    iter::repeat_with(|| ids[rank().min(ids.len() - 1)])
        .take(count)
        .collect()
}
