//! redb, one table.

use std::borrow::Cow;

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction,
};

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::Entry;

type Bytes = &'static [u8];
const TABLE: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("bench");

pub(super) struct Redb {
    db: Database,
    durable: bool,
}

impl Engine for Redb {
    type Reader<'r> = View;

    /// A cache for everything. `Durability::None` loses commits when the process dies, so that a
    /// commit which must survive that is a durable one: redb has nothing between.
    fn open(setup: &Setup) -> Redb {
        let mut builder = Database::builder();
        builder.set_cache_size(setup.cache() as usize);
        let path = setup.dir.join("bench.redb");
        let db = builder.create(path).expect("opens");
        let txn = db.begin_write().expect("a transaction");
        txn.open_table(TABLE).expect("a table");
        txn.commit().expect("commits");
        let durable = setup.durable;
        Redb { db, durable }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View) -> R) -> R {
        let txn = self.db.begin_read().expect("a transaction");
        let table = txn.open_table(TABLE).expect("a table");
        f(&mut View(table))
    }

    /// One transaction, so that no page is written twice.
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        write(self.begin(), batches.flatten().map(Cow::Owned));
    }

    fn put(&self, entry: &Entry) {
        let mut txn = self.begin();
        if !self.durable {
            txn.set_durability(Durability::None).expect("no savepoints");
        }
        write(txn, std::iter::once(Cow::Borrowed(entry)));
    }

    fn put_all(&self, entries: &[Entry]) {
        write(self.begin(), entries.iter().map(Cow::Borrowed));
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        let txn = self.begin();
        let mut table = txn.open_table(TABLE).expect("a table");
        for key in keys {
            table.remove(&key[..]).expect("deletes");
        }
        drop(table);
        txn.commit().expect("commits");
    }

    /// An empty durable commit makes those before it durable.
    fn sync(&self) {
        self.begin().commit().expect("commits");
    }

    fn compact(&mut self) {
        while self.db.compact().expect("compacts") {}
    }
}

impl Redb {
    fn begin(&self) -> WriteTransaction {
        self.db.begin_write().expect("a transaction")
    }
}

fn write<'e>(txn: WriteTransaction, entries: impl Iterator<Item = Cow<'e, Entry>>) {
    let mut table = txn.open_table(TABLE).expect("a table");
    for entry in entries {
        table
            .insert(&entry.key[..], &stored(&entry)[..])
            .expect("puts");
    }
    drop(table);
    txn.commit().expect("commits");
}

pub(super) struct View(ReadOnlyTable<Bytes, Bytes>);

impl Reader for View {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let stored = self.0.get(key).expect("gets")?;
        let (metadata, value) = parts(stored.value());
        Some(f(metadata, value))
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let pairs = self.0.range(start..).expect("seeks");
        for pair in pairs.take(limit) {
            let (key, stored) = pair.expect("reads");
            f(key.value(), parts(stored.value()).0);
        }
    }
}
