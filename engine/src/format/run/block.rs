//! What a block says: up to 32 front-coded records. Blocks of keys and of the index are alike.

use super::varint::{put_varint, short_varint, short_varint_len, varint, varint_len};
use super::{KEY_LEN_MAX, NAMESPACE_LEN, namespace_of};
use crate::format::run::KeyRecord;

/// Records in a block, at most.
pub(super) const BLOCK_RECORDS: u8 = 32;

const TOMBSTONE: u8 = 1;
const HAS_EXPIRATION: u8 = 2;
const HAS_METADATA: u8 = 4;
/// All of them, which are the lowest bits: what is above is no flag.
const FLAGS: u8 = TOMBSTONE | HAS_EXPIRATION | HAS_METADATA;

/// Bytes that are copied at once, whatever of them is needed: most suffixes are shorter, and a copy of a fixed
/// length has no branch that could be guessed wrong.
const AT_ONCE: usize = 64;
const _: () = {
    assert!(TOMBSTONE & HAS_EXPIRATION == 0, "flags are told apart");
    assert!((TOMBSTONE | HAS_EXPIRATION) & HAS_METADATA == 0);
    assert!((FLAGS + 1).is_power_of_two(), "none is left out");
    assert!(AT_ONCE > NAMESPACE_LEN, "most keys are copied at once");
};

/// A block that is being filled.
#[derive(Default)]
pub(super) struct BlockBuilder {
    records: Vec<Pending>,
    /// Suffixes and metadata of the records, in turn.
    bytes: Vec<u8>,
    /// The sort key that was added last.
    last: Vec<u8>,
}

struct Pending {
    shared: usize,
    suffix_len: usize,
    metadata_len: usize,
    expiration: u64,
    seqno: u64,
    tombstone: bool,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() == usize::from(BLOCK_RECORDS)
    }

    /// Bytes of suffixes and metadata.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record, whose own key and namespace do not count, under a sort key.
    pub(super) fn push(&mut self, sort_key: &[u8], record: &KeyRecord<'_>) {
        debug_assert!(!self.is_full(), "a full block is written first");
        debug_assert!(
            self.is_empty() || self.last.as_slice() < sort_key,
            "sort keys ascend"
        );
        let shared = if self.records.is_empty() {
            0
        } else {
            common_len(&self.last, sort_key)
        };
        let suffix = sort_key.get(shared..).unwrap_or_default();
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(record.metadata);
        debug_assert_eq!(shared + suffix.len(), sort_key.len(), "all of the key");
        self.records.push(Pending {
            shared,
            suffix_len: suffix.len(),
            metadata_len: record.metadata.len(),
            expiration: record.expiration,
            seqno: record.seqno,
            tombstone: record.tombstone,
        });
        self.last.clear();
        self.last.extend_from_slice(sort_key);
    }

    /// Appends what was added to `out`, and begins anew.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        debug_assert!(!self.is_empty(), "no block is without records");
        let begin = out.len();
        let base_seqno = self.records.iter().map(|p| p.seqno).min().unwrap_or(0);
        let expirations = self.records.iter().map(|p| p.expiration);
        let base_expiration = expirations.filter(|&e| e != 0).min().unwrap_or(0);
        out.push(u8::try_from(self.records.len()).expect("a block is written when full"));
        put_varint(out, base_seqno);
        put_varint(out, base_expiration);
        let mut bytes = self.bytes.as_slice();
        for p in &self.records {
            let mut flags = 0;
            flags |= if p.tombstone { TOMBSTONE } else { 0 };
            flags |= if p.expiration != 0 { HAS_EXPIRATION } else { 0 };
            flags |= if p.metadata_len != 0 { HAS_METADATA } else { 0 };
            out.push(flags);
            put_varint(out, p.shared as u64);
            put_varint(out, p.suffix_len as u64);
            put_varint(out, p.seqno - base_seqno);
            if p.expiration != 0 {
                put_varint(out, p.expiration - base_expiration);
            }
            if p.metadata_len != 0 {
                put_varint(out, p.metadata_len as u64);
            }
            debug_assert!(
                p.seqno >= base_seqno && (p.expiration == 0 || p.expiration >= base_expiration)
            );
            let (own, rest) = bytes.split_at(p.suffix_len + p.metadata_len);
            out.extend_from_slice(own);
            bytes = rest;
        }
        debug_assert!(bytes.is_empty(), "every byte is some record's");
        debug_assert!(
            Records::new(out.get(begin..).unwrap_or_default()).is_some_and(|read| usize::from(
                read.left
            ) == self
                .records
                .len()),
            "it is what will be read"
        );
        self.records.clear();
        self.bytes.clear();
    }
}

