//! Every history agrees with an ordered map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rimstone::fuzzing::Input;
use rimstone::{
    Clock, Durability, Error, ListOptions, Namespace, Options, PutOptions, ReadOptions, Store, Vfs,
    WriteBatch,
};
use rimstone_tests::{Cut, DIR, SimDisk};

use crate::history::Entry;

/// Steps of one history at most.
const STEPS_MAX: usize = 48;
const NAMES: [&str; 2] = ["one", "two"];

type Model = BTreeMap<Vec<u8>, Entry>;

struct Session {
    disk: SimDisk,
    clock: Clock,
    how: How,
    store: Store,
    namespaces: [Namespace; 2],
    models: [Model; 2],
    /// Whether a checkpoint was ever damaged: a cut may bring back the name of one that was removed for it.
    damaged: bool,
}

/// How the store of a history is opened, each time.
#[derive(Clone, Copy)]
struct How {
    durability: Durability,
    /// Bytes of hot cache, 0 for none.
    cache: u64,
    /// Whether maintenance has its turn after each step, and does what waits for idle hours, too.
    maintained: Option<bool>,
}

/// The first byte chooses the durability, whether there is a hot cache, and whether there is maintenance;
/// each step takes the bytes it needs. With `Immediate` the power may be cut, without it only the process dies.
pub fn ops(data: &[u8]) {
    let mut input = Input(data);
    let first = input.u8();
    let how = How {
        durability: match first & 1 {
            0 => Durability::Immediate,
            _ => Durability::None,
        },
        // None, one that holds a part of the values, one that holds all.
        cache: [1 << 20, 0, 0, 4 << 10][usize::from(first >> 1 & 3)],
        maintained: (first & 8 != 0).then_some(first & 16 != 0),
    };
    let (disk, clock) = (SimDisk::new(), Clock::manual(1_000));
    let (store, namespaces) = open(&disk, &clock, how);
    let mut session = Session {
        disk,
        clock,
        how,
        store,
        namespaces,
        models: Default::default(),
        damaged: false,
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        session = session.step(&mut input);
        if let Some(idle) = how.maintained {
            session.store.step(idle);
        }
    }
    session.list(&mut Input(&[0, 255]));
}

fn open(disk: &SimDisk, clock: &Clock, how: How) -> (Store, [Namespace; 2]) {
    let options = Options::new().vfs(Arc::new(disk.clone()));
    let options = options.durability(how.durability).clock(clock.clone());
    // Without threads a history that failed fails again, and takes half of the time.
    let options = options.cache(how.cache).without_threads();
    let store = options.open(DIR).expect("the store opens");
    let namespaces = NAMES.map(|name| store.namespace(name).expect("a namespace"));
    (store, namespaces)
}

fn key(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() {
        n @ ..200 => format!("{}{}", if n % 3 == 0 { "a" } else { "b" }, n % 40).into_bytes(),
        n => vec![n; 1 + input.below(512)],
    }
}

impl Session {
    fn step(mut self, input: &mut Input<'_>) -> Session {
        let now = self.clock.now();
        for model in &mut self.models {
            model.retain(|_, e| e.expiration == 0 || e.expiration > now);
        }
        match input.u8() % 20 {
            0..=5 => self.put(input),
            6 | 7 => {
                let at = usize::from(input.u8() & 1);
                let key = key(input);
                let existed = self.namespaces[at].delete(&key).expect("a delete");
                assert_eq!(self.models[at].remove(&key).is_some(), existed);
            }
            8 => self.batch(input),
            9 | 10 => self.get(input),
            11 => self.list(input),
            12 => self.clock.advance(u64::from(input.u8())),
            13 => self.clock.advance(4_000),
            14 => self.store.checkpoint().expect("a checkpoint"),
            15 => drop(self.store.compact().expect("a compaction")),
            16 => self.empty(input),
            17 => self.store.sync().expect("a flush"),
            _ => return self.reopen(input),
        }
        self
    }

    fn options(&self, input: &mut Input<'_>) -> (PutOptions, Vec<u8>, u64, u8) {
        let flags = input.u8();
        let metadata = if flags & 1 == 0 { &[] } else { input.string() };
        let ttl = u64::from(flags & 2 != 0) * (1 + u64::from(input.u8()));
        let mut options = PutOptions::new().metadata(metadata);
        if ttl != 0 {
            options = options.expiration_ttl(Duration::from_secs(ttl));
        }
        let expiration = if ttl == 0 { 0 } else { self.clock.now() + ttl };
        (options, metadata.to_vec(), expiration, flags)
    }

