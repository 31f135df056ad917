//! The header at the start of every segment.

use super::{VERSION, field, set};

/// Bytes before the first record of a front or class segment.
pub(crate) const HEADER_LEN: usize = 128;
/// Where the value of a large segment starts: a page, so that it can be handed out as pages.
pub(crate) const LARGE_START: u64 = 4096;
/// Bytes a segment may hold; a slot's offset has 23 bits of 8 bytes.
pub(crate) const SEGMENT_LEN: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"RIMSTONE";

/// Where the fields of a header lie. Bytes 16 to 64 say whose it is, in segments and checkpoints alike.
mod at {
    pub(super) const VERSION: usize = 8;
    pub(super) const KIND: usize = 10;
    pub(super) const CLASS: usize = 11;
    pub(super) const SALT: usize = 12;
    pub(super) const STORE: usize = 16;
    pub(super) const SECRET: usize = 32;
    pub(super) const ID: usize = 64;
    pub(super) const EPOCH: usize = 72;
    pub(super) const PREVIOUS: usize = 80;
    pub(super) const PREVIOUS_LEN: usize = 88;
    pub(super) const TIME: usize = 96;
    pub(super) const VALUE_LEN: usize = 112;
    pub(super) const TABLE_CRC: usize = 116;
    pub(super) const CRC: usize = 124;
}

// One behind the other, with eight bytes of nothing in front of what is said of a large value, and four behind it.
const _: () = {
    assert!(at::VERSION == MAGIC.len());
    assert!(at::KIND == at::VERSION + size_of::<u16>());
    assert!(at::CLASS == at::KIND + size_of::<u8>());
    assert!(at::SALT == at::CLASS + size_of::<u8>());
    assert!(at::STORE == at::SALT + size_of::<u32>());
    assert!(at::SECRET == at::STORE + size_of::<[u8; 16]>());
    assert!(at::ID == at::SECRET + size_of::<[u8; 32]>());
    assert!(at::EPOCH == at::ID + size_of::<u64>());
    assert!(at::PREVIOUS == at::EPOCH + size_of::<u64>());
    assert!(at::PREVIOUS_LEN == at::PREVIOUS + size_of::<u64>());
    assert!(at::TIME == at::PREVIOUS_LEN + size_of::<u64>());
    assert!(at::VALUE_LEN == at::TIME + size_of::<u64>() + 8);
    assert!(at::TABLE_CRC == at::VALUE_LEN + size_of::<u32>());
    assert!(at::CRC == at::TABLE_CRC + size_of::<u32>() + 4);
    assert!(HEADER_LEN == at::CRC + size_of::<u32>());
};

const _: () = {
    assert!(
        HEADER_LEN.is_multiple_of(8),
        "records begin at multiples of 8"
    );
    assert!(HEADER_LEN as u64 <= LARGE_START);
    assert!(LARGE_START.is_multiple_of(4096));
    assert!(
        SEGMENT_LEN <= 8 << 23,
        "what the offset of a slot can reach"
    );
    assert!(SEGMENT_LEN <= u32::MAX as u64, "what an address can reach");
    assert!(SEGMENT_LEN.is_multiple_of(LARGE_START), "of whole pages");
};

/// What kind of segment a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records in commit order.
    Front,
    /// Copies that compaction made of records with this class of remaining life.
    Class(u8),
    /// One large value, which a record points to.
    Large { value_len: u32, table_crc: u32 },
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) salt: u32,
    pub(crate) store: StoreId,
    pub(crate) id: u64,
    /// Raised by every recovery; the upper half of every id that is given out since.
    pub(crate) epoch: u64,
    /// The front segment before this one, 0 for the first, and how many of its bytes are valid.
    pub(crate) previous: u64,
    pub(crate) previous_len: u64,
    /// The latest confirmed time when the segment was made.
    pub(crate) time: u64,
}

/// What all files of one store share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId {
    pub(crate) id: [u8; 16],
    /// Seeds the key hash (first 8 bytes) and signs cursors (next 16).
    pub(crate) secret: [u8; 32],
}

impl StoreId {
    pub(crate) fn hash_seed(&self) -> u64 {
        field!(self.secret, 0, u64)
    }

