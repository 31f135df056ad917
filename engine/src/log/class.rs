//! Where compaction writes what it copies: one open segment for each class of remaining life, never
//! mixed with what users write.
//!
//! Copies pile up in memory, are written in large pieces, and are flushed before the log is told of
//! them. A class segment is valid as far as the log says, so what lies behind that after a crash is
//! nothing, and a segment that the log does not name is no part of the store.

use std::path::Path;
use std::sync::Arc;

use super::appender::{STEP, Start, create};
use super::commit::{Moved, Op};
use super::segment::{Segment, Segments};
use crate::error::{Result, io_error};
use crate::format::lists::{MOVE_LEN, Move, RELOCATION_LEN, Relocation};
use crate::format::record::{self, Header, Kind, Record, Replaced, expires};
use crate::format::segment::{HEADER_LEN, Kind as SegmentKind, SEGMENT_LEN, StoreId};
use crate::vfs::Vfs;

/// Bytes of copies that are written together, of one class and of all.
const CHUNK: usize = 2 << 20;
const CHUNKS: usize = 8 << 20;
/// Relocations in one record of the log: writers wait for them to be published, 22 us as a rule and 134 us
/// one time in a hundred (600,000 keys, two busy cores).
const RELOCATIONS_MAX: usize = 256;

const _: () = {
    assert!(CHUNK <= CHUNKS);
    assert!(CHUNK >= record::RECORD_MAX);
    assert!(MOVE_LEN + RELOCATIONS_MAX * RELOCATION_LEN <= record::LIST_MAX);
    assert!(CHUNK as u64 <= SEGMENT_LEN, "it fits");
};

/// Where class segments are made.
pub(crate) struct ClassFiles<'a> {
    pub(crate) vfs: &'a dyn Vfs,
    pub(crate) dir: &'a Path,
    pub(crate) segments: &'a Segments,
    pub(crate) store: StoreId,
    pub(crate) epoch: u64,
    pub(crate) time: u64,
    /// How long a segment becomes.
    pub(crate) len: u64,
    pub(crate) next_id: &'a dyn Fn() -> u64,
}

/// The open class segments.
#[derive(Default)]
pub(crate) struct Classes {
    outputs: Vec<Output>,
}

struct Output {
    class: u8,
    segment: Arc<Segment>,
    number: u32,
    /// Bytes that are written and flushed.
    end: u64,
    allocated: u64,
    /// Copies that come behind them, and what the log has to be told: a move for each segment they
    /// are from, with its number.
    buffer: Vec<u8>,
    moves: Vec<(u32, Move)>,
    /// Whether the next record did not fit.
    is_full: bool,
}

impl Classes {
    /// Whether this segment is still written to.
    pub(crate) fn is_open(&self, id: u64) -> bool {
        self.outputs.iter().any(|output| output.segment.id == id)
    }

    /// Closes the segments of which this holds: nothing more is written to them. Between two plans.
    pub(crate) fn close_if(&mut self, is_done: impl Fn(&Segment) -> bool) {
        debug_assert!(self.is_settled(), "what is closed would be forgotten");
        self.outputs.retain(|output| !is_done(&output.segment));
    }

    /// Whether the log knows of every copy.
    pub(crate) fn is_settled(&self) -> bool {
        let outputs = &mut self.outputs.iter();
        outputs.all(|output| output.buffer.is_empty() && output.moves.is_empty())
    }

    /// Takes a copy of a record of another segment, for the class.
    ///
    /// # Errors
    /// If a new segment is needed and cannot be made.
    pub(crate) fn push(
        &mut self,
        files: &ClassFiles<'_>,
        class: u8,
        from: &Source<'_>,
        record: &Record<'_>,
    ) -> Result<()> {
        let fits = |output: &Output| output.class == class && !output.is_full;
        if let Some(output) = self.outputs.iter_mut().find(|output| fits(output)) {
            output.is_full = !output.has_room(record.header.record_len(), files.len);
        }
        let at = match self.outputs.iter().position(fits) {
            Some(at) => at,
            None => {
                self.outputs.push(Output::create(files, class)?);
                self.outputs.len().saturating_sub(1)
            }
        };
        if let Some(output) = self.outputs.get_mut(at) {
            debug_assert_eq!(output.class, class, "classes are not mixed");
            debug_assert_eq!(output.segment.class, Some(class));
            output.push(from, record);
        }
        debug_assert_eq!(self.outputs.iter().filter(|output| fits(output)).count(), 1);
        Ok(())
    }

