//! The run file: sorted keys for `list`, with expiration, metadata and seqno, never a value or a
//! location: a header, front-coded blocks of up to 32 records, an index of the blocks, a footer.
//! `docs/format.md` has the layout. Every byte of the file is under some checksum.

use std::cmp::Ordering;
use std::io;
use std::sync::{Arc, OnceLock};

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

const MAGIC: [u8; 8] = *b"RIMSTRUN";
const FOOTER_MAGIC: [u8; 4] = *b"RUNE";
const VERSION: u16 = 1;
const BLOCK_RECORDS: u8 = 32;
const HEADER_LEN: usize = 64;
const FOOTER_LEN: usize = 64;
const INDEX_ENTRY_LEN: usize = 16;
const CRC_LEN: usize = 4;
const NAMESPACE_LEN: usize = 4;

const TOMBSTONE: u8 = 1;
const HAS_EXPIRATION: u8 = 2;
const HAS_METADATA: u8 = 4;

/// Writes a run to a sink, block by block; memory stays at one block and the index.
pub(crate) struct RunWriter<W: FnMut(&[u8]) -> io::Result<()>> {
    sink: W,
    run_id: u64,
    header: [u8; HEADER_LEN],
    offset: u64,
    index: Vec<u8>,
    last: Vec<u8>,
    pending: Vec<Pending>,
    /// Sort-key suffixes and metadata of `pending`, in turn.
    pending_bytes: Vec<u8>,
    block: Vec<u8>,
    block_prefix: u64,
    summary: Summary,
}

struct Pending {
    shared: usize,
    suffix_len: usize,
    metadata_len: usize,
    expiration: u64,
    seqno: u64,
    tombstone: bool,
}

