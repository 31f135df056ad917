use std::path::Path;
use std::sync::Arc;

use crate::batch::WriteBatch;
use crate::clock::Clock;
use crate::core::Core;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::namespace::NamespaceBody;
use crate::format::record::Kind;
use crate::hot::{CacheStats, Hot};
use crate::log::commit::Op;
use crate::namespace::Namespace;
use crate::namespaces::{NAME_MAX, NamespaceId, State};
use crate::opening::Options;
use crate::space::SegmentSpace;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::worker::Worker;
use crate::writer::{BATCH_MAX, space};

/// How often a backup is tried of a store that another process goes on writing.
const BACKUPS_MAX: usize = 20;
const _: () = assert!(BACKUPS_MAX > 1, "it is tried again");

/// An open store. Clones share it; it is closed when the last of them, and of its namespaces, is
/// dropped.
///
/// It belongs to the process that opened it. In a child that was forked meanwhile nothing is written,
/// unlinked or unlocked: what would do so fails with `Forked`, as do lists and reads of large values, which take
/// locks that nobody there may ever let go. Gets of other values go on, past the hot cache. What returns no
/// error, as `stats`, takes such locks, too, and may wait for ever. A child that needs a store opens one itself.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Owner>);

/// What keeps a store open.
pub(crate) struct Owner {
    pub(crate) core: Arc<Core>,
    pub(crate) workers: Mutex<Vec<Worker>>,
}

impl Owner {
    pub(crate) fn of(core: Core) -> Owner {
        Owner {
            core: Arc::new(core),
            workers: Mutex::default(),
        }
    }
}

