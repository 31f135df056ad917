//! The bodies of records that list segments or other records: what compaction tells the log.

use super::record::{Address, LIST_MAX};
use super::segment::SEGMENT_LEN;
use super::{field, set};

/// Bytes of a [`Move`] before its relocations, and of each of these.
pub(crate) const MOVE_LEN: usize = 56;
pub(crate) const RELOCATION_LEN: usize = 24;
/// Bytes of a class segment in a [`Retire`].
const CLASS_LEN: usize = 12;

/// Where the fields of a [`Move`] lie, one behind the other.
mod at {
    pub(super) const FROM: usize = 0;
    pub(super) const TO: usize = 8;
    pub(super) const LEN: usize = 16;
    pub(super) const PINS: usize = 20;
    pub(super) const PIN_BYTES: usize = 24;
    pub(super) const LARGES: usize = 28;
    pub(super) const HIGHEST_PIN: usize = 32;
    pub(super) const LOWEST_SEQNO: usize = 40;
    pub(super) const SEQNO_SUM: usize = 48;
}

const _: () = {
    assert!(at::TO == at::FROM + size_of::<u64>());
    assert!(at::LEN == at::TO + size_of::<u64>());
    assert!(at::PINS == at::LEN + size_of::<u32>());
    assert!(at::PIN_BYTES == at::PINS + size_of::<u32>());
    assert!(at::LARGES == at::PIN_BYTES + size_of::<u32>());
    assert!(at::HIGHEST_PIN == at::LARGES + size_of::<u32>());
    assert!(at::LOWEST_SEQNO == at::HIGHEST_PIN + size_of::<u64>());
    assert!(at::SEQNO_SUM == at::LOWEST_SEQNO + size_of::<u64>());
    assert!(MOVE_LEN == at::SEQNO_SUM + size_of::<u64>());
    assert!(RELOCATION_LEN == 8 + 4 * 4, "five fields");
    assert!(CLASS_LEN == 8 + 4, "an id and a length");
    assert!(SEGMENT_LEN <= u32::MAX as u64, "a place takes four bytes");
};

/// Records of one segment that were copied to one class segment. Each relocation counts only if the
/// table names the old place when this comes in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// How many bytes of the class segment are valid from here on.
    pub(crate) len: u32,
    /// Tombstones among the copies: how many, their bytes, and the highest sequence number.
    pub(crate) pins: u32,
    pub(crate) pin_bytes: u32,
    pub(crate) highest_pin: u64,
    /// Of the copies that are puts: the lowest sequence number, the sum of all, and how many have a
    /// value in a large segment.
    pub(crate) lowest_seqno: u64,
    pub(crate) seqno_sum: u64,
    pub(crate) larges: u32,
    pub(crate) relocations: Vec<Relocation>,
}

/// One put of a [`Move`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relocation {
    pub(crate) hash: u64,
    /// Where it lies in the one segment and in the other.
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// Bytes of the record.
    pub(crate) len: u32,
    /// As [`expires`](super::record::expires).
    pub(crate) expires: u32,
}

impl Move {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; MOVE_LEN];
        set!(out, at::FROM, self.from);
        set!(out, at::TO, self.to);
        set!(out, at::LEN, self.len);
        set!(out, at::PINS, self.pins);
        set!(out, at::PIN_BYTES, self.pin_bytes);
        set!(out, at::LARGES, self.larges);
        set!(out, at::HIGHEST_PIN, self.highest_pin);
        set!(out, at::LOWEST_SEQNO, self.lowest_seqno);
        set!(out, at::SEQNO_SUM, self.seqno_sum);
        for relocation in &self.relocations {
            let mut raw = [0; RELOCATION_LEN];
            set!(raw, 0, relocation.hash);
            set!(raw, 8, relocation.old);
            set!(raw, 12, relocation.new);
            set!(raw, 16, relocation.len);
            set!(raw, 20, relocation.expires);
            out.extend_from_slice(&raw);
        }
        debug_assert_eq!(
            out.len(),
            MOVE_LEN + self.relocations.len() * RELOCATION_LEN
        );
        debug_assert!(out.len() <= LIST_MAX, "no scan would believe it");
        debug_assert!(
            Move::decode(&out).as_ref() == Some(self),
            "it is what will be read"
        );
        out
    }

    /// What `body` says; `None` if that is not a move.
    pub(crate) fn decode(body: &[u8]) -> Option<Move> {
        let (head, rest) = body.split_at_checked(MOVE_LEN)?;
        let relocations = rest.chunks_exact(RELOCATION_LEN);
        if !relocations.remainder().is_empty() {
            return None;
        }
        let relocation = |raw: &[u8]| Relocation {
            hash: field!(raw, 0, u64),
            old: field!(raw, 8, u32),
            new: field!(raw, 12, u32),
            len: field!(raw, 16, u32),
            expires: field!(raw, 20, u32),
        };
        let len = field!(head, at::LEN, u32);
        (u64::from(len) <= SEGMENT_LEN).then(|| Move {
            from: field!(head, at::FROM, u64),
            to: field!(head, at::TO, u64),
            len,
            pins: field!(head, at::PINS, u32),
            pin_bytes: field!(head, at::PIN_BYTES, u32),
            larges: field!(head, at::LARGES, u32),
            highest_pin: field!(head, at::HIGHEST_PIN, u64),
            lowest_seqno: field!(head, at::LOWEST_SEQNO, u64),
            seqno_sum: field!(head, at::SEQNO_SUM, u64),
            relocations: relocations.map(relocation).collect(),
        })
    }
}

