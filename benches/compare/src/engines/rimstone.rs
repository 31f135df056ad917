//! Rimstone, one namespace.

use rimstone::{
    Durability, EntryRef, ListOptions, ListedKey, Namespace, Options, PutOptions, Store, Verify,
    WriteBatch,
};

use super::{Engine, Reader, Setup};
use crate::data::{Entry, Key};

/// Entries of one batch, whose size is limited.
const BATCH: usize = 1000;

/// With `ONCE` a value is verified when it is first read, else whenever it is.
pub(super) struct Rimstone<const ONCE: bool> {
    store: Store,
    namespace: Namespace,
}

impl<const ONCE: bool> Engine for Rimstone<ONCE> {
    type Reader<'r> = View<'r>;

    /// Its defaults, but for the durability, when values are verified, and what a row asks for.
    fn open(setup: &Setup) -> Self {
        let durability = if setup.durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        let verify = if ONCE {
            Verify::FirstRead
        } else {
            Verify::Always
        };
        let mut options = Options::new().durability(durability).verify(verify);
        if let Some(clock) = &setup.clock {
            options = options.clock(clock.clone());
        }
        if let Some(percent) = setup.space {
            options = options.space_amplification(percent);
        }
        let store = options.open(&setup.dir).expect("opens");
        let namespace = store.namespace("bench").expect("a namespace");
        Rimstone { store, namespace }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        f(&mut View(&self.namespace))
    }

    fn put(&self, entry: &Entry) {
        let options = options(entry);
        self.namespace
            .put_with(&entry.key, &entry.value, &options)
            .expect("puts");
    }

    fn put_all(&self, entries: &[Entry]) {
        for entries in entries.chunks(BATCH) {
            let mut batch = WriteBatch::new();
            for entry in entries {
                batch.put_with(&self.namespace, &entry.key, &entry.value, &options(entry));
            }
            self.store.write(batch).expect("writes");
        }
    }

    fn sync(&self) {
        self.store.sync().expect("flushes");
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        for keys in keys.chunks(BATCH) {
            let mut batch = WriteBatch::new();
            for key in keys {
                batch.delete(&self.namespace, key);
            }
            self.store.write(batch).expect("writes");
        }
    }

    fn tidy(&self) {
        self.store.compact().expect("compacts");
    }

    fn close(self) {
        self.store.close().expect("closes");
    }
}

fn options(entry: &Entry) -> PutOptions {
    let options = PutOptions::new().metadata(&entry.metadata);
    match entry.expires {
        Some(seconds) => options.expiration(seconds),
        None => options,
    }
}

pub(super) struct View<'r>(&'r Namespace);

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        self.0
            .read(key, |entry| f(entry.metadata(), entry.value()))
            .expect("reads")
    }

    fn get_many(&mut self, keys: &[Key], mut f: impl FnMut(&[u8], &[u8])) {
        let lend = |_, entry: EntryRef<'_>| f(entry.metadata(), entry.value());
        self.0.read_many(keys, lend).expect("reads");
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let options = ListOptions::new().start(start).limit(limit);
        let lend = |key: ListedKey<'_>| f(key.name, key.metadata);
        self.0.read_page(&options, lend).expect("lists");
    }
}
