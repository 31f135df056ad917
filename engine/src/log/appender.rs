//! The active segment: the one place that writes to the log.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, io_error};
use crate::format::record::{self, Address};
use crate::format::segment::{HEADER_LEN, Header, Kind, SEGMENT_LEN, StoreId};
use crate::mem::WritableMap;
use crate::vfs::{Vfs, VfsFile};

use super::segment::{Segment, Segments, segment_path, unfinished_path};

/// A writer that has to preallocate does it in steps of this: so much is not brought into memory in huge
/// pages, which would take milliseconds.
pub(crate) const STEP: u64 = if cfg!(feature = "small") {
    128 << 10
} else {
    1 << 20
};
/// How much of a segment is there before [`Core::go_ahead`](crate::core::Core::go_ahead) begins, and how far it is
/// in front of what is written.
const BEGIN: u64 = 4 << 20;
const AHEAD: u64 = 8 << 20;
/// How many bytes [`Core::flush_ahead`](crate::core::Core::flush_ahead) leaves to be flushed: fewer towards the
/// segment's end, where writers wait for them.
const UNFLUSHED_MAX: u64 = 32 << 20;
const UNFLUSHED_MIN: u64 = 1 << 20;
/// What is longer than this is not written through memory, as the usual way takes no more time then.
const MAPPED_MAX: usize = 64 << 10;
/// The largest page of a file's end.
const PAGE_MAX: u64 = 64 << 10;
/// Bytes of log after which maintenance looks whether something is due.
const MAINTENANCE: u64 = 4 << 20;
/// Space that only what frees space may use, so that deletes go on when the disk is full.
const RESERVE: u64 = STEP / 4;

const _: () = {
    assert!(STEP <= BEGIN);
    assert!(BEGIN <= SEGMENT_LEN);
    assert!(
        RESERVE < STEP,
        "a new segment has more than what is kept back"
    );
    assert!(AHEAD < SEGMENT_LEN);
    assert!(UNFLUSHED_MIN < UNFLUSHED_MAX);
    assert!(UNFLUSHED_MAX < SEGMENT_LEN);
    assert!(SEGMENT_LEN.is_multiple_of(PAGE_MAX), "whole pages");
    assert!(BEGIN.is_multiple_of(STEP));
    assert!(SEGMENT_LEN.is_multiple_of(STEP));
    assert!(
        RESERVE >= (record::HEADER_LEN + record::KEY_MAX) as u64,
        "a delete finds room"
    );
};

/// Appends records to the newest front segment and makes them durable.
pub(crate) struct Appender {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    store: StoreId,
    epoch: u64,
    segment: Arc<Segment>,
    /// What it is written through, once that is worth it and where it can be.
    map: OnceCell<Option<WritableMap>>,
    /// Its name until it is linked.
    unlinked: PathBuf,
    number: u32,
    /// Where the next record goes.
    end: u64,
    allocated: u64,
    /// The file of the next segment, if it was made ahead.
    spare: Option<Spare>,
    /// Whether somebody was asked to go ahead and did not yet.
    asked_ahead: bool,
    /// Whether somebody was asked to flush ahead, and nobody flushed yet.
    asked_flush: bool,
    /// From where on going ahead is worth trying.
    ahead_from: u64,
    /// How far the active segment was flushed; 0 if not even its header was.
    flushed: u64,
    buffer: Vec<u8>,
    /// How long a segment becomes, if no batch is longer.
    segment_len: u64,
    segment_len_max: u64,
    /// Bytes of large values that the active segment leads to, after which another is begun.
    large: u64,
    large_max: u64,
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

/// A file that will be a segment: preallocated, still without a header.
pub(crate) struct Spare {
    path: PathBuf,
    file: Box<dyn VfsFile>,
    allocated: u64,
}

/// What is to be done ahead of the writers.
pub(crate) struct Ahead {
    pub(crate) segment: Arc<Segment>,
    /// To which length its file is to be preallocated.
    pub(crate) allocate: Option<u64>,
    pub(crate) wants_spare: bool,
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
    /// it holds what it takes over from the one before, and was flushed with that.
    pub(crate) fn start(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        segments: &Segments,
        start: &Start,
    ) -> Result<Appender> {
        debug_assert!(matches!(start.kind, Kind::Front), "no class");
        debug_assert_eq!(start.id & 0xffff_ffff, 0, "it is the first of its epoch");
        let spare = Spare::create(&*vfs, &dir, start.id, STEP)?;
        let (unlinked, allocated) = (spare.path.clone(), spare.allocated);
        let segment = spare.into_unflushed(&*vfs, &dir, start)?;
        let number = segments.add(Arc::clone(&segment));
        Ok(Appender {
            vfs,
            dir,
            store: start.store,
            epoch: start.epoch,
            segment,
            map: OnceCell::new(),
            number,
            unlinked,
            end: HEADER_LEN as u64,
            allocated,
            spare: None,
            asked_ahead: false,
            asked_flush: false,
            ahead_from: BEGIN,
            flushed: 0,
            buffer: Vec::new(),
            segment_len: SEGMENT_LEN,
            segment_len_max: SEGMENT_LEN,
            large: 0,
            large_max: u64::MAX,
            seqno: start.seqno,
            durable: start.seqno,
            since_checkpoint: 0,
            written: 0,
            since_maintenance: 0,
        })
    }

