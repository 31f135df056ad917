//! A second directory with the store as it is at one sequence number.
//!
//! What is there of the log, and of what is derived from it, is never changed, only added to and removed.
//! So most files get a second name, where the file system has one, and only what the store still adds
//! to is copied as far as it counts: the front segment in which the log ends, and open class segments.
//!
//! A file of a name that no store has keeps the directory from being opened before it is whole.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::core::Core;
use crate::error::{Error, Result, io_error};
use crate::format::checkpoint::{Meta, file_name};
use crate::format::segment::HEADER_LEN;
use crate::index::checkpoint;
use crate::index::keys::RunFiles;
use crate::log::large::MISSING;
use crate::log::segment::{large_path, segment_path};
use crate::maintenance::Maintenance;
use crate::recovery::create_dir;
use crate::vfs::{Output, Vfs};

/// The name of the file that says that a directory is not whole.
const UNFINISHED: &str = "UNFINISHED";
const PIECE: u64 = 1 << 20;

/// The files that a state needs.
struct Point {
    /// The checkpoint that leads to it with the log behind it, and the runs that this one needs.
    checkpoint: Option<u64>,
    runs: Vec<u64>,
    /// Where the log ends.
    end: (u64, u64),
    segments: BTreeSet<u64>,
    /// Segments that were given up, of which those come along whose files are there.
    retired: BTreeSet<u64>,
    /// Class segments that may still be added to.
    open: BTreeSet<u64>,
    larges: Vec<u64>,
}

impl Core {
    /// Makes `dest` a store with the state as it is now. Files are linked if they may be.
    pub(crate) fn copy_to(&self, dest: &Path, may_link: bool) -> Result<()> {
        let mut state = self.maintenance.lock();
        if !self.is_read_only {
            self.check_writable()?;
        }
        let dest = Dest::create(self, dest, may_link)?;
        let point = match self.is_read_only {
            true => self.point_read(&state),
            false => {
                let saved = self.checkpoint(&mut state);
                saved.and_then(|()| self.point_saved(&state))
            }
        };
        // The lock is held: nothing is removed, and nothing is added to class segments, meanwhile.
        let taken = point.and_then(|point| dest.take(&point));
        taken.inspect_err(|_| dest.clear())
    }

    /// The state that the newest checkpoint holds.
    fn point_saved(&self, state: &Maintenance) -> Result<Point> {
        debug_assert!(!self.is_read_only, "a checkpoint was made for it");
        let id = state.kept.last().map_or(0, |kept| kept.id);
        let (header, meta, _) = checkpoint::read(&*self.vfs, &self.dir, id)?;
        let segments: BTreeSet<u64> = ids(&meta).collect();
        debug_assert_eq!(header.id, id, "it was made just now");
        debug_assert_eq!(segments.len(), meta.segments.len(), "each segment once");
        debug_assert!(
            meta.retired
                .iter()
                .all(|retired| !segments.contains(&retired.id)),
            "in use or retired"
        );
        let is_open = |id: &u64| state.reclaim.is_open(*id);
        Ok(Point {
            checkpoint: Some(id),
            end: (header.position.segment, u64::from(header.position.offset)),
            open: segments.iter().copied().filter(is_open).collect(),
            segments,
            retired: meta.retired.iter().map(|retired| retired.id).collect(),
            runs: meta.runs,
            larges: meta.larges,
        })
    }

    /// The state that was read, which another process may have gone on from.
    fn point_read(&self, state: &Maintenance) -> Result<Point> {
        debug_assert!(self.is_read_only, "nobody adds to its log");
        let (end, ..) = self.log.lock().written();
        let all = self.segments.all();
        let mut point = Point {
            checkpoint: state.kept.last().map(|kept| kept.id),
            runs: Vec::new(),
            end: (end.id, end.published()),
            segments: all.iter().map(|(_, segment)| segment.id).collect(),
            retired: state.retired.iter().map(|retired| retired.id).collect(),
            // Each process adds to class segments of its own.
            open: all
                .iter()
                .filter(|(_, segment)| segment.class.is_some() && segment.id >> 32 == end.id >> 32)
                .map(|(_, segment)| segment.id)
                .collect(),
            larges: self.larges.lock().iter().copied().collect(),
        };
        if let Some(id) = point.checkpoint {
            let read = checkpoint::read(&*self.vfs, &self.dir, id);
            let (_, meta, _) = read.map_err(|error| self.outdated_by(error))?;
            point.segments.extend(ids(&meta));
            point
                .retired
                .extend(meta.retired.iter().map(|retired| retired.id));
            point.runs = meta.runs;
        }
        Ok(point)
    }

    /// What it means that a file is not there: where another process writes, that it went on.
    fn outdated_by(&self, error: Error) -> Error {
        match &error {
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => self
                .outdated(Error::Corrupt {
                    path: path.clone(),
                    offset: 0,
                    reason: MISSING,
                }),
            _ => error,
        }
    }
}

fn ids(meta: &Meta) -> impl Iterator<Item = u64> {
    meta.segments.iter().map(|entry| entry.id)
}

/// A directory that becomes a store.
struct Dest<'a> {
    core: &'a Core,
    vfs: &'a dyn Vfs,
    dir: PathBuf,
    may_link: bool,
}

