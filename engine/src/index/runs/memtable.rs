//! The newest keys, in memory: sorted arrays that never change, merged as they pile up.
//!
//! Arrivals go to the end of a small array. When it is full it is sorted into a chunk of tier 0; eight
//! chunks of a tier become one of the next. A merge is done in steps, a few each time a chunk is
//! sorted, so an insert never waits for a whole one; its inputs are read until its output is there.
//!
//! A page asks every chunk. Once pages have asked so many that merging them would have been as cheap, a thread of
//! its own makes all chunks of the tiers one, with those behind them that are not much larger; the tiers begin
//! anew in front of it. So however much there is, pages soon meet few chunks, and a record is moved few times.
//!
//! Chunks are shared by counting, so a snapshot copies pointers and at most [`ARRIVALS`] arrivals.

#![allow(
    clippy::indexing_slicing,
    reason = "positions come from the arrays they index, and every \
    insert and list runs through here"
)]

use super::KeyRecord;
use super::source::rank;
use crate::format::run::KEY_LEN_MAX;
use crate::sync::Mutex;
use std::cmp::Ordering;
use std::sync::Arc;

/// Arrivals that are sorted together. A snapshot sorts what it finds, so this bounds its price.
const ARRIVALS: usize = 256;
/// Bytes of arrivals that end a chunk early: a snapshot copies them under the lock.
const ARRIVAL_BYTES: usize = 256 << 10;
/// Chunks of one tier that become one of the next.
const FANOUT: usize = 8;
/// Records each unfinished merge moves when a chunk is sorted. At twice the arrivals a merge is done
/// when half of the next eight chunks are there, in every tier.
const STEP: usize = 2 * ARRIVALS;
/// So few chunks of the tiers are not worth a merge of all.
const CHUNKS_MIN: usize = 2;
/// Records to be merged for a chunk that was asked. Merging a record takes 0.1 to 0.2 µs of a thread that nobody
/// waits for, asking a chunk 0.3 of one that somebody does.
const RECORDS_PER_ASKED: usize = 8;
/// A chunk behind the tiers is merged with them if it is at most so many times larger than all before it.
const GROWTH: usize = 4;
/// Chunks are not merged beyond this, as their entries hold 32-bit offsets.
const CHUNK_BYTES_MAX: usize = 1 << 30;

const _: () = {
    assert!(CHUNK_BYTES_MAX <= u32::MAX as usize, "offsets have 32 bits");
    assert!(ARRIVAL_BYTES * FANOUT <= CHUNK_BYTES_MAX);
    assert!(CHUNKS_MIN < FANOUT);
    assert!(ARRIVALS * FANOUT <= STEP * (FANOUT / 2));
    assert!(ARRIVALS <= u32::MAX as usize, "so are arrivals");
    assert!(KEY_LEN_MAX <= u16::MAX as usize, "lengths 16");
};

/// The newest keys. One committer inserts; anyone takes a snapshot.
pub(crate) struct Memtable {
    inner: Mutex<Inner>,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Memtable {
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Adds records in the order of their seqnos. A snapshot sees all of a call or nothing.
    pub(crate) fn insert<'a>(&self, batch: impl IntoIterator<Item = KeyRecord<'a>>) {
        let mut inner = self.inner.lock();
        for record in batch {
            inner.push(&record);
        }
    }

    /// Returns the records as they are now.
    pub(crate) fn snapshot(&self) -> MemSnapshot {
        let (chunks, arrivals, version) = {
            let mut inner = self.inner.lock();
            let chunks = inner.published.clone();
            inner.asked += inner.fresh();
            if inner.arrivals.entries.is_empty() {
                return MemSnapshot {
                    newest: None,
                    chunks,
                };
            }
            if let Some(sorted) = &inner.sorted {
                debug_assert!(sorted.len() <= inner.arrivals.len(), "of each key the last");
                return MemSnapshot {
                    newest: Some(sorted.clone()),
                    chunks,
                };
            }
            // Sorted below, without the lock.
            (chunks, inner.arrivals.clone(), inner.version)
        };
        let sorted = Arc::new(arrivals.sorted(&mut Vec::new()));
        let mut inner = self.inner.lock();
        if inner.version == version {
            debug_assert!(sorted.len() <= inner.arrivals.len(), "each key once");
            inner.sorted = Some(sorted.clone());
        }
        drop(inner);
        MemSnapshot {
            newest: Some(sorted),
            chunks,
        }
    }

