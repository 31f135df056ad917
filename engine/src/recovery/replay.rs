//! Replay is the commit path again: the same records in the same order with the same outcome. A
//! record names the one it replaced, so replay compares words and reads no old record.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Chain, Files, SegmentFile, missing};
use crate::core::key_hash;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::checkpoint::{FRONT, Retired, SegmentEntry};
use crate::format::lists::{Move, Relocation, Retire};
use crate::format::record::{self, Address, Header as RecordHeader, Kind, Record, Replaced};
use crate::format::segment::{HEADER_LEN, SEGMENT_LEN, StoreId};
use crate::index::checkpoint::Checkpoint;
use crate::index::keys::Keys;
use crate::index::runs::{KeyRecord, Run};
use crate::index::table::{Location, Table};
use crate::log::appender::Appender;
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Segment, Segments, segment_path};
use crate::namespaces::Namespaces;

pub(crate) const DAMAGED: &str = "no valid records where there were some";
const MISSING: &str = "missing";
pub(super) const CROWDED: &str = "too many keys share a hash";

/// The state that the log leads to, as it is rebuilt.
pub(super) struct Replay {
    pub(super) id: StoreId,
    pub(super) segments: Segments,
    pub(super) table: Table,
    pub(super) keys: Keys,
    pub(super) namespaces: Namespaces,
    pub(super) larges: HashSet<u64>,
    pub(super) retired: Vec<Retired>,
    /// The highest sequence number found, and the highest that ends a whole batch.
    pub(super) seqno: u64,
    whole: u64,
    /// The highest sequence number that a record says was durable.
    pub(super) durable: u64,
    /// Bytes of log that were read.
    pub(super) bytes: u64,
    pub(super) damage: Vec<Damage>,
    /// Which of them is where records were, as long as none was read behind it.
    gap: Option<usize>,
    /// Segments that the log says were retired.
    pub(super) retirements: HashSet<u64>,
    /// Class segments that the log names and that are not there.
    pub(super) missing: Vec<u64>,
    /// Class segments that were found, and that nothing named so far.
    found: HashMap<u64, SegmentFile>,
    /// Class segments of which the log says that they are part of the store, and their lengths.
    pub(super) classes: HashMap<u64, u64>,
    /// Whether the log speaks of segments that were moved or retired.
    was_compacted: bool,
    /// Whether as much as can be read is to be kept, whatever is damaged or missing.
    pub(super) is_salvage: bool,
    /// Class segments and their lengths as the newest checkpoint has them, when salvaging.
    pub(super) checkpointed_classes: Vec<(u64, u64)>,
    /// Numbers of namespaces that live records name, when salvaging.
    pub(super) named: BTreeSet<u32>,
    /// Whether the table was rebuilt from what all segments hold.
    pub(super) is_rebuilt: bool,
    /// What a checkpoint says of segments, by id.
    known: HashMap<u64, SegmentEntry>,
    /// Where the log goes on after the checkpoint.
    position: Address,
    /// Each segment with the number that slots have for it, by id.
    pub(super) numbers: HashMap<u64, (u32, Arc<Segment>)>,
    /// Whether every record that another names was replayed or is in the checkpoint.
    pub(super) is_exact: bool,
}

/// The end of the log: where the new segment links, and what must be written again.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) epoch: u64,
    pub(super) previous: u64,
    pub(super) previous_len: u64,
    /// The newest segment, when it holds no record and can go.
    pub(super) empty: Option<(u64, PathBuf)>,
    /// Records that no later one says were durable, batch by batch.
    records: Vec<Address>,
    /// The sequence number of the last record that stays in the log.
    seqno: u64,
}

/// A record as a scan meets it.
struct Scanned {
    offset: u32,
    end: u64,
    seqno: u64,
    /// Whether more of its batch follow.
    more: bool,
}

/// The record that another takes the place of.
struct Old {
    location: Location,
    len: u32,
    expires: u32,
    large: Option<u64>,
}

