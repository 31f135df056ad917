//! What is written and read, and whether the answers are right.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rimstone::{Clock, ListOptions, Namespace, PutOptions, Store, WriteBatch};

use crate::Result;

/// Keys that last for ever, overwritten at random.
const LASTING: usize = 500_000;
/// Bytes of a value, on average 400; now and then one that has a file of its own.
const VALUE: std::ops::Range<usize> = 100..700;
const LARGE: usize = 200 << 10;
/// Puts to one that is large.
const LARGE_IN: u32 = 2000;
/// How many keys that expire are watched, the newest ones.
const WATCHED: usize = 1000;
/// Entries of a batch that fills the store.
const BATCH: usize = 500;
/// Gets to a page of names.
const LIST_IN: u32 = 500;

pub(crate) struct Load {
    store: Store,
    ns: Namespace,
    clock: Clock,
    /// The version of each lasting key that was acknowledged last.
    versions: Vec<AtomicU32>,
    /// Keys that expire, with the time when they do; the next of them.
    mortal: Mutex<VecDeque<(u64, u64)>>,
    next: AtomicU64,
    operations: AtomicU64,
    /// The longest put and the longest get since somebody asked, in nanoseconds.
    put_max: AtomicU64,
    get_max: AtomicU64,
}

impl Load {
    /// Puts every lasting key once.
    pub(crate) fn fill(store: &Store) -> Result<Load> {
        let ns = store.namespace("churn")?;
        let load = Load {
            store: store.clone(),
            ns,
            clock: store.clock().clone(),
            versions: (0..LASTING).map(|_| AtomicU32::new(0)).collect(),
            mortal: Mutex::new(VecDeque::new()),
            next: AtomicU64::new(1 << 40),
            operations: AtomicU64::new(0),
            put_max: AtomicU64::new(0),
            get_max: AtomicU64::new(0),
        };
        let ids: Vec<u64> = (0..LASTING as u64).collect();
        for ids in ids.chunks(BATCH) {
            let mut batch = WriteBatch::new();
            for &id in ids {
                batch.put(&load.ns, key(id), value(id, 0, 400));
            }
            load.store.write(batch)?;
        }
        Ok(load)
    }

    /// Puts and deletes so often: half of it overwrites, the rest comes and goes.
    pub(crate) fn write(&self, random: &mut Rng, count: u64) -> Result<()> {
        for _ in 0..count {
            let start = Instant::now();
            match random.u32(..10) {
                0..5 => self.overwrite(random)?,
                5..9 => self.put_mortal(random)?,
                _ => self.delete_mortal(random)?,
            }
            longest(&self.put_max, start);
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn overwrite(&self, random: &mut Rng) -> Result<()> {
        let id = random.usize(..LASTING);
        let version = self.versions[id].load(Ordering::Relaxed) + 1;
        let large = random.u32(..LARGE_IN) == 0;
        let len = if large { LARGE } else { random.usize(VALUE) };
        self.ns
            .put(key(id as u64), value(id as u64, version, len))?;
        self.versions[id].store(version, Ordering::Release);
        Ok(())
    }

    /// Lives are spread evenly over their orders of magnitude, from a minute to six hours.
    fn put_mortal(&self, random: &mut Rng) -> Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let life = Duration::from_secs_f64(60.0 * 360f64.powf(random.f64()));
        let expires = self.clock.now() + life.as_secs();
        let options = PutOptions::new().expiration(expires).metadata([3; 20]);
        let len = random.usize(VALUE);
        self.ns.put_with(key(id), value(id, 0, len), &options)?;
        let mut mortal = self.mortal.lock().map_err(|_| "poisoned")?;
        mortal.push_back((id, expires));
        if mortal.len() > WATCHED {
            mortal.pop_front();
        }
        Ok(())
    }

    fn delete_mortal(&self, random: &mut Rng) -> Result<()> {
        // Under the lock, so that no reader looks for the key meanwhile.
        let mut mortal = self.mortal.lock().map_err(|_| "poisoned")?;
        if mortal.is_empty() {
            return Ok(());
        }
        let at = random.usize(..mortal.len());
        if let Some((id, _)) = mortal.remove(at) {
            self.ns.delete(key(id))?;
            assert!(self.ns.get(key(id))?.is_none(), "{id} was deleted");
        }
        Ok(())
    }

    /// Gets so often, with a page of names now and then, and checks all that it reads.
    pub(crate) fn read(&self, random: &mut Rng, count: u64) -> Result<()> {
        for _ in 0..count {
            let start = Instant::now();
            match random.u32(..LIST_IN) {
                0 => self.list(random)?,
                1..100 => self.get_mortal(random)?,
                _ => self.get(random)?,
            }
            longest(&self.get_max, start);
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What is read is at least as new as what was acknowledged before.
    fn get(&self, random: &mut Rng) -> Result<()> {
        let id = random.usize(..LASTING);
        let least = self.versions[id].load(Ordering::Acquire);
        let found = self.ns.get(key(id as u64))?;
        let version = found.and_then(|value| version_of(id as u64, &value));
        assert!(version >= Some(least), "{id}: {version:?} before {least}");
        Ok(())
    }

    fn get_mortal(&self, random: &mut Rng) -> Result<()> {
        let mortal = self.mortal.lock().map_err(|_| "poisoned")?;
        if mortal.is_empty() {
            return Ok(());
        }
        let (id, expires) = mortal[random.usize(..mortal.len())];
        let before = self.clock.now();
        let found = self.ns.get(key(id))?;
        match found {
            Some(value) => {
                assert_eq!(version_of(id, &value), Some(0), "{id}");
                assert!(before < expires, "{id} outlived itself");
            }
            None => assert!(self.clock.now() >= expires, "{id} died early"),
        }
        Ok(())
    }

    fn list(&self, random: &mut Rng) -> Result<()> {
        let start = key(random.u64(..LASTING as u64));
        let page = self.ns.list(&ListOptions::new().start(&start).limit(100))?;
        let names: Vec<&[u8]> = page.keys().map(|key| key.name).collect();
        assert!(names.is_sorted(), "names in order");
        assert_eq!(names.first(), Some(&start.as_bytes()), "a lasting key");
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// The longest put and the longest get or page since the last call.
    pub(crate) fn longest(&self) -> (Duration, Duration) {
        let take = |max: &AtomicU64| Duration::from_nanos(max.swap(0, Ordering::Relaxed));
        (take(&self.put_max), take(&self.get_max))
    }
}

fn longest(max: &AtomicU64, start: Instant) {
    let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    max.fetch_max(took, Ordering::Relaxed);
}

fn key(id: u64) -> String {
    format!("user:{id:016}")
}

/// A value that tells whose it is, and in all its bytes which version.
fn value(id: u64, version: u32, len: usize) -> Vec<u8> {
    let head = [&id.to_le_bytes()[..], &version.to_le_bytes()].concat();
    let mut value = vec![head.iter().fold(0, |a, b| a ^ b); len];
    value[..head.len()].copy_from_slice(&head);
    value
}

/// The version in a value, if it is one of this key.
fn version_of(id: u64, found: &[u8]) -> Option<u32> {
    let version = found.get(8..12)?.try_into().map(u32::from_le_bytes).ok()?;
    (found == value(id, version, found.len())).then_some(version)
}
