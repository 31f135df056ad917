//! The engines, each behind the same trait in a file of its own.
//!
//! Every engine is set up by the same rules: all data fits into its cache, no compression, no
//! checksum beyond what it verifies by itself, and the durability that a row asks for. Where it
//! takes keys and values only, metadata lies in front of the value ([`stored`]).

mod fjall;
mod limit;
mod lmdb;
mod mdbx;
mod ram_hash;
mod redb;
mod rimstone;
mod rocksdb;
mod sqlite;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::rimstone::Clock;

use crate::data::{Data, Entry, Key, Values};

/// How an engine is opened.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its own directory, which exists.
    pub dir: PathBuf,
    /// Bytes that will be stored, about.
    pub bytes: u64,
    /// Whether a commit is on the disk when it returns. If not, it survives the death of the
    /// process, but no power cut.
    pub durable: bool,
    /// Values of at least so many bytes lie apart from their keys, in engines that can do so if told.
    pub apart: Option<u32>,
    /// Bytes of memory that the process may have, the system's cache of its files included.
    pub memory: Option<u64>,
    /// What an engine that expires entries by itself goes by: its clock, and the space it may take
    /// in percent of what is live.
    pub clock: Option<Clock>,
    pub space: Option<u64>,
}

/// From how many bytes on values lie apart if large ones are stored; and in the engines that are named
/// for it, whatever is stored.
const LARGE: u32 = 4 << 10;
const APART: u32 = 128;

impl Setup {
    pub fn new(dir: &Path, data: &Data, durable: bool) -> Setup {
        Setup {
            dir: dir.to_path_buf(),
            bytes: data.bytes(),
            durable,
            apart: matches!(data.values, Values::Mix | Values::Large).then_some(LARGE),
            memory: None,
            clock: None,
            space: None,
        }
    }

    /// Bytes of a cache in which everything has room, pages and blocks included; or half of a memory
    /// in which it has not, so that the system caches files in the other half.
    fn cache(&self) -> u64 {
        match self.memory {
            Some(memory) => memory / 2,
            None => (2 * self.bytes).max(256 << 20),
        }
    }
}

/// What can be asked of an engine, beside reading and loading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Abilities {
    /// Lists keys in order.
    pub lists: bool,
    /// Is written to while others read.
    pub writes: bool,
    /// Keeps its entries in files.
    pub files: bool,
    /// Gives space back when it is told to.
    pub compacts: bool,
    /// Does so while others read and write.
    pub tidies: bool,
    /// Expires entries by itself.
    pub expires: bool,
}

impl Abilities {
    const ALL: Abilities = Abilities {
        lists: true,
        writes: true,
        files: true,
        compacts: true,
        tidies: true,
        expires: false,
    };
}

/// A key-value engine.
pub trait Engine: Send + Sync + Sized {
    type Reader<'r>: Reader;

    fn open(setup: &Setup) -> Self;

    /// Lends a view of the engine: a read transaction, where there is such a thing.
    fn read<R>(&self, f: impl FnOnce(&mut Self::Reader<'_>) -> R) -> R;

    /// Stores everything in the way that is fastest, into an empty engine. Nothing need be durable.
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        batches.for_each(|batch| self.put_all(&batch));
    }

    /// One commit with one entry.
    fn put(&self, entry: &Entry);

    /// One commit with many entries, which survives the death of the process in any case.
    fn put_all(&self, entries: &[Entry]);

    /// Returns when all commits are on the disk.
    fn sync(&self) {}

    /// Deletes keys that are stored, in one commit.
    fn remove(&self, _keys: &[Vec<u8>]) {
        unreachable!("no files: its abilities say so")
    }

    /// Gives back what space it can while others read and write.
    fn tidy(&self) {}

    /// Gives back what space it can.
    fn compact(&mut self) {
        self.tidy();
    }

    fn close(self) {}
}

/// A view of an engine's entries.
pub trait Reader {
    /// Lends metadata and value of a key.
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R>;

    /// Lends metadata and value of those keys that are stored, in the order of the keys.
    fn get_many(&mut self, keys: &[Key], mut f: impl FnMut(&[u8], &[u8])) {
        for key in keys {
            self.get(key.as_ref(), &mut f);
        }
    }

