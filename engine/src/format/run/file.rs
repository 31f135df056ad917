//! An open run.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::ahead::Ahead;
use super::block::{BLOCK_RECORDS, Block, Malformed, Records};
use super::flat::Flat;
use super::tree::{Place, Tree};
use super::{
    BLOCK_LEN_MIN, CRC_LEN, Damage, FOOTER_LEN, FOOTER_MAGIC, HEADER_LEN, MAGIC, Summary, VERSION,
    at, block_crc, field_u16, field_u32, field_u64, footer_crc,
};
use crate::mem::prefetch;
use crate::verified::Verified;

/// The bytes of a run: a mapped file, or a buffer.
pub(crate) trait RunBytes: AsRef<[u8]> + Send + Sync {
    /// Starts to read a range from the disk, as far as it is not in memory.
    fn will_need(&self, _start: usize, _len: usize) {}
}

impl RunBytes for Vec<u8> {}

/// An index of up to so many bytes is verified when its run is opened, a longer one where it is first
/// needed: opening takes no longer for more keys.
const EAGER_MAX: usize = 1 << 20;

/// An open run. Header and footer are verified, a part of the index before it is first used, and a block of
/// keys each time it is, or the first time.
pub(crate) struct Run {
    bytes: Arc<dyn RunBytes>,
    store_id: [u8; 16],
    run_id: u64,
    index: Index,
    summary: Summary,
    ahead: Ahead,
    /// The blocks of keys that were verified, if once is enough: a bit for each 64 bytes, in which at most one begins.
    seen: OnceLock<Verified>,
}

/// How blocks of keys are found, by version.
enum Index {
    Flat(Flat),
    Tree(Tree),
}

/// A run as what reads its blocks sees it.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) run_id: u64,
    seen: Option<&'a Verified>,
}

/// A block of keys, verified.
#[derive(Clone, Copy, Default)]
pub(super) struct Leaf<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) payload: &'a [u8],
}

impl Leaf<'_> {
    /// Whether it has records before (or with `after_equal`, not after) a sort key, and others.
    pub(super) fn sides(
        &self,
        sort_key: &[u8],
        after_equal: bool,
    ) -> Result<(bool, bool), Malformed> {
        let mut records = Records::new(self.payload).ok_or(Malformed)?;
        let found = records.seek(sort_key, !after_equal)?;
        let (before, behind) = (found.before.is_some(), found.record.is_some());
        debug_assert!(before || behind, "no block is without records");
        Ok((before, behind))
    }
}

pub(super) const LINE: usize = 64;
/// A block of keys is brought to the cache at once, up to so many bytes.
pub(super) const FETCHED_MAX: usize = 4 << 10;
const _: () = {
    assert!(FETCHED_MAX.is_multiple_of(LINE), "whole lines are fetched");
    assert!(EAGER_MAX > FETCHED_MAX, "a few blocks");
};

impl<'a> File<'a> {
    /// Starts to bring some bytes into the cache, if there are as many.
    #[inline]
    pub(super) fn prefetch(&self, start: usize, len: usize) {
        let bytes = self.bytes.get(start..).unwrap_or_default();
        bytes
            .chunks(LINE)
            .take(len.div_ceil(LINE))
            .for_each(prefetch);
    }

    /// The content of a block of keys, which may have been verified before.
    pub(super) fn leaf(&self, start: usize, end: usize) -> Result<&'a [u8], Damage> {
        let piece = start / BLOCK_LEN_MIN;
        if self.seen.is_some_and(|seen| seen.has(piece)) {
            let content = self.bytes.get(start..end - CRC_LEN);
            return Ok(content.unwrap_or_default());
        }
        let content = self.verified(start, end)?;
        if let Some(seen) = self.seen {
            seen.add(piece);
        }
        Ok(content)
    }

    /// What the checksum behind it says is right.
    pub(super) fn verified(&self, start: usize, end: usize) -> Result<&'a [u8], Damage> {
        debug_assert!(start < end, "a block has a length");
        let block = self.bytes.get(start..end).unwrap_or_default();
        let parts = block.split_last_chunk::<CRC_LEN>();
        let (content, crc) = parts.ok_or(Damage::at(start, "length of a run block"))?;
        if u32::from_le_bytes(*crc) != block_crc(self.run_id, start as u64, content) {
            return Err(Damage::at(start, "checksum of a run block"));
        }
        Ok(content)
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("id", &self.run_id)
            .field("summary", &self.summary)
            .finish()
    }
}