/// Returns how many bytes two keys begin with together.
#[inline]
pub(crate) fn common_len(a: &[u8], b: &[u8]) -> usize {
    let ((a_words, _), (b_words, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut same = 0;
    // Eight at once: where they part is not known to a branch before.
    for (a, b) in a_words.iter().zip(b_words) {
        let differs = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differs != 0 {
            return same + differs.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let (a, b) = (a.get(same..), b.get(same..));
    let rest = a.unwrap_or_default().iter().zip(b.unwrap_or_default());
    same + rest.take_while(|(a, b)| a == b).count()
}

/// A record as it lies in a block: of its sort key only what differs from the one before it.
#[derive(Clone, Copy)]
pub(super) struct Coded<'a> {
    pub(super) shared: usize,
    pub(super) suffix: &'a [u8],
    /// The suffix, and what follows it in the block.
    ahead: &'a [u8],
    pub(super) metadata: &'a [u8],
    pub(super) expiration: u64,
    pub(super) seqno: u64,
    pub(super) tombstone: bool,
}

/// Bytes that are no block.
pub(super) struct Malformed;

/// The records of a block that are still to be read.
#[derive(Clone, Copy, Default)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
    left: u8,
    base_seqno: u64,
    base_expiration: u64,
}

impl<'a> Records<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Option<Records<'a>> {
        let (&left, mut rest) = payload.split_first()?;
        let base_seqno = varint(&mut rest)?;
        let base_expiration = varint(&mut rest)?;
        (1..=BLOCK_RECORDS).contains(&left).then_some(Records {
            rest,
            left,
            base_seqno,
            base_expiration,
        })
    }

    /// How many records are still to be read.
    pub(super) fn left(&self) -> u8 {
        self.left
    }

    /// The next record if it is like nearly all; `None` is no answer.
    ///
    /// Apart from [`next`](Records::next), as what comes from two places is put together in memory, from where it is
    /// copied in pieces larger than those that were just written: the processor waits for that.
    #[inline]
    pub(super) fn next_short(&mut self) -> Option<Coded<'a>> {
        let left = self.left.checked_sub(1)?;
        let record = self.parse_short()?;
        self.left = left;
        Some(record)
    }

    /// The next record, `None` behind the last.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Coded<'a>>, Malformed> {
        debug_assert!(self.left <= BLOCK_RECORDS);
        if self.left == 0 {
            return self.end();
        }
        self.left -= 1;
        match self.parse_short() {
            Some(record) => Ok(Some(record)),
            None => self.parse(),
        }
    }

    /// A block has zeroes behind its last record if it would be too short without.
    #[cold]
    fn end(&self) -> Result<Option<Coded<'a>>, Malformed> {
        let is_end = self.rest.iter().all(|byte| *byte == 0);
        if is_end { Ok(None) } else { Err(Malformed) }
    }

    /// A record whose lengths take a byte each, as nearly all do, and that is not at the very end: it is read
    /// without a branch for each byte. `None` is no answer.
    #[inline]
    fn parse_short(&mut self) -> Option<Coded<'a>> {
        let rest = self.rest;
        let [flags, shared, suffix_len, seqno @ ..] = rest.first_chunk::<11>()?;
        if *flags > FLAGS || (shared | suffix_len) > 127 {
            return None;
        }
        let (seqno, len) = short_varint(seqno)?;
        let seqno = self.base_seqno.checked_add(seqno)?;
        let mut at = 3 + len;
        let mut expiration = 0;
        if flags & HAS_EXPIRATION != 0 {
            let (since, len) = short_varint(rest.get(at..)?.first_chunk()?)?;
            expiration = self.base_expiration.checked_add(since)?;
            at += len;
            if expiration == 0 {
                return None;
            }
        }
        let has_metadata = flags & HAS_METADATA != 0;
        let metadata_len = if has_metadata { *rest.get(at)? } else { 0 };
        if metadata_len > 127 {
            return None;
        }
        let ahead = rest.get(at + usize::from(has_metadata)..)?;
        let (suffix, behind) = ahead.split_at_checked(usize::from(*suffix_len))?;
        let (metadata, rest) = behind.split_at_checked(usize::from(metadata_len))?;
        debug_assert!(
            Records { ..*self }.parse_any().is_some_and(|any| {
                (any.seqno, any.expiration) == (seqno, expiration) && any.suffix == suffix
            }),
            "both ways read the same"
        );
        self.rest = rest;
        Some(Coded {
            shared: usize::from(*shared),
            suffix,
            ahead,
            metadata,
            expiration,
            seqno,
            tombstone: flags & TOMBSTONE != 0,
        })
    }

    #[cold]
    fn parse(&mut self) -> Result<Option<Coded<'a>>, Malformed> {
        self.parse_any().map(Some).ok_or(Malformed)
    }

    fn parse_any(&mut self) -> Option<Coded<'a>> {
        let (&flags, mut rest) = self.rest.split_first()?;
        if flags > FLAGS {
            return None;
        }
        let shared = varint_len(&mut rest)?;
        let suffix_len = varint_len(&mut rest)?;
        let seqno = self.base_seqno.checked_add(varint(&mut rest)?)?;
        let mut expiration = 0;
        if flags & HAS_EXPIRATION != 0 {
            expiration = self.base_expiration.checked_add(varint(&mut rest)?)?;
            if expiration == 0 {
                return None;
            }
        }
        let mut metadata_len = 0;
        if flags & HAS_METADATA != 0 {
            metadata_len = varint_len(&mut rest)?;
        }
        let ahead = rest;
        let (suffix, rest) = rest.split_at_checked(suffix_len)?;
        let (metadata, rest) = rest.split_at_checked(metadata_len)?;
        self.rest = rest;
        Some(Coded {
            shared,
            suffix,
            ahead,
            metadata,
            expiration,
            seqno,
            tombstone: flags & TOMBSTONE != 0,
        })
    }

    /// Goes to the first record after a sort key (or with `or_equal`, not before it).
    ///
    /// No key is put together on the way. The key before a record either agrees with the sort key for more bytes
    /// than with the record, which is then past it; or for fewer, and then the record is before it as well;
    /// or for as many, and then the suffix decides. Nothing else of the records that are passed is read.
    pub(super) fn seek(&mut self, sort_key: &[u8], or_equal: bool) -> Result<Found<'a>, Malformed> {
        // Bytes that the record before and the sort key begin with.
        let mut agreed = 0;
        let mut before = None;
        let found = loop {
            if self.left == 0 {
                self.end()?;
                break None;
            }
            let record = self.skim().ok_or(Malformed)?;
            if record.shared < agreed {
                // It is past the record before, and so must be past what that agrees with.
                let is_past = record.suffix.first() > sort_key.get(record.shared);
                if !is_past {
                    return Err(Malformed);
                }
                break Some(record.shared);
            }
            if record.shared == agreed {
                let wanted = sort_key.get(agreed..).unwrap_or_default();
                let same = common_len(record.suffix, wanted);
                let is_past = match (record.suffix.get(same), wanted.get(same)) {
                    (Some(a), Some(b)) => a > b,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                    (None, None) => or_equal,
                };
                if is_past {
                    break Some(agreed);
                }
                agreed += same;
                debug_assert!(agreed <= sort_key.len(), "no more agrees than there is");
            }
            before = Some((self.rest, self.left));
            self.rest = record.behind;
            self.left -= 1;
        };
        let before = before.map(|(rest, left)| Records {
            rest,
            left,
            ..*self
        });
        let record = match found {
            Some(shared) => self.next()?.map(|record| (shared, record)),
            None => None,
        };
        debug_assert_eq!(found.is_some(), record.is_some(), "what was found is read");
        Ok(Found { before, record })
    }

    /// Reads of the next record what a search needs.
    #[inline]
    fn skim(&self) -> Option<Skimmed<'a>> {
        self.skim_short().or_else(|| self.skim_any())
    }

    /// As [`parse_short`](Records::parse_short).
    #[inline]
    fn skim_short(&self) -> Option<Skimmed<'a>> {
        let [flags, shared, suffix_len, seqno @ ..] = self.rest.first_chunk::<11>()?;
        if *flags > FLAGS || (shared | suffix_len) > 127 {
            return None;
        }
        let mut at = 3 + short_varint_len(seqno)?;
        if flags & HAS_EXPIRATION != 0 {
            at += short_varint_len(self.rest.get(at..)?.first_chunk()?)?;
        }
        let has_metadata = flags & HAS_METADATA != 0;
        let metadata_len = if has_metadata { *self.rest.get(at)? } else { 0 };
        if metadata_len > 127 {
            return None;
        }
        let rest = self.rest.get(at + usize::from(has_metadata)..)?;
        let (suffix, rest) = rest.split_at_checked(usize::from(*suffix_len))?;
        let behind = rest.get(usize::from(metadata_len)..)?;
        debug_assert!(
            self.skim_any()
                .is_none_or(|any| any.suffix == suffix && any.behind == behind),
            "both ways read the same"
        );
        Some(Skimmed {
            shared: usize::from(*shared),
            suffix,
            behind,
        })
    }

    #[cold]
    fn skim_any(&self) -> Option<Skimmed<'a>> {
        let mut records = *self;
        let record = records.parse_any()?;
        Some(Skimmed {
            shared: record.shared,
            suffix: record.suffix,
            behind: records.rest,
        })
    }
}