    /// As it lies in a header: bytes 16 to 64, in segments and checkpoints alike.
    pub(super) fn encode(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..].copy_from_slice(&self.secret);
        bytes
    }

    /// Reads it from a header.
    pub(super) fn decode(header: &[u8]) -> StoreId {
        let mut store = StoreId {
            id: [0; 16],
            secret: [0; 32],
        };
        debug_assert!(header.len() >= at::ID, "the caller has checked the length");
        let bytes = store.id.iter_mut().chain(&mut store.secret);
        for (to, from) in bytes.zip(header.iter().skip(at::STORE)) {
            *to = *from;
        }
        store
    }
}

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Damaged(&'static str),
    Newer(u16),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0u8; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        set!(bytes, at::VERSION, VERSION);
        match self.kind {
            Kind::Front => {}
            Kind::Large {
                value_len,
                table_crc,
            } => {
                set!(bytes, at::KIND, 1u8);
                set!(bytes, at::VALUE_LEN, value_len);
                set!(bytes, at::TABLE_CRC, table_crc);
            }
            Kind::Class(class) => {
                set!(bytes, at::KIND, 2u8);
                set!(bytes, at::CLASS, class);
            }
        }
        set!(bytes, at::SALT, self.salt);
        bytes[at::STORE..at::ID].copy_from_slice(&self.store.encode());
        set!(bytes, at::ID, self.id);
        set!(bytes, at::EPOCH, self.epoch);
        set!(bytes, at::PREVIOUS, self.previous);
        set!(bytes, at::PREVIOUS_LEN, self.previous_len);
        set!(bytes, at::TIME, self.time);
        let crc = crc32fast::hash(&bytes[..at::CRC]);
        set!(bytes, at::CRC, crc);
        debug_assert_eq!(Header::decode(&bytes), Ok(*self), "it is what will be read");
        bytes
    }

    /// Whether records follow, and not a value.
    pub(crate) fn is_of_records(&self) -> bool {
        !matches!(self.kind, Kind::Large { .. })
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, Refusal> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Refusal::Damaged("no segment header"));
        }
        if crc32fast::hash(&bytes[..at::CRC]) != field!(bytes, at::CRC, u32) {
            return Err(Refusal::Damaged("segment header checksum"));
        }
        let version = field!(bytes, at::VERSION, u16);
        if version != VERSION {
            return Err(Refusal::Newer(version));
        }
        let kind = match field!(bytes, at::KIND, u8) {
            0 => Kind::Front,
            1 => Kind::Large {
                value_len: field!(bytes, at::VALUE_LEN, u32),
                table_crc: field!(bytes, at::TABLE_CRC, u32),
            },
            2 => Kind::Class(field!(bytes, at::CLASS, u8)),
            _ => return Err(Refusal::Damaged("unknown segment kind")),
        };
        Ok(Header {
            kind,
            salt: field!(bytes, at::SALT, u32),
            store: StoreId::decode(bytes),
            id: field!(bytes, at::ID, u64),
            epoch: field!(bytes, at::EPOCH, u64),
            previous: field!(bytes, at::PREVIOUS, u64),
            previous_len: field!(bytes, at::PREVIOUS_LEN, u64),
            time: field!(bytes, at::TIME, u64),
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::hex;

    fn header(kind: Kind) -> Header {
        Header {
            kind,
            salt: 0x0102_0304,
            store: StoreId {
                id: [1; 16],
                secret: [2; 32],
            },
            id: 3,
            epoch: 4,
            previous: 5,
            previous_len: 136,
            time: 6,
        }
    }

    const LARGE: Kind = Kind::Large {
        value_len: 70_000,
        table_crc: 7,
    };

    #[test]
    fn a_header_is_what_was_encoded_and_every_changed_bit_is_refused() {
        for kind in [Kind::Front, Kind::Class(0), Kind::Class(7), LARGE] {
            let bytes = header(kind).encode();
            assert_eq!(Header::decode(&bytes), Ok(header(kind)));
            for bit in 0..HEADER_LEN * 8 {
                let mut damaged = bytes;
                damaged[bit / 8] ^= 1 << (bit % 8);
                let reason = match bit / 8 {
                    0..8 => "no segment header",
                    _ => "segment header checksum",
                };
                let refused = Header::decode(&damaged);
                assert_eq!(refused, Err(Refusal::Damaged(reason)), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let with = |at: usize, byte: u8| {
            let mut bytes = header(Kind::Front).encode();
            bytes[at] = byte;
            let crc = crc32fast::hash(&bytes[..124]);
            set!(bytes, 124, crc);
            Header::decode(&bytes)
        };
        assert_eq!(with(8, 2), Err(Refusal::Newer(2)));
        let unknown = Refusal::Damaged("unknown segment kind");
        assert_eq!(with(10, 3), Err(unknown));
        assert_eq!(with(10, 2), Ok(header(Kind::Class(0))));
    }

    /// These bytes are on disks: an encoder that writes others needs a new format version.
    #[test]
    fn a_header_has_these_bytes() {
        let expected = [
            "52494d53544f4e450100010004030201",
            "01010101010101010101010101010101",
            "02020202020202020202020202020202",
            "02020202020202020202020202020202",
            "03000000000000000400000000000000",
            "05000000000000008800000000000000",
            "06000000000000000000000000000000",
            "70110100070000000000000056658619",
        ];
        assert_eq!(hex(&header(LARGE).encode()), expected);
    }
}