impl Run {
    /// The version of a run that a newer program wrote.
    pub(crate) fn newer_version(bytes: &[u8]) -> Option<u16> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let is_intact = header.starts_with(&MAGIC)
            && field_u32(header, at::HEADER_CRC)
                == crc32fast::hash(header.get(..at::HEADER_CRC).unwrap_or_default());
        Some(field_u16(header, at::VERSION)).filter(|version| is_intact && *version > VERSION)
    }

    pub(crate) fn open(shared: Arc<dyn RunBytes>) -> Result<Run, Damage> {
        let bytes: &[u8] = (*shared).as_ref();
        let header = verified_header(bytes)?;
        let version = field_u16(header, at::VERSION);
        let store_id = header
            .get(at::STORE..at::ID)
            .and_then(|id| id.try_into().ok())
            .unwrap_or_default();
        let run_id = field_u64(header, at::ID);
        let (footer_at, footer) = verified_footer(bytes, header)?;
        let summary = Summary {
            records: field_u64(footer, 16),
            tombstones: field_u64(footer, 24),
            seqno_min: field_u64(footer, 32),
            seqno_max: field_u64(footer, 40),
            bytes: bytes.len() as u64,
        };
        let index = match version {
            1 => Index::Flat(Flat::open(bytes, footer_at, footer)?),
            2 => Index::Tree(Tree::open(footer_at, footer)?),
            _ => return Err(Damage::at(at::VERSION, "unknown version of the run format")),
        };
        debug_assert!(footer_at >= HEADER_LEN);
        debug_assert!(footer.len() == FOOTER_LEN);
        if summary.records > summary.bytes {
            return Err(Damage::at(footer_at, "number of records of a run"));
        }
        let run = Run {
            bytes: Arc::clone(&shared),
            store_id,
            run_id,
            index,
            summary,
            ahead: Ahead::of(bytes.len()),
            seen: OnceLock::new(),
        };
        match &run.index {
            Index::Flat(flat) if flat.len() <= EAGER_MAX => {
                shared.will_need(footer_at.saturating_sub(flat.len()), flat.len());
                debug_assert!(flat.len() <= footer_at, "it lies before the footer");
                flat.entries(run.file())?;
            }
            Index::Tree(tree) if tree.len() <= EAGER_MAX => {
                shared.will_need(footer_at.saturating_sub(tree.len()), tree.len());
                debug_assert!(tree.len() <= footer_at, "it lies before the footer");
                tree.verify(run.file())?;
            }
            _ => {}
        }
        Ok(run)
    }

    /// From now on a block of keys is verified when it is first read.
    pub(crate) fn verify_once(&self) {
        let blocks = (*self.bytes).as_ref().len().div_ceil(BLOCK_LEN_MIN);
        self.seen.get_or_init(|| Verified::none(blocks));
    }

    /// The same run for who copies it: each block is verified whenever it is read.
    pub(crate) fn verified_always(&self) -> Result<Run, Damage> {
        Run::open(Arc::clone(&self.bytes))
    }

    pub(crate) fn id(&self) -> u64 {
        self.run_id
    }

    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    pub(crate) fn summary(&self) -> Summary {
        self.summary
    }

    /// Reads all of it, block by block, and says how many bytes that were each time.
    pub(crate) fn check(&self, mut read: impl FnMut(u64)) -> Result<(), Damage> {
        if let Index::Tree(tree) = &self.index {
            tree.verify(self.file())?;
        }
        let (mut block, mut last) = (Block::default(), None);
        let mut next = self.first()?;
        let mut left = self.summary.bytes;
        while let Some(leaf) = next {
            self.decode(&leaf, &mut block)?;
            if last.as_ref().is_some_and(|last| block.starts_before(last)) {
                return Err(astray(&leaf));
            }
            last = block.last();
            debug_assert!(leaf.start < leaf.end, "it comes to an end");
            let len = (leaf.end - leaf.start) as u64;
            read(len);
            debug_assert!(len <= left, "no block is read twice");
            left = left.saturating_sub(len);
            next = self.after(&leaf)?;
        }
        debug_assert!(
            left >= (HEADER_LEN + FOOTER_LEN) as u64,
            "blocks lie between header and footer"
        );
        read(left);
        Ok(())
    }

    pub(super) fn decode<'a>(&self, leaf: &Leaf<'a>, block: &mut Block<'a>) -> Result<(), Damage> {
        let decoded = block.decode(leaf.payload);
        decoded.map_err(|_| Damage::at(leaf.start, "record in a run block"))
    }

    /// Where the block begins in which a search for a sort key goes on: if any record is after it, then one of this
    /// block or the first of the next. `None` in an empty run.
    pub(crate) fn find(&self, sort_key: &[u8]) -> Result<Option<usize>, Damage> {
        let mut search = self.search(sort_key)?;
        while search.step(sort_key)? {}
        Ok(search.found())
    }

    /// The beginning of such a search.
    pub(crate) fn search(&self, sort_key: &[u8]) -> Result<Search<'_>, Damage> {
        let place = match &self.index {
            Index::Flat(flat) => flat.find(self.file(), sort_key)?.map(Place::leaf),
            Index::Tree(tree) => tree.top(),
        };
        Ok(Search { run: self, place })
    }

    /// The block that begins there.
    pub(super) fn leaf_at(&self, start: usize) -> Result<Leaf<'_>, Damage> {
        let leaf = match &self.index {
            Index::Flat(flat) => flat.leaf_at(self.file(), start),
            Index::Tree(tree) => tree.leaf_at(self.file(), start),
        }?;
        debug_assert_eq!(leaf.start, start, "that block and no other");
        Ok(leaf)
    }

    pub(super) fn leaf(&self, sort_key: &[u8]) -> Result<Option<Leaf<'_>>, Damage> {
        let found = self.find(sort_key)?;
        found.map(|start| self.leaf_at(start)).transpose()
    }

    fn first(&self) -> Result<Option<Leaf<'_>>, Damage> {
        let first = self.leaf(&[])?;
        if let Some(leaf) = &first
            && let Some(before) = self.before(leaf)?
        {
            return Err(astray(&before));
        }
        Ok(first)
    }

    pub(super) fn last(&self) -> Result<Option<Leaf<'_>>, Damage> {
        let last = match &self.index {
            Index::Flat(flat) => flat.last(self.file()),
            Index::Tree(tree) => {
                let last = tree.last(self.file())?;
                last.map(|start| tree.leaf_at(self.file(), start))
                    .transpose()
            }
        }?;
        if let Some(leaf) = &last
            && let Some(after) = self.after(leaf)?
        {
            return Err(astray(&after));
        }
        Ok(last)
    }

    /// Starts to read what lies around a range from the disk, unless that was done a short time before `now`.
    pub(super) fn will_need(&self, range: Range<usize>, now: u64) {
        for window in self.ahead.due(range, now) {
            debug_assert!(!window.is_empty(), "there is something to ask for");
            debug_assert!(window.end as u64 <= self.summary.bytes, "and it is there");
            self.bytes.will_need(window.start, window.len());
        }
    }

    /// Starts to bring the block behind one into the cache, as far as that is likely to be as long.
    pub(super) fn prefetch_after(&self, leaf: &Leaf<'_>) {
        let len = (leaf.end - leaf.start).min(FETCHED_MAX);
        self.file().prefetch(leaf.end, len);
    }

    pub(super) fn after(&self, leaf: &Leaf<'_>) -> Result<Option<Leaf<'_>>, Damage> {
        let after = match &self.index {
            Index::Flat(flat) => flat.after(self.file(), leaf),
            Index::Tree(tree) => tree.after(self.file(), leaf),
        }?;
        debug_assert!(after.is_none_or(|next| next.start == leaf.end));
        Ok(after)
    }

    pub(super) fn before(&self, leaf: &Leaf<'_>) -> Result<Option<Leaf<'_>>, Damage> {
        let before = match &self.index {
            Index::Flat(flat) => flat.before(self.file(), leaf),
            Index::Tree(tree) => tree.before(self.file(), leaf),
        }?;
        debug_assert!(before.is_none_or(|last| last.end == leaf.start));
        Ok(before)
    }

    fn file(&self) -> File<'_> {
        File {
            bytes: (*self.bytes).as_ref(),
            run_id: self.run_id,
            seen: self.seen.get(),
        }
    }
}

