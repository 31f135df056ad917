//! The index of version 1: of each block the beginning of its first key, and where it lies.
//!
//! It is read and not written any more; a merge makes a run of today's version.

use std::sync::OnceLock;

use super::block::Records;
use super::file::{File, Leaf};
use super::{Damage, HEADER_LEN, NAMESPACE_LEN, field_place, field_u32, field_u64, rank};

const ENTRY_LEN: usize = 16;
const _: () = assert!(ENTRY_LEN == 2 * size_of::<u64>(), "a prefix and a place");
const OUT_OF_ORDER: &str = "order of a run index";
type Entry = [u8; ENTRY_LEN];

pub(super) struct Flat {
    offset: usize,
    blocks: usize,
    crc: u32,
    /// Whether the index is what it should be.
    verified: OnceLock<Result<(), Damage>>,
}

/// The first 8 bytes of the first sort key, as a number of the same order.
fn prefix_in(entry: &Entry) -> u64 {
    field_u64(entry, 0)
}

fn offset_in(entry: &Entry) -> usize {
    field_place(entry, 8)
}

impl Flat {
    pub(super) fn open(bytes: &[u8], footer_at: usize, footer: &[u8]) -> Result<Flat, Damage> {
        let offset = field_place(footer, 0);
        let index = bytes
            .get(offset..footer_at)
            .filter(|_| offset >= HEADER_LEN)
            .ok_or(Damage::at(footer_at, "index outside of its run"))?;
        let (entries, rest) = index.as_chunks::<ENTRY_LEN>();
        if !rest.is_empty() || entries.len() as u64 != field_u64(footer, 8) {
            return Err(Damage::at(offset, "length of a run index"));
        }
        if entries.is_empty() && offset != HEADER_LEN {
            return Err(Damage::at(HEADER_LEN, "blocks without an index"));
        }
        debug_assert!(
            offset + entries.len() * ENTRY_LEN == footer_at,
            "the footer follows it"
        );
        Ok(Flat {
            offset,
            blocks: entries.len(),
            crc: field_u32(footer, 48),
            verified: OnceLock::new(),
        })
    }

    /// The length of the index.
    pub(super) fn len(&self) -> usize {
        self.blocks * ENTRY_LEN
    }

    /// The index, verified.
    pub(super) fn entries<'a>(&self, file: File<'a>) -> Result<&'a [Entry], Damage> {
        let index = file.bytes.get(self.offset..).unwrap_or_default();
        let (entries, _) = index.as_chunks::<ENTRY_LEN>();
        debug_assert!(self.blocks <= entries.len(), "checked when it was opened");
        let entries = entries.get(..self.blocks).unwrap_or_default();
        let verified = self.verified.get_or_init(|| self.verify(entries));
        (*verified).map(|()| entries)
    }

    /// Blocks lie without gaps between header and index, in order.
    fn verify(&self, index: &[Entry]) -> Result<(), Damage> {
        let damage = |at: usize, reason| Damage::at(self.offset + at * ENTRY_LEN, reason);
        if crc32fast::hash(index.as_flattened()) != self.crc {
            return Err(damage(0, "checksum of a run index"));
        }
        let mut before: Option<(u64, usize)> = None;
        for (i, entry) in index.iter().enumerate() {
            let (prefix, offset) = (prefix_in(entry), offset_in(entry));
            let in_place = match before {
                None => offset == HEADER_LEN,
                Some((low, start)) => offset > start && prefix >= low,
            };
            if !in_place || offset >= self.offset {
                return Err(damage(i, OUT_OF_ORDER));
            }
            before = Some((prefix, offset));
        }
        Ok(())
    }

    /// Where the block of keys begins that holds a sort key if any does.
    pub(super) fn find(&self, file: File<'_>, sort_key: &[u8]) -> Result<Option<usize>, Damage> {
        let index = self.entries(file)?;
        let prefix = rank(sort_key);
        let mut low = index.partition_point(|e| prefix_in(e) < prefix);
        let mut high = index.partition_point(|e| prefix_in(e) <= prefix);
        // Among blocks with one prefix only their first keys decide.
        while low < high {
            let middle = low.midpoint(high);
            let leaf = self.at(file, middle)?;
            let leaf = leaf.ok_or(Damage::at(self.offset, OUT_OF_ORDER))?;
            let first = first_key(leaf.payload);
            let first = first.ok_or(Damage::at(leaf.start, "first key of a run block"))?;
            if first <= sort_key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(index.get(low.saturating_sub(1)).map(offset_in))
    }

    pub(super) fn leaf_at<'a>(&self, file: File<'a>, start: usize) -> Result<Leaf<'a>, Damage> {
        let index = self.entries(file)?;
        let number = index.partition_point(|entry| offset_in(entry) < start);
        let leaf = self.at(file, number)?.filter(|leaf| leaf.start == start);
        leaf.ok_or(Damage::at(start, OUT_OF_ORDER))
    }

    pub(super) fn last<'a>(&self, file: File<'a>) -> Result<Option<Leaf<'a>>, Damage> {
        self.at(file, self.blocks.saturating_sub(1))
    }

    pub(super) fn after<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        let after = self.at(file, self.number(file, leaf)? + 1)?;
        let start = after.as_ref().map_or(self.offset, |after| after.start);
        adjoins(leaf.end, start).map(|()| after)
    }

    pub(super) fn before<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        let before = match self.number(file, leaf)?.checked_sub(1) {
            Some(number) => self.at(file, number)?,
            None => None,
        };
        let end = before.as_ref().map_or(HEADER_LEN, |before| before.end);
        adjoins(end, leaf.start).map(|()| before)
    }

    fn number(&self, file: File<'_>, leaf: &Leaf<'_>) -> Result<usize, Damage> {
        let entries = self.entries(file)?;
        Ok(entries.partition_point(|entry| offset_in(entry) < leaf.start))
    }

    /// A block by its number; `None` behind the last.
    fn at<'a>(&self, file: File<'a>, number: usize) -> Result<Option<Leaf<'a>>, Damage> {
        let index = self.entries(file)?;
        let Some(start) = index.get(number).map(offset_in) else {
            return Ok(None);
        };
        let end = index.get(number + 1).map_or(self.offset, offset_in);
        if start < HEADER_LEN || start >= end || end > self.offset {
            return Err(Damage::at(self.offset + number * ENTRY_LEN, OUT_OF_ORDER));
        }
        let payload = file.verified(start, end)?;
        Ok(Some(Leaf {
            start,
            end,
            payload,
        }))
    }
}

/// Blocks lie without gaps. The index said so when it was verified, and may have been damaged since.
fn adjoins(end: usize, start: usize) -> Result<(), Damage> {
    let is_so = end == start;
    is_so
        .then_some(())
        .ok_or(Damage::at(end.min(start), OUT_OF_ORDER))
}

/// The first sort key of a block's payload, which is stored whole.
fn first_key(payload: &[u8]) -> Option<&[u8]> {
    let first = Records::new(payload)?.next().ok()??;
    let is_whole = first.shared == 0 && first.suffix.len() >= NAMESPACE_LEN;
    is_whole.then_some(first.suffix)
}
