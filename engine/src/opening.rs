//! How a store is opened, and what is done to one that is not open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::core::Core;
use crate::damage::{Damage, Loss};
use crate::error::{Error, Result};
use crate::hot::Hot;
use crate::options::{Durability, Verify};
use crate::recovery::SPACE;
use crate::repair::Repaired;
use crate::store::{Owner, Store};
use crate::vfs::{OsVfs, Vfs};
use crate::worker::Worker;

/// Maintenance looks for work at least this often.
const MAINTENANCE: Duration = Duration::from_secs(10);

/// The shortest interval between two flushes.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The least space a store can be given, in percent of what is live.
const SPACE_MIN: u64 = 110;

const _: () = {
    assert!(SPACE_MIN > 100, "there is room for garbage");
    assert!(SPACE_MIN <= SPACE);
    assert!(INTERVAL_MIN.as_millis() > 0, "a thread that flushes rests");
    assert!(INTERVAL_MIN.as_millis() < MAINTENANCE.as_millis());
};

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    durability: Durability,
    verify: Verify,
    create: bool,
    space: u64,
    capacity: Option<u64>,
    cache: u64,
    has_threads: bool,
    clock: Clock,
    vfs: Arc<dyn Vfs>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::default(),
            verify: Verify::default(),
            create: true,
            space: SPACE,
            capacity: None,
            cache: 0,
            has_threads: true,
            clock: Clock::system(),
            vfs: Arc::new(OsVfs),
        }
    }
}

impl Options {
    /// `Immediate` durability, values verified on every read, created if missing, the system's clock and
    /// file system.
    #[must_use]
    pub fn new() -> Options {
        Options::default()
    }

    /// When writes are acknowledged that do not say otherwise.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// How often values are verified.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Options {
        self.verify = verify;
        self
    }

    /// Whether a missing store is created; if not, opening one is an I/O error (`NotFound`).
    #[must_use]
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// How much space the store may take, in percent of what is live: 130 by default, at least 110. Less
    /// space costs more copying: uniform overwrites about twice as much at 130 as at 150. The segments
    /// that are being written come on top.
    #[must_use]
    pub fn space_amplification(mut self, percent: u64) -> Options {
        self.space = percent.max(SPACE_MIN);
        self
    }

    /// Makes the store a cache that takes at most about so many bytes of disk, at least 64 MiB: instead of
    /// growing further it evicts, which is a delete, and durable like one. It gives up what was written
    /// longest ago and not read lately first. Reads are sampled: what
    /// was read several times while half of the capacity was evicted stays, up to half of each segment. Without
    /// a capacity, as by default, nothing is ever evicted.
    ///
    /// Writers that are faster than eviction wait for it. All files count, the indexes too.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Options {
        self.capacity = Some(bytes);
        self
    }

    /// The memory of the hot cache, in bytes: it holds verified copies of what is read often, and all of it
    /// is counted. None by default. Entries of more than an eighth of it are not held.
    ///
    /// What is read is the same with and without it, also while others write. It pays where what is
    /// stored does not fit into the memory of the machine, and for values above some KiB that are verified
    /// on every read. Reads with a [`cache_ttl`](crate::ReadOptions::cache_ttl) always use it, others where
    /// they gain by it, which is measured while they are served. Reads of many keys go around it.
    #[must_use]
    pub fn cache(mut self, bytes: u64) -> Options {
        self.cache = bytes;
        self
    }

    /// The clock that expires entries.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Options {
        self.clock = clock;
        self
    }

    /// The file system under the store.
    #[must_use]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Options {
        self.vfs = vfs;
        self
    }

    /// Opens a store that keeps no threads: what they would do happens in [`Store::step`], so that in a
    /// simulation everything has its place in one order. Opening may still copy half of a large table in a
    /// second thread, which is gone when it returns. Not together with a [capacity](Options::capacity), at
    /// which writers wait for what only a thread does.
    #[doc(hidden)]
    #[must_use]
    pub fn without_threads(mut self) -> Options {
        self.has_threads = false;
        self
    }

    /// Opens the store in this directory, which belongs to it alone.
    ///
    /// # Errors
    /// `Locked`, `NotAStore`, `UnsupportedFormat`, `Corrupt` if the log has a hole, or an I/O error.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path: PathBuf = path.as_ref().into();
        let mut core =
            crate::recovery::open(self.vfs, &path, self.clock, self.durability, self.create)?;
        if self.verify == Verify::FirstRead {
            core.keys.verify_once();
        }
        // The owner first: it stops the threads that were started, should another not start.
        let owner = Arc::new(Owner::of(Core {
            verify: self.verify,
            space: self.space,
            capacity: self.capacity.map(Capacity::new),
            hot: Hot::of(self.cache, core.clock.now()),
            ..core
        }));
        let core = Arc::clone(&owner.core);
        core.size_segments(&mut core.log.lock());
        if core.capacity.is_some() {
            core.work.wake();
        }
        if !core.table.is_settled() || core.is_deleting() {
            core.work.wake();
        }
        debug_assert!(!core.is_read_only, "it holds the lock");
        debug_assert!(core.space >= SPACE_MIN, "less would cost too much copying");
        if self.has_threads {
            start_threads(&owner)?;
        }
        Ok(Store(owner))
    }
}

