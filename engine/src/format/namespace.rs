//! The body of a record that tells the state of a namespace.

use super::record::KEY_MAX;
use super::{field, set};

const DROPPED: u8 = 1;
const DELETIONS: u8 = 2;
const ID_LEN: usize = 16;
const DELETION_LEN: usize = 10;

const _: () = {
    assert!(DROPPED & DELETIONS == 0, "flags are told apart");
    assert!(DELETION_LEN == size_of::<u64>() + size_of::<u16>());
    assert!(KEY_MAX <= u16::MAX as usize, "a length takes two");
};

/// The state of a namespace, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceBody {
    pub(crate) dropped: bool,
    pub(crate) id: [u8; ID_LEN],
    /// Deletions that are not carried out yet.
    pub(crate) deletions: Vec<Deletion>,
    pub(crate) name: Vec<u8>,
}

/// Everything that begins with a prefix was deleted, if it is older than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// In a record that tells of the deletion first it is 0, which means the record's own.
    pub(crate) seqno: u64,
    pub(crate) prefix: Vec<u8>,
}

impl Deletion {
    /// Whether it took away a record of this key and sequence number.
    pub(crate) fn hides(&self, key: &[u8], seqno: u64) -> bool {
        seqno < self.seqno && key.starts_with(&self.prefix)
    }
}

impl NamespaceBody {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut flags = if self.dropped { DROPPED } else { 0 };
        if !self.deletions.is_empty() {
            flags |= DELETIONS;
        }
        let mut out = vec![flags];
        out.extend_from_slice(&self.id);
        if !self.deletions.is_empty() {
            let count = u16::try_from(self.deletions.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&count.to_le_bytes());
        }
        debug_assert!(u16::try_from(self.deletions.len()).is_ok());
        for deletion in &self.deletions {
            debug_assert!(u16::try_from(deletion.prefix.len()).is_ok());
            let mut raw = [0; DELETION_LEN];
            set!(raw, 0, deletion.seqno);
            set!(
                raw,
                8,
                u16::try_from(deletion.prefix.len()).unwrap_or(u16::MAX)
            );
            out.extend_from_slice(&raw);
            out.extend_from_slice(&deletion.prefix);
        }
        out.extend_from_slice(&self.name);
        debug_assert!(
            NamespaceBody::decode(&out, 0).as_ref() == Some(self),
            "it is what will be read"
        );
        out
    }

    /// What a record of this sequence number says; `None` if that is not the state of a namespace.
    pub(crate) fn decode(body: &[u8], seqno: u64) -> Option<NamespaceBody> {
        let (flags, rest) = body.split_first()?;
        let (id, mut rest) = rest.split_first_chunk::<ID_LEN>()?;
        let mut deletions = Vec::new();
        if flags & DELETIONS != 0 {
            let (count, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            for _ in 0..u16::from_le_bytes(*count) {
                let (raw, after) = rest.split_at_checked(DELETION_LEN)?;
                let (prefix, after) = after.split_at_checked(field!(raw, 8, u16).into())?;
                rest = after;
                let first = field!(raw, 0, u64);
                deletions.push(Deletion {
                    seqno: if first == 0 { seqno } else { first },
                    prefix: prefix.to_vec(),
                });
            }
        }
        Some(NamespaceBody {
            dropped: flags & DROPPED != 0,
            id: *id,
            deletions,
            name: rest.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hex;
    use proptest::prelude::*;

    fn sample() -> NamespaceBody {
        let deletion = |seqno, prefix: &[u8]| Deletion {
            seqno,
            prefix: prefix.to_vec(),
        };
        NamespaceBody {
            dropped: true,
            id: *b"0123456789abcdef",
            deletions: vec![deletion(0, b"user:"), deletion(7, b"")],
            name: b"name".to_vec(),
        }
    }

    #[test]
    fn each_flag_is_for_itself() {
        let deleted = sample().deletions;
        for (dropped, deletions) in [
            (false, vec![]),
            (true, vec![]),
            (false, deleted.clone()),
            (true, deleted),
        ] {
            let body = NamespaceBody {
                dropped,
                deletions,
                ..sample()
            };
            assert_eq!(NamespaceBody::decode(&body.encode(), 0), Some(body));
        }
    }

    /// These bytes are on disks: an encoder that writes others needs a new format version.
    #[test]
    fn a_body_has_these_bytes() {
        let expected = [
            "0330313233343536373839616263646566",
            "0200000000000000000005007573",
            "65723a0700000000000000",
            "00006e616d65",
        ];
        assert_eq!(hex(&sample().encode()).concat(), expected.concat());
    }

    #[test]
    fn a_deletion_that_is_new_has_the_sequence_number_of_its_record() {
        let mut expected = sample();
        let decoded = NamespaceBody::decode(&expected.encode(), 9);
        if let Some(first) = expected.deletions.first_mut() {
            first.seqno = 9;
        }
        assert_eq!(decoded, Some(expected));
    }

    #[test]
    fn a_deletion_hides_what_is_older_and_begins_so() {
        let deletion = Deletion {
            seqno: 5,
            prefix: b"a".to_vec(),
        };
        assert!(deletion.hides(b"a", 4) && deletion.hides(b"ab", 1));
        assert!(!deletion.hides(b"a", 5) && !deletion.hides(b"b", 4));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = NamespaceBody::decode(&bytes, 1);
        }
    }
}
