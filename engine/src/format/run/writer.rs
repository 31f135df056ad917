//! Writes a run.

use std::io;

use super::block::{BlockBuilder, common_len};
use super::{
    BLOCK_LEN_MIN, CRC_LEN, FOOTER_LEN, FOOTER_MAGIC, HEADER_LEN, KEY_LEN_MAX, KeyRecord,
    LENGTHS_LEN, NAMESPACE_LEN, Summary, block_crc, footer_crc, header, namespace_bytes,
};

/// Bytes of keys and metadata that end a block of keys, however few records they are: whoever seeks one of them reads all of the
/// block for its checksum.
const LEAF_BYTES: usize = 1 << 10;

/// Writes a run to a sink, block by block; memory stays at one block and a separator for each.
pub(crate) struct RunWriter<W: FnMut(&[u8]) -> io::Result<()>> {
    out: BlockOutput<W>,
    header: [u8; HEADER_LEN],
    block: BlockBuilder,
    /// Of the block that is being filled.
    separator: Vec<u8>,
    /// What the lowest level of the index will say.
    children: Children,
    /// The sort key of the last record, and of the next.
    last: Vec<u8>,
    next: Vec<u8>,
    summary: Summary,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> RunWriter<W> {
    pub(crate) fn new(store_id: [u8; 16], run_id: u64, mut sink: W) -> io::Result<Self> {
        let header = header(store_id, run_id);
        sink(&header)?;
        Ok(RunWriter {
            out: BlockOutput {
                sink,
                run_id,
                offset: HEADER_LEN as u64,
                before: 0,
                block: Vec::new(),
            },
            header,
            block: BlockBuilder::default(),
            separator: Vec::new(),
            children: Children::default(),
            last: Vec::new(),
            next: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// Adds the next record.
    ///
    /// # Panics
    ///
    /// If the record is not after the one before it, or its key is longer than [`KEY_LEN_MAX`].
    pub(crate) fn push(&mut self, record: &KeyRecord<'_>) -> io::Result<()> {
        let len = record.key.len();
        assert!(len <= KEY_LEN_MAX, "key of {len} bytes");
        let is_first = self.summary.records == 0;
        self.next.clear();
        self.next
            .extend_from_slice(&namespace_bytes(record.namespace));
        self.next.extend_from_slice(record.key);
        let is_next = is_first || self.last < self.next;
        assert!(is_next, "records out of order");

        if self.block.is_full() || self.block.bytes() >= LEAF_BYTES {
            self.write_block()?;
        }
        if self.block.is_empty() {
            // The shortest that is after what came before and not after what comes: of the first block, nothing.
            let len = if is_first {
                0
            } else {
                common_len(&self.last, &self.next) + 1
            };
            self.separator.clear();
            self.separator
                .extend_from_slice(self.next.get(..len).unwrap_or_default());
            debug_assert!(
                is_first || self.last < self.separator,
                "what comes before is not looked for here"
            );
        }
        self.block.push(&self.next, record);
        std::mem::swap(&mut self.last, &mut self.next);

        let summary = &mut self.summary;
        summary.seqno_min = if is_first {
            record.seqno
        } else {
            summary.seqno_min.min(record.seqno)
        };
        summary.seqno_max = summary.seqno_max.max(record.seqno);
        summary.records += 1;
        summary.tombstones += u64::from(record.tombstone);
        debug_assert!(summary.tombstones <= summary.records);
        debug_assert!((summary.seqno_min..=summary.seqno_max).contains(&record.seqno));
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        let offset = self.out.write(&mut self.block)?;
        debug_assert!(offset >= HEADER_LEN as u64);
        debug_assert!(offset < self.out.offset);
        self.children.push(&self.separator, offset);
        Ok(())
    }

    /// Writes what is left, the index and the footer. The file is complete when this returned.
    pub(crate) fn finish(mut self) -> io::Result<Summary> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        let index_offset = self.out.offset;
        let mut level = self.children;
        while level.len() > 1 {
            level = self.out.write_level(&level)?;
        }
        let root = level.first().map_or(0, |(_, offset)| offset);
        debug_assert_eq!(
            root == 0,
            self.summary.records == 0,
            "only an empty run has no root"
        );
        debug_assert!(root < self.out.offset);
        debug_assert!(index_offset <= self.out.offset);
        let mut footer = Vec::with_capacity(FOOTER_LEN);
        for field in [
            index_offset,
            root,
            self.summary.records,
            self.summary.tombstones,
            self.summary.seqno_min,
            self.summary.seqno_max,
        ] {
            footer.extend_from_slice(&field.to_le_bytes());
        }
        footer.extend_from_slice(&[0; 8]);
        footer.extend_from_slice(&FOOTER_MAGIC);
        footer.extend_from_slice(&footer_crc(&self.header, &footer).to_le_bytes());
        debug_assert_eq!(footer.len(), FOOTER_LEN);
        (self.out.sink)(&footer)?;
        self.summary.bytes = self.out.offset + footer.len() as u64;
        debug_assert!(self.summary.seqno_min <= self.summary.seqno_max);
        debug_assert!(self.last.len() <= NAMESPACE_LEN + KEY_LEN_MAX);
        Ok(self.summary)
    }
}

/// The blocks of one level, by their separators.
#[derive(Default)]
struct Children {
    separators: Vec<u8>,
    /// Where the separator ends, and where the block begins.
    places: Vec<(usize, u64)>,
}

impl Children {
    fn push(&mut self, separator: &[u8], offset: u64) {
        let last = self.places.last();
        debug_assert!(
            last.is_none_or(|(_, before)| *before < offset),
            "children lie in their order"
        );
        self.separators.extend_from_slice(separator);
        self.places.push((self.separators.len(), offset));
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    fn first(&self) -> Option<(&[u8], u64)> {
        self.iter().next()
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut start = 0;
        self.places.iter().map(move |&(end, offset)| {
            let separator = self.separators.get(start..end).unwrap_or_default();
            start = end;
            (separator, offset)
        })
    }
}

/// Where blocks go.
struct BlockOutput<W> {
    sink: W,
    run_id: u64,
    offset: u64,
    /// The length of the block that was written last.
    before: u32,
    block: Vec<u8>,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> BlockOutput<W> {
    /// Writes a block and returns where it begins.
    fn write(&mut self, builder: &mut BlockBuilder) -> io::Result<u64> {
        let (block, start) = (&mut self.block, self.offset);
        block.clear();
        block.resize(LENGTHS_LEN, 0);
        builder.finish(block);
        debug_assert!(builder.is_empty(), "its records are in this block alone");
        block.resize(block.len().max(BLOCK_LEN_MIN - CRC_LEN), 0);
        let len = u32::try_from(block.len() + CRC_LEN).expect("a block is below 4 GiB");
        let lengths = [len.to_le_bytes(), self.before.to_le_bytes()];
        let places = block.iter_mut().zip(lengths.as_flattened());
        places.for_each(|(place, byte)| *place = *byte);
        let crc = block_crc(self.run_id, start, block);
        block.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(block.len() as u64, u64::from(len), "it says how long it is");
        debug_assert!(
            block.len() >= BLOCK_LEN_MIN,
            "two never share a bit of what was verified"
        );
        (self.sink)(block)?;
        self.offset += u64::from(len);
        self.before = len;
        Ok(start)
    }

    /// Writes the blocks that lead to those of a level, and returns them.
    fn write_level(&mut self, children: &Children) -> io::Result<Children> {
        let (mut level, mut block) = (Children::default(), BlockBuilder::default());
        let mut first = Vec::new();
        for (separator, offset) in children.iter() {
            if block.is_full() {
                level.push(&first, self.write(&mut block)?);
            }
            if block.is_empty() {
                first.clear();
                first.extend_from_slice(separator);
            }
            block.push(separator, &child(offset));
        }
        level.push(&first, self.write(&mut block)?);
        debug_assert!(level.len() < children.len(), "levels end in a root");
        Ok(level)
    }
}

/// A block of the index has its children's places where others have sequence numbers.
fn child(offset: u64) -> KeyRecord<'static> {
    KeyRecord {
        namespace: 0,
        key: &[],
        metadata: &[],
        expiration: 0,
        seqno: offset,
        tombstone: false,
    }
}

#[cfg(test)]
impl<W: FnMut(&[u8]) -> io::Result<()>> RunWriter<W> {
    /// Adds a record under any sort key, also one that no run has.
    pub(super) fn push_as(&mut self, sort_key: &[u8], record: &KeyRecord<'_>) {
        self.block.push(sort_key, record);
        self.summary.records += 1;
    }

    /// Writes the last block, and then lets the index lead from children by their number to other places.
    pub(super) fn mislead(&mut self, astray: &[(usize, u64)]) {
        if !self.block.is_empty() {
            self.write_block().expect("written");
        }
        for (child, to) in astray {
            self.children.places.get_mut(*child).expect("a child").1 = *to;
        }
    }
}
