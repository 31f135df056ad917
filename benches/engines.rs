//! The engines that are compared, each holding the same entries.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::RwLock;

use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions, FlagSetMode, RoTxn, WithTls};
use rimstone::{Durability, ListOptions, Namespace, Options, PutOptions, Store, WriteBatch};
use rimstone_cache::Cache;

use crate::workload::{Entry, KEYS, Key, entry, key, missing, shuffled};

/// Keys of a page, the limit of one in Workers KV.
pub(crate) const PAGE: usize = 1000;

type Boxed = Box<[u8]>;

/// LMDB and the maps store metadata in front of the value, after its length in one byte.
pub(crate) fn stored(metadata: &[u8], value: &[u8]) -> Boxed {
    let len = u8::try_from(metadata.len()).expect("short metadata");
    [&[len], metadata, value].concat().into()
}

/// Metadata and value of stored bytes.
fn parts(stored: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = stored.split_first().expect("a length");
    rest.split_at(usize::from(*len))
}

pub(crate) fn value(stored: &[u8]) -> &[u8] {
    parts(stored).1
}

/// A store without flushes, unless a put asks for one.
pub(crate) fn open_store(dir: &Path) -> (Store, Namespace) {
    let options = Options::new().durability(Durability::None);
    let store = options.open(dir.join("rimstone")).expect("opens");
    let namespace = store.namespace("bench").expect("a namespace");
    (store, namespace)
}

/// LMDB through `heed`, one unnamed database.
pub(crate) struct Lmdb {
    env: Env,
    db: heed::Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    /// Settings that suit LMDB here:
    /// - a map of 8 GiB, far above what is stored, so that it never grows while measured;
    /// - `NO_SYNC`, the counterpart of `Durability::None`: the death of the process loses nothing. A
    ///   power cut may damage an LMDB file then, where Rimstone loses the newest writes;
    /// - `NO_READ_AHEAD`, as Rimstone advises for its segments; it changes nothing while the file is
    ///   in memory, as it is here;
    /// - no `WRITE_MAP`, which would let a stray pointer of the process change the file.
    #[allow(unsafe_code, reason = "heed asks for a promise about the file")]
    pub(crate) fn open(dir: &Path) -> Lmdb {
        let path = dir.join("lmdb");
        std::fs::create_dir_all(&path).expect("a directory");
        let mut options = EnvOpenOptions::new();
        options.map_size(8 << 30);
        // SAFETY: a power cut may damage the file, which lives no longer than this run.
        unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD) };
        // SAFETY: the directory is this run's own, so nobody else changes the mapped file.
        let env = unsafe { options.open(path) }.expect("opens");
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

    /// A transaction to read in. The benches of single gets hold one all the time, the best case of
    /// LMDB: a service that wants to see later writes needs a new one now and then.
    pub(crate) fn read(&self) -> RoTxn<'_, WithTls> {
        self.env.read_txn().expect("a transaction")
    }

    pub(crate) fn get<'t>(&self, txn: &'t RoTxn<'_>, key: &Key) -> Option<&'t [u8]> {
        self.db.get(txn, key).expect("gets")
    }

    /// From now on a commit is flushed before it returns, as `Durability::Immediate` is.
    #[allow(unsafe_code, reason = "heed counts all flags as unsafe")]
    fn flush_commits(&self) {
        self.env.force_sync().expect("flushes");
        // SAFETY: taking NO_SYNC away makes LMDB safer, and this is the only thread.
        unsafe { self.env.set_flags(EnvFlags::NO_SYNC, FlagSetMode::Disable) }.expect("a flag");
    }

    /// Keys and metadata of a page, lent.
    pub(crate) fn page<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        start: &[u8],
    ) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
        let range = (Bound::Included(start), Bound::Unbounded);
        let pairs = self.db.range(txn, &range).expect("seeks");
        pairs.take(PAGE).map(|pair| {
            let (key, stored) = pair.expect("reads");
            (key, parts(stored).0)
        })
    }

    pub(crate) fn put(&self, key: &[u8], stored: &[u8]) {
        let mut txn = self.env.write_txn().expect("a transaction");
        self.db.put(&mut txn, key, stored).expect("puts");
        txn.commit().expect("commits");
    }
}