    /// Returns whether pages ask so many chunks that it pays to merge them.
    pub(crate) fn wants_merge(&self) -> bool {
        let inner = self.inner.lock();
        let asked = inner.asked.saturating_mul(RECORDS_PER_ASKED);
        inner.fresh() > CHUNKS_MIN
            && asked >= inner.to_merge().iter().map(|chunk| chunk.len()).sum()
            && inner.chunk_bytes <= CHUNK_BYTES_MAX
    }

    /// Merges the chunks of the tiers, without keeping inserts and snapshots from going on. Called by one
    /// thread at a time.
    pub(crate) fn merge(&self) {
        let inputs = self.begin_merge();
        self.end_merge(&inputs, all_merged(&inputs));
    }

    /// Sets the chunks to be merged apart from the tiers, and returns them.
    pub(super) fn begin_merge(&self) -> Vec<Arc<Chunk>> {
        let mut inner = self.inner.lock();
        let inputs = inner.to_merge().to_vec();
        debug_assert!(inputs.len() <= inner.published.len());
        inner.older = inner.published.to_vec();
        inner.tiers.clear();
        inner.asked = 0;
        inputs
    }

    /// Puts what they became in their place, unless they were frozen meanwhile.
    pub(super) fn end_merge(&self, inputs: &[Arc<Chunk>], merged: Vec<Arc<Chunk>>) {
        debug_assert!(merged.len() <= 1, "one chunk comes of it");
        debug_assert!(
            entries_of(&merged) <= entries_of(inputs),
            "merging adds nothing"
        );
        let mut inner = self.inner.lock();
        let both = inner.older.first().zip(inputs.first());
        if both.is_some_and(|(a, b)| Arc::ptr_eq(a, b)) {
            let mut both = inner.older.iter().zip(inputs);
            debug_assert!(both.all(|(a, b)| Arc::ptr_eq(a, b)), "where they lay");
            debug_assert!(inputs.len() <= inner.older.len(), "all are there");
            inner.older.splice(..inputs.len(), merged);
            inner.publish();
        }
    }

    /// Takes everything out and leaves the memtable empty, in one step to inserts and snapshots.
    ///
    /// Costs no more than sorting the arrivals. Merging the chunks is left to whoever writes the run.
    pub(crate) fn freeze(&self) -> Arc<Frozen> {
        let mut inner = self.inner.lock();
        let mut taken = std::mem::take(&mut *inner);
        // A snapshot under way must not leave its arrivals in the new memtable.
        inner.version = taken.version + 1;
        debug_assert!(inner.arrivals.entries.is_empty());
        debug_assert!(inner.published.is_empty());
        drop(inner);
        let mut chunks = Vec::with_capacity(taken.published.len() + 1);
        if !taken.arrivals.entries.is_empty() {
            chunks.push(Arc::new(taken.arrivals.sorted(&mut taken.order)));
        }
        chunks.extend(taken.published.iter().cloned());
        Arc::new(Frozen { chunks })
    }

    /// Returns about how many bytes of memory the records take, overwritten ones included until they
    /// are merged.
    pub(crate) fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        inner.chunk_bytes + inner.arrivals.memory()
    }

    /// Returns how many records there are, overwritten ones included until they are merged.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let inner = self.inner.lock();
        inner.chunk_entries + inner.arrivals.entries.len()
    }
}

/// The memtable at one moment.
#[derive(Clone, Default)]
pub(crate) struct MemSnapshot {
    newest: Option<Arc<Chunk>>,
    chunks: Arc<[Arc<Chunk>]>,
}

impl MemSnapshot {
    /// Newest first.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.newest
            .iter()
            .chain(self.chunks.iter())
            .map(|chunk| &**chunk)
    }
}

/// What a memtable held when it was frozen.
pub(crate) struct Frozen {
    /// Newest first.
    chunks: Vec<Arc<Chunk>>,
}

