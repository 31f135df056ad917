//! Opening: find the chain of front segments, replay it, make its tail durable, begin a new epoch.
//!
//! Replay is the commit path again: the same records in the same order with the same outcome. A
//! record names the one it replaced, so replay compares words and reads no old record.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::core::{Core, key_hash};
use crate::error::{Error, Result};
use crate::format::VERSION;
use crate::format::record::{Address, Header as RecordHeader, Kind, LargePointer, Record};
use crate::format::segment::{
    HEADER_LEN, Header, Kind as SegmentKind, Refusal, SEGMENT_LEN, StoreId,
};
use crate::index::keys::Keys;
use crate::index::runs::KeyRecord;
use crate::index::table::{Location, Table};
use crate::log::appender::{Appender, Start, random};
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Segment, Segments, io_error};
use crate::namespaces::Namespaces;
use crate::options::Durability;
use crate::vfs::{Vfs, VfsFile};

const LOCK: &str = "LOCK";

/// The files of a store's directory, by kind.
struct Files {
    fronts: Vec<(u64, PathBuf)>,
    larges: Vec<(u64, PathBuf)>,
    /// Segments that never joined the log.
    unfinished: Vec<PathBuf>,
}

/// A front segment whose header is valid.
struct Front {
    header: Header,
    path: PathBuf,
    file: Box<dyn VfsFile>,
    len: u64,
}

/// Opens the store in `dir`, creating it if `create` says so.
pub(crate) fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    clock: Clock,
    durability: Durability,
    create: bool,
) -> Result<Core> {
    if create {
        vfs.create_dir(dir)
            .map_err(|e| io_error("creating", dir, e))?;
    }
    if let Some(parent) = dir.parent().filter(|_| create) {
        // The directory's own name must be durable too.
        let here = parent.as_os_str().is_empty();
        sync_parent(&*vfs, if here { Path::new(".") } else { parent })?;
    }
    // Look before locking, so that a directory that is no store stays untouched.
    let names = vfs.list(dir).map_err(|e| io_error("opening", dir, e))?;
    let files = sort(dir, &names)?;
    if !create && files.fronts.is_empty() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(Error::Io {
            doing: "looking for a store",
            path: dir.into(),
            source,
        });
    }
    let lock_path = dir.join(LOCK);
    let lock = vfs.lock(&lock_path).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: dir.into() },
        _ => io_error("locking", &lock_path, e),
    })?;
    // Look again: the last owner may have changed the files until it let go of the lock.
    let names = vfs.list(dir).map_err(|e| io_error("opening", dir, e))?;
    let files = sort(dir, &names)?;
    for path in &files.unfinished {
        vfs.remove(path)
            .map_err(|e| io_error("removing", path, e))?;
    }
    let (chain, strays) = chain(&*vfs, &files)?;
    let id = match chain.first() {
        Some(front) => front.header.store,
        None => new_store_id()?,
    };
    if let Some(last) = chain.last() {
        clock.raise(last.header.time);
    }
    let newest = files
        .fronts
        .iter()
        .chain(&files.larges)
        .map(|(id, _)| *id)
        .max()
        .unwrap_or(0);
    let mut replay = Replay::new(id);
    let tail = replay.run(chain)?;
    let start = Start {
        store: id,
        id: newest.saturating_add(1),
        epoch: tail.epoch.saturating_add(1),
        previous: tail.previous,
        previous_len: tail.previous_len,
        seqno: replay.durable,
        time: clock.confirmed(),
    };
    let mut log = Appender::start(Arc::clone(&vfs), dir.into(), &replay.segments, &start)?;
    replay.rewrite_tail(&mut log, &tail)?;
    // Only now does the new segment end the old one's valid part: its tail is durable here.
    log.link()?;
    remove_strays(&*vfs, strays, tail.empty, &files, &replay);
    Ok(Core {
        vfs,
        dir: dir.into(),
        id,
        clock,
        durability,
        segments: replay.segments,
        table: replay.table,
        keys: replay.keys,
        namespaces: replay.namespaces,
        naming: Mutex::default(),
        queue: crate::log::commit::Queue::default(),
        log: Mutex::new(log),
        next_file: AtomicU64::new(newest.saturating_add(2)),
        poisoned: false.into(),
        live_bytes: AtomicU64::new(replay.live_bytes),
        damage: replay.damage,
        lock: Mutex::new(Some(lock)),
    })
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

