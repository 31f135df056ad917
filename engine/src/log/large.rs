//! A large value in a segment of its own: streamed in, durable before any record names it, and read
//! chunk by chunk, each chunk verified when it is handed out.
//!
//! The value starts at byte 4096; behind it, from the next multiple of 8, lie the `u32` checksums of
//! its 64 KiB chunks. The header is written last: a file without one is an aborted write.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result, io_error};
use crate::format::field;
use crate::format::record::{CHUNK, LargePointer};
use crate::format::segment::{HEADER_LEN, Header, Kind, LARGE_START, StoreId};
use crate::mem::{Map, Origin};
use crate::options::Verify;
use crate::vfs::{Vfs, VfsFile};

use crate::verified::Verified;

/// What is wrong where a large value has no file.
pub(crate) const MISSING: &str = "the file of a large value is missing";

/// Bytes that are asked for at once, where what is read is not in memory.
const AHEAD: usize = 1 << 20;

/// A large value being written.
pub(crate) struct LargeWriter {
    vfs: Arc<dyn Vfs>,
    origin: Arc<Origin>,
    path: PathBuf,
    file: Box<dyn VfsFile>,
    id: u64,
    store: StoreId,
    chunk: Vec<u8>,
    table: Vec<u8>,
    len: u64,
    finished: bool,
}

impl LargeWriter {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        origin: Arc<Origin>,
        path: PathBuf,
        id: u64,
        store: StoreId,
    ) -> Result<LargeWriter> {
        let file = vfs
            .create(&path)
            .map_err(|e| io_error("creating", &path, e))?;
        let chunk = Vec::with_capacity(CHUNK);
        let (table, len) = (Vec::new(), 0);
        Ok(LargeWriter {
            vfs,
            origin,
            path,
            file,
            id,
            store,
            chunk,
            table,
            len,
            finished: false,
        })
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK.saturating_sub(self.chunk.len()).min(bytes.len());
            debug_assert!(room > 0, "a full chunk was written");
            let (now, later) = bytes.split_at(room);
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.flush_chunk()?;
            }
        }
        debug_assert!(self.chunk.len() < CHUNK, "a full chunk waits for nothing");
        Ok(())
    }

    fn flush_chunk(&mut self) -> Result<()> {
        debug_assert!(self.chunk.len() <= CHUNK);
        debug_assert!(
            self.len.is_multiple_of(CHUNK as u64),
            "only the last chunk is a part of one"
        );
        self.put(&self.chunk, LARGE_START.saturating_add(self.len))?;
        self.table
            .extend_from_slice(&crc32fast::hash(&self.chunk).to_le_bytes());
        self.len = self
            .len
            .saturating_add(u64::try_from(self.chunk.len()).unwrap_or(u64::MAX));
        self.chunk.clear();
        debug_assert_eq!(
            self.table.len() as u64,
            self.len.div_ceil(CHUNK as u64) * 4,
            "a checksum for each chunk"
        );
        Ok(())
    }

    fn put(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_at(bytes, offset)
            .map_err(|e| io_error("writing", &self.path, e))
    }

    /// Makes the value durable and returns what a record needs to point to it.
    pub(crate) fn finish(mut self) -> Result<LargePointer> {
        if !self.chunk.is_empty() {
            self.flush_chunk()?;
        }
        let len = u32::try_from(self.len).map_err(|_| Error::TooLarge {
            what: "value",
            len: self.len,
            max: u64::from(u32::MAX),
        })?;
        debug_assert_eq!(self.table.len() as u64, self.len.div_ceil(CHUNK as u64) * 4);
        debug_assert!(
            table_start(len) >= LARGE_START + u64::from(len),
            "behind the value"
        );
        self.put(&self.table, table_start(len))?;
        let table_crc = crc32fast::hash(&self.table);
        let header = Header {
            kind: Kind::Large {
                value_len: len,
                table_crc,
            },
            salt: 0,
            store: self.store,
            id: self.id,
            epoch: 0,
            previous: 0,
            previous_len: 0,
            time: 0,
        };
        self.put(&header.encode(), 0)?;
        self.file
            .sync()
            .map_err(|e| io_error("flushing", &self.path, e))?;
        let dir = self.path.parent().unwrap_or(&self.path);
        self.vfs
            .sync_dir(dir)
            .map_err(|e| io_error("flushing", dir, e))?;
        debug_assert!(!self.finished);
        debug_assert!(self.chunk.is_empty(), "all of it is durable");
        self.finished = true;
        Ok(LargePointer {
            segment: self.id,
            len,
            table_crc,
        })
    }
}

impl Drop for LargeWriter {
    fn drop(&mut self) {
        // In a forked process the file is the other's, which may go on with it.
        if !self.finished && !self.origin.is_elsewhere() {
            // An aborted write: nothing names the file. If removing fails, the next open removes it.
            let _ = self.vfs.remove(&self.path);
        }
    }
}

