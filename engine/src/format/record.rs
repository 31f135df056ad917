//! A record of the log: a 64-byte header, the key, and a body (metadata, then the value or what
//! stands for it), padded to 8 bytes.

use super::segment::{HEADER_LEN as SEGMENT_HEADER_LEN, SEGMENT_LEN};
use super::{field, set};

pub(crate) const HEADER_LEN: usize = 64;
pub(crate) const KEY_MAX: usize = 512;
pub(crate) const METADATA_MAX: usize = 1024;
/// Values above this get a segment of their own, so that compaction never copies them and each of
/// their 64 KiB chunks has its own checksum.
pub(crate) const INLINE_MAX: usize = CHUNK;
/// Bytes of a large value under one checksum.
pub(crate) const CHUNK: usize = 64 << 10;
/// The largest record of a key: what a scan ever has to believe of a length.
pub(crate) const RECORD_MAX: usize = HEADER_LEN + KEY_MAX + METADATA_MAX + INLINE_MAX;

/// The largest body of a record without a key, which lists segments or records.
pub(crate) const LIST_MAX: usize = 24 << 20;

/// Where the fields of a header lie.
mod at {
    pub(super) const CRC: usize = 0;
    pub(super) const KIND: usize = 4;
    pub(super) const FLAGS: usize = 5;
    pub(super) const KEY_LEN: usize = 6;
    pub(super) const BODY_LEN: usize = 8;
    pub(super) const METADATA_LEN: usize = 12;
    pub(super) const SEQNO: usize = 16;
    pub(super) const EXPIRATION: usize = 24;
    pub(super) const NAMESPACE: usize = 32;
    pub(super) const BODY_CRC: usize = 36;
    pub(super) const REPLACED_SEGMENT: usize = 40;
    pub(super) const REPLACED_OFFSET: usize = 48;
    pub(super) const DURABLE_LAG: usize = 52;
    pub(super) const REPLACED_LEN: usize = 56;
    pub(super) const REPLACED_EXPIRES: usize = 60;
}

// One behind the other, numbers at multiples of their length, and two bytes of nothing.
const _: () = {
    assert!(at::KIND == at::CRC + size_of::<u32>());
    assert!(at::FLAGS == at::KIND + size_of::<u8>());
    assert!(at::KEY_LEN == at::FLAGS + size_of::<u8>());
    assert!(at::BODY_LEN == at::KEY_LEN + size_of::<u16>());
    assert!(at::METADATA_LEN == at::BODY_LEN + size_of::<u32>());
    assert!(at::SEQNO == at::METADATA_LEN + size_of::<u16>() + 2);
    assert!(at::EXPIRATION == at::SEQNO + size_of::<u64>());
    assert!(at::NAMESPACE == at::EXPIRATION + size_of::<u64>());
    assert!(at::BODY_CRC == at::NAMESPACE + size_of::<u32>());
    assert!(at::REPLACED_SEGMENT == at::BODY_CRC + size_of::<u32>());
    assert!(at::REPLACED_OFFSET == at::REPLACED_SEGMENT + size_of::<u64>());
    assert!(at::DURABLE_LAG == at::REPLACED_OFFSET + size_of::<u32>());
    assert!(at::REPLACED_LEN == at::DURABLE_LAG + size_of::<u32>());
    assert!(at::REPLACED_EXPIRES == at::REPLACED_LEN + size_of::<u32>());
    assert!(HEADER_LEN == at::REPLACED_EXPIRES + size_of::<u32>());
};

const MORE: u8 = 1;
const REPLACED_LARGE: u8 = 2;
const LISTS_ALIKE: u8 = 4;

// What the fields of a header have room for.
const _: () = {
    assert!(
        HEADER_LEN.is_multiple_of(8),
        "records begin at multiples of 8"
    );
    assert!(
        RECORD_MAX.is_multiple_of(8) && (HEADER_LEN + LIST_MAX).is_multiple_of(8),
        "the longest have no padding"
    );
    assert!(KEY_MAX <= u16::MAX as usize);
    assert!(METADATA_MAX <= u16::MAX as usize);
    assert!(METADATA_MAX + INLINE_MAX <= u32::MAX as usize);
    assert!(LIST_MAX <= u32::MAX as usize);
    assert!(RECORD_MAX as u64 <= SEGMENT_LEN - SEGMENT_HEADER_LEN as u64);
    assert!((HEADER_LEN + LIST_MAX) as u64 <= SEGMENT_LEN - SEGMENT_HEADER_LEN as u64);
    assert!(MORE & REPLACED_LARGE == 0);
    assert!((MORE | REPLACED_LARGE) & LISTS_ALIKE == 0);
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Put = 1,
    /// A put whose body ends in a pointer to a large segment: id `u64`, length `u32`, `u32` checksum
    /// of the chunk checksums.
    PutLarge = 2,
    Tombstone = 3,
    /// The state of a namespace: body is `u8` dropped, 16 bytes of id, the name.
    Namespace = 4,
    /// A clean close.
    Close = 5,
    /// Segments that nothing is needed of any more; see [`Retire`](super::lists::Retire).
    Retire = 6,
    /// Records that compaction copied to a class segment; see [`Move`](super::lists::Move).
    Move = 7,
}

