//! Whole files: segments and checkpoints, as recovery reads them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use super::Input;
use crate::format::checkpoint::{self, Meta};
use crate::format::record::{self, Address, Kind, Place, Replaced};
use crate::format::segment::{self, StoreId};
use crate::format::set;
use crate::index::checkpoint::{load, reseal, save, scrub};
use crate::index::table::{Location, Table};
use crate::log::scan::{Scan, Step};
use crate::log::segment::Segment;
use crate::vfs::{Map, Vfs, VfsFile};

/// A directory with one file, in memory.
#[derive(Clone, Default)]
struct OneFile(Arc<Mutex<Vec<u8>>>);

impl OneFile {
    fn holding(bytes: &[u8]) -> OneFile {
        OneFile(Arc::new(Mutex::new(bytes.to_vec())))
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panicked")
    }
}

impl Vfs for OneFile {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(self.clone()))
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(self.clone()))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl VfsFile for OneFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut file = self.bytes();
        let len = file.len().max(start + bytes.len());
        file.resize(len, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let file = self.bytes();
        let from = file.get(start..start + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    /// No longer than the file, which does not grow.
    fn map(&self, _: usize) -> io::Result<Map> {
        Map::from_bytes(&self.bytes())
    }

    fn map_private(&self) -> io::Result<Map> {
        Map::from_bytes(&self.bytes())
    }

    fn is_resident(&self, _: u64, _: usize) -> bool {
        true
    }
}

/// A segment's records are what was written or damage; forged ones cost no panic and no memory.
pub fn segment_open(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    match mode % 3 {
        0 => read(input.0, mode),
        1 => {
            let mut bytes = input.0.to_vec();
            reseal_segment(&mut bytes);
            read(&bytes, mode);
        }
        _ => written(input),
    }
}

/// A record as a scan met it.
#[derive(Debug, PartialEq)]
struct Met {
    offset: u64,
    header: record::Header,
    key: Vec<u8>,
    body: Vec<u8>,
    is_intact: bool,
}

/// What a scan says of a segment: records, how many places are damaged, where the valid part ends.
#[derive(Debug, PartialEq)]
struct Scanned {
    records: Vec<Met>,
    damages: usize,
    end: u64,
}

/// The segment that these bytes are, if their header is one of records: files of values are refused before.
fn open(bytes: &[u8]) -> Option<Segment> {
    let header = bytes.first_chunk::<{ segment::HEADER_LEN }>()?;
    let header = segment::Header::decode(header).ok();
    let header = header.filter(segment::Header::is_of_records)?;
    let file = Box::new(OneFile::holding(bytes));
    let opened = Segment::new(PathBuf::new(), file, &header, bytes.len() as u64);
    Some(opened.expect("in memory"))
}

/// Walks a scan to its end. However the bytes are, each step goes on, nothing is met twice, what is called
/// intact has its checksums, and the sequence numbers of a log rise.
fn walk(segment: &Segment, mut scan: Scan<'_>, is_ordered: bool) -> Scanned {
    let mut met = Scanned {
        records: Vec::new(),
        damages: 0,
        end: 0,
    };
    let mut at = segment::HEADER_LEN as u64;
    let mut seqno = 0;
    loop {
        match scan.step() {
            Step::Record {
                offset,
                record,
                is_intact,
            } => {
                assert_eq!(offset, at, "records follow each other");
                assert!(!is_ordered || record.header.seqno > seqno || seqno == 0);
                assert_eq!(is_intact, record.body_is_intact());
                assert_eq!(usize::from(record.header.key_len), record.key.len());
                assert_eq!(record.header.body_len as usize, record.body.len());
                let place = segment.place(u32::try_from(offset).expect("a small file"));
                let mut again = Vec::new();
                record::encode(&mut again, &record.header, place, record.key, record.body);
                assert!(record::decode(&again, place).is_some());
                at = offset + record.header.record_len() as u64;
                seqno = record.header.seqno;
                met.records.push(Met {
                    offset,
                    header: record.header,
                    key: record.key.to_vec(),
                    body: record.body.to_vec(),
                    is_intact,
                });
            }
            Step::Damage { offset, next } => {
                assert_eq!(offset, at, "damage begins where a record should");
                assert!(next > offset, "damage has an end");
                met.damages += 1;
                at = next;
            }
            Step::End { offset } => {
                assert_eq!(offset, at);
                met.end = offset;
                return met;
            }
        }
    }
}

/// Reads whatever opens, as a front and as a class segment, and once more without its torn tail.
fn read(bytes: &[u8], mode: u8) {
    let Some(segment) = open(bytes) else {
        return;
    };
    let len = bytes.len() as u64;
    // Who opens a segment may know how much of it was durable.
    let durable_end = if mode & 64 == 0 { 0 } else { len };
    let start = segment::HEADER_LEN as u64;
    let front = walk(&segment, Scan::new(&segment, start, durable_end, 1), true);
    walk(&segment, Scan::of_class(&segment), false);
    if front.end <= len {
        // The segment that recovery begins says that this one ends there.
        segment.cut(front.end);
        let again = walk(&segment, Scan::new(&segment, start, front.end, 1), true);
        assert_eq!(front, again, "the torn tail is cut off");
    }
}

/// Puts the checksums right of a segment's header, and of the records that follow each other.
fn reseal_segment(bytes: &mut [u8]) {
    let Some(header) = bytes.first_chunk_mut::<{ segment::HEADER_LEN }>() else {
        return;
    };
    header[..8].copy_from_slice(b"RIMSTONE");
    set!(header, 8, crate::format::VERSION);
    let crc = crc32fast::hash(&header[..124]);
    set!(header, 124, crc);
    let Ok(header) = segment::Header::decode(header) else {
        return;
    };
    let mut offset = segment::HEADER_LEN;
    while let Some(len) = reseal_record(bytes, offset, &header) {
        offset += len;
    }
}

/// Returns the length of the record at `offset`, whose checksums are then right.
fn reseal_record(bytes: &mut [u8], offset: usize, header: &segment::Header) -> Option<usize> {
    let place = Place {
        salt: header.salt,
        address: Address {
            segment: header.id,
            offset: u32::try_from(offset).ok()?,
        },
    };
    let record = bytes.get_mut(offset..)?;
    if record.len() < record::HEADER_LEN || record[4] == 0 {
        return None;
    }
    let key_len = usize::from(u16::from_le_bytes([record[6], record[7]]));
    let body_len = u32::from_le_bytes([record[8], record[9], record[10], record[11]]) as usize;
    let key_end = record::HEADER_LEN + key_len;
    let end = key_end.checked_add(body_len)?;
    let body_crc = crc32fast::hash(record.get(key_end..end)?);
    set!(record, 36, body_crc);
    let crc = record::checksum(place, &record[..key_end]);
    set!(record, 0, crc);
    Some(end.next_multiple_of(8))
}

/// Writes a segment, reads it, and reads it with one bit changed or its end cut off.
fn written(mut input: Input<'_>) {
    let change = input.below(usize::MAX);
    let class = input.u8();
    let header = segment::Header {
        kind: segment::Kind::Front,
        // Of all bytes, so that nothing that the bytes say is a record image.
        salt: crc32fast::hash(input.0),
        store: StoreId {
            id: [1; 16],
            secret: [2; 32],
        },
        id: 1 + u64::from(class),
        epoch: 1,
        previous: 0,
        previous_len: 0,
        time: 1,
    };
    let mut bytes = header.encode().to_vec();
    let mut ends = vec![bytes.len()];
    let mut seqno = 0;
    while !input.is_empty() && ends.len() < 64 {
        seqno += 1;
        push_record(&mut bytes, &header, seqno, &mut input);
        ends.push(bytes.len());
    }
    let scanned = |bytes: &[u8], durable_end: u64| {
        let segment = open(bytes).expect("an intact header");
        let scan = Scan::new(&segment, segment::HEADER_LEN as u64, durable_end, 1);
        walk(&segment, scan, true)
    };
    let whole = scanned(&bytes, 0);
    assert_eq!(whole.records.len(), ends.len() - 1, "what was written");
    assert!(whole.damages == 0 && whole.records.iter().all(|met| met.is_intact));
    assert_eq!(whole.end, bytes.len() as u64);

    let body = bytes.len() - segment::HEADER_LEN;
    if body == 0 {
        return;
    }
    let at = segment::HEADER_LEN + change / 16 % body;
    let is_cut = change.is_multiple_of(16);
    if is_cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << (change % 8);
    }
    // The record that was hit; those before it are as they were.
    let hit = ends.partition_point(|end| *end <= at) - 1;
    let was = &whole.records[hit];
    let is_padding = at >= ends[hit] + record::HEADER_LEN + was.key.len() + was.body.len();
    let is_proven = whole.records[hit + 1..]
        .iter()
        .any(|later| later.header.durable_seqno() >= was.header.seqno);
    let seen = scanned(&bytes, 0);
    assert_eq!(seen.records[..hit], whole.records[..hit]);
    if is_padding {
        assert!(is_cut || seen == whole, "padding says nothing");
        return;
    }
    for met in &seen.records[hit..] {
        let same = whole.records.iter().find(|was| was.offset == met.offset);
        let same = same.expect("a record where there was one");
        assert_eq!((&met.header, &met.key), (&same.header, &same.key));
        assert_eq!(met.is_intact, same.header.seqno != was.header.seqno);
    }
    let later = |met: &&Met| met.header.seqno > was.header.seqno;
    if is_cut || !is_proven {
        assert_eq!(seen.records.len(), hit, "a torn tail");
        assert_eq!((seen.damages, seen.end), (0, ends[hit] as u64));
    } else {
        let rest = seen.records.iter().filter(later).count();
        assert_eq!(rest, whole.records.len() - hit - 1, "nothing else is lost");
        let reported = seen.damages + seen.records.iter().filter(|met| !met.is_intact).count();
        assert_eq!(reported, 1, "the damage is told once");
    }
}