/// A search for the block in which a sort key may be. It goes level by level, so that those in several runs wait for
/// memory together.
pub(crate) struct Search<'a> {
    run: &'a Run,
    place: Option<Place<'a>>,
}

impl Search<'_> {
    /// Goes a level down. Says whether there may be another.
    #[inline]
    pub(crate) fn step(&mut self, sort_key: &[u8]) -> Result<bool, Damage> {
        match (&self.run.index, &mut self.place) {
            (Index::Tree(tree), Some(place)) => tree.step(self.run.file(), place, Some(sort_key)),
            _ => Ok(false),
        }
    }

    /// Where the search ended, as [`find`](Run::find) says.
    pub(crate) fn found(&self) -> Option<usize> {
        self.place.as_ref().map(Place::start)
    }
}

/// The index led past a block.
pub(super) fn astray(leaf: &Leaf<'_>) -> Damage {
    Damage::at(leaf.start, "order of the blocks of a run")
}

fn verified_header(bytes: &[u8]) -> Result<&[u8; HEADER_LEN], Damage> {
    let header = bytes.first_chunk::<HEADER_LEN>();
    let header = header.ok_or(Damage::at(0, "run shorter than a header"))?;
    if !header.starts_with(&MAGIC) {
        return Err(Damage::at(0, "not a run"));
    }
    let crc = crc32fast::hash(header.get(..at::HEADER_CRC).unwrap_or_default());
    if field_u32(header, at::HEADER_CRC) != crc {
        return Err(Damage::at(at::HEADER_CRC, "checksum of a run header"));
    }
    if field_u16(header, at::BLOCK_RECORDS) != u16::from(BLOCK_RECORDS) {
        return Err(Damage::at(at::BLOCK_RECORDS, "unknown block size of a run"));
    }
    Ok(header)
}

