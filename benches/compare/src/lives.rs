//! Histories of keys that are overwritten, deleted and expire, and what must be left of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use fastrand::Rng;

use crate::data::{Data, Entry, Values};
use crate::sequences;

/// When time begins, in seconds since the Unix epoch.
pub const START: u64 = 1_700_000_000;
/// Bytes of a key, on average.
const KEY: u64 = 36;
/// Where the ids of keys that expire begin.
const MORTAL: u64 = 1 << 40;
/// Of how many keys that expire one is deleted early, at most; and how many that are gone are looked for.
const WATCHED: usize = 100_000;
const GONE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Values of 400 bytes, overwritten at random.
    Uniform,
    /// Every key is overwritten five times.
    Five,
    /// Values of 64 to 191 bytes. One write in five overwrites a key that lasts, 80/20, one deletes a key
    /// early, the others are new keys with lives from a minute to 35 days.
    Mixed,
    /// The same with values of up to 300 KB.
    Sizes,
}

impl Workload {
    /// All of them with their names.
    pub const ALL: [(&str, Workload); 4] = [
        ("uniform", Workload::Uniform),
        ("five times", Workload::Five),
        ("mixed lives", Workload::Mixed),
        ("mixed sizes", Workload::Sizes),
    ];

    /// How much space an engine that can be told may take, in percent of what is live.
    pub fn percent(self) -> u64 {
        match self {
            Workload::Uniform => 150,
            Workload::Five => 130,
            Workload::Mixed | Workload::Sizes => 135,
        }
    }

    fn expires(self) -> bool {
        matches!(self, Workload::Mixed | Workload::Sizes)
    }

    fn len(self, random: &mut Rng) -> usize {
        match self {
            Workload::Uniform | Workload::Five => 400,
            Workload::Mixed => random.usize(64..192),
            Workload::Sizes => match random.u32(..100) {
                0..70 => random.usize(64..1024),
                70..95 => random.usize(1024..32_768),
                _ => random.usize(70_000..300_000),
            },
        }
    }
}

/// What a key holds.
struct Held {
    version: u32,
    len: usize,
    expires: Option<u64>,
}

/// What one commit changes: first the puts, then the deletes.
#[derive(Default)]
pub struct Commit {
    pub puts: Vec<Entry>,
    pub deleted: Vec<Vec<u8>>,
    /// Keys that expired meanwhile: to delete, where an engine does not see to it.
    pub expired: Vec<Vec<u8>>,
}

/// A history as it goes on.
pub struct Lives {
    workload: Workload,
    random: Rng,
    names: Data,
    /// How many keys last for ever, and those of them whose turn it is.
    lasting: u64,
    order: Vec<u64>,
    /// Milliseconds since time began, and between two writes.
    millis: u64,
    every: u64,
    held: HashMap<u64, Held>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    mortal: Vec<u64>,
    next: u64,
    gone: VecDeque<u64>,
    /// Bytes of keys and values that a get would find.
    live: u64,
    /// Bytes of keys and values put.
    pub put: u64,
}

impl Lives {
    /// A history in which about so many bytes are live.
    pub fn new(workload: Workload, live: u64) -> Lives {
        let mut random = Rng::with_seed(1);
        let lens = (0..1000).map(|_| workload.len(&mut random) as u64);
        let mean = lens.sum::<u64>() / 1000 + KEY;
        // Time runs so fast that a quarter of what is live is of keys that expire, which live three days
        // on average, and that all lives of 35 days end while an engine is filled.
        let share = if workload.expires() { 0.77 } else { 1.0 };
        let lasting = ((live as f64 * share) as u64 / mean).max(10);
        Lives {
            workload,
            random,
            names: Data::new(0, Values::Small),
            lasting,
            order: sequences::shuffled(lasting, 20),
            millis: 0,
            every: if workload.expires() {
                (9 * 86_400 * 1000 / (2 * lasting)).max(1)
            } else {
                0
            },
            held: HashMap::new(),
            due: BinaryHeap::new(),
            mortal: Vec::new(),
            next: MORTAL,
            gone: VecDeque::new(),
            live: 0,
            put: 0,
        }
    }

    /// Writes that fill an engine, and those that are measured then.
    pub fn writes(&self) -> (u64, u64) {
        match self.workload {
            Workload::Uniform => (3 * self.lasting, 2 * self.lasting),
            Workload::Five => (self.lasting, 5 * self.lasting),
            Workload::Mixed | Workload::Sizes => (7 * self.lasting, 4 * self.lasting),
        }
    }

    /// Seconds since the epoch.
    pub fn now(&self) -> u64 {
        START + self.millis / 1000
    }

    pub fn live(&self) -> u64 {
        self.live
    }

    /// The next writes.
    pub fn commit(&mut self, writes: u64) -> Commit {
        let mut commit = Commit::default();
        for _ in 0..writes {
            self.millis += self.every;
            match self.random.u32(..5) {
                // Every key that lasts is put once before anything else happens.
                _ if !self.workload.expires() || !self.order.is_empty() => {
                    let id = self.turn();
                    commit.puts.push(self.put(id, None));
                }
                0 => {
                    let hot = self.random.u32(..100) < 80;
                    let id = self
                        .random
                        .u64(..if hot { self.lasting / 5 } else { self.lasting });
                    commit.puts.push(self.put(id, None));
                }
                1 => commit.deleted.extend(self.delete()),
                _ => commit.puts.push(self.put_mortal()),
            }
        }
        commit.expired = self.expire();
        commit
    }

