//! LMDB through `heed`, one unnamed database.

use std::ops::Bound;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::Entry;

pub(super) struct Lmdb {
    env: Env,
    db: Database<'static, Bytes, Bytes>,
}

impl Engine for Lmdb {
    type Reader<'r> = View<'r>;

    /// - a map far above what is stored, so that it never grows while measured;
    /// - `NO_SYNC` unless commits are to be durable: the death of the process loses nothing;
    /// - `NO_READ_AHEAD`, without which a cold get would read 128 KiB;
    /// - no `WRITE_MAP`, which would let a stray pointer of the process change the file.
    #[allow(unsafe_code, reason = "heed asks for a promise about the file")]
    fn open(setup: &Setup) -> Lmdb {
        let mut options = EnvOpenOptions::new();
        let map = (8 * setup.bytes).max(8 << 30).next_multiple_of(1 << 30);
        options.map_size(map as usize);
        let sync = if setup.durable {
            EnvFlags::empty()
        } else {
            EnvFlags::NO_SYNC
        };
        // SAFETY: a power cut may damage the file, which lives no longer than this run.
        unsafe { options.flags(sync | EnvFlags::NO_READ_AHEAD) };
        // SAFETY: the directory is this run's own, so nobody else changes the mapped file.
        let env = unsafe { options.open(&setup.dir) }.expect("opens");
        let txn = env.write_txn().expect("a transaction");
        let db = env
            .create_databases_and_commit(txn, |opener, txn| {
                let db = opener.create_database(txn, None)?;
                heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(db))
            })
            .expect("a database")
            .unwrap_commit();
        Lmdb { env, db }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        let txn = self.env.read_txn().expect("a transaction");
        f(&mut View { db: self.db, txn })
    }

    /// One transaction, so that no page is written twice.
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        let mut txn = self.env.write_txn().expect("a transaction");
        for entry in batches.flatten() {
            let value = stored(&entry);
            self.db.put(&mut txn, &entry.key, &value).expect("puts");
        }
        txn.commit().expect("commits");
    }

    fn put(&self, entry: &Entry) {
        self.put_all(std::slice::from_ref(entry));
    }

    fn put_all(&self, entries: &[Entry]) {
        let mut txn = self.env.write_txn().expect("a transaction");
        for entry in entries {
            self.db
                .put(&mut txn, &entry.key, &stored(entry))
                .expect("puts");
        }
        txn.commit().expect("commits");
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        let mut txn = self.env.write_txn().expect("a transaction");
        for key in keys {
            self.db.delete(&mut txn, key).expect("deletes");
        }
        txn.commit().expect("commits");
    }

    fn sync(&self) {
        self.env.force_sync().expect("flushes");
    }
}

pub(super) struct View<'r> {
    db: Database<'static, Bytes, Bytes>,
    txn: RoTxn<'r, WithTls>,
}

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let stored = self.db.get(&self.txn, key).expect("gets")?;
        let (metadata, value) = parts(stored);
        Some(f(metadata, value))
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let range = (Bound::Included(start), Bound::Unbounded);
        let pairs = self.db.range(&self.txn, &range).expect("seeks");
        for pair in pairs.take(limit) {
            let (key, stored) = pair.expect("reads");
            f(key, parts(stored).0);
        }
    }
}
