//! The files of a store's directory, and the chain that its front segments make.

use std::collections::BTreeMap;
use std::iter::once;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io_error};
use crate::format::VERSION;
use crate::format::mark::{MARK_LEN, Mark};
use crate::format::segment::{HEADER_LEN, Header, Kind, Refusal, SEGMENT_LEN, StoreId};
use crate::index::checkpoint::{CURRENT, CURRENT_NEW};
use crate::log::segment::segment_path;
use crate::reserve::RESERVE;
use crate::vfs::{UNMAPPABLE, Vfs, VfsFile};

pub(crate) const LOCK: &str = "LOCK";

/// At most such a part of a checkpoint are its lists, and of a key run its index: at the end of the file.
const LISTS_SHARE: u64 = 512;
const INDEX_SHARE: u64 = 32;
/// As little is asked for ahead of such an end, and as much.
const END_MIN: u64 = 64 << 10;
const END_MAX: u64 = 4 << 20;
const _: () = assert!(END_MIN <= END_MAX);
/// Of so many segments at most it is asked whether they are in memory.
const ASKED: usize = 8;

/// The files of a store's directory, by kind.
#[derive(Default)]
pub(super) struct Files {
    /// Front and class segments.
    pub(super) segments: BTreeMap<u64, PathBuf>,
    pub(super) larges: BTreeMap<u64, PathBuf>,
    pub(super) runs: BTreeMap<u64, PathBuf>,
    pub(super) checkpoints: BTreeMap<u64, PathBuf>,
    pub(super) has_current: bool,
    pub(super) has_reserve: bool,
    /// Files that never got their name.
    pub(super) unfinished: Vec<PathBuf>,
    /// Files that say of the one with their id that it must not be mapped.
    unmappable: BTreeMap<u64, PathBuf>,
    /// How far the log reached at least, before the directory was listed.
    pub(super) mark: Option<Mark>,
    /// Whether this file system says what is in memory: it said so of a file that was just read.
    tells_residency: bool,
}

impl Files {
    /// Lists a directory.
    ///
    /// # Errors
    /// `NotAStore` if there is a file that no store has.
    pub(super) fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Files> {
        let mut files = Files::default();
        if let Ok(lock) = vfs.open(&dir.join(LOCK)) {
            files.mark = read_mark(&*lock);
            files.tells_residency = lock.is_resident(0, 1);
        }
        for name in vfs.list(dir).map_err(|e| io_error("opening", dir, e))? {
            let path = dir.join(&name);
            let (stem, kind) = name.split_once('.').unwrap_or((&name, ""));
            let id = u64::from_str_radix(stem, 16).ok();
            match (id.filter(|id| format!("{id:016x}") == stem), kind) {
                (Some(id), "seg") => drop(files.segments.insert(id, path)),
                (Some(id), "large") => drop(files.larges.insert(id, path)),
                (Some(id), "run") => drop(files.runs.insert(id, path)),
                (Some(id), "ckpt") => drop(files.checkpoints.insert(id, path)),
                (Some(id), UNMAPPABLE) => drop(files.unmappable.insert(id, path)),
                (Some(_), "new") => files.unfinished.push(path),
                _ if name == CURRENT_NEW => files.unfinished.push(path),
                _ if name == CURRENT => files.has_current = true,
                _ if name == RESERVE => files.has_reserve = true,
                _ if name == LOCK => {}
                _ => {
                    let (path, found) = (dir.into(), name);
                    return Err(Error::NotAStore { path, found });
                }
            }
        }
        let has_mark = files.mark.is_some_and(|mark| mark.seqno > 0);
        let derived = files.has_current || !files.checkpoints.is_empty() || has_mark;
        if files.segments.is_empty() && (derived || !files.larges.is_empty()) {
            return Err(Error::Corrupt {
                path: dir.into(),
                offset: 0,
                reason: "all segments of the log are missing",
            });
        }
        Ok(files)
    }