impl<W: FnMut(&[u8]) -> io::Result<()>> RunWriter<W> {
    pub(crate) fn new(store_id: [u8; 16], run_id: u64, mut sink: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&u16::from(BLOCK_RECORDS).to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&store_id);
        header.extend_from_slice(&run_id.to_le_bytes());
        header.extend_from_slice(&[0; 20]);
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        let header: [u8; HEADER_LEN] = header.try_into().expect("the header is 64 bytes");
        sink(&header)?;
        Ok(RunWriter {
            sink,
            run_id,
            header,
            offset: HEADER_LEN as u64,
            index: Vec::new(),
            last: Vec::new(),
            pending: Vec::with_capacity(usize::from(BLOCK_RECORDS)),
            pending_bytes: Vec::new(),
            block: Vec::new(),
            block_prefix: 0,
            summary: Summary::default(),
        })
    }

    /// Adds the next record.
    ///
    /// # Panics
    ///
    /// If the record is not after the one before it, or its key is longer than [`KEY_LEN_MAX`].
    pub(crate) fn push(&mut self, record: &KeyRecord<'_>) -> io::Result<()> {
        assert!(
            record.key.len() <= KEY_LEN_MAX,
            "key of {} bytes",
            record.key.len()
        );
        let namespace = namespace_bytes(record.namespace);
        let first_of_run = self.summary.records == 0;
        let order = if first_of_run {
            Ordering::Less
        } else {
            let (last_namespace, last_key) = self.last.split_at(NAMESPACE_LEN);
            last_namespace
                .cmp(&namespace)
                .then_with(|| last_key.cmp(record.key))
        };
        assert!(order.is_lt(), "records out of order");

        let first_of_block = self.pending.is_empty();
        let shared = if first_of_block {
            0
        } else {
            let sort_key = namespace.iter().chain(record.key);
            self.last
                .iter()
                .zip(sort_key)
                .take_while(|(a, b)| a == b)
                .count()
        };
        self.last.clear();
        self.last.extend_from_slice(&namespace);
        self.last.extend_from_slice(record.key);
        if first_of_block {
            self.block_prefix = prefix_of(record.namespace, record.key);
        }
        let suffix = self.last.get(shared..).unwrap_or_default();
        self.pending_bytes.extend_from_slice(suffix);
        self.pending_bytes.extend_from_slice(record.metadata);
        self.pending.push(Pending {
            shared,
            suffix_len: suffix.len(),
            metadata_len: record.metadata.len(),
            expiration: record.expiration,
            seqno: record.seqno,
            tombstone: record.tombstone,
        });

        let summary = &mut self.summary;
        summary.seqno_min = if first_of_run {
            record.seqno
        } else {
            summary.seqno_min.min(record.seqno)
        };
        summary.seqno_max = summary.seqno_max.max(record.seqno);
        summary.records += 1;
        summary.tombstones += u64::from(record.tombstone);

        if self.pending.len() == usize::from(BLOCK_RECORDS) {
            self.write_block()?;
        }
        Ok(())
    }

    /// Writes what is left, the index and the footer. The file is complete when this returned.
    pub(crate) fn finish(mut self) -> io::Result<Summary> {
        if !self.pending.is_empty() {
            self.write_block()?;
        }
        (self.sink)(&self.index)?;
        let mut footer = Vec::with_capacity(FOOTER_LEN);
        let blocks = (self.index.len() / INDEX_ENTRY_LEN) as u64;
        for field in [
            self.offset,
            blocks,
            self.summary.records,
            self.summary.tombstones,
            self.summary.seqno_min,
            self.summary.seqno_max,
        ] {
            footer.extend_from_slice(&field.to_le_bytes());
        }
        footer.extend_from_slice(&crc32fast::hash(&self.index).to_le_bytes());
        footer.extend_from_slice(&[0; 4]);
        footer.extend_from_slice(&FOOTER_MAGIC);
        footer.extend_from_slice(&footer_crc(&self.header, &footer).to_le_bytes());
        (self.sink)(&footer)?;
        self.summary.bytes = self.offset + (self.index.len() + footer.len()) as u64;
        Ok(self.summary)
    }

    fn write_block(&mut self) -> io::Result<()> {
        let base_seqno = self.pending.iter().map(|p| p.seqno).min().unwrap_or(0);
        let expirations = self
            .pending
            .iter()
            .map(|p| p.expiration)
            .filter(|&e| e != 0);
        let base_expiration = expirations.min().unwrap_or(0);
        let block = &mut self.block;
        block.clear();
        block.push(u8::try_from(self.pending.len()).expect("a block is written when full"));
        put_varint(block, base_seqno);
        put_varint(block, base_expiration);
        let mut bytes = self.pending_bytes.as_slice();
        for p in &self.pending {
            let mut flags = 0;
            flags |= if p.tombstone { TOMBSTONE } else { 0 };
            flags |= if p.expiration != 0 { HAS_EXPIRATION } else { 0 };
            flags |= if p.metadata_len != 0 { HAS_METADATA } else { 0 };
            block.push(flags);
            put_varint(block, p.shared as u64);
            put_varint(block, p.suffix_len as u64);
            put_varint(block, p.seqno - base_seqno);
            if p.expiration != 0 {
                put_varint(block, p.expiration - base_expiration);
            }
            if p.metadata_len != 0 {
                put_varint(block, p.metadata_len as u64);
            }
            let (own, rest) = bytes.split_at(p.suffix_len + p.metadata_len);
            block.extend_from_slice(own);
            bytes = rest;
        }
        let crc = block_crc(self.run_id, self.offset, block);
        block.extend_from_slice(&crc.to_le_bytes());
        (self.sink)(block)?;
        self.index
            .extend_from_slice(&self.block_prefix.to_le_bytes());
        self.index.extend_from_slice(&self.offset.to_le_bytes());
        self.offset += block.len() as u64;
        self.pending.clear();
        self.pending_bytes.clear();
        Ok(())
    }
}

/// The bytes of a run: a mapped file, or a buffer.
pub(crate) type RunBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An index of up to so many bytes is verified when its run is opened, a longer one when it is first
/// needed: opening takes no longer for more keys.
const EAGER_MAX: usize = 1 << 20;

/// An open run. Header and footer are verified, and the index before it is used; a block is, each time
/// it is decoded.
pub(crate) struct Run {
    bytes: RunBytes,
    store_id: [u8; 16],
    run_id: u64,
    blocks: usize,
    index_crc: u32,
    /// Whether the index is what it should be.
    index: OnceLock<Result<(), Damage>>,
    index_offset: usize,
    summary: Summary,
}

