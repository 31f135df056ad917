//! A segment as readers see it, and the list of them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, io_error};
use crate::format::checkpoint::NUMBER_MAX;
use crate::format::record::{self, Address, HEADER_LEN, Place, Record};
use crate::format::segment::{Header, Kind, SEGMENT_LEN};
use crate::mem::{EpochCell, Map, prefetch_at};
use crate::options::Verify;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::epoch::{self, Guard};
use crate::verified::Verified;
use crate::vfs::VfsFile;

use super::usage::Usage;

/// Cache lines of a record that are fetched ahead: header, key, and metadata or the start of a value; more
/// where all of the value will be read, to be verified.
const LINES: usize = 3;
const LINES_VERIFIED: usize = 12;
/// The most where it is known how long the record is. Beyond, the processor notices what comes next.
const LINES_MAX: usize = 24;
const LINE: usize = 64;
/// A body that is longer than this is asked for as a whole if its second page comes from the disk.
const FETCHED: usize = 16 << 10;
const PAGE: usize = 4096;
const _: () = assert!(FETCHED > PAGE, "there is a second page");
const _: () = assert!(LINES < LINES_VERIFIED && LINES_VERIFIED < LINES_MAX);
const _: () = assert!(
    HEADER_LEN <= LINES * LINE,
    "a header comes with the first lines"
);

/// A front or class segment. Its bytes up to `published` never change.
pub(crate) struct Segment {
    pub(crate) id: u64,
    /// The front segment that it followed in the log; 0 for a class segment.
    pub(crate) previous: u64,
    /// The class of remaining life of what compaction copied to it; `None` for a front segment.
    pub(crate) class: Option<u8>,
    pub(crate) salt: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn VfsFile>,
    pub(crate) usage: Usage,
    /// About how many of its records were read lately, in a cache.
    pub(crate) hits: AtomicU64,
    map: Map,
    published: AtomicU64,
    verified: Verified,
    /// Whether a flush failed. Locked while one is under way.
    flush_failed: Mutex<bool>,
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
        debug_assert!(published <= SEGMENT_LEN, "a slot can name what lies there");
        debug_assert!(header.is_of_records(), "no slot names a value's file");
        let published = AtomicU64::new(published);
        let class = match header.kind {
            Kind::Class(class) => Some(class),
            _ => None,
        };
        Ok(Segment {
            id: header.id,
            previous: header.previous,
            class,
            salt: header.salt,
            path,
            file,
            usage: Usage::new(header.time),
            hits: AtomicU64::new(0),
            map,
            published,
            verified: Verified::none(len / HEADER_LEN),
            flush_failed: Mutex::new(false),
        })
    }

    /// How many bytes readers may touch.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Where the last of what could not be read of the file ends; 0 if all of it could, as it mostly is mapped.
    pub(crate) fn unread_end(&self) -> u64 {
        self.map.unread_end()
    }

    /// How many bytes are part of the store: those of a class segment count once the log says so.
    pub(crate) fn end(&self) -> u64 {
        match self.class {
            Some(_) => self.usage.committed(),
            None => self.published(),
        }
    }

    /// Lets readers touch the bytes before `end`, which are written.
    pub(crate) fn publish(&self, end: u64) {
        debug_assert!(end <= SEGMENT_LEN, "a slot can name what lies there");
        self.published.fetch_max(end, Ordering::Release);
    }

    /// Takes back what lies from `end` on, which turned out to be no part of the log. Nobody else may
    /// have the segment yet.
    pub(crate) fn cut(&self, end: u64) {
        self.published.fetch_min(end, Ordering::Release);
    }

    /// Makes durable what was written before. After an error it is never tried again, since the system
    /// may have dropped the bytes and would say that all is well: the store is poisoned.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut failed = self.flush_failed.lock();
        if *failed {
            return Err(Error::Poisoned);
        }
        let synced = self.file.sync();
        *failed = synced.is_err();
        synced.map_err(|e| match io_error("flushing", &self.path, e) {
            Error::Full => Error::Poisoned,
            other => other,
        })
    }

    #[inline]
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
    #[inline]
    pub(crate) fn bytes(&self, offset: u64) -> Option<&[u8]> {
        let len = self.published().checked_sub(offset)?;
        self.map
            .slice(usize::try_from(offset).ok()?, usize::try_from(len).ok()?)
    }

    /// Starts to bring into the cache what a get looks at of the record at `offset`: its first lines, which
    /// come together while the header is waited for, and whether its value was verified.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, verify: Verify) {
        self.prefetch_start(offset, verify);
        if verify == Verify::Always {
            self.prefetch_lines(offset, LINES..LINES_VERIFIED);
        }
    }

    /// The same of one of many records: all together they should not ask for more than comes at once.
    #[inline]
    pub(crate) fn prefetch_start(&self, offset: u64, verify: Verify) {
        self.prefetch_lines(offset, 0..LINES);
        if verify == Verify::FirstRead {
            self.verified.prefetch(piece(offset));
        }
    }

    /// Where all of a value will be read, to be verified, starts to bring in the lines after those.
    pub(crate) fn prefetch_rest(&self, offset: u64, verify: Verify) {
        if verify == Verify::Always {
            let len = self.bytes(offset).map_or(0, record::peek_len);
            self.prefetch_lines(offset, LINES..len.div_ceil(LINE).min(LINES_MAX));
        }
    }

    /// Some of them may be another record's, or nobody's, which a prefetch does not mind.
    #[inline]
    fn prefetch_lines(&self, offset: u64, lines: Range<usize>) {
        let record = self
            .map
            .address(usize::try_from(offset).unwrap_or_default());
        lines.for_each(|line| prefetch_at(record.wrapping_add(line * LINE)));
    }

    /// The record at `offset`, header and key verified, if there is one.
    #[inline]
    pub(crate) fn intact(&self, offset: u64) -> Option<Record<'_>> {
        let place = self.place(u32::try_from(offset).unwrap_or(u32::MAX));
        record::decode(self.bytes(offset)?, place)
    }

    /// The record at `offset`, header and key verified; damage is an error.
    pub(crate) fn record(&self, offset: u64) -> Result<Record<'_>> {
        let damage = || self.damage(offset, "record header or key checksum");
        self.intact(offset).ok_or_else(damage)
    }

    /// Whether the body of the record at `offset` has its checksum, or had it as the policy asks.
    #[inline]
    pub(crate) fn body_is_intact(&self, offset: u64, record: &Record<'_>, verify: Verify) -> bool {
        if record.body.len() > FETCHED {
            let second = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .saturating_add(PAGE);
            self.map.fetch(second, record.body.len());
        }
        if verify == Verify::Always {
            return record.body_is_intact();
        }
        let piece = piece(offset);
        self.verified.has(piece) || {
            let is_intact = record.body_is_intact();
            if is_intact {
                self.verified.add(piece);
            }
            is_intact
        }
    }

    /// Starts to read the first pages of a record from the disk, if they are not in memory.
    pub(crate) fn will_need(&self, offset: u64) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.map.will_need(offset, LINES_MAX * LINE);
    }

    /// Starts to read all from `offset` on.
    pub(crate) fn will_need_from(&self, offset: u64) {
        let len = self.published().saturating_sub(offset);
        self.file
            .will_need(offset, usize::try_from(len).unwrap_or(0));
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

/// The bit of the record at `offset`: no two begin within the length of a header.
fn piece(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX) / HEADER_LEN
}

