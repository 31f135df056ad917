//! The end of the log, of which nobody knows whether it is durable: it is written once more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::missing;
use super::replay::Replay;
use crate::error::Result;
use crate::format::lists::Move;
use crate::format::record::{Address, Header, Kind, RECORD_MAX, Record, Replaced};
use crate::log::appender::Appender;
use crate::log::segment::{Segment, segment_path};
use crate::sync::epoch;

/// Bytes of the tail that are written together.
const WRITTEN_AT_ONCE: usize = 1 << 20;
const _: () = assert!(WRITTEN_AT_ONCE >= RECORD_MAX, "a record at least");

/// The end of the log: where the new segment links, and what must be written again.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) epoch: u64,
    pub(super) previous: u64,
    pub(super) previous_len: u64,
    /// The newest segment, when it holds no record and can go.
    pub(super) empty: Option<(u64, PathBuf)>,
    /// Records that no later one says were durable, batch by batch.
    pub(super) records: Vec<Address>,
    /// The sequence number of the last record that stays in the log.
    pub(super) seqno: u64,
}

impl Replay {
    /// Looks up what the tail's records will change, so that damage of the table there is found before
    /// anything is written.
    pub(super) fn look_up_tail(&self, tail: &Tail) -> Result<()> {
        if self.table.is_settled() {
            return Ok(());
        }
        let guard = epoch::pin();
        let Some(segment) = self.segment_of(tail) else {
            return Ok(());
        };
        for address in &tail.records {
            let (_, record) = at(&segment, address.offset)?;
            let is_move = record.header.kind == Kind::Move;
            let moved = is_move.then(|| Move::decode(record.body)).flatten();
            let moved = moved.unwrap_or_default().relocations;
            for hash in moved
                .iter()
                .map(|moved| moved.hash)
                .chain([self.hash(&record)])
            {
                self.table.find(hash, &guard, |_| false);
            }
        }
        Ok(())
    }

    /// Applies the records that may not be durable where they lie, for who only reads.
    pub(super) fn apply_tail(&mut self, tail: &Tail) -> Result<()> {
        let Some(segment) = self.segment_of(tail) else {
            return Ok(());
        };
        let offsets = tail.records.iter().map(|address| address.offset);
        self.apply_all(&segment, offsets.map(|offset| at(&segment, offset)))
    }

    /// The segment in which the log ends, with its number.
    pub(super) fn last(&self, tail: &Tail, dir: &Path) -> Result<(u32, Arc<Segment>)> {
        let id = tail.empty.as_ref().map_or(tail.previous, |(id, _)| *id);
        let last = self.numbers.get(&id).cloned();
        // Salvaging goes without a log, too.
        let any = || self.numbers.values().max_by_key(|(_, s)| s.id).cloned();
        let last = last.or_else(|| any().filter(|_| self.is_salvage));
        last.ok_or_else(|| missing(segment_path(dir, id)))
    }

    /// Writes the records that may not be durable again, to the new segment, and flushes it. After a
    /// failed flush the system may show bytes that never reached the disk; this is what makes them
    /// safe to trust.
    pub(super) fn rewrite_tail(&mut self, log: &mut Appender, tail: &Tail) -> Result<()> {
        let moved = self.write_again(log, tail)?;
        if tail.seqno < self.seqno {
            // Numbers were given out whose records are gone: a torn batch, the close record of a
            // segment that held nothing else. Without a record that says so, the next recovery would
            // take the gap for records that were durable once, and a torn tail after it for damage.
            self.seqno = self.seqno.saturating_add(1);
            log.push(&void(self.seqno, self.durable), &[], &[]);
        }
        log.reserve(true)?;
        log.write()?;
        log.seqno = self.seqno;
        log.sync()?;
        log.durable = self.seqno;
        assert_eq!(log.buffered(), 0, "what is durable was written");
        debug_assert!(log.durable >= tail.seqno, "the tail is durable (rule 6)");
        log.since_checkpoint = self.bytes;
        let (number, segment) = log.active();
        self.numbers
            .insert(segment.id, (number, Arc::clone(&segment)));
        debug_assert!(
            moved
                .iter()
                .all(|(_, new)| u64::from(*new) < segment.published()),
            "what is applied was written"
        );
        let written = moved.iter().map(|(_, new)| at(&segment, *new));
        self.apply_all(&segment, written)?;
        if let Some((_, segment)) = self.numbers.get(&tail.previous) {
            segment.cut(tail.previous_len);
            debug_assert!(
                segment.published() <= tail.previous_len,
                "nobody reads what was written again"
            );
        }
        if let Some((id, _)) = &tail.empty
            && let Some((number, _)) = self.numbers.remove(id)
        {
            self.segments.remove(number);
        }
        Ok(())
    }

    /// The segment in which the tail's records lie, in their order.
    fn segment_of(&self, tail: &Tail) -> Option<Arc<Segment>> {
        let first = tail.records.first()?;
        let (_, segment) = self.numbers.get(&first.segment)?;
        Some(Arc::clone(segment))
    }

    /// Writes the tail's records to the new segment, a piece after the other, and returns for each its
    /// offset before and now.
    fn write_again(&self, log: &mut Appender, tail: &Tail) -> Result<Vec<(u32, u32)>> {
        let mut moved: Vec<(u32, u32)> = Vec::with_capacity(tail.records.len());
        let Some(from) = self.segment_of(tail) else {
            return Ok(moved);
        };
        debug_assert!(
            tail.records
                .is_sorted_by(|a, b| a.segment == b.segment && a.offset < b.offset),
            "one segment's records, in their order: they are looked up by their offsets"
        );
        for old in &tail.records {
            let (_, record) = at(&from, old.offset)?;
            let mut replaced = record.header.replaced;
            let (_, new) = log.next();
            if replaced.address.segment == from.id {
                let at = moved.binary_search_by_key(&replaced.address.offset, |(old, _)| *old);
                if let Some((_, offset)) = at.ok().and_then(|at| moved.get(at)) {
                    replaced.address = Address {
                        offset: *offset,
                        ..new
                    };
                }
            }
            let lag = record.header.seqno.saturating_sub(self.durable);
            let header = Header {
                replaced,
                durable_lag: u32::try_from(lag).unwrap_or(u32::MAX),
                ..record.header
            };
            debug_assert!(
                moved.last().is_none_or(|(_, before)| *before < new.offset),
                "they keep their order"
            );
            log.push(&header, record.key, record.body);
            moved.push((old.offset, new.offset));
            if log.buffered() >= WRITTEN_AT_ONCE {
                log.reserve(true)?;
                log.write()?;
            }
        }
        debug_assert_eq!(moved.len(), tail.records.len(), "none is left out");
        Ok(moved)
    }
}

/// The record at a place, with that place.
fn at(segment: &Segment, offset: u32) -> Result<(u32, Record<'_>)> {
    Ok((offset, segment.record(u64::from(offset))?))
}

/// A record that changes nothing but bears a sequence number.
fn void(seqno: u64, durable: u64) -> Header {
    Header {
        kind: Kind::Close,
        more: false,
        key_len: 0,
        metadata_len: 0,
        body_len: 0,
        seqno,
        expiration: 0,
        namespace: 0,
        body_crc: crc32fast::hash(&[]),
        replaced: Replaced::default(),
        durable_lag: u32::try_from(seqno.saturating_sub(durable)).unwrap_or(u32::MAX),
    }
}
