//! The keys of the store in order, for `list`: the memtable and the run files.

use std::cell::Cell;
use std::io;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::runs::{
    self, Frozen, KeyRecord, Memtable, MergeError, Outcome, Query, Run, RunBytes, RunDamage,
    RunWriter, Sources, cursor, pick_merge,
};
use crate::error::{Error, Result, io_error};
use crate::format::run;
use crate::list::{ListOptions, ListedKey, Page};
use crate::mem::Map;
use crate::namespaces::{NamespaceId, State, View};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::vfs::{Output, Vfs, VfsFile};

/// Records examined for one page at most, for each key asked for: a range full of dead keys gives a
/// short page and a cursor instead of a stall.
const WORK_PER_KEY: usize = 20;
const WORK_MIN: usize = 1000;
const _: () = assert!(WORK_MIN >= WORK_PER_KEY && WORK_PER_KEY > 1);
/// Records to be merged for each run but one that a page asks, and for each so many keys that it then lists. A run
/// more costs a page of one about 1 µs and a page of 1000 about 10; merging a record takes 0.2 µs of a thread
/// that nobody waits for.
const RECORDS_PER_RUN: u64 = 32;
const KEYS_PER_RECORD: u64 = 4;

/// The ordered index: the newest keys in memory, the others in run files.
pub(crate) struct Keys {
    memtable: Memtable,
    /// Held by the thread that merges what lies in memory.
    merging: Mutex<()>,
    older: RwLock<Older>,
    /// Whether pages verify a block of a run when it is first read, rather than whenever it is.
    verifies_once: bool,
    /// Records that were worth merging into one run, for all the runs that pages asked since that was done.
    asked: AtomicU64,
}

/// What the memtable no longer holds.
#[derive(Default)]
struct Older {
    /// Newest first: keys on their way into a run.
    frozen: Vec<Arc<Frozen>>,
    /// Newest first.
    runs: Vec<Arc<Run>>,
}

impl Keys {
    pub(crate) fn new(runs: Vec<Arc<Run>>) -> Keys {
        let older = Older {
            frozen: Vec::new(),
            runs,
        };
        Keys {
            memtable: Memtable::new(),
            merging: Mutex::default(),
            older: RwLock::new(older),
            verifies_once: false,
            asked: AtomicU64::new(0),
        }
    }

    /// Has pages verify a block of a run when it is first read.
    pub(crate) fn verify_once(&mut self) {
        self.verifies_once = true;
        self.older
            .read()
            .runs
            .iter()
            .for_each(|run| run.verify_once());
    }

    /// A run that pages will read, if there is one.
    fn listed(&self, run: Option<Arc<Run>>) -> Option<Arc<Run>> {
        run.inspect(|run| {
            if self.verifies_once {
                run.verify_once();
            }
        })
    }

