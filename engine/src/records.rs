//! The records of a sealed segment, one after the other.

use std::sync::Arc;

use crate::core::{Core, key_hash};
use crate::error::Result;
use crate::format::record::{Header, Kind, LargePointer};
use crate::format::segment::{HEADER_LEN, StoreId};
use crate::index::table::Location;
use crate::log::commit::Op;
use crate::log::segment::Segment;

/// Records that are read before somebody looks whether the store is being closed.
pub(crate) const RECORDS_AT_ONCE: usize = 1024;

/// A record of a sealed segment.
pub(crate) struct Found {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Header,
    pub(crate) hash: u64,
    pub(crate) location: Location,
}

/// All records of a sealed segment, bodies not verified.
pub(crate) struct Records {
    segment: Arc<Segment>,
    number: u32,
    store: StoreId,
    offset: u64,
    end: u64,
}

impl Records {
    pub(crate) fn new(segment: Arc<Segment>, number: u32, store: StoreId) -> Records {
        debug_assert!(number > 0, "0 is no segment");
        Records {
            end: segment.end(),
            segment,
            number,
            store,
            offset: HEADER_LEN as u64,
        }
    }
}

impl Iterator for Records {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Result<Found>> {
        let offset = self.offset;
        if offset >= self.end {
            return None;
        }
        let found = self.segment.record(offset).map(|record| {
            let len = u64::try_from(record.header.record_len()).unwrap_or(u64::MAX);
            self.offset = offset.saturating_add(len);
            debug_assert!(self.offset > offset, "an end is reached");
            debug_assert!(self.offset.is_multiple_of(8), "the next one begins there");
            Found {
                segment: Arc::clone(&self.segment),
                header: record.header,
                hash: key_hash(&self.store, record.header.namespace, record.key),
                location: Location::new(self.number, offset),
            }
        });
        if found.is_err() {
            self.offset = self.end;
        }
        Some(found)
    }
}

impl Found {
    pub(crate) fn is_put(&self) -> bool {
        matches!(self.header.kind, Kind::Put | Kind::PutLarge)
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.header.kind == Kind::Tombstone
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn large(&self) -> Option<u64> {
        self.pointer().map(|pointer| pointer.segment)
    }

    fn pointer(&self) -> Option<LargePointer> {
        let record = self.segment.record(self.location.offset()).ok()?;
        record.large_pointer()
    }

    /// Bytes of the record and of its value, if that lies elsewhere.
    pub(crate) fn weight(&self) -> u64 {
        let len = u64::try_from(self.header.record_len()).unwrap_or(0);
        let large = (self.header.kind == Kind::PutLarge).then(|| self.pointer());
        len.saturating_add(large.flatten().map_or(0, |pointer| pointer.len.into()))
    }

    /// The operation that deletes the key, if the record is still its newest.
    pub(crate) fn eviction(&self, core: &Core) -> Result<Op> {
        debug_assert!(self.is_put(), "only what is there is evicted");
        let record = self.segment.record(self.location.offset())?;
        let before = self.header.seqno.saturating_add(1);
        Ok(core.deletion_before(self.header.namespace, record.key, before))
    }

    pub(crate) fn namespace(&self) -> u32 {
        self.header.namespace
    }
}

impl rimstone_compaction::Record for Found {
    fn encoded_len(&self) -> u64 {
        u64::try_from(self.header.record_len()).unwrap_or(u64::MAX)
    }

    fn seqno(&self) -> u64 {
        self.header.seqno
    }

    // What is said of namespaces and of segments is logged again before it goes.
    fn is_pin(&self) -> bool {
        self.is_tombstone()
    }

    fn last_visible(&self) -> u64 {
        self.header.expiration.checked_sub(1).unwrap_or(u64::MAX)
    }
}