    /// The end of a log that is only read: nothing is ever appended.
    pub(crate) fn ended(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        store: StoreId,
        (number, segment): (u32, Arc<Segment>),
        seqno: u64,
    ) -> Appender {
        Appender {
            vfs,
            dir,
            store,
            epoch: segment.id >> 32,
            map: OnceCell::new(),
            unlinked: PathBuf::new(),
            number,
            end: segment.published(),
            segment,
            allocated: 0,
            spare: None,
            asked_ahead: false,
            asked_flush: false,
            ahead_from: u64::MAX,
            flushed: 0,
            buffer: Vec::new(),
            segment_len: SEGMENT_LEN,
            segment_len_max: SEGMENT_LEN,
            large: 0,
            large_max: u64::MAX,
            seqno,
            durable: seqno,
            since_checkpoint: 0,
            written: 0,
            since_maintenance: 0,
        }
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
        debug_assert!(offset as usize >= HEADER_LEN, "behind the header");
        debug_assert!(self.number > 0, "0 is no segment");
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
        let (new, segment) = (&self.unlinked, &self.segment);
        link(&*self.vfs, &self.dir, new, segment).map_err(|error| match error {
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
        let buffered = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let begin = self.end.saturating_add(buffered);
        let end = begin.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        let is_empty = self.end == HEADER_LEN as u64 && self.buffer.is_empty();
        let is_open = begin < self.segment_len && self.large <= self.large_max;
        (is_open && end <= self.segment_len_max) || (is_empty && end <= SEGMENT_LEN)
    }

    /// From here on segments become about `len` long: a group that begins before there may make one `len_max` long. One
    /// that leads to `large_max` bytes of large values is left, too.
    pub(crate) fn limit_segments(&mut self, len: u64, len_max: u64, large_max: u64) {
        debug_assert!(len > HEADER_LEN as u64 && len <= len_max);
        debug_assert!(len_max <= SEGMENT_LEN);
        self.segment_len = len;
        self.segment_len_max = len_max;
        self.large_max = large_max;
    }

    #[cfg(test)]
    pub(crate) fn segment_len(&self) -> u64 {
        self.segment_len
    }

    /// A record leads to so many bytes of a large value.
    pub(crate) fn note_large(&mut self, bytes: u32) {
        self.large = self.large.saturating_add(bytes.into());
    }

    /// Encodes a record at [`next`](Appender::next), in memory only.
    pub(crate) fn push(&mut self, header: &record::Header, key: &[u8], body: &[u8]) {
        let (_, address) = self.next();
        debug_assert!(
            address.offset.is_multiple_of(8),
            "records begin at multiples of 8"
        );
        let place = self.segment.place(address.offset);
        record::encode(&mut self.buffer, header, place, key, body);
    }

    /// Bytes that were pushed and not yet written.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
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
        let end = end.saturating_add(slack).min(self.segment_len.max(end));
        if end <= self.allocated {
            return Ok(());
        }
        let len = end
            .max(self.allocated.saturating_add(STEP))
            .min(self.segment_len.max(end));
        let grown = self.segment.file.allocate(len).map(|()| len).or_else(|_| {
            // No room for the whole step: try for just what is needed.
            self.segment.file.allocate(end).map(|()| end)
        });
        self.allocated = grown.map_err(|e| io_error("allocating", &self.segment.path, e))?;
        debug_assert!(self.allocated >= end);
        Ok(())
    }

    /// Writes what was pushed and lets readers touch it. After an error the store is poisoned.
    pub(crate) fn write(&mut self) -> Result<()> {
        let (_, next) = self.next();
        debug_assert!(
            next.offset.is_multiple_of(8),
            "only whole records are pushed"
        );
        debug_assert!(
            u64::from(next.offset) <= self.allocated,
            "space is reserved before anything is written"
        );
        self.write_buffer()
            .map_err(|e| io_error("writing", &self.segment.path, e))?;
        let len = u64::try_from(self.buffer.len()).unwrap_or(0);
        self.end = self.end.saturating_add(len);
        self.since_checkpoint = self.since_checkpoint.saturating_add(len);
        self.written = self.written.saturating_add(len);
        self.since_maintenance = self.since_maintenance.saturating_add(len);
        self.buffer.clear();
        self.segment.publish(self.end);
        self.check();
        Ok(())
    }

    /// What holds between two groups of writers.
    fn check(&self) {
        debug_assert!(self.durable <= self.seqno, "what is durable was given out");
        debug_assert!(self.flushed <= self.end, "what was flushed was written");
        debug_assert!(self.end <= self.allocated, "what was written has its space");
        debug_assert!(self.end <= SEGMENT_LEN, "a slot can name what lies there");
        debug_assert!(self.segment_len <= SEGMENT_LEN);
        debug_assert_eq!(self.segment.published(), self.end, "readers see all of it");
    }

    /// Single records lie in a huge page, all blocks of which the system looks at with each write: through memory
    /// it takes an eighth of the time.
    fn write_buffer(&mut self) -> std::io::Result<()> {
        let file = &self.segment.file;
        let unflushed = self.end.saturating_sub(self.flushed);
        let len = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        // Not in the page in which the file ends, which ext4 of some kernels protects no more once it grew.
        let is_inside = self.end.saturating_add(len).next_multiple_of(PAGE_MAX) <= self.allocated;
        if unflushed >= file.mapped_from() && self.buffer.len() <= MAPPED_MAX && is_inside {
            let len = usize::try_from(SEGMENT_LEN).unwrap_or(usize::MAX);
            let map = self.map.get_or_init(|| file.map_to_write(len)).as_ref();
            if map.is_some_and(|map| map.write(&self.buffer, self.end)) {
                return Ok(());
            }
            // Not tried again; what is wrong the system says below.
            self.map = OnceCell::from(None);
        }
        file.write_at(&self.buffer, self.end)
    }

    /// Whether enough was written since the last yes that maintenance may have something to do.
    pub(crate) fn wants_maintenance(&mut self) -> bool {
        let wants = self.since_maintenance >= MAINTENANCE;
        if wants {
            self.since_maintenance = 0;
        }
        wants
    }

    /// Makes all written records durable, and the segment's header with them. After an error the store is poisoned: the flush is never
    /// tried again on the same file, since the system may have dropped the bytes.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.durable < self.seqno || self.flushed == 0 {
            self.segment.sync()?;
            self.note_flush(self.segment.id, self.seqno, self.end);
        }
        debug_assert!(self.durable >= self.seqno);
        Ok(())
    }

