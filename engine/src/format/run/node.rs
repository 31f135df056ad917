//! A block of the index as searches know it.
//!
//! In the file its separators are front-coded, and a search passes them one by one, which is a branch for each
//! that is guessed wrong now and then. Here, once it was read, each is a number: the eight bytes behind what all of them
//! begin with. They lie together and are compared without a branch. Where they do not decide, the block in the
//! file is searched.

use std::cmp::Ordering;
use std::sync::OnceLock;

use super::block::{BLOCK_RECORDS, Malformed, Records, common_len};
use super::file::LINE;
use super::{KEY_LEN_MAX, NAMESPACE_LEN, rank};
use crate::mem::prefetch;

/// Bytes that separators are compared by before their numbers.
const COMMON_MAX: usize = 48;
const CHILDREN: usize = BLOCK_RECORDS as usize;
const _: () = assert!(CHILDREN == 32, "five halvings find one of them");
const _: () = assert!(size_of::<Node>() <= 9 * LINE, "576 bytes");

/// A node that is made when it is first needed.
pub(super) type Slot = OnceLock<Box<Node>>;

/// Its lines are asked for together.
#[repr(C, align(64))]
pub(super) struct Node {
    common: [u8; COMMON_MAX],
    common_len: u8,
    len: u8,
    /// One for each child, if those are nodes.
    below: Option<Box<[Slot; CHILDREN]>>,
    /// Of the separators but the first, which is not after what is sought here; behind them the highest number.
    ranks: [u64; CHILDREN],
    /// Where each child begins; a place that no file has, where there is no number for it.
    children: [usize; CHILDREN],
}

impl Node {
    /// Reads a block of the index, whose children are nodes unless they begin before `nodes`.
    pub(super) fn read(payload: &[u8], nodes: usize) -> Result<Node, Malformed> {
        let records = separators(payload)?;
        let (_, others) = records.split_first().ok_or(Malformed)?;
        let common = match others {
            [] => &[],
            [(only, _)] => only.as_slice(),
            [(first, _), .., (last, _)] => first.get(..common_len(first, last)).unwrap_or_default(),
        };
        let common = common.get(..COMMON_MAX).unwrap_or(common);
        let mut node = Node {
            common: [0; COMMON_MAX],
            common_len: u8::try_from(common.len()).map_err(|_| Malformed)?,
            len: u8::try_from(records.len()).map_err(|_| Malformed)?,
            below: None,
            ranks: [u64::MAX; CHILDREN],
            children: [usize::MAX; CHILDREN],
        };
        let bytes = node.common.iter_mut().zip(common);
        bytes.for_each(|(to, from)| *to = *from);
        for (to, (separator, _)) in node.ranks.iter_mut().zip(others) {
            *to = rank(separator.get(common.len()..).unwrap_or_default());
        }
        for (to, (_, child)) in node.children.iter_mut().zip(&records) {
            *to = usize::try_from(*child).unwrap_or(usize::MAX);
        }
        if records.iter().any(|(_, child)| *child >= nodes as u64) {
            node.below = Some(Box::new([const { Slot::new() }; CHILDREN]));
        }
        debug_assert!(records.len() <= CHILDREN && common.len() <= COMMON_MAX);
        Ok(node)
    }

    /// Starts to bring all of it into the cache.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&self.common);
        self.ranks
            .chunks(LINE / size_of::<u64>())
            .for_each(prefetch);
        self.children
            .chunks(LINE / size_of::<usize>())
            .for_each(prefetch);
    }

    /// The last child whose separator is not after a sort key, `None` if the numbers do not tell. So many bytes of the
    /// sort key are `known` to be those of all separators.
    #[inline]
    pub(super) fn find(&self, sort_key: &[u8], known: usize) -> Option<usize> {
        let common = self.common.get(..self.common_len())?;
        // Few bytes or none, for which a call takes longer than a loop.
        for (at, byte) in common.iter().enumerate().skip(known) {
            match sort_key.get(at).cmp(&Some(byte)) {
                Ordering::Less => return Some(0),
                Ordering::Greater => return Some(self.last()),
                Ordering::Equal => {}
            }
        }
        let wanted = rank(sort_key.get(self.common_len()..)?);
        let is_passed = |at: usize| {
            self.ranks
                .get(at % CHILDREN)
                .is_some_and(|rank| *rank <= wanted)
        };
        // By halves, with as many steps always and no branch.
        let mut passed = 0;
        for half in [16, 8, 4, 2, 1] {
            passed += half * usize::from(is_passed(passed + half - 1));
        }
        let is_sure = passed == 0 || self.ranks.get(passed - 1) != Some(&wanted);
        is_sure.then_some(passed)
    }

    /// How many bytes a sort key that is sought in this child and all separators there are known to begin with, if so
    /// many are where this was found: what lies between two separators begins with what they have in common.
    #[inline]
    pub(super) fn known_below(&self, number: usize, known: usize) -> usize {
        let is_between = number > 0 && number < self.last();
        if is_between { self.common_len() } else { known }
    }

    #[inline]
    fn common_len(&self) -> usize {
        usize::from(self.common_len)
    }

    #[inline]
    pub(super) fn last(&self) -> usize {
        usize::from(self.len) - 1
    }

    /// Where a child begins, and a guess of how long it is.
    #[inline]
    pub(super) fn child(&self, number: usize) -> Option<(usize, usize)> {
        let start = *self.children.get(number)?;
        let next = self
            .children
            .get(number + 1)
            .filter(|_| number < self.last());
        Some((start, next.map_or(0, |next| next.saturating_sub(start))))
    }

    /// Where the node of a child is kept.
    #[inline]
    pub(super) fn slot(&self, number: usize) -> Option<&Slot> {
        self.below.as_ref()?.get(number)
    }
}