impl Store {
    /// Opens the store in this directory with default options, creating it if missing.
    ///
    /// # Errors
    /// As for [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Options::new().open(path)
    }

    /// Opens the store in this directory as it is now, to read it beside a process that writes.
    ///
    /// # Errors
    /// As for [`Options::open_read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Store> {
        Options::new().open_read_only(path)
    }

    /// Returns the store as it is now, if it was [opened for reading](Options::open_read_only): a clone of
    /// this one if nothing was written since, and else the newest state, read from the newest checkpoint
    /// and the log behind it. What was read from this one stays valid and as it is: it is the state of one
    /// instant, and lets its segments' files keep their space. One open for writing is always as it is now.
    ///
    /// # Errors
    /// As for [`Options::open_read_only`].
    pub fn refresh(&self) -> Result<Store> {
        let core = self.core();
        if !core.is_read_only || !core.is_outdated()? {
            return Ok(self.clone());
        }
        let options = Options::new().vfs(Arc::clone(&core.vfs));
        let options = options.clock(core.clock.clone()).verify(core.verify);
        options.open_read_only(&core.dir)
    }

    /// Returns the namespace of this name, creating it on first use.
    ///
    /// # Errors
    /// As for [`create_namespace`](Store::create_namespace), but for `NamespaceExists`.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        if let Some(namespace) = self.find_namespace(name) {
            return Ok(namespace);
        }
        match self.create_namespace(name) {
            // Another thread was faster.
            Err(Error::NamespaceExists { .. }) => {
                self.find_namespace(name).ok_or(Error::NoSuchNamespace)
            }
            other => other,
        }
    }

    /// Creates a namespace of this name, of 1 to 2048 bytes.
    ///
    /// # Errors
    /// `NamespaceExists` if the name is taken, `TooLarge`, `Full`, `Poisoned`, or an I/O error.
    pub fn create_namespace(&self, name: &str) -> Result<Namespace> {
        let core = self.core();
        core.origin.check()?;
        let _naming = core.naming.lock();
        self.check_name(name)?;
        let mut id = [0u8; 16];
        crate::log::appender::random(&*core.vfs, &mut id)?;
        let number = core.namespaces.next_number();
        let body = NamespaceBody {
            id,
            name: name.into(),
            ..NamespaceBody::default()
        };
        self.commit_namespace(number, &body)?;
        let state = core
            .namespaces
            .by_number(number)
            .ok_or(Error::NoSuchNamespace)?;
        debug_assert_eq!(state.id, NamespaceId(id), "the number is its own");
        Ok(self.handle(state))
    }

    /// The namespace of this name.
    #[must_use]
    pub fn find_namespace(&self, name: &str) -> Option<Namespace> {
        self.core()
            .namespaces
            .by_name(name)
            .map(|state| self.handle(state))
    }

    /// The namespace of this id.
    #[must_use]
    pub fn namespace_by_id(&self, id: NamespaceId) -> Option<Namespace> {
        self.core()
            .namespaces
            .by_id(id)
            .map(|state| self.handle(state))
    }

    /// All namespaces, in the order of their creation; one of which everything was
    /// [deleted](Namespace::delete_prefix) comes as if it had been created then.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.core()
            .namespaces
            .all()
            .into_iter()
            .map(|state| self.handle(state))
            .collect()
    }

    /// Renames a namespace; its id and content stay.
    ///
    /// # Errors
    /// `NoSuchNamespace`, `NamespaceExists` if another has the name, and as for a put.
    pub fn rename_namespace(&self, id: NamespaceId, name: &str) -> Result<()> {
        self.core().origin.check()?;
        let _naming = self.core().naming.lock();
        let namespace = self.namespace_by_id(id).ok_or(Error::NoSuchNamespace)?;
        if namespace.name() == name {
            return Ok(());
        }
        self.check_name(name)?;
        let mut body = namespace.state.body(false);
        body.name = name.into();
        self.commit_namespace(namespace.state.number(), &body)
    }

    /// Drops a namespace with all it holds: one record in the log, at once, at any size.
    ///
    /// # Errors
    /// `NoSuchNamespace`, and as for a put.
    pub fn drop_namespace(&self, id: NamespaceId) -> Result<()> {
        self.core().origin.check()?;
        let _naming = self.core().naming.lock();
        let namespace = self.namespace_by_id(id).ok_or(Error::NoSuchNamespace)?;
        let body = namespace.state.body(true);
        self.commit_namespace(namespace.state.number(), &body)?;
        self.core().work.wake();
        Ok(())
    }

    /// Writes a batch: all of it or nothing.
    ///
    /// # Errors
    /// As for [`Namespace::put_with`], and `TooLarge` if the batch exceeds 32 MiB, values above
    /// 64 KiB not counted.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        if !batch.is_within(&self.0) {
            return Err(Error::NoSuchNamespace);
        }
        self.core().origin.check()?;
        let durability = batch.durability.unwrap_or(self.core().durability);
        let ops = batch.into_ops()?;
        let len: usize = ops.iter().map(space).sum();
        if len > BATCH_MAX {
            self.core().remove_larges(&ops);
            let (len, max) = (u64::try_from(len).unwrap_or(u64::MAX), BATCH_MAX as u64);
            return Err(Error::TooLarge {
                what: "batch",
                len,
                max,
            });
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.core()
            .commit(ops, self.core().is_immediate(durability))
            .map(drop)
    }

    /// Makes every acknowledged write durable, whatever its durability.
    ///
    /// # Errors
    /// `Poisoned`, or an I/O error, after which the store is poisoned.
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// Writes a checkpoint, so that the next open replays only what is written after it. The store does
    /// this by itself as the log grows.
    ///
    /// # Errors
    /// `Full`, `Poisoned`, `Corrupt` if the table or the key runs of the one that was opened are damaged, or an
    /// I/O error; the checkpoints before it stay.
    pub fn checkpoint(&self) -> Result<()> {
        let core = self.core();
        core.origin.check()?;
        let mut maintenance = core.maintenance.lock();
        // Under the lock: who closes the store holds it, too.
        core.check_writable()?;
        core.checkpoint(&mut maintenance)
    }

    /// Compacts the store: copies what is live out of every segment of which a tenth was overwritten,
    /// deleted, dropped with its namespace, or expired more than an hour ago, and removes those segments.
    /// Tombstones go once no older segment may hold their keys. Returns the bytes that became free. The
    /// store does this by itself when it takes more than [its bound](Options::space_amplification); large
    /// values are never copied.
    ///
    /// # Errors
    /// `Full`, `Poisoned`, `Corrupt` as for [`checkpoint`](Store::checkpoint), or an I/O error; nothing is lost.
    pub fn compact(&self) -> Result<u64> {
        self.compact_with(|_, _| {})
    }

    /// As [`compact`](Store::compact), and tells from time to time how many bytes of segments are done with,
    /// and of how many.
    ///
    /// # Errors
    /// As for [`compact`](Store::compact).
    pub fn compact_with(&self, progress: impl FnMut(u64, u64)) -> Result<u64> {
        let core = self.core();
        core.origin.check()?;
        let before = self.stats().disk_bytes;
        {
            let mut maintenance = core.maintenance.lock();
            core.check_writable()?;
            core.remove_garbage(true)?;
            let moved = core
                .carry_out_all(&mut maintenance)
                .and_then(|()| core.compact_all(&mut maintenance, progress));
            // A retired segment goes once both checkpoints are past it: also when the disk is full.
            if !maintenance.retired.is_empty() {
                core.checkpoint(&mut maintenance)?;
                core.checkpoint(&mut maintenance)?;
            }
            core.remove_garbage(true)?;
            moved?;
        }
        Ok(before.saturating_sub(self.stats().disk_bytes))
    }

    /// Does once what the threads would do that a store [without them](Options::without_threads) does not
    /// have; when `idle`, also what they leave for when there is nothing else to do. What fails is told as if they had
    /// done it.
    #[doc(hidden)]
    pub fn step(&self, idle: bool) {
        let core = self.core();
        core.go_ahead();
        core.keys.merge_memtable();
        core.maintain(idle);
        core.flush_in_turn();
    }

    /// Reads everything the store holds beside its readers and writers, and returns what is damaged; as
    /// [`Options::scrub`] does of a directory. What is written meanwhile is not looked at.
    ///
    /// # Errors
    /// An I/O error.
    pub fn scrub(&self, mut progress: impl FnMut(u64, u64)) -> Result<Vec<Damage>> {
        self.core().origin.check()?;
        self.core().scrub(&mut progress)
    }

    /// Makes `dest`, an empty or new directory, a store with exactly the state of one sequence number: all
    /// that was acknowledged before the call and nothing that is written after it returns. Reads and writes
    /// go on; compaction, eviction and checkpoints wait. Files are hard links where the file system allows it, so that
    /// a backup takes little time and space, and copies elsewhere. If it fails or the power does, `dest`
    /// does not open. Of a store that was [opened for reading](Options::open_read_only) it is the state
    /// as it was read, or a newer one.
    ///
    /// # Errors
    /// `NotEmpty`, `Outdated` if the writer goes on faster than files can be linked, as for
    /// [`checkpoint`](Store::checkpoint), or an I/O error.
    pub fn backup(&self, dest: impl AsRef<Path>) -> Result<()> {
        self.copy_to(dest.as_ref(), true)
    }

    pub(crate) fn copy_to(&self, dest: &Path, may_link: bool) -> Result<()> {
        self.core().origin.check()?;
        let mut store = self.clone();
        for _ in 1..BACKUPS_MAX {
            match store.core().copy_to(dest, may_link) {
                Err(Error::Outdated) => store = store.refresh()?,
                done => return done,
            }
        }
        store.core().copy_to(dest, may_link)
    }

    /// Closes the store: everything is durable when this returns, and later writes fail with
    /// `Poisoned`. Dropping the last handle does the same, without telling of errors.
    ///
    /// # Errors
    /// As for [`sync`](Store::sync).
    pub fn close(self) -> Result<()> {
        self.0.close()
    }

    /// Whether a write or flush failed, so that nothing is written until the store is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.core().poisoned.load(Ordering::Acquire)
    }

    /// Numbers about the store, as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let (last_seqno, durable_seqno) = {
            let log = core.log.lock();
            (log.seqno, log.durable)
        };
        let segments: Vec<_> = core.segments.all().into_iter().map(|(_, s)| s).collect();
        debug_assert!(durable_seqno <= last_seqno, "what is durable was given out");
        let (evicted_keys, evicted_bytes) = core.evicted();
        Stats {
            evicted_keys,
            evicted_bytes,
            stuck_segments: core.stuck.load(Ordering::Relaxed),
            keys: u64::try_from(core.table.len()).unwrap_or(u64::MAX),
            namespaces: u64::try_from(core.namespaces.all().len()).unwrap_or(u64::MAX),
            segments: u64::try_from(segments.len()).unwrap_or(u64::MAX),
            runs: u64::try_from(core.keys.run_ids().len()).unwrap_or(u64::MAX),
            disk_bytes: core.disk_bytes(),
            live_bytes: core.live_bytes(),
            held_bytes: core.held_bytes(),
            behind_bytes: core.brake.debt(),
            checkpoint_seqno: core.checkpointed.load(Ordering::Relaxed),
            index_bytes: u64::try_from(core.table.bytes() + core.keys.bytes()).unwrap_or(0),
            last_seqno,
            durable_seqno,
            cache: core.hot.as_ref().map(Hot::stats),
            poisoned: core.poisoned.load(Ordering::Acquire),
            maintenance_error: core.trouble.lock().clone(),
            damage: core.damage(),
        }
    }

    /// What each front and class segment holds, oldest first. What expired counts as such in the next
    /// minutes to weeks, as expirations are counted by ranges of time; what was dropped with its namespace,
    /// once compaction looked.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSpace> {
        self.core().space()
    }

    /// The clock that expires entries.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.core().clock
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// A store without threads, which only reads.
    pub(crate) fn of(core: Core) -> Store {
        Store(Arc::new(Owner::of(core)))
    }

    fn handle(&self, state: Arc<State>) -> Namespace {
        Namespace {
            owner: Arc::clone(&self.0),
            state,
        }
    }

    fn check_name(&self, name: &str) -> Result<()> {
        if name.len() > NAME_MAX {
            let (len, max) = (
                u64::try_from(name.len()).unwrap_or(u64::MAX),
                NAME_MAX as u64,
            );
            return Err(Error::TooLarge {
                what: "namespace name",
                len,
                max,
            });
        }
        if name.is_empty() {
            return Err(Error::EmptyName);
        }
        match self.find_namespace(name) {
            Some(_) => Err(Error::NamespaceExists { name: name.into() }),
            None => Ok(()),
        }
    }

    fn commit_namespace(&self, number: u32, body: &NamespaceBody) -> Result<()> {
        debug_assert!(
            self.core().naming.is_locked(),
            "one name or number could be given twice"
        );
        debug_assert!(number > 0);
        debug_assert!(body.name.len() <= NAME_MAX);
        let op = Op::keyless(Kind::Namespace, number, body.encode());
        self.core().commit(vec![op], true).map(drop)
    }
}

