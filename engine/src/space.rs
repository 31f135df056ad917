//! What the segments of a store hold, for those who want to see it.

use crate::core::Core;
use crate::reclaim::segment_stats;

/// What one segment holds, in bytes, as it is now. The rest of it is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSpace {
    /// Its id, as in the name of its file.
    pub id: u64,
    /// The class of remaining life, from 0 (five minutes) to 7 (for ever), of what compaction copied to it;
    /// `None` for what users wrote.
    pub class: Option<u8>,
    /// Its length.
    pub bytes: u64,
    /// Records that the index points to and that are not erased, expired ones not among them.
    pub live: u64,
    /// Records that the index points to and that have expired more than an hour ago. Counted by ranges
    /// of time, so some of them still count as live.
    pub expired: u64,
    /// Tombstones, needed or not.
    pub tombstones: u64,
}

impl SegmentSpace {
    /// What is neither live nor expired nor a tombstone.
    #[must_use]
    pub fn dead(&self) -> u64 {
        let rest = self.bytes.saturating_sub(self.live);
        rest.saturating_sub(self.expired.saturating_add(self.tombstones))
    }
}

impl Core {
    pub(crate) fn space(&self) -> Vec<SegmentSpace> {
        let now = self.clock.confirmed();
        let segments = self.segments.all().into_iter();
        let space = segments.map(|(_, segment)| {
            let stats = segment_stats(&segment, true, now);
            let counts = segment.usage.counts();
            SegmentSpace {
                id: segment.id,
                class: segment.class,
                bytes: segment.end(),
                live: stats.live_bytes,
                expired: counts.live_bytes.saturating_sub(stats.live_bytes),
                tombstones: counts.pin_bytes,
            }
        });
        space.collect()
    }

    /// Bytes of retired segments that somebody still reads.
    pub(crate) fn held_bytes(&self) -> u64 {
        let mut held = self.held.lock();
        held.retain(|segment| segment.strong_count() > 0);
        let segments = held.iter().filter_map(std::sync::Weak::upgrade);
        segments.map(|segment| segment.end()).sum()
    }
}