/// The header's fields, but for its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Whether the next record belongs to the same batch.
    pub(crate) more: bool,
    pub(crate) key_len: u16,
    pub(crate) metadata_len: u16,
    pub(crate) body_len: u32,
    pub(crate) seqno: u64,
    /// Seconds since the Unix epoch, 0 for never.
    pub(crate) expiration: u64,
    pub(crate) namespace: u32,
    pub(crate) body_crc: u32,
    pub(crate) replaced: Replaced,
    /// How far the sequence number known durable lay behind this record's.
    pub(crate) durable_lag: u32,
}

/// The record that another took the place of: so replay counts what is live without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// Segment 0 for none.
    pub(crate) address: Address,
    /// Bytes of the whole record.
    pub(crate) len: u32,
    /// As [`expires`].
    pub(crate) expires: u32,
    /// Whether its value lay in a segment of its own.
    pub(crate) large: bool,
    /// Whether it had the same metadata and expiration: a list shows the same.
    pub(crate) lists_alike: bool,
}

/// An expiration in seconds as statistics keep it: 0 for never, and for the years after 2106.
pub(crate) fn expires(expiration: u64) -> u32 {
    u32::try_from(expiration).unwrap_or(0)
}

/// A record for ever: permanent segment id and byte offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
}

/// Where a record image is valid: anywhere else its checksum fails, so a copy inside a value, a
/// stale block or a shifted one is never taken for a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) salt: u32,
    pub(crate) address: Address,
}

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Header {
    /// Bytes of the whole record, padding included.
    pub(crate) fn record_len(&self) -> usize {
        let body = usize::try_from(self.body_len).unwrap_or(usize::MAX / 2);
        (HEADER_LEN + usize::from(self.key_len) + body).next_multiple_of(8)
    }

    /// The sequence number of the write that made the entry.
    pub(crate) fn generation(&self) -> u64 {
        self.seqno
    }

    /// The highest sequence number this record says was durable.
    pub(crate) fn durable_seqno(&self) -> u64 {
        self.seqno.saturating_sub(u64::from(self.durable_lag))
    }

    #[inline]
    fn parse(bytes: &[u8]) -> Option<Header> {
        let kind = match field!(bytes, at::KIND, u8) {
            1 => Kind::Put,
            2 => Kind::PutLarge,
            3 => Kind::Tombstone,
            4 => Kind::Namespace,
            5 => Kind::Close,
            6 => Kind::Retire,
            7 => Kind::Move,
            _ => return None,
        };
        let header = Header {
            kind,
            more: field!(bytes, at::FLAGS, u8) & MORE != 0,
            key_len: field!(bytes, at::KEY_LEN, u16),
            body_len: field!(bytes, at::BODY_LEN, u32),
            metadata_len: field!(bytes, at::METADATA_LEN, u16),
            seqno: field!(bytes, at::SEQNO, u64),
            expiration: field!(bytes, at::EXPIRATION, u64),
            namespace: field!(bytes, at::NAMESPACE, u32),
            body_crc: field!(bytes, at::BODY_CRC, u32),
            replaced: Replaced {
                address: Address {
                    segment: field!(bytes, at::REPLACED_SEGMENT, u64),
                    offset: field!(bytes, at::REPLACED_OFFSET, u32),
                },
                len: field!(bytes, at::REPLACED_LEN, u32),
                expires: field!(bytes, at::REPLACED_EXPIRES, u32),
                large: field!(bytes, at::FLAGS, u8) & REPLACED_LARGE != 0,
                lists_alike: field!(bytes, at::FLAGS, u8) & LISTS_ALIKE != 0,
            },
            durable_lag: field!(bytes, at::DURABLE_LAG, u32),
        };
        let longest = match kind {
            Kind::Retire | Kind::Move => HEADER_LEN + LIST_MAX,
            _ => RECORD_MAX,
        };
        let sane = usize::from(header.key_len) <= KEY_MAX
            && header.record_len() <= longest
            && u32::from(header.metadata_len) <= header.body_len;
        debug_assert!(
            !sane || (header.record_len() as u64) < SEGMENT_LEN,
            "what a scan believes lies in a segment"
        );
        sane.then_some(header)
    }
}