fn sort(dir: &Path, names: &[String]) -> Result<Files> {
    let mut files = Files {
        fronts: Vec::new(),
        larges: Vec::new(),
        unfinished: Vec::new(),
    };
    for name in names {
        let id = |stem: &str| (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok());
        let front = name
            .strip_suffix(".seg")
            .and_then(|stem| id(stem).flatten());
        let large = name
            .strip_suffix(".large")
            .and_then(|stem| id(stem).flatten());
        match (front, large) {
            (Some(id), _) => files.fronts.push((id, dir.join(name))),
            (_, Some(id)) => files.larges.push((id, dir.join(name))),
            _ if name == LOCK => {}
            _ if name
                .strip_suffix(".new")
                .and_then(|stem| id(stem).flatten())
                .is_some() =>
            {
                files.unfinished.push(dir.join(name));
            }
            _ => {
                return Err(Error::NotAStore {
                    path: dir.into(),
                    found: name.clone(),
                });
            }
        }
    }
    files.fronts.sort_unstable();
    Ok(files)
}

fn new_store_id() -> Result<StoreId> {
    let mut store = StoreId {
        id: [0; 16],
        secret: [0; 32],
    };
    random(&mut store.id)?;
    random(&mut store.secret)?;
    Ok(store)
}

/// The front segments from the first to the newest, and files that belong to no chain.
///
/// Each segment names the one before it. Of two that name the same one, the higher epoch counts: the
/// other lay behind a torn tail that a recovery cut off.
fn chain(vfs: &dyn Vfs, files: &Files) -> Result<(Vec<Front>, Vec<PathBuf>)> {
    let mut successors: HashMap<u64, Vec<Front>> = HashMap::new();
    let mut strays = Vec::new();
    for (id, path) in &files.fronts {
        let front = read_front(vfs, path, *id)?;
        successors
            .entry(front.header.previous)
            .or_default()
            .push(front);
    }
    let mut chain: Vec<Front> = Vec::new();
    let mut previous = 0;
    while let Some(mut fronts) = successors.remove(&previous) {
        fronts.sort_unstable_by_key(|front| (front.header.epoch, front.header.id));
        let Some(front) = fronts.pop() else { break };
        strays.extend(fronts.into_iter().map(|front| front.path));
        previous = front.header.id;
        chain.push(front);
    }
    if chain.is_empty() && !successors.is_empty() {
        let path = files
            .fronts
            .first()
            .map(|(_, path)| path.clone())
            .unwrap_or_default();
        let reason = "the first segment of the log is missing";
        return Err(Error::Corrupt {
            path,
            offset: 0,
            reason,
        });
    }
    // What follows only a stray is a stray too; anything newer than the chain is a hole in it.
    let epoch = chain.last().map_or(0, |front| front.header.epoch);
    for front in successors.into_values().flatten() {
        if front.header.epoch >= epoch {
            let reason = "the segment before this one is missing";
            return Err(Error::Corrupt {
                path: front.path,
                offset: 80,
                reason,
            });
        }
        strays.push(front.path);
    }
    Ok((chain, strays))
}

/// Reads a front segment's header; `None` if its creation was cut short.
fn read_front(vfs: &dyn Vfs, path: &Path, id: u64) -> Result<Front> {
    let file = vfs.open(path).map_err(|e| io_error("opening", path, e))?;
    let len = file.len().map_err(|e| io_error("reading", path, e))?;
    let mut bytes = [0u8; HEADER_LEN];
    if len >= HEADER_LEN as u64 {
        file.read_at(&mut bytes, 0)
            .map_err(|e| io_error("reading", path, e))?;
    }
    match Header::decode(&bytes) {
        Ok(header)
            if header.kind == SegmentKind::Front && header.id == id && len <= SEGMENT_LEN =>
        {
            let path = path.into();
            Ok(Front {
                header,
                path,
                file,
                len,
            })
        }
        Ok(_) => Err(Error::Corrupt {
            path: path.into(),
            offset: 0,
            reason: "the header is another file's, or the file is too long",
        }),
        Err(Refusal::Newer(found)) => Err(Error::UnsupportedFormat {
            path: path.into(),
            found,
            supported: VERSION,
        }),
        Err(Refusal::Damaged(reason)) => Err(Error::Corrupt {
            path: path.into(),
            offset: 0,
            reason,
        }),
    }
}