/// Where a search in a block ends.
pub(super) struct Found<'a> {
    /// What begins with the last record that was passed; `None` if none was.
    pub(super) before: Option<Records<'a>>,
    /// The record, and how many bytes it and what was sought begin with; `None` behind the last.
    pub(super) record: Option<(usize, Coded<'a>)>,
}

/// What a search reads of a record.
struct Skimmed<'a> {
    shared: usize,
    suffix: &'a [u8],
    /// The records that follow.
    behind: &'a [u8],
}

/// A sort key that is put together record by record.
#[derive(Default)]
pub(super) struct SortKey {
    /// The key, and behind it room for what is copied at once.
    bytes: Vec<u8>,
    len: usize,
    namespace: u32,
}

impl SortKey {
    pub(super) fn namespace(&self) -> u32 {
        self.namespace
    }

    fn whole(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        debug_assert!(self.len <= self.bytes.len(), "room lies behind the key");
        self.bytes.get(NAMESPACE_LEN..self.len).unwrap_or_default()
    }

    /// Becomes a sort key that no record need have.
    pub(super) fn set_to(&mut self, sort_key: &[u8]) {
        self.put(0, sort_key);
    }

    /// Becomes the sort key of a record found by a search, which shares `shared` bytes with what was
    /// searched for.
    #[must_use]
    pub(super) fn set(&mut self, sort_key: &[u8], shared: usize, record: &Coded<'_>) -> bool {
        debug_assert!(shared <= sort_key.len(), "what is shared is there");
        self.put(0, sort_key.get(..shared).unwrap_or_default());
        self.namespace = namespace_of(sort_key).unwrap_or(0);
        self.append(shared, record)
    }

