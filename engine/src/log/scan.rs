//! Walks the records of a front or class segment, and tells damage from a torn tail.

use crate::format::record::{self, Record};
use crate::format::segment::HEADER_LEN as SEGMENT_HEADER_LEN;

use super::segment::Segment;

/// Bytes of a preallocated file that are looked at together; a multiple of 8, as offsets of records are.
const ZEROS: [u8; 64] = [0; 64];
const _: () = assert!(ZEROS.len().is_multiple_of(8));

/// What lies at one place of a segment.
pub(crate) enum Step<'a> {
    /// A valid record of a batch that is complete so far. One that was durable may have lost its body
    /// since; its header and key are right.
    Record {
        offset: u64,
        record: Record<'a>,
        is_intact: bool,
    },
    /// Bytes that should hold records and do not; `next` is where records begin again.
    Damage { offset: u64, next: u64 },
    /// No more records; the valid part ends here.
    End { offset: u64 },
}

/// A position in a segment.
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    offset: u64,
    /// Records below this offset were durable: what is invalid there is damage.
    durable_end: u64,
    next_seqno: u64,
    /// Whether sequence numbers rise, as they do in the log.
    is_ordered: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(segment: &'a Segment, start: u64, durable_end: u64, next_seqno: u64) -> Self {
        Scan {
            segment,
            offset: start,
            durable_end,
            next_seqno,
            is_ordered: true,
        }
    }

    /// All records of a class segment, whose valid bytes are published: each of them was durable.
    pub(crate) fn of_class(segment: &'a Segment) -> Self {
        Scan {
            segment,
            offset: SEGMENT_HEADER_LEN as u64,
            durable_end: segment.published(),
            next_seqno: 0,
            is_ordered: false,
        }
    }

    /// The next record. An invalid one is damage if any later record, or the caller, says that its
    /// sequence number was durable; otherwise it is the torn tail, and the segment ends before it.
    pub(crate) fn step(&mut self) -> Step<'a> {
        let offset = self.offset;
        let record = self.decode(offset);
        let record = record.filter(|record| record.header.seqno >= self.next_seqno);
        if let Some(record) = record.filter(Record::body_is_intact) {
            self.advance(&record);
            return Step::Record {
                offset,
                record,
                is_intact: true,
            };
        }
        let next = self.next_valid(offset);
        let was_durable = next.is_some() || offset < self.durable_end;
        if let Some(record) = record.filter(|_| was_durable) {
            self.advance(&record);
            return Step::Record {
                offset,
                record,
                is_intact: false,
            };
        }
        match next {
            Some(next) => {
                debug_assert!(next > offset, "a scan goes on");
                self.offset = next;
                Step::Damage { offset, next }
            }
            None if offset < self.durable_end => {
                self.offset = self.durable_end;
                Step::Damage {
                    offset,
                    next: self.durable_end,
                }
            }
            None => Step::End { offset },
        }
    }

    /// The record at this place, its header and key verified.
    fn decode(&self, offset: u64) -> Option<Record<'a>> {
        let place = self.segment.place(u32::try_from(offset).ok()?);
        record::decode(self.segment.bytes(offset)?, place)
    }

    fn at(&self, offset: u64) -> Option<Record<'a>> {
        self.decode(offset).filter(Record::body_is_intact)
    }

    fn advance(&mut self, record: &Record<'_>) {
        let len = u64::try_from(record.header.record_len()).unwrap_or(u64::MAX);
        debug_assert!(len >= record::HEADER_LEN as u64);
        self.offset = self.offset.saturating_add(len);
        debug_assert!(
            self.offset < self.segment.published().saturating_add(8),
            "a record lies where records are, but for its padding"
        );
        if self.is_ordered {
            self.next_seqno = record.header.seqno.saturating_add(1);
        }
    }

    /// Where a valid record follows that proves the sequence number missing here was durable.
    fn next_valid(&self, from: u64) -> Option<u64> {
        debug_assert!(
            from >= self.offset,
            "what was passed over is not looked at again"
        );
        let end = self.segment.published();
        let mut offset = from.saturating_add(8);
        let mut first = None;
        while offset < end {
            match self.at(offset) {
                Some(record) if record.header.seqno > self.next_seqno => {
                    first = first.or(Some(offset));
                    if record.header.durable_seqno() >= self.next_seqno || offset < self.durable_end
                    {
                        return first;
                    }
                    let len = u64::try_from(record.header.record_len()).unwrap_or(u64::MAX);
                    offset = offset.saturating_add(len);
                }
                _ => offset = self.past_zeros(offset.saturating_add(8)),
            }
        }
        None
    }

    /// Where something follows that is not zero, as the start of a record is. What was preallocated and
    /// never written may be long.
    fn past_zeros(&self, from: u64) -> u64 {
        let bytes = self.segment.bytes(from).unwrap_or_default();
        let zeros = bytes
            .chunks(ZEROS.len())
            .take_while(|chunk| ZEROS.get(..chunk.len()) == Some(*chunk));
        from.saturating_add(zeros.map(|chunk| chunk.len() as u64).sum())
    }
}
