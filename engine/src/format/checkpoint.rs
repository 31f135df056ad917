//! The checkpoint: the state of the store at one sequence number, so that opening replays only what
//! came after it.
//!
//! A header of [`HEADER_LEN`] bytes, written last; from [`DATA_START`] the buckets of the table's
//! partitions, one after the other; then the lists of [`Meta`].

use std::collections::HashSet;

use super::record::Address;
use super::segment::{Refusal, SEGMENT_LEN, StoreId};
use super::{field, set};

/// The version that is written. Version 1 is read, too: its partitions have a power of two as multiple, and
/// all marks of a bucket in its first word.
pub(crate) const VERSION: u16 = 2;
pub(crate) const HEADER_LEN: usize = 144;
/// Where the partitions begin: a page, so that they can be mapped.
pub(crate) const DATA_START: u64 = 4096;
/// What stands for no class.
pub(crate) const FRONT: u8 = 255;
/// Numbers that slots can hold.
pub(crate) const NUMBER_MAX: u32 = 1 << 20;
/// More of anything than a segment has, and so little that what all segments have can be added up.
const COUNT_MAX: u64 = u32::MAX as u64;

const MAGIC: [u8; 8] = *b"RIMSCKPT";

/// Where the fields of a header lie. Bytes 16 to 64 say whose it is, as in segments.
mod at {
    pub(super) const VERSION: usize = 8;
    pub(super) const ID: usize = 64;
    pub(super) const SEQNO: usize = 72;
    pub(super) const SEGMENT: usize = 80;
    pub(super) const OFFSET: usize = 88;
    pub(super) const META_CRC: usize = 92;
    pub(super) const EPOCH: usize = 96;
    pub(super) const TIME: usize = 112;
    pub(super) const META_OFFSET: usize = 120;
    pub(super) const META_LEN: usize = 128;
    pub(super) const CRC: usize = 140;
}

// One behind the other, with eight bytes of nothing in front of the time, and four in front of the checksum.
const _: () = {
    assert!(at::VERSION == MAGIC.len());
    assert!(at::ID == 16 + size_of::<StoreId>());
    assert!(at::SEQNO == at::ID + size_of::<u64>());
    assert!(at::SEGMENT == at::SEQNO + size_of::<u64>());
    assert!(at::OFFSET == at::SEGMENT + size_of::<u64>());
    assert!(at::META_CRC == at::OFFSET + size_of::<u32>());
    assert!(at::EPOCH == at::META_CRC + size_of::<u32>());
    assert!(at::TIME == at::EPOCH + size_of::<u64>() + 8);
    assert!(at::META_OFFSET == at::TIME + size_of::<u64>());
    assert!(at::META_LEN == at::META_OFFSET + size_of::<u64>());
    assert!(at::CRC == at::META_LEN + size_of::<u64>() + 4);
    assert!(HEADER_LEN == at::CRC + size_of::<u32>());
};

const _: () = {
    assert!(HEADER_LEN as u64 <= DATA_START);
    assert!(DATA_START.is_multiple_of(4096));
    assert!(SEGMENT_LEN < COUNT_MAX, "bytes are counted, too");
    assert!(COUNT_MAX < u64::MAX / NUMBER_MAX as u64, "a sum of all");
};

/// Which state a checkpoint holds, and where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u16,
    pub(crate) store: StoreId,
    pub(crate) id: u64,
    /// All changes up to this one, and none after it.
    pub(crate) seqno: u64,
    /// Where the first record after it lies.
    pub(crate) position: Address,
    pub(crate) epoch: u64,
    /// The latest confirmed time.
    pub(crate) time: u64,
    pub(crate) meta_offset: u64,
    pub(crate) meta_len: u64,
    pub(crate) meta_crc: u32,
}

/// The lists of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) segments: Vec<SegmentEntry>,
    /// Retired segments whose files are still there, in the order of retirement.
    pub(crate) retired: Vec<Retired>,
    pub(crate) namespaces: Vec<NamespaceEntry>,
    /// Ids of the key runs, newest first.
    pub(crate) runs: Vec<u64>,
    /// Ids of the large segments that live records point to.
    pub(crate) larges: Vec<u64>,
    pub(crate) partitions: Vec<PartitionEntry>,
    /// The checksum of each page of each partition; what is left at its end counts as one.
    pub(crate) chunks: Vec<u32>,
}

