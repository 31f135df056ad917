//! Replay is the commit path again: the same records in the same order with the same outcome. A
//! record names the one it replaced, so replay compares words and reads no old record.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Chain, Files, SegmentFile};
use super::scanned::{Scanned, batch_start, offsets, records};
use super::tail::Tail;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::checkpoint::{FRONT, Retired, SegmentEntry};
use crate::format::lists::{Move, Retire};
use crate::format::record::{Address, HEADER_LEN as RECORD_HEADER_LEN, Kind, Record};
use crate::format::segment::{HEADER_LEN, SEGMENT_LEN, StoreId};
use crate::index::checkpoint::Checkpoint;
use crate::index::keys::Keys;
use crate::index::runs::Run;
use crate::index::table::{Location, Table};
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Segment, Segments};
use crate::namespaces::Namespaces;

pub(crate) const DAMAGED: &str = "no valid records where there were some";
pub(super) const MISSING: &str = "missing";
pub(super) const UNREAD: &str = "cannot be read, and may hold the end of the log";
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
    /// Why a record could not be applied now, though it is not damaged.
    pub(super) failed: Option<Error>,
    /// Segments that the log says were retired.
    pub(super) retirements: HashSet<u64>,
    /// Class segments that were found, and that nothing named so far.
    found: HashMap<u64, SegmentFile>,
    /// Segments that no checkpoint knows and whose headers cannot be read: who needs one of them says so.
    pub(super) unreadable: Vec<PathBuf>,
    /// Class segments of which the log says that they are part of the store, and their lengths.
    pub(super) classes: HashMap<u64, u64>,
    /// Whether the log speaks of segments that were moved or retired.
    was_compacted: bool,
    /// Whether as much as can be read is to be kept, whatever is damaged or missing.
    pub(super) is_salvage: bool,
    /// Class segments and their lengths as the newest checkpoint has them, when salvaging.
    pub(super) checkpointed_classes: Vec<(u64, u64)>,
    /// The segments that the newest checkpoint has in use, and its sequence number, when salvaging: of these nothing
    /// before it was retired, whatever the log says.
    pub(super) in_use: (u64, HashSet<u64>),
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

impl Replay {
    /// From the beginning of the log.
    pub(super) fn new(id: StoreId) -> Replay {
        Replay::with(id, Table::new(), Keys::new(Vec::new()))
    }