impl<'a> Dest<'a> {
    fn create(core: &'a Core, dir: &Path, may_link: bool) -> Result<Dest<'a>> {
        let vfs = &*core.vfs;
        check_outside(&core.dir, dir)?;
        begin(vfs, dir)?;
        Ok(Dest {
            core,
            vfs,
            dir: dir.into(),
            may_link,
        })
    }

    fn take(&self, point: &Point) -> Result<()> {
        debug_assert!(
            point.segments.contains(&point.end.0),
            "the log ends in one of its own"
        );
        debug_assert!(point.open.is_subset(&point.segments));
        debug_assert!(point.checkpoint.is_some() || point.runs.is_empty());
        let from = &self.core.dir;
        let next_id = || 0;
        let runs = RunFiles {
            vfs: self.vfs,
            dir: from,
            store: self.core.id.id,
            next_id: &next_id,
            is_stopped: &|| false,
        };
        for id in &point.larges {
            self.needed(&large_path(from, *id))?;
        }
        for id in point.retired.difference(&point.segments) {
            match self.file(&segment_path(from, *id), None, true) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                taken => taken?,
            }
        }
        let (last, end) = point.end;
        debug_assert!(end >= HEADER_LEN as u64, "a segment has a header at least");
        for id in &point.segments {
            let limit = Some(end).filter(|_| *id == last);
            let is_closed = !point.open.contains(id);
            let taken = self.file(&segment_path(from, *id), limit, is_closed);
            taken.map_err(|error| self.core.outdated_by(error))?;
        }
        for id in &point.runs {
            self.needed(&runs.path(*id))?;
        }
        if let Some(id) = point.checkpoint {
            self.needed(&from.join(file_name(id)))?;
            checkpoint::publish(self.vfs, &self.dir, id)?;
        }
        finish(self.vfs, &self.dir)
    }

    fn needed(&self, from: &Path) -> Result<()> {
        let taken = self.file(from, None, true);
        taken.map_err(|error| self.core.outdated_by(error))
    }

    /// Gives a file a second name, or copies it up to a limit.
    fn file(&self, from: &Path, limit: Option<u64>, is_closed: bool) -> Result<()> {
        let to = self.dir.join(from.file_name().unwrap_or_default());
        if self.may_link && is_closed && limit.is_none() {
            match self.vfs.link(from, &to) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(io_error("linking", from, e));
                }
                // Another file system, or one without links.
                Err(_) => {}
            }
        }
        copy(self.vfs, from, &to, limit)
    }

    /// Removes what was made, last the file that keeps the rest from being opened.
    fn clear(&self) {
        let names = self.vfs.list(&self.dir).unwrap_or_default();
        let mut others = names.iter().filter(|name| *name != UNFINISHED);
        if others.all(|name| self.vfs.remove(&self.dir.join(name)).is_ok()) {
            let _ = self.vfs.remove(&self.dir.join(UNFINISHED));
        }
    }
}

/// Begins to make a directory a store, which it must not be yet.
///
/// # Errors
/// `NotEmpty`, or an I/O error.
fn begin(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    check_empty(vfs, dir)?;
    mark(vfs, dir)
}

/// A store's directory belongs to it alone: with another in it, it would not open again.
///
/// # Errors
/// `InvalidInput` as an I/O error.
pub(crate) fn check_outside(store: &Path, dir: &Path) -> Result<()> {
    let absolute = |path| std::path::absolute(path).map_err(|e| io_error("resolving", path, e));
    if absolute(dir)?.starts_with(absolute(store)?) {
        let source = io::ErrorKind::InvalidInput.into();
        return Err(io_error("making a store inside of another:", dir, source));
    }
    Ok(())
}

/// Creates a directory if it is missing.
///
/// # Errors
/// `NotEmpty`, or an I/O error.
pub(crate) fn check_empty(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    create_dir(vfs, dir)?;
    let names = vfs.list(dir).map_err(|e| io_error("listing", dir, e))?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(Error::NotEmpty { path: dir.into() }),
    }
}

/// From here on the directory does not open.
pub(crate) fn mark(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let path = dir.join(UNFINISHED);
    let made = vfs.create(&path).and_then(|file| file.sync());
    let made = made.and_then(|()| vfs.sync_dir(dir));
    made.map_err(|e| {
        let _ = vfs.remove(&path);
        io_error("creating", &path, e)
    })
}

/// All that belongs to it is durable: from here on it is a store.
pub(crate) fn finish(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let finished = vfs
        .sync_dir(dir)
        .and_then(|()| vfs.remove(&dir.join(UNFINISHED)))
        .and_then(|()| vfs.sync_dir(dir));
    finished.map_err(|e| io_error("finishing", dir, e))
}

/// Copies a file, durably.
fn copy(vfs: &dyn Vfs, from: &Path, to: &Path, limit: Option<u64>) -> Result<()> {
    let reading = |e| io_error("reading", from, e);
    let writing = |e| io_error("writing", to, e);
    let source = vfs.open(from).map_err(reading)?;
    let len = source
        .len()
        .map_err(reading)?
        .min(limit.unwrap_or(u64::MAX));
    let file = vfs.create(to).map_err(writing)?;
    let mut out = Output::new(&*file, 0);
    let (mut at, mut piece) = (0, Vec::new());
    while at < len {
        let size = PIECE.min(len - at);
        debug_assert!(size > 0);
        debug_assert!(at + size <= len);
        piece.resize(usize::try_from(size).unwrap_or(0), 0);
        source.read_at(&mut piece, at).map_err(reading)?;
        out.push(&piece).map_err(writing)?;
        at += size;
    }
    let copied = out.flush().map_err(writing)?;
    assert_eq!(copied, len, "a backup has no byte more or less");
    file.sync().map_err(writing)
}