impl Replay {
    /// From the beginning of the log.
    pub(super) fn new(id: StoreId) -> Replay {
        Replay {
            id,
            segments: Segments::new(),
            table: Table::new(),
            keys: Keys::new(Vec::new()),
            namespaces: Namespaces::default(),
            larges: HashSet::new(),
            retired: Vec::new(),
            seqno: 0,
            whole: 0,
            durable: 0,
            bytes: 0,
            damage: Vec::new(),
            gap: None,
            retirements: HashSet::new(),
            missing: Vec::new(),
            found: HashMap::new(),
            classes: HashMap::new(),
            was_compacted: false,
            is_salvage: false,
            checkpointed_classes: Vec::new(),
            named: BTreeSet::new(),
            is_rebuilt: false,
            known: HashMap::new(),
            position: Address::default(),
            numbers: HashMap::new(),
            is_exact: true,
        }
    }

    /// From a checkpoint on.
    pub(super) fn from(checkpoint: Checkpoint, runs: Vec<Arc<Run>>) -> Replay {
        let Checkpoint {
            header,
            meta,
            table,
        } = checkpoint;
        let mut replay = Replay::new(header.store);
        replay.table = table;
        replay.keys = Keys::new(runs);
        for entry in &meta.namespaces {
            replay
                .namespaces
                .apply(entry.number, &entry.body, entry.segment, 0);
        }
        replay.larges.extend(meta.larges);
        replay.retired = meta.retired;
        replay.seqno = header.seqno;
        replay.whole = header.seqno;
        replay.durable = header.seqno;
        replay.known = meta
            .segments
            .iter()
            .map(|entry| (entry.id, entry.clone()))
            .collect();
        replay.position = header.position;
        replay
    }

    /// Where in the log replay begins; segment 0 for its first.
    pub(super) fn position(&self) -> Address {
        self.position
    }

    /// The front segments before that position, and the class segments, which slots may name.
    pub(super) fn sealed(&self) -> Vec<SegmentEntry> {
        let is_sealed =
            |entry: &&SegmentEntry| entry.class != FRONT || entry.id < self.position.segment;
        self.known.values().filter(is_sealed).cloned().collect()
    }

    /// A class segment that the log may name.
    pub(super) fn offer(&mut self, file: SegmentFile) {
        if !self.knows(file.header.id) {
            self.found.insert(file.header.id, file);
        }
    }

    pub(super) fn take_found(&mut self, id: u64) -> Option<SegmentFile> {
        self.found.remove(&id)
    }

    /// Class segments that nothing names: their copies were not committed.
    pub(super) fn unnamed(&self) -> Vec<PathBuf> {
        let retired: HashSet<u64> = self.retired.iter().map(|r| r.id).collect();
        let unnamed = self.found.iter().filter(|(id, _)| !retired.contains(id));
        unnamed.map(|(_, file)| file.path.clone()).collect()
    }