    /// Whether enough piled up to be written.
    pub(crate) fn wants_flush(&self) -> bool {
        let all: usize = self.outputs.iter().map(|o| o.buffer.len()).sum();
        all >= CHUNKS || self.outputs.iter().any(|o| o.buffer.len() >= CHUNK)
    }

    /// Makes all copies durable, and returns the moves to commit.
    ///
    /// # Errors
    /// If they cannot be written; then [`abandon`](Classes::abandon) them.
    pub(crate) fn flush(&mut self) -> Result<Vec<Op>> {
        for output in self.outputs.iter_mut().filter(|o| !o.buffer.is_empty()) {
            output.write()?;
        }
        for output in self.outputs.iter_mut().filter(|o| !o.buffer.is_empty()) {
            output.sync()?;
        }
        Ok(self.outputs.iter_mut().flat_map(Output::moves).collect())
    }

    /// The moves that [`flush`](Classes::flush) returned are in the log: what is full is done with.
    pub(crate) fn settle(&mut self) {
        debug_assert!(self.is_settled(), "moves that nobody committed");
        self.outputs.retain(|output| !output.is_full);
    }

    /// Forgets the copies that the log does not know of. What may have been written behind the valid
    /// part of a segment is not written again: another is begun. After a failed write nobody knows what the
    /// log knows: then `may_remove` is false.
    pub(crate) fn abandon(&mut self, files: &ClassFiles<'_>, may_remove: bool) {
        for output in std::mem::take(&mut self.outputs) {
            let committed = output.segment.usage.committed();
            if committed == output.end && output.moves.is_empty() && !output.is_full {
                self.outputs.push(output);
            } else if committed == 0 && may_remove {
                files.segments.remove(output.number);
                // If it cannot be removed now, the next open does.
                let _ = files.vfs.remove(&output.segment.path);
            }
        }
        debug_assert!(self.is_settled());
    }
}

/// Where a record is copied from.
pub(crate) struct Source<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) number: u32,
    pub(crate) offset: u32,
    pub(crate) hash: u64,
}

impl Output {
    fn create(files: &ClassFiles<'_>, class: u8) -> Result<Output> {
        let start = Start {
            kind: SegmentKind::Class(class),
            store: files.store,
            id: (files.next_id)(),
            epoch: files.epoch,
            previous: 0,
            previous_len: 0,
            seqno: 0,
            time: files.time,
        };
        let segment = create(files.vfs, files.dir, &start)?;
        Ok(Output {
            class,
            number: files.segments.add(Arc::clone(&segment)),
            segment,
            end: HEADER_LEN as u64,
            allocated: STEP,
            buffer: Vec::new(),
            moves: Vec::new(),
            is_full: false,
        })
    }

    /// What holds between two records.
    fn check(&self) {
        debug_assert!(self.number > 0, "0 is no segment");
        debug_assert!(self.buffer.len().is_multiple_of(8), "whole records");
        debug_assert!(self.next() <= SEGMENT_LEN, "slots can name it");
        debug_assert!(self.end <= self.allocated, "what was written has its space");
        debug_assert_eq!(self.segment.published(), self.end, "readers see it");
    }

    /// Where the next record goes.
    fn next(&self) -> u64 {
        let buffered = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.end.saturating_add(buffered)
    }

    fn has_room(&self, len: usize, max: u64) -> bool {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.next().saturating_add(len) <= max.min(SEGMENT_LEN)
    }

