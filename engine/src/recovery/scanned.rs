//! Where the records of the log lie, as a first pass over it found them.

use std::ops::Range;

use crate::format::record::Record;
use crate::log::segment::Segment;

/// A record as a scan meets it.
pub(super) struct Scanned {
    pub(super) offset: u32,
    pub(super) end: u64,
    pub(super) seqno: u64,
    /// Whether more of its batch follow.
    pub(super) more: bool,
}

/// Where records lie one after the other.
pub(super) fn ranges(records: &[Scanned]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for scanned in records {
        let start = u64::from(scanned.offset);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = scanned.end,
            _ => ranges.push(start..scanned.end),
        }
    }
    debug_assert!(ranges.iter().all(|range| range.start < range.end));
    debug_assert!(
        ranges.is_sorted_by(|a, b| a.end < b.start),
        "records lie in their order, and neighbours are joined"
    );
    ranges
}

/// The records that lie there, with their offsets.
pub(super) fn records<'a>(
    segment: &'a Segment,
    ranges: &'a [Range<u64>],
) -> impl Iterator<Item = (u32, Record<'a>)> {
    ranges.iter().flat_map(move |range| {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let record = segment.record(at).ok().filter(|_| at < range.end)?;
            let offset = u32::try_from(at).ok()?;
            at += u64::try_from(record.header.record_len()).ok()?;
            Some((offset, record))
        })
    })
}

/// Where the batch begins that the record at a place belongs to.
pub(super) fn batch_start(records: &[Scanned], mut at: usize) -> usize {
    debug_assert!(at <= records.len());
    while at > 0 && records.get(at - 1).is_some_and(|scanned| scanned.more) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(offset: u32, end: u64, more: bool) -> Scanned {
        Scanned {
            offset,
            end,
            seqno: 0,
            more,
        }
    }

    #[test]
    fn records_that_touch_are_one_range() {
        let records = [(128, 200), (200, 264), (272, 336), (336, 400), (408, 472)];
        let records = records.map(|(offset, end)| scanned(offset, end, false));
        assert_eq!(ranges(&records), [128..264, 272..400, 408..472]);
        assert_eq!(ranges(&[]), []);
    }

    #[test]
    fn a_batch_begins_behind_the_last_record_that_has_no_more_behind_it() {
        let records = [true, false, false, true, true, false, true];
        let records = records.map(|more| scanned(0, 0, more));
        let starts: Vec<_> = (0..=7).map(|at| batch_start(&records, at)).collect();
        assert_eq!(starts, [0, 0, 2, 3, 3, 3, 6, 6]);
    }
}