type IndexEntry = [u8; INDEX_ENTRY_LEN];

/// The beginning of a block's first key.
fn prefix_in(entry: &IndexEntry) -> u64 {
    field_u64(entry, 0)
}

fn offset_in(entry: &IndexEntry) -> usize {
    usize::try_from(field_u64(entry, 8)).unwrap_or(usize::MAX)
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
            && field_u32(header, 60) == crc32fast::hash(header.get(..60).unwrap_or_default());
        Some(field_u16(header, 8)).filter(|version| is_intact && *version > VERSION)
    }

    pub(crate) fn open(shared: RunBytes) -> Result<Run, Damage> {
        let bytes: &[u8] = (*shared).as_ref();
        let damage = |offset: usize, reason| Damage {
            offset: offset as u64,
            reason,
        };
        let (header, _) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(damage(0, "run shorter than a header"))?;
        if !header.starts_with(&MAGIC) {
            return Err(damage(0, "not a run"));
        }
        let header_crc = crc32fast::hash(header.get(..60).unwrap_or_default());
        if field_u32(header, 60) != header_crc {
            return Err(damage(60, "checksum of a run header"));
        }
        if field_u16(header, 8) != VERSION {
            return Err(damage(8, "unknown version of the run format"));
        }
        if field_u16(header, 10) != u16::from(BLOCK_RECORDS) {
            return Err(damage(10, "unknown block size of a run"));
        }
        let store_id = header
            .get(16..32)
            .and_then(|id| id.try_into().ok())
            .unwrap_or_default();
        let run_id = field_u64(header, 32);

        let footer_at = bytes
            .len()
            .checked_sub(FOOTER_LEN)
            .filter(|&at| at >= HEADER_LEN)
            .ok_or(damage(HEADER_LEN, "run without a footer"))?;
        let footer = bytes.get(footer_at..).unwrap_or_default();
        if footer.get(56..60) != Some(&FOOTER_MAGIC[..]) {
            return Err(damage(footer_at, "run without a footer"));
        }
        if field_u32(footer, 60) != footer_crc(header, footer.get(..60).unwrap_or_default()) {
            return Err(damage(footer_at, "checksum of a run footer"));
        }
        let index_offset = usize::try_from(field_u64(footer, 0)).unwrap_or(usize::MAX);
        let index_bytes = bytes
            .get(index_offset..footer_at)
            .filter(|_| index_offset >= HEADER_LEN)
            .ok_or(damage(footer_at, "index outside of its run"))?;
        let (entries, rest) = index_bytes.as_chunks::<INDEX_ENTRY_LEN>();
        if !rest.is_empty() || entries.len() as u64 != field_u64(footer, 8) {
            return Err(damage(index_offset, "length of a run index"));
        }

        let summary = Summary {
            records: field_u64(footer, 16),
            tombstones: field_u64(footer, 24),
            seqno_min: field_u64(footer, 32),
            seqno_max: field_u64(footer, 40),
            bytes: bytes.len() as u64,
        };
        if entries.is_empty() && index_offset != HEADER_LEN {
            return Err(damage(HEADER_LEN, "blocks without an index"));
        }
        let run = Run {
            blocks: entries.len(),
            index_crc: field_u32(footer, 48),
            index: OnceLock::new(),
            bytes: Arc::clone(&shared),
            store_id,
            run_id,
            index_offset,
            summary,
        };
        if index_bytes.len() <= EAGER_MAX {
            run.index()?;
        }
        Ok(run)
    }

    /// Block by block the beginning of its first key, and where it lies; verified.
    fn index(&self) -> Result<&[IndexEntry], Damage> {
        let index = self.index_bytes();
        let verified = self.index.get_or_init(|| self.verify_index(index));
        (*verified).map(|()| index)
    }

    fn index_bytes(&self) -> &[IndexEntry] {
        let bytes: &[u8] = (*self.bytes).as_ref();
        let index = bytes.get(self.index_offset..).unwrap_or_default();
        let (entries, _) = index.as_chunks::<INDEX_ENTRY_LEN>();
        entries.get(..self.blocks).unwrap_or_default()
    }

    /// Blocks lie without gaps between header and index, in order.
    fn verify_index(&self, index: &[IndexEntry]) -> Result<(), Damage> {
        let damage = |at: usize, reason| Damage {
            offset: (self.index_offset + at * INDEX_ENTRY_LEN) as u64,
            reason,
        };
        if crc32fast::hash(index.as_flattened()) != self.index_crc {
            return Err(damage(0, "checksum of a run index"));
        }
        let mut before: Option<(u64, usize)> = None;
        for (i, entry) in index.iter().enumerate() {
            let (prefix, offset) = (prefix_in(entry), offset_in(entry));
            let in_place = match before {
                None => offset == HEADER_LEN,
                Some((low, start)) => offset > start && prefix >= low,
            };
            if !in_place || offset >= self.index_offset {
                return Err(damage(i, "order of a run index"));
            }
            before = Some((prefix, offset));
        }
        Ok(())
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

    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Decodes a block into `out`, whose memory is reused.
    ///
    /// `number` must be below [`blocks`](Run::blocks); metadata stays where it is, in the file.
    pub(crate) fn decode<'a>(&'a self, number: usize, out: &mut Block<'a>) -> Result<(), Damage> {
        out.decode(self.verified(number)?)
            .ok_or_else(|| self.damage(number, "record in a run block"))
    }

    /// Reads all of it.
    pub(crate) fn is_intact(&self) -> bool {
        let mut block = Block::default();
        (0..self.blocks).all(|number| self.decode(number, &mut block).is_ok())
    }

    /// Returns where records not before (or with `after_equal`, after) a sort key begin: the block and
    /// the place in it, which may be one past its last record. `block` then holds that block.
    pub(crate) fn seek<'a>(
        &'a self,
        namespace: u32,
        key: &[u8],
        after_equal: bool,
        block: &mut Block<'a>,
    ) -> Result<(usize, usize), Damage> {
        let precedes = |n: u32, k: &[u8]| {
            let order = n.cmp(&namespace).then_with(|| k.cmp(key));
            order.is_lt() || (after_equal && order.is_eq())
        };
        let first_precedes = |number: usize, payload| match first_key(payload) {
            Some((n, k)) => Ok(precedes(n, k)),
            None => Err(self.damage(number, "first key of a run block")),
        };
        let prefix = prefix_of(namespace, key);
        let index = self.index()?;
        let mut low = index.partition_point(|e| prefix_in(e) < prefix);
        let mut high = index.partition_point(|e| prefix_in(e) <= prefix);
        // Among blocks with one prefix only their first keys decide.
        while low < high {
            let middle = low.midpoint(high);
            if first_precedes(middle, self.block(middle)?)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let number = low.saturating_sub(1);
        block.clear();
        if index.is_empty() {
            return Ok((0, 0));
        }
        self.decode(number, block)?;
        let place = block
            .items
            .partition_point(|item| precedes(item.namespace, block.key(item)));
        // The blocks that were asked on the way were not verified: a wrong key in one of them may have led
        // the search astray. But not if the place is between what is verified on both sides of it.
        let next = number + 1;
        let is_astray = (place == 0 && number > 0)
            || (place == block.len()
                && next < self.blocks
                && first_precedes(next, self.verified(next)?)?);
        if is_astray {
            return Err(self.damage(number, "order of the blocks of a run"));
        }
        Ok((number, place))
    }

    fn damage(&self, number: usize, reason: &'static str) -> Damage {
        let offset = self.index_bytes().get(number).map_or(0, offset_in);
        Damage {
            offset: offset as u64,
            reason,
        }
    }

    /// Returns a block's payload, after its checksum was found right.
    fn verified(&self, number: usize) -> Result<&[u8], Damage> {
        let start = self.index()?.get(number).map_or(0, offset_in);
        let parts = self.block(number)?.split_last_chunk::<CRC_LEN>();
        let (payload, crc) = parts.ok_or_else(|| self.damage(number, BLOCK_LENGTH))?;
        if u32::from_le_bytes(*crc) != block_crc(self.run_id, start as u64, payload) {
            return Err(self.damage(number, "checksum of a run block"));
        }
        Ok(payload)
    }

    /// Returns a block as it is, its checksum behind it.
    fn block(&self, number: usize) -> Result<&[u8], Damage> {
        let index = self.index()?;
        let offset = |number| index.get(number).map_or(self.index_offset, offset_in);
        let bytes: &[u8] = (*self.bytes).as_ref();
        let block = bytes.get(offset(number)..offset(number + 1));
        block.ok_or_else(|| self.damage(number, BLOCK_LENGTH))
    }
}