    /// Becomes the sort key of the first record of the next block, which must be after this one.
    #[must_use]
    pub(super) fn begin(&mut self, record: &Coded<'_>) -> bool {
        record.shared == 0 && record.suffix > self.whole() && self.append(0, record)
    }

    /// Becomes the sort key of the record that follows. Says whether that is after this one.
    #[inline]
    #[must_use]
    pub(super) fn follow(&mut self, record: &Coded<'_>) -> bool {
        // One byte tells the order, as the shared part is the longest possible.
        let ascending = match (record.suffix.first(), self.bytes.get(record.shared)) {
            (Some(new), Some(old)) if record.shared < self.len => new > old,
            (Some(_), _) => record.shared == self.len,
            (None, _) => false,
        };
        ascending && self.append(record.shared, record)
    }

    /// The key for who adds records to it that are like most. It is no key until that says how long it
    /// [became](SortKey::set_len).
    #[inline]
    pub(super) fn growing(&mut self) -> Growing<'_> {
        Growing {
            bytes: &mut self.bytes,
            len: self.len,
        }
    }

    /// Has become so long, [growing](SortKey::growing).
    #[inline]
    pub(super) fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.bytes.len(), "room lies behind the key");
        self.len = len;
    }

    /// Says whether the key is neither too short nor too long. What is built is bounded, whatever the bytes say.
    #[inline]
    fn append(&mut self, shared: usize, record: &Coded<'_>) -> bool {
        if record.suffix.len() > (NAMESPACE_LEN + KEY_LEN_MAX).saturating_sub(shared) {
            return false;
        }
        debug_assert!(shared <= self.len, "what is shared is there");
        debug_assert!(record.ahead.starts_with(record.suffix), "or another");
        let room = self.bytes.get_mut(shared..);
        let room = room.and_then(|room| room.first_chunk_mut::<AT_ONCE>());
        match (room, record.ahead.first_chunk()) {
            (Some(to), Some(from)) if record.suffix.len() <= AT_ONCE => {
                *to = *from;
                self.len = shared + record.suffix.len();
                debug_assert!(self.len <= self.bytes.len(), "it was copied");
            }
            _ => self.put(shared, record.suffix),
        }
        shared >= NAMESPACE_LEN || self.begins_with_a_namespace()
    }

    fn begins_with_a_namespace(&mut self) -> bool {
        let namespace = namespace_of(self.whole());
        self.namespace = namespace.unwrap_or(0);
        namespace.is_some()
    }

    #[cold]
    fn put(&mut self, shared: usize, suffix: &[u8]) {
        self.bytes.truncate(shared);
        // Once, for the room behind it as well.
        self.bytes.reserve(suffix.len() + 4 * AT_ONCE);
        self.bytes.extend_from_slice(suffix);
        self.len = self.bytes.len();
        debug_assert_eq!(self.len, shared + suffix.len(), "what is shared was there");
        self.bytes.resize(self.len + 2 * AT_ONCE, 0);
    }
}