/// Segments that are given up together. It also says all that a rebuild from the log has to know of
/// segments, so that no such record is needed but the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retire {
    pub(crate) victims: Vec<u64>,
    /// Front segments that are gone, and that one which stays names as the one before it.
    pub(crate) holes: Vec<u64>,
    /// All class segments that stay: segment, and how many bytes are valid.
    pub(crate) classes: Vec<Address>,
}

impl Retire {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for ids in [&self.victims, &self.holes] {
            let len = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_le_bytes());
            ids.iter()
                .for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        }
        for class in &self.classes {
            out.extend_from_slice(&class.segment.to_le_bytes());
            out.extend_from_slice(&class.offset.to_le_bytes());
        }
        debug_assert_eq!(
            out.len(),
            8 + 8 * (self.victims.len() + self.holes.len()) + CLASS_LEN * self.classes.len(),
            "each once"
        );
        debug_assert!(out.len() <= LIST_MAX, "no scan would believe it");
        debug_assert!(
            Retire::decode(&out).as_ref() == Some(self),
            "it is what will be read"
        );
        out
    }

    /// What `body` says; `None` if that is not a retirement.
    pub(crate) fn decode(body: &[u8]) -> Option<Retire> {
        let (victims, rest) = ids(body)?;
        let (holes, rest) = ids(rest)?;
        let classes = rest.chunks_exact(CLASS_LEN);
        if !classes.remainder().is_empty() {
            return None;
        }
        let class = |raw: &[u8]| Address {
            segment: field!(raw, 0, u64),
            offset: field!(raw, 8, u32),
        };
        let classes: Vec<_> = classes.map(class).collect();
        let are_segments = classes.iter().all(|c| u64::from(c.offset) <= SEGMENT_LEN);
        are_segments.then_some(Retire {
            victims,
            holes,
            classes,
        })
    }
}

/// A list of ids with its length before it, and what follows it.
fn ids(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (_, rest) = bytes.split_at_checked(4)?;
    let len = usize::try_from(field!(bytes, 0, u32)).ok()?;
    let (list, rest) = rest.split_at_checked(len.checked_mul(8)?)?;
    let list = list.chunks_exact(8).map(|id| field!(id, 0, u64));
    debug_assert_eq!(list.len(), len, "as many as it says");
    Some((list.collect(), rest))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::hex;

    fn a_move() -> Move {
        Move {
            from: 1,
            to: 2,
            len: 3,
            pins: 4,
            pin_bytes: 5,
            highest_pin: 6,
            lowest_seqno: 7,
            seqno_sum: 8,
            larges: 9,
            relocations: vec![Relocation {
                hash: 10,
                old: 11,
                new: 12,
                len: 13,
                expires: 14,
            }],
        }
    }

    fn a_retirement() -> Retire {
        Retire {
            victims: vec![1, 2],
            holes: vec![3],
            classes: vec![Address {
                segment: 4,
                offset: 5,
            }],
        }
    }

    #[test]
    fn lists_are_what_was_encoded_and_no_part_of_them_is_taken_for_all() {
        let bytes = a_move().encode();
        assert_eq!(Move::decode(&bytes), Some(a_move()));
        let parts = (0..bytes.len()).filter(|end| Move::decode(&bytes[..*end]).is_some());
        assert_eq!(parts.collect::<Vec<_>>(), [MOVE_LEN], "one without any");
        let bytes = a_retirement().encode();
        assert_eq!(Retire::decode(&bytes), Some(a_retirement()));
        let parts = (0..bytes.len()).filter(|end| Retire::decode(&bytes[..*end]).is_some());
        assert_eq!(parts.collect::<Vec<_>>(), [bytes.len() - 12]);
    }

    #[test]
    fn a_class_segment_is_no_longer_than_a_segment() {
        let longest = u32::try_from(SEGMENT_LEN).unwrap_or(0);
        let (mut moved, mut retirement) = (a_move().encode(), a_retirement().encode());
        let at = retirement.len() - 4;
        set!(moved, 16, longest);
        set!(retirement, at, longest);
        assert!(Move::decode(&moved).is_some() && Retire::decode(&retirement).is_some());
        set!(moved, 16, longest + 1);
        set!(retirement, at, longest + 1);
        assert!(Move::decode(&moved).is_none() && Retire::decode(&retirement).is_none());
    }

    /// These bytes are on disks: an encoder that writes others needs a new format version.
    #[test]
    fn lists_have_these_bytes() {
        let expected = [
            "01000000000000000200000000000000",
            "03000000040000000500000009000000",
            "06000000000000000700000000000000",
            "08000000000000000a00000000000000",
            "0b0000000c0000000d0000000e000000",
        ];
        assert_eq!(hex(&a_move().encode()), expected);
        let expected = [
            "02000000010000000000000002000000",
            "00000000010000000300000000000000",
            "040000000000000005000000",
        ];
        assert_eq!(hex(&a_retirement().encode()), expected);
    }
}
