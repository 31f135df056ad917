//! What fuzzing asks of the parts that are private: `fuzz/` calls these functions with bytes that it
//! makes up. Each panics if something does not hold.
//!
//! Bytes that a checksum protects would be refused before anything interesting happens, so most
//! targets also look at them with the checksum put right.
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "not part of the interface; a panic is the answer"
)]

mod files;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::format::record::{self, Address, LargePointer, Place, Replaced};
use crate::format::run::{self, Backward, Forward, KeyRecord, Run, RunWriter};
use crate::format::{checkpoint, segment, set};
use crate::index::runs::cursor::{self, Fingerprint};
use crate::index::runs::{Query, Sources, list};
pub use files::{checkpoint_open, segment_open};

/// Bytes of which values are taken from the front; zeros follow the last one.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.u32()).unwrap_or(0) % end
    }

    /// As many bytes, or fewer if there are no more.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// A length of one byte, then so many bytes.
    pub fn string(&mut self) -> &'a [u8] {
        let len = self.u8();
        self.bytes(usize::from(len))
    }
}

/// How many bits of an input's bytes are tried: which ones follows from the bytes.
const BITS: usize = 16;

/// Calls `check` with changes of one bit each.
fn some_bits(bytes: &[u8], mut check: impl FnMut(&[u8], usize)) {
    let bits = bytes.len() * 8;
    let seed = crc32fast::hash(bytes) as usize;
    let mut changed = bytes.to_vec();
    for at in 0..BITS.min(bits) {
        let bit = (seed + at * bits / BITS) % bits;
        changed[bit / 8] ^= 1 << (bit % 8);
        check(&changed, bit);
        changed[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A record is what was encoded, at its place and with every bit as it was, or nothing.
pub fn record(data: &[u8]) {
    let mut input = Input(data);
    let place = Place {
        salt: input.u32(),
        address: Address {
            segment: input.u64(),
            offset: input.u32(),
        },
    };
    // As they are, and with both checksums put right.
    let mut raw = input.0.to_vec();
    check_decoded(&raw, place);
    if raw.len() >= record::HEADER_LEN {
        let key_len = usize::from(u16::from_le_bytes([raw[6], raw[7]]));
        let body_len = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]) as usize;
        let rest = &raw[record::HEADER_LEN..];
        let (key, rest) = rest.split_at(key_len.min(rest.len()));
        let head = record::HEADER_LEN + key.len();
        let body_crc = crc32fast::hash(&rest[..body_len.min(rest.len())]);
        set!(raw, 36, body_crc);
        let crc = record::checksum(place, &raw[..head]);
        set!(raw, 0, crc);
        check_decoded(&raw, place);
    }
    check_encoded(input, place);
}

fn check_decoded(bytes: &[u8], place: Place) {
    let Some(found) = record::decode(bytes, place) else {
        return;
    };
    let _ = (found.metadata(), found.value(), found.body_is_intact());
    if let Some(pointer) = found.large_pointer() {
        assert_eq!(LargePointer::decode(&pointer.encode()), Some(pointer));
    }
    assert!(found.header.durable_seqno() <= found.header.seqno);
    let mut again = Vec::new();
    record::encode(&mut again, &found.header, place, found.key, found.body);
    assert_eq!(again.len(), found.header.record_len());
    let same = record::decode(&again, place).expect("what was decoded encodes");
    assert_eq!(
        (same.header, same.key, same.body),
        (found.header, found.key, found.body)
    );
}

fn check_encoded(mut input: Input<'_>, place: Place) {
    let kinds = [
        record::Kind::Put,
        record::Kind::PutLarge,
        record::Kind::Tombstone,
        record::Kind::Namespace,
        record::Kind::Close,
        record::Kind::Retire,
        record::Kind::Move,
    ];
    let kind = kinds[input.below(kinds.len())];
    let flags = input.u8();
    let key_len = usize::from(input.u16()) % (record::KEY_MAX + 1);
    let metadata_len = input.u16();
    let (seqno, expiration) = (input.u64(), input.u64());
    let (namespace, durable_lag) = (input.u32(), input.u32());
    let replaced = Replaced {
        address: Address {
            segment: input.u64(),
            offset: input.u32(),
        },
        len: input.u32(),
        expires: input.u32(),
        large: flags & 2 != 0,
        lists_alike: flags & 4 != 0,
    };
    let key = input.bytes(key_len);
    let body = input.bytes(record::METADATA_MAX + record::INLINE_MAX);
    let header = record::Header {
        kind,
        more: flags & 1 != 0,
        key_len: u16::try_from(key.len()).unwrap_or(0),
        metadata_len: metadata_len.min(u16::try_from(body.len()).unwrap_or(u16::MAX)),
        body_len: u32::try_from(body.len()).unwrap_or(0),
        seqno,
        expiration,
        namespace,
        body_crc: crc32fast::hash(body),
        replaced,
        durable_lag,
    };
    let mut bytes = Vec::new();
    record::encode(&mut bytes, &header, place, key, body);
    let intact = |bytes: &[u8], place| {
        record::decode(bytes, place).is_some_and(|found| found.body_is_intact())
    };
    let found = record::decode(&bytes, place).expect("what was encoded");
    assert_eq!((found.header, found.key, found.body), (header, key, body));
    assert!(found.body_is_intact());
    let mut elsewhere = place;
    elsewhere.address.offset ^= 8;
    assert!(!intact(&bytes, elsewhere), "a record of another place");
    // What follows is padding.
    let len = record::HEADER_LEN + key.len() + body.len();
    some_bits(&bytes[..len], |changed, bit| {
        assert!(!intact(changed, place), "bit {bit}");
    });
    for end in [0, len / 2, len - 1] {
        assert!(!intact(&bytes[..end], place), "cut at {end}");
    }
}

/// A segment's header is what was encoded or nothing.
pub fn segment_header(data: &[u8]) {
    let mut raw = [0; segment::HEADER_LEN];
    let len = data.len().min(raw.len());
    raw[..len].copy_from_slice(&data[..len]);
    let check = |bytes: &[u8; segment::HEADER_LEN]| {
        if let Ok(header) = segment::Header::decode(bytes) {
            let again = header.encode();
            assert_eq!(segment::Header::decode(&again), Ok(header));
            some_bits(&again, |changed, bit| {
                let changed = changed.try_into().expect("as long as before");
                assert!(segment::Header::decode(changed).is_err(), "bit {bit}");
            });
        }
    };
    check(&raw);
    raw[..8].copy_from_slice(b"RIMSTONE");
    let crc = crc32fast::hash(&raw[..124]);
    set!(raw, 124, crc);
    check(&raw);
    set!(raw, 8, super::format::VERSION);
    let crc = crc32fast::hash(&raw[..124]);
    set!(raw, 124, crc);
    check(&raw);
}

/// A checkpoint's header is what was encoded or nothing; its lists have one encoding.
pub fn checkpoint(data: &[u8]) {
    let check = |bytes: &[u8]| {
        if let Ok(header) = checkpoint::Header::decode(bytes) {
            let again = header.encode();
            assert_eq!(checkpoint::Header::decode(&again), Ok(header));
            some_bits(&again, |changed, bit| {
                assert!(checkpoint::Header::decode(changed).is_err(), "bit {bit}");
            });
        }
    };
    let check_lists = |bytes: &[u8]| {
        if let Some(lists) = checkpoint::Meta::decode(bytes) {
            assert_eq!(lists.encode(), bytes);
        }
    };
    check(data);
    check_lists(data);
    if data.len() < checkpoint::HEADER_LEN {
        return;
    }
    check_lists(&data[checkpoint::HEADER_LEN..]);
    let mut raw = data[..checkpoint::HEADER_LEN].to_vec();
    raw[..8].copy_from_slice(b"RIMSCKPT");
    set!(raw, 8, super::format::VERSION);
    let crc = crc32fast::hash(&raw[..140]);
    set!(raw, 140, crc);
    check(&raw);
}

/// `CURRENT` is what was encoded or nothing.
pub fn current(data: &[u8]) {
    if let Some(id) = checkpoint::decode_current(data) {
        assert_eq!(checkpoint::encode_current(id).as_bytes(), data);
    }
    let id = Input(data).u64();
    let text = checkpoint::encode_current(id);
    assert_eq!(checkpoint::decode_current(text.as_bytes()), Some(id));
    some_bits(text.as_bytes(), |changed, bit| {
        assert_eq!(checkpoint::decode_current(changed), None, "bit {bit}");
    });
}

/// A cursor is refused, or exactly what was issued for the same listing.
pub fn cursor(data: &[u8]) {
    let mut input = Input(data);
    let secret: [u8; 16] = input.array();
    let flags = input.u8();
    let namespace = input.u32();
    let (prefix, start, end) = (input.string(), input.string(), input.string());
    let query = Fingerprint {
        namespace,
        prefix,
        start: (flags & 1 != 0).then_some(start),
        end: (flags & 2 != 0).then_some(end),
        reverse: flags & 4 != 0,
    };
    let at = usize::from(input.u16());
    let rest = input.0;
    if let Ok(text) = std::str::from_utf8(rest)
        && let Some(key) = cursor::decode(&secret, &query, text)
    {
        assert_eq!(cursor::encode(&secret, &query, &key), text);
    }

    let key = &rest[..rest.len().min(run::KEY_LEN_MAX)];
    let text = cursor::encode(&secret, &query, key);
    assert_eq!(
        cursor::decode(&secret, &query, &text).as_deref(),
        Some(key),
        "what was issued"
    );
    let longer = [prefix, b"x"].concat();
    let mut other_secret = secret;
    other_secret[at % 16] ^= 1;
    let others = [
        Fingerprint {
            namespace: namespace ^ 1,
            ..query
        },
        Fingerprint {
            prefix: &longer,
            ..query
        },
        Fingerprint {
            start: query.start.xor(Some(b"")),
            ..query
        },
        Fingerprint {
            end: query.end.xor(Some(b"")),
            ..query
        },
        Fingerprint {
            reverse: !query.reverse,
            ..query
        },
    ];
    for other in &others {
        assert_eq!(cursor::decode(&secret, other, &text), None, "{other:?}");
    }
    assert_eq!(cursor::decode(&other_secret, &query, &text), None);
    // Any other text is refused: one letter changed, one taken away, one added.
    let mut changed = text.clone().into_bytes();
    let at = at % changed.len();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8_lossy(&changed);
    assert_eq!(cursor::decode(&secret, &query, &changed), None);
    assert_eq!(cursor::decode(&secret, &query, &text[1..]), None);
    assert_eq!(cursor::decode(&secret, &query, &format!("{text}A")), None);
}

/// A run's records are what was written or damage; forged ones cost no panic and no memory.
pub fn run_open(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 3 {
        0 => walk(input.0, input),
        1 => {
            let mut bytes = input.0.to_vec();
            run::reseal(&mut bytes);
            walk(&bytes, input);
        }
        _ => written(input),
    }
}

/// Reads whatever opens, in every way.
fn walk(bytes: &[u8], mut asked: Input<'_>) {
    let Ok(run) = Run::open(Arc::new(bytes.to_vec())) else {
        return;
    };
    let mut keys = Vec::new();
    if let Ok(mut place) = Forward::seek(&run, 0, &[], false) {
        while let Some(record) = place.record() {
            let key = (record.namespace, record.key.to_vec());
            assert!(keys.last().is_none_or(|last| *last < key));
            keys.push(key);
            if keys.len() > 64 || place.advance().is_err() {
                break;
            }
        }
    }
    keys.push((asked.u32(), asked.string().to_vec()));
    for (namespace, key) in &keys {
        for after_equal in [false, true] {
            if let Ok(place) = Forward::seek(&run, *namespace, key, after_equal) {
                let found = place.record().map(|r| (r.namespace, r.key));
                assert!(found.is_none_or(|found| found >= (*namespace, key)));
            }
            if let Ok(place) = Backward::seek(&run, *namespace, key, after_equal) {
                let found = place.record().map(|r| (r.namespace, r.key));
                assert!(found.is_none_or(|found| found <= (*namespace, key)));
            }
        }
    }
    let _ = run.check(|_| {});
    let sources = Sources {
        runs: vec![Arc::new(run)],
        ..Sources::default()
    };
    for (namespace, key) in keys.iter().rev().take(4) {
        for reverse in [false, true] {
            let query = Query {
                namespace: *namespace,
                deletions: &[],
                lower: Bound::Unbounded,
                upper: Bound::Excluded(key),
                limit: 1000,
                reverse,
                now: 1,
                work: 10_000,
            };
            let mut listed: Vec<Vec<u8>> = Vec::new();
            let _ = list(&sources, &query, |record| listed.push(record.key.to_vec()));
            assert!(listed.len() <= 1000);
            if reverse {
                listed.reverse();
            }
            assert!(listed.is_sorted_by(|a, b| a < b));
        }
    }
}

/// Expiration, seqno, whether it is a tombstone, metadata.
type Fields<'a> = (u64, u64, bool, &'a [u8]);

