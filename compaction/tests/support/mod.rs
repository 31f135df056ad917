//! A store in memory whose whole life takes milliseconds: a log in segments of a few kilobytes, its
//! table, and what of them survives a power cut.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each user needs a part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "test code may panic"
)]

pub mod load;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

use rimstone_compaction::{
    CLASSES, Compactor, CostBenefit, Expiries, Pace, Plan, Record, SegmentStats, Segments, Strategy,
};

/// Bytes of a record beside its value, and of a tombstone.
pub const HEAD: u64 = 80;
pub const FOREVER: u64 = u64::MAX;

/// A small generator of random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A value, which is in the record or has a file of its own.
    Put {
        value: u64,
        last_visible: u64,
        large: Option<u64>,
    },
    Tombstone,
    /// A copy got its place in the table. A rebuild needs none of these.
    Move,
    Retire(Vec<u64>),
}

#[derive(Clone, Debug)]
pub struct Rec {
    pub key: u32,
    pub seqno: u64,
    pub len: u64,
    pub body: Body,
    /// Whether more records of its batch follow.
    more: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    segment: u64,
    index: u32,
}

impl Record for Rec {
    fn encoded_len(&self) -> u64 {
        self.len
    }

    fn seqno(&self) -> u64 {
        self.seqno
    }

    // Records of retirement are none: while the file of a retired segment is there, so are those of
    // all that were retired later, and a rebuild reads their records of retirement.
    fn is_pin(&self) -> bool {
        self.body == Body::Tombstone
    }

