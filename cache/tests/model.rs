//! Every history agrees with a map.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: an index out of range or a wrong byte fails them"
)]

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use rimstone_cache::{Cache, Clock, Entry, Lookup, Ticket, Value};

const BUDGET: u64 = 20_000;
const ENTRY_MAX: u64 = 5_000;
const STALE: u64 = 7;
const KEYS: u8 = 40;

#[derive(Clone, Debug)]
enum Step {
    Get { key: u8, cache_ttl: Option<u64> },
    Lookup { key: u8, cache_ttl: Option<u64> },
    Insert { key: u8, put: Put },
    Complete { put: Put },
    Drop,
    Invalidate { key: u8 },
    InvalidateVersion { key: u8, version: u64 },
    Forget { namespace: u32 },
    Clear,
    Advance { seconds: u64 },
    Maintain { limit: usize },
    Budget { part: u64 },
}

#[derive(Clone, Debug)]
struct Put {
    len: usize,
    absent: bool,
    ttl: Option<u64>,
    life: Option<u64>,
    version: u64,
}

fn put() -> impl Strategy<Value = Put> {
    let len = prop_oneof![8 => 0..300usize, 1 => 300..6_000usize];
    let (ttl, life) = (prop::option::of(0..40u64), prop::option::of(0..60u64));
    (
        len,
        prop::bool::weighted(0.1),
        ttl,
        life,
        prop_oneof![3 => Just(0), 1 => 1..20u64],
    )
        .prop_map(|(len, absent, ttl, life, version)| Put {
            len,
            absent,
            ttl,
            life,
            version,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let (key, ttl) = (0..KEYS, prop::option::of(0..30u64));
    prop_oneof![
        8 => (key.clone(), ttl.clone()).prop_map(|(key, cache_ttl)| Step::Get { key, cache_ttl }),
        8 => (key.clone(), ttl).prop_map(|(key, cache_ttl)| Step::Lookup { key, cache_ttl }),
        8 => (key.clone(), put()).prop_map(|(key, put)| Step::Insert { key, put }),
        6 => put().prop_map(|put| Step::Complete { put }),
        1 => Just(Step::Drop),
        2 => key.clone().prop_map(|key| Step::Invalidate { key }),
        1 => (key, 1..20u64).prop_map(|(key, version)| Step::InvalidateVersion { key, version }),
        1 => (0..2u32).prop_map(|namespace| Step::Forget { namespace }),
        1 => Just(Step::Clear),
        3 => (0..15u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => (0..50usize).prop_map(|limit| Step::Maintain { limit }),
        1 => (0..=4u64).prop_map(|part| Step::Budget { part }),
    ]
}

fn namespace(key: u8) -> u32 {
    u32::from(key % 2)
}

/// What the cache may return for a key: this or nothing.
#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    absent: bool,
    fetched: u64,
    fresh_until: u64,
    expiration: u64,
    version: u64,
}

struct Taken {
    key: u8,
    at: u64,
    /// Whether what it brings may be stored.
    good: bool,
    ticket: Ticket,
}

struct Session {
    cache: Cache,
    clock: Clock,
    known: HashMap<u8, Known>,
    floors: HashMap<u8, (u64, u64)>,
    tickets: Vec<Taken>,
    budget: u64,
}

impl Session {
    fn new() -> Session {
        let clock = Clock::manual(1_000);
        let builder = Cache::builder(BUDGET)
            .max_entry_weight(ENTRY_MAX)
            .shards(2)
            .jitter(0.0);
        let builder = builder.stale_while_revalidate(Duration::from_secs(STALE));
        let builder = builder
            .refresh_ahead(0.2)
            .fill_timeout(Duration::from_secs(30));
        Session {
            cache: builder.clock(clock.clone()).build(),
            clock,
            known: HashMap::new(),
            floors: HashMap::new(),
            tickets: Vec::new(),
            budget: BUDGET,
        }
    }

    /// Checks an entry that was served, `stale` seconds late at most.
    fn check(&self, key: u8, entry: &Entry, cache_ttl: Option<u64>, stale: u64) {
        let (now, known) = (
            self.clock.now(),
            self.known.get(&key).expect("never removed"),
        );
        assert_eq!(entry.key(), (namespace(key), &[key]).into());
        assert_eq!(
            (entry.value(), entry.is_absent()),
            (&known.value[..], known.absent)
        );
        assert_eq!(
            (entry.version(), entry.fetched_at()),
            (known.version, known.fetched)
        );
        assert!(now < known.expiration, "it expired");
        let fresh_until = cache_ttl.map_or(known.fresh_until, |ttl| known.fetched + ttl);
        assert!(
            now < fresh_until.saturating_add(stale),
            "it is too old for this reader"
        );
    }

    /// Applies a write at the source, of which tickets know nothing.
    fn void(&mut self, of: impl Fn(u8) -> bool) {
        let tickets = self.tickets.iter_mut().filter(|taken| of(taken.key));
        tickets.for_each(|taken| taken.good = false);
    }

    fn lookup(&mut self, key: u8, cache_ttl: Option<u64>) {
        let ttl = cache_ttl.map(Duration::from_secs);
        let at = self.clock.now();
        let led = self
            .tickets
            .iter()
            .any(|taken| taken.key == key && taken.good);
        let ticket = match self.cache.lookup((namespace(key), &[key]), ttl) {
            Lookup::Hit(entry) => return self.check(key, &entry, cache_ttl, 0),
            Lookup::Refresh(entry, ticket) => {
                self.check(key, &entry, cache_ttl, 0);
                ticket
            }
            Lookup::Stale(entry, ticket) => {
                self.check(key, &entry, cache_ttl, STALE);
                assert_eq!(ticket.is_some(), !led, "one at a time");
                let Some(ticket) = ticket else { return };
                ticket
            }
            Lookup::Lead(ticket) => ticket,
            Lookup::Wait(_) => return assert!(led, "nobody fetches"),
        };
        assert!(!led, "two fetch");
        self.tickets.push(Taken {
            key,
            at,
            good: true,
            ticket,
        });
    }

    fn value(&self, put: &Put) -> (Vec<u8>, Value<'static>) {
        let bytes: Vec<u8> = (0..put.len)
            .map(|at| at as u8 ^ put.version as u8)
            .collect();
        let bytes = if put.absent { Vec::new() } else { bytes };
        let mut value = if put.absent {
            Value::absent()
        } else {
            bytes.clone().into()
        };
        if let Some(ttl) = put.ttl {
            value = value.ttl(Duration::from_secs(ttl));
        }
        if let Some(life) = put.life {
            value = value.expiration(self.clock.now() + life);
        }
        (bytes, value.version(put.version))
    }

    /// What is known after a put that is current, and whether the cache may hold it.
    fn put(&mut self, key: u8, put: &Put, bytes: Vec<u8>, fetched: u64) -> bool {
        let now = self.clock.now();
        let floor = self.floors.get(&key).filter(|(_, until)| *until > now);
        if floor.is_some_and(|(version, _)| put.version < *version) {
            return false;
        }
        let ttl = put.ttl.or(put.absent.then_some(30));
        let known = Known {
            value: bytes,
            absent: put.absent,
            fetched,
            fresh_until: ttl.map_or(u64::MAX, |ttl| fetched + ttl),
            expiration: put.life.map_or(u64::MAX, |life| now + life),
            version: put.version,
        };
        self.known.insert(key, known);
        true
    }

    /// Whether a put is older than what the cache holds, which may be less than what is known.
    fn is_old(&self, key: u8, put: &Put) -> bool {
        put.version != 0
            && self
                .known
                .get(&key)
                .is_some_and(|known| known.version > put.version)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Get { key, cache_ttl } => {
                let ttl = cache_ttl.map(Duration::from_secs);
                if let Some(entry) = self.cache.get((namespace(key), &[key]), ttl) {
                    self.check(key, &entry, cache_ttl, 0);
                }
            }
            Step::Lookup { key, cache_ttl } => self.lookup(key, cache_ttl),
            Step::Insert { key, put } => {
                let (bytes, value) = self.value(&put);
                let stored = self.cache.insert((namespace(key), &[key]), value);
                self.void(|of| of == key);
                if !self.is_old(key, &put) || stored {
                    let allowed = self.put(key, &put, bytes, self.clock.now());
                    assert!(allowed || !stored, "below the floor");
                }
            }
            Step::Complete { put } if !self.tickets.is_empty() => {
                let (bytes, value) = self.value(&put);
                let Taken {
                    key,
                    at,
                    good,
                    ticket,
                } = self.tickets.remove(0);
                let completed = ticket.complete(value);
                assert_eq!(completed.entry.value(), bytes);
                assert!(good || !completed.stored, "the key was written since");
                if good && (!self.is_old(key, &put) || completed.stored) {
                    let allowed = self.put(key, &put, bytes, at);
                    let fits = u64::from(completed.entry.weight()) <= ENTRY_MAX;
                    assert!(completed.stored == (allowed && fits), "{allowed} {fits}");
                }
            }
            Step::Complete { .. } => {}
            Step::Drop => drop(self.tickets.pop()),
            Step::Invalidate { key } => {
                self.cache.invalidate((namespace(key), &[key]));
                self.known.remove(&key);
                self.void(|of| of == key);
            }
            Step::InvalidateVersion { key, version } => {
                self.cache
                    .invalidate_version((namespace(key), &[key]), version);
                if self
                    .known
                    .get(&key)
                    .is_some_and(|known| known.version < version)
                {
                    self.known.remove(&key);
                }
                let now = self.clock.now();
                let floor = self.floors.get(&key).filter(|(_, until)| *until > now);
                let version = version.max(floor.map_or(0, |(version, _)| *version));
                self.floors.insert(key, (version, now + 30));
                self.void(|of| of == key);
            }
            Step::Forget { namespace: of } => {
                self.cache.invalidate_namespace(of);
                self.known.retain(|key, _| namespace(*key) != of);
                self.void(|key| namespace(key) == of);
            }
            Step::Clear => {
                self.cache.clear();
                self.known.clear();
                self.void(|_| true);
            }
            Step::Advance { seconds } => self.clock.set(self.clock.now() + seconds),
            Step::Maintain { limit } => self.cache.maintain(limit),
            Step::Budget { part } => {
                self.budget = BUDGET * part / 4;
                self.cache.set_max_weight(self.budget);
            }
        }
        self.cache.validate();
        assert!(self.cache.weight() <= self.budget);
    }
}

proptest! {
    /// The cache may forget what it likes, but what it returns is the newest value, not expired and
    /// as young as asked for; a ticket is good if its key was left alone, and only then; the weight
    /// keeps its bound after every step.
    #[test]
    fn every_history_agrees_with_a_map(steps in prop::collection::vec(step(), 1..300)) {
        let mut session = Session::new();
        steps.into_iter().for_each(|step| session.step(step));
    }
}