    fn with(id: StoreId, table: Table, keys: Keys) -> Replay {
        Replay {
            id,
            segments: Segments::new(),
            table,
            keys,
            namespaces: Namespaces::default(),
            larges: HashSet::new(),
            retired: Vec::new(),
            seqno: 0,
            whole: 0,
            durable: 0,
            bytes: 0,
            damage: Vec::new(),
            gap: None,
            failed: None,
            retirements: HashSet::new(),
            found: HashMap::new(),
            unreadable: Vec::new(),
            classes: HashMap::new(),
            was_compacted: false,
            is_salvage: false,
            checkpointed_classes: Vec::new(),
            in_use: (0, HashSet::new()),
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
        let mut replay = Replay::with(header.store, table, Keys::new(runs));
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
        debug_assert!(file.is_class(), "front segments are in the chain");
        if !self.knows(file.header.id) {
            self.found.insert(file.header.id, file);
        }
    }

    pub(super) fn take_found(&mut self, id: u64) -> Option<SegmentFile> {
        self.found.remove(&id)
    }

    /// Class segments that nothing names, if the log is whole: their copies were not committed.
    pub(super) fn unnamed(&self) -> Vec<PathBuf> {
        let retired: HashSet<u64> = self.retired.iter().map(|r| r.id).collect();
        let unnamed = self.found.iter().filter(|(id, _)| !retired.contains(id));
        let unnamed = unnamed.map(|(_, file)| &file.path);
        unnamed.chain(&self.unreadable).cloned().collect()
    }

    /// Class segments of which the log says that they are part of the store, and that are not there or are another
    /// store's. Also those that only its tail names, which is applied when all was judged.
    pub(super) fn lost_classes(&self) -> impl Iterator<Item = u64> {
        let is_own = |file: &SegmentFile| file.header.store == self.id;
        let is_found = move |id| self.found.get(&id).is_some_and(is_own);
        let named = self.classes.keys().copied();
        named.filter(move |id| !self.numbers.contains_key(id) && !is_found(*id))
    }

    /// Whether a checkpoint knows this segment.
    pub(super) fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&id) || self.retired.iter().any(|retired| retired.id == id)
    }

    /// Takes a segment in, under the number that the checkpoint's slots have for it if they do.
    pub(super) fn add(&mut self, file: SegmentFile, end: u64) -> Result<Arc<Segment>> {
        let segment = self.opened(file, end)?;
        let number = match self.known.get(&segment.id) {
            Some(entry) => {
                let number = entry.number;
                self.segments.restore(&[(number, Arc::clone(&segment))]);
                number
            }
            None => self.segments.add(Arc::clone(&segment)),
        };
        debug_assert!(number > 0, "0 is no segment");
        self.numbers
            .insert(segment.id, (number, Arc::clone(&segment)));
        Ok(segment)
    }

    /// Takes in the segments that the checkpoint says were whole, of its lengths.
    pub(super) fn add_sealed(&mut self, files: Vec<SegmentFile>) -> Result<()> {
        let count = files.len();
        let placed = |file: SegmentFile| {
            let entry = self.known.get(&file.header.id)?;
            Some((entry.number, entry.len, file))
        };
        let placed: Vec<_> = files.into_iter().filter_map(placed).collect();
        debug_assert_eq!(placed.len(), count, "it says where each is");
        let mut all = Vec::with_capacity(placed.len());
        for (number, len, file) in placed {
            all.push((number, self.opened(file, len)?));
        }
        self.segments.restore(&all);
        let numbers = all.into_iter().map(|(number, s)| (s.id, (number, s)));
        self.numbers.extend(numbers);
        Ok(())
    }

    /// A segment that is valid up to `end`, or as far as it is there.
    fn opened(&mut self, file: SegmentFile, end: u64) -> Result<Arc<Segment>> {
        if file.header.store != self.id {
            return Err(Error::Corrupt {
                path: file.path,
                offset: 16,
                reason: "the segment is another store's",
            });
        }
        let len = end.min(file.len);
        if len < end {
            let missing = Damage::bytes(&file.path, len, end, MISSING);
            self.damage.push(missing);
        }
        debug_assert!(len <= file.len, "what is not there is not published");
        debug_assert!(file.len <= SEGMENT_LEN, "longer ones are refused");
        let segment = Segment::new(file.path, file.file, &file.header, len)?;
        if let Some(entry) = self.known.get(&segment.id) {
            segment.usage.set(entry);
        }
        Ok(Arc::new(segment))
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
        debug_assert!(ends.len() >= chain.fronts.len(), "an end for each");
        let mut fronts = Vec::with_capacity(ends.len());
        let mut changes = 0usize;
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
            let (valid_len, damaged) = self.scan(&segment, known.unwrap_or(0), &mut whole);
            segment.cut(valid_len);
            debug_assert!(valid_len >= start, "what the checkpoint knows is valid");
            debug_assert!(
                whole.is_sorted_by(|a, b| a.offset < b.offset && a.seqno <= b.seqno),
                "records lie in the order of the log"
            );
            debug_assert!(
                whole
                    .iter()
                    .all(|scanned| u64::from(scanned.offset) >= start),
                "what the checkpoint holds is not applied again"
            );
            debug_assert!(
                self.whole <= self.seqno,
                "a batch ends with a record that was found"
            );
            changes = changes.saturating_add(whole.len());
            tail.epoch = header.epoch;
            if next.is_some() {
                fronts.push((segment, offsets(&whole)));
                continue;
            }
            let at = whole.partition_point(|scanned| scanned.seqno <= self.durable);
            // A batch is durable or not as a whole: go back to the start of its own.
            let (kept, again) = whole.split_at(batch_start(&whole, at));
            tail.seqno = again.last().or(kept.last()).map_or(before, |s| s.seqno);
            tail.previous = segment.id;
            // Not one byte more: a close record at the end may not be durable. Damage stays, to be told again.
            tail.previous_len = match again.first() {
                Some(first) => u64::from(first.offset),
                None => kept.last().map_or(start, |last| last.end).max(damaged),
            };
            debug_assert!(
                tail.previous_len <= valid_len,
                "the log goes on behind what is valid"
            );
            debug_assert!(
                kept.iter().all(|scanned| scanned.seqno <= self.durable),
                "what may not be durable is written again"
            );
            if kept.is_empty() && damaged == 0 && !self.known.contains_key(&segment.id) {
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
            fronts.push((segment, offsets(kept)));
        }
        self.table.expect(changes);
        if self.is_salvage || (self.was_compacted && self.position.segment == 0) {
            self.rebuild(&fronts)?;
        } else {
            for (segment, offsets) in &fronts {
                self.apply_all(segment, records(segment, offsets).map(Ok))?;
            }
        }
        debug_assert!(self.durable <= self.seqno, "what is durable was given out");
        debug_assert!(tail.seqno <= self.seqno);
        debug_assert!(
            tail.records
                .iter()
                .all(|record| record.segment == tail.previous
                    || tail
                        .empty
                        .as_ref()
                        .is_some_and(|(id, _)| *id == record.segment)),
            "the tail lies in the segment in which the log ends"
        );
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

    /// Finds the records of whole batches, and returns where the last of them ends, and the last damage.
    fn scan(&mut self, segment: &Segment, end: u64, whole: &mut Vec<Scanned>) -> (u64, u64) {
        let start = self.start(segment);
        segment.will_need_from(start);
        let mut scan = Scan::new(segment, start, end, self.seqno.saturating_add(1));
        let (mut valid_len, mut damaged, mut pending) = (start, 0, Vec::new());
        loop {
            if end != 0 && valid_len >= end {
                debug_assert!(pending.is_empty(), "a batch ends where the segment does");
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
                    debug_assert!(offset >= valid_len, "a scan does not go back");
                    debug_assert!(header.seqno >= self.seqno, "numbers rise along the log");
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
                    debug_assert!(offset < next, "damage has a length");
                    self.report(Damage::bytes(&segment.path, offset, next, DAMAGED));
                    // The rest of their batch was durable once, so they count, and are a batch of their own.
                    if let Some(last) = pending.last_mut() {
                        last.more = false;
                    }
                    whole.append(&mut pending);
                    (valid_len, damaged) = (next, next);
                }
                Step::End { offset } => {
                    let unread = segment.unread_end();
                    debug_assert!(offset >= end, "a scan tells what is missing before");
                    if end == 0 && offset < unread {
                        // Records may lie there that were durable. Nobody knows how many; but their numbers
                        // are not given out again.
                        self.report(Damage::bytes(&segment.path, offset, unread, UNREAD));
                        let most = (unread - offset) / RECORD_HEADER_LEN as u64;
                        self.seqno = self.seqno.saturating_add(most);
                    }
                    break;
                }
            }
        }
        self.bytes = self.bytes.saturating_add(valid_len.saturating_sub(start));
        (valid_len, damaged)
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
                    let (seqno, in_use) = &self.in_use;
                    let is_later = record.header.seqno > *seqno;
                    let victims = retire.victims.into_iter();
                    let victims = victims.filter(|id| is_later || !in_use.contains(id));
                    self.retirements.extend(victims);
                    self.retirements.extend(retire.holes);
                    let classes = retire.classes.iter();
                    self.classes = classes.map(|c| (c.segment, u64::from(c.offset))).collect();
                    if is_later {
                        // What is listed had stayed, whoever said before that it was retired.
                        for id in self.classes.keys() {
                            self.retirements.remove(id);
                        }
                    }
                }
            }
            _ => return,
        }
        self.was_compacted = true;
    }

    pub(super) fn location(&self, address: Address) -> Option<Location> {
        let (number, _) = self.numbers.get(&address.segment)?;
        let offset = u64::from(address.offset);
        // Offsets in records come from the disk.
        let fits = offset.is_multiple_of(8) && offset < SEGMENT_LEN;
        let location = fits.then(|| Location::new(*number, offset));
        debug_assert!(
            location.is_none_or(|at| at.number() == *number && at.offset() == offset),
            "a slot has room for it"
        );
        location
    }
}

pub(super) fn is_same_key(a: &Record<'_>, b: &Record<'_>) -> bool {
    a.header.namespace == b.header.namespace && a.key == b.key
}