    fn last_visible(&self) -> u64 {
        match self.body {
            Body::Put { last_visible, .. } => last_visible,
            _ => 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Segment {
    class: Option<u8>,
    sealed: bool,
    records: Vec<Rec>,
    /// How many of the records are durable.
    durable: usize,
    bytes: u64,
    live: u64,
    pins: u64,
    highest_pin: u64,
    lowest_seqno: u64,
    sum_seqno: u128,
    last_visible: u64,
    expiries: Expiries,
}

/// A planted fault in how plans are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A move applies though the key was written meanwhile.
    MoveAlways,
    /// Victims are removed before their retirement is durable.
    RemoveEarly,
    /// Victims are retired before the copies are durable.
    FlushLate,
}

pub struct Store {
    pub now: u64,
    pub fault: Fault,
    pub segment_len: u64,
    /// Copies go to segments by remaining life, or all to one.
    pub classed: bool,
    /// How many buckets the filters of keys have, 0 for none.
    pub filter: u32,
    /// The record of this sequence number cannot be read.
    pub unreadable: Option<u64>,
    /// Copies are flushed, and moves applied, when there are so many of them.
    pub moves_max: usize,
    /// Bytes of the log for each move.
    pub move_len: u64,
    /// What users wrote, and what compaction wrote.
    pub written: u64,
    pub copied: u64,
    /// Values with files of their own.
    pub larges: HashSet<u64>,
    segments: BTreeMap<u64, Segment>,
    /// Retired segments whose files are there, in the order of retirement, with its sequence number.
    retired: Vec<(u64, u64, Segment)>,
    open: HashMap<Option<u8>, u64>,
    table: HashMap<u32, Place>,
    /// Where there are puts of a key, or of a bucket of keys, and how old they are.
    puts: HashMap<u32, Vec<(u64, u64)>>,
    moved: Vec<(Place, Place)>,
    erased: Vec<Place>,
    next_id: u64,
    seqno: u64,
    durable: u64,
    /// Which pins are still needed is found out again after each retirement, not each time it is asked.
    pin_bytes: HashMap<u64, Cell<Option<u64>>>,
}

impl Store {
    pub fn new(segment_len: u64) -> Store {
        let mut store = Store {
            now: 1_000_000,
            fault: Fault::None,
            segment_len,
            classed: true,
            filter: u32::MAX,
            unreadable: None,
            moves_max: usize::MAX,
            move_len: 32,
            written: 0,
            copied: 0,
            larges: HashSet::new(),
            segments: BTreeMap::new(),
            retired: Vec::new(),
            open: HashMap::new(),
            table: HashMap::new(),
            puts: HashMap::new(),
            moved: Vec::new(),
            erased: Vec::new(),
            next_id: 0,
            seqno: 0,
            durable: 0,
            pin_bytes: HashMap::new(),
        };
        store.open_segment(None);
        store
    }

    /// The sequence number of the newest record.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    pub fn put(&mut self, key: u32, value: u64, len: u64, last_visible: u64) {
        self.put_any(key, value, len, last_visible, None);
    }

    pub fn put_large(&mut self, key: u32, value: u64, last_visible: u64) {
        self.larges.insert(value);
        self.put_any(key, value, 0, last_visible, Some(value));
    }

    fn put_any(&mut self, key: u32, value: u64, len: u64, last_visible: u64, large: Option<u64>) {
        let old = self.record_of(key).map(|old| old.last_visible());
        if old.is_some_and(|old| last_visible < old) {
            self.append(key, HEAD, Body::Tombstone, true);
        }
        let body = Body::Put {
            value,
            last_visible,
            large,
        };
        let place = self.append(key, HEAD + len, body, false);
        self.point(key, Some(place));
    }

    pub fn delete(&mut self, key: u32) {
        if self.table.contains_key(&key) {
            self.append(key, HEAD, Body::Tombstone, false);
            self.point(key, None);
        }
    }

    pub fn get(&self, key: u32) -> Option<u64> {
        match self.record_of(key)?.body {
            Body::Put {
                value,
                last_visible,
                ..
            } if self.now <= last_visible => Some(value),
            _ => None,
        }
    }

    /// All that was written becomes durable, and what is retired by it goes.
    pub fn sync(&mut self) {
        let front = self.open[&None];
        let front = self.segments.get_mut(&front).unwrap();
        front.durable = front.records.len();
        self.durable = self.seqno;
        self.retired.clear();
    }

    /// What a power cut leaves, rebuilt from the segments alone. Returns up to which sequence number.
    pub fn crash(&mut self, random: &mut Random) -> u64 {
        let mut files = std::mem::take(&mut self.segments);
        let mut durable = self.durable;
        for segment in files.values_mut() {
            let lost = (segment.records.len() - segment.durable) as u64;
            let kept = segment.durable + random.below(lost + 1) as usize;
            segment.records.truncate(kept);
            while segment.records.last().is_some_and(|last| last.more) {
                segment.records.pop();
            }
            segment.durable = segment.records.len();
            segment.sealed = true;
            if let (None, Some(last)) = (segment.class, segment.records.last()) {
                durable = durable.max(last.seqno);
            }
        }
        // Some of what may be removed was; always the segments that were retired first.
        let mut retired = std::mem::take(&mut self.retired);
        let removable = retired.iter().filter(|(at, ..)| *at <= durable).count() as u64;
        retired.drain(..random.below(removable + 1) as usize);
        files.extend(retired.into_iter().map(|(_, id, segment)| (id, segment)));
        self.rebuild(files);
        (self.seqno, self.durable) = (durable, durable);
        durable
    }

    /// The store that a rebuild makes of the segments as they are.
    pub fn rebuilt(&self) -> Store {
        let mut store = Store::new(self.segment_len);
        (store.now, store.next_id, store.seqno) = (self.now, self.next_id, self.seqno);
        let retired = self.retired.iter();
        let mut files = self.segments.clone();
        files.extend(retired.map(|(_, id, segment)| (*id, segment.clone())));
        store.rebuild(files);
        store
    }

    fn rebuild(&mut self, files: BTreeMap<u64, Segment>) {
        (self.moved, self.erased) = (Vec::new(), Vec::new());
        self.pin_bytes.clear();
        self.table.clear();
        self.puts.clear();
        self.open.clear();
        self.segments.clear();
        let records = || files.values().flat_map(|file| &file.records);
        let retirements = records().filter_map(|record| match &record.body {
            Body::Retire(ids) => Some((record.seqno, ids)),
            _ => None,
        });
        let retirements = retirements.flat_map(|(at, ids)| ids.iter().map(move |id| (*id, at)));
        let retirements: HashMap<u64, u64> = retirements.collect();
        let mut newest: HashMap<u32, Rec> = HashMap::new();
        for (id, mut file) in files {
            if let Some(at) = retirements.get(&id) {
                self.retired.push((*at, id, file));
                continue;
            }
            (file.bytes, file.live, file.pins) = (0, 0, 0);
            file.sum_seqno = 0;
            file.expiries = Expiries::new(self.now);
            file.last_visible = 0;
            let records = std::mem::take(&mut file.records);
            self.segments.insert(id, file);
            for record in records {
                let is_newer = newest
                    .get(&record.key)
                    .is_none_or(|old| record.seqno > old.seqno);
                if is_newer && matches!(record.body, Body::Put { .. } | Body::Tombstone) {
                    newest.insert(record.key, record.clone());
                }
                self.push(id, record);
            }
        }
        self.retired.sort_by_key(|(at, ..)| *at);
        let mut larges = HashSet::new();
        for (key, record) in newest {
            if let Body::Put { large, .. } = record.body {
                larges.extend(large);
                self.point(key, Some(record.place));
            }
        }
        self.larges = larges;
        self.open_segment(None);
    }

    /// Carries out plans for as long as there are any.
    pub fn compact(&mut self, strategy: &dyn Strategy) {
        let now = self.now;
        while rimstone_compaction::run(self, strategy, now)
            .unwrap()
            .is_some()
        {}
        self.sync();
    }

    /// The lengths of all files, and of the sealed ones.
    pub fn bytes(&self) -> (u64, u64) {
        let all: u64 = self.segments.values().map(|s| s.bytes).sum();
        let open = self.segments.values().filter(|s| !s.sealed);
        let retired: u64 = self.retired.iter().map(|(_, _, s)| s.bytes).sum();
        (
            all + retired,
            all - open.map(|s| s.bytes).sum::<u64>() + retired,
        )
    }

    /// How many segments are written to.
    pub fn open_segments(&self) -> u64 {
        self.segments.values().filter(|s| !s.sealed).count() as u64
    }

    /// The bytes of records that must be kept.
    pub fn live_bytes(&self) -> u64 {
        let live = self
            .segments
            .values()
            .map(|s| s.expiries.live(self.now, 0).0);
        live.sum()
    }

    /// The counts that are kept must be those that counting gives.
    pub fn validate(&self) {
        let mut live: HashMap<u64, u64> = HashMap::new();
        for (key, place) in &self.table {
            let record = &self.segments[&place.segment].records[place.index as usize];
            assert_eq!(record.key, *key);
            *live.entry(place.segment).or_default() += 1;
        }
        for (id, segment) in &self.segments {
            assert_eq!(segment.live, live.get(id).copied().unwrap_or(0));
            let pins = segment.records.iter().filter(|r| r.is_pin());
            assert_eq!(segment.pins, pins.count() as u64);
        }
    }

    fn record_of(&self, key: u32) -> Option<&Rec> {
        let place = self.table.get(&key)?;
        Some(&self.segments[&place.segment].records[place.index as usize])
    }

    fn append(&mut self, key: u32, len: u64, body: Body, more: bool) -> Place {
        self.seqno += 1;
        let (seqno, place) = (self.seqno, Place::default());
        match body {
            Body::Put { .. } | Body::Tombstone => self.written += len,
            Body::Move | Body::Retire(_) => self.copied += len,
        }
        let front = self.open[&None];
        let place = self.push(
            front,
            Rec {
                key,
                seqno,
                len,
                body,
                more,
                place,
            },
        );
        if self.segments[&front].bytes >= self.segment_len && !more {
            self.sync();
            self.segments.get_mut(&front).unwrap().sealed = true;
            self.open_segment(None);
        }
        place
    }

    fn push(&mut self, id: u64, mut record: Rec) -> Place {
        let bucket = self.bucket(record.key);
        let segment = self.segments.get_mut(&id).unwrap();
        let index = u32::try_from(segment.records.len()).unwrap();
        record.place = Place { segment: id, index };
        segment.bytes += record.len;
        segment.lowest_seqno = segment.lowest_seqno.min(record.seqno);
        if record.is_pin() {
            segment.pins += 1;
            segment.highest_pin = segment.highest_pin.max(record.seqno);
        } else if let Body::Put { last_visible, .. } = record.body {
            segment.last_visible = segment.last_visible.max(last_visible);
            self.puts
                .entry(bucket)
                .or_default()
                .push((record.seqno, id));
        }
        let place = record.place;
        segment.records.push(record);
        place
    }

    /// Changes what the table says of a key, and the counts with it.
    fn point(&mut self, key: u32, place: Option<Place>) {
        let old = match place {
            Some(place) => self.table.insert(key, place),
            None => self.table.remove(&key),
        };
        let large = |store: &Store, place: Option<Place>| {
            let place = place?;
            match store.segments[&place.segment].records[place.index as usize].body {
                Body::Put { large, .. } => large,
                _ => None,
            }
        };
        if let Some(old_large) = large(self, old).filter(|l| large(self, place) != Some(*l)) {
            self.larges.remove(&old_large);
        }
        for (place, is_new) in [(old, false), (place, true)] {
            let Some(place) = place else { continue };
            let segment = self.segments.get_mut(&place.segment).unwrap();
            let record = &segment.records[place.index as usize];
            let (last_visible, len) = (record.last_visible(), record.len);
            if is_new {
                segment.live += 1;
                segment.sum_seqno += u128::from(record.seqno);
                segment.expiries.add(last_visible, len);
            } else {
                segment.live -= 1;
                segment.sum_seqno -= u128::from(record.seqno);
                segment.expiries.remove(last_visible, len);
            }
        }
    }

    fn open_segment(&mut self, class: Option<u8>) -> u64 {
        self.next_id += 1;
        self.open.insert(class, self.next_id);
        let segment = Segment {
            class,
            sealed: false,
            records: Vec::new(),
            durable: 0,
            bytes: 0,
            live: 0,
            pins: 0,
            highest_pin: 0,
            lowest_seqno: u64::MAX,
            sum_seqno: 0,
            last_visible: 0,
            expiries: Expiries::new(self.now),
        };
        self.segments.insert(self.next_id, segment);
        self.next_id
    }

    fn bucket(&self, key: u32) -> u32 {
        key.checked_rem(self.filter).unwrap_or(0)
    }

    fn is_needed(&self, pin: &Rec, victims: &[u64]) -> bool {
        let puts = self.puts.get(&self.bucket(pin.key)).into_iter().flatten();
        puts.clone()
            .any(|(seqno, id)| *seqno < pin.seqno && !victims.contains(id))
    }

    /// Lets the table point to the copies, where it still points to the originals.
    fn apply_moves(&mut self) {
        if self.fault != Fault::FlushLate {
            self.flush_classes();
        }
        for (old, new) in std::mem::take(&mut self.moved) {
            let record = &self.segments[&new.segment].records[new.index as usize];
            let key = record.key;
            if self.table.get(&key) == Some(&old) || self.fault == Fault::MoveAlways {
                self.append(key, self.move_len, Body::Move, false);
                self.point(key, Some(new));
            }
        }
    }

    fn flush_classes(&mut self) {
        for segment in self.segments.values_mut().filter(|s| s.class.is_some()) {
            segment.durable = segment.records.len();
        }
    }
}

impl Segments for Store {
    type Record = Rec;
    type Scan = std::vec::IntoIter<Result<Rec, &'static str>>;
    type Error = &'static str;