    /// Starts to read what opening needs of all files at once, if some of the store is not in memory: it would
    /// wait for one after the other. Which files went from memory first nobody knows, so that a few are asked.
    pub(super) fn ask_ahead(&self, vfs: &dyn Vfs, dir: &Path) {
        let current = dir.join(CURRENT);
        let step = self.segments.len().div_ceil(ASKED).max(1);
        let segments = self.segments.values().step_by(step);
        let is_cold = |path: &PathBuf| vfs.open(path).is_ok_and(|file| !file.is_resident(0, 1));
        if !self.tells_residency || !once(&current).chain(segments).any(is_cold) {
            return;
        }
        let checkpoints = self.checkpoints.values().rev().take(2);
        let checkpoints = checkpoints.map(|path| (path, LISTS_SHARE));
        let runs = self.runs.values().map(|path| (path, INDEX_SHARE));
        let with_ends = checkpoints
            .chain(runs)
            .map(|(path, share)| (path, Some(share)));
        for (path, share) in with_ends.chain(self.segments.values().map(|path| (path, None))) {
            // Whoever needs a file that cannot be opened says so.
            let Ok(file) = vfs.open(path) else { continue };
            file.will_need(0, HEADER_LEN);
            if let (Some(share), Ok(len)) = (share, file.len()) {
                let end = (len / share).clamp(END_MIN, END_MAX).min(len);
                debug_assert!(end <= len);
                debug_assert!(end <= END_MAX, "an end of the file");
                file.will_need(len - end, usize::try_from(end).unwrap_or(0));
            }
        }
    }

    /// What speaks of files that are gone.
    pub(super) fn pointless(&self) -> impl Iterator<Item = PathBuf> {
        let kinds = [&self.segments, &self.larges, &self.runs, &self.checkpoints];
        let gone = self.unmappable.iter();
        let gone = gone.filter(move |(id, _)| !kinds.iter().any(|ids| ids.contains_key(id)));
        gone.map(|(_, path)| path.clone())
    }

    /// The segment that the newest epoch began with, if the log ends in an older one: it is gone, since
    /// whatever has an id of an epoch was made after its first segment had its name.
    pub(super) fn missing_end(&self, last: u64) -> Option<u64> {
        let all = [&self.segments, &self.larges, &self.runs, &self.checkpoints];
        let newest = all.iter().filter_map(|ids| ids.keys().next_back()).max()?;
        let epoch = newest >> 32;
        (epoch > last).then_some(epoch << 32)
    }
}

fn read_mark(lock: &dyn VfsFile) -> Option<Mark> {
    let mut bytes = [0; MARK_LEN];
    let read = lock.len().and_then(|len| match len >= MARK_LEN as u64 {
        true => lock.read_at(&mut bytes, 0),
        false => Ok(()),
    });
    read.ok().and_then(|()| Mark::decode(&bytes))
}

/// A front or class segment whose header is valid.
pub(super) struct SegmentFile {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn VfsFile>,
    pub(super) len: u64,
}

/// Front segments in the order of the log.
#[derive(Default)]
pub(super) struct Chain {
    pub(super) fronts: Vec<SegmentFile>,
    /// Class segments made since the first of them.
    pub(super) classes: Vec<SegmentFile>,
    /// Segments that are named and not there.
    pub(super) holes: Vec<u64>,
    /// Segments behind a torn tail that a recovery cut off.
    pub(super) strays: Vec<PathBuf>,
}

