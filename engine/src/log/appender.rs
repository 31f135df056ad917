//! The active segment: the one place that writes to the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, io_error};
use crate::format::record::{self, Address};
use crate::format::segment::{HEADER_LEN, Header, Kind, SEGMENT_LEN, StoreId};
use crate::vfs::Vfs;

use super::segment::{Segment, Segments, segment_path, unfinished_path};

/// The first step of preallocation; each further one doubles the file.
pub(super) const FIRST_STEP: u64 = 1 << 20;
/// Bytes of log after which maintenance looks whether something is due.
const MAINTENANCE: u64 = 4 << 20;
/// Space that only what frees space may use, so that deletes go on when the disk is full.
const RESERVE: u64 = 256 << 10;

/// Appends records to the newest front segment and makes them durable.
pub(crate) struct Appender {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    store: StoreId,
    epoch: u64,
    segment: Arc<Segment>,
    number: u32,
    /// Where the next record goes.
    end: u64,
    allocated: u64,
    buffer: Vec<u8>,
    /// The newest sequence number given out, and the newest known durable.
    pub(crate) seqno: u64,
    pub(crate) durable: u64,
    /// Bytes of log since the last checkpoint.
    pub(crate) since_checkpoint: u64,
    /// Bytes of log since the store was opened.
    pub(crate) written: u64,
    /// Bytes of log since maintenance was last asked for.
    since_maintenance: u64,
}

/// What a new segment says of itself.
pub(crate) struct Start {
    pub(crate) kind: Kind,
    pub(crate) store: StoreId,
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) previous: u64,
    pub(crate) previous_len: u64,
    pub(crate) seqno: u64,
    pub(crate) time: u64,
}

impl Appender {
    /// Creates the first segment of a new epoch. It joins the log with [`link`](Appender::link), once
    /// it holds what it takes over from the one before.
    pub(crate) fn start(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        segments: &Segments,
        start: &Start,
    ) -> Result<Appender> {
        let segment = create(&*vfs, &dir, start)?;
        let number = segments.add(Arc::clone(&segment));
        Ok(Appender {
            vfs,
            dir,
            store: start.store,
            epoch: start.epoch,
            segment,
            number,
            end: HEADER_LEN as u64,
            allocated: FIRST_STEP,
            buffer: Vec::new(),
            seqno: start.seqno,
            durable: start.seqno,
            since_checkpoint: 0,
            written: 0,
            since_maintenance: 0,
        })
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number and permanent address that the next record will have.
    pub(crate) fn next(&self) -> (u32, Address) {
        let offset = self
            .end
            .saturating_add(u64::try_from(self.buffer.len()).unwrap_or(0));
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        (
            self.number,
            Address {
                segment: self.segment.id,
                offset,
            },
        )
    }

    /// Gives the active segment its name, durably: from here on it follows the one before it.
    pub(crate) fn link(&self) -> Result<()> {
        link(&*self.vfs, &self.dir, &self.segment).map_err(|error| match error {
            // Half done, and not to be tried again.
            Error::Full => Error::Poisoned,
            other => other,
        })
    }

    /// The active segment and its number.
    pub(crate) fn active(&self) -> (u32, Arc<Segment>) {
        (self.number, Arc::clone(&self.segment))
    }

    pub(crate) fn durable_lag(&self, seqno: u64) -> u32 {
        u32::try_from(seqno.saturating_sub(self.durable)).unwrap_or(u32::MAX)
    }

    /// Whether `len` more bytes fit into the active segment.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        let len = u64::try_from(self.buffer.len().saturating_add(len)).unwrap_or(u64::MAX);
        self.end.saturating_add(len) <= SEGMENT_LEN
    }

    /// Encodes a record at [`next`](Appender::next), in memory only.
    pub(crate) fn push(&mut self, header: &record::Header, key: &[u8], body: &[u8]) {
        let (_, address) = self.next();
        let place = self.segment.place(address.offset);
        record::encode(&mut self.buffer, header, place, key, body);
    }

    /// Forgets what was pushed and not yet written.
    pub(crate) fn discard(&mut self) {
        self.buffer.clear();
    }