/// Writes a run, reads it, and reads it with one bit changed.
fn written(mut input: Input<'_>) {
    let bit = input.below(usize::MAX);
    let (asked_namespace, asked_key) = (u32::from(input.u8()), input.string());
    let mut records: BTreeMap<(u32, Vec<u8>), Fields<'_>> = BTreeMap::new();
    while !input.is_empty() && records.len() < 1000 {
        let flags = input.u8();
        let shared = input.u8();
        let mut key: Vec<u8> = records
            .last_key_value()
            .map_or_else(Vec::new, |((_, key), _)| {
                key[..key.len().min(usize::from(shared))].to_vec()
            });
        key.extend_from_slice(input.string());
        let expiration = if flags & 2 == 0 { 0 } else { input.u64() };
        let metadata = if flags & 4 == 0 { &[] } else { input.string() };
        let seqno = if flags & 8 == 0 { 1 } else { input.u64() };
        let namespace = u32::from(flags >> 5);
        let value = (expiration, seqno, flags & 1 != 0, metadata);
        records.insert((namespace, key), value);
    }
    let expected: Vec<_> = records
        .iter()
        .map(
            |((namespace, key), (expiration, seqno, tombstone, metadata))| KeyRecord {
                namespace: *namespace,
                key,
                metadata,
                expiration: *expiration,
                seqno: *seqno,
                tombstone: *tombstone,
            },
        )
        .collect();
    let mut bytes = Vec::new();
    let sink = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let mut writer = RunWriter::new([7; 16], 9, sink).expect("in memory");
    for record in &expected {
        writer.push(record).expect("in memory");
    }
    let summary = writer.finish().expect("in memory");

    let run = Run::open(Arc::new(bytes.clone())).expect("what was written");
    assert_eq!(run.summary(), summary);
    let mut place = Forward::seek(&run, 0, &[], false).expect("what was written");
    for record in &expected {
        assert_eq!(place.record().as_ref(), Some(record));
        place.advance().expect("what was written");
    }
    assert_eq!(place.record(), None);
    let mut place = Forward::seek(&run, 0, &[], false).expect("what was written");
    let mut left = expected.iter();
    let walked = place.walk(|record, _| left.next() == Some(record));
    walked.expect("what was written");
    assert!(place.record().is_none() && left.next().is_none());
    let mut place = Backward::last(&run).expect("what was written");
    for record in expected.iter().rev() {
        assert_eq!(place.record().as_ref(), Some(record));
        place.advance().expect("what was written");
    }
    assert_eq!(place.record(), None);
    for after_equal in [false, true] {
        let before = expected.partition_point(|r| {
            let order = (r.namespace, r.key).cmp(&(asked_namespace, asked_key));
            order.is_lt() || (after_equal && order.is_eq())
        });
        let found = Forward::seek(&run, asked_namespace, asked_key, after_equal);
        let found = found.expect("what was written");
        assert_eq!(found.record().as_ref(), expected.get(before));
        let found = Backward::seek(&run, asked_namespace, asked_key, after_equal);
        let found = found.expect("what was written");
        assert_eq!(
            found.record().as_ref(),
            before.checked_sub(1).and_then(|at| expected.get(at))
        );
    }

    // Every byte of the file is under some checksum.
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    if let Ok(run) = Run::open(Arc::new(bytes)) {
        assert!(run.check(|_| {}).is_err(), "bit {bit}");
    }
}

/// Puts the checksums of a run right.
pub fn reseal_run(file: &mut [u8]) {
    run::reseal(file);
}

/// Puts the checksums of a checkpoint right.
pub fn reseal_checkpoint(file: &mut [u8]) {
    crate::index::checkpoint::reseal(file);
}