    /// Encodes a copy, which has the sequence number of its original and replaces nothing.
    fn push(&mut self, from: &Source<'_>, record: &Record<'_>) {
        debug_assert!(self.has_room(record.header.record_len(), SEGMENT_LEN));
        debug_assert_ne!(from.segment.id, self.segment.id);
        debug_assert!(
            matches!(
                record.header.kind,
                Kind::Put | Kind::PutLarge | Kind::Tombstone
            ),
            "what is said of namespaces and segments is said again, not copied"
        );
        let offset = u32::try_from(self.next()).unwrap_or(u32::MAX);
        debug_assert!(offset.is_multiple_of(8));
        debug_assert!(u64::from(offset) >= HEADER_LEN as u64);
        debug_assert!(!self.is_full, "another was begun");
        let header = Header {
            more: false,
            replaced: Replaced::default(),
            durable_lag: 0,
            ..record.header
        };
        let place = self.segment.place(offset);
        record::encode(&mut self.buffer, &header, place, record.key, record.body);
        self.check();
        let len = u32::try_from(header.record_len()).unwrap_or(u32::MAX);
        let moved = self.move_from(from);
        if header.kind == Kind::Tombstone {
            moved.pins += 1;
            moved.pin_bytes = moved.pin_bytes.saturating_add(len);
            moved.highest_pin = moved.highest_pin.max(header.seqno);
            return;
        }
        moved.lowest_seqno = moved.lowest_seqno.min(header.seqno);
        moved.seqno_sum = moved.seqno_sum.saturating_add(header.seqno);
        moved.larges += u32::from(header.kind == Kind::PutLarge);
        debug_assert!(
            moved
                .relocations
                .last()
                .is_none_or(|last| last.new < offset),
            "copies lie one behind the other"
        );
        moved.relocations.push(Relocation {
            hash: from.hash,
            old: from.offset,
            new: offset,
            len,
            expires: expires(header.expiration),
        });
    }

    /// The move that a copy from this segment belongs to.
    fn move_from(&mut self, from: &Source<'_>) -> &mut Move {
        let fits = self.moves.last().is_some_and(|(_, moved)| {
            moved.from == from.segment.id && moved.relocations.len() < RELOCATIONS_MAX
        });
        if !fits {
            let moved = Move {
                from: from.segment.id,
                to: self.segment.id,
                lowest_seqno: u64::MAX,
                ..Move::default()
            };
            debug_assert_ne!(moved.from, moved.to);
            self.moves.push((from.number, moved));
        }
        // There is one now.
        let at = self.moves.len().saturating_sub(1);
        match self.moves.get_mut(at) {
            Some((_, moved)) => moved,
            None => unreachable!("a move was added"),
        }
    }

    fn write(&mut self) -> Result<()> {
        let end = self.next();
        self.check();
        let (file, path) = (&self.segment.file, &self.segment.path);
        if end > self.allocated {
            let len = end.next_multiple_of(STEP).min(SEGMENT_LEN);
            file.allocate(len)
                .map_err(|e| io_error("allocating", path, e))?;
            self.allocated = len;
        }
        debug_assert!(end <= self.allocated, "space is there before it is written");
        file.write_at(&self.buffer, self.end)
            .map_err(|e| io_error("writing", path, e))
    }

    /// After a failed flush the segment is not written to again.
    fn sync(&mut self) -> Result<()> {
        let path = &self.segment.path;
        self.segment
            .file
            .sync()
            .map_err(|e| io_error("flushing", path, e))?;
        self.end = self.next();
        self.segment.publish(self.end);
        self.buffer.clear();
        self.check();
        Ok(())
    }

    /// The moves that say what was flushed.
    fn moves(&mut self) -> Vec<Op> {
        debug_assert!(
            self.buffer.is_empty(),
            "the log is told of what is durable (rule 2)"
        );
        let (end, number) = (self.end, self.number);
        let len = u32::try_from(end).unwrap_or(u32::MAX);
        assert_eq!(
            self.segment.published(),
            end,
            "the log is told of what readers may touch"
        );
        debug_assert!(
            self.moves
                .iter()
                .all(|(_, moved)| moved.to == self.segment.id
                    && moved
                        .relocations
                        .iter()
                        .all(|copy| u64::from(copy.new) < end)),
            "what a move names was flushed"
        );
        let ops = self.moves.drain(..).map(|(from, moved)| {
            let moved = Move { len, ..moved };
            Op::relocating(Moved {
                from,
                to: number,
                moved,
            })
        });
        ops.collect()
    }
}