const _: () = {
    assert!(LARGE_START >= HEADER_LEN as u64);
    assert!(CHUNK.is_multiple_of(8));
    assert!(CHUNK.is_multiple_of(4096), "a chunk is whole pages");
};

fn table_start(value_len: u32) -> u64 {
    LARGE_START
        .saturating_add(u64::from(value_len))
        .next_multiple_of(8)
}

/// A large value being read.
pub(crate) struct Large {
    map: Map,
    path: PathBuf,
    len: u32,
    verify: Verify,
    /// Chunk by chunk.
    verified: Verified,
}

impl Large {
    /// Maps the value and verifies its header and chunk checksums, not the value.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        path: PathBuf,
        pointer: LargePointer,
        verify: Verify,
    ) -> Result<Arc<Large>> {
        let damage = |offset, reason| Error::Corrupt {
            path: path.clone(),
            offset,
            reason,
        };
        let file = match vfs.open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(damage(0, MISSING));
            }
            other => other.map_err(|e| io_error("opening", &path, e))?,
        };
        let chunks = u64::from(pointer.len).div_ceil(CHUNK as u64);
        let end = table_start(pointer.len).saturating_add(chunks.saturating_mul(4));
        if file.len().map_err(|e| io_error("reading", &path, e))? < end {
            return Err(damage(0, "the file of a large value is too short"));
        }
        let map = file
            .map(usize::try_from(end).unwrap_or(usize::MAX))
            .map_err(|e| io_error("mapping", &path, e))?;
        let header = map
            .slice(0, HEADER_LEN)
            .and_then(|b| <&[u8; HEADER_LEN]>::try_from(b).ok());
        match header.map(Header::decode) {
            Some(Ok(header)) if header.id == pointer.segment => {}
            _ => return Err(damage(0, "large segment header")),
        }
        let large = Large {
            map,
            path: path.clone(),
            len: pointer.len,
            verify,
            verified: Verified::none(usize::try_from(chunks).unwrap_or(0)),
        };
        debug_assert!(large.map.len() as u64 >= end, "all of it is mapped");
        if crc32fast::hash(large.table()) != pointer.table_crc {
            return Err(damage(table_start(pointer.len), "chunk checksums"));
        }
        Ok(Arc::new(large))
    }

    pub(crate) fn len(&self) -> u64 {
        u64::from(self.len)
    }

    fn table(&self) -> &[u8] {
        let start = usize::try_from(table_start(self.len)).unwrap_or(usize::MAX);
        self.map
            .slice(start, self.map.len().saturating_sub(start))
            .unwrap_or_default()
    }

    /// The bytes of a range, whose chunks are verified.
    pub(crate) fn range(self: &Arc<Large>, start: u64, end: u64) -> Result<Bytes> {
        let end = end.min(self.len());
        let start = start.min(end);
        self.fetch(start);
        let mut chunk = start / CHUNK as u64;
        while chunk.saturating_mul(CHUNK as u64) < end {
            self.verify(chunk)?;
            chunk = chunk.saturating_add(1);
        }
        debug_assert!(start <= end);
        debug_assert!(end <= self.len());
        let slice = LargeSlice {
            large: Arc::clone(self),
            start: usize::try_from(LARGE_START.saturating_add(start)).unwrap_or(usize::MAX),
            len: usize::try_from(end.saturating_sub(start)).unwrap_or(0),
        };
        Ok(Bytes::from_owner(slice))
    }

    /// Has the disk read what comes from here on, if it is not in memory.
    fn fetch(&self, from: u64) {
        let at = usize::try_from(LARGE_START.saturating_add(from)).unwrap_or(usize::MAX);
        self.map.fetch(at, AHEAD);
    }

    fn verify(&self, chunk: u64) -> Result<()> {
        let piece = usize::try_from(chunk).unwrap_or(usize::MAX);
        if self.verify == Verify::FirstRead && self.verified.has(piece) {
            return Ok(());
        }
        let from = chunk.saturating_mul(CHUNK as u64);
        debug_assert!(from < self.len(), "a chunk of the value");
        self.fetch(from);
        let len = self.len().saturating_sub(from).min(CHUNK as u64);
        let offset = LARGE_START.saturating_add(from);
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.map.slice(start, usize::try_from(len).ok()?))
            .unwrap_or_default();
        let at = usize::try_from(chunk.saturating_mul(4)).unwrap_or(usize::MAX);
        let expected = self.table().get(at..).unwrap_or_default();
        if expected.len() >= 4 && field!(expected, 0, u32) == crc32fast::hash(bytes) {
            if self.verify == Verify::FirstRead {
                self.verified.add(piece);
            }
            return Ok(());
        }
        Err(Error::Corrupt {
            path: self.path.clone(),
            offset,
            reason: "value checksum",
        })
    }
}

struct LargeSlice {
    large: Arc<Large>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for LargeSlice {
    fn as_ref(&self) -> &[u8] {
        debug_assert!(self.start + self.len <= self.large.map.len(), "mapped");
        self.large
            .map
            .slice(self.start, self.len)
            .unwrap_or_default()
    }
}