impl Frozen {
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().map(|chunk| &**chunk)
    }

    /// Returns how many records there are, some of them overwritten.
    pub(crate) fn len(&self) -> usize {
        self.chunks().map(Chunk::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks().map(Chunk::memory).sum()
    }
}

#[derive(Default)]
struct Inner {
    arrivals: Chunk,
    /// The arrivals as a snapshot sorted them, until the next insert.
    sorted: Option<Arc<Chunk>>,
    /// Counts what makes an older sorted copy of the arrivals stale.
    version: u64,
    /// Oldest chunks in the last tier.
    tiers: Vec<Tier>,
    /// What was merged, or is about to be: older than the tiers, newest first.
    older: Vec<Arc<Chunk>>,
    /// The chunks of all tiers and the older ones, newest first.
    published: Arc<[Arc<Chunk>]>,
    /// Chunks of the tiers that snapshots gave to pages since the last merge of all.
    asked: usize,
    chunk_bytes: usize,
    chunk_entries: usize,
    order: Vec<Order>,
}

#[derive(Default)]
struct Tier {
    /// Oldest first. The first [`FANOUT`] are the inputs of `merge`.
    chunks: Vec<Arc<Chunk>>,
    merge: Option<ChunkMerge>,
}

impl Inner {
    fn push(&mut self, record: &KeyRecord<'_>) {
        debug_assert!(
            self.arrivals.entries.len() < ARRIVALS,
            "what is full was sorted"
        );
        self.version += 1;
        self.sorted = None;
        self.arrivals.push(record);
        if self.arrivals.entries.len() == ARRIVALS || self.arrivals.bytes.len() >= ARRIVAL_BYTES {
            self.sort_arrivals();
        }
    }

    fn sort_arrivals(&mut self) {
        let chunk = self.arrivals.sorted(&mut self.order);
        self.arrivals.entries.clear();
        self.arrivals.bytes.clear();
        let mut finished = Some(Arc::new(chunk));
        let mut i = 0;
        while i < self.tiers.len() || finished.is_some() {
            if i == self.tiers.len() {
                self.tiers.push(Tier::default());
            }
            let tier = &mut self.tiers[i];
            tier.chunks.extend(finished.take());
            finished = tier.step();
            i += 1;
        }
        debug_assert!(self.arrivals.entries.is_empty(), "they are in a chunk");
        self.publish();
    }

    /// How many chunks the tiers have.
    fn fresh(&self) -> usize {
        debug_assert!(self.older.len() <= self.published.len(), "all are there");
        self.published.len().saturating_sub(self.older.len())
    }

    /// The chunks that a merge takes: those of the tiers, and behind them those that are not much larger.
    fn to_merge(&self) -> &[Arc<Chunk>] {
        let (fresh, older) = self.published.split_at(self.fresh());
        let mut records: usize = fresh.iter().map(|chunk| chunk.len()).sum();
        let alike = older.iter().take_while(|chunk| {
            let is_alike = chunk.len() <= GROWTH.saturating_mul(records);
            records += chunk.len();
            is_alike
        });
        &self.published[..fresh.len() + alike.count()]
    }

    fn publish(&mut self) {
        let newest_first = self.tiers.iter().flat_map(|tier| tier.chunks.iter().rev());
        self.published = newest_first.chain(&self.older).cloned().collect();
        debug_assert_eq!(
            self.published.len(),
            self.older.len()
                + self
                    .tiers
                    .iter()
                    .map(|tier| tier.chunks.len())
                    .sum::<usize>(),
            "each chunk once"
        );
        debug_assert!(self.published.iter().all(|chunk| chunk.len() > 0));
        self.chunk_bytes = self.published.iter().map(|chunk| chunk.memory()).sum();
        self.chunk_entries = self.published.iter().map(|chunk| chunk.len()).sum();
    }
}