const BLOCK_LENGTH: &str = "length of a run block";

/// A decoded block. Keys are put together again in one buffer; metadata is lent from the run.
#[derive(Default)]
pub(crate) struct Block<'a> {
    keys: Vec<u8>,
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    /// The key in `keys`, without the namespace.
    start: u32,
    end: u32,
    namespace: u32,
    tombstone: bool,
    expiration: u64,
    seqno: u64,
    metadata: &'a [u8],
}

impl<'a> Block<'a> {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn get(&self, place: usize) -> Option<KeyRecord<'_>> {
        let item = self.items.get(place)?;
        Some(KeyRecord {
            namespace: item.namespace,
            key: self.key(item),
            metadata: item.metadata,
            expiration: item.expiration,
            seqno: item.seqno,
            tombstone: item.tombstone,
        })
    }

    fn key(&self, item: &Item<'_>) -> &[u8] {
        self.keys
            .get(item.start as usize..item.end as usize)
            .unwrap_or_default()
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.items.clear();
    }

    /// Fills the block, or returns `None` for bytes that are not a payload.
    ///
    /// At most 32 keys of [`KEY_LEN_MAX`] are built, whatever the bytes say.
    fn decode(&mut self, payload: &'a [u8]) -> Option<()> {
        self.clear();
        let (&count, mut input) = payload.split_first()?;
        if count == 0 || count > BLOCK_RECORDS {
            return None;
        }
        let base_seqno = varint(&mut input)?;
        let base_expiration = varint(&mut input)?;
        // Room for keys that share about as much as they add.
        self.keys.reserve(payload.len());
        self.items.reserve(usize::from(count));
        // Where the sort key before this one lies in `keys`.
        let mut before = 0..0;
        for _ in 0..count {
            let (&flags, rest) = input.split_first()?;
            input = rest;
            if flags & !(TOMBSTONE | HAS_EXPIRATION | HAS_METADATA) != 0 {
                return None;
            }
            let shared = varint_len(&mut input)?;
            let suffix_len = varint_len(&mut input)?;
            let seqno = base_seqno.checked_add(varint(&mut input)?)?;
            let expiration = if flags & HAS_EXPIRATION == 0 {
                0
            } else {
                base_expiration
                    .checked_add(varint(&mut input)?)
                    .filter(|&e| e != 0)?
            };
            let metadata_len = if flags & HAS_METADATA == 0 {
                0
            } else {
                varint_len(&mut input)?
            };
            let (suffix, rest) = input.split_at_checked(suffix_len)?;
            let (metadata, rest) = rest.split_at_checked(metadata_len)?;
            input = rest;

            let sort_key_len = shared.checked_add(suffix_len)?;
            if shared > before.len()
                || !(NAMESPACE_LEN..=NAMESPACE_LEN + KEY_LEN_MAX).contains(&sort_key_len)
            {
                return None;
            }
            // One byte tells the order, as the shared part is the longest possible.
            let ascending = match (suffix.first(), self.keys.get(before.start + shared)) {
                (Some(_), None) => true,
                (Some(new), Some(old)) => new > old,
                (None, _) => false,
            };
            if !ascending {
                return None;
            }
            let start = self.keys.len();
            self.keys
                .extend_from_within(before.start..before.start + shared);
            self.keys.extend_from_slice(suffix);
            before = start..self.keys.len();
            let namespace = namespace_of(self.keys.get(start..)?)?;
            self.items.push(Item {
                start: u32::try_from(start + NAMESPACE_LEN).ok()?,
                end: u32::try_from(before.end).ok()?,
                namespace,
                tombstone: flags & TOMBSTONE != 0,
                expiration,
                seqno,
                metadata,
            });
        }
        input.is_empty().then_some(())
    }
}