/// The separators of a block, and where the block of each begins.
fn separators(payload: &[u8]) -> Result<Vec<(Vec<u8>, u64)>, Malformed> {
    let mut records = Records::new(payload).ok_or(Malformed)?;
    let (mut all, mut separator) = (Vec::with_capacity(CHILDREN), Vec::new());
    while let Some(record) = records.next()? {
        // It is copied whole, 32 times at most.
        let len = record.shared.saturating_add(record.suffix.len());
        if record.shared > separator.len() || len > NAMESPACE_LEN + KEY_LEN_MAX {
            return Err(Malformed);
        }
        separator.truncate(record.shared);
        separator.extend_from_slice(record.suffix);
        all.push((separator.clone(), record.seqno));
    }
    debug_assert!(all.len() <= CHILDREN, "more are no block");
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::KeyRecord;
    use super::super::block::BlockBuilder;
    use super::*;

    /// The payload of a block with these separators, whose children begin at multiples of a hundred.
    fn payload(separators: &[Vec<u8>]) -> Vec<u8> {
        let (mut block, mut payload) = (BlockBuilder::default(), Vec::new());
        for (separator, number) in separators.iter().zip(0..) {
            let child = KeyRecord {
                namespace: 0,
                key: &[],
                metadata: &[],
                expiration: 0,
                seqno: 100 * number,
                tombstone: false,
            };
            block.push(separator, &child);
        }
        block.finish(&mut payload);
        payload
    }

    fn node(separators: &[Vec<u8>]) -> Node {
        let node = Node::read(&payload(separators), usize::MAX);
        node.map_err(|_| "malformed").unwrap()
    }

    fn separators() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(0), Just(1), Just(b'a'), Just(255)];
        let rest = prop::collection::vec(byte, 0..12);
        let common = prop_oneof![Just(0usize), 0..20usize, 40..60usize];
        let rests = prop::collection::btree_set(rest, 1..CHILDREN + 1);
        (common, rests, any::<bool>()).prop_map(|(common, rests, begins_empty)| {
            let mut all: BTreeSet<_> = rests
                .iter()
                .map(|rest| [&vec![7; common], &rest[..]].concat())
                .collect();
            if begins_empty && all.len() < CHILDREN {
                all.insert(Vec::new());
            }
            all.into_iter().collect()
        })
    }

    proptest! {
        #[test]
        fn what_numbers_tell_is_right(separators in separators(), keys in separators()) {
            let node = node(&separators);
            for key in keys.iter().chain(&separators) {
                let passed = separators.iter().skip(1).filter(|separator| *separator <= key).count();
                prop_assert!(node.find(key, 0).is_none_or(|found| found == passed), "{key:?}");
                let (start, len) = node.child(passed).unwrap();
                prop_assert_eq!(start, 100 * passed);
                prop_assert_eq!(len, if passed < node.last() { 100 } else { 0 });
            }
        }
    }

    #[test]
    fn numbers_tell_keys_apart_that_begin_alike() {
        let key = |n: u32| format!("user/name/of/some/length/{n:05}/behind").into_bytes();
        let mut separators: Vec<_> = (0..32).map(|n| key(10 * n)).collect();
        separators
            .iter_mut()
            .for_each(|separator| separator.truncate(29));
        let node = node(&separators);
        for n in 0..400 {
            assert_eq!(
                node.find(&key(n), 0),
                Some(usize::try_from(n / 10).unwrap().min(31))
            );
        }
        assert_eq!(node.find(b"user/name/of", 0), Some(0));
        assert_eq!(node.find(b"user/x", 0), Some(31));
        assert_eq!(node.find(b"", 0), Some(0));
    }
}
