//! Opening: map the newest checkpoint, replay what follows it in the log, make the log's tail
//! durable, begin a new epoch. Without a checkpoint all of the log is replayed.

mod apply;
mod files;
mod moves;
mod read;
mod rebuild;
mod replay;
mod salvage;
mod scanned;
mod slots;
mod tail;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::files::{Chain, Files, SegmentFile, missing};
use self::replay::Replay;
use self::tail::Tail;
use crate::brake::Brake;
use crate::clock::Clock;
use crate::core::Core;
use crate::damage::{Damage, Loss};
use crate::error::{Error, Result, io_error};
use crate::format::checkpoint::{DATA_START, Header, Meta, Retired, file_name};
use crate::format::segment::{Kind, StoreId};
use crate::index::checkpoint::{self, CURRENT, Checkpoint, TABLE_DAMAGE};
use crate::index::keys::RunFiles;
use crate::index::runs::Run;
use crate::log::appender::{Appender, Start, random};
use crate::log::mapped::Mapped;
use crate::log::segment::{Segment, segment_path};
use crate::maintenance::{Kept, Maintenance};
use crate::mem::Origin;
use crate::options::{Durability, Verify};
use crate::reserve::Reserve;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::vfs::Vfs;

pub(crate) use self::files::LOCK;
pub(crate) use self::read::read;
pub(crate) use self::replay::DAMAGED;
pub(crate) use self::salvage::{Salvaged, salvage};
pub(crate) use self::slots::{Slots, Standing};

/// Space that a store may take, in percent of what is live, if nobody says otherwise.
pub(crate) const SPACE: u64 = 130;

/// Opens the store in `dir`, creating it if `create` says so.
pub(crate) fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    clock: Clock,
    durability: Durability,
    create: bool,
) -> Result<Core> {
    if create {
        make_dir(&*vfs, dir)?;
    }
    // Look before locking, so that a directory that is no store stays untouched.
    let files = Files::list(&*vfs, dir)?;
    if !create {
        check_there(&files, dir)?;
    } else if files.segments.is_empty() {
        // Whoever made the first segment has made the directory's name durable before.
        sync_name(&*vfs, dir)?;
    }
    let lock = take_lock(&*vfs, dir)?;
    // Look again: the last owner may have changed the files until it let go of the lock.
    let files = Files::list(&*vfs, dir)?;
    files.ask_ahead(&*vfs, dir);

    let mut damage = Vec::new();
    let Replayed {
        mut replay,
        tail,
        mut strays,
        mut maintenance,
        is_current,
    } = replayed(&*vfs, dir, &files, &clock, &mut damage)?;

    for path in &files.unfinished {
        vfs.remove(path)
            .map_err(|e| io_error("removing", path, e))?;
    }
    debug_assert!(replay.durable <= replay.seqno, "no higher");
    let epoch = tail.epoch.saturating_add(1);
    // Above every id of the epochs before, also of files that are gone.
    let first_file = epoch << 32;
    let start = Start {
        kind: Kind::Front,
        store: replay.id,
        id: first_file,
        epoch,
        previous: tail.previous,
        previous_len: tail.previous_len,
        seqno: replay.durable,
        time: clock.confirmed(),
    };
    let mut log = Appender::start(Arc::clone(&vfs), dir.into(), &replay.segments, &start)?;
    replay.rewrite_tail(&mut log, &tail)?;
    debug_assert!(log.durable >= log.seqno, "recovery ends durable (rule 6)");
    debug_assert_eq!(
        log.buffered(),
        0,
        "the tail is written before its segment has a name"
    );
    // Only now does the new segment end the old one's valid part: its tail is durable here.
    log.link()?;
    strays.extend(tail.empty.map(|(_, path)| path));
    strays.extend(files.pointless());
    assert_eq!(
        log.durable, log.seqno,
        "nothing is served that a power cut may take back (rule 6)"
    );
    strays.extend(unreferenced(&files, &replay, &maintenance.kept));
    if !is_current {
        // What `CURRENT` named is no use, and is removed below.
        match maintenance.kept.last() {
            Some(kept) => checkpoint::publish(&*vfs, dir, kept.id)?,
            None => strays.push(dir.join(CURRENT)),
        }
    }
    debug_assert!(
        replay
            .segments
            .all()
            .iter()
            .all(|(_, segment)| !strays.contains(&segment.path)),
        "what slots may name stays"
    );
    for path in strays {
        // What cannot be removed now is found again by the next open.
        let _ = vfs.remove(&path);
    }
    // What slots may name is not removed, whoever says that it was retired.
    let there = |retired: &Retired| {
        files.segments.contains_key(&retired.id) && !replay.numbers.contains_key(&retired.id)
    };
    maintenance.drops = replay.namespaces.drops();
    let retired = replay.retired.iter().copied();
    maintenance.retired = retired.filter(there).collect();
    damage.append(&mut replay.damage);
    let reserve = Reserve::new(Arc::clone(&vfs), dir, files.has_reserve);
    let rooms = Rooms {
        vfs,
        dir: dir.into(),
        clock,
        durability,
        replay,
        maintenance,
        log,
        next_file: first_file.saturating_add(1),
        reserve,
        damage,
        lock: Some(lock),
    };
    let core = rooms.join();
    debug_assert!(core.segment(first_file).is_some(), "the log goes on in it");
    debug_assert!(core.check_writable().is_ok(), "it was opened for writing");
    core.note_end();
    Ok(core)
}