    /// Each key once, then again in another order or at random.
    fn turn(&mut self) -> u64 {
        if let Some(id) = self.order.pop() {
            return id;
        }
        if self.workload == Workload::Five {
            self.order = sequences::shuffled(self.lasting, 21);
            return self.turn();
        }
        self.random.u64(..self.lasting)
    }

    fn put(&mut self, id: u64, expires: Option<u64>) -> Entry {
        let len = self.workload.len(&mut self.random);
        let version = self.held.get(&id).map_or(0, |held| held.version + 1);
        self.forget(id);
        let held = Held {
            version,
            len,
            expires,
        };
        let entry = self.entry(id, &held);
        self.live += entry.logical_bytes();
        self.put += entry.logical_bytes();
        self.held.insert(id, held);
        entry
    }

    /// Lives are spread evenly over their orders of magnitude.
    fn put_mortal(&mut self) -> Entry {
        self.next += 1;
        let life = (60.0 * 50_400f64.powf(self.random.f64())) as u64;
        let expires = self.now() + life;
        self.due.push(Reverse((expires, self.next)));
        self.mortal.push(self.next);
        if self.mortal.len() > WATCHED {
            let at = self.random.usize(..self.mortal.len());
            self.mortal.swap_remove(at);
        }
        self.put(self.next, Some(expires))
    }

    fn delete(&mut self) -> Option<Vec<u8>> {
        if self.mortal.is_empty() {
            return None;
        }
        let at = self.random.usize(..self.mortal.len());
        let id = self.mortal.swap_remove(at);
        // It may have expired.
        self.end(id)
    }

    fn expire(&mut self) -> Vec<Vec<u8>> {
        let mut expired = Vec::new();
        while let Some(&Reverse((expires, id))) = self.due.peek()
            && expires <= self.now()
        {
            self.due.pop();
            expired.extend(self.end(id));
        }
        expired
    }

    /// The key, if there was one.
    fn end(&mut self, id: u64) -> Option<Vec<u8>> {
        self.forget(id).then(|| {
            self.gone.push_back(id);
            if self.gone.len() > GONE {
                self.gone.pop_front();
            }
            self.names.key(id).as_ref().to_vec()
        })
    }

    fn forget(&mut self, id: u64) -> bool {
        let held = self.held.remove(&id);
        let len = |held: &Held| held.len + self.names.key(id).as_ref().len();
        self.live -= held.as_ref().map_or(0, len) as u64;
        held.is_some()
    }

    fn entry(&self, id: u64, held: &Held) -> Entry {
        let mut value = vec![0; held.len];
        Rng::with_seed(id ^ u64::from(held.version) << 44).fill(&mut value);
        Entry {
            key: self.names.key(id).as_ref().to_vec(),
            metadata: Vec::new(),
            value,
            expires: held.expires,
        }
    }

    /// Some entries that must be found.
    pub fn sample(&self, count: usize) -> Vec<Entry> {
        let step = (self.held.len() / count).max(1);
        let held = self.held.iter().step_by(step);
        held.map(|(id, held)| self.entry(*id, held)).collect()
    }

    /// Keys that were deleted or expired last.
    pub fn gone(&self) -> impl Iterator<Item = Vec<u8>> {
        let key = |id: &u64| self.names.key(*id).as_ref().to_vec();
        self.gone.iter().map(key)
    }

    /// Keys that never expire, at random.
    pub fn lasting(&self, count: usize) -> Vec<crate::data::Key> {
        let ids = sequences::uniform(self.lasting, count, 22).into_iter();
        let held = ids.filter(|id| self.held.contains_key(id));
        held.map(|id| self.names.key(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history replayed into a map as an engine without expirations would do it.
    fn replayed(workload: Workload) -> (Lives, HashMap<Vec<u8>, Vec<u8>>) {
        let (mut lives, mut map) = (Lives::new(workload, 1 << 20), HashMap::new());
        let (fill, rest) = lives.writes();
        for _ in 0..(fill + rest).div_ceil(100) {
            let commit = lives.commit(100);
            map.extend(commit.puts.into_iter().map(|e| (e.key, e.value)));
            for key in commit.deleted.iter().chain(&commit.expired) {
                assert!(map.remove(key).is_some(), "{workload:?}: it was stored");
            }
        }
        (lives, map)
    }

    #[test]
    fn what_is_left_is_what_was_put_and_did_not_end() {
        for (name, workload) in Workload::ALL {
            let (lives, map) = replayed(workload);
            let live: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert_eq!(lives.live(), live as u64, "{name}");
            for entry in lives.sample(usize::MAX) {
                assert_eq!(map.get(&entry.key), Some(&entry.value), "{name}");
            }
            assert!(!lives.gone().any(|key| map.contains_key(&key)), "{name}");
            assert_eq!(lives.gone().count() > 0, workload.expires(), "{name}");
        }
    }

    #[test]
    fn about_as_much_is_live_as_was_asked_for() {
        for (name, workload) in Workload::ALL {
            let live = replayed(workload).0.live() as f64 / f64::from(1 << 20);
            assert!((0.7..1.4).contains(&live), "{name}: {live}");
        }
    }
}