fn push_record(bytes: &mut Vec<u8>, header: &segment::Header, seqno: u64, input: &mut Input<'_>) {
    let kinds = [Kind::Put, Kind::Put, Kind::Tombstone, Kind::Namespace];
    let flags = input.u8();
    let durable_lag = u32::from(input.u8() % 8);
    let (key, body) = (input.string(), input.string());
    let record = record::Header {
        kind: kinds[usize::from(flags & 3)],
        more: flags & 4 != 0,
        key_len: u16::try_from(key.len()).expect("below 256"),
        metadata_len: 0,
        body_len: u32::try_from(body.len()).expect("below 256"),
        seqno,
        expiration: u64::from(flags >> 4),
        namespace: 0,
        body_crc: crc32fast::hash(body),
        replaced: Replaced::default(),
        durable_lag,
    };
    let place = Place {
        salt: header.salt,
        address: Address {
            segment: header.id,
            offset: u32::try_from(bytes.len()).expect("a small file"),
        },
    };
    record::encode(bytes, &record, place, key, body);
}

/// The slots of the checkpoint that `checkpoint_open` changes.
const SLOTS: u64 = 300;

fn slot(number: u64) -> (u64, Location) {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash, Location::new(1, 128 + number * 8))
}

fn saved() -> &'static [u8] {
    static SAVED: OnceLock<Vec<u8>> = OnceLock::new();
    SAVED.get_or_init(|| {
        let table = Table::new();
        for number in 0..SLOTS {
            let (hash, location) = slot(number);
            assert!(table.insert(hash, location));
        }
        let header = checkpoint::Header {
            version: checkpoint::VERSION,
            store: StoreId {
                id: [1; 16],
                secret: [2; 32],
            },
            id: 1,
            seqno: SLOTS,
            position: Address {
                segment: 1,
                offset: 128,
            },
            epoch: 1,
            time: 1,
            meta_offset: 0,
            meta_len: 0,
            meta_crc: 0,
        };
        let file = OneFile::default();
        let settle = |meta: &mut Meta| {
            meta.runs = vec![1];
            meta.segments = vec![checkpoint::SegmentEntry {
                number: 1,
                id: 1,
                ..Default::default()
            }];
            Ok(())
        };
        table.begin_capture();
        let meta = Meta::default();
        save(&file, Path::new(""), header, meta, &table, settle).expect("in memory");
        file.bytes().clone()
    })
}