/// Returns the first key of a block's payload, which is stored whole.
fn first_key(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (_, mut input) = payload.split_first()?;
    varint(&mut input)?;
    varint(&mut input)?;
    let (&flags, mut input) = input.split_first()?;
    if varint(&mut input)? != 0 {
        return None;
    }
    let suffix_len = varint_len(&mut input)?;
    varint(&mut input)?;
    if flags & HAS_EXPIRATION != 0 {
        varint(&mut input)?;
    }
    if flags & HAS_METADATA != 0 {
        varint(&mut input)?;
    }
    let sort_key = input.get(..suffix_len)?;
    Some((namespace_of(sort_key)?, sort_key.get(NAMESPACE_LEN..)?))
}

fn block_crc(run_id: u64, offset: u64, payload: &[u8]) -> u32 {
    let mut place = [0; 16];
    let (id, at) = place.split_at_mut(8);
    id.copy_from_slice(&run_id.to_le_bytes());
    at.copy_from_slice(&offset.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place);
    crc.update(payload);
    crc.finalize()
}

fn footer_crc(header: &[u8; HEADER_LEN], footer: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(footer);
    crc.finalize()
}

fn prefix_of(namespace: u32, key: &[u8]) -> u64 {
    let key = key.iter().copied().chain(std::iter::repeat(0)).take(4);
    key.fold(u64::from(namespace), |prefix, byte| {
        prefix << 8 | u64::from(byte)
    })
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

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

#[inline]
fn varint(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    *input = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[inline]
fn varint_len(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint(input)?).ok()
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

/// Puts the checksums of a run's fixed parts and of the blocks its index names right, so that what
/// lies behind them is looked at.
#[cfg(feature = "fuzzing")]
#[allow(
    clippy::indexing_slicing,
    reason = "the lengths of header and footer are known"
)]
pub(crate) fn reseal(file: &mut [u8]) {
    let Some(footer_at) = file.len().checked_sub(FOOTER_LEN) else {
        return;
    };
    let (body, footer) = file.split_at_mut(footer_at);
    let Some((header, _)) = body.split_first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&u16::from(BLOCK_RECORDS).to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    let (header, run_id) = (*header, field_u64(header, 32));

    let index_offset = usize::try_from(field_u64(footer, 0)).unwrap_or(usize::MAX);
    if let Some((blocks, index)) = body.split_at_mut_checked(index_offset) {
        footer[8..16].copy_from_slice(&((index.len() / INDEX_ENTRY_LEN) as u64).to_le_bytes());
        footer[48..52].copy_from_slice(&crc32fast::hash(index).to_le_bytes());
        let starts = index.chunks(INDEX_ENTRY_LEN);
        let starts = starts.map(|entry| usize::try_from(field_u64(entry, 8)).unwrap_or(0));
        let starts: Vec<_> = starts.collect();
        let ends = starts.iter().skip(1).copied().chain([index_offset]);
        for (start, end) in starts.iter().copied().zip(ends) {
            if let Some((payload, crc)) = blocks
                .get_mut(start..end)
                .and_then(|block| block.split_last_chunk_mut::<CRC_LEN>())
            {
                *crc = block_crc(run_id, start as u64, payload).to_le_bytes();
            }
        }
    }
    footer[56..60].copy_from_slice(&FOOTER_MAGIC);
    let crc = footer_crc(&header, &footer[..60]);
    footer[60..].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
impl Run {
    /// Where each block begins and ends, its checksum included.
    pub(crate) fn block_ranges(&self) -> Vec<(usize, usize)> {
        let ends = self
            .index_bytes()
            .iter()
            .skip(1)
            .map(offset_in)
            .chain([self.index_offset]);
        self.index_bytes().iter().map(offset_in).zip(ends).collect()
    }

    /// Puts the checksum of a changed block right.
    pub(crate) fn seal_block(&self, file: &mut [u8], start: usize, end: usize) {
        let block = file.get_mut(start..end).expect("a range of the file");
        let (payload, crc) = block.split_last_chunk_mut::<CRC_LEN>().expect("a block");
        *crc = block_crc(self.run_id, start as u64, payload).to_le_bytes();
    }
}
