//! The log, as compaction sees it.

use crate::Plan;

/// What is known of a segment without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentStats {
    /// Names the segment, and no other ever.
    pub id: u64,
    /// Whether it is whole: no longer written to, and durable. Others are never chosen.
    pub sealed: bool,
    /// Its length.
    pub bytes: u64,
    /// How many records the index points to, expired ones included. Exact.
    pub live: u64,
    /// The bytes of those that are not erasable yet, as far as is known; not too few.
    pub live_bytes: u64,
    /// For how many more seconds they are kept, on average by byte. What lasts for ever counts
    /// as `u64::MAX`, or as much as the log likes.
    pub life: u64,
    /// Pins, needed or not: tombstones, records of namespaces and of retired segments.
    pub pins: u64,
    /// The bytes of those that a rewrite would have to copy, as far as is known.
    pub pin_bytes: u64,
    /// The highest sequence number of a pin.
    pub highest_pin: u64,
    /// The lowest sequence number of any record, dead ones included.
    pub lowest_seqno: u64,
    /// The mean sequence number of what the index points to. It says how long that has lasted.
    pub mean_seqno: u64,
    /// The last second in which any of its records is visible, `u64::MAX` for ever.
    pub last_visible: u64,
    /// About how many of its records were read lately.
    pub hits: u64,
    /// The class of what was copied into it; `None` for what users wrote.
    pub class: Option<u8>,
}

impl SegmentStats {
    /// What a rewrite would copy.
    pub fn needed(&self) -> u64 {
        self.live_bytes.saturating_add(self.pin_bytes)
    }

    /// What a rewrite would free.
    pub fn garbage(&self) -> u64 {
        self.bytes.saturating_sub(self.needed())
    }

    /// Whether a pin of it may hide something in segments that hold no sequence number below `horizon`.
    pub fn needs_pins(&self, horizon: u64) -> bool {
        self.pins > 0 && self.highest_pin > horizon
    }
}

/// A record, wherever it is in the log.
pub trait Record {
    /// How many bytes it takes in a segment; a value that is stored elsewhere does not count.
    fn encoded_len(&self) -> u64;
    /// Orders all writes. A copy has that of its original.
    fn seqno(&self) -> u64;
    /// Whether it says something of older records that must not be forgotten while they exist: it is
    /// a tombstone, or speaks of a namespace or a segment. All other records are puts. What must be
    /// known even when nothing older exists is not saved by being a pin: the log writes it again before
    /// it retires the segment.
    fn is_pin(&self) -> bool;
    /// The last second in which it is visible, `u64::MAX` for ever.
    fn last_visible(&self) -> u64;
}

/// A log in segments and the index of what is live in it.
///
/// Users go on reading and writing between any two calls. A put that expires before the record that
/// it replaces must be preceded by a tombstone in the same batch: then an erased record uncovers no
/// older one.
pub trait Segments {
    /// A record, and where it is.
    type Record: Record;
    /// All records of a segment.
    type Scan: Iterator<Item = Result<Self::Record, Self::Error>>;
    /// Why a record cannot be read or written.
    type Error;

    /// Returns all segments that a rebuild would take records from, open ones included.
    fn stats(&self, now: u64) -> Vec<SegmentStats>;

    /// Returns the records of a sealed segment.
    ///
    /// # Errors
    ///
    /// A record that cannot be read must be an error: it may be live, and the segment stays.
    fn scan(&self, segment: u64) -> Result<Self::Scan, Self::Error>;

    /// Whether the index points to this very place.
    fn is_live(&self, record: &Self::Record) -> bool;

    /// Whether a segment outside the plan may hold an older record of what this pin is about. Only
    /// asked where sequence numbers do not rule it out; a filter over each segment's keys can.
    fn may_hold_older(&self, pin: &Self::Record, plan: &Plan) -> bool {
        let _ = (pin, plan);
        true
    }

    /// Copies a record, with its sequence number, to the open segment of a class. The index learns of
    /// it in [`install`](Self::install), or before, as soon as the copy is durable: so a log can commit
    /// moves in groups of a size that no writer notices.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    fn relocate(&mut self, record: Self::Record, class: u8) -> Result<(), Self::Error>;

    /// Leaves behind a record which the index points to, but which is [erasable](crate::is_erasable).
    /// The index forgets it in [`install`](Self::install), if it still points there.
    ///
    /// # Errors
    ///
    /// When that cannot be noted.
    fn erase(&mut self, record: Self::Record) -> Result<(), Self::Error>;

    /// Whether a live record is kept when its segment is given up. A cache that is full evicts others.
    fn is_wanted(&self, record: &Self::Record) -> bool {
        let _ = record;
        true
    }

    /// Deletes a record that is live and not [wanted](Self::is_wanted), as a user would: the log says so
    /// before the plan is installed.
    ///
    /// # Errors
    ///
    /// When that cannot be written.
    fn evict(&mut self, record: Self::Record) -> Result<(), Self::Error> {
        self.erase(record)
    }

    /// Makes the copies durable, then lets the index point to each if it still points to its original,
    /// then retires all victims by one record: after a crash all of them are retired or none. Their
    /// files go when that record is durable and nobody reads them, in the order of retirement.
    ///
    /// # Errors
    ///
    /// When it cannot be said whether the victims are retired; they must then stay readable.
    fn install(&mut self, plan: &Plan) -> Result<(), Self::Error>;

    /// Forgets what was relocated and erased since the last plan. The copies become garbage; each
    /// still has a sequence number that [`stats`](Self::stats) must count.
    fn abandon(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_garbage() {
        let mut segment = SegmentStats {
            bytes: 1_000,
            live_bytes: 300,
            pin_bytes: 100,
            ..SegmentStats::default()
        };
        assert_eq!((segment.needed(), segment.garbage()), (400, 600));
        segment.live_bytes = 950;
        assert_eq!((segment.needed(), segment.garbage()), (1_050, 0));
    }

    #[test]
    fn a_pin_is_needed_if_something_staying_is_older() {
        let mut segment = SegmentStats {
            pins: 1,
            highest_pin: 10,
            ..SegmentStats::default()
        };
        assert!(segment.needs_pins(9) && !segment.needs_pins(10) && !segment.needs_pins(11));
        segment.pins = 0;
        assert!(!segment.needs_pins(9), "there is none");
    }
}