/// The rooms of a store, each ready.
struct Rooms {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    clock: Clock,
    durability: Durability,
    replay: Replay,
    maintenance: Maintenance,
    log: Appender,
    next_file: u64,
    reserve: Reserve,
    damage: Vec<Damage>,
    /// `None` for who only reads.
    lock: Option<Box<dyn Send + Sync>>,
}

impl Rooms {
    fn join(self) -> Core {
        let Rooms {
            replay,
            maintenance,
            ..
        } = self;
        let checkpointed = maintenance.kept.last().map_or(0, |kept| kept.seqno);
        debug_assert!(checkpointed <= self.log.seqno, "the log goes on behind it");
        debug_assert!(
            maintenance.kept.len() <= 2,
            "the newest, and one to fall back to"
        );
        debug_assert_eq!(
            self.lock.is_none(),
            self.next_file == 0,
            "who only reads makes no files"
        );
        Core {
            vfs: self.vfs,
            dir: self.dir,
            id: replay.id,
            clock: self.clock,
            durability: self.durability,
            verify: Verify::default(),
            space: SPACE,
            capacity: None,
            segments: replay.segments,
            table: replay.table,
            keys: replay.keys,
            namespaces: replay.namespaces,
            naming: Mutex::default(),
            queue: crate::log::commit::Queue::default(),
            log: Mutex::new(self.log),
            next_file: AtomicU64::new(self.next_file),
            marked: AtomicU64::new(0),
            poisoned: false.into(),
            origin: Arc::new(Origin::here()),
            is_read_only: self.lock.is_none(),
            larges: Mutex::new(replay.larges),
            hot: None,
            mapped: Mapped::default(),
            garbage: Mutex::default(),
            maintenance: Mutex::new(maintenance),
            held: Mutex::default(),
            stuck: AtomicU64::new(0),
            trouble: Mutex::default(),
            runs_are_damaged: false.into(),
            checkpointed: checkpointed.into(),
            reserve: self.reserve,
            brake: Brake::default(),
            work: Arc::default(),
            ahead: Arc::default(),
            flush: Arc::default(),
            pages: Arc::default(),
            damage: self.damage,
            lock: Mutex::new(self.lock),
        }
    }
}

/// What the files come to.
struct Replayed {
    replay: Replay,
    tail: Tail,
    /// Files that nothing leads to.
    strays: Vec<PathBuf>,
    maintenance: Maintenance,
    /// Whether it is what `CURRENT` names that replay began from.
    is_current: bool,
}

/// Replays the log from the newest checkpoint that turns out to be whole.
fn replayed(
    vfs: &dyn Vfs,
    dir: &Path,
    files: &Files,
    clock: &Clock,
    damage: &mut Vec<Damage>,
) -> Result<Replayed> {
    let mut refused = Vec::new();
    debug_assert!(damage.is_empty(), "what is there was not looked at before");
    loop {
        let base = Base::find(vfs, dir, files, &refused, damage)?;
        let is_current = damage.is_empty();
        let replayed = replay_from(base, vfs, dir, files, clock, is_current);
        let id = match replayed {
            Ok(replayed) => return Ok(replayed),
            Err(Failure::Table(id)) => id,
            Err(Failure::Other(error)) => return Err(error),
        };
        debug_assert!(
            !refused.contains(&id),
            "what was refused is not tried again"
        );
        refused.push(id);
        let error = Error::Corrupt {
            path: dir.join(file_name(id)),
            offset: DATA_START,
            reason: TABLE_DAMAGE,
        };
        damage.extend(Damage::of(&error, Loss::Nothing));
    }
}