    /// Whether a checkpoint knows this segment.
    pub(super) fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&id) || self.retired.iter().any(|retired| retired.id == id)
    }

    /// Takes a segment in, under the number that the checkpoint's slots have for it if they do.
    pub(super) fn add(&mut self, front: SegmentFile, end: u64) -> Result<Arc<Segment>> {
        if front.header.store != self.id {
            return Err(Error::Corrupt {
                path: front.path,
                offset: 16,
                reason: "the segment is another store's",
            });
        }
        let len = end.min(front.len);
        if len < end {
            let missing = Damage::bytes(&front.path, len, end, MISSING);
            self.damage.push(missing);
        }
        let segment = Arc::new(Segment::new(front.path, front.file, &front.header, len)?);
        let number = match self.known.get(&segment.id) {
            Some(entry) => {
                segment.usage.set(entry);
                self.segments.restore(entry.number, Arc::clone(&segment));
                entry.number
            }
            None => self.segments.add(Arc::clone(&segment)),
        };
        self.numbers
            .insert(segment.id, (number, Arc::clone(&segment)));
        Ok(segment)
    }

    /// Applies everything known durable and returns the rest.
    pub(super) fn run(&mut self, chain: Chain) -> Result<Tail> {
        self.is_exact = chain.holes.is_empty();
        chain.classes.into_iter().for_each(|file| self.offer(file));
        let mut tail = Tail::default();
        let successors = chain.fronts.iter().skip(1);
        let mut ends: Vec<_> = successors
            .map(|front| Some((front.header.previous, front.header.previous_len)))
            .collect();
        ends.push(None);
        let mut fronts = Vec::with_capacity(ends.len());
        for (front, next) in chain.fronts.into_iter().zip(ends) {
            let (header, path) = (front.header, front.path.clone());
            // A successor says where the segment ends, unless one between them is missing.
            let known = next.filter(|(id, _)| *id == header.id).map(|(_, len)| len);
            let end = known
                .unwrap_or(front.len)
                .max(self.checkpointed_len(header.id));
            let segment = self.add(front, end)?;
            let mut whole = Vec::new();
            let before = self.whole;
            let start = self.start(&segment);
            let valid_len = self.scan(&segment, known.unwrap_or(0), &mut whole);
            segment.cut(valid_len);
            tail.epoch = header.epoch;
            if next.is_some() {
                fronts.push((segment, ranges(&whole)));
                continue;
            }
            let at = whole.partition_point(|scanned| scanned.seqno <= self.durable);
            // A batch is durable or not as a whole: go back to the start of its own.
            let (kept, again) = whole.split_at(batch_start(&whole, at));
            tail.seqno = again.last().or(kept.last()).map_or(before, |s| s.seqno);
            tail.previous = segment.id;
            // Not one byte more: a close record at the end may not be durable.
            tail.previous_len = match again.first() {
                Some(first) => u64::from(first.offset),
                None => kept.last().map_or(start, |last| last.end),
            };
            if kept.is_empty() && !self.known.contains_key(&segment.id) {
                // Nothing of it is needed once the tail is written again.
                tail.empty = Some((segment.id, path));
                tail.previous = header.previous;
                tail.previous_len = header.previous_len;
            }
            let address = |offset| Address {
                segment: segment.id,
                offset,
            };
            tail.records = again.iter().map(|s| address(s.offset)).collect();
            fronts.push((segment, ranges(kept)));
        }
        if self.is_salvage || (self.was_compacted && self.position.segment == 0) {
            self.rebuild(&fronts)?;
        } else {
            for (segment, ranges) in &fronts {
                self.apply_all(segment, ranges);
            }
        }
        self.seqno = self.seqno.max(self.durable);
        Ok(tail)
    }

    /// Reports what is missing at the end of the log, as far as that was noted, and how many records it
    /// was. Their numbers are never given out again.
    pub(super) fn check_end(&mut self, files: &Files, tail: &Tail, dir: &Path) -> Result<()> {
        let mark = files.mark.filter(|mark| mark.store == self.id.id);
        let Some(mark) = mark.filter(|mark| mark.seqno > self.seqno) else {
            return Ok(());
        };
        let (_, last) = self.last(tail, dir)?;
        let (from, to) = (last.published(), mark.len);
        let damage = match last.id == mark.segment && from < to {
            true => Damage::bytes(&last.path, from, to, MISSING),
            false => Damage::at(&last.path, from, "the end of the log is missing"),
        };
        self.damage.push(Damage {
            records: Some(mark.seqno.saturating_sub(self.seqno)),
            ..damage
        });
        self.seqno = mark.seqno;
        Ok(())
    }

    /// Notes how many records the damage before a record held: sequence numbers have no gaps.
    fn count_lost(&mut self, seqno: u64) {
        let Some(at) = self.gap.take() else { return };
        let lost = seqno.saturating_sub(self.seqno).saturating_sub(1);
        // Where segments are gone by right, or the log begins, nobody knows what came before.
        if self.is_exact
            && self.seqno > 0
            && let Some(damage) = self.damage.get_mut(at)
        {
            damage.records = Some(lost);
        }
    }

    fn report(&mut self, damage: Damage) {
        self.gap = Some(self.damage.len());
        self.damage.push(damage);
    }

    /// How much of a segment the checkpoint says there is.
    fn checkpointed_len(&self, id: u64) -> u64 {
        if id == self.position.segment {
            u64::from(self.position.offset)
        } else {
            0
        }
    }

    /// Where in a segment replay begins.
    fn start(&self, segment: &Segment) -> u64 {
        if segment.id == self.position.segment {
            u64::from(self.position.offset)
        } else {
            HEADER_LEN as u64
        }
    }

    /// Finds the records of whole batches, and returns where the last of them ends.
    fn scan(&mut self, segment: &Segment, end: u64, whole: &mut Vec<Scanned>) -> u64 {
        let start = self.start(segment);
        let mut scan = Scan::new(segment, start, end, self.seqno.saturating_add(1));
        let (mut valid_len, mut pending) = (start, Vec::new());
        loop {
            if end != 0 && valid_len >= end && pending.is_empty() {
                break;
            }
            match scan.step() {
                Step::Record {
                    offset,
                    record,
                    is_intact,
                } => {
                    let header = record.header;
                    self.count_lost(header.seqno);
                    if !is_intact {
                        self.damage.push(Damage::body(&segment.path, offset));
                    }
                    let len = u64::try_from(header.record_len()).unwrap_or(0);
                    let end = offset.saturating_add(len);
                    self.seqno = header.seqno;
                    self.durable = self
                        .durable
                        .max(header.durable_seqno().min(header.seqno.saturating_sub(1)));
                    if is_intact {
                        self.note(&record);
                    }
                    if header.kind != Kind::Close {
                        pending.push(Scanned {
                            offset: u32::try_from(offset).unwrap_or(0),
                            end,
                            seqno: header.seqno,
                            more: header.more,
                        });
                    }
                    if !header.more {
                        whole.append(&mut pending);
                        self.whole = header.seqno;
                        valid_len = end;
                    }
                }
                Step::Damage { offset, next } => {
                    self.report(Damage::bytes(&segment.path, offset, next, DAMAGED));
                    if self.is_salvage {
                        whole.append(&mut pending);
                    }
                    pending.clear();
                }
                Step::End { offset } => {
                    if offset < end {
                        self.report(Damage::bytes(&segment.path, offset, end, MISSING));
                    }
                    break;
                }
            }
        }
        self.bytes = self.bytes.saturating_add(valid_len.saturating_sub(start));
        valid_len
    }

    /// Takes in what a record says of which segments there are.
    fn note(&mut self, record: &Record<'_>) {
        match record.header.kind {
            Kind::Move => {
                if let Some(moved) = Move::decode(record.body) {
                    let len = self.classes.entry(moved.to).or_default();
                    *len = (*len).max(u64::from(moved.len));
                }
            }
            Kind::Retire => {
                if let Some(retire) = Retire::decode(record.body) {
                    self.retirements.extend(retire.victims);
                    self.retirements.extend(retire.holes);
                    let classes = retire.classes.iter();
                    self.classes = classes.map(|c| (c.segment, u64::from(c.offset))).collect();
                }
            }
            _ => return,
        }
        self.was_compacted = true;
    }

    fn apply_all(&mut self, segment: &Arc<Segment>, ranges: &[Range<u64>]) {
        for (offset, record) in records(segment, ranges) {
            self.apply(&record, segment, offset);
        }
    }

    pub(super) fn location(&self, address: Address) -> Option<Location> {
        let (number, _) = self.numbers.get(&address.segment)?;
        let offset = u64::from(address.offset);
        // Offsets in records come from the disk.
        let fits = offset.is_multiple_of(8) && offset < SEGMENT_LEN;
        fits.then(|| Location::new(*number, offset))
    }

    /// The record that another replaces: the one it names, or, where that one may be gone, whichever
    /// the key has, since an older version must not come back.
    fn old(&self, record: &Record<'_>, hash: u64) -> Option<Old> {
        let guard = crossbeam_epoch::pin();
        let at = |location: Location| {
            let segment = self.segments.get(location.number(), &guard)?;
            segment.record(location.offset()).ok()
        };
        let Replaced {
            address,
            len,
            expires,
            large,
            ..
        } = record.header.replaced;
        let named = self.location(address);
        if self.is_exact && self.damage.is_empty() {
            let location = named?;
            let pointer = at(location).filter(|_| large);
            return Some(Old {
                location,
                len,
                expires,
                large: pointer
                    .and_then(|old| old.large_pointer())
                    .map(|p| p.segment),
            });
        }
        let namespace = record.header.namespace;
        let location = self.table.find(hash, &guard, |location| {
            named == Some(location)
                || at(location)
                    .is_some_and(|old| old.header.namespace == namespace && old.key == record.key)
        })?;
        let old = at(location);
        let len = old.map_or(len, |old| {
            u32::try_from(old.header.record_len()).unwrap_or(len)
        });
        let expires = old.map_or(expires, |old| record::expires(old.header.expiration));
        let large = old.and_then(|old| old.large_pointer()).map(|p| p.segment);
        Some(Old {
            location,
            len,
            expires,
            large,
        })
    }

    /// Applies one record, which lies at this place.
    pub(super) fn apply(&mut self, record: &Record<'_>, segment: &Arc<Segment>, offset: u32) {
        let header = &record.header;
        self.seqno = self.seqno.max(header.seqno);
        // A put whose body was damaged takes its slot, so that nothing older is found; reading it fails.
        let is_intact = record.body_is_intact();
        match header.kind {
            Kind::Namespace | Kind::Retire | Kind::Move if !is_intact => return,
            Kind::Put | Kind::PutLarge => {
                if self.apply_put(record, segment, offset) {
                    return;
                }
            }
            Kind::Tombstone => {
                segment.usage.add(header);
                let hash = key_hash(&self.id, header.namespace, record.key);
                let old = self.old(record, hash);
                if let Some(old) = old.filter(|old| self.table.remove(hash, old.location)) {
                    self.release(&old);
                }
            }
            Kind::Namespace => {
                self.namespaces
                    .apply(header.namespace, record.body, segment.id, header.seqno);
                return;
            }
            Kind::Retire => {
                let retire = Retire::decode(record.body).unwrap_or_default();
                for id in retire.victims {
                    self.retire(id, header.seqno);
                }
                return;
            }
            Kind::Move => {
                if let Some(moved) = Move::decode(record.body).filter(|_| !self.is_rebuilt) {
                    self.relocate(&moved);
                }
                return;
            }
            Kind::Close => return,
        }
        self.keys.apply([KeyRecord {
            namespace: header.namespace,
            key: record.key,
            metadata: if is_intact { record.metadata() } else { &[] },
            expiration: header.expiration,
            seqno: header.generation(),
            tombstone: header.kind == Kind::Tombstone,
        }]);
    }

    /// Lets the table point to a put. Returns whether the ordered keys hold what they would take of it:
    /// it took the place of the very record that it names, and which lists alike. Where that record may
    /// have been lost, or may not be what was taken, nobody knows.
    fn apply_put(&mut self, record: &Record<'_>, segment: &Arc<Segment>, offset: u32) -> bool {
        let hash = key_hash(&self.id, record.header.namespace, record.key);
        let address = Address {
            segment: segment.id,
            offset,
        };
        let Some(new) = self.location(address) else {
            return false;
        };
        segment.usage.add(&record.header);
        let lists_alike =
            record.header.replaced.lists_alike && self.is_exact && self.damage.is_empty();
        let old = self.old(record, hash);
        let replaced = old.filter(|old| self.table.replace(hash, old.location, new));
        if let Some(old) = &replaced {
            // A moved record shares its large value with the one before it, and takes it over below.
            self.release(old);
        } else if !self.table.insert(hash, new) {
            let offset = u64::from(offset);
            self.damage.push(Damage::at(&segment.path, offset, CROWDED));
        }
        if let Some(pointer) = record.large_pointer() {
            self.larges.insert(pointer.segment);
        }
        lists_alike && replaced.is_some()
    }

    /// Counts a record that the table no longer points to.
    fn release(&mut self, old: &Old) {
        let guard = crossbeam_epoch::pin();
        if let Some(segment) = self.segments.get(old.location.number(), &guard) {
            segment.usage.lose(u64::from(old.len), old.expires);
        }
        if let Some(large) = old.large {
            self.larges.remove(&large);
        }
    }

    /// Repeats a move: what the table still names goes to its new place.
    fn relocate(&mut self, moved: &Move) {
        let Some(to) = self.class_segment(moved) else {
            self.missing.push(moved.to);
            return;
        };
        to.usage.receive(moved);
        let from = self.numbers.get(&moved.from).map(|(_, s)| Arc::clone(s));
        for relocation in &moved.relocations {
            let at = |segment, offset| self.location(Address { segment, offset });
            let Some(new) = at(moved.to, relocation.new) else {
                continue;
            };
            let old = at(moved.from, relocation.old);
            if old.is_some_and(|old| self.table.replace(relocation.hash, old, new)) {
                if let Some(from) = &from {
                    from.usage.lose(relocation.bytes(), relocation.expires);
                }
                to.usage.gain(relocation.bytes(), relocation.expires);
            } else if !self.damage.is_empty() {
                self.overtake(relocation, &to, new);
            }
        }
    }

    /// The segment that a move is to, as long as the move says that it is.
    fn class_segment(&mut self, moved: &Move) -> Option<Arc<Segment>> {
        let len = u64::from(moved.len);
        let segment = match self.found.remove(&moved.to) {
            Some(file) => self.add(file, len).ok()?,
            None => Arc::clone(&self.numbers.get(&moved.to)?.1),
        };
        let there = segment.file.len().ok()?;
        if there < len {
            let missing = Damage::bytes(&segment.path, there, len, MISSING);
            self.damage.push(missing);
        }
        segment.publish(len.min(there));
        Some(segment)
    }

    /// With damage in the log the table may name an older version of what was copied.
    fn overtake(&mut self, relocation: &Relocation, to: &Arc<Segment>, new: Location) {
        let Ok(copy) = to.record(new.offset()) else {
            return;
        };
        let guard = crossbeam_epoch::pin();
        let mut older = None;
        self.table.find(relocation.hash, &guard, |location| {
            let segment = self.segments.get(location.number(), &guard);
            let record = segment.and_then(|s| s.record(location.offset()).ok());
            let is_older = record.is_some_and(|record| {
                is_same_key(&record, &copy) && record.header.seqno < copy.header.seqno
            });
            older = segment.zip(record).filter(|_| is_older);
            is_older && self.table.replace(relocation.hash, location, new)
        });
        if let Some((segment, record)) = older {
            let len = u64::try_from(record.header.record_len()).unwrap_or(0);
            let expires = record::expires(record.header.expiration);
            segment.usage.lose(len, expires);
            to.usage.gain(relocation.bytes(), relocation.expires);
        }
    }

    /// Repeats a retirement: whatever slots the segment still has are those of dead records.
    fn retire(&mut self, id: u64, seqno: u64) {
        let live = self.numbers.get(&id).map(|(_, s)| s.usage.counts().live);
        if live.is_some_and(|live| live > 0) && !self.is_rebuilt && !self.damage.is_empty() {
            // What was live was moved away, but the record that says so may be the damaged one. The
            // segment stays, and is emptied again.
            return;
        }
        self.retired.push(Retired { id, seqno });
        self.namespaces.forget_dropped(id);
        let Some((number, segment)) = self.numbers.remove(&id) else {
            // Its file is gone, and nothing of it was replayed.
            return;
        };
        let counts = segment.usage.counts();
        if counts.larges > 0 {
            self.remove_slots(number, &segment, counts.live);
        }
        if counts.live > 0 {
            // Also of records that can no longer be read. Slots must not come to mean another segment.
            self.table.sweep(&[number]);
        }
        self.segments.remove(number);
    }

    /// Removes the slots that a segment still has, and forgets their large values.
    fn remove_slots(&mut self, number: u32, segment: &Segment, mut left: u64) {
        let mut scan = match segment.class {
            Some(_) => Scan::of_class(segment),
            None => Scan::new(segment, HEADER_LEN as u64, segment.published(), 0),
        };
        while left > 0 {
            match scan.step() {
                Step::Record { offset, record, .. } => {
                    let hash = key_hash(&self.id, record.header.namespace, record.key);
                    if self.table.remove(hash, Location::new(number, offset)) {
                        left -= 1;
                        if let Some(pointer) = record.large_pointer() {
                            self.larges.remove(&pointer.segment);
                        }
                    }
                }
                Step::Damage { .. } => {}
                Step::End { .. } => break,
            }
        }
    }

    /// Looks up what the tail's records will change, so that damage of the table there is found before
    /// anything is written.
    pub(super) fn look_up_tail(&self, tail: &Tail) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        for address in &tail.records {
            let Some((_, segment)) = self.numbers.get(&address.segment) else {
                continue;
            };
            let record = segment.record(u64::from(address.offset))?;
            let moved = match record.header.kind {
                Kind::Move => Move::decode(record.body).unwrap_or_default().relocations,
                _ => Vec::new(),
            };
            let own = key_hash(&self.id, record.header.namespace, record.key);
            for hash in moved.iter().map(|moved| moved.hash).chain([own]) {
                self.table.find(hash, &guard, |_| false);
            }
        }
        Ok(())
    }

    /// Applies the records that may not be durable where they lie, for who only reads.
    pub(super) fn apply_tail(&mut self, tail: &Tail) -> Result<()> {
        for address in &tail.records {
            if let Some((_, segment)) = self.numbers.get(&address.segment).cloned() {
                let record = segment.record(u64::from(address.offset))?;
                self.apply(&record, &segment, address.offset);
            }
        }
        Ok(())
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
        let mut moved: HashMap<Address, Address> = HashMap::new();
        for old in &tail.records {
            let Some((_, segment)) = self.numbers.get(&old.segment) else {
                continue;
            };
            let record = segment.record(u64::from(old.offset))?;
            let mut replaced = record.header.replaced;
            if let Some(address) = moved.get(&replaced.address) {
                replaced.address = *address;
            }
            let lag = record.header.seqno.saturating_sub(self.durable);
            let header = RecordHeader {
                replaced,
                durable_lag: u32::try_from(lag).unwrap_or(u32::MAX),
                ..record.header
            };
            let (_, new) = log.next();
            log.push(&header, record.key, record.body);
            moved.insert(*old, new);
        }
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
        log.since_checkpoint = self.bytes;
        let (number, segment) = log.active();
        self.numbers
            .insert(segment.id, (number, Arc::clone(&segment)));
        for new in tail.records.iter().filter_map(|old| moved.get(old)) {
            let record = segment.record(u64::from(new.offset))?;
            self.apply(&record, &segment, new.offset);
        }
        if let Some((_, segment)) = self.numbers.get(&tail.previous) {
            segment.cut(tail.previous_len);
        }
        if let Some((id, _)) = &tail.empty
            && let Some((number, _)) = self.numbers.remove(id)
        {
            self.segments.remove(number);
        }
        Ok(())
    }
}

/// A record that changes nothing but bears a sequence number.
fn void(seqno: u64, durable: u64) -> RecordHeader {
    RecordHeader {
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

/// Where records lie one after the other.
fn ranges(records: &[Scanned]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for scanned in records {
        let start = u64::from(scanned.offset);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = scanned.end,
            _ => ranges.push(start..scanned.end),
        }
    }
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

pub(super) fn is_same_key(a: &Record<'_>, b: &Record<'_>) -> bool {
    a.header.namespace == b.header.namespace && a.key == b.key
}

fn batch_start(records: &[Scanned], mut at: usize) -> usize {
    while at > 0 && records.get(at - 1).is_some_and(|scanned| scanned.more) {
        at -= 1;
    }
    at
}
