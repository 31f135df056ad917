//! What is still needed of a segment, as the committer counts it.

use rimstone_compaction::Expiries;

use crate::format::checkpoint::{Counts, SegmentEntry};
use crate::format::lists::{Move, Relocation};
use crate::format::record::{Header, Kind, expires};
use crate::format::segment::SEGMENT_LEN;
use crate::sync::Mutex;

/// Changed by the committer alone, in the order of the log, and read by compaction and checkpoints. So
/// nobody waits long for its lock.
pub(crate) struct Usage(Mutex<State>);

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) counts: Counts,
    /// Live bytes by expiration.
    pub(crate) expiries: Expiries,
    /// How much of a class segment the log says is valid.
    pub(crate) committed: u64,
    /// Live bytes of dropped namespaces, as far as somebody looked.
    pub(crate) dropped: u64,
}

impl Usage {
    /// Of a segment that is new at this second.
    pub(crate) fn new(since: u64) -> Usage {
        Usage(Mutex::new(State {
            counts: Counts::default(),
            expiries: Expiries::new(since),
            committed: 0,
            dropped: 0,
        }))
    }

    pub(crate) fn state(&self) -> State {
        self.0.lock().clone()
    }

    /// How much of a class segment the log says is valid.
    pub(crate) fn committed(&self) -> u64 {
        self.0.lock().committed
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// What a checkpoint says.
    pub(crate) fn set(&self, entry: &SegmentEntry) {
        let mut state = self.0.lock();
        debug_assert!(
            entry.len <= SEGMENT_LEN,
            "a checkpoint that says more is refused"
        );
        state.counts = entry.counts;
        state.expiries = Expiries::from_parts(entry.since, &entry.expiries);
        state.committed = entry.len;
        state.dropped = entry.dropped;
    }

    /// A record was appended by a user; a put is one that the table points to.
    pub(crate) fn add(&self, header: &Header) {
        let bytes = u64::try_from(header.record_len()).unwrap_or(0);
        match header.kind {
            Kind::Put | Kind::PutLarge => {
                let mut state = self.0.lock();
                state.note(header);
                state.gain(bytes, expires(header.expiration));
            }
            Kind::Tombstone => self.pin(bytes, header.seqno),
            _ => {}
        }
    }

    /// There is one more put, live or not.
    pub(crate) fn note(&self, header: &Header) {
        self.0.lock().note(header);
    }

    /// There is one more tombstone.
    pub(crate) fn pin(&self, bytes: u64, seqno: u64) {
        debug_assert!(bytes > 0, "a pin takes space");
        let counts = &mut self.0.lock().counts;
        counts.pins += 1;
        counts.pin_bytes += bytes;
        counts.highest_pin = counts.highest_pin.max(seqno);
    }

    /// The table points to one more record of the segment.
    pub(crate) fn gain(&self, bytes: u64, expires: u32) {
        self.0.lock().gain(bytes, expires);
    }

    /// The table no longer points to such a record; returns whether it was the last.
    pub(crate) fn lose(&self, bytes: u64, expires: u32) -> bool {
        let mut state = self.0.lock();
        state.counts.live = state.counts.live.saturating_sub(1);
        state.counts.live_bytes = state.counts.live_bytes.saturating_sub(bytes);
        state.expiries.remove(last_visible(expires), bytes);
        state.counts.live == 0
    }

    /// Copies were made to this segment; which of them are live comes with [`gain`](Usage::gain).
    pub(crate) fn receive(&self, moved: &Move) {
        debug_assert!(
            u64::from(moved.len) <= SEGMENT_LEN,
            "a move that says more is none"
        );
        let mut state = self.0.lock();
        state.committed = state.committed.max(u64::from(moved.len));
        let counts = &mut state.counts;
        counts.puts += u64::try_from(moved.relocations.len()).unwrap_or(0);
        counts.larges += u64::from(moved.larges);
        counts.pins += u64::from(moved.pins);
        counts.pin_bytes += u64::from(moved.pin_bytes);
        counts.highest_pin = counts.highest_pin.max(moved.highest_pin);
        counts.lowest_seqno = counts.lowest_seqno.min(moved.lowest_seqno);
        counts.seqno_sum = counts.seqno_sum.saturating_add(moved.seqno_sum);
        let last = moved.relocations.iter().map(|r| last_visible(r.expires));
        counts.last_visible = last.fold(counts.last_visible, u64::max);
    }

    /// The log says that so much of a class segment is valid.
    pub(crate) fn commit(&self, len: u64) {
        debug_assert!(len <= SEGMENT_LEN, "a segment is no longer");
        let mut state = self.0.lock();
        state.committed = state.committed.max(len);
    }

    /// Somebody looked for live records of dropped namespaces.
    pub(crate) fn set_dropped(&self, bytes: u64) {
        self.0.lock().dropped = bytes;
    }
}

impl State {
    fn note(&mut self, header: &Header) {
        debug_assert!(
            matches!(header.kind, Kind::Put | Kind::PutLarge),
            "tombstones are counted as pins"
        );
        let counts = &mut self.counts;
        counts.puts += 1;
        counts.larges += u64::from(header.kind == Kind::PutLarge);
        counts.lowest_seqno = counts.lowest_seqno.min(header.seqno);
        counts.seqno_sum = counts.seqno_sum.saturating_add(header.seqno);
        let last = last_visible(expires(header.expiration));
        counts.last_visible = counts.last_visible.max(last);
    }

    fn gain(&mut self, bytes: u64, expires: u32) {
        self.counts.live += 1;
        self.counts.live_bytes += bytes;
        self.expiries.add(last_visible(expires), bytes);
    }
}

impl Relocation {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.len)
    }
}

/// The last second before an expiration; those that are not known never come.
fn last_visible(expires: u32) -> u64 {
    u64::from(expires).checked_sub(1).unwrap_or(u64::MAX)
}
