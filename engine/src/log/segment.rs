//! A segment as readers see it, and the list of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch::Guard;

use crate::error::{Error, Result};
use crate::format::record::{self, Address, HEADER_LEN, Place, Record};
use crate::format::segment::{Header, SEGMENT_LEN};
use crate::mem::{EpochCell, Map};
use crate::vfs::VfsFile;

/// A front segment. Its bytes up to `published` never change.
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) salt: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn VfsFile>,
    map: Map,
    published: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        path: PathBuf,
        file: Box<dyn VfsFile>,
        header: &Header,
        published: u64,
    ) -> Result<Segment> {
        let len = usize::try_from(SEGMENT_LEN).unwrap_or(usize::MAX);
        let map = file.map(len).map_err(|e| io_error("mapping", &path, e))?;
        let published = AtomicU64::new(published);
        Ok(Segment {
            id: header.id,
            salt: header.salt,
            path,
            file,
            map,
            published,
        })
    }

    /// How many bytes readers may touch.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Lets readers touch the bytes before `end`, which are written.
    pub(crate) fn publish(&self, end: u64) {
        self.published.fetch_max(end, Ordering::Release);
    }

    pub(crate) fn place(&self, offset: u32) -> Place {
        Place {
            salt: self.salt,
            address: Address {
                segment: self.id,
                offset,
            },
        }
    }

    /// The published bytes from `offset` on.
    pub(crate) fn bytes(&self, offset: u64) -> Option<&[u8]> {
        let len = self.published().checked_sub(offset)?;
        self.map
            .slice(usize::try_from(offset).ok()?, usize::try_from(len).ok()?)
    }

    /// The record at `offset`, header and key verified; damage is an error.
    pub(crate) fn record(&self, offset: u64) -> Result<Record<'_>> {
        let place = self.place(u32::try_from(offset).unwrap_or(u32::MAX));
        self.bytes(offset)
            .and_then(|bytes| record::decode(bytes, place))
            .ok_or_else(|| self.damage(offset, "record header or key checksum"))
    }

    /// Whether the first page or two of a record are in memory.
    pub(crate) fn is_resident(&self, offset: u64, len: usize) -> bool {
        self.file.is_resident(offset, len.max(HEADER_LEN))
    }

    pub(crate) fn damage(&self, offset: u64, reason: &'static str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            offset,
            reason,
        }
    }
}

/// A slice of a segment that keeps the segment mapped.
pub(crate) struct Slice {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.segment
            .bytes(self.offset)
            .and_then(|b| b.get(..self.len))
            .unwrap_or_default()
    }
}

/// The front segments by the number that slots hold; number 0 is unused.
pub(crate) struct Segments(EpochCell<Vec<Option<Arc<Segment>>>>);

impl Segments {
    pub(crate) fn new() -> Segments {
        Segments(EpochCell::new(vec![None]))
    }

    pub(crate) fn get<'g>(&'g self, number: u32, guard: &'g Guard) -> Option<&'g Arc<Segment>> {
        self.0
            .load(guard)
            .get(usize::try_from(number).ok()?)?
            .as_ref()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.0
            .load(&crossbeam_epoch::pin())
            .iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Adds a segment and returns its number. Only the committer adds segments.
    pub(crate) fn add(&self, segment: Arc<Segment>) -> u32 {
        let guard = crossbeam_epoch::pin();
        let mut segments = self.0.load(&guard).clone();
        let number = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        segments.push(Some(segment));
        self.0.replace(segments, &guard);
        number
    }
}

pub(crate) fn front_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.seg"))
}

/// The name of a front segment until it is whole.
pub(crate) fn unfinished_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.new"))
}

pub(crate) fn large_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.large"))
}

/// An I/O error with what was being done, a full disk told apart.
pub(crate) fn io_error(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::Io {
            doing,
            path: path.to_path_buf(),
            source,
        },
    }
}