    /// Lends names and metadata of so many keys from `start` on.
    fn list(&mut self, _start: &[u8], _limit: usize, _f: impl FnMut(&[u8], &[u8])) {
        unreachable!("no order: its abilities say so")
    }
}

/// Metadata after its length in one byte, then the value.
pub(crate) fn stored(entry: &Entry) -> Vec<u8> {
    let len = u8::try_from(entry.metadata.len()).expect("short metadata");
    [&[len], &entry.metadata[..], &entry.value].concat()
}

/// Metadata and value of [`stored`] bytes.
pub(crate) fn parts(stored: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = stored.split_first().expect("a length");
    rest.split_at(usize::from(*len))
}

/// What a row does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Looks at its length and its first byte.
    First,
    /// Looks at its length and both ends.
    Ends,
    /// Sums every byte.
    All,
}

impl Touch {
    fn of(self, value: &[u8]) -> u64 {
        match self {
            Touch::First => value.len() as u64 + (value.first().map_or(0, |&b| u64::from(b)) << 32),
            Touch::Ends => {
                let ends = value.first().zip(value.last());
                ends.map_or(0, |(first, last)| {
                    value.len() as u64 + (u64::from(*first) << 32) + (u64::from(*last) << 40)
                })
            }
            Touch::All => value.iter().map(|&byte| u64::from(byte)).sum(),
        }
    }
}

/// An engine as the rows see it. What reads returns a digest of all that was read, which must be
/// the same for all engines.
pub trait Subject: Send + Sync {
    /// Gets of single keys, with a new view after every `view` of them.
    fn get(&self, keys: &[Key], view: usize, touch: Touch) -> u64;
    /// The same with the wall time of each get, in nanoseconds.
    fn get_timed(&self, keys: &[Key], view: usize, times: &mut Vec<u64>) -> u64;
    /// Gets of so many keys at once.
    fn get_many(&self, keys: &[Key], count: usize) -> u64;
    /// Pages of so many keys.
    fn list(&self, starts: &[Key], limit: usize) -> u64;
    /// Metadata and value of a key, as [`stored`].
    fn find(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Whether every one of these is stored, byte by byte.
    fn holds(&self, entries: &[Entry]) -> bool;
    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>);
    fn put(&self, entry: &Entry);
    fn put_all(&self, entries: &[Entry]);
    fn remove(&self, keys: &[Vec<u8>]);
    fn sync(&self);
    fn tidy(&self);
    fn compact(&mut self);
    fn close(self: Box<Self>);
}

struct Wrap<E>(E);

impl<E: Engine> Subject for Wrap<E> {
    fn get(&self, keys: &[Key], view: usize, touch: Touch) -> u64 {
        self.each(keys, view, |reader, key| {
            reader
                .get(key, |_, value| touch.of(black_box(value)))
                .unwrap_or_default()
        })
    }

    fn get_timed(&self, keys: &[Key], view: usize, times: &mut Vec<u64>) -> u64 {
        self.each(keys, view, |reader, key| {
            // The clock waits for the loads before it, so that nothing overlaps with the next get.
            let start = Instant::now();
            let digest = reader.get(key, |_, value| Touch::Ends.of(black_box(value)));
            times.push(start.elapsed().as_nanos() as u64);
            digest.unwrap_or_default()
        })
    }

    fn get_many(&self, keys: &[Key], count: usize) -> u64 {
        let mut digest = 0u64;
        for keys in keys.chunks(count) {
            self.0.read(|reader| {
                reader.get_many(keys, |_, value| {
                    digest = digest.wrapping_add(Touch::Ends.of(black_box(value)));
                });
            });
        }
        digest
    }

    fn list(&self, starts: &[Key], limit: usize) -> u64 {
        let mut digest = 0u64;
        for start in starts {
            self.0.read(|reader| {
                reader.list(start.as_ref(), limit, |name, metadata| {
                    let ends = Touch::Ends.of(black_box(name)) ^ Touch::Ends.of(metadata);
                    digest = digest.wrapping_mul(31).wrapping_add(ends);
                });
            });
        }
        digest
    }

    fn find(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.read(|reader| {
            reader.get(key, |metadata, value| {
                [&[metadata.len() as u8], metadata, value].concat()
            })
        })
    }