impl Owner {
    fn close(&self) -> Result<()> {
        let core = &self.core;
        core.origin.check()?;
        // Held to the end: who closes at the same time answers when everything is durable, too.
        let mut workers = self.workers.lock();
        workers.drain(..).for_each(Worker::stop);
        let mut maintenance = core.maintenance.lock();
        let Some(_held_until_the_end) = core.lock.lock().take() else {
            let log = core.log.lock();
            let is_durable = log.durable == log.seqno;
            return is_durable.then_some(()).ok_or(Error::Poisoned);
        };
        let result = core.sync();
        if result.is_ok() {
            // Without it, the next open replays a little more.
            let _ = core.checkpoint_to_close(&mut maintenance);
            core.note_end();
            // Tells the next open that everything before it is durable. On a full disk that open
            // does a little more instead.
            let _ = core.commit(vec![Op::keyless(Kind::Close, 0, Vec::new())], true);
        }
        // Under the log's lock: a leader that is still at work finishes before the store is let go.
        let mut log = core.log.lock();
        debug_assert!(
            log.buffered() == 0 || core.poisoned.load(Ordering::Acquire),
            "nothing that somebody waits for is left"
        );
        log.forget_spare();
        core.poison();
        result
    }
}

impl Owner {
    /// Lets go of what is another process's, without touching what both have.
    fn leave(&mut self) {
        // These threads run there and nowhere else: there is nothing to join or detach.
        let workers = std::mem::take(self.workers.get_mut());
        workers.into_iter().for_each(std::mem::forget);
        // What those threads refer to is never freed here, but should not keep the directory locked.
        if let Some(mut lock) = self.core.lock.try_lock() {
            drop(lock.take());
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.core.origin.is_elsewhere() {
            return self.leave();
        }
        let _ = self.close();
    }
}

/// Numbers about a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the table: live ones, and expired ones not yet reclaimed.
    pub keys: u64,
    /// Namespaces that exist.
    pub namespaces: u64,
    /// Front and class segments.
    pub segments: u64,
    /// Key runs, which listing reads.
    pub runs: u64,
    /// Bytes of all files of the store.
    pub disk_bytes: u64,
    /// Bytes of records that the table points to.
    pub live_bytes: u64,
    /// Bytes of segments that compaction gave up and that readers still hold on to.
    pub held_bytes: u64,
    /// Segments that compaction gave up on since the store was opened, as they are damaged: they stay, and so does
    /// their garbage. [`maintenance_error`](Stats::maintenance_error) says why.
    pub stuck_segments: u64,
    /// How many bytes compaction is behind; writers wait a little while it is.
    pub behind_bytes: u64,
    /// Keys and bytes that were evicted since the store was opened, to keep its
    /// [capacity](Options::capacity).
    pub evicted_keys: u64,
    /// See [`evicted_keys`](Stats::evicted_keys).
    pub evicted_bytes: u64,
    /// Bytes of memory in both indexes.
    pub index_bytes: u64,
    /// The hot cache, if there is one.
    pub cache: Option<CacheStats>,
    /// The newest sequence number given out.
    pub last_seqno: u64,
    /// The newest sequence number known to be durable.
    pub durable_seqno: u64,
    /// The sequence number of the newest checkpoint, from which opening replays; 0 without one.
    pub checkpoint_seqno: u64,
    /// Why the last checkpoint, merge or removal of files failed; it is tried again.
    pub maintenance_error: Option<String>,
    /// Whether a failed write or flush stopped all writing.
    pub poisoned: bool,
    /// What was found damaged when the store was opened, and of its table since, one sentence each. The
    /// store is degraded if there is any.
    pub damage: Vec<String>,
}