fn verified_footer<'a>(
    bytes: &'a [u8],
    header: &[u8; HEADER_LEN],
) -> Result<(usize, &'a [u8]), Damage> {
    let footer_at = bytes
        .len()
        .checked_sub(FOOTER_LEN)
        .filter(|&at| at >= HEADER_LEN)
        .ok_or(Damage::at(HEADER_LEN, "run without a footer"))?;
    let footer = bytes.get(footer_at..).unwrap_or_default();
    if footer.get(56..60) != Some(&FOOTER_MAGIC[..]) {
        return Err(Damage::at(footer_at, "run without a footer"));
    }
    if field_u32(footer, 60) != footer_crc(header, footer.get(..60).unwrap_or_default()) {
        return Err(Damage::at(footer_at, "checksum of a run footer"));
    }
    Ok((footer_at, footer))
}

#[cfg(test)]
impl Run {
    /// Where each block of keys begins and ends, its checksum included.
    pub(crate) fn block_ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        let mut next = self.first().expect("intact");
        while let Some(leaf) = next {
            ranges.push((leaf.start, leaf.end));
            next = self.after(&leaf).expect("intact");
        }
        ranges
    }

    /// Puts the checksum of a changed block right.
    pub(crate) fn seal_block(&self, file: &mut [u8], start: usize, end: usize) {
        let block = file.get_mut(start..end).expect("a range of the file");
        let (content, crc) = block.split_last_chunk_mut::<CRC_LEN>().expect("a block");
        *crc = block_crc(self.run_id, start as u64, content).to_le_bytes();
    }
}