/// Why replay ended early.
enum Failure {
    /// A part of the table that it needed is damaged in this checkpoint.
    Table(u64),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

fn replay_from(
    base: Option<Base>,
    vfs: &dyn Vfs,
    dir: &Path,
    files: &Files,
    clock: &Clock,
    is_current: bool,
) -> std::result::Result<Replayed, Failure> {
    let id = base.as_ref().map(|base| base.checkpoint.header.id);
    let mut maintenance = Maintenance::default();
    let (mut replay, chain) = match base {
        Some(base) => {
            let header = base.checkpoint.header;
            clock.raise(header.time);
            maintenance.kept = base.kept(vfs, dir, files);
            debug_assert_eq!(maintenance.kept.last().map(|kept| kept.id), id);
            let chain = Chain::read(vfs, files, header.position.segment, Err)?;
            (Replay::from(base.checkpoint, base.runs), chain)
        }
        None => {
            let chain = Chain::read(vfs, files, 0, Err)?;
            let id = match chain.fronts.first() {
                Some(front) => front.header.store,
                None => new_store_id(vfs)?,
            };
            (Replay::new(id), chain)
        }
    };
    if let Some(last) = chain.fronts.last() {
        clock.raise(last.header.time);
    }
    let sealed = replay.sealed().into_iter();
    let sealed = sealed.map(|entry| SegmentFile::read(vfs, segment_path(dir, entry.id), entry.id));
    replay.add_sealed(sealed.collect::<Result<_>>()?)?;
    let mut strays = unknown(vfs, files, &mut replay);
    strays.extend_from_slice(&chain.strays);
    let holes = chain.holes.clone();
    let lost_end = chain.lost_end(files, &replay.id);
    let tail = replay.run(chain);
    let tail = tail.and_then(|tail| replay.look_up_tail(&tail).map(|()| tail));
    if let Some(id) = id.filter(|_| replay.table.is_damaged()) {
        return Err(Failure::Table(id));
    }
    let tail = tail?;
    if let Some(id) = lost_end.or_else(|| files.missing_end(tail.epoch)) {
        // The next epoch would have its number, and so the names of its files; and numbers of records that it
        // had would be given out again.
        return Err(missing(segment_path(dir, id)).into());
    }
    let mut gone: BTreeSet<u64> = holes.into_iter().chain(replay.lost_classes()).collect();
    gone.retain(|id| !replay.retirements.contains(id));
    for error in gone.iter().map(|id| missing(segment_path(dir, *id))) {
        if replay.damage.is_empty() {
            return Err(error.into());
        }
        // It may have been retired by a record that is damaged.
        replay.damage.extend(Damage::of(&error, Loss::Records));
    }
    replay.check_end(files, &tail, dir)?;
    debug_assert!(!replay.table.is_damaged(), "it would have been refused");
    debug_assert!(
        tail.seqno <= replay.seqno,
        "numbers that were given out are known"
    );
    Ok(Replayed {
        replay,
        tail,
        strays,
        maintenance,
        is_current,
    })
}

/// The checkpoints in a directory, whole or not.
pub(crate) fn checkpoint_ids(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>> {
    let files = Files::list(vfs, dir)?;
    Ok(files.checkpoints.keys().copied().collect())
}

/// A segment of which so many bytes are valid.
pub(crate) fn open_segment(vfs: &dyn Vfs, dir: &Path, id: u64, len: u64) -> Result<Segment> {
    let path = segment_path(dir, id);
    // Missing is another thing than damaged here.
    let opened = vfs.open(&path);
    opened.map_err(|e| io_error("opening", &path, e))?;
    let found = SegmentFile::read(vfs, path, id)?;
    Segment::new(found.path, found.file, &found.header, len.min(found.len))
}

/// # Errors
/// `NotFound` if there is no store.
fn check_there(files: &Files, dir: &Path) -> Result<()> {
    if files.segments.is_empty() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(io_error("looking for a store", dir, source));
    }
    Ok(())
}

pub(crate) fn create_dir(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    make_dir(vfs, dir)?;
    sync_name(vfs, dir)
}

fn make_dir(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    vfs.create_dir(dir)
        .map_err(|e| io_error("creating", dir, e))
}

fn sync_name(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_parent(vfs, Path::new(".")),
        Some(parent) => sync_parent(vfs, parent),
        None => Ok(()),
    }
}

/// Makes the name of the store's directory durable. Some parents cannot be opened or flushed; then the
/// name was there before us.
fn sync_parent(vfs: &dyn Vfs, parent: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, Unsupported};
    match vfs.sync_dir(parent) {
        Err(e) => match e.kind() {
            InvalidInput | NotFound | PermissionDenied | Unsupported => Ok(()),
            _ => Err(io_error("flushing", parent, e)),
        },
        Ok(()) => Ok(()),
    }
}

pub(crate) fn take_lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn Send + Sync>> {
    let path = dir.join(LOCK);
    vfs.lock(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: dir.into() },
        _ => io_error("locking", &path, e),
    })
}

fn new_store_id(vfs: &dyn Vfs) -> Result<StoreId> {
    let mut store = StoreId {
        id: [0; 16],
        secret: [0; 32],
    };
    random(vfs, &mut store.id)?;
    random(vfs, &mut store.secret)?;
    Ok(store)
}

/// The checkpoint that replay begins from, with its runs.
struct Base {
    checkpoint: Checkpoint,
    runs: Vec<Arc<Run>>,
}