impl Chain {
    /// The log from this segment on, from the first one there is if that is 0.
    ///
    /// Ids rise along the log, and each segment names the one before it: what lies between the two is
    /// not part of the log any more.
    /// `refuse` decides what a segment that cannot be read means: an error, or one less.
    pub(super) fn read(
        vfs: &dyn Vfs,
        files: &Files,
        from: u64,
        mut refuse: impl FnMut(Error) -> Result<()>,
    ) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut previous = u64::MAX;
        for (id, path) in files.segments.range(from..).rev() {
            let file = SegmentFile::read(vfs, path.clone(), *id);
            if *id > previous && file.is_err() {
                // Nothing leads to it, or who needs it will say so.
                continue;
            }
            let front = match file {
                Ok(front) => front,
                Err(error) => {
                    refuse(error)?;
                    continue;
                }
            };
            if front.is_class() {
                chain.classes.push(front);
                continue;
            }
            if *id > previous {
                chain.strays.push(front.path);
                continue;
            }
            if *id < previous && !chain.fronts.is_empty() {
                chain.holes.push(previous);
            }
            previous = front.header.previous;
            chain.fronts.push(front);
        }
        let first = chain.fronts.last().map_or(0, |front| front.header.id);
        if from != 0 && first != from {
            return Err(missing(segment_path(Path::new(""), from)));
        }
        if from == 0 && !chain.fronts.is_empty() && previous != 0 {
            chain.holes.push(previous);
        }
        chain.fronts.reverse();
        let fronts = &chain.fronts;
        let rise = fronts.is_sorted_by(|a, b| a.header.id < b.header.id);
        debug_assert!(rise, "ids rise along the log");
        let is_there = |id: &u64| fronts.iter().any(|front| front.header.id == *id);
        debug_assert!(
            !chain.holes.iter().any(is_there),
            "what is there is no hole"
        );
        let leads = |pair: &[SegmentFile]| match pair {
            [before, after] => {
                after.header.previous == before.header.id
                    || chain.holes.contains(&after.header.previous)
            }
            _ => false,
        };
        debug_assert!(fronts.windows(2).all(leads), "each follows one");
        Ok(chain)
    }
}

impl Chain {
    /// The segment in which the log went on, if it is known to have been there and is not.
    pub(super) fn lost_end(&self, files: &Files, store: &StoreId) -> Option<u64> {
        let mark = files.mark.filter(|mark| mark.store == store.id)?;
        let last = self.fronts.last().map_or(0, |front| front.header.id);
        (last < mark.segment).then_some(mark.segment)
    }
}

pub(super) fn missing(path: PathBuf) -> Error {
    Error::Corrupt {
        path,
        offset: 0,
        reason: "the segment is missing",
    }
}

impl SegmentFile {
    pub(super) fn is_class(&self) -> bool {
        matches!(self.header.kind, Kind::Class(_))
    }