/// The state that the log leads to, as it is rebuilt.
struct Replay {
    id: StoreId,
    segments: Segments,
    table: Table,
    keys: Keys,
    namespaces: Namespaces,
    /// The number of each segment in slots, and what each large segment is: named by a live record.
    numbers: HashMap<u64, (u32, Arc<Segment>)>,
    larges: HashMap<u64, Address>,
    /// The highest sequence number found, and the highest that ends a whole batch.
    seqno: u64,
    whole: u64,
    /// The highest sequence number that a record says was durable.
    durable: u64,
    live_bytes: u64,
    damage: Vec<String>,
}

/// The end of the log: where the new segment links, and what must be written again.
struct Tail {
    epoch: u64,
    previous: u64,
    previous_len: u64,
    /// The newest segment, when it holds no record and can go.
    empty: Option<PathBuf>,
    /// Records that no later one says were durable, batch by batch.
    records: Vec<Address>,
    /// The sequence number of the last record that stays in the log.
    seqno: u64,
}

impl Replay {
    fn new(id: StoreId) -> Replay {
        Replay {
            id,
            segments: Segments::new(),
            table: Table::new(),
            keys: Keys::new(),
            namespaces: Namespaces::default(),
            numbers: HashMap::new(),
            larges: HashMap::new(),
            seqno: 0,
            whole: 0,
            durable: 0,
            live_bytes: 0,
            damage: Vec::new(),
        }
    }

    /// Applies everything known durable and returns the rest.
    fn run(&mut self, chain: Vec<Front>) -> Result<Tail> {
        let mut tail = Tail {
            epoch: 0,
            previous: 0,
            previous_len: 0,
            empty: None,
            records: Vec::new(),
            seqno: 0,
        };
        let mut lens: Vec<Option<u64>> = chain
            .iter()
            .skip(1)
            .map(|front| Some(front.header.previous_len))
            .collect();
        lens.push(None);
        for (front, known_len) in chain.into_iter().zip(lens) {
            let end = known_len.unwrap_or(front.len);
            let segment = Segment::new(
                front.path.clone(),
                front.file,
                &front.header,
                end.min(front.len),
            )?;
            let segment = Arc::new(segment);
            let number = self.segments.add(Arc::clone(&segment));
            self.numbers
                .insert(segment.id, (number, Arc::clone(&segment)));
            let mut whole = Vec::new();
            let before = self.whole;
            self.scan(&segment, known_len.unwrap_or(0), &mut whole);
            tail.epoch = front.header.epoch;
            match known_len {
                Some(_) => self.apply_all(&segment, &whole),
                None => {
                    let at = whole.partition_point(|(_, seqno, _)| *seqno <= self.durable);
                    // A batch is durable or not as a whole: go back to the start of its own.
                    let at = batch_start(&whole, at);
                    let (kept, again) = whole.split_at(at);
                    tail.seqno = match (kept, again) {
                        (_, [.., (_, last, _)]) | ([.., (_, last, _)], []) => *last,
                        ([], []) => before,
                    };
                    self.apply_all(&segment, kept);
                    tail.previous = segment.id;
                    // Not one byte more: a close record at the end may not be durable.
                    tail.previous_len = match again {
                        [(offset, ..), ..] => u64::from(*offset),
                        [] => end_of_last(&segment, kept),
                    };
                    if kept.is_empty() {
                        // Nothing of it is needed once the tail is written again.
                        tail.empty = Some(front.path);
                        tail.previous = front.header.previous;
                        tail.previous_len = front.header.previous_len;
                    }
                    let address = |offset| Address {
                        segment: segment.id,
                        offset,
                    };
                    tail.records = again.iter().map(|(offset, ..)| address(*offset)).collect();
                }
            }
        }
        self.seqno = self.seqno.max(self.durable);
        Ok(tail)
    }

