//! Known policies in their simplest form, for the simulator: exact, and as slow as they like.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::workload::Request;

/// Reads a key and fetches it if it is missing; returns whether it was a hit.
pub trait Policy {
    fn read(&mut self, request: Request, weight: u64) -> bool;
}

/// What the ranked policies throw out first: the entry of the least rank.
pub enum Rank {
    /// The time of the last read.
    Lru,
    /// Age and frequency for each byte (GreedyDual-Size-Frequency).
    Gdsf,
    /// How far away the next read is: Belady's bound, exact if all weights are 1.
    Belady(VecDeque<u64>),
}

pub struct Ranked {
    rank: Rank,
    capacity: u64,
    weight: u64,
    time: u64,
    age: f64,
    held: HashMap<u64, Held>,
    order: BTreeSet<(u64, u64)>,
}

struct Held {
    rank: u64,
    weight: u64,
    reads: u64,
}

impl Ranked {
    pub fn new(rank: Rank, capacity: u64) -> Ranked {
        let (held, order) = (HashMap::new(), BTreeSet::new());
        Ranked {
            rank,
            capacity,
            weight: 0,
            time: 0,
            age: 0.0,
            held,
            order,
        }
    }

    pub fn belady(requests: &[Request], capacity: u64) -> Ranked {
        let mut last = HashMap::new();
        let mut next = VecDeque::new();
        for (at, request) in requests.iter().enumerate().rev() {
            next.push_front(last.insert(request.key, at as u64).unwrap_or(u64::MAX));
        }
        Ranked::new(Rank::Belady(next), capacity)
    }
}

impl Policy for Ranked {
    fn read(&mut self, request: Request, weight: u64) -> bool {
        self.time += 1;
        let old = self.held.remove(&request.key);
        let hit = old.is_some();
        let reads = 1 + old.as_ref().map_or(0, |held| held.reads);
        if let Some(old) = old {
            self.order.remove(&(old.rank, request.key));
            self.weight -= old.weight;
        }
        let rank = match &mut self.rank {
            Rank::Lru => self.time,
            // Positive floats are in the order of their bits.
            Rank::Gdsf => (self.age + reads as f64 / weight as f64).to_bits(),
            Rank::Belady(next) => u64::MAX - next.pop_front().expect("a request"),
        };
        self.held.insert(
            request.key,
            Held {
                rank,
                weight,
                reads,
            },
        );
        self.order.insert((rank, request.key));
        self.weight += weight;
        while self.weight > self.capacity {
            let (rank, key) = self.order.pop_first().expect("something is held");
            self.weight -= self.held.remove(&key).map_or(0, |held| held.weight);
            self.age = f64::from_bits(rank).max(self.age);
        }
        hit
    }
}

/// S3-FIFO as published: small (10 %), main, and ghosts of what left small.
pub struct S3Fifo {
    capacity: u64,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: VecDeque<u64>,
    remembered: HashMap<u64, u32>,
    held: HashMap<u64, (u64, u8, bool)>,
    small_weight: u64,
    weight: u64,
}

impl S3Fifo {
    pub fn new(capacity: u64) -> S3Fifo {
        S3Fifo {
            capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            remembered: HashMap::new(),
            held: HashMap::new(),
            small_weight: 0,
            weight: 0,
        }
    }

    fn evict(&mut self) {
        if self.small_weight * 10 >= self.capacity || self.main.is_empty() {
            let key = self.small.pop_front().expect("something is held");
            let (weight, reads, is_main) = self.held.get_mut(&key).expect("it is held");
            self.small_weight -= *weight;
            if *reads > 0 {
                (*reads, *is_main) = (0, true);
                return self.main.push_back(key);
            }
            self.weight -= *weight;
            self.held.remove(&key);
            self.ghosts.push_back(key);
            *self.remembered.entry(key).or_default() += 1;
            if self.ghosts.len() > self.held.len()
                && let Some(old) = self.ghosts.pop_front()
                && let Some(times) = self.remembered.get_mut(&old)
            {
                *times -= 1;
                if *times == 0 {
                    self.remembered.remove(&old);
                }
            }
            return;
        }
        let key = self.main.pop_front().expect("main is not empty");
        let (weight, reads, _) = self.held.get_mut(&key).expect("it is held");
        if *reads > 0 {
            *reads -= 1;
            return self.main.push_back(key);
        }
        self.weight -= *weight;
        self.held.remove(&key);
    }
}

impl Policy for S3Fifo {
    fn read(&mut self, request: Request, weight: u64) -> bool {
        if let Some((_, reads, _)) = self.held.get_mut(&request.key) {
            *reads = (*reads + 1).min(3);
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight + weight > self.capacity {
            self.evict();
        }
        let is_main = self.remembered.contains_key(&request.key);
        self.held.insert(request.key, (weight, 0, is_main));
        self.weight += weight;
        if is_main {
            self.main.push_back(request.key);
        } else {
            self.small.push_back(request.key);
            self.small_weight += weight;
        }
        false
    }
}

/// W-TinyLFU: an LRU window (1 %) in front of an LRU that admits by frequency, counted exactly and
/// halved every ten times as many requests as entries are held.
pub struct WTinyLfu {
    window: Ranked,
    main: Ranked,
    counts: HashMap<u64, u32>,
    requests: usize,
}

impl WTinyLfu {
    pub fn new(capacity: u64) -> WTinyLfu {
        let window = (capacity / 100).max(1);
        WTinyLfu {
            window: Ranked::new(Rank::Lru, u64::MAX),
            main: Ranked::new(Rank::Lru, capacity - window),
            counts: HashMap::new(),
            requests: 0,
        }
    }

    fn count(&self, key: u64) -> u32 {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// Moves what leaves the window into main if it is asked for more often than what main would throw
    /// out for it.
    fn admit(&mut self, window_max: u64) {
        while self.window.weight > window_max {
            let (_, key) = self
                .window
                .order
                .pop_first()
                .expect("the window holds something");
            let weight = self.window.held.remove(&key).map_or(0, |held| held.weight);
            self.window.weight -= weight;
            let mut room = self.main.capacity.saturating_sub(self.main.weight);
            let victims = self.main.order.iter().take_while(|(_, victim)| {
                let needed = room < weight;
                room += self.main.held.get(victim).map_or(0, |held| held.weight);
                needed
            });
            let rivals = victims.map(|(_, victim)| self.count(*victim)).sum::<u32>();
            if weight <= self.main.capacity && (rivals == 0 || self.count(key) > rivals) {
                self.main.read(
                    Request {
                        time: 0,
                        key,
                        size: 0,
                    },
                    weight,
                );
            }
        }
    }
}

impl Policy for WTinyLfu {
    fn read(&mut self, request: Request, weight: u64) -> bool {
        *self.counts.entry(request.key).or_default() += 1;
        self.requests += 1;
        if self.requests > 10 * (self.main.held.len() + 100) {
            self.requests = 0;
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
        if self.main.held.contains_key(&request.key) {
            return self.main.read(request, weight);
        }
        let hit = self.window.read(request, weight);
        self.admit((self.main.capacity / 99).max(1));
        hit
    }
}