impl Base {
    /// The checkpoint that `CURRENT` names, else the newest that is whole; any whole one is right.
    fn find(
        vfs: &dyn Vfs,
        dir: &Path,
        files: &Files,
        refused: &[u64],
        damage: &mut Vec<Damage>,
    ) -> Result<Option<Base>> {
        let named = if files.has_current {
            let named = checkpoint::current(vfs, dir)?;
            if named.is_none() {
                let path = dir.join(CURRENT);
                damage.push(Damage::derived(&path, 0, "it names no checkpoint"));
            }
            named
        } else {
            None
        };
        let others = files.checkpoints.keys().rev().copied();
        let others = others.filter(|id| Some(*id) != named);
        let all = named.into_iter().chain(others);
        for id in all.filter(|id| !refused.contains(id)) {
            match Base::load(vfs, dir, id) {
                Ok(base) => {
                    debug_assert_eq!(base.checkpoint.header.id, id);
                    return Ok(Some(base));
                }
                // One that was not finished when the power failed is no damage; it was never named.
                Err(error) if may_fall_back(&error) => {
                    if Some(id) == named {
                        damage.extend(Damage::of(&error, Loss::Nothing));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn load(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<Base> {
        let checkpoint = checkpoint::load(vfs, dir, id)?;
        let runs = open_runs(vfs, dir, &checkpoint)?;
        Ok(Base { checkpoint, runs })
    }

    /// This checkpoint, and before it the one to fall back to.
    fn kept(&self, vfs: &dyn Vfs, dir: &Path, files: &Files) -> Vec<Kept> {
        let Checkpoint { header, meta, .. } = &self.checkpoint;
        let older = files.checkpoints.range(..header.id).rev();
        let older = older.filter_map(|(id, _)| {
            let (header, meta, _) = checkpoint::read(vfs, dir, *id).ok()?;
            Some(kept(&header, &meta))
        });
        let mut all: Vec<_> = older.take(1).collect();
        all.push(kept(header, meta));
        debug_assert!(all.is_sorted_by_key(|kept| kept.id), "the older one first");
        debug_assert!(
            (1..=2).contains(&all.len()),
            "the one that is used, and one before it"
        );
        all
    }
}

fn open_runs(vfs: &dyn Vfs, dir: &Path, checkpoint: &Checkpoint) -> Result<Vec<Arc<Run>>> {
    let files = RunFiles {
        vfs,
        dir,
        store: checkpoint.header.store.id,
        next_id: &|| 0,
        is_stopped: &|| false,
    };
    let runs = checkpoint.meta.runs.iter().map(|id| files.open(*id));
    runs.collect()
}

fn kept(header: &Header, meta: &Meta) -> Kept {
    Kept {
        id: header.id,
        seqno: header.seqno,
        runs: meta.runs.clone(),
    }
}

/// Whether an error says that a file is not what it was, rather than that it cannot be read now.
fn may_fall_back(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Front segments before the checkpoint that it does not know: removed before it was made. Class
/// segments that it does not know may be named by the log that follows.
fn unknown(vfs: &dyn Vfs, files: &Files, replay: &mut Replay) -> Vec<PathBuf> {
    let before = files.segments.range(..replay.position().segment);
    let mut strays = Vec::new();
    for (id, path) in before
        .filter(|(id, _)| !replay.knows(**id))
        .collect::<Vec<_>>()
    {
        match SegmentFile::read(vfs, path.clone(), *id) {
            Ok(file) if file.is_class() => replay.offer(file),
            Ok(_) => strays.push(path.clone()),
            Err(_) => replay.unreadable.push(path.clone()),
        }
    }
    strays
}

/// What no kept checkpoint and no record leads to: replaced and uncommitted large values, class
/// segments, key runs and checkpoints that were not finished.
fn unreferenced(files: &Files, replay: &Replay, kept: &[Kept]) -> Vec<PathBuf> {
    let larges = files.larges.iter().filter(|(id, _)| {
        // With damage in the log a missing reference proves nothing.
        replay.damage.is_empty() && !replay.larges.contains(id)
    });
    let runs = files
        .runs
        .iter()
        .filter(|(id, _)| !kept.iter().any(|kept| kept.runs.contains(id)));
    let checkpoints = files
        .checkpoints
        .iter()
        .filter(|(id, _)| !kept.iter().any(|kept| kept.id == **id));
    let all = larges.chain(runs).chain(checkpoints);
    let mut all: Vec<_> = all.map(|(_, path)| path.clone()).collect();
    if replay.damage.is_empty() {
        all.extend(replay.unnamed());
    }
    debug_assert!(
        kept.iter().all(|kept| files
            .checkpoints
            .get(&kept.id)
            .is_none_or(|path| !all.contains(path))),
        "a kept checkpoint stays"
    );
    all
}
