//! The index of version 2: blocks that lead to blocks.

use super::block::{Malformed, Records};
use super::file::{File, Leaf};
use super::{
    BLOCK_LEN_MIN, CRC_LEN, Damage, HEADER_LEN, LENGTHS_LEN, field_place, field_u32, field_u64,
};
use crate::verified::Verified;

/// Bytes of a block of the index that are asked for at once.
const NODE_LEN: usize = 512;
const _: () = assert!(NODE_LEN > BLOCK_LEN_MIN);

pub(super) struct Tree {
    /// Where blocks of keys end and the index begins.
    start: usize,
    /// Where the index ends.
    end: usize,
    /// The block that leads to all others; 0 in an empty run.
    root: usize,
    /// A bit for each 64 bytes, in which at most one block begins.
    verified: Verified,
}

impl Tree {
    pub(super) fn open(end: usize, footer: &[u8]) -> Result<Tree, Damage> {
        let (start, root) = (field_place(footer, 0), field_place(footer, 8));
        let is_empty = root == 0 && start == HEADER_LEN && end == HEADER_LEN;
        let is_in_place = root >= HEADER_LEN && root < end && start > HEADER_LEN && start <= end;
        if !is_empty && !is_in_place || (field_u64(footer, 16) == 0) != is_empty {
            return Err(Damage::at(end, "index outside of its run"));
        }
        Ok(Tree {
            start,
            end,
            root,
            verified: Verified::none((end - start).div_ceil(BLOCK_LEN_MIN)),
        })
    }

    /// The length of the index.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.start <= self.end, "checked when it was opened");
        self.end - self.start
    }

    /// Verifies the index.
    pub(super) fn verify(&self, file: File<'_>) -> Result<(), Damage> {
        let mut at = self.start;
        while at < self.end {
            let end = self.end_of(file, at)?;
            file.verified(at, end)?;
            debug_assert!(end > at);
            debug_assert!(end <= self.end, "block by block");
            at = end;
        }
        debug_assert_eq!(at, self.end, "the index ends with a block");
        Ok(())
    }

    /// Where the block of keys begins that holds a sort key if any does, the last one without a sort key.
    pub(super) fn find(
        &self,
        file: File<'_>,
        sort_key: Option<&[u8]>,
    ) -> Result<Option<usize>, Damage> {
        if self.root == 0 {
            return Ok(None);
        }
        debug_assert!(self.root < self.end, "the index has a root");
        let mut at = self.root;
        while at >= self.start {
            // Most are shorter, and all of it is read.
            file.prefetch(at, NODE_LEN);
            let payload = self.node(file, at)?;
            let child = last_child(payload, sort_key);
            let child = child.map_err(|_| Damage::at(at, "record in a run index"))?;
            // Children are written first, so that every search ends.
            let child = usize::try_from(child).unwrap_or(usize::MAX);
            if child >= at {
                return Err(Damage::at(at, "order of a run index"));
            }
            at = child;
        }
        Ok(Some(at))
    }

    pub(super) fn after<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        debug_assert!(leaf.end <= self.start, "keys lie before their index");
        if leaf.end == self.start {
            return Ok(None);
        }
        self.leaf_at(file, leaf.end).map(Some)
    }

    pub(super) fn before<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        debug_assert!(leaf.start >= HEADER_LEN, "and behind the header");
        if leaf.start == HEADER_LEN {
            return Ok(None);
        }
        let len = field_u32(file.bytes, leaf.start + 4) as usize;
        let start = leaf.start.checked_sub(len);
        let before = start.map_or(Err(out_of_place(leaf.start)), |at| self.leaf_at(file, at))?;
        if before.end != leaf.start {
            return Err(out_of_place(leaf.start));
        }
        Ok(Some(before))
    }

    pub(super) fn leaf_at<'a>(&self, file: File<'a>, start: usize) -> Result<Leaf<'a>, Damage> {
        let end = self.end_of(file, start)?;
        if start < HEADER_LEN || end > self.start {
            return Err(out_of_place(start));
        }
        debug_assert!(end - start >= LENGTHS_LEN + CRC_LEN);
        let content = file.verified(start, end)?;
        let payload = content.get(LENGTHS_LEN..).unwrap_or_default();
        Ok(Leaf {
            start,
            end,
            payload,
        })
    }

    /// What a block of the index says, verified when it is first read.
    fn node<'a>(&self, file: File<'a>, start: usize) -> Result<&'a [u8], Damage> {
        let end = self.end_of(file, start)?;
        debug_assert!(start >= self.start, "leaves are no nodes");
        let piece = (start - self.start) / BLOCK_LEN_MIN;
        debug_assert!(end <= self.end);
        debug_assert!(end - start >= BLOCK_LEN_MIN, "a bit of its own");
        if !self.verified.has(piece) {
            file.verified(start, end)?;
            self.verified.add(piece);
        }
        let payload = file.bytes.get(start + LENGTHS_LEN..end - CRC_LEN);
        payload.ok_or(out_of_place(start))
    }

    /// Where a block ends, as its own beginning says.
    fn end_of(&self, file: File<'_>, start: usize) -> Result<usize, Damage> {
        let len = field_u32(file.bytes, start) as usize;
        let end = start.checked_add(len).filter(|end| *end <= self.end);
        end.filter(|_| len >= BLOCK_LEN_MIN)
            .ok_or(Damage::at(start, "length of a run block"))
    }
}

fn out_of_place(start: usize) -> Damage {
    Damage::at(start, "place of a run block")
}

/// The last child whose separator is not after a sort key, or the last of all.
fn last_child(payload: &[u8], sort_key: Option<&[u8]>) -> Result<u64, Malformed> {
    let mut records = Records::new(payload).ok_or(Malformed)?;
    let child = match sort_key {
        Some(key) => match records.seek(key, false)?.before {
            Some(mut records) => records.next()?,
            None => None,
        },
        None => {
            let mut child = None;
            while let Some(record) = records.next()? {
                child = Some(record);
            }
            child
        }
    };
    child.map(|child| child.seqno).ok_or(Malformed)
}