/// A slice of a segment that keeps the segment mapped.
pub(crate) struct Slice {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) len: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        debug_assert!(
            self.offset.saturating_add(self.len as u64) <= SEGMENT_LEN,
            "it lies in its segment"
        );
        self.segment
            .bytes(self.offset)
            .and_then(|b| b.get(..self.len))
            .unwrap_or_default()
    }
}

/// Numbers that slots have room for.
const NUMBERS: usize = 1 << 20;
const _: () = {
    assert!(NUMBERS == NUMBER_MAX as usize, "of checkpoints, too");
    assert!(SEGMENT_LEN.is_multiple_of(HEADER_LEN as u64));
};

/// The front and class segments by the number that slots hold; number 0 is unused. (The numbers do not
/// depend on what they are of.)
pub(crate) struct Segments<S = Segment> {
    list: EpochCell<Vec<Option<Arc<S>>>>,
    change: Mutex<()>,
    /// Numbers that were freed, and whether everybody is past who may have loaded a slot with one of
    /// them before.
    freed: Mutex<Vec<(usize, Arc<AtomicBool>)>>,
}

impl<S: Send + Sync + 'static> Segments<S> {
    pub(crate) fn new() -> Segments<S> {
        Segments {
            list: EpochCell::new(vec![None]),
            change: Mutex::new(()),
            freed: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn get<'g>(&'g self, number: u32, guard: &'g Guard) -> Option<&'g Arc<S>> {
        self.list
            .load(guard)
            .get(usize::try_from(number).ok()?)?
            .as_ref()
    }

    /// Adds a segment and returns its number, which may have been another's before.
    pub(crate) fn add(&self, segment: Arc<S>) -> u32 {
        let mut added = 0;
        let mut freed = self.freed.lock();
        freed.retain(|(_, is_past)| !is_past.load(Ordering::Acquire));
        let is_free = |at: &usize, list: &[Option<Arc<S>>]| {
            list.get(*at).is_none_or(Option::is_none) && !freed.iter().any(|(n, _)| n == at)
        };
        self.change(|list| {
            added = (1..).find(|at| is_free(at, list)).unwrap_or(usize::MAX);
            debug_assert!(list.get(added).is_none_or(Option::is_none));
            debug_assert!(added > 0, "0 is no segment");
            set(list, added, Some(segment));
        });
        assert!(added < NUMBERS, "a slot has room for its number");
        u32::try_from(added).unwrap_or(u32::MAX)
    }

    /// Puts segments back under the numbers that a checkpoint's slots have for them: all at once, since each
    /// change copies the list.
    pub(crate) fn restore(&self, segments: &[(u32, Arc<S>)]) {
        self.change(|list| {
            for (number, segment) in segments {
                debug_assert!(*number > 0, "0 is no segment");
                let at = usize::try_from(*number).unwrap_or(usize::MAX);
                debug_assert!(at < NUMBERS, "a checkpoint that says more is refused");
                set(list, at, Some(Arc::clone(segment)));
            }
        });
    }

    /// Forgets a segment that no slot names any more; who reads it keeps it. Its number becomes another's
    /// once nobody can hold a slot that was loaded before.
    pub(crate) fn remove(&self, number: u32) {
        debug_assert!(number > 0, "0 is no segment");
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let is_past = Arc::new(AtomicBool::new(false));
        self.freed.lock().push((at, Arc::clone(&is_past)));
        epoch::pin().defer(move || is_past.store(true, Ordering::Release));
        self.change(|list| {
            debug_assert!(list.get(at).is_some_and(Option::is_some), "removed once");
            set(list, at, None);
        });
    }

    fn change(&self, f: impl FnOnce(&mut Vec<Option<Arc<S>>>)) {
        let _alone = self.change.lock();
        let guard = epoch::pin();
        let mut list = self.list.load(&guard).clone();
        f(&mut list);
        debug_assert!(list.first().is_some_and(Option::is_none), "0 is no segment");
        self.list.replace(list, &guard);
        drop(guard);
        // The old list holds on to segments, which are files and mappings: do not leave it in this
        // thread's bag. An epoch has to pass twice before what was replaced is freed.
        for _ in 0..3 {
            epoch::pin().flush();
        }
    }
}

impl Segments {
    /// All segments with their numbers, oldest first.
    pub(crate) fn all(&self) -> Vec<(u32, Arc<Segment>)> {
        let guard = epoch::pin();
        let list = self.list.load(&guard);
        let numbered = (0u32..).zip(list);
        let mut all: Vec<_> = numbered
            .filter_map(|(number, segment)| Some((number, Arc::clone(segment.as_ref()?))))
            .collect();
        all.sort_unstable_by_key(|(_, segment)| segment.id);
        debug_assert!(
            all.is_sorted_by(|(_, a), (_, b)| a.id < b.id),
            "an id names one segment"
        );
        all
    }

    /// Bytes of the records that the index points to, or more than `enough` of them: then it stops to count.
    pub(crate) fn live_bytes(&self, enough: u64) -> u64 {
        let guard = epoch::pin();
        let mut live = 0u64;
        for segment in self.list.load(&guard).iter().flatten() {
            live = live.saturating_add(segment.usage.counts().live_bytes);
            if live > enough {
                break;
            }
        }
        live
    }
}

fn set<S>(list: &mut Vec<Option<Arc<S>>>, at: usize, segment: Option<Arc<S>>) {
    if list.len() <= at {
        list.resize(at.saturating_add(1), None);
    }
    debug_assert!(at < list.len(), "there is a place for it now");
    if let Some(place) = list.get_mut(at) {
        *place = segment;
    }
}

pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.seg"))
}

/// The name of a segment until it is whole.
pub(crate) fn unfinished_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.new"))
}

pub(crate) fn large_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.large"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::appender::{Start, create};
    use super::*;
    use crate::format::segment::StoreId;
    use crate::vfs::OsVfs;

    /// Rule 9: who loaded a slot before a segment was given up must not meet another under its number.
    #[test]
    fn a_number_is_not_given_out_again_while_somebody_may_hold_a_slot_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let start = Start {
            kind: Kind::Front,
            store: StoreId {
                id: [0; 16],
                secret: [0; 32],
            },
            id: 1,
            epoch: 0,
            previous: 0,
            previous_len: 0,
            seqno: 0,
            time: 0,
        };
        let segment = create(&OsVfs, dir.path(), &start).unwrap();
        let segments = Segments::new();
        let add = || segments.add(Arc::clone(&segment));
        let (first, reader) = (add(), epoch::pin());
        segments.remove(first);
        assert!((0..10).all(|_| add() != first), "somebody reads");
        drop(reader);
        let is_free = |_| {
            std::thread::yield_now();
            add() == first
        };
        assert!((0..2_000).any(is_free), "nobody reads any more");
    }
}