    fn stats(&self, now: u64) -> Vec<SegmentStats> {
        let stats = self.segments.iter().map(|(id, segment)| {
            let (live_bytes, life) = segment.expiries.live(now, 1 << 32);
            let known = self.pin_bytes.get(id).and_then(Cell::get);
            let pin_bytes = known.filter(|_| segment.sealed).unwrap_or_else(|| {
                let pins = segment.records.iter().filter(|r| r.is_pin());
                let needed = pins.filter(|pin| self.is_needed(pin, &[*id]));
                needed.map(|pin| pin.len).sum()
            });
            if let Some(cell) = self.pin_bytes.get(id) {
                cell.set(Some(pin_bytes));
            }
            SegmentStats {
                id: *id,
                sealed: segment.sealed,
                bytes: segment.bytes,
                live: segment.live,
                live_bytes,
                life,
                pins: segment.pins,
                pin_bytes,
                highest_pin: segment.highest_pin,
                lowest_seqno: segment.lowest_seqno,
                last_visible: segment.last_visible,
                mean_seqno: u64::try_from(segment.sum_seqno / u128::from(segment.live.max(1)))
                    .unwrap(),
                hits: 0,
                class: segment.class,
            }
        });
        stats.collect()
    }

    fn scan(&self, segment: u64) -> Result<Self::Scan, Self::Error> {
        let segment = self.segments.get(&segment).ok_or("no such segment")?;
        let records = segment.records.iter().cloned();
        let records = records.map(|record| match self.unreadable == Some(record.seqno) {
            true => Err("damaged"),
            false => Ok(record),
        });
        Ok(records.collect::<Vec<_>>().into_iter())
    }