    fn put(&mut self, input: &mut Input<'_>) {
        let (mut options, metadata, expiration, flags) = self.options(input);
        let (at, key) = (usize::from(flags >> 7), key(input));
        let len = usize::from(input.u8());
        // Some in the log, some in files of their own.
        let len = if flags & 12 == 12 { 65_400 + len } else { len };
        let value = vec![input.u8(); len];
        let now = self.models[at].get(&key).map(|entry| entry.generation);
        let allowed = match flags >> 4 & 3 {
            1 => {
                options = options.if_absent();
                now.is_none()
            }
            2 => {
                let wanted = now.unwrap_or(1) + u64::from(flags & 64 != 0);
                options = options.if_generation(wanted);
                now == Some(wanted)
            }
            _ => true,
        };
        match self.namespaces[at].put_with(&key, &value, &options) {
            Ok(generation) => {
                assert!(allowed, "a condition that does not hold");
                let entry = Entry {
                    value,
                    metadata,
                    expiration,
                    generation,
                };
                self.models[at].insert(key, entry);
            }
            Err(Error::Conflict { found }) => {
                assert!(!allowed);
                assert_eq!(found, now);
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn batch(&mut self, input: &mut Input<'_>) {
        let mut batch = WriteBatch::new();
        let mut after = self.models.clone();
        for _ in 0..input.u8() % 8 {
            let (options, metadata, expiration, flags) = self.options(input);
            let (at, key) = (usize::from(flags >> 7), key(input));
            if flags & 4 == 0 {
                batch.delete(&self.namespaces[at], &key);
                after[at].remove(&key);
            } else {
                let value = input.string().to_vec();
                batch.put_with(&self.namespaces[at], &key, &value, &options);
                let entry = Entry {
                    value,
                    metadata,
                    expiration,
                    generation: u64::MAX,
                };
                after[at].insert(key, entry);
            }
        }
        self.store.write(batch).expect("a batch");
        // A batch does not say which generations it made.
        for (model, ns) in after.iter_mut().zip(&self.namespaces) {
            for (key, entry) in model.iter_mut().filter(|(_, e)| e.generation == u64::MAX) {
                let found = ns.get_with_metadata(key).expect("an intact store");
                entry.generation = found.expect("what was put").generation();
            }
        }
        self.models = after;
    }

    fn get(&self, input: &mut Input<'_>) {
        let (flags, key) = (input.u8(), key(input));
        let at = usize::from(flags & 1);
        let mut options = ReadOptions::new();
        if flags & 2 != 0 {
            options = options.cache_ttl(Duration::from_secs(60));
        }
        let found = self.namespaces[at].get_with(&key, &options);
        let found = found.expect("an intact store").map(|e| Entry {
            value: e.value().to_vec(),
            metadata: e.metadata().to_vec(),
            expiration: e.expiration().unwrap_or(0),
            generation: e.generation(),
        });
        assert_eq!(found.as_ref(), self.models[at].get(&key));
    }

    fn list(&self, input: &mut Input<'_>) {
        let (flags, limit) = (input.u8(), 1 + usize::from(input.u8()));
        let prefix = ["", "a", "b1"][usize::from(flags & 3).min(2)];
        let now = self.clock.now();
        for (ns, model) in self.namespaces.iter().zip(&self.models) {
            let mut options = ListOptions::new().prefix(prefix).limit(limit);
            if flags & 4 != 0 {
                options = options.reverse();
            }
            let mut listed = Vec::new();
            loop {
                let page = ns.list(&options).expect("an intact store");
                assert!(page.len() <= limit);
                let item = |k: rimstone::ListedKey<'_>| {
                    let expiration = k.expiration.unwrap_or(0);
                    (k.name.to_vec(), k.metadata.to_vec(), expiration)
                };
                listed.extend(page.keys().map(item));
                let Some(cursor) = page.cursor else { break };
                options = options.cursor(cursor);
            }
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(_, e)| e.expiration == 0 || e.expiration > now)
                .filter(|(key, _)| key.starts_with(prefix.as_bytes()))
                .map(|(k, e)| (k.clone(), e.metadata.clone(), e.expiration))
                .collect();
            if flags & 4 != 0 {
                expected.reverse();
            }
            assert_eq!(listed, expected);
        }
    }

    /// Drops a namespace and creates another of the same name, or deletes a part of it.
    fn empty(&mut self, input: &mut Input<'_>) {
        let flags = input.u8();
        let at = usize::from(flags & 1);
        if flags & 2 != 0 {
            let prefix = ["", "a", "b1", "b3"][usize::from(flags >> 2 & 3)];
            self.namespaces[at].delete_prefix(prefix).expect("a delete");
            self.models[at].retain(|key, _| !key.starts_with(prefix.as_bytes()));
            return;
        }
        let old = self.namespaces[at].clone();
        self.store.drop_namespace(old.id()).expect("a namespace");
        assert!(matches!(old.get("a0"), Err(Error::NoSuchNamespace)));
        self.namespaces[at] = self.store.namespace(NAMES[at]).expect("a namespace");
        self.models[at].clear();
    }

    /// Closes the store, kills it, or cuts the power; then perhaps damages its newest checkpoint, or
    /// leaves nothing but the log.
    fn reopen(self, input: &mut Input<'_>) -> Session {
        let end = input.u8();
        let cuts = Cut::kinds(u64::from(input.u8()));
        let cut = match self.how.durability {
            Durability::Immediate => cuts[usize::from(end) % cuts.len()],
            _ => Cut::KEPT,
        };
        let crashed = (end & 128 == 0).then(|| self.disk.crash(cut));
        let Session {
            disk,
            clock,
            how,
            store,
            namespaces,
            models,
            mut damaged,
        } = self;
        drop((store, namespaces));
        let disk = crashed.unwrap_or(disk);
        let files = disk.files();
        let is = |path: &Path, kind: &str| path.extension().is_some_and(|e| e == kind);
        match end >> 3 & 3 {
            1 => {
                if let Some(path) = files.iter().filter(|path| is(path, "ckpt")).max() {
                    let middle = disk.bytes(path).len() / 2;
                    let byte = disk.bytes(path).get(middle).copied();
                    if let Some(byte) = byte {
                        disk.rot(path, middle as u64, &[byte ^ 1]);
                        damaged = true;
                    }
                }
            }
            2 => {
                let derived = |path: &&std::path::PathBuf| !is(path, "seg") && !is(path, "large");
                for path in files.iter().filter(derived) {
                    disk.remove(path).expect("in memory");
                }
                disk.sync_dir(Path::new(DIR)).expect("in memory");
            }
            _ => {}
        }
        let (store, namespaces) = open(&disk, &clock, how);
        let found = store.stats().damage;
        assert!(damaged || found.is_empty(), "{found:?}");
        Session {
            disk,
            clock,
            how,
            store,
            namespaces,
            models,
            damaged,
        }
    }
}