fn start_threads(owner: &Owner) -> Result<()> {
    let core = &owner.core;
    let (work, maintained) = (Arc::clone(&core.work), Arc::clone(core));
    let maintain = move |idle| maintained.maintain(idle);
    let worker = Worker::start("rimstone-maintain", work, MAINTENANCE, maintain)?;
    owner.workers.lock().push(worker);
    let (ahead, core_ahead) = (Arc::clone(&core.ahead), Arc::clone(core));
    let go_ahead = move |_| core_ahead.go_ahead();
    let worker = Worker::start("rimstone-ahead", ahead, MAINTENANCE, go_ahead)?;
    owner.workers.lock().push(worker);
    // Apart from maintenance, which may be busy for long.
    let (pages, merged) = (Arc::clone(&core.pages), Arc::clone(core));
    let merge = move |_| merged.keys.merge_memtable();
    let worker = Worker::start("rimstone-pages", pages, MAINTENANCE, merge)?;
    owner.workers.lock().push(worker);
    let every = match core.durability {
        Durability::Interval(every) => every.max(INTERVAL_MIN),
        _ => MAINTENANCE,
    };
    let (flush, flushed) = (Arc::clone(&core.flush), Arc::clone(core));
    let flush_in_turn = move |_| flushed.flush_in_turn();
    let worker = Worker::start("rimstone-flush", flush, every, flush_in_turn)?;
    owner.workers.lock().push(worker);
    debug_assert!(
        owner.workers.lock().len() >= 4,
        "all are stopped on closing"
    );
    Ok(())
}

impl Options {
    /// Opens the store in this directory as it is now, to read it: nothing is written, and nobody is kept
    /// from writing. Another process may have it open, and go on writing: what it writes is seen after
    /// [`refresh`](Store::refresh). Writes to the store that is returned fail with `ReadOnly`.
    /// It has no hot cache and no capacity, whatever the options say.
    ///
    /// # Errors
    /// `NotAStore`, `UnsupportedFormat`, `Corrupt` if the log has a hole, or an I/O error, `NotFound` where
    /// there is no store.
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Store> {
        let core = crate::recovery::read(&self.vfs, path.as_ref(), &self.clock)?;
        debug_assert!(core.is_read_only);
        debug_assert!(core.capacity.is_none());
        debug_assert!(core.hot.is_none());
        Ok(Store::of(Core {
            verify: self.verify,
            ..core
        }))
    }
}

impl Options {
    /// Reads everything in this directory, without writing to it, and returns what is damaged: every record's
    /// header, key and value, large values, checkpoints, key runs and `CURRENT`. Another process may have
    /// the store open; what it writes meanwhile is not looked at. `progress` is told, after every MiB or
    /// so, how many bytes were read and of how many about; who wants to be slower waits in there.
    ///
    /// # Errors
    /// `NotAStore`, `UnsupportedFormat`, or an I/O error.
    pub fn scrub(
        self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Vec<Damage>> {
        let path = path.as_ref();
        let (core, refused) = match crate::recovery::read(&self.vfs, path, &self.clock) {
            Ok(core) => (core, None),
            Err(error @ Error::Corrupt { .. }) => {
                let refused = Damage::of(&error, Loss::Records);
                match crate::recovery::salvage(&self.vfs, path, &self.clock) {
                    Ok(salvaged) => (salvaged.core, refused),
                    Err(Error::Corrupt { .. }) => return Ok(Vec::from_iter(refused)),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        core.scrub_all(refused, &mut progress)
    }
}

impl Options {
    /// Makes `dir`, an empty or new directory, a store with what a backup holds, after all of that was read
    /// and verified; `progress` is as for [`scrub`](Options::scrub). Everything is copied, so that the backup
    /// stays what it is. If it fails or the power does, `dir` does not open.
    ///
    /// # Errors
    /// `NotEmpty`; `Corrupt` if the backup has damage that loses anything; as for
    /// [`open_read_only`](Options::open_read_only), or an I/O error.
    pub fn restore(
        self,
        backup: impl AsRef<Path>,
        dir: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let found = self.clone().scrub(&backup, progress)?;
        let mut lost = found.into_iter().filter(Damage::is_loss);
        if let Some(damage) = lost.next() {
            return Err(Error::Corrupt {
                path: damage.path,
                offset: damage.offset,
                reason: damage.reason,
            });
        }
        self.open_read_only(backup)?.copy_to(dir.as_ref(), false)
    }
}

impl Options {
    /// Makes `into`, an empty or new directory, a store with all that can be read of the one in `dir`, which
    /// stays as it is, and tells what could not be kept. The log alone decides, so that damaged checkpoints
    /// and key runs cost nothing. A key whose newest value is damaged, or is known to be gone, is left out
    /// and named; where nobody can tell what a damaged part of the log held, keys in it have what they
    /// held before, unless the newest checkpoint knows better. Namespaces keep their ids and entries their metadata and expiration; generations
    /// are new. It takes as much space again as what is live. `progress` is as for [`scrub`](Options::scrub).
    /// If it fails, `into` does not open.
    ///
    /// # Errors
    /// `NotEmpty`, `Locked`, `NotAStore`, `UnsupportedFormat`, `Corrupt` if no segment can be read, `Full`, or
    /// an I/O error.
    pub fn repair(
        self,
        dir: impl AsRef<Path>,
        into: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Repaired> {
        let (dir, into) = (dir.as_ref(), into.as_ref());
        crate::repair::repair(&self.vfs, dir, into, &self.clock, &mut progress)
    }
}