/// A front or class segment that slots may name, by the number they have for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) number: u32,
    pub(crate) id: u64,
    pub(crate) len: u64,
    /// The class of what compaction copied to it, [`FRONT`] for a front segment.
    pub(crate) class: u8,
    pub(crate) counts: Counts,
    /// Live bytes of dropped namespaces, as far as somebody looked.
    pub(crate) dropped: u64,
    /// The second from which `expiries` count, and live bytes by bucket of expiration.
    pub(crate) since: u64,
    pub(crate) expiries: Vec<(u8, u64)>,
}

/// What is still needed of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Puts that the table points to, and their bytes.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    /// Tombstones, which older segments need: how many, their bytes, the highest sequence number.
    pub(crate) pins: u64,
    pub(crate) pin_bytes: u64,
    pub(crate) highest_pin: u64,
    /// All puts, live or not, those with a value in a large segment, the lowest sequence number of any
    /// (`u64::MAX` without one), and the sum of all.
    pub(crate) puts: u64,
    pub(crate) larges: u64,
    pub(crate) lowest_seqno: u64,
    pub(crate) seqno_sum: u64,
    /// The last second in which one of all puts is visible, `u64::MAX` for ever.
    pub(crate) last_visible: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            live: 0,
            live_bytes: 0,
            pins: 0,
            pin_bytes: 0,
            highest_pin: 0,
            puts: 0,
            larges: 0,
            lowest_seqno: u64::MAX,
            seqno_sum: 0,
            last_visible: 0,
        }
    }
}

/// A segment that was retired, and the sequence number of the record that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) id: u64,
    pub(crate) seqno: u64,
}

/// A namespace as its newest record says, and the segment of that record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceEntry {
    pub(crate) number: u32,
    pub(crate) segment: u64,
    pub(crate) body: Vec<u8>,
}

/// One partition of the table. The directory tells its size, hence the offsets of all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionEntry {
    pub(crate) entries: u32,
    /// What its stretches have of buckets; of version 1 the binary logarithm of that.
    pub(crate) multiple: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[16..at::ID].copy_from_slice(&self.store.encode());
        set!(bytes, at::VERSION, self.version);
        set!(bytes, at::ID, self.id);
        set!(bytes, at::SEQNO, self.seqno);
        set!(bytes, at::SEGMENT, self.position.segment);
        set!(bytes, at::OFFSET, self.position.offset);
        set!(bytes, at::META_CRC, self.meta_crc);
        set!(bytes, at::EPOCH, self.epoch);
        set!(bytes, at::TIME, self.time);
        set!(bytes, at::META_OFFSET, self.meta_offset);
        set!(bytes, at::META_LEN, self.meta_len);
        let crc = crc32fast::hash(&bytes[..at::CRC]);
        set!(bytes, at::CRC, crc);
        debug_assert_eq!(Header::decode(&bytes), Ok(*self), "it is what will be read");
        bytes
    }

    /// The header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, Refusal> {
        let covered = bytes.get(..at::CRC).filter(|_| bytes.len() >= HEADER_LEN);
        let covered = covered.ok_or(Refusal::Damaged("no checkpoint header"))?;
        if !covered.starts_with(&MAGIC) {
            return Err(Refusal::Damaged("no checkpoint header"));
        }
        if crc32fast::hash(covered) != field!(bytes, at::CRC, u32) {
            return Err(Refusal::Damaged("checkpoint header checksum"));
        }
        let version = field!(bytes, at::VERSION, u16);
        if !(1..=VERSION).contains(&version) {
            return Err(Refusal::Newer(version));
        }
        Ok(Header {
            version,
            store: StoreId::decode(bytes),
            id: field!(bytes, at::ID, u64),
            seqno: field!(bytes, at::SEQNO, u64),
            position: Address {
                segment: field!(bytes, at::SEGMENT, u64),
                offset: field!(bytes, at::OFFSET, u32),
            },
            meta_crc: field!(bytes, at::META_CRC, u32),
            epoch: field!(bytes, at::EPOCH, u64),
            time: field!(bytes, at::TIME, u64),
            meta_offset: field!(bytes, at::META_OFFSET, u64),
            meta_len: field!(bytes, at::META_LEN, u64),
        })
    }
}