    /// What a flush comes to that began when the log was this far.
    pub(crate) fn note_flush(&mut self, segment: u64, seqno: u64, end: u64) {
        debug_assert!(seqno <= self.seqno, "what was not given out is not durable");
        self.asked_flush = false;
        self.durable = self.durable.max(seqno);
        debug_assert!(segment != self.segment.id || end <= self.end);
        if segment == self.segment.id {
            self.flushed = self.flushed.max(end);
        }
        self.check();
    }

    /// How far the log was written: segment, sequence number, end.
    pub(crate) fn written(&self) -> (Arc<Segment>, u64, u64) {
        (Arc::clone(&self.segment), self.seqno, self.end)
    }

    /// Whether somebody should be woken to go ahead.
    pub(crate) fn wants_ahead(&mut self) -> bool {
        if self.asked_ahead {
            return false;
        }
        self.asked_ahead = self.is_behind();
        self.asked_ahead
    }

    /// What is to be done ahead of the writers, if anything.
    pub(crate) fn ahead(&mut self) -> Option<Ahead> {
        self.asked_ahead = false;
        self.is_behind().then(|| Ahead {
            segment: Arc::clone(&self.segment),
            allocate: self.wants_space(),
            wants_spare: self.wants_spare(),
        })
    }

    /// Asked with every group of writers, so it only compares numbers.
    fn is_behind(&self) -> bool {
        // A small log does not need it.
        let is_worth = self.end >= self.ahead_from;
        is_worth && (self.wants_space().is_some() || self.wants_spare())
    }