/// A checkpoint's file is refused, or its table is what was saved; a forged one costs no panic and no
/// memory, and what opens opens again.
pub fn checkpoint_open(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let mut bytes = saved().to_vec();
    let mut changes = 0;
    while !input.is_empty() && changes < 16 {
        change(&mut bytes, &mut input);
        changes += 1;
    }
    let is_forged = mode & 1 != 0;
    if is_forged {
        reseal(&mut bytes);
    }
    let file = OneFile::holding(&bytes);
    let Ok(opened) = load(&file, Path::new(""), 1) else {
        return;
    };
    let guard = crate::sync::epoch::pin();
    let mut found = 0;
    for number in 0..SLOTS {
        let (hash, location) = slot(number);
        let mut is_there = false;
        opened.table.candidates(hash, &guard, |candidate| {
            is_there |= candidate == location;
        });
        found += u64::from(is_there);
    }
    let again = scrub(&file, Path::new(""), 1, |_| {});
    if !is_forged {
        assert_eq!(found, SLOTS, "what opens is whole");
        assert_eq!(again.expect("what opens is intact"), opened.meta);
    }
    // A table that was forged may be written to as well.
    let (hash, location) = slot(SLOTS);
    if opened.table.insert(hash, location) {
        assert!(opened.table.remove(hash, location));
    }
}

fn change(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let kind = input.u8();
    let len = bytes.len().max(1);
    // The header, the lists from the end, or anywhere.
    let at = match kind >> 6 {
        0 => usize::from(input.u8()),
        1 | 2 => len.saturating_sub(1 + usize::from(input.u16()) % 24_000),
        _ => input.below(len),
    };
    match kind % 4 {
        0 => {
            let bit = input.u8() % 8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let places = bytes.iter_mut().skip(at);
            let new = input.string();
            places.zip(new).for_each(|(byte, new)| *byte = *new);
        }
        2 => bytes.truncate(at),
        _ => bytes.extend_from_slice(input.string()),
    }
}