/// A sort key to which records are added that are like most.
pub(super) struct Growing<'a> {
    /// The key, and behind it room for what is copied at once.
    bytes: &'a mut [u8],
    len: usize,
}

impl Growing<'_> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        debug_assert!(self.len <= self.bytes.len(), "room lies behind the key");
        self.bytes.get(NAMESPACE_LEN..self.len).unwrap_or_default()
    }

    /// Becomes the sort key of the record that follows, if it has the same namespace, can be copied at once and is after
    /// this one. Otherwise it stays as it is, and [`SortKey::follow`] decides.
    #[inline]
    #[must_use]
    pub(super) fn grow(&mut self, record: &Coded<'_>) -> bool {
        debug_assert!(record.ahead.starts_with(record.suffix), "or another");
        let (shared, suffix) = (record.shared, record.suffix);
        let has_namespace = (NAMESPACE_LEN..=self.len).contains(&shared);
        let room = self.bytes.get_mut(shared..);
        let room = room.and_then(|room| room.first_chunk_mut::<AT_ONCE>());
        let (Some(to), Some(from)) = (room, record.ahead.first_chunk()) else {
            return false;
        };
        // One byte tells the order, as in `SortKey::follow`; if all is shared it lies behind the key, and may be anything.
        let [old, ..] = *to;
        let ascends = |new: &u8| shared == self.len || *new > old;
        if !has_namespace || suffix.len() > AT_ONCE || !suffix.first().is_some_and(ascends) {
            return false;
        }
        *to = *from;
        self.len = shared + suffix.len();
        true
    }
}

/// A whole block, for whoever walks backwards. Keys are put together again in one buffer; metadata is
/// lent from the run.
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

    #[inline]
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

    /// Returns how many records are before (or with `after_equal`, not after) a sort key.
    pub(crate) fn seek(&self, namespace: u32, key: &[u8], after_equal: bool) -> usize {
        debug_assert!(self.items.iter().all(|item| item.start <= item.end));
        self.items.partition_point(|item| {
            let order = (item.namespace, self.key(item)).cmp(&(namespace, key));
            order.is_lt() || (after_equal && order.is_eq())
        })
    }

    /// The last sort key.
    pub(super) fn last(&self) -> Option<(u32, Vec<u8>)> {
        let last = self.items.last()?;
        Some((last.namespace, self.key(last).to_vec()))
    }

    /// Whether the first sort key is not after this one.
    pub(super) fn starts_before(&self, (namespace, key): &(u32, Vec<u8>)) -> bool {
        self.seek(*namespace, key, true) > 0
    }

    fn key(&self, item: &Item<'_>) -> &[u8] {
        debug_assert!(item.end as usize <= self.keys.len(), "it was put there");
        self.keys
            .get(item.start as usize..item.end as usize)
            .unwrap_or_default()
    }

    /// Becomes the block of a payload.
    pub(super) fn decode(&mut self, payload: &'a [u8]) -> Result<(), Malformed> {
        self.keys.clear();
        self.items.clear();
        let mut records = Records::new(payload).ok_or(Malformed)?;
        let mut key = SortKey::default();
        while let Some(record) = records.next()? {
            let is_next = if self.items.is_empty() {
                key.begin(&record)
            } else {
                key.follow(&record)
            };
            if !is_next {
                return Err(Malformed);
            }
            let start = self.keys.len();
            self.keys.extend_from_slice(key.key());
            let place = |at: usize| u32::try_from(at).map_err(|_| Malformed);
            self.items.push(Item {
                start: place(start)?,
                end: place(self.keys.len())?,
                namespace: key.namespace(),
                tombstone: record.tombstone,
                expiration: record.expiration,
                seqno: record.seqno,
                metadata: record.metadata,
            });
        }
        debug_assert!(self.items.len() <= usize::from(BLOCK_RECORDS));
        debug_assert!(
            self.items
                .is_sorted_by(|a, b| (a.namespace, self.key(a)) < (b.namespace, self.key(b))),
            "places are found by halving"
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]
mod tests;