    fn wants_space(&self) -> Option<u64> {
        let to = self.end.saturating_add(AHEAD).min(self.segment_len);
        (self.allocated < to).then(|| to.saturating_add(AHEAD).min(self.segment_len))
    }

    fn wants_spare(&self) -> bool {
        self.spare.is_none() && self.end > self.segment_len / 2
    }

    /// Whether somebody should be woken to flush ahead.
    pub(crate) fn wants_flush(&mut self) -> bool {
        let wants = !self.asked_flush && self.has_much_unflushed();
        self.asked_flush |= wants;
        wants
    }

    /// Asked with every group of writers, as [`is_behind`](Appender::is_behind).
    pub(crate) fn has_much_unflushed(&self) -> bool {
        let left = self.segment_len.saturating_sub(self.end);
        let most = left.clamp(UNFLUSHED_MIN, UNFLUSHED_MAX);
        self.end.saturating_sub(self.flushed) > most
    }

    /// What was done.
    pub(crate) fn note_ahead(
        &mut self,
        segment: u64,
        allocated: Option<u64>,
        spare: Option<Spare>,
        is_done: bool,
    ) {
        debug_assert!(allocated.is_none_or(|len| len <= SEGMENT_LEN));
        if let Some(allocated) = allocated.filter(|_| segment == self.segment.id) {
            self.allocated = self.allocated.max(allocated);
        }
        self.spare = self.spare.take().or(spare);
        self.check();
        // On a full disk not with every write again.
        self.ahead_from = if is_done {
            BEGIN
        } else {
            self.end.saturating_add(BEGIN)
        };
    }

    /// Removes what was made ahead. What cannot be removed is removed by the next open.
    pub(crate) fn forget_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            let _ = self.vfs.remove(&spare.path);
        }
    }

    /// Creates the segment that follows the active one, which is durable.
    pub(crate) fn prepare(&mut self, id: u64, time: u64) -> Result<Next> {
        debug_assert!(self.buffer.is_empty(), "nothing is on its way to it");
        debug_assert!(self.durable >= self.seqno, "its length can be relied on");
        debug_assert!(id > self.segment.id, "ids rise along the log");
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
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => Spare::create(&*self.vfs, &self.dir, id, STEP)?,
        };
        let (unlinked, allocated) = (spare.path.clone(), spare.allocated);
        Ok(Next {
            segment: spare.into_segment(&*self.vfs, &self.dir, &start)?,
            unlinked,
            allocated,
        })
    }

    /// Goes on in this segment. After an error the store is poisoned.
    pub(crate) fn rotate(&mut self, segments: &Segments, next: Next) -> Result<()> {
        debug_assert!(self.buffer.is_empty(), "rotation happens between groups");
        assert!(
            self.durable >= self.seqno,
            "the next segment says how long this one is, which has to hold"
        );
        debug_assert_eq!(
            next.segment.previous, self.segment.id,
            "it follows this one"
        );
        self.number = segments.add(Arc::clone(&next.segment));
        self.segment = next.segment;
        self.map = OnceCell::new();
        self.unlinked = next.unlinked;
        self.end = HEADER_LEN as u64;
        self.large = 0;
        self.allocated = next.allocated;
        self.ahead_from = BEGIN;
        self.flushed = self.end;
        self.check();
        self.link()
    }
}