    /// The records of whole batches: offset, sequence number, whether more follow.
    fn scan(&mut self, segment: &Segment, end: u64, whole: &mut Vec<(u32, u64, bool)>) {
        let start = HEADER_LEN as u64;
        let mut scan = Scan::new(segment, start, end, self.seqno.saturating_add(1));
        let (mut valid_len, mut pending) = (start, Vec::new());
        loop {
            match scan.step() {
                Step::Record { offset, record } => {
                    let header = record.header;
                    self.seqno = header.seqno;
                    self.durable = self
                        .durable
                        .max(header.durable_seqno().min(header.seqno.saturating_sub(1)));
                    if header.kind != Kind::Close {
                        let offset = u32::try_from(offset).unwrap_or(0);
                        pending.push((offset, header.seqno, header.more));
                    }
                    if !header.more {
                        whole.append(&mut pending);
                        self.whole = header.seqno;
                        let len = u64::try_from(header.record_len()).unwrap_or(0);
                        valid_len = offset.saturating_add(len);
                    }
                }
                Step::Damage { offset, next } => {
                    let path = segment.path.display();
                    self.damage
                        .push(format!("{path}: bytes {offset} to {next} are damaged"));
                    pending.clear();
                }
                Step::End { offset } if offset < end => {
                    let path = segment.path.display();
                    self.damage
                        .push(format!("{path}: bytes {offset} to {end} are missing"));
                    return;
                }
                Step::End { .. } => return,
            }
            if end != 0 && valid_len >= end && pending.is_empty() {
                return;
            }
        }
    }

    fn apply_all(&mut self, segment: &Arc<Segment>, records: &[(u32, u64, bool)]) {
        for (offset, ..) in records {
            if let Ok(record) = segment.record(u64::from(*offset)) {
                let address = Address {
                    segment: segment.id,
                    offset: *offset,
                };
                self.apply(&record, address, record.header.replaced);
            }
        }
    }

    fn location(&self, address: Address) -> Option<Location> {
        let (number, _) = self.numbers.get(&address.segment)?;
        let offset = u64::from(address.offset);
        // Offsets in records come from the disk.
        let fits = offset.is_multiple_of(8) && offset < SEGMENT_LEN;
        fits.then(|| Location::new(*number, offset))
    }

    /// The slot that a record replaces: the one it names, or, where damage ate that one, whichever
    /// the key has, since an older version must not come back.
    fn old(&self, namespace: u32, key: &[u8], hash: u64, named: Address) -> Option<Location> {
        let guard = crossbeam_epoch::pin();
        let named = self.location(named);
        if self.damage.is_empty() {
            return named;
        }
        self.table.find(hash, &guard, |location| {
            let segment = self.segments.get(location.number(), &guard);
            named == Some(location)
                || segment
                    .and_then(|s| s.record(location.offset()).ok())
                    .is_some_and(|record| record.header.namespace == namespace && record.key == key)
        })
    }

    /// Applies one record, which lies at `address` and replaced the one at `replaced`.
    fn apply(&mut self, record: &Record<'_>, address: Address, replaced: Address) {
        let header = &record.header;
        self.seqno = self.seqno.max(header.seqno);
        let hash = key_hash(&self.id, header.namespace, record.key);
        let new = self.location(address);
        let old = self.old(header.namespace, record.key, hash, replaced);
        match (header.kind, new) {
            (Kind::Put | Kind::PutLarge, Some(new)) => {
                let replaced = old.is_some_and(|old| self.table.replace(hash, old, new));
                let placed = replaced || self.table.insert(hash, new);
                if !placed {
                    self.damage
                        .push(format!("too many keys share the hash {hash:016x}"));
                }
                self.live_bytes += u64::try_from(header.record_len()).unwrap_or(0);
            }
            (Kind::Tombstone, _) => {
                if let Some(old) = old {
                    let _missing_after_damage = self.table.remove(hash, old);
                }
            }
            (Kind::Namespace, _) => self.namespaces.apply(header.namespace, record.body),
            (Kind::Close | Kind::Put | Kind::PutLarge, _) => return,
        }
        if let Some((_, segment)) = self.numbers.get(&replaced.segment)
            && let Ok(old) = segment.record(u64::from(replaced.offset))
        {
            let len = u64::try_from(old.header.record_len()).unwrap_or(0);
            self.live_bytes = self.live_bytes.saturating_sub(len);
            if let Some(pointer) = large_pointer(&old) {
                self.larges.remove(&pointer.segment);
            }
        }
        if let Some(pointer) = large_pointer(record) {
            self.larges.insert(pointer.segment, address);
        }
        if header.kind != Kind::Namespace {
            self.keys.apply([KeyRecord {
                namespace: header.namespace,
                key: record.key,
                metadata: record.metadata(),
                expiration: header.expiration,
                seqno: header.seqno,
                tombstone: header.kind == Kind::Tombstone,
            }]);
        }
    }