    /// Reserves the space for what was pushed, before anything is written: a full disk changes
    /// nothing. What frees space may use the last of it.
    pub(crate) fn reserve(&mut self, frees_space: bool) -> Result<()> {
        let end = self
            .end
            .saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        let slack = if frees_space { 0 } else { RESERVE };
        let end = end.saturating_add(slack).min(SEGMENT_LEN.max(end));
        if end <= self.allocated {
            return Ok(());
        }
        let len = end.max(self.allocated.saturating_mul(2)).min(SEGMENT_LEN);
        let grown = self.segment.file.allocate(len).map(|()| len).or_else(|_| {
            // No room for the whole step: try for just what is needed.
            self.segment.file.allocate(end).map(|()| end)
        });
        self.allocated = grown.map_err(|e| io_error("allocating", &self.segment.path, e))?;
        Ok(())
    }

    /// Writes what was pushed and lets readers touch it. After an error the store is poisoned.
    pub(crate) fn write(&mut self) -> Result<()> {
        self.segment
            .file
            .write_at(&self.buffer, self.end)
            .map_err(|e| io_error("writing", &self.segment.path, e))?;
        let len = u64::try_from(self.buffer.len()).unwrap_or(0);
        self.end = self.end.saturating_add(len);
        self.since_checkpoint = self.since_checkpoint.saturating_add(len);
        self.written = self.written.saturating_add(len);
        self.since_maintenance = self.since_maintenance.saturating_add(len);
        self.buffer.clear();
        self.segment.publish(self.end);
        Ok(())
    }

    /// Whether enough was written since the last yes that maintenance may have something to do.
    pub(crate) fn wants_maintenance(&mut self) -> bool {
        let wants = self.since_maintenance >= MAINTENANCE;
        if wants {
            self.since_maintenance = 0;
        }
        wants
    }

    /// Makes all written records durable. After an error the store is poisoned: the flush is never
    /// tried again on the same file, since the system may have dropped the bytes.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.durable < self.seqno {
            self.segment.file.sync().map_err(|e| {
                match io_error("flushing", &self.segment.path, e) {
                    Error::Full => Error::Poisoned,
                    other => other,
                }
            })?;
            self.durable = self.seqno;
        }
        Ok(())
    }

    /// Creates the segment that follows the active one, which is durable.
    pub(crate) fn prepare(&self, id: u64, time: u64) -> Result<Arc<Segment>> {
        let start = Start {
            kind: Kind::Front,
            store: self.store,
            id,
            epoch: self.epoch,
            previous: self.segment.id,
            previous_len: self.end,
            seqno: self.seqno,
            time,
        };
        create(&*self.vfs, &self.dir, &start)
    }

    /// Goes on in this segment. After an error the store is poisoned.
    pub(crate) fn rotate(&mut self, segments: &Segments, next: Arc<Segment>) -> Result<()> {
        debug_assert!(self.buffer.is_empty(), "rotation happens between groups");
        self.number = segments.add(Arc::clone(&next));
        self.segment = next;
        self.end = HEADER_LEN as u64;
        self.allocated = FIRST_STEP;
        self.link()
    }
}

/// Gives a segment its name, durably.
pub(super) fn link(vfs: &dyn Vfs, dir: &Path, segment: &Segment) -> Result<()> {
    let linked = vfs
        .rename(&unfinished_path(dir, segment.id), &segment.path)
        .and_then(|()| vfs.sync_dir(dir));
    linked.map_err(|e| io_error("naming", &segment.path, e))
}

/// Creates a segment that has no name yet, with a durable header.
pub(super) fn create(vfs: &dyn Vfs, dir: &Path, start: &Start) -> Result<Arc<Segment>> {
    let (path, new) = (segment_path(dir, start.id), unfinished_path(dir, start.id));
    let mut salt = [0u8; 4];
    random(&mut salt)?;
    let header = Header {
        kind: start.kind,
        salt: u32::from_le_bytes(salt),
        store: start.store,
        id: start.id,
        epoch: start.epoch,
        previous: start.previous,
        previous_len: start.previous_len,
        time: start.time,
    };
    let file = vfs
        .create(&new)
        .map_err(|e| io_error("creating", &new, e))?;
    let made = file
        .allocate(FIRST_STEP)
        .and_then(|()| file.write_at(&header.encode(), 0))
        .and_then(|()| file.sync());
    if let Err(error) = made {
        // Nothing names the file yet, and a full disk should get its space back.
        let _ = vfs.remove(&new);
        return Err(io_error("creating", &new, error));
    }
    Ok(Arc::new(Segment::new(
        path,
        file,
        &header,
        HEADER_LEN as u64,
    )?))
}

/// Fills `bytes` from the system's random source.
#[allow(clippy::disallowed_methods, reason = "the only source of randomness")]
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|_| Error::Io {
        doing: "reading random bytes",
        path: PathBuf::from("/dev/urandom"),
        source: std::io::Error::other("no random source"),
    })
}
