//! Whole stores under schedules of threads that `shuttle` makes up, their own threads included.
//!
//! Each access to a word or a lock that threads share is a place where another may go on. `RIMSTONE_SCHEDULES`
//! says how many schedules each test tries. A failure prints the schedule, and `shuttle::replay` repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests stop at the first surprise"
)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rimstone::sync::{alone, census};
use rimstone::{
    Clock, Durability, Error, ListOptions, Namespace, Options, PutOptions, ReadOptions, Store,
};
use rimstone_tests::{Call, DIR, Did, SimDisk, Version, is_linearizable, say};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

const KEYS: usize = 2;
/// Calls of each of the threads that read and write.
const CALLS: usize = 4;
/// Schedules with few changes have fewer than this.
const CHANGES: usize = 4;

/// One store of so many is opened again in the end, which takes longer than all the rest.
const REOPENED: usize = 16;

/// How many schedules each test tries.
fn schedules() -> usize {
    let asked = std::env::var("RIMSTONE_SCHEDULES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// Any thread may go on at each place.
fn explore_random(test: fn()) {
    explore(RandomScheduler::new(schedules()), schedules(), test);
}

/// The first thread that can go on does, in an order that changes a few times. That finds what needs a
/// thread to stand still for long.
fn explore_few_changes(test: fn()) {
    explore(PctScheduler::new(CHANGES, schedules()), schedules(), test);
}

fn explore(scheduler: impl Scheduler + 'static, schedules: usize, test: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.silence_warnings = true;
    let start = Instant::now();
    let run = Runner::new(scheduler, config).run(test);
    let each = start.elapsed() / u32::try_from(schedules).unwrap();
    say(&format!("{run} schedules, {each:?} each"));
    assert_eq!(run, schedules);
}

fn below(end: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..end)
}

/// What threads saw of a store's keys.
struct Seen {
    zero: Instant,
    time: AtomicU64,
    calls: Mutex<Vec<(usize, Call)>>,
}

impl Seen {
    fn new() -> Arc<Seen> {
        Arc::new(Seen {
            zero: Instant::now(),
            time: AtomicU64::new(0),
            calls: Mutex::default(),
        })
    }

    /// A time after all that were asked for before.
    fn now(&self) -> Instant {
        self.zero + Duration::from_nanos(self.time.fetch_add(1, SeqCst))
    }

    fn note(&self, key: usize, call: impl FnOnce() -> Did) {
        let (start, did, end) = (self.now(), call(), self.now());
        let call = Call { start, end, did };
        self.calls.lock().unwrap().push((key, call));
    }

    /// What a list showed of each key.
    fn note_page(&self, list: impl FnOnce() -> [Option<u64>; KEYS]) {
        let (start, marks, end) = (self.now(), list(), self.now());
        let listed = marks.map(Did::Listed).into_iter().enumerate();
        let call = |(key, did)| (key, Call { start, end, did });
        self.calls.lock().unwrap().extend(listed.map(call));
    }

    /// Each key must have been a register to those who wrote it and asked for it, and to those who wrote it
    /// and listed it: a write is seen by gets before it is listed.
    fn check(&self) {
        let is_get = |call: &Call| matches!(call.did, Did::Get(_));
        let is_list = |call: &Call| matches!(call.did, Did::Listed(_));
        let calls = self.calls.lock().unwrap();
        let without = |key: usize, left_out: &dyn Fn(&Call) -> bool| {
            let of_key = calls
                .iter()
                .filter(|(k, call)| *k == key && !left_out(call));
            of_key.map(|(_, call)| call.clone()).collect::<Vec<_>>()
        };
        for key in 0..KEYS {
            for calls in [without(key, &is_list), without(key, &is_get)] {
                assert!(is_linearizable(&calls), "key {key}: {calls:#?}");
            }
        }
    }
}

/// A store, and what is seen of it.
#[derive(Clone)]
struct User {
    store: Store,
    ns: Namespace,
    seen: Arc<Seen>,
}

fn name(key: usize) -> [u8; 1] {
    [key as u8]
}

fn version(value: &[u8], generation: u64) -> Version {
    let value = u64::from_le_bytes(value[..8].try_into().unwrap());
    Version { value, generation }
}

/// The metadata of a value is its mark, so some puts list like what they replace, and others do not.
fn marked(value: &[u8]) -> PutOptions {
    PutOptions::new().metadata([value[0] & 1])
}

impl User {
    fn get(&self, key: usize) -> Did {
        // One that asks for a copy in the hot cache: whether others make one follows from the time.
        let options = ReadOptions::new().cache_ttl(Duration::from_secs(60));
        let (ns, name) = (&self.ns, name(key));
        Did::Get(match below(3) {
            0 => ns
                .read_with(name, &options, |e| version(e.value(), e.generation()))
                .unwrap(),
            1 => {
                let found = ns.get_many(&[name]).unwrap().remove(0);
                found.map(|entry| version(entry.value(), entry.generation()))
            }
            _ => {
                let found = ns.get_with(name, &options).unwrap();
                found.map(|entry| version(entry.value(), entry.generation()))
            }
        })
    }

    /// Every value is another.
    fn value(&self) -> Vec<u8> {
        self.seen.time.fetch_add(1, SeqCst).to_le_bytes().to_vec()
    }

    fn put(&self, key: usize) -> Did {
        let value = self.value();
        let options = marked(&value);
        let generation = self.ns.put_with(name(key), &value, &options).unwrap();
        Did::Put(version(&value, generation))
    }

    fn put_if(&self, key: usize, before: Option<u64>) -> Did {
        let value = self.value();
        let options = match before {
            Some(generation) => marked(&value).if_generation(generation),
            None => marked(&value).if_absent(),
        };
        match self.ns.put_with(name(key), &value, &options) {
            Ok(generation) => Did::PutIf {
                before,
                put: version(&value, generation),
            },
            Err(Error::Conflict { found }) => Did::Refused { before, found },
            Err(error) => panic!("{error}"),
        }
    }

    fn delete(&self, key: usize) -> Did {
        Did::Delete(self.ns.delete(name(key)).unwrap())
    }

    fn list(&self) -> [Option<u64>; KEYS] {
        let page = self.ns.list(&ListOptions::new()).unwrap();
        let mut marks = [None; KEYS];
        for key in page.keys() {
            marks[usize::from(key.name[0])] = Some(u64::from(key.metadata[0]));
        }
        marks
    }

    /// Some calls, whatever comes.
    fn call(&self) {
        let mut known = [None; KEYS];
        for _ in 0..CALLS {
            let key = below(KEYS);
            match below(10) {
                0..4 => self.seen.note(key, || self.get(key)),
                4..6 => self.seen.note(key, || {
                    let put = self.put(key);
                    if let Did::Put(put) = &put {
                        known[key] = Some(put.generation);
                    }
                    put
                }),
                6..7 => self.seen.note(key, || self.put_if(key, known[key])),
                7..8 => self.seen.note(key, || self.delete(key)),
                _ => self.seen.note_page(|| self.list()),
            }
        }
    }

    /// What a store does beside. After two compactions with their checkpoints numbers of segments that went
    /// are given to others.
    fn maintain(&self) {
        match below(4) {
            0 => self.call(),
            1 => self.store.checkpoint().unwrap(),
            2 => assert!(self.store.compact().is_ok()),
            _ => {
                self.store.compact().unwrap();
                self.seen.note(0, || self.get(0));
                self.store.compact().unwrap();
            }
        }
        self.seen.note(0, || self.get(0));
    }
}

fn open(disk: &SimDisk, cache: u64) -> Store {
    let options = Options::new()
        .vfs(Arc::new(disk.clone()))
        .durability(Durability::Immediate)
        .clock(Clock::manual(1_000_000))
        .cache(cache);
    options.open(DIR).unwrap()
}

/// Two threads read and write two keys while a third does so, too, or compacts and makes checkpoints.
fn readers_writers_and_maintenance(cache: u64) {
    let disk = SimDisk::new();
    let store = alone(|| open(&disk, cache));
    let ns = store.namespace("n").unwrap();
    let seen = Seen::new();
    let user = User { store, ns, seen };
    // Something that is dead already, so that compaction has a reason.
    user.seen.note(0, || user.put(0));
    user.seen.note(0, || user.put(0));
    let mut threads = Vec::new();
    for _ in 0..2 {
        let user = user.clone();
        threads.push(thread::spawn(move || user.call()));
    }
    user.maintain();
    for thread in threads {
        thread.join().unwrap();
    }
    for key in 0..KEYS {
        user.seen.note(key, || user.get(key));
    }
    user.seen.note_page(|| user.list());
    let User { store, ns, seen } = user;
    drop(ns);
    if below(REOPENED) > 0 {
        return seen.check();
    }
    // What is replayed is what was seen.
    alone(|| {
        store.close().unwrap();
        let store = open(&disk, 0);
        let ns = store.namespace("n").unwrap();
        let user = User { store, ns, seen };
        for key in 0..KEYS {
            user.seen.note(key, || user.get(key));
        }
        user.seen.note_page(|| user.list());
        user.seen.check();
    });
}

#[test]
fn every_key_is_a_register_in_random_schedules() {
    explore_random(|| readers_writers_and_maintenance(0));
}

#[test]
fn every_key_is_a_register_in_random_schedules_with_a_hot_cache() {
    explore_random(|| readers_writers_and_maintenance(1 << 20));
}

#[test]
fn every_key_is_a_register_in_schedules_with_few_changes() {
    explore_few_changes(|| readers_writers_and_maintenance(0));
}

#[test]
fn every_key_is_a_register_in_schedules_with_few_changes_and_a_hot_cache() {
    explore_few_changes(|| readers_writers_and_maintenance(1 << 20));
}

/// The number of the last of some puts that was not refused. After one that was all are.
fn put_until_refused(ns: &Namespace, key: usize) -> Option<u64> {
    let mut newest = None;
    for _ in 0..CALLS {
        match ns.put(name(key), "v") {
            Ok(generation) => newest = Some(generation),
            Err(Error::NoSuchNamespace) => break,
            Err(error) => panic!("{error}"),
        }
    }
    newest
}

fn assert_holds_nothing(ns: &Namespace) {
    assert!(ns.list(&ListOptions::new()).unwrap().is_empty());
    for key in 0..KEYS {
        assert!(ns.get(name(key)).unwrap().is_none());
    }
}

/// Two threads put into a namespace while it is dropped, and made anew.
fn puts_race_a_drop() {
    let disk = SimDisk::new();
    let store = alone(|| open(&disk, 0));
    let [ns, other] = ["n", "other"].map(|name| store.namespace(name).unwrap());
    let mut threads = Vec::new();
    for key in 0..KEYS {
        let ns = ns.clone();
        threads.push(thread::spawn(move || put_until_refused(&ns, key)));
    }
    store.drop_namespace(ns.id()).unwrap();
    let after = other.put("key", "after the drop").unwrap();
    assert!(matches!(ns.get(name(0)), Err(Error::NoSuchNamespace)));
    let new = store.create_namespace("n").unwrap();
    for thread in threads {
        let newest = thread.join().unwrap();
        // Who reads the log up to the drop, as a reader and a backup may, has all that was acknowledged.
        assert!(newest.is_none_or(|newest| newest < after), "{newest:?}");
    }
    assert!(matches!(ns.put(name(0), "v"), Err(Error::NoSuchNamespace)));
    assert_holds_nothing(&new);
    drop((ns, other, new));
    if below(REOPENED) > 0 {
        return;
    }
    alone(|| {
        store.close().unwrap();
        let store = open(&disk, 0);
        assert_holds_nothing(&store.find_namespace("n").unwrap());
        let other = store.find_namespace("other").unwrap();
        assert!(other.get("key").unwrap().is_some());
    });
}

/// Rule 15: the drop is decided in the order of all writes, and so is each put. A put has to stand still from where it
/// begins until the drop and a write after it are done, which takes few changes.
#[test]
fn a_put_racing_a_drop_is_refused_or_dropped_with_it() {
    explore_few_changes(puts_race_a_drop);
}

/// Readers on many processors must not take turns at a line of memory.
#[test]
fn reads_write_no_word_that_threads_share() {
    explore(RandomScheduler::new(1), 1, || {
        let store = open(&SimDisk::new(), 0);
        let ns = store.namespace("n").unwrap();
        ns.put("key", "value").unwrap();
        store.checkpoint().unwrap();
        // The store's own threads come to rest.
        (0..1000).for_each(|_| thread::yield_now());
        let quiet = |name: &str, read: &dyn Fn()| {
            let census = census::take(read);
            assert!(census.loads > 0, "{name}: {census:?}");
            assert_eq!((census.stores, census.locks), (0, 0), "{name}: {census:?}");
        };
        quiet("read", &|| {
            let len = ns.read("key", |entry| entry.value().len()).unwrap();
            assert_eq!(len, Some(5));
        });
        quiet("get", &|| {
            assert_eq!(ns.get("key").unwrap().as_deref(), Some(&b"value"[..]));
        });
        quiet("get_many", &|| {
            assert_eq!(ns.get_many(&["key", "none"]).unwrap().len(), 2);
        });
        quiet("a miss", &|| assert!(ns.get("none").unwrap().is_none()));
        let put = census::take(|| assert!(ns.put("key", "other").unwrap() > 0));
        assert!(put.stores > 0 && put.locks > 0, "a put is seen: {put:?}");
    });
}
