//! The least work with which a store of our shape could answer: a table of buckets that are one
//! cache line each, records back to back, both in anonymous memory with huge pages, and the keys
//! once more in order. Looks at the expiration of a record and, if `CRC`, at the checksum of all of
//! it. No files, no concurrency control, loaded once: a yardstick, not an engine.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::{Engine, Reader, Setup, parts};
use crate::data::{Entry, Key};

/// Entries of a bucket, and how many of them are taken on average.
const SLOTS: usize = 8;
const LOAD: f64 = 0.75;
/// Keys of the ordered run between two that a search compares with.
const STRIDE: usize = 32;
/// Keys of a batch that are looked up at once.
const GROUP: usize = 32;
/// Checksum, expiration, length of the value, of the key, of the metadata, padding.
const HEADER: usize = 16;
/// Records begin at multiples of this, so that 48 bits locate enough.
const ALIGN: usize = 8;

/// One cache line. Slots fill in order; a tag of 0 is a free slot.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    locations: [[u8; 6]; SLOTS],
}

pub(super) struct Limit<const CRC: bool> {
    buckets: Vec<Bucket>,
    records: Vec<u8>,
    /// Lengths, key and metadata of every entry, in the order of keys, and where each `STRIDE`th is.
    run: Vec<u8>,
    strides: Vec<usize>,
    /// The time that expirations are compared with.
    now: u32,
}

struct Record<'r> {
    key: &'r [u8],
    metadata: &'r [u8],
    value: &'r [u8],
}

impl<const CRC: bool> Engine for Limit<CRC> {
    type Reader<'r> = View<'r, CRC>;

    fn open(setup: &Setup) -> Self {
        Limit {
            buckets: Vec::new(),
            // Address space only; pages are taken as records come.
            records: in_huge_pages((setup.bytes * 3 / 2) as usize + (64 << 20)),
            run: Vec::new(),
            strides: Vec::new(),
            now: 1,
        }
    }

    fn read<R>(&self, f: impl FnOnce(&mut View<'_, CRC>) -> R) -> R {
        f(&mut View(self))
    }

    fn load(&mut self, batches: &mut dyn Iterator<Item = Vec<Entry>>) {
        let mut found: Vec<(u64, usize)> = Vec::new();
        for entry in batches.flatten() {
            found.push((xxh3_64(&entry.key), self.append(&entry)));
        }
        let buckets = (found.len() as f64 / (SLOTS as f64 * LOAD)).ceil() as usize;
        self.buckets = in_huge_pages(buckets);
        self.buckets.resize(buckets, Bucket::default());
        for &(hash, location) in &found {
            self.insert(hash, location);
        }
        self.sort(found.into_iter().map(|(_, location)| location).collect());
    }

    fn put(&self, _: &Entry) {
        unreachable!("loaded once: its abilities say so")
    }

    fn put_all(&self, _: &[Entry]) {
        unreachable!("loaded once: its abilities say so")
    }
}

impl<const CRC: bool> Limit<CRC> {
    /// Appends a record; where it begins.
    fn append(&mut self, entry: &Entry) -> usize {
        let location = self.records.len();
        let mut header = [0; HEADER];
        header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        header[8..12].copy_from_slice(&(entry.value.len() as u32).to_le_bytes());
        header[12] = entry.key.len() as u8;
        header[13] = entry.metadata.len() as u8;
        for part in [&header[..], &entry.key, &entry.metadata, &entry.value] {
            self.records.extend_from_slice(part);
        }
        let crc = crc32fast::hash(&self.records[location + 4..]);
        self.records[location..location + 4].copy_from_slice(&crc.to_le_bytes());
        let padded = self.records.len().next_multiple_of(ALIGN);
        self.records.resize(padded, 0);
        location
    }

    fn insert(&mut self, hash: u64, location: usize) {
        let mut at = self.bucket(hash);
        let slot = loop {
            let free = self.buckets[at].tags.iter().position(|&tag| tag == 0);
            match free {
                Some(slot) => break slot,
                None => at = (at + 1) % self.buckets.len(),
            }
        };
        let bytes = ((location / ALIGN) as u64).to_le_bytes();
        self.buckets[at].tags[slot] = tag(hash);
        self.buckets[at].locations[slot].copy_from_slice(&bytes[..6]);
    }

    /// Writes the ordered run of the records at these places.
    fn sort(&mut self, mut locations: Vec<usize>) {
        locations.sort_unstable_by(|&a, &b| self.record(a).key.cmp(self.record(b).key));
        let (mut run, mut strides) = (Vec::new(), Vec::new());
        for (n, location) in locations.into_iter().enumerate() {
            if n.is_multiple_of(STRIDE) {
                strides.push(run.len());
            }
            let record = self.record(location);
            run.push(record.key.len() as u8);
            run.extend_from_slice(record.key);
            run.push(record.metadata.len() as u8);
            run.extend_from_slice(record.metadata);
        }
        (self.run, self.strides) = (run, strides);
    }

    fn bucket(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    /// The bytes of a record's header and what follows, not yet looked at.
    fn header(&self, location: usize) -> (u32, Range<usize>) {
        let header = &self.records[location..location + HEADER];
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| header[at + n]));
        let parts = usize::from(header[12]) + usize::from(header[13]) + word(8) as usize;
        (word(4), location..location + HEADER + parts)
    }