/// Appends a record to `out`. The lengths in `header` are those of `key` and `body`.
pub(crate) fn encode(out: &mut Vec<u8>, header: &Header, place: Place, key: &[u8], body: &[u8]) {
    debug_assert!(key.len() <= KEY_MAX, "refused before it comes here");
    debug_assert_eq!(usize::from(header.key_len), key.len());
    debug_assert_eq!(u64::from(header.body_len), body.len() as u64);
    debug_assert!(u32::from(header.metadata_len) <= header.body_len);
    let begin = out.len();
    let mut raw = [0u8; HEADER_LEN];
    set!(raw, at::KIND, header.kind as u8);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let large = flag(header.replaced.large, REPLACED_LARGE);
    let lists_alike = flag(header.replaced.lists_alike, LISTS_ALIKE);
    set!(
        raw,
        at::FLAGS,
        flag(header.more, MORE) | large | lists_alike
    );
    set!(raw, at::KEY_LEN, header.key_len);
    set!(raw, at::BODY_LEN, header.body_len);
    set!(raw, at::METADATA_LEN, header.metadata_len);
    set!(raw, at::SEQNO, header.seqno);
    set!(raw, at::EXPIRATION, header.expiration);
    set!(raw, at::NAMESPACE, header.namespace);
    set!(raw, at::BODY_CRC, header.body_crc);
    set!(raw, at::REPLACED_SEGMENT, header.replaced.address.segment);
    set!(raw, at::REPLACED_OFFSET, header.replaced.address.offset);
    set!(raw, at::DURABLE_LAG, header.durable_lag);
    set!(raw, at::REPLACED_LEN, header.replaced.len);
    set!(raw, at::REPLACED_EXPIRES, header.replaced.expires);
    out.extend_from_slice(&raw);
    out.extend_from_slice(key);
    let crc = checksum(place, out.get(begin..).unwrap_or_default());
    set!(out, begin, crc);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(8), 0);
    debug_assert_eq!(out.len() - begin, header.record_len());
    debug_assert!(
        out.get(begin..)
            .and_then(|record| decode(record, place))
            .is_some_and(|record| record.header == *header
                && record.key == key
                && record.body == body),
        "what was written is what will be read"
    );
}

/// The record at the start of `bytes`, its header and key verified, or `None` if there is none.
/// The body is not verified: see [`Record::body_is_intact`].
#[inline]
pub(crate) fn decode(bytes: &[u8], place: Place) -> Option<Record<'_>> {
    let header = Header::parse(bytes.get(..HEADER_LEN)?)?;
    let (head, rest) = bytes.split_at_checked(HEADER_LEN + usize::from(header.key_len))?;
    let key = head.get(HEADER_LEN..)?;
    debug_assert_eq!(key.len(), usize::from(header.key_len));
    let body = rest.get(..usize::try_from(header.body_len).ok()?)?;
    (field!(head, at::CRC, u32) == checksum(place, head)).then_some(Record { header, key, body })
}

/// How long the record at the start of `bytes` says it is, which nobody verified.
pub(crate) fn peek_len(bytes: &[u8]) -> usize {
    let header = bytes.get(..HEADER_LEN).unwrap_or(&[0; HEADER_LEN]);
    let body = usize::try_from(field!(header, at::BODY_LEN, u32)).unwrap_or(usize::MAX);
    body.saturating_add(HEADER_LEN + usize::from(field!(header, at::KEY_LEN, u16)))
}

/// The checksum of a header and the key behind it, but for the field of the header that holds it.
pub(crate) fn checksum(place: Place, head: &[u8]) -> u32 {
    let mut seed = [0u8; 16];
    set!(seed, 0, place.salt);
    set!(seed, 4, place.address.segment);
    set!(seed, 12, place.address.offset);
    debug_assert!(head.len() >= HEADER_LEN);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed);
    hasher.update(head.get(at::KIND..).unwrap_or_default());
    hasher.finalize()
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn metadata(&self) -> &'a [u8] {
        debug_assert!(usize::from(self.header.metadata_len) <= self.body.len());
        self.body
            .get(..usize::from(self.header.metadata_len))
            .unwrap_or_default()
    }

    /// What follows the metadata: the value, or what stands for it.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        debug_assert!(usize::from(self.header.metadata_len) <= self.body.len());
        self.body
            .get(usize::from(self.header.metadata_len)..)
            .unwrap_or_default()
    }

    /// Where the value lies, if that is large.
    pub(crate) fn large_pointer(&self) -> Option<LargePointer> {
        (self.header.kind == Kind::PutLarge).then(|| LargePointer::decode(self.value()))?
    }

    pub(crate) fn body_is_intact(&self) -> bool {
        crc32fast::hash(self.body) == self.header.body_crc
    }
}