impl Meta {
    /// Reads the lists of a checkpoint of this version as those of the newest.
    pub(crate) fn upgraded(mut self, version: u16) -> Meta {
        if version == 1 {
            for partition in &mut self.partitions {
                let multiple = 1u32.checked_shl(partition.multiple);
                // No partition has the multiple 0, as none was doubled so often.
                partition.multiple = multiple.unwrap_or_default();
            }
        }
        self
    }

    /// Each list is its length as `u32`, then its entries, fields in the order of the types above.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        len(&mut out, self.segments.len());
        for entry in &self.segments {
            debug_assert!((1..NUMBER_MAX).contains(&entry.number));
            debug_assert!(entry.len <= SEGMENT_LEN, "it would be refused");
            out.extend_from_slice(&entry.number.to_le_bytes());
            let counts = &entry.counts;
            let fields = [
                entry.id,
                entry.len,
                counts.live,
                counts.live_bytes,
                counts.pins,
                counts.pin_bytes,
                counts.highest_pin,
                counts.puts,
                counts.larges,
                counts.lowest_seqno,
                counts.seqno_sum,
                counts.last_visible,
                entry.dropped,
                entry.since,
            ];
            fields
                .iter()
                .for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
            out.push(entry.class);
            len(&mut out, entry.expiries.len());
            for (bucket, bytes) in &entry.expiries {
                out.push(*bucket);
                out.extend_from_slice(&bytes.to_le_bytes());
            }
        }
        len(&mut out, self.retired.len());
        for entry in &self.retired {
            out.extend_from_slice(&entry.id.to_le_bytes());
            out.extend_from_slice(&entry.seqno.to_le_bytes());
        }
        len(&mut out, self.namespaces.len());
        for entry in &self.namespaces {
            out.extend_from_slice(&entry.number.to_le_bytes());
            out.extend_from_slice(&entry.segment.to_le_bytes());
            len(&mut out, entry.body.len());
            out.extend_from_slice(&entry.body);
        }
        for ids in [&self.runs, &self.larges] {
            len(&mut out, ids.len());
            ids.iter()
                .for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        }
        len(&mut out, self.partitions.len());
        for entry in &self.partitions {
            for field in [entry.entries, entry.multiple] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        len(&mut out, self.chunks.len());
        self.chunks
            .iter()
            .for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
        out
    }

    /// The lists that `bytes` hold, which must be all of them, or `None`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Meta> {
        let mut from = Reader(bytes);
        let meta = Meta {
            segments: from.list(Reader::segment)?,
            retired: from.list(|from| {
                Some(Retired {
                    id: from.u64()?,
                    seqno: from.u64()?,
                })
            })?,
            namespaces: from.list(|from| {
                let (number, segment) = (from.u32()?, from.u64()?);
                let len = from.u32()?;
                let body = from.bytes(usize::try_from(len).ok()?)?.to_vec();
                Some(NamespaceEntry {
                    number,
                    segment,
                    body,
                })
            })?,
            runs: from.list(Reader::u64)?,
            larges: from.list(Reader::u64)?,
            partitions: from.list(|from| {
                Some(PartitionEntry {
                    entries: from.u32()?,
                    multiple: from.u32()?,
                })
            })?,
            chunks: from.list(Reader::u32)?,
        };
        // A file that slots may name is not one to be removed.
        let retired: HashSet<u64> = meta.retired.iter().map(|retired| retired.id).collect();
        let segments = || meta.segments.iter();
        let is_sound = segments().all(|entry| !retired.contains(&entry.id))
            && are_different(segments().map(|entry| u64::from(entry.number)))
            && are_different(segments().map(|entry| entry.id))
            && are_different(meta.runs.iter().copied());
        (from.0.is_empty() && is_sound).then_some(meta)
    }
}

fn are_different(mut ids: impl Iterator<Item = u64>) -> bool {
    let mut seen = HashSet::new();
    ids.all(|id| seen.insert(id))
}