    fn is_live(&self, record: &Rec) -> bool {
        self.table.get(&record.key) == Some(&record.place)
    }

    fn may_hold_older(&self, pin: &Rec, plan: &Plan) -> bool {
        self.filter == 0 || self.is_needed(pin, &plan.victims)
    }

    fn relocate(&mut self, mut record: Rec, class: u8) -> Result<(), Self::Error> {
        assert!(class < CLASSES);
        let class = Some(if self.classed { class } else { 0 });
        let id = match self.open.get(&class) {
            Some(id) => *id,
            None => self.open_segment(class),
        };
        let old = record.place;
        record.more = false;
        self.copied += record.len;
        let is_pin = record.is_pin();
        let new = self.push(id, record);
        if !is_pin {
            self.moved.push((old, new));
        }
        if self.segments[&id].bytes >= self.segment_len {
            let segment = self.segments.get_mut(&id).unwrap();
            (segment.sealed, segment.durable) = (true, segment.records.len());
            self.open.remove(&class);
        }
        if self.moved.len() >= self.moves_max {
            self.apply_moves();
        }
        Ok(())
    }

    fn erase(&mut self, record: Rec) -> Result<(), Self::Error> {
        self.erased.push(record.place);
        Ok(())
    }

    fn install(&mut self, plan: &Plan) -> Result<(), Self::Error> {
        self.apply_moves();
        for old in std::mem::take(&mut self.erased) {
            let key = self.segments[&old.segment].records[old.index as usize].key;
            if self.table.get(&key) == Some(&old) {
                self.point(key, None);
            }
        }
        self.append(0, HEAD, Body::Retire(plan.victims.clone()), false);
        for id in &plan.victims {
            let segment = self.segments.remove(id).ok_or("no such victim")?;
            assert!(segment.sealed && segment.live == 0, "{id} is still needed");
            for record in &segment.records {
                let bucket = self.bucket(record.key);
                if let Some(puts) = self.puts.get_mut(&bucket) {
                    puts.retain(|(_, segment)| segment != id);
                }
            }
            self.retired.push((self.seqno, *id, segment));
        }
        if self.fault == Fault::RemoveEarly {
            self.retired.clear();
        }
        let ids = self.segments.keys().map(|id| (*id, Cell::new(None)));
        self.pin_bytes = ids.collect();
        Ok(())
    }