    fn holds(&self, entries: &[Entry]) -> bool {
        self.0.read(|reader| {
            entries.iter().all(|entry| {
                let same = |metadata: &[u8], value: &[u8]| {
                    metadata == entry.metadata && value == entry.value
                };
                reader.get(&entry.key, same) == Some(true)
            })
        })
    }

    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        self.0.load(batches);
    }

    fn put(&self, entry: &Entry) {
        self.0.put(entry);
    }

    fn put_all(&self, entries: &[Entry]) {
        self.0.put_all(entries);
    }

    fn sync(&self) {
        self.0.sync();
    }

    fn remove(&self, keys: &[Vec<u8>]) {
        self.0.remove(keys);
    }

    fn tidy(&self) {
        self.0.tidy();
    }

    fn compact(&mut self) {
        self.0.compact();
    }

    fn close(self: Box<Self>) {
        self.0.close();
    }
}

impl<E: Engine> Wrap<E> {
    fn each(
        &self,
        keys: &[Key],
        view: usize,
        mut f: impl FnMut(&mut E::Reader<'_>, &[u8]) -> u64,
    ) -> u64 {
        let mut digest = 0u64;
        for keys in keys.chunks(view) {
            self.0.read(|reader| {
                for key in keys {
                    digest = digest.wrapping_add(f(reader, key.as_ref()));
                }
            });
        }
        digest
    }
}

/// An engine by its name.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub can: Abilities,
    /// Keeps values apart from their keys even if they are small.
    pub apart: bool,
    open: fn(&Setup) -> Box<dyn Subject>,
}

impl Kind {
    pub fn open(&self, setup: &Setup) -> Box<dyn Subject> {
        (self.open)(setup)
    }

    const fn apart(self) -> Kind {
        Kind {
            apart: true,
            ..self
        }
    }
}

fn open<E: Engine + 'static>(setup: &Setup) -> Box<dyn Subject> {
    Box::new(Wrap(E::open(setup)))
}

/// With values apart from their keys even if they are small.
fn open_apart<E: Engine + 'static>(setup: &Setup) -> Box<dyn Subject> {
    let apart = Some(setup.apart.unwrap_or(APART));
    let setup = Setup {
        apart,
        ..setup.clone()
    };
    open::<E>(&setup)
}

/// The engine that all are compared with.
pub const BASE: &str = "lmdb";
/// Ourselves.
pub const OWN: &str = "rimstone";

const ALL: Abilities = Abilities::ALL;
const EXPIRES: Abilities = Abilities {
    expires: true,
    ..ALL
};
/// redb and SQLite give space back while nobody else uses them.
const ALONE: Abilities = Abilities {
    tidies: false,
    ..ALL
};
/// LMDB and MDBX give space back by copying the whole file.
const OFFLINE: Abilities = Abilities {
    compacts: false,
    ..ALONE
};
const MEMORY: Abilities = Abilities {
    lists: false,
    files: false,
    ..OFFLINE
};
const LOADED_ONCE: Abilities = Abilities {
    lists: true,
    writes: false,
    ..MEMORY
};

/// Every engine, in the order of the tables. Those that keep small values apart take part only where space
/// is measured.
pub const KINDS: &[Kind] = &[
    kind(OWN, EXPIRES, open::<rimstone::Rimstone<false>>),
    kind("rimstone-once", EXPIRES, open::<rimstone::Rimstone<true>>),
    kind("limit", LOADED_ONCE, open::<limit::Limit<false>>),
    kind("limit-crc", LOADED_ONCE, open::<limit::Limit<true>>),
    kind("ram-hash", MEMORY, open::<ram_hash::RamHash>),
    kind(BASE, OFFLINE, open::<lmdb::Lmdb>),
    kind("mdbx", OFFLINE, open::<mdbx::Mdbx>),
    kind("redb", ALONE, open::<redb::Redb>),
    kind("fjall", ALL, open::<fjall::Fjall>),
    kind("fjall-apart", ALL, open_apart::<fjall::Fjall>).apart(),
    kind("rocksdb", ALL, open::<rocksdb::Rocks>),
    kind("rocksdb-blob", ALL, open_apart::<rocksdb::Rocks>).apart(),
    kind("sqlite", ALONE, open::<sqlite::Sqlite>),
];

const fn kind(name: &'static str, can: Abilities, open: fn(&Setup) -> Box<dyn Subject>) -> Kind {
    let apart = false;
    Kind {
        name,
        can,
        apart,
        open,
    }
}

/// The engine of this name.
pub fn by_name(name: &str) -> Option<Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
