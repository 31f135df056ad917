//! Where the records of the log lie, as a first pass over it found them.

use crate::format::record::Record;
use crate::log::segment::Segment;
use crate::options::Verify;

/// A record as a scan meets it.
pub(super) struct Scanned {
    pub(super) offset: u32,
    pub(super) end: u64,
    pub(super) seqno: u64,
    /// Whether more of its batch follow.
    pub(super) more: bool,
}

/// Records whose first lines are fetched ahead: a scan has passed over all of a segment since it read them.
const AHEAD: usize = 8;

/// Where these records lie.
pub(super) fn offsets(records: &[Scanned]) -> Vec<u32> {
    records.iter().map(|scanned| scanned.offset).collect()
}

/// The records that lie there, with their offsets.
pub(super) fn records<'a>(
    segment: &'a Segment,
    offsets: &'a [u32],
) -> impl Iterator<Item = (u32, Record<'a>)> {
    offsets.iter().enumerate().filter_map(move |(at, offset)| {
        if let Some(ahead) = offsets.get(at.saturating_add(AHEAD)) {
            segment.prefetch_start(u64::from(*ahead), Verify::Always);
        }
        let record = segment.record(u64::from(*offset)).ok()?;
        Some((*offset, record))
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
    fn a_batch_begins_behind_the_last_record_that_has_no_more_behind_it() {
        let records = [true, false, false, true, true, false, true];
        let records = records.map(|more| scanned(0, 0, more));
        let starts: Vec<_> = (0..=7).map(|at| batch_start(&records, at)).collect();
        assert_eq!(starts, [0, 0, 2, 3, 3, 3, 6, 6]);
    }
}
