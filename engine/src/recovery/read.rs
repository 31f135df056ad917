//! Opening a store to read it, beside whoever writes: nothing is locked and nothing is written.
//!
//! What is read may change meanwhile. Files go only when two newer checkpoints are there, and a record
//! may be seen half written with a whole one behind it. Both look like damage; so what looks like it is
//! read again until it looks the same twice.

use std::path::Path;
use std::sync::Arc;

use super::files::{Files, SegmentFile};
use super::{Replayed, Rooms, check_there, replayed};
use crate::clock::Clock;
use crate::core::Core;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::record::HEADER_LEN;
use crate::log::appender::Appender;
use crate::log::large::MISSING;
use crate::log::segment::segment_path;
use crate::options::Durability;
use crate::reserve::Reserve;
use crate::vfs::Vfs;

/// How often a store is read that looks damaged in another way each time.
const READS_MAX: usize = 100;
const _: () = assert!(READS_MAX > 2, "the same trouble is seen twice");

/// Reads the store in `dir` as it is now.
pub(crate) fn read(vfs: &Arc<dyn Vfs>, dir: &Path, clock: &Clock) -> Result<Core> {
    let mut before = None;
    for _ in 1..READS_MAX {
        let read = read_once(vfs, dir, clock);
        let trouble = match &read {
            Ok(core) => core.damage(),
            Err(error) => vec![error.to_string()],
        };
        if trouble.is_empty() || before.as_ref() == Some(&trouble) {
            return read;
        }
        before = Some(trouble);
    }
    read_once(vfs, dir, clock)
}

fn read_once(vfs: &Arc<dyn Vfs>, dir: &Path, clock: &Clock) -> Result<Core> {
    let files = Files::list(&**vfs, dir)?;
    check_there(&files, dir)?;
    let mut damage = Vec::new();
    let replayed = replayed(&**vfs, dir, &files, clock, &mut damage)?;
    join(vfs, dir, clock, replayed, damage)
}

/// The store that the files come to, its tail where it lies.
pub(super) fn join(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    clock: &Clock,
    replayed: Replayed,
    mut damage: Vec<Damage>,
) -> Result<Core> {
    let Replayed {
        mut replay,
        tail,
        mut maintenance,
        ..
    } = replayed;
    replay.apply_tail(&tail)?;
    debug_assert!(
        maintenance.retired.is_empty(),
        "they come from the log and its checkpoint"
    );
    damage.append(&mut replay.damage);
    maintenance.retired = std::mem::take(&mut replay.retired);
    let (number, segment) = replay.last(&tail, dir)?;
    let at = (number, segment);
    let log = Appender::ended(Arc::clone(vfs), dir.into(), replay.id, at, replay.seqno);
    let rooms = Rooms {
        vfs: Arc::clone(vfs),
        dir: dir.into(),
        clock: clock.clone(),
        durability: Durability::default(),
        replay,
        maintenance,
        log,
        next_file: 0,
        reserve: Reserve::none(Arc::clone(vfs), dir),
        damage,
        lock: None,
    };
    let core = rooms.join();
    debug_assert!(core.is_read_only, "nothing is locked");
    Ok(core)
}

impl Core {
    /// Whether something was written since the store was read. A tail that was cut off counts, too.
    pub(crate) fn is_outdated(&self) -> Result<bool> {
        let (segment, _, end) = self.log.lock().written();
        let mut header = [0u8; HEADER_LEN];
        let has_more = segment.file.read_at(&mut header, end).is_ok();
        if has_more && header != [0; HEADER_LEN] {
            return Ok(true);
        }
        let files = Files::list(&*self.vfs, &self.dir)?;
        let mut newer = files.segments.range(segment.id.saturating_add(1)..);
        Ok(newer.any(|(id, path)| {
            let file = SegmentFile::read(&*self.vfs, path.clone(), *id);
            file.is_ok_and(|file| !file.is_class())
        }))
    }

    /// The segment in which the log went on, if it is gone: other files of its epoch are there, which are
    /// made after it.
    pub(crate) fn missing_end(&self) -> Result<Option<Damage>> {
        let files = Files::list(&*self.vfs, &self.dir)?;
        let last = self.log.lock().written().0.id >> 32;
        let Some(id) = files.missing_end(last) else {
            return Ok(None);
        };
        let path = segment_path(&self.dir, id);
        let is_there = files.segments.contains_key(&id);
        // Or somebody opened the store just now.
        let is_gone = !is_there && !self.is_outdated()?;
        Ok(is_gone.then(|| Damage::at(&path, 0, "the segment is missing")))
    }

    /// What an error that came of a large value means: where another process writes, a file that is gone
    /// may be that of a value that was replaced.
    pub(crate) fn outdated(&self, error: Error) -> Error {
        let is_missing = matches!(&error, Error::Corrupt { reason, .. } if *reason == MISSING);
        if is_missing && self.is_read_only && self.is_outdated().unwrap_or(false) {
            return Error::Outdated;
        }
        error
    }
}