fn len(out: &mut Vec<u8>, len: usize) {
    debug_assert!(u32::try_from(len).is_ok(), "a list of {len} entries");
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
}

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn segment(&mut self) -> Option<SegmentEntry> {
        Some(SegmentEntry {
            number: self.u32().filter(|n| (1..NUMBER_MAX).contains(n))?,
            id: self.u64()?,
            len: self.u64().filter(|len| *len <= SEGMENT_LEN)?,
            counts: Counts {
                live: self.count()?,
                live_bytes: self.count()?,
                pins: self.count()?,
                pin_bytes: self.count()?,
                highest_pin: self.u64()?,
                puts: self.count()?,
                larges: self.count()?,
                lowest_seqno: self.u64()?,
                seqno_sum: self.u64()?,
                last_visible: self.u64()?,
            },
            dropped: self.count()?,
            since: self.u64()?,
            class: self.u8()?,
            expiries: self.list(|from| Some((from.u8()?, from.count()?)))?,
        })
    }

    /// How many there are of something in one segment.
    fn count(&mut self) -> Option<u64> {
        self.u64().filter(|count| *count <= COUNT_MAX)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| field!(bytes, 0, u8))
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| field!(bytes, 0, u32))
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|bytes| field!(bytes, 0, u64))
    }

    /// A list takes no more memory than the bytes that are there: it grows as entries are read.
    fn list<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.u32()?).map(|_| entry(self)).collect()
    }
}

/// What the file `CURRENT` says: the name of the newest checkpoint and a checksum of it.
pub(crate) fn encode_current(id: u64) -> String {
    let name = file_name(id);
    debug_assert!(
        name.get(..16)
            .is_some_and(|stem| stem.bytes().all(|b| b.is_ascii_hexdigit()))
    );
    format!("{name} {:08x}\n", crc32fast::hash(name.as_bytes()))
}

/// The checkpoint that a `CURRENT` file names, or `None` if it is damaged.
pub(crate) fn decode_current(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let id = u64::from_str_radix(text.get(..16)?, 16).ok()?;
    (encode_current(id) == text).then_some(id)
}

pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}.ckpt")
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::hex;

    fn header() -> Header {
        Header {
            version: VERSION,
            store: StoreId {
                id: [1; 16],
                secret: [2; 32],
            },
            id: 3,
            seqno: 4,
            position: Address {
                segment: 5,
                offset: 136,
            },
            epoch: 6,
            time: 8,
            meta_offset: 4096,
            meta_len: 9,
            meta_crc: 10,
        }
    }

    #[test]
    fn a_header_is_what_was_encoded_and_every_changed_bit_is_refused() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for bit in 0..HEADER_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_is_newer_or_cut_is_refused_by_name() {
        let mut bytes = header().encode();
        let mut of_version = |version: u16| {
            set!(bytes, 8, version);
            let crc = crc32fast::hash(&bytes[..140]);
            set!(bytes, 140, crc);
            Header::decode(&bytes).map(|header| header.version)
        };
        assert_eq!(of_version(1), Ok(1));
        assert_eq!(of_version(3), Err(Refusal::Newer(3)));
        assert_eq!(of_version(0), Err(Refusal::Newer(0)));
        let cut = Header::decode(&bytes[..HEADER_LEN - 1]);
        assert_eq!(cut, Err(Refusal::Damaged("no checkpoint header")));
    }

    fn lists() -> Meta {
        Meta {
            segments: vec![SegmentEntry {
                number: 1,
                id: 2,
                len: 3,
                class: 4,
                counts: Counts {
                    live: 5,
                    live_bytes: 6,
                    pins: 7,
                    pin_bytes: 8,
                    highest_pin: 9,
                    puts: 10,
                    larges: 11,
                    lowest_seqno: 12,
                    seqno_sum: 13,
                    last_visible: 14,
                },
                dropped: 28,
                since: 15,
                expiries: vec![(16, 17)],
            }],
            retired: vec![Retired { id: 18, seqno: 19 }],
            namespaces: vec![NamespaceEntry {
                number: 20,
                segment: 21,
                body: b"body".to_vec(),
            }],
            runs: vec![22, 23],
            larges: vec![24],
            partitions: vec![PartitionEntry {
                entries: 25,
                multiple: 26,
            }],
            chunks: vec![27, 29],
        }
    }

    #[test]
    fn lists_are_what_was_encoded_and_no_part_of_them_is_taken_for_all() {
        let meta = lists();
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        for end in 0..bytes.len() {
            assert_eq!(Meta::decode(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(Meta::decode(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn of_an_empty_segment_nothing_is_counted() {
        let expected = Counts {
            live: 0,
            live_bytes: 0,
            pins: 0,
            pin_bytes: 0,
            highest_pin: 0,
            puts: 0,
            larges: 0,
            lowest_seqno: u64::MAX,
            seqno_sum: 0,
            last_visible: 0,
        };
        assert_eq!(Counts::default(), expected);
    }

    #[test]
    fn partitions_of_version_1_have_the_logarithm_of_their_multiple() {
        let mut meta = lists();
        for multiple in [0, 3, 31, 32, u32::MAX] {
            let entries = 1;
            meta.partitions.push(PartitionEntry { entries, multiple });
        }
        let multiples = |version| -> Vec<u32> {
            let meta = meta.clone().upgraded(version);
            meta.partitions.iter().map(|p| p.multiple).collect()
        };
        assert_eq!(multiples(1), [1 << 26, 1, 8, 1 << 31, 0, 0]);
        assert_eq!(multiples(2), [26, 0, 3, 31, 32, u32::MAX]);
    }

    #[test]
    fn a_segment_is_in_use_or_retired_and_not_both() {
        let mut meta = lists();
        meta.segments.push(SegmentEntry {
            number: 30,
            id: 31,
            ..meta.segments[0].clone()
        });
        assert_eq!(Meta::decode(&meta.encode()), Some(meta.clone()));
        meta.retired.push(Retired { id: 2, seqno: 20 });
        assert_eq!(Meta::decode(&meta.encode()), None);
    }

    #[test]
    fn each_segment_number_and_run_is_named_once() {
        let is_read = |change: fn(&mut Meta)| {
            let mut meta = lists();
            meta.segments.push(SegmentEntry {
                number: 30,
                id: 31,
                ..meta.segments[0].clone()
            });
            change(&mut meta);
            Meta::decode(&meta.encode()).is_some()
        };
        assert!(is_read(|_| {}));
        assert!(!is_read(|meta| meta.segments[1].number = 1));
        assert!(!is_read(|meta| meta.segments[1].id = 2));
        assert!(!is_read(|meta| meta.runs.push(22)));
    }

    #[test]
    fn a_segment_that_holds_more_than_any_can_is_none() {
        // Where its length begins, the counts, and the bytes of its one bucket of expiration.
        let counted = [24, 32, 40, 48, 64, 72, 104, 126];
        for at in counted {
            let mut bytes = lists().encode();
            set!(bytes, at, COUNT_MAX + 1);
            assert_eq!(Meta::decode(&bytes), None, "at {at}");
        }
        let mut bytes = lists().encode();
        set!(bytes, 16, SEGMENT_LEN + 1);
        assert_eq!(Meta::decode(&bytes), None);
        set!(bytes, 16, SEGMENT_LEN);
        for at in counted {
            set!(bytes, at, COUNT_MAX);
        }
        assert!(Meta::decode(&bytes).is_some(), "as much as may be");
    }

    #[test]
    fn current_names_a_checkpoint_or_nothing() {
        let text = encode_current(0xabc);
        assert_eq!(decode_current(text.as_bytes()), Some(0xabc));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(decode_current(&damaged), None, "byte {at}");
        }
    }

    /// These bytes are on disks: an encoder that writes others needs a new format version.
    #[test]
    fn a_header_has_these_bytes() {
        let expected = [
            "52494d53434b50540200000000000000",
            "01010101010101010101010101010101",
            "02020202020202020202020202020202",
            "02020202020202020202020202020202",
            "03000000000000000400000000000000",
            "0500000000000000880000000a000000",
            "06000000000000000000000000000000",
            "08000000000000000010000000000000",
            "0900000000000000000000006f565044",
        ];
        assert_eq!(hex(&header().encode()), expected);
    }

    #[test]
    fn lists_have_these_bytes() {
        let expected = [
            "01000000010000000200000000000000",
            "03000000000000000500000000000000",
            "06000000000000000700000000000000",
            "08000000000000000900000000000000",
            "0a000000000000000b00000000000000",
            "0c000000000000000d00000000000000",
            "0e000000000000001c00000000000000",
            "0f000000000000000401000000101100",
            "00000000000001000000120000000000",
            "00001300000000000000010000001400",
            "0000150000000000000004000000626f",
            "64790200000016000000000000001700",
            "00000000000001000000180000000000",
            "000001000000190000001a0000000200",
            "00001b0000001d000000",
        ];
        assert_eq!(hex(&lists().encode()), expected);
    }

    #[test]
    fn current_has_this_text() {
        assert_eq!(encode_current(0xabc), "0000000000000abc.ckpt 16edd8fc\n");
    }
}