/// Where a large value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargePointer {
    pub(crate) segment: u64,
    pub(crate) len: u32,
    pub(crate) table_crc: u32,
}

const POINTER_LEN: usize = 16;
const _: () = assert!(POINTER_LEN == size_of::<u64>() + 2 * size_of::<u32>());

impl LargePointer {
    pub(crate) fn encode(self) -> [u8; POINTER_LEN] {
        let mut raw = [0u8; POINTER_LEN];
        set!(raw, 0, self.segment);
        set!(raw, 8, self.len);
        set!(raw, 12, self.table_crc);
        debug_assert_eq!(
            LargePointer::decode(&raw),
            Some(self),
            "fields do not overlap"
        );
        raw
    }

    pub(crate) fn decode(raw: &[u8]) -> Option<LargePointer> {
        (raw.len() == POINTER_LEN).then(|| LargePointer {
            segment: field!(raw, 0, u64),
            len: field!(raw, 8, u32),
            table_crc: field!(raw, 12, u32),
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::hex;
    use proptest::prelude::*;

    fn place(salt: u32) -> Place {
        Place {
            salt,
            address: Address {
                segment: 7,
                offset: 128,
            },
        }
    }

    fn sample(key: &[u8], body: &[u8], metadata_len: u16) -> Header {
        Header {
            kind: Kind::Put,
            more: true,
            key_len: u16::try_from(key.len()).expect("short"),
            metadata_len,
            body_len: u32::try_from(body.len()).expect("short"),
            seqno: 9,
            expiration: 10,
            namespace: 11,
            body_crc: crc32fast::hash(body),
            replaced: Replaced {
                address: Address {
                    segment: 12,
                    offset: 136,
                },
                len: 80,
                expires: 13,
                large: true,
                lists_alike: true,
            },
            durable_lag: 2,
        }
    }

    proptest! {
        #[test]
        fn decode_returns_what_was_encoded(
            key in prop::collection::vec(any::<u8>(), 0..KEY_MAX),
            body in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let header = sample(&key, &body, u16::try_from(body.len().min(1024)).expect("small"));
            let mut bytes = Vec::new();
            encode(&mut bytes, &header, place(1), &key, &body);
            prop_assert_eq!(bytes.len(), header.record_len());
            let record = decode(&bytes, place(1)).expect("valid");
            prop_assert_eq!(record.header, header);
            prop_assert_eq!(record.key, &key[..]);
            prop_assert_eq!(record.body, &body[..]);
            prop_assert!(record.body_is_intact());
            prop_assert!(decode(&bytes, place(2)).is_none(), "another segment's salt");
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes, place(1)).is_none());
        }
    }

    #[test]
    fn a_large_value_is_found_by_what_stands_for_it() {
        let pointer = LargePointer {
            segment: 0x0102_0304_0506_0708,
            len: 70_000,
            table_crc: 9,
        };
        let body = [&b"meta"[..], &pointer.encode()].concat();
        let (mut large, mut bytes) = (sample(b"key", &body, 4), Vec::new());
        large.kind = Kind::PutLarge;
        encode(&mut bytes, &large, place(1), b"key", &body);
        let record = decode(&bytes, place(1)).expect("valid");
        assert_eq!(record.metadata(), b"meta");
        assert_eq!(record.large_pointer(), Some(pointer));
        assert_eq!(peek_len(&bytes), HEADER_LEN + 3 + body.len());
        // A small value may look like it, and a damaged one may not.
        bytes.clear();
        large.kind = Kind::Put;
        encode(&mut bytes, &large, place(1), b"key", &body);
        let record = decode(&bytes, place(1)).expect("valid");
        assert_eq!(record.large_pointer(), None);
        for len in [0, 15, 17] {
            assert_eq!(LargePointer::decode(&[0; 17][..len]), None);
        }
        assert_eq!(peek_len(&[]), HEADER_LEN);
    }

    #[test]
    fn each_flag_is_for_itself() {
        for flags in 0..8 {
            let mut header = sample(b"key", b"", 0);
            header.more = flags & 1 != 0;
            header.replaced.large = flags & 2 != 0;
            header.replaced.lists_alike = flags & 4 != 0;
            let mut bytes = Vec::new();
            encode(&mut bytes, &header, place(1), b"key", b"");
            assert_eq!(bytes[5], flags, "as in docs/format.md");
            assert_eq!(decode(&bytes, place(1)).map(|r| r.header), Some(header));
        }
    }

    /// Changes a field of a header, and puts its checksum right.
    fn forged(key_len: usize, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let (key, body) = (vec![7; KEY_MAX], vec![8; METADATA_MAX + INLINE_MAX]);
        let metadata_len = u16::try_from(METADATA_MAX).expect("short");
        let mut bytes = Vec::new();
        let header = sample(&key, &body, metadata_len);
        encode(&mut bytes, &header, place(1), &key, &body);
        bytes.resize(bytes.len() + 2 * LIST_MAX, 0);
        change(&mut bytes);
        let crc = checksum(place(1), &bytes[..HEADER_LEN + key_len]);
        set!(bytes, 0, crc);
        bytes
    }

    #[test]
    fn a_record_is_as_long_as_may_be_and_no_longer() {
        let longest = forged(KEY_MAX, |_| {});
        let record = decode(&longest, place(1)).expect("valid");
        assert_eq!(record.header.record_len(), RECORD_MAX);
        assert!(record.body_is_intact());
        let is_one = |key_len: u16, body_len: usize, metadata_len: usize, kind: Kind| {
            let bytes = forged(key_len.into(), |bytes| {
                set!(bytes, 4, kind as u8);
                set!(bytes, 6, key_len);
                set!(bytes, 8, u32::try_from(body_len).expect("short"));
                set!(bytes, 12, u16::try_from(metadata_len).expect("short"));
            });
            decode(&bytes, place(1)).is_some()
        };
        let most = METADATA_MAX + INLINE_MAX;
        assert!(is_one(512, most, 0, Kind::Put) && !is_one(512, most + 1, 0, Kind::Put));
        assert!(is_one(504, most + 8, 0, Kind::Put));
        assert!(is_one(512, 0, 0, Kind::Put) && !is_one(513, 0, 0, Kind::Put));
        assert!(is_one(1, 9, 9, Kind::Put) && !is_one(1, 9, 10, Kind::Put));
        for kind in [Kind::Retire, Kind::Move] {
            assert!(is_one(0, LIST_MAX, 0, kind) && !is_one(0, LIST_MAX + 1, 0, kind));
        }
        assert!(!is_one(0, LIST_MAX, 0, Kind::Namespace));
    }

    #[test]
    fn a_header_says_what_was_durable_and_when_it_expires() {
        let header = sample(b"key", b"", 0);
        assert_eq!((header.generation(), header.durable_seqno()), (9, 7));
        let most = u64::from(u32::MAX);
        let short = [0, 1, most, most + 1, u64::MAX].map(expires);
        assert_eq!(short, [0, 1, u32::MAX, 0, 0]);
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let (key, body) = (b"key".as_slice(), b"metavalue".as_slice());
        let mut bytes = Vec::new();
        encode(&mut bytes, &sample(key, body, 4), place(1), key, body);
        for bit in 0..(HEADER_LEN + key.len() + body.len()) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let accepted = decode(&damaged, place(1)).is_some_and(|r| r.body_is_intact());
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_one_only_in_its_segment_and_at_its_offset() {
        let mut bytes = Vec::new();
        encode(
            &mut bytes,
            &sample(b"key", b"body", 0),
            place(1),
            b"key",
            b"body",
        );
        assert!(decode(&bytes, place(1)).is_some());
        let mut elsewhere = [place(2), place(1), place(1)];
        elsewhere[1].address.segment += 1;
        elsewhere[2].address.offset += 8;
        for other in elsewhere {
            assert!(decode(&bytes, other).is_none(), "{:?}", other.address);
        }
    }

    /// These bytes are on disks: an encoder that writes others needs a new format version.
    #[test]
    fn a_record_has_these_bytes() {
        let (key, body) = (b"key".as_slice(), b"metavalue".as_slice());
        let mut bytes = Vec::new();
        let place = place(0x0102_0304);
        encode(&mut bytes, &sample(key, body, 4), place, key, body);
        let expected = [
            "17556562010703000900000004000000",
            "09000000000000000a00000000000000",
            "0b0000006c5bf4d30c00000000000000",
            "8800000002000000500000000d000000",
            "6b65796d65746176616c756500000000",
        ];
        assert_eq!(hex(&bytes), expected);
    }
}
