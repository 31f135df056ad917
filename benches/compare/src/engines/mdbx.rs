//! MDBX through `libmdbx`, one unnamed table.

use std::borrow::Cow;

use libmdbx::{
    Database, DatabaseOptions, Mode, NoWriteMap, RO, ReadWriteOptions, SyncMode, Table,
    Transaction, WriteFlags,
};

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::Entry;

pub(super) struct Mdbx(Database<NoWriteMap>);

impl Engine for Mdbx {
    type Reader<'r> = View<'r>;

    /// As LMDB: a map far above what is stored that grows in large steps, no read-ahead, no
    /// writable map; `UtterlyNoSync` is LMDB's `NO_SYNC`. (`SafeNoSync`, which a power cut does not
    /// damage, cannot use pages again before the next flush, and takes ten times as long to put.)
    fn open(setup: &Setup) -> Mdbx {
        let sync_mode = if setup.durable {
            SyncMode::Durable
        } else {
            SyncMode::UtterlyNoSync
        };
        let map = (8 * setup.bytes).max(8 << 30).next_multiple_of(1 << 30);
        let options = DatabaseOptions {
            mode: Mode::ReadWrite(ReadWriteOptions {
                sync_mode,
                max_size: Some(map as isize),
                growth_step: Some(64 << 20),
                ..ReadWriteOptions::default()
            }),
            no_rdahead: true,
            ..DatabaseOptions::default()
        };
        Mdbx(Database::open_with_options(&setup.dir, options).expect("opens"))
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        let txn = self.0.begin_ro_txn().expect("a transaction");
        let table = txn.open_table(None).expect("a table");
        f(&mut View { txn: &txn, table })
    }

    /// One transaction, so that no page is written twice.
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        self.write(batches.flatten().map(Cow::Owned));
    }

    fn put(&self, entry: &Entry) {
        self.put_all(std::slice::from_ref(entry));
    }

    fn put_all(&self, entries: &[Entry]) {
        self.write(entries.iter().map(Cow::Borrowed));
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        let txn = self.0.begin_rw_txn().expect("a transaction");
        let table = txn.open_table(None).expect("a table");
        for key in keys {
            txn.del(&table, key, None).expect("deletes");
        }
        txn.commit().expect("commits");
    }

    fn sync(&self) {
        self.0.sync(true).expect("flushes");
    }
}

impl Mdbx {
    fn write<'e>(&self, entries: impl Iterator<Item = Cow<'e, Entry>>) {
        let txn = self.0.begin_rw_txn().expect("a transaction");
        let table = txn.open_table(None).expect("a table");
        for entry in entries {
            txn.put(&table, &entry.key, stored(&entry), WriteFlags::UPSERT)
                .expect("puts");
        }
        txn.commit().expect("commits");
    }
}

pub(super) struct View<'r> {
    txn: &'r Transaction<'r, RO, NoWriteMap>,
    table: Table<'r>,
}

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let stored: Cow<'_, [u8]> = self.txn.get(&self.table, key).expect("gets")?;
        let (metadata, value) = parts(&stored);
        Some(f(metadata, value))
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let mut cursor = self.txn.cursor(&self.table).expect("a cursor");
        let pairs = cursor.iter_from::<Cow<'_, [u8]>, Cow<'_, [u8]>>(start);
        for pair in pairs.take(limit) {
            let (key, stored) = pair.expect("reads");
            f(&key, parts(&stored).0);
        }
    }
}