    /// Takes changes in sequence order; a page sees all of a call or nothing.
    pub(crate) fn apply<'a>(&self, changes: impl IntoIterator<Item = KeyRecord<'a>>) {
        self.memtable.insert(changes);
    }

    /// Whether merging what lies in memory would make pages cheaper than it costs.
    pub(crate) fn wants_memtable_merge(&self) -> bool {
        self.memtable.wants_merge()
    }

    /// Merges what lies in memory, if that is worth it and nobody is about to.
    pub(crate) fn merge_memtable(&self) {
        if let Some(_alone) = self.merging.try_lock()
            && self.memtable.wants_merge()
        {
            self.memtable.merge();
        }
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        let frozen: usize = self.older.read().frozen.iter().map(|f| f.bytes()).sum();
        self.memtable.bytes() + frozen
    }

    /// The ids of the runs, newest first.
    pub(crate) fn run_ids(&self) -> Vec<u64> {
        self.older.read().runs.iter().map(|run| run.id()).collect()
    }

    /// Sets the memtable's keys apart, to be written to a run.
    pub(crate) fn freeze(&self) {
        let mut older = self.older.write();
        let frozen = self.memtable.freeze();
        if frozen.len() > 0 {
            older.frozen.insert(0, frozen);
        }
    }

    /// Writes the frozen keys to a run. `is_dead` says of a record that nobody will ask for it again.
    /// Called by one thread at a time, as is [`merge`](Keys::merge).
    pub(crate) fn write_frozen(
        &self,
        files: &RunFiles<'_>,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
    ) -> Result<()> {
        let (frozen, bottom) = {
            let older = self.older.read();
            (older.frozen.clone(), older.runs.is_empty())
        };
        if frozen.is_empty() {
            return Ok(());
        }
        let count = frozen.len();
        let sources = Sources {
            frozen,
            ..Sources::default()
        };
        let Written::All(run) = files.write(&sources, bottom, is_dead)? else {
            return Ok(());
        };
        let mut older = self.older.write();
        // Keys that were frozen meanwhile are newer, and stay in front.
        debug_assert!(
            older.frozen.len() >= count,
            "nobody else takes frozen keys away"
        );
        debug_assert!(older.frozen.iter().all(|frozen| frozen.len() > 0));
        let left = older.frozen.len().saturating_sub(count);
        older.frozen.truncate(left);
        older.runs.splice(0..0, self.listed(run));
        debug_assert!(are_different(&older.runs), "each run once");
        Ok(())
    }

    /// Merges the runs that most need it into one; false if none do.
    pub(crate) fn merge(
        &self,
        files: &RunFiles<'_>,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
    ) -> Result<bool> {
        let runs = self.older.read().runs.clone();
        let sizes: Vec<u64> = runs.iter().map(|run| run.summary().bytes).collect();
        match pick_merge(&sizes) {
            Some(picked) => self.merge_these(picked, &runs, files, is_dead),
            None => Ok(false),
        }
    }

    /// Whether one run instead of several would have made pages cheaper by what is worth a merge of all.
    pub(crate) fn wants_one_run(&self) -> bool {
        let older = self.older.read();
        let records = older.runs.iter().map(|run| run.summary().records);
        older.runs.len() > 1 && self.asked.load(Ordering::Relaxed) >= records.sum()
    }

    /// Merges all runs into one, unless `files` tell it to stop; whether it did. Called as
    /// [`merge`](Keys::merge) is.
    pub(crate) fn merge_all(
        &self,
        files: &RunFiles<'_>,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
    ) -> Result<bool> {
        let runs = self.older.read().runs.clone();
        self.merge_these(0..runs.len(), &runs, files, is_dead)
    }

    fn merge_these(
        &self,
        picked: Range<usize>,
        runs: &[Arc<Run>],
        files: &RunFiles<'_>,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
    ) -> Result<bool> {
        debug_assert!(picked.len() > 1);
        debug_assert!(picked.end <= runs.len());
        if picked == (0..runs.len()) {
            // What cannot be done now is not tried again before pages asked as much again.
            self.asked.store(0, Ordering::Relaxed);
        }
        let bottom = picked.end == runs.len();
        // What became damaged since a page verified it must not get a checksum that is right.
        let again = |run: &Arc<Run>| {
            let again = run.verified_always().map(Arc::new);
            again.map_err(|damage| {
                corrupt(&RunDamage {
                    run: run.id(),
                    damage,
                })
            })
        };
        let merged = runs.get(picked.clone()).unwrap_or_default();
        let sources = Sources {
            runs: merged.iter().map(again).collect::<Result<_>>()?,
            ..Sources::default()
        };
        let Written::All(run) = files.write(&sources, bottom, is_dead)? else {
            return Ok(false);
        };
        let mut older = self.older.write();
        debug_assert_eq!(older.runs.len(), runs.len(), "nobody else changes the runs");
        older.runs.splice(picked, self.listed(run));
        debug_assert!(are_different(&older.runs), "each run once");
        debug_assert!(older.runs.len() < runs.len(), "fewer than before");
        Ok(true)
    }

    /// Everything as it is at one moment.
    fn sources(&self) -> Sources {
        let older = self.older.read();
        Sources {
            memtable: self.memtable.snapshot(),
            frozen: older.frozen.clone(),
            runs: older.runs.clone(),
        }
    }

    /// Gives one page of the keys that a namespace holds at one moment, at time `now`, to `f`; the cursor of the
    /// next page.
    pub(crate) fn each_of(
        &self,
        state: &State,
        options: &ListOptions,
        secret: &[u8; 16],
        now: u64,
        f: impl FnMut(ListedKey<'_>),
    ) -> Result<Option<String>> {
        // With a view from before, a page could show what a deletion takes away beside what was put after it.
        let (view, sources) = state.held(|| self.sources())?;
        let (mut f, mut listed) = (f, 0);
        let cursor = Keys::each(&sources, &view, options, secret, now, |key| {
            listed += 1;
            f(key);
        });
        debug_assert!(listed <= options.limit as u64, "no more than was asked for");
        if let more @ 1.. = (sources.runs.len() as u64).saturating_sub(1) {
            let worth = more * (RECORDS_PER_RUN + listed / KEYS_PER_RECORD);
            self.asked.fetch_add(worth, Ordering::Relaxed);
        }
        cursor
    }

    /// One page of the keys that a view of a namespace shows.
    pub(crate) fn list(
        &self,
        view: &View,
        options: &ListOptions,
        secret: &[u8; 16],
        now: u64,
    ) -> Result<Page> {
        let sources = self.sources();
        Page::of(options.limit, |page| {
            Keys::each(&sources, view, options, secret, now, page)
        })
    }

    fn each(
        sources: &Sources,
        view: &View,
        options: &ListOptions,
        secret: &[u8; 16],
        now: u64,
        mut f: impl FnMut(ListedKey<'_>),
    ) -> Result<Option<String>> {
        let print = cursor::Fingerprint {
            namespace: fingerprint(view.id),
            prefix: &options.prefix,
            start: options.start.as_deref(),
            end: options.end.as_deref(),
            reverse: options.reverse,
        };
        let after = match &options.cursor {
            Some(text) => Some(cursor::decode(secret, &print, text).ok_or(Error::InvalidCursor)?),
            None => None,
        };
        let prefix_end = successor(&options.prefix);
        let start = options
            .start
            .as_deref()
            .unwrap_or_default()
            .max(&options.prefix[..]);
        let end = match (options.end.as_deref(), prefix_end.as_deref()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let (mut lower, mut upper) = (Bound::Included(start), Bound::Unbounded);
        if let Some(end) = end {
            upper = Bound::Excluded(end);
        }
        match (&after, options.reverse) {
            (Some(key), false) => lower = Bound::Excluded(key),
            (Some(key), true) => upper = Bound::Excluded(key),
            (None, _) => {}
        }
        let limit = options.limit;
        debug_assert!(limit > 0, "a page has room for a key");
        let work = limit.saturating_mul(WORK_PER_KEY).max(WORK_MIN);
        let query = Query {
            namespace: view.number,
            deletions: view.deletions(),
            lower,
            upper,
            limit,
            reverse: options.reverse,
            now,
            work,
        };
        let outcome = runs::list(sources, &query, |record| {
            debug_assert!(
                record.key.starts_with(&options.prefix),
                "a page holds what was asked for"
            );
            f(ListedKey {
                name: record.key,
                metadata: record.metadata,
                expiration: (record.expiration != 0).then_some(record.expiration),
                seqno: record.seqno,
            });
        });
        match outcome.map_err(|damage| corrupt(&damage))? {
            Outcome::More { after } => Ok(Some(cursor::encode(secret, &print, &after))),
            Outcome::Complete => Ok(None),
        }
    }
}

/// Where run files are written and read.
pub(crate) struct RunFiles<'a> {
    pub(crate) vfs: &'a dyn Vfs,
    pub(crate) dir: &'a Path,
    pub(crate) store: [u8; 16],
    pub(crate) next_id: &'a dyn Fn() -> u64,
    /// Asked before each block that is written: whether the run should be given up.
    pub(crate) is_stopped: &'a dyn Fn() -> bool,
}

/// What became of a run.
enum Written {
    /// It has all records; `None` if there are none.
    All(Option<Arc<Run>>),
    Stopped,
}

impl RunFiles<'_> {
    /// Writes the newest record of every key to a run, which is durable and open on return.
    fn write(
        &self,
        sources: &Sources,
        bottom: bool,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
    ) -> Result<Written> {
        let id = (self.next_id)();
        let path = self.path(id);
        let stopped = Cell::new(false);
        let made = self.create(&path, id, sources, bottom, is_dead, &stopped);
        if !matches!(made, Ok(Some(_))) {
            // Nothing names the file; if it cannot be removed, the next open does.
            let _ = self.vfs.remove(&path);
        }
        match made {
            Err(_) if stopped.get() => Ok(Written::Stopped),
            made => made.map(Written::All),
        }
    }

    fn create(
        &self,
        path: &Path,
        id: u64,
        sources: &Sources,
        bottom: bool,
        is_dead: impl Fn(&KeyRecord<'_>) -> bool,
        stopped: &Cell<bool>,
    ) -> Result<Option<Arc<Run>>> {
        let writing = |e| io_error("writing", path, e);
        let file = self.vfs.create(path);
        let file = file.map_err(|e| io_error("creating", path, e))?;
        let mut out = Output::new(&*file, 0);
        let push = |block: &[u8]| {
            if (self.is_stopped)() {
                stopped.set(true);
                return Err(io::ErrorKind::Interrupted.into());
            }
            out.push(block)
        };
        let mut writer = RunWriter::new(self.store, id, push).map_err(writing)?;
        let merged = runs::merge(sources, bottom, is_dead, |record| writer.push(record));
        merged.map_err(|error| match error {
            MergeError::Damage(damage) => corrupt(&damage),
            MergeError::Io(error) => writing(error),
        })?;
        let summary = writer.finish().map_err(writing)?;
        out.flush().map_err(writing)?;
        debug_assert!(
            !bottom || summary.tombstones == 0,
            "at the bottom a tombstone hides nothing"
        );
        debug_assert!(summary.tombstones <= summary.records);
        if summary.records == 0 {
            return Ok(None);
        }
        file.sync().map_err(|e| io_error("flushing", path, e))?;
        let run = self.map(path, &*file)?;
        debug_assert_eq!(run.summary(), summary, "it is what was written");
        debug_assert_eq!((run.id(), run.store_id()), (id, self.store));
        Ok(Some(run))
    }

    /// Opens a run that a checkpoint names.
    pub(crate) fn open(&self, id: u64) -> Result<Arc<Run>> {
        let path = self.path(id);
        let file = self.vfs.open(&path);
        let file = file.map_err(|e| io_error("opening", &path, e))?;
        let run = self.map(&path, &*file)?;
        if run.id() == id && run.store_id() == self.store {
            return Ok(run);
        }
        Err(Error::Corrupt {
            path,
            offset: 0,
            reason: "the header is another run's",
        })
    }

    fn map(&self, path: &Path, file: &dyn VfsFile) -> Result<Arc<Run>> {
        let len = file.len().map_err(|e| io_error("reading", path, e))?;
        let map = file.map(usize::try_from(len).unwrap_or(usize::MAX));
        let map = map.map_err(|e| io_error("mapping", path, e))?;
        if let Some(found) = Run::newer_version(map.as_ref()) {
            let (path, supported) = (path.into(), run::VERSION);
            return Err(Error::UnsupportedFormat {
                path,
                found,
                supported,
            });
        }
        let run = Run::open(Arc::new(map)).map_err(|damage| Error::Corrupt {
            path: path.into(),
            offset: damage.offset,
            reason: damage.reason,
        })?;
        Ok(Arc::new(run))
    }

    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:016x}.run"))
    }
}

