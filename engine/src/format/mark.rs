//! How far the log reached at least: what `LOCK` says, beside being locked.

use super::{field, set};

const MAGIC: &[u8; 8] = b"RIMSMARK";
/// Bytes of a mark.
pub(crate) const MARK_LEN: usize = 52;

/// Where its fields lie, one behind the other.
mod at {
    pub(super) const STORE: usize = 8;
    pub(super) const SEQNO: usize = 24;
    pub(super) const SEGMENT: usize = 32;
    pub(super) const LEN: usize = 40;
    pub(super) const CRC: usize = 48;
}

const _: () = {
    assert!(at::STORE == MAGIC.len());
    assert!(at::SEQNO == at::STORE + size_of::<[u8; 16]>());
    assert!(at::SEGMENT == at::SEQNO + size_of::<u64>());
    assert!(at::LEN == at::SEGMENT + size_of::<u64>());
    assert!(at::CRC == at::LEN + size_of::<u64>());
    assert!(MARK_LEN == at::CRC + size_of::<u32>());
};

/// A place that was durable in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Whose log it is.
    pub(crate) store: [u8; 16],
    /// The newest durable sequence number.
    pub(crate) seqno: u64,
    /// The front segment in which the log went on, and how long that was at least.
    pub(crate) segment: u64,
    pub(crate) len: u64,
}

impl Mark {
    pub(crate) fn encode(&self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        let (magic, rest) = bytes.split_at_mut(at::STORE);
        magic.copy_from_slice(MAGIC);
        rest.split_at_mut(16).0.copy_from_slice(&self.store);
        set!(bytes, at::SEQNO, self.seqno);
        set!(bytes, at::SEGMENT, self.segment);
        set!(bytes, at::LEN, self.len);
        debug_assert!(bytes.starts_with(MAGIC), "fields do not overlap");
        let crc = crc32fast::hash(bytes.split_at(at::CRC).0);
        set!(bytes, at::CRC, crc);
        debug_assert_eq!(Mark::decode(&bytes), Some(*self), "it is what will be read");
        bytes
    }

    /// `None` for anything else, as a crash may leave it.
    pub(crate) fn decode(bytes: &[u8; MARK_LEN]) -> Option<Mark> {
        let (body, _) = bytes.split_at(at::CRC);
        let is_whole =
            body.starts_with(MAGIC) && field!(bytes, at::CRC, u32) == crc32fast::hash(body);
        let mut store = [0; 16];
        store.copy_from_slice(body.get(at::STORE..at::SEQNO)?);
        is_whole.then(|| Mark {
            store,
            seqno: field!(bytes, at::SEQNO, u64),
            segment: field!(bytes, at::SEGMENT, u64),
            len: field!(bytes, at::LEN, u64),
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::hex;

    const MARK: Mark = Mark {
        store: [1; 16],
        seqno: 2,
        segment: 3,
        len: 4,
    };

    /// As in `docs/format.md`.
    #[test]
    fn a_mark_is_these_bytes() {
        assert_eq!(
            hex(&MARK.encode()[..48]),
            [
                "52494d534d41524b0101010101010101",
                "01010101010101010200000000000000",
                "03000000000000000400000000000000",
            ]
        );
    }

    #[test]
    fn every_changed_bit_is_refused() {
        let bytes = MARK.encode();
        assert_eq!(Mark::decode(&bytes), Some(MARK));
        for bit in 0..MARK_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&changed), None, "bit {bit}");
        }
        assert_eq!(Mark::decode(&[0; MARK_LEN]), None);
    }
}