impl Tier {
    /// Goes on with the merge, and returns the chunk it made if that is the end of it.
    fn step(&mut self) -> Option<Arc<Chunk>> {
        if self.merge.is_none() && self.chunks.len() >= FANOUT {
            let inputs = &self.chunks[..FANOUT];
            if inputs.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() <= CHUNK_BYTES_MAX {
                self.merge = Some(ChunkMerge::new(inputs.iter().rev()));
            }
        }
        let merge = self.merge.as_mut()?;
        if !merge.step(STEP) {
            return None;
        }
        let output = std::mem::take(&mut merge.output);
        debug_assert!(output.is_in_order(), "places are found by halving");
        debug_assert!(self.chunks.len() >= FANOUT, "its inputs are here");
        self.merge = None;
        self.chunks.drain(..FANOUT);
        Some(Arc::new(output))
    }
}

/// Sorted records; each key once. Arrivals, while they come in, are neither.
#[derive(Clone, Default)]
pub(super) struct Chunk {
    entries: Vec<Entry>,
    /// Keys and metadata, in the order of the entries: a walk reads memory forward.
    bytes: Vec<u8>,
    /// Of each sorted entry eight bytes of the key, after the first `skip`. A search reads these, close
    /// together, instead of keys all over memory.
    ranks: Vec<u64>,
    /// Bytes that all keys begin with; 0 when they are of several namespaces.
    skip: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    expiration: u64,
    seqno: u64,
    /// Of the key in the chunk's bytes; the metadata follows it.
    offset: u32,
    metadata_len: u32,
    namespace: u32,
    key_len: u16,
    tombstone: bool,
}

/// What arrivals are sorted by before their bytes are looked at.
#[derive(Clone, Copy)]
struct Order {
    rank: u64,
    namespace: u32,
    index: u32,
}

impl Chunk {
    fn with_capacity(entries: usize, bytes: usize, skip: usize) -> Self {
        Chunk {
            entries: Vec::with_capacity(entries),
            bytes: Vec::with_capacity(bytes),
            ranks: Vec::with_capacity(entries),
            skip,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Option<KeyRecord<'_>> {
        self.entries.get(place).map(|entry| self.record(entry))
    }

    /// Returns how many records are before (or with `after_equal`, not after) a sort key.
    pub(super) fn seek(&self, namespace: u32, key: &[u8], after_equal: bool) -> usize {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            return 0;
        };
        let (mut low, mut high) = (0, self.entries.len());
        if (first.namespace, last.namespace) != (namespace, namespace) {
            low = self
                .entries
                .partition_point(|entry| entry.namespace < namespace);
            high = self
                .entries
                .partition_point(|entry| entry.namespace <= namespace);
            if low == high {
                return low;
            }
        }
        let common = &self.key(first)[..self.skip];
        match key[..key.len().min(self.skip)].cmp(common) {
            Ordering::Less => return low,
            Ordering::Greater => return high,
            Ordering::Equal => {}
        }
        let wanted = rank(key, self.skip);
        debug_assert!(low <= high);
        debug_assert!(high <= self.ranks.len());
        let ranks = &self.ranks[low..high];
        let from = ranks.partition_point(|&rank| rank < wanted);
        // Mostly no other has the same eight bytes, and another search by halves would find that out.
        let same = match ranks.get(from) {
            Some(&rank) if rank == wanted => ranks[from..].partition_point(|&rank| rank <= wanted),
            _ => 0,
        };
        low += from;
        low + self.entries[low..low + same].partition_point(|entry| {
            let order = self.key(entry).cmp(key);
            order.is_lt() || (after_equal && order.is_eq())
        })
    }

