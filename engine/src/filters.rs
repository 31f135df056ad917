//! Which segments may hold a put of a key: so that a tombstone goes as soon as nothing older is left.
//!
//! A Bloom filter of the keys of each segment, made when it is first asked for. Compaction asks only
//! about tombstones, so a store without deletes has none.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::segment::StoreId;
use crate::log::segment::Segment;
use crate::records::{RECORDS_AT_ONCE, Records};
use crate::worker::Signal;

/// Bits for each put and how many of them are set: one key in a thousand is found by mistake.
const BITS: usize = 16;
const PROBES: u64 = 6;
/// Memory for all filters. Beyond it a segment may hold anything.
const BYTES_MAX: usize = 128 << 20;

const _: () = assert!(BITS.is_power_of_two() && PROBES < BITS as u64);
/// Tombstones of a segment that are asked about to guess how many of them are needed.
const SAMPLE: usize = 64;

/// The filters that were made so far, by id of the segment.
#[derive(Default)]
pub(crate) struct Filters {
    made: HashMap<u64, Filter>,
    bytes: usize,
    /// Bytes of segments that may be read for new ones.
    allowed: u64,
    /// Whether one was asked for that could not be made now.
    is_short: bool,
}

/// Whose segments are read, and what ends that early.
pub(crate) struct Reading<'a> {
    pub(crate) store: StoreId,
    pub(crate) work: &'a Signal,
}

struct Filter {
    /// How much of the segment it knows.
    end: u64,
    words: Vec<u64>,
    /// Some of its tombstones: hash and sequence number.
    sample: Vec<(u64, u64)>,
    /// Whether all of the segment could be read.
    is_whole: bool,
}

impl Filters {
    /// From now on about so many bytes of segments may be read for new filters. A segment that has none
    /// may hold anything.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.allowed = bytes;
    }

    /// Whether one of these segments may hold a put of this key that is older.
    pub(crate) fn may_hold(
        &mut self,
        segments: &[(u32, Arc<Segment>)],
        reading: &Reading<'_>,
        hash: u64,
        seqno: u64,
    ) -> bool {
        segments.iter().any(|(number, segment)| {
            segment.usage.counts().lowest_seqno < seqno
                && self
                    .get(*number, segment, reading)
                    .is_none_or(|filter| filter.may_hold(hash))
        })
    }

    /// About how many of a segment's tombstones, in thousandths, others of these still need; `None` if
    /// that cannot be found out now.
    pub(crate) fn needed(
        &mut self,
        id: u64,
        segments: &[(u32, Arc<Segment>)],
        reading: &Reading<'_>,
    ) -> Option<u64> {
        debug_assert!(
            segments.iter().any(|(_, segment)| segment.id == id),
            "it is asked of one that is there"
        );
        self.is_short = false;
        let own = segments.iter().find(|(_, segment)| segment.id == id);
        let own = own.and_then(|(number, segment)| self.get(*number, segment, reading));
        let sample = own.map(|filter| filter.sample.clone()).unwrap_or_default();
        if sample.is_empty() {
            return (!self.is_short).then_some(1000);
        }
        let mut others = segments.to_vec();
        others.retain(|(_, segment)| segment.id != id);
        let needed = sample
            .iter()
            .filter(|(hash, seqno)| self.may_hold(&others, reading, *hash, *seqno))
            .count();
        let needed = needed.saturating_mul(1000) / sample.len();
        debug_assert!(needed <= 1000);
        debug_assert!(sample.len() <= SAMPLE);
        (!self.is_short).then_some(u64::try_from(needed).unwrap_or(1000))
    }

    /// A segment is gone.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(filter) = self.made.remove(&id) {
            debug_assert!(self.bytes >= filter.bytes(), "it was counted");
            self.bytes = self.bytes.saturating_sub(filter.bytes());
        }
    }

    fn get(
        &mut self,
        number: u32,
        segment: &Arc<Segment>,
        reading: &Reading<'_>,
    ) -> Option<&Filter> {
        let end = segment.end();
        if self.made.get(&segment.id).is_some_and(|f| f.end != end) {
            // An open class segment, which grew.
            self.forget(segment.id);
        }
        if !self.made.contains_key(&segment.id) {
            let puts = usize::try_from(segment.usage.counts().puts).ok()?;
            if self.bytes.saturating_add(puts.saturating_mul(BITS / 8)) > BYTES_MAX {
                return None;
            }
            let records = Records::new(Arc::clone(segment), number, reading.store);
            let may_read = self.allowed > 0;
            self.allowed = self.allowed.saturating_sub(end);
            let filter = may_read.then(|| Filter::make(records, puts, end, reading.work));
            self.is_short |= filter.as_ref().is_none_or(Option::is_none);
            let filter = filter.flatten()?;
            self.bytes = self.bytes.saturating_add(filter.bytes());
            debug_assert_eq!(filter.end, end, "it is of all that is there");
            self.made.insert(segment.id, filter);
            debug_assert_eq!(
                self.bytes,
                self.made.values().map(Filter::bytes).sum::<usize>(),
                "what they take is known"
            );
        }
        self.made.get(&segment.id)
    }
}

