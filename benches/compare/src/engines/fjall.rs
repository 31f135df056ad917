//! fjall, one keyspace.

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    Readable, Snapshot,
};

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::Entry;

pub(super) struct Fjall {
    db: Database,
    keyspace: Keyspace,
    durable: bool,
}

impl Engine for Fjall {
    type Reader<'r> = View<'r>;

    /// A cache for everything, no compression; large values in files of their own, as its
    /// documentation advises for them; otherwise its defaults, Bloom filters among them.
    fn open(setup: &Setup) -> Fjall {
        let db = Database::builder(&setup.dir)
            .cache_size(setup.cache())
            .journal_compression(CompressionType::None)
            .open()
            .expect("opens");
        let apart = setup
            .apart
            .map(|least| KvSeparationOptions::default().separation_threshold(least));
        let options = || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
                .with_kv_separation(apart.clone())
        };
        let keyspace = db.keyspace("bench", options).expect("a keyspace");
        let durable = setup.durable;
        Fjall {
            db,
            keyspace,
            durable,
        }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        f(&mut View {
            snapshot: self.db.snapshot(),
            keyspace: &self.keyspace,
        })
    }

    fn put(&self, entry: &Entry) {
        self.keyspace
            .insert(&entry.key[..], stored(entry))
            .expect("puts");
        if self.durable {
            self.db.persist(PersistMode::SyncData).expect("flushes");
        }
    }

    fn put_all(&self, entries: &[Entry]) {
        let mode = if self.durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = self.db.batch().durability(Some(mode));
        for entry in entries {
            batch.insert(&self.keyspace, &entry.key[..], stored(entry));
        }
        batch.commit().expect("commits");
    }

    fn sync(&self) {
        self.db.persist(PersistMode::SyncAll).expect("flushes");
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        for key in keys {
            batch.remove(&self.keyspace, &key[..]);
        }
        batch.commit().expect("commits");
    }

    fn tidy(&self) {
        self.keyspace.rotate_memtable_and_wait().expect("flushes");
        self.keyspace.major_compact().expect("compacts");
    }
}

pub(super) struct View<'r> {
    snapshot: Snapshot,
    keyspace: &'r Keyspace,
}

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let stored = self.snapshot.get(self.keyspace, key).expect("gets")?;
        let (metadata, value) = parts(&stored);
        Some(f(metadata, value))
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let pairs = self.snapshot.range(self.keyspace, start..);
        for guard in pairs.take(limit) {
            let (key, stored) = guard.into_inner().expect("reads");
            f(&key, parts(&stored).0);
        }
    }
}