    #[inline]
    fn key(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.offset as usize..][..usize::from(entry.key_len)]
    }

    #[inline]
    fn record(&self, entry: &Entry) -> KeyRecord<'_> {
        let bytes = &self.bytes[entry.offset as usize..];
        let (key, rest) = bytes.split_at(usize::from(entry.key_len));
        KeyRecord {
            namespace: entry.namespace,
            key,
            metadata: &rest[..entry.metadata_len as usize],
            expiration: entry.expiration,
            seqno: entry.seqno,
            tombstone: entry.tombstone,
        }
    }

    fn push(&mut self, record: &KeyRecord<'_>) {
        debug_assert!(self.ranks.is_empty(), "what is sorted stays as it is");
        let entry = Entry {
            expiration: record.expiration,
            seqno: record.seqno,
            offset: u32::try_from(self.bytes.len()).expect("chunks are below 4 GiB"),
            metadata_len: u32::try_from(record.metadata.len()).expect("metadata is below 4 GiB"),
            namespace: record.namespace,
            key_len: u16::try_from(record.key.len()).expect("keys are below 64 KiB"),
            tombstone: record.tombstone,
        };
        self.bytes.extend_from_slice(record.key);
        self.bytes.extend_from_slice(record.metadata);
        self.entries.push(entry);
    }

    /// Copies an entry of another chunk, with its bytes.
    #[inline]
    fn push_entry(&mut self, from: &Chunk, entry: &Entry, rank: u64) {
        let len = usize::from(entry.key_len) + entry.metadata_len as usize;
        let place = (entry.namespace, rank);
        let before = self.entries.last().zip(self.ranks.last());
        debug_assert!(before.is_none_or(|(last, &rank)| (last.namespace, rank) <= place));
        let offset = u32::try_from(self.bytes.len()).expect("chunks are below 4 GiB");
        self.bytes
            .extend_from_slice(&from.bytes[entry.offset as usize..][..len]);
        self.entries.push(Entry { offset, ..*entry });
        self.ranks.push(rank);
        debug_assert_eq!(self.ranks.len(), self.entries.len(), "a rank for each");
    }

    fn memory(&self) -> usize {
        self.entries.len() * (size_of::<Entry>() + size_of::<u64>()) + self.bytes.len()
    }

    /// Returns arrivals as a sorted chunk, of each key the last.
    fn sorted(&self, order: &mut Vec<Order>) -> Chunk {
        let skip = common_len(
            self.entries
                .iter()
                .map(|entry| (entry.namespace, self.key(entry))),
        );
        order.clear();
        order.extend(self.entries.iter().zip(0..).map(|(entry, index)| Order {
            rank: rank(self.key(entry), skip),
            namespace: entry.namespace,
            index,
        }));
        let key = |o: &Order| self.key(&self.entries[o.index as usize]);
        order.sort_unstable_by(|a, b| {
            (a.namespace, a.rank)
                .cmp(&(b.namespace, b.rank))
                .then_with(|| key(a).cmp(key(b)))
                .then(b.index.cmp(&a.index))
        });
        let mut chunk = Chunk::with_capacity(self.entries.len(), self.bytes.len(), skip);
        let mut before: Option<&Order> = None;
        for o in order.iter() {
            let same = before.is_some_and(|b| {
                (b.namespace, b.rank) == (o.namespace, o.rank) && key(b) == key(o)
            });
            if !same {
                chunk.push_entry(self, &self.entries[o.index as usize], o.rank);
            }
            before = Some(o);
        }
        debug_assert!(chunk.is_in_order(), "places are found by halving");
        debug_assert!(chunk.len() <= self.len());
        chunk
    }

    /// Whether keys rise, and each is there once. Asked by assertions alone.
    fn is_in_order(&self) -> bool {
        let place = |entry: &Entry| (entry.namespace, self.key(entry));
        let rises = self.entries.is_sorted_by(|a, b| place(a) < place(b));
        rises && self.ranks.len() == self.entries.len()
    }
}

/// Returns how many leading bytes all keys share, 0 when they are of several namespaces.
fn common_len<'a>(mut keys: impl Iterator<Item = (u32, &'a [u8])>) -> usize {
    let Some((namespace, first)) = keys.next() else {
        return 0;
    };
    let mut len = first.len();
    for (n, key) in keys {
        if n != namespace {
            return 0;
        }
        // Most keys share all of it, which one comparison of slices tells.
        if key.get(..len) != Some(&first[..len]) {
            len = first[..len]
                .iter()
                .zip(key)
                .take_while(|(a, b)| a == b)
                .count();
        }
    }
    len
}

/// How many entries chunks have. Asked by assertions alone.
fn entries_of(chunks: &[Arc<Chunk>]) -> usize {
    chunks.iter().map(|chunk| chunk.len()).sum()
}