    pub(super) fn read(vfs: &dyn Vfs, path: PathBuf, id: u64) -> Result<SegmentFile> {
        let file = match vfs.open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(path)),
            opened => opened.map_err(|e| io_error("opening", &path, e))?,
        };
        let len = file.len().map_err(|e| io_error("reading", &path, e))?;
        let mut bytes = [0u8; HEADER_LEN];
        if len >= HEADER_LEN as u64 {
            file.read_at(&mut bytes, 0)
                .map_err(|e| io_error("reading", &path, e))?;
        }
        let reason = match Header::decode(&bytes) {
            Ok(header) if header.previous >= header.id => "the segment follows a later one",
            Ok(header) if header.is_of_records() && header.id == id && len <= SEGMENT_LEN => {
                debug_assert!(len >= HEADER_LEN as u64, "zeros are no header");
                return Ok(SegmentFile {
                    header,
                    path,
                    file,
                    len,
                });
            }
            Ok(_) => "the header is another file's, or the file is too long",
            Err(Refusal::Newer(found)) => {
                return Err(Error::UnsupportedFormat {
                    path,
                    found,
                    supported: VERSION,
                });
            }
            Err(Refusal::Damaged(reason)) => reason,
        };
        Err(Error::Corrupt {
            path,
            offset: 0,
            reason,
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::lists::Retire;
    use crate::format::record;
    use crate::log::commit::Op;
    use crate::vfs::OsVfs;
    use crate::{Clock, Options};

    fn listed(names: &[&str]) -> Result<Files> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        Files::list(&OsVfs, dir.path())
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        let files = listed(&[
            "0000000100000000.seg",
            "0000000100000001.large",
            "0000000100000002.run",
            "0000000100000003.ckpt",
            "0000000100000004.new",
            "0000000100000000.pread",
            "0000000100000005.pread",
            "CURRENT",
            "CURRENT.new",
            "RESERVE",
            "LOCK",
        ]);
        let files = files.unwrap();
        let ids = |of: &BTreeMap<u64, PathBuf>| of.keys().map(|id| id & 0xff).collect::<Vec<_>>();
        let all = [
            &files.segments,
            &files.larges,
            &files.runs,
            &files.checkpoints,
        ];
        assert_eq!(all.map(ids), [[0], [1], [2], [3]]);
        assert!(files.has_current && files.has_reserve && files.mark.is_none());
        assert_eq!(files.unfinished.len(), 2);
        let pointless: Vec<_> = files.pointless().collect();
        let [pointless] = &pointless[..] else {
            panic!("{pointless:?}")
        };
        assert!(pointless.ends_with("0000000100000005.pread"));
        assert_eq!(files.missing_end(0), Some(1 << 32));
        assert_eq!(files.missing_end(1), None);
    }

    #[test]
    fn a_mark_tells_of_a_log_that_is_gone() {
        for (seqno, is_new) in [(0, true), (1, false)] {
            let dir = tempfile::tempdir().unwrap();
            let mark = Mark {
                store: [1; 16],
                seqno,
                segment: 1 << 32,
                len: HEADER_LEN as u64,
            };
            std::fs::write(dir.path().join(LOCK), mark.encode()).unwrap();
            let listed = Files::list(&OsVfs, dir.path());
            assert_eq!(listed.is_ok(), is_new, "{seqno}");
        }
    }

    #[test]
    fn a_segment_that_follows_itself_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let id = 1 << 32;
        let header = |previous| Header {
            kind: Kind::Front,
            salt: 1,
            store: StoreId {
                id: [1; 16],
                secret: [2; 32],
            },
            id,
            epoch: 1,
            previous,
            previous_len: HEADER_LEN as u64,
            time: 1,
        };
        for (previous, is_front) in [(0, true), (id, false), (id + 1, false)] {
            let path = segment_path(dir.path(), id);
            std::fs::write(path, header(previous).encode()).unwrap();
            let files = Files::list(&OsVfs, dir.path()).unwrap();
            let chain = Chain::read(&OsVfs, &files, 0, Err);
            assert_eq!(chain.is_ok(), is_front, "{previous}");
        }
    }

    /// No store says that, but whoever forges a log can.
    #[test]
    fn a_log_that_retires_the_segment_in_which_it_ends_opens() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::new().clock(Clock::manual(1));
        let store = options().open(dir.path()).unwrap();
        let ns = store.namespace("n").unwrap();
        ns.put("key", "value").unwrap();
        let retire = Retire {
            victims: vec![ns.core().log.lock().active().1.id],
            ..Retire::default()
        };
        let op = Op::keyless(record::Kind::Retire, 0, retire.encode());
        ns.core().commit(vec![op], true).unwrap();
        drop(ns);
        store.close().unwrap();
        let store = options().open(dir.path()).unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
        options().open(dir.path()).unwrap();
    }

    #[test]
    fn a_file_that_no_store_has_is_refused() {
        for name in [
            "0000000100000000.segment",
            "000000100000000.seg",
            "00000001000000AA.seg",
            "+000000100000000.seg",
            "0000000100000000",
            "CURRENT.old",
            "notes",
        ] {
            let refused = listed(&["0000000100000000.seg", name]);
            let found = matches!(&refused, Err(Error::NotAStore { found, .. }) if found == name);
            assert!(found, "{name}");
        }
    }

    #[test]
    fn a_directory_whose_log_is_gone_is_damaged_and_no_new_store() {
        for name in ["0000000100000001.large", "0000000100000003.ckpt", "CURRENT"] {
            let refused = listed(&[name]);
            assert!(matches!(refused, Err(Error::Corrupt { .. })), "{name}");
        }
        // What a store that was never finished leaves is none yet.
        let unfinished = [
            "LOCK",
            "RESERVE",
            "0000000100000000.new",
            "0000000100000002.run",
        ];
        assert!(listed(&unfinished).unwrap().segments.is_empty());
    }
}