    fn record(&self, location: usize) -> Record<'_> {
        let bytes = &self.records[self.header(location).1];
        let (header, rest) = bytes.split_at(HEADER);
        let (key, rest) = rest.split_at(usize::from(header[12]));
        let (metadata, value) = rest.split_at(usize::from(header[13]));
        Record {
            key,
            metadata,
            value,
        }
    }

    /// Places of records whose key may have this hash.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (mut at, tag) = (self.bucket(hash), tag(hash));
        let mut hits = matches(&self.buckets[at].tags, tag);
        std::iter::from_fn(move || {
            loop {
                let bucket = &self.buckets[at];
                if hits != 0 {
                    let slot = hits.trailing_zeros() as usize;
                    hits &= hits - 1;
                    let mut bytes = [0; 8];
                    bytes[..6].copy_from_slice(&bucket.locations[slot]);
                    return Some(u64::from_le_bytes(bytes) as usize * ALIGN);
                }
                if bucket.tags[SLOTS - 1] == 0 {
                    return None;
                }
                at = (at + 1) % self.buckets.len();
                hits = matches(&self.buckets[at].tags, tag);
            }
        })
    }

    fn find(&self, key: &[u8], hash: u64) -> Option<Record<'_>> {
        for location in self.candidates(hash) {
            let record = self.record(location);
            if record.key == key {
                return self.intact(location).then_some(record);
            }
        }
        None
    }

    /// Whether a record is to be seen.
    fn intact(&self, location: usize) -> bool {
        let (expiration, range) = self.header(location);
        if CRC {
            let (crc, checked) = self.records[range].split_at(4);
            assert_eq!(crc32fast::hash(checked).to_le_bytes(), crc);
        }
        expiration > self.now
    }
}

/// The bits of a hash that a slot keeps, and that do not choose the bucket.
fn tag(hash: u64) -> u16 {
    (hash as u16).max(1)
}

/// A bit for each slot that holds this tag; compiles to one vector comparison.
fn matches(tags: &[u16; SLOTS], tag: u16) -> u8 {
    let bit = |slot: usize| u8::from(tags[slot] == tag) << slot;
    (0..SLOTS).fold(0, |bits, slot| bits | bit(slot))
}

pub(super) struct View<'r, const CRC: bool>(&'r Limit<CRC>);

impl<const CRC: bool> Reader for View<'_, CRC> {
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(&[u8], &[u8]) -> R) -> Option<R> {
        let record = self.0.find(key, xxh3_64(key))?;
        Some(f(record.metadata, record.value))
    }

    /// Fetches the lines of many keys at once: first the buckets, then the records.
    fn get_many(&mut self, keys: &[Key], mut f: impl FnMut(&[u8], &[u8])) {
        let limit = self.0;
        for keys in keys.chunks(GROUP) {
            let mut hashes = [0; GROUP];
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = xxh3_64(key.as_ref());
                prefetch(&limit.buckets[limit.bucket(*hash)]);
            }
            for &hash in &hashes[..keys.len()] {
                if let Some(location) = limit.candidates(hash).next() {
                    let bytes = &limit.records[location..];
                    (0..bytes.len().min(128))
                        .step_by(64)
                        .for_each(|line| prefetch(&bytes[line]));
                }
            }
            for (key, hash) in keys.iter().zip(hashes) {
                if let Some(record) = limit.find(key.as_ref(), hash) {
                    f(record.metadata, record.value);
                }
            }
        }
    }

    fn list(&mut self, start: &[u8], limit: usize, mut f: impl FnMut(&[u8], &[u8])) {
        let Limit { run, strides, .. } = self.0;
        let before = strides.partition_point(|&at| parts(&run[at..]).0 <= start);
        let Some(&first) = strides.get(before.saturating_sub(1)) else {
            return;
        };
        let mut rest = &run[first..];
        let mut listed = 0;
        while listed < limit && !rest.is_empty() {
            let (key, tail) = parts(rest);
            let (metadata, tail) = parts(tail);
            if key >= start {
                f(key, metadata);
                listed += 1;
            }
            rest = tail;
        }
    }
}

/// An empty vector whose memory will be in huge pages, if the system has them.
#[allow(unsafe_code, reason = "madvise takes an address")]
fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
    const PAGE: usize = 4096;
    let vec = Vec::<T>::with_capacity(capacity);
    let start = (vec.as_ptr() as usize).next_multiple_of(PAGE);
    let end = vec.as_ptr() as usize + vec.capacity() * size_of::<T>();
    if let Some(len) = end.checked_sub(start) {
        let advice = rustix::mm::Advice::LinuxHugepage;
        // SAFETY: the range lies in the vector's own allocation, and the advice changes no byte.
        let advised = unsafe { rustix::mm::madvise(start as *mut _, len / PAGE * PAGE, advice) };
        // A kernel without huge pages makes the yardstick a little slower.
        let _ = advised;
    }
    vec
}

#[allow(unsafe_code, reason = "a prefetch takes an address")]
fn prefetch<T>(line: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and the address is that of a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(line);
}