/// Whether each has an id of its own.
fn are_different(runs: &[Arc<Run>]) -> bool {
    let mut ids: Vec<u64> = runs.iter().map(|run| run.id()).collect();
    ids.sort_unstable();
    ids.is_sorted_by(|a, b| a < b)
}

fn corrupt(damage: &RunDamage) -> Error {
    Error::Corrupt {
        path: format!("{:016x}.run", damage.run).into(),
        offset: damage.damage.offset,
        reason: damage.damage.reason,
    }
}

impl RunBytes for Map {
    fn will_need(&self, start: usize, len: usize) {
        Map::will_need(self, start, len);
    }
}

/// A cursor stays good when a namespace gets another number, so it is of the id. That is random, and cursors
/// of two namespaces are mixed up by chance alone.
fn fingerprint(id: NamespaceId) -> u32 {
    let [a, b, c, d, ..] = id.0;
    u32::from_le_bytes([a, b, c, d])
}

/// The least key after all keys with this prefix, `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=keep)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.wrapping_add(1);
    }
    debug_assert!(
        end.as_slice() > prefix,
        "what begins with it is before its end"
    );
    Some(end)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests"
)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use crate::{Durability, ListOptions, Namespace, Options, Store, Verify};

    fn keys(ns: &Namespace) -> Vec<Vec<u8>> {
        let page = ns.list(&ListOptions::new().limit(2000)).unwrap();
        page.keys().map(|key| key.name.to_vec()).collect()
    }

    /// A store with two runs of which pages asked enough to make them one; its keys.
    fn two_runs(options: &Options, dir: &Path) -> (Store, Namespace, Vec<Vec<u8>>) {
        let store = options.clone().open(dir).unwrap();
        let ns = store.namespace("n").unwrap();
        let all: Vec<_> = (0..1100).map(|i| format!("{i:04}").into_bytes()).collect();
        for some in [&all[..1000], &all[1000..]] {
            for key in some {
                ns.put(key, "").unwrap();
            }
            store.checkpoint().unwrap();
        }
        ns.core().maintain(true);
        assert_eq!(store.stats().runs, 2, "nobody asked for a page");
        (0..4).for_each(|_| assert_eq!(keys(&ns), all));
        (store, ns, all)
    }

    #[test]
    fn runs_become_one_when_pages_have_paid_for_it_and_nobody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::None);
        let (store, ns, all) = two_runs(&options, dir.path());
        ns.core().maintain(true);
        assert_eq!(store.stats().runs, 1);
        assert_eq!(keys(&ns), all);
        drop(ns);
        store.close().unwrap();
        let store = options.open(dir.path()).unwrap();
        assert_eq!(store.stats().runs, 1, "a checkpoint keeps it");
        assert_eq!(keys(&store.namespace("n").unwrap()), all);
    }

    #[test]
    fn what_pages_do_not_verify_again_is_verified_before_it_is_copied() {
        for is_opened_again in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let options = Options::new().durability(Durability::None);
            let options = options.verify(Verify::FirstRead);
            let (mut store, mut ns, all) = two_runs(&options, dir.path());
            if is_opened_again {
                drop(ns);
                store.close().unwrap();
                store = options.open(dir.path()).unwrap();
                ns = store.namespace("n").unwrap();
                (0..4).for_each(|_| assert_eq!(keys(&ns), all));
            }
            for id in ns.core().keys.run_ids() {
                let path = dir.path().join(format!("{id:016x}.run"));
                let mut bytes = std::fs::read(&path).unwrap();
                // Of the length of the block before the first, which nobody who goes forward asks for.
                bytes[70] ^= 1;
                let file = std::fs::OpenOptions::new().write(true).open(&path);
                std::io::Write::write_all(&mut file.unwrap(), &bytes).unwrap();
            }
            assert_eq!(keys(&ns), all, "they were verified");
            ns.core().maintain(true);
            assert_eq!(store.stats().runs, 2);
            let error = store.stats().maintenance_error.unwrap();
            assert!(error.contains("checksum of a run block"), "{error}");
        }
    }

    #[test]
    fn runs_stay_as_they_are_when_the_store_is_closed_while_they_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::None);
        let (store, ns, all) = two_runs(&options, dir.path());
        let files = || {
            let files = std::fs::read_dir(dir.path()).unwrap();
            let names = files.map(|file| file.unwrap().file_name());
            let runs = names.filter(|name| name.to_string_lossy().ends_with(".run"));
            runs.collect::<BTreeSet<_>>()
        };
        let before = files();
        ns.core().work.stop();
        ns.core().maintain(true);
        assert_eq!(store.stats().maintenance_error, None, "it is no failure");
        assert_eq!((store.stats().runs, files()), (2, before));
        assert_eq!(keys(&ns), all);
        drop(ns);
        store.close().unwrap();
        let store = options.open(dir.path()).unwrap();
        assert_eq!(keys(&store.namespace("n").unwrap()), all);
    }
}