/// Chunks, newest first, as one; none if there are none.
pub(super) fn all_merged(newest_first: &[Arc<Chunk>]) -> Vec<Arc<Chunk>> {
    let mut chunks = newest_first.to_vec();
    while chunks.len() > 1 {
        chunks = chunks.chunks(FANOUT).map(merged).collect();
    }
    chunks
}

/// Up to [`FANOUT`] chunks, newest first, as one.
fn merged(newest_first: &[Arc<Chunk>]) -> Arc<Chunk> {
    let mut merge = ChunkMerge::new(newest_first.iter());
    while !merge.step(STEP) {}
    debug_assert!(merge.output.is_in_order(), "places are found by halving");
    debug_assert!(merge.output.len() <= entries_of(newest_first));
    Arc::new(merge.output)
}

/// A merge of chunks that can be left and taken up again.
struct ChunkMerge {
    /// Newest first.
    inputs: [MergeInput; FANOUT],
    output: Chunk,
}

struct MergeInput {
    chunk: Arc<Chunk>,
    at: usize,
    /// Namespace and rank of the entry at `at`; the highest numbers past the end.
    head: (u32, u64),
}

impl ChunkMerge {
    /// Of [`FANOUT`] chunks at most, newest first.
    fn new<'a>(newest_first: impl Iterator<Item = &'a Arc<Chunk>> + Clone) -> Self {
        let chunks = || newest_first.clone();
        debug_assert!(chunks().count() <= FANOUT, "none is left out");
        let ends = chunks().flat_map(|chunk| {
            [chunk.entries.first(), chunk.entries.last()]
                .into_iter()
                .flatten()
                .map(|entry| (entry.namespace, chunk.key(entry)))
        });
        let skip = common_len(ends);
        let entries = chunks().map(|chunk| chunk.len()).sum();
        let bytes = chunks().map(|chunk| chunk.bytes.len()).sum();
        let mut chunks = chunks().cloned();
        let inputs = std::array::from_fn(|_| {
            let chunk = chunks.next().unwrap_or_default();
            let mut input = MergeInput {
                chunk,
                at: 0,
                head: (0, 0),
            };
            input.load(skip);
            input
        });
        let output = Chunk::with_capacity(entries, bytes, skip);
        ChunkMerge { inputs, output }
    }

    /// Moves some records; returns whether that was the last of them.
    fn step(&mut self, records: usize) -> bool {
        for _ in 0..records {
            let mut first = 0;
            for i in 1..FANOUT {
                match self.inputs[i].head.cmp(&self.inputs[first].head) {
                    Ordering::Greater => {}
                    Ordering::Less => first = i,
                    Ordering::Equal => {
                        if self.inputs[i].precedes(&self.inputs[first]) {
                            first = i;
                        }
                    }
                }
            }
            let input = &mut self.inputs[first];
            let Some(entry) = input.chunk.entries.get(input.at) else {
                let is_done = |input: &MergeInput| input.at == input.chunk.len();
                debug_assert!(self.inputs.iter().all(is_done), "all is moved");
                return true;
            };
            // Among equal keys the newest input comes first; what follows it is older.
            let key = input.chunk.key(entry);
            let older = self.output.entries.last().is_some_and(|last| {
                last.namespace == entry.namespace && self.output.key(last) == key
            });
            if !older {
                self.output.push_entry(&input.chunk, entry, input.head.1);
            }
            input.at += 1;
            input.load(self.output.skip);
        }
        false
    }
}

impl MergeInput {
    #[inline]
    fn load(&mut self, skip: usize) {
        debug_assert!(self.at <= self.chunk.len(), "nobody goes on behind the end");
        self.head = match self.chunk.entries.get(self.at) {
            Some(entry) => (entry.namespace, rank(self.chunk.key(entry), skip)),
            None => (u32::MAX, u64::MAX),
        };
    }

    /// Compares the keys of inputs whose heads are equal; an input at its end comes last.
    fn precedes(&self, newer: &MergeInput) -> bool {
        match (
            self.chunk.entries.get(self.at),
            newer.chunk.entries.get(newer.at),
        ) {
            (Some(a), Some(b)) => self.chunk.key(a) < newer.chunk.key(b),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}
