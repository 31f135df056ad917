//! RocksDB, the default column family.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Engine, Reader, Setup, parts, stored};
use crate::data::{Entry, Key};

pub(super) struct Rocks {
    db: DB,
    durable: bool,
    apart: bool,
}

impl Engine for Rocks {
    type Reader<'r> = View<'r>;

    /// A block cache for everything, Bloom filters of 10 bits, no compression, two background
    /// threads; large values in blob files, as its documentation advises for them; the write-ahead
    /// log on. Otherwise its defaults.
    fn open(setup: &Setup) -> Rocks {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(setup.cache() as usize));
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.increase_parallelism(2);
        if let Some(least) = setup.apart {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(u64::from(least));
            options.set_enable_blob_gc(true);
        }
        let families = [("default", options.clone())];
        let db = DB::open_cf_with_opts(&options, &setup.dir, families).expect("opens");
        let durable = setup.durable;
        Rocks {
            db,
            durable,
            apart: setup.apart.is_some(),
        }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_>) -> R) -> R {
        let options = ReadOptions::default();
        f(&mut View {
            db: &self.db,
            options,
        })
    }

    fn put(&self, entry: &Entry) {
        self.db
            .put_opt(&entry.key, stored(entry), &self.options())
            .expect("puts");
    }

    fn put_all(&self, entries: &[Entry]) {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(&entry.key, stored(entry));
        }
        self.db.write_opt(batch, &self.options()).expect("commits");
    }

    fn sync(&self) {
        self.db.flush_wal(true).expect("flushes");
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        let mut batch = WriteBatch::default();
        keys.iter().for_each(|key| batch.delete(key));
        self.db.write_opt(batch, &self.options()).expect("commits");
    }

    /// For as long as it takes, all blob files are old enough to be collected, not only a quarter.
    fn tidy(&self) {
        let old_enough = |share| {
            let option = ("blob_garbage_collection_age_cutoff", share);
            self.db.set_options(&[option]).expect("an option");
        };
        if self.apart {
            old_enough("1.0");
        }
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        if self.apart {
            old_enough("0.25");
        }
    }
}

impl Rocks {
    fn options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.durable);
        options
    }
}

pub(super) struct View<'r> {
    db: &'r DB,
    options: ReadOptions,
}

impl Reader for View<'_> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let stored = self.db.get_pinned_opt(key, &self.options).expect("gets")?;
        let (metadata, value) = parts(&stored);
        Some(f(metadata, value))
    }

    fn get_many(&mut self, keys: &[Key], mut f: impl FnMut(&[u8], &[u8])) {
        let family = self.db.cf_handle("default").expect("the default family");
        let found = self
            .db
            .batched_multi_get_cf_opt(&family, keys, false, &self.options);
        for stored in found {
            if let Some(stored) = stored.expect("gets") {
                let (metadata, value) = parts(&stored);
                f(metadata, value);
            }
        }
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let mut pairs = self.db.raw_iterator();
        pairs.seek(start);
        for _ in 0..limit {
            let Some((key, stored)) = pairs.item() else {
                break;
            };
            f(key, parts(stored).0);
            pairs.next();
        }
        pairs.status().expect("reads");
    }
}

/// The crate refers to this when it drops options; the libraries of older systems lack it. As no
/// write buffer manager is ever made, nobody calls it.
#[cfg(system_rocksdb)]
#[allow(unsafe_code, reason = "the linker looks for the name")]
#[unsafe(no_mangle)]
extern "C" fn rocksdb_write_buffer_manager_destroy() {
    std::process::abort();
}
