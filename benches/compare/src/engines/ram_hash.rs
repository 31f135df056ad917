//! The map of the standard library behind a read-write lock: what a program would have without any
//! engine. It survives nothing.

use std::collections::HashMap;
use std::sync::RwLock;

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::Entry;

type Map = RwLock<HashMap<Box<[u8]>, Box<[u8]>>>;

pub(super) struct RamHash(Map);

impl Engine for RamHash {
    type Reader<'r> = View<'r>;

    fn open(_: &Setup) -> RamHash {
        RamHash(Map::default())
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        f(&mut View(&self.0))
    }

    fn put(&self, entry: &Entry) {
        let mut map = self.0.write().expect("a lock");
        map.insert(entry.key[..].into(), stored(entry).into());
    }

    fn put_all(&self, entries: &[Entry]) {
        entries.iter().for_each(|entry| self.put(entry));
    }
}

pub(super) struct View<'r>(&'r Map);

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let map = self.0.read().expect("a lock");
        let (metadata, value) = parts(map.get(key)?);
        Some(f(metadata, value))
    }
}