    fn abandon(&mut self) {
        self.moved.clear();
        self.erased.clear();
    }
}

/// Compaction that goes on between the writes of a user, as fast as these allow.
pub struct Background {
    pub strategy: CostBenefit,
    pub pace: Pace,
    pub plan: Option<Compactor<<Store as Segments>::Scan>>,
    written: u64,
    scanned: u64,
    fullness: u64,
}

impl Background {
    pub fn new(strategy: CostBenefit, burst: u64) -> Background {
        Background {
            strategy,
            pace: Pace::new(burst),
            plan: None,
            written: 0,
            scanned: 0,
            fullness: 0,
        }
    }

    /// Does what is due after a write. Looks for work only each `every` bytes that were written.
    pub fn work(&mut self, store: &mut Store, every: u64) {
        let written = store.written - self.written;
        if written < every {
            return;
        }
        self.written = store.written;
        self.fullness = self.strategy.fullness(&store.stats(store.now));
        self.pace.written(written, self.fullness);
        loop {
            if self.plan.is_none() {
                let plan = self.strategy.choose(&store.stats(store.now), store.now);
                self.plan = plan.map(|plan| Compactor::new(plan, store.now));
                self.scanned = 0;
            }
            let budget = self.pace.available().min(every);
            let Some(compactor) = self.plan.as_mut().filter(|_| budget > 0) else {
                return;
            };
            let progress = compactor.step(store, budget).unwrap();
            self.pace.spend(progress.scanned - self.scanned);
            self.scanned = progress.scanned;
            if progress.is_done {
                self.plan = None;
                store.sync();
            }
        }
    }
}
