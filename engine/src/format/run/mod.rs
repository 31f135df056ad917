//! The run file: sorted keys for `list`, with expiration, metadata and seqno, never a value or a
//! location. `docs/format.md` has the layout. Every byte of the file is under some checksum.
//!
//! ```text
//! header | blocks of keys | blocks of the index, the root last | footer
//! ```
//!
//! All blocks are alike: up to 32 front-coded records, and at once what a search reads from beginning to end.
//! One of the index has for each of up to 32 blocks the shortest key that is not after it and after all before
//! it. So a search reads one block of each level, however much the keys have in common; those of the index stay in
//! memory as nodes (`node.rs`).
//!
//! Version 1, which is read and not written any more, has a flat index of the first 8 bytes of each block.

mod ahead;
mod block;
mod file;
mod flat;
mod node;
#[cfg(feature = "fuzzing")]
mod reseal;
#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]
mod tests;
mod tree;
mod varint;
mod walk;
mod writer;

pub(crate) use block::common_len;
pub(crate) use file::{Run, RunBytes, Search};
#[cfg(feature = "fuzzing")]
pub(crate) use reseal::reseal;
pub(crate) use walk::{Backward, Forward, sort_key};
pub(crate) use writer::RunWriter;

/// One key as the runs and the memtable hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord<'a> {
    pub(crate) namespace: u32,
    pub(crate) key: &'a [u8],
    pub(crate) metadata: &'a [u8],
    /// Unix seconds; 0 is never.
    pub(crate) expiration: u64,
    pub(crate) seqno: u64,
    pub(crate) tombstone: bool,
}

/// Bytes that are not what the format says, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at offset {offset}")]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

impl Damage {
    fn at(offset: usize, reason: &'static str) -> Damage {
        Damage {
            offset: offset as u64,
            reason,
        }
    }
}

/// What a finished run holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) records: u64,
    pub(crate) tombstones: u64,
    pub(crate) seqno_min: u64,
    pub(crate) seqno_max: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

/// The longest key a run can hold. It bounds what decoding a block allocates.
pub(crate) const KEY_LEN_MAX: usize = u16::MAX as usize;

/// The version of the runs that are written, the highest that is read.
pub(crate) const VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"RIMSTRUN";
const FOOTER_MAGIC: [u8; 4] = *b"RUNE";
const HEADER_LEN: usize = 64;
const FOOTER_LEN: usize = 64;
const CRC_LEN: usize = 4;
const NAMESPACE_LEN: usize = 4;
/// A block begins with its own length and that of the one before it.
const LENGTHS_LEN: usize = 8;
/// No block is shorter, so no two begin in the same 64 bytes.
const BLOCK_LEN_MIN: usize = 64;

const _: () = {
    assert!(
        BLOCK_LEN_MIN > LENGTHS_LEN + CRC_LEN,
        "a block has room for a record"
    );
    assert!(HEADER_LEN.is_multiple_of(8));
    assert!(FOOTER_LEN.is_multiple_of(8));
    assert!(FOOTER_LEN == 7 * 8 + FOOTER_MAGIC.len() + CRC_LEN);
    assert!(at::VERSION == MAGIC.len());
    assert!(at::BLOCK_RECORDS == at::VERSION + size_of::<u16>());
    assert!(at::STORE == at::BLOCK_RECORDS + size_of::<u16>() + 4);
    assert!(at::ID == at::STORE + size_of::<[u8; 16]>());
    assert!(at::HEADER_CRC == at::ID + size_of::<u64>() + 20);
    assert!(HEADER_LEN == at::HEADER_CRC + CRC_LEN);
    assert!(LENGTHS_LEN == 2 * size_of::<u32>(), "of two blocks");
    assert!(NAMESPACE_LEN == size_of::<u32>());
    assert!(CRC_LEN == size_of::<u32>());
    assert!(super::record::KEY_MAX <= KEY_LEN_MAX, "room for all");
};

/// Where the fields of a header lie.
mod at {
    pub(super) const VERSION: usize = 8;
    pub(super) const BLOCK_RECORDS: usize = 10;
    pub(super) const STORE: usize = 16;
    pub(super) const ID: usize = 32;
    pub(super) const HEADER_CRC: usize = 60;
}

fn header(store_id: [u8; 16], run_id: u64) -> [u8; HEADER_LEN] {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&u16::from(block::BLOCK_RECORDS).to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&store_id);
    header.extend_from_slice(&run_id.to_le_bytes());
    header.extend_from_slice(&[0; 20]);
    debug_assert_eq!(header.len(), at::HEADER_CRC, "all before it");
    debug_assert_eq!(field_u64(&header, at::ID), run_id);
    debug_assert_eq!(field_u16(&header, at::VERSION), VERSION);
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header.try_into().expect("the header is 64 bytes")
}

fn block_crc(run_id: u64, offset: u64, block: &[u8]) -> u32 {
    let mut place = [0; 16];
    let (id, at) = place.split_at_mut(8);
    id.copy_from_slice(&run_id.to_le_bytes());
    at.copy_from_slice(&offset.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place);
    crc.update(block);
    crc.finalize()
}

fn footer_crc(header: &[u8; HEADER_LEN], footer: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(footer);
    crc.finalize()
}

#[allow(
    clippy::big_endian_bytes,
    reason = "in a sort key the order of bytes is the order of numbers"
)]
fn namespace_bytes(namespace: u32) -> [u8; NAMESPACE_LEN] {
    namespace.to_be_bytes()
}

#[allow(
    clippy::big_endian_bytes,
    reason = "in a sort key the order of bytes is the order of numbers"
)]
fn namespace_of(sort_key: &[u8]) -> Option<u32> {
    sort_key
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// The first eight bytes, zero-filled, as a number of the same order.
#[inline]
#[allow(
    clippy::big_endian_bytes,
    reason = "the order of bytes becomes the order of numbers"
)]
pub(crate) fn rank(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(first)
        }
    }
}

// Fields of the fixed parts, whose lengths were checked; outside of them everything is 0.

fn field_u16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u16::from_le_bytes(*b))
}

fn field_u32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

fn field_u64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}

/// Likewise of a place in the file.
fn field_place(bytes: &[u8], at: usize) -> usize {
    usize::try_from(field_u64(bytes, at)).unwrap_or(usize::MAX)
}