    /// Writes the records that may not be durable again, to the new segment, and flushes it. After a
    /// failed flush the system may show bytes that never reached the disk; this is what makes them
    /// safe to trust.
    fn rewrite_tail(&mut self, log: &mut Appender, tail: &Tail) -> Result<()> {
        let mut moved: HashMap<Address, Address> = HashMap::new();
        let mut applied = Vec::new();
        for old in &tail.records {
            let Some((_, segment)) = self.numbers.get(&old.segment) else {
                continue;
            };
            let segment = Arc::clone(segment);
            let record = segment.record(u64::from(old.offset))?;
            let replaced = record.header.replaced;
            let replaced = moved.get(&replaced).copied().unwrap_or(replaced);
            let lag = record.header.seqno.saturating_sub(self.durable);
            let header = RecordHeader {
                replaced,
                durable_lag: u32::try_from(lag).unwrap_or(u32::MAX),
                ..record.header
            };
            let (_, new) = log.next();
            log.push(&header, record.key, record.body);
            moved.insert(*old, new);
            applied.push((new, replaced));
        }
        if tail.seqno < self.seqno {
            // Numbers were given out whose records are gone: a torn batch, the close record of a
            // segment that held nothing else. Without a record that says so, the next recovery would
            // take the gap for records that were durable once, and a torn tail after it for damage.
            self.seqno = self.seqno.saturating_add(1);
            log.push(&void(self.seqno, self.durable), &[], &[]);
        }
        log.reserve()?;
        log.write()?;
        log.seqno = self.seqno;
        log.sync()?;
        log.durable = self.seqno;
        let (number, segment) = log.active();
        self.numbers
            .insert(segment.id, (number, Arc::clone(&segment)));
        for (new, replaced) in applied {
            let record = segment.record(u64::from(new.offset))?;
            self.apply(&record, new, replaced);
        }
        Ok(())
    }
}

/// A record that changes nothing but bears a sequence number.
fn void(seqno: u64, durable: u64) -> RecordHeader {
    RecordHeader {
        kind: Kind::Close,
        more: false,
        key_len: 0,
        metadata_len: 0,
        body_len: 0,
        seqno,
        expiration: 0,
        namespace: 0,
        body_crc: crc32fast::hash(&[]),
        replaced: Address::default(),
        durable_lag: u32::try_from(seqno.saturating_sub(durable)).unwrap_or(u32::MAX),
    }
}

fn large_pointer(record: &Record<'_>) -> Option<LargePointer> {
    (record.header.kind == Kind::PutLarge).then(|| LargePointer::decode(record.value()))?
}

/// Where the last of these records ends.
fn end_of_last(segment: &Segment, records: &[(u32, u64, bool)]) -> u64 {
    let last = records.last().map_or(0, |(offset, ..)| u64::from(*offset));
    let record = segment.record(last).ok();
    let len = record.map_or(0, |record| record.header.record_len());
    last.saturating_add(u64::try_from(len).unwrap_or(0))
}

fn batch_start(records: &[(u32, u64, bool)], mut at: usize) -> usize {
    while at > 0 && records.get(at - 1).is_some_and(|(_, _, more)| *more) {
        at -= 1;
    }
    at
}

/// Removes what no record leads to: segments behind a torn tail, large values that were replaced or
/// never committed. A file that cannot be removed now is found again by the next open.
fn remove_strays(
    vfs: &dyn Vfs,
    strays: Vec<PathBuf>,
    empty: Option<PathBuf>,
    files: &Files,
    replay: &Replay,
) {
    let dead = files
        .larges
        .iter()
        .filter(|(id, _)| !replay.larges.contains_key(id));
    let dead = dead.map(|(_, path)| path.clone());
    // With damage in the log a missing reference proves nothing.
    let dead: Vec<_> = if replay.damage.is_empty() {
        dead.collect()
    } else {
        Vec::new()
    };
    for path in strays.into_iter().chain(empty).chain(dead) {
        let _ = vfs.remove(&path);
    }
}