/// Keys and metadata of a page, lent.
pub(crate) fn page_of<'m>(
    map: &'m BTreeMap<Boxed, Boxed>,
    start: &[u8],
) -> impl Iterator<Item = (&'m [u8], &'m [u8])> {
    let pairs = map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
    pairs
        .take(PAGE)
        .map(|(key, stored)| (&key[..], parts(stored).0))
}

fn entries() -> impl Iterator<Item = Entry> {
    shuffled(0).into_iter().map(entry)
}

/// Writes every entry to Rimstone and to LMDB, and closes them.
pub(crate) fn load(dir: &Path) {
    let (store, namespace) = open_store(dir);
    let lmdb = Lmdb::open(dir);
    let mut txn = lmdb.env.write_txn().expect("a transaction");
    let mut batch = WriteBatch::new();
    for e in entries() {
        lmdb.db
            .put(&mut txn, &e.key, &stored(&e.metadata, &e.value))
            .expect("puts");
        let options = PutOptions::new().metadata(&e.metadata);
        batch.put_with(&namespace, e.key, &e.value, &options);
        if batch.len() == 1000 {
            store.write(std::mem::take(&mut batch)).expect("writes");
        }
    }
    store.write(batch).expect("writes");
    store.close().expect("closes");
    txn.commit().expect("commits");
    lmdb.env.force_sync().expect("flushes");
}

/// All engines, open and loaded with the same entries.
pub(crate) struct Engines {
    store: Store,
    pub(crate) namespace: Namespace,
    pub(crate) lmdb: Lmdb,
    pub(crate) hashed: RwLock<HashMap<Boxed, Boxed>>,
    /// What Rimstone returned for every key, in the cache that could stand before it.
    pub(crate) cache: Cache,
    /// For lists, which a hash map cannot make.
    pub(crate) ordered: RwLock<BTreeMap<Boxed, Boxed>>,
}

impl Engines {
    /// Opens what [`load`] wrote, and fills the maps.
    pub(crate) fn open(dir: &Path) -> Engines {
        let (store, namespace) = open_store(dir);
        let cache = Cache::with_max_weight(u64::MAX);
        for e in entries() {
            let value = namespace.get(e.key).expect("gets").expect("a value");
            cache.insert(&e.key, value[..].into());
        }
        let pairs = || entries().map(|e| (e.key.into(), stored(&e.metadata, &e.value)));
        Engines {
            store,
            namespace,
            lmdb: Lmdb::open(dir),
            cache,
            hashed: RwLock::new(pairs().collect()),
            ordered: RwLock::new(pairs().collect()),
        }
    }

    /// Flushes what was put so far, and from now on every commit of LMDB.
    pub(crate) fn flush(&self) {
        self.store.sync().expect("flushes");
        self.lmdb.flush_commits();
    }

    /// Checks that all engines hold the same bytes, and so touches every page of every one.
    pub(crate) fn verify(&self) {
        let txn = self.lmdb.read();
        let hashed = self.hashed.read().expect("a lock");
        let ordered = self.ordered.read().expect("a lock");
        for e in entries() {
            let expected = Some(stored(&e.metadata, &e.value));
            let copied = self.namespace.get_with_metadata(e.key).expect("gets");
            let copied = copied.map(|own| stored(own.metadata(), own.value()));
            assert_eq!(copied, expected);
            let lent = self
                .namespace
                .read(e.key, |own| stored(own.metadata(), own.value()));
            assert_eq!(lent.expect("reads"), expected);
            assert_eq!(self.lmdb.get(&txn, &e.key), expected.as_deref());
            assert_eq!(hashed.get(&e.key[..]), expected.as_ref());
            assert_eq!(ordered.get(&e.key[..]), expected.as_ref());
        }
        for key in missing() {
            assert_eq!(self.namespace.get(key).expect("gets"), None);
            assert_eq!(self.lmdb.get(&txn, &key), None);
            assert_eq!(hashed.get(&key[..]), None);
        }
        let start = key(KEYS / 2);
        let options = ListOptions::new().start(start).limit(PAGE);
        let page = self.namespace.list(&options).expect("lists");
        let own: Vec<_> = page.keys().map(|key| (key.name, key.metadata)).collect();
        assert_eq!(own.len(), PAGE);
        assert!(self.lmdb.page(&txn, &start).eq(own.iter().copied()));
        assert!(page_of(&ordered, &start).eq(own));
    }
}