/// Gives a segment its name, durably.
fn link(vfs: &dyn Vfs, dir: &Path, new: &Path, segment: &Segment) -> Result<()> {
    let linked = vfs
        .rename(new, &segment.path)
        .and_then(|()| vfs.sync_dir(dir));
    linked.map_err(|e| io_error("naming", &segment.path, e))
}

/// Creates a segment with a durable header and gives it its name.
pub(super) fn create(vfs: &dyn Vfs, dir: &Path, start: &Start) -> Result<Arc<Segment>> {
    let spare = Spare::create(vfs, dir, start.id, STEP)?;
    let unlinked = spare.path.clone();
    let segment = spare.into_segment(vfs, dir, start)?;
    link(vfs, dir, &unlinked, &segment)?;
    Ok(segment)
}

/// A segment that the log can go on in.
pub(crate) struct Next {
    segment: Arc<Segment>,
    unlinked: PathBuf,
    allocated: u64,
}

impl Spare {
    /// A file ahead of its use.
    pub(crate) fn ahead(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<Spare> {
        let spare = Spare::create(vfs, dir, id, BEGIN)?;
        // What is left to flush later is the header.
        match spare.file.sync() {
            Ok(()) => Ok(spare),
            Err(e) => Err(spare.fail(vfs, e)),
        }
    }

    fn create(vfs: &dyn Vfs, dir: &Path, id: u64, allocated: u64) -> Result<Spare> {
        debug_assert!(allocated >= HEADER_LEN as u64);
        debug_assert!(allocated <= SEGMENT_LEN);
        let path = unfinished_path(dir, id);
        let file = vfs.create(&path);
        let file = file.map_err(|e| io_error("creating", &path, e))?;
        let spare = Spare {
            path,
            file,
            allocated,
        };
        match spare.file.allocate(allocated) {
            Ok(()) => Ok(spare),
            Err(e) => Err(spare.fail(vfs, e)),
        }
    }

    /// The segment, its header durable.
    fn into_segment(self, vfs: &dyn Vfs, dir: &Path, start: &Start) -> Result<Arc<Segment>> {
        let header = self.begin(vfs, start)?;
        match self.file.sync() {
            Ok(()) => self.into_begun(dir, &header),
            Err(e) => Err(self.fail(vfs, e)),
        }
    }

    /// The segment, still to be flushed.
    fn into_unflushed(self, vfs: &dyn Vfs, dir: &Path, start: &Start) -> Result<Arc<Segment>> {
        let header = self.begin(vfs, start)?;
        self.into_begun(dir, &header)
    }

    /// Writes the header.
    fn begin(&self, vfs: &dyn Vfs, start: &Start) -> Result<Header> {
        debug_assert!(
            matches!(start.kind, Kind::Front) || start.previous == 0,
            "only front segments follow each other"
        );
        debug_assert_eq!(
            start.id >> 32,
            start.epoch & 0xffff_ffff,
            "ids tell their epoch"
        );
        let mut salt = [0u8; 4];
        random(vfs, &mut salt)?;
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
        match self.file.write_at(&header.encode(), 0) {
            Ok(()) => Ok(header),
            Err(e) => Err(self.fail(vfs, e)),
        }
    }

    fn into_begun(self, dir: &Path, header: &Header) -> Result<Arc<Segment>> {
        let path = segment_path(dir, header.id);
        Segment::new(path, self.file, header, HEADER_LEN as u64).map(Arc::new)
    }

    /// Nothing names the file, and a full disk should get its space back.
    fn fail(&self, vfs: &dyn Vfs, e: std::io::Error) -> Error {
        let _ = vfs.remove(&self.path);
        io_error("creating", &self.path, e)
    }
}

/// Fills `bytes` from the file system's random source.
pub(crate) fn random(vfs: &dyn Vfs, bytes: &mut [u8]) -> Result<()> {
    let filled = vfs.random(bytes);
    filled.map_err(|e| io_error("reading random bytes", Path::new("/dev/urandom"), e))
}
