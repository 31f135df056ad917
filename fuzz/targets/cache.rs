//! Every history of a cache agrees with a map, and everything that should hold does after each step.

use std::collections::HashMap;
use std::time::Duration;

use rimstone::fuzzing::Input;
use rimstone_cache::{Cache, Clock, Entry, Lookup, MissCost, Ticket, Value};

/// Steps of one history at most.
const STEPS_MAX: usize = 200;
const STALE: u64 = 5;

/// What the cache may return for a key: this or nothing.
struct Known {
    value: Vec<u8>,
    fetched: u64,
    fresh_until: u64,
}

struct Session {
    cache: Cache,
    clock: Clock,
    budget: u64,
    known: HashMap<u8, Known>,
    /// Tickets, and whether what they bring may still be stored.
    tickets: Vec<(u8, u64, bool, Ticket)>,
}

/// The first bytes choose shards, budget and cost; each step takes the bytes it needs.
pub fn cache(data: &[u8]) {
    let mut input = Input(data);
    let clock = Clock::manual(100);
    let cost = [MissCost::local(), MissCost::remote(), MissCost::objects()];
    let budget = 500 + 100 * u64::from(input.u8());
    let builder = Cache::builder(budget).max_entry_weight(budget).jitter(0.0);
    let builder = builder
        .shards(1 << (input.u8() % 3))
        .miss_cost(cost[usize::from(input.u8() % 3)]);
    let builder = builder
        .stale_while_revalidate(Duration::from_secs(STALE))
        .refresh_ahead(0.3);
    let mut session = Session {
        cache: builder.clock(clock.clone()).build(),
        clock,
        budget,
        known: HashMap::new(),
        tickets: Vec::new(),
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        session.step(&mut input);
        session.cache.validate();
        assert!(session.cache.weight() <= session.budget);
    }
}

impl Session {
    fn step(&mut self, input: &mut Input<'_>) {
        let (step, key) = (input.u8() % 16, input.u8());
        let limit = Some(u64::from(input.u8() % 16)).filter(|limit| *limit < 12);
        let ttl = limit.map(Duration::from_secs);
        match step {
            0..4 => {
                if let Some(entry) = self.cache.get(&[key], ttl) {
                    self.check(key, &entry, limit, 0);
                }
            }
            4..6 => self.lookup(key, limit),
            6..10 => {
                let (bytes, value) = self.value(input, ttl);
                self.void(|of| of == key);
                self.known.remove(&key);
                if self.cache.insert(&[key], value) {
                    self.learn(key, bytes, self.clock.now(), limit);
                }
            }
            10..12 if !self.tickets.is_empty() => {
                let (bytes, value) = self.value(input, ttl);
                let (key, at, good, ticket) = self
                    .tickets
                    .swap_remove(usize::from(key) % self.tickets.len());
                let completed = ticket.complete(value);
                assert_eq!(completed.entry.value(), bytes);
                assert!(good || !completed.stored, "the key was written since");
                if good {
                    self.known.remove(&key);
                }
                if completed.stored {
                    self.learn(key, bytes, at, limit);
                }
            }
            10..12 => self.cache.maintain(usize::from(key)),
            12 => drop(self.tickets.pop()),
            13 if key < 250 => {
                self.cache.invalidate(&[key]);
                self.known.remove(&key);
                self.void(|of| of == key);
            }
            13 if key < 253 => {
                self.cache.clear();
                self.known.clear();
                self.void(|_| true);
            }
            13 => {
                self.cache.invalidate_namespace(0);
                self.known.clear();
                self.void(|_| true);
            }
            14 => self.clock.set(self.clock.now() + u64::from(key) % 16),
            _ => {
                self.budget = 100 * u64::from(key);
                self.cache.set_max_weight(self.budget);
            }
        }
    }

    fn lookup(&mut self, key: u8, limit: Option<u64>) {
        let (ttl, at) = (limit.map(Duration::from_secs), self.clock.now());
        let led = self.tickets.iter().any(|taken| taken.0 == key && taken.2);
        let ticket = match self.cache.lookup(&[key], ttl) {
            Lookup::Hit(entry) => return self.check(key, &entry, limit, 0),
            Lookup::Stale(entry, None) => return self.check(key, &entry, limit, STALE),
            Lookup::Wait(_) => return assert!(led, "nobody fetches"),
            Lookup::Lead(ticket) => ticket,
            Lookup::Refresh(entry, ticket) => {
                self.check(key, &entry, limit, 0);
                ticket
            }
            Lookup::Stale(entry, Some(ticket)) => {
                self.check(key, &entry, limit, STALE);
                ticket
            }
        };
        assert!(!led, "two fetch");
        self.tickets.push((key, at, true, ticket));
    }

    fn check(&self, key: u8, entry: &Entry, limit: Option<u64>, stale: u64) {
        let known = self.known.get(&key).expect("never removed");
        assert_eq!(entry.value(), known.value);
        let fresh_until = limit.map_or(known.fresh_until, |limit| known.fetched + limit);
        assert!(
            self.clock.now() < fresh_until.saturating_add(stale),
            "too old"
        );
    }

    fn value(&self, input: &mut Input<'_>, ttl: Option<Duration>) -> (Vec<u8>, Value<'static>) {
        let len = usize::from(input.u8()) * if input.u8() & 7 == 0 { 64 } else { 1 };
        let bytes = vec![input.u8(); len];
        let value = Value::from(bytes.clone());
        (bytes, ttl.into_iter().fold(value, Value::ttl))
    }

    fn learn(&mut self, key: u8, value: Vec<u8>, fetched: u64, limit: Option<u64>) {
        let fresh_until = limit.map_or(u64::MAX, |limit| fetched + limit);
        self.known.insert(
            key,
            Known {
                value,
                fetched,
                fresh_until,
            },
        );
    }

    fn void(&mut self, of: impl Fn(u8) -> bool) {
        let tickets = self.tickets.iter_mut().filter(|taken| of(taken.0));
        tickets.for_each(|taken| taken.2 = false);
    }
}