impl Filter {
    /// `None` if the store is closed meanwhile.
    fn make(records: Records, puts: usize, end: u64, work: &Signal) -> Option<Filter> {
        let mut filter = Filter {
            end,
            words: vec![0; (puts.saturating_mul(BITS) / 64).max(1)],
            sample: Vec::new(),
            is_whole: true,
        };
        for (at, record) in records.enumerate() {
            if at.is_multiple_of(RECORDS_AT_ONCE) && work.is_stopped() {
                return None;
            }
            match record {
                Ok(record) if record.is_put() => filter.add(record.hash()),
                Ok(record) if record.is_tombstone() && filter.sample.len() < SAMPLE => {
                    filter.sample.push((record.hash(), record.header().seqno));
                }
                Ok(_) => {}
                Err(_) => filter.is_whole = false,
            }
        }
        Some(filter)
    }

    fn bytes(&self) -> usize {
        self.words.len().saturating_mul(8)
    }

    fn add(&mut self, hash: u64) {
        for (at, bit) in places(hash, self.words.len()) {
            debug_assert!(at < self.words.len());
            debug_assert!(bit.is_power_of_two());
            if let Some(word) = self.words.get_mut(at) {
                *word |= bit;
            }
        }
        debug_assert!(self.may_hold(hash), "what was added is found");
    }

    fn may_hold(&self, hash: u64) -> bool {
        let is_set = |(at, bit): (usize, u64)| self.words.get(at).is_none_or(|w| w & bit != 0);
        !self.is_whole || places(hash, self.words.len()).all(is_set)
    }
}

/// The word and bit of each probe for a hash.
fn places(hash: u64, words: usize) -> impl Iterator<Item = (usize, u64)> {
    debug_assert!(words > 0, "a filter of nothing has a word");
    let (mut at, step) = (hash, hash.rotate_left(32) | 1);
    (0..PROBES).map(move |_| {
        at = at.wrapping_add(step);
        let word = (u128::from(at) * words as u128) >> 64;
        (usize::try_from(word).unwrap_or(0), 1 << (at & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_holds_what_was_added_and_little_else() {
        let mut filter = Filter {
            end: 0,
            words: vec![0; 10_000 * BITS / 64],
            sample: Vec::new(),
            is_whole: true,
        };
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        (0..10_000).for_each(|n| filter.add(hash(n)));
        assert!((0..10_000).all(|n| filter.may_hold(hash(n))));
        let mistakes = (10_000..110_000)
            .filter(|n| filter.may_hold(hash(*n)))
            .count();
        assert!(mistakes < 300, "{mistakes} in 100,000");
    }
}
