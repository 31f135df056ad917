//! The leader's work: decide each request in order, write them as one group, flush, publish.

use std::collections::HashSet;
use std::sync::Arc;

use rimstone_cache::Key;

use crate::core::{Core, Found};
use crate::error::{Error, Result};
use crate::format::record::{
    HEADER_LEN, Header, Kind, METADATA_MAX, RECORD_MAX, Replaced, expires,
};
use crate::format::segment::{HEADER_LEN as SEGMENT_HEADER_LEN, SEGMENT_LEN};
use crate::hashed::ByHash;
use crate::index::runs::KeyRecord;
use crate::index::table::Location;
use crate::log::appender::Appender;
use crate::log::commit::{Moved, Op, Outcome, Request};
use crate::log::segment::large_path;
use crate::many::PREFETCHED;
use crate::namespaces::View;
use crate::options::Condition;
use crate::sync::atomic::Ordering;
use crate::sync::epoch::{self, Guard};

/// Largest batch, encoded: it lies in one segment.
pub(crate) const BATCH_MAX: usize = 32 << 20;
/// Bodies up to this are verified to compare metadata with that of a put.
const COMPARED_MAX: usize = 4096;
/// A group is flushed once it has this many bytes, so that memory stays bounded.
const GROUP_MAX: usize = 8 << 20;

const _: () = {
    let room = SEGMENT_LEN - SEGMENT_HEADER_LEN as u64;
    assert!(BATCH_MAX as u64 <= room, "it lies in one segment");
    assert!(GROUP_MAX as u64 <= room, "so does a group");
    assert!(GROUP_MAX >= RECORD_MAX, "a group has room for a record");
    assert!(COMPARED_MAX >= METADATA_MAX, "metadata alone is compared");
};

/// A request that is encoded but not yet written.
struct Decided<'a> {
    request: &'a Arc<Request>,
    changes: Vec<Change<'a>>,
    outcome: Outcome,
}

/// What publishing one operation changes.
struct Change<'a> {
    op: &'a Op,
    header: Header,
    needs_tombstone: bool,
    old: Option<Old>,
    new: Location,
}

/// The record that an operation replaces.
struct Old {
    location: Location,
    replaced: Replaced,
    /// The segment of its value, if that is large.
    large: Option<u64>,
    expiration: u64,
}

impl Old {
    /// Whether the record is visible longer than one that expires then.
    fn outlives(&self, expiration: u64) -> bool {
        expiration != 0 && (self.expiration == 0 || self.expiration > expiration)
    }
}

/// What is decided of an operation that is logged.
#[derive(Default)]
struct Decision {
    old: Option<Old>,
    /// Whether a tombstone of the key precedes it.
    needs_tombstone: bool,
}

/// Poisons the store if the leader panics: nobody knows then what it wrote, and what it published of that.
struct Unfinished<'a>(&'a Core);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.poison();
    }
}

/// One turn of the leader.
struct Group<'a> {
    core: &'a Core,
    log: &'a mut Appender,
    decided: Vec<Decided<'a>>,
    hashes: HashSet<u64, ByHash>,
    /// Whether requests follow the one that is decided.
    has_more: bool,
    /// Whether what is decided must be published before anything else is decided.
    is_alone: bool,
    bytes: usize,
    /// The newest sequence number before the group.
    before: u64,
    /// Whether maintenance has something to do.
    work: bool,
}

impl Core {
    /// Commits operations together and returns the outcome of the last.
    pub(crate) fn commit(&self, mut ops: Vec<Op>, immediate: bool) -> Result<Outcome> {
        // Before anything is waited for: the threads that would end the wait are not here.
        self.origin.check()?;
        let new: usize = ops.iter().filter(|op| op.is_put()).map(space).sum();
        self.brake.wait(u64::try_from(new).unwrap_or(u64::MAX));
        let all = ops.iter().map(space).sum();
        if let Err(error) = self.take_capacity(all, new > 0) {
            self.remove_larges(&ops);
            return Err(error);
        }
        self.warm(&mut ops);
        let request = Request::new(ops, immediate);
        let writable = self.check_writable().and_then(|()| {
            if request.frees_space() {
                Ok(())
            } else {
                self.check_room()
            }
        });
        let was_writable = writable.is_ok();
        let result =
            writable.and_then(|()| self.queue.submit(&request, |requests| self.lead(requests)));
        if matches!(result, Err(Error::Full)) {
            self.reserve.want();
            self.work.wake();
            if request.frees_space() && self.reserve.release() {
                // It goes on with the space that was kept back for it.
                let request = Request::new(request.ops.clone(), immediate);
                return self.queue.submit(&request, |requests| self.lead(requests));
            }
        }
        if matches!(result, Err(Error::NoSuchNamespace))
            && let Some(ops) = self.renumbered(&request.ops)
        {
            return self.commit(ops, immediate);
        }
        let refused = |e: &Error| !was_writable || !matches!(e, Error::Poisoned | Error::Io { .. });
        if result.as_ref().is_err_and(refused) {
            // Nothing of the request was written, so no record will ever name its large values.
            self.remove_larges(&request.ops);
        }
        result
    }

    /// The same operations on namespaces that got other numbers meanwhile, since everything in them was
    /// deleted; `None` if that is not why they were refused.
    fn renumbered(&self, ops: &[Op]) -> Option<Vec<Op>> {
        let renumbered = |op: &Op| {
            let namespace = self.namespaces.newest_number(op.namespace)?;
            let hash = self.hash(namespace, op.key());
            Some(Op {
                namespace,
                hash,
                ..op.clone()
            })
        };
        let new: Vec<Op> = ops.iter().map(renumbered).collect::<Option<_>>()?;
        let differs = new
            .iter()
            .zip(ops)
            .any(|(new, old)| new.namespace != old.namespace);
        differs.then_some(new)
    }

    /// Removes the files of large values that no record will name.
    pub(crate) fn remove_larges(&self, ops: &[Op]) {
        for pointer in ops.iter().filter_map(Op::large_pointer) {
            let _ = self.vfs.remove(&large_path(&self.dir, pointer.segment));
        }
    }

    /// Touches the records that will be replaced, in the writer's own thread: overwriting a cold key
    /// must not make other writers wait for the disk. Notes which of them list alike.
    fn warm(&self, ops: &mut [Op]) {
        for ops in ops.chunks_mut(PREFETCHED) {
            let guard = epoch::pin();
            // One alone has nothing to wait for meanwhile.
            if ops.len() > 1 {
                let hashes: Vec<u64> = ops.iter().map(|op| op.hash).collect();
                self.prefetch(&hashes, &guard);
            }
            for op in ops.iter_mut().filter(|op| !op.key().is_empty()) {
                let found = self.find(op.namespace, op.key(), op.hash, &guard);
                let alike = found.ok().flatten().filter(|f| self.lists_alike(f, op));
                op.alike = alike.map(|found| found.address());
            }
        }
    }

    /// Whether a record has the metadata and expiration of a put. Only what was verified is compared.
    fn lists_alike(&self, found: &Found<'_>, op: &Op) -> bool {
        let Found {
            location,
            segment,
            record,
        } = found;
        let is_intact = || {
            record.body.len() <= COMPARED_MAX
                && segment.body_is_intact(location.offset(), record, self.verify)
        };
        let metadata = op.metadata();
        op.is_put()
            && record.header.expiration == op.expiration
            && record.metadata() == metadata
            && (metadata.is_empty() || is_intact())
    }

    pub(crate) fn lead(&self, requests: &[Arc<Request>]) {
        debug_assert!(!requests.is_empty(), "who leads has a request");
        let mut log = self.log.lock();
        let unfinished = Unfinished(self);
        let mut group = Group {
            core: self,
            before: log.seqno,
            log: &mut log,
            decided: Vec::with_capacity(requests.len()),
            hashes: HashSet::default(),
            has_more: true,
            is_alone: false,
            bytes: 0,
            work: false,
        };
        for (request, left) in requests.iter().zip((0..requests.len()).rev()) {
            group.has_more = left > 0;
            if let Err(error) = group.take(request) {
                request.finish(Err(error));
            }
        }
        group.flush();
        group.check_done();
        std::mem::forget(unfinished);
        if group.work || log.wants_maintenance() {
            self.work.wake();
        }
        if log.wants_ahead() {
            self.ahead.wake();
        }
        if log.wants_flush() {
            self.flush.wake();
        }
    }
}

impl<'a> Group<'a> {
    /// What holds when everybody has an answer.
    fn check_done(&self) {
        let is_poisoned = self.core.poisoned.load(Ordering::Acquire);
        debug_assert!(self.decided.is_empty(), "nobody waits");
        debug_assert!(self.hashes.is_empty(), "nobody is met");
        debug_assert!(self.log.buffered() == 0 || is_poisoned, "it was written");
        debug_assert!(self.before == self.log.seqno || is_poisoned);
    }

    /// Decides and encodes a request. What it decides on is published: if the group already changes
    /// one of its keys, the group is written first.
    fn take(&mut self, request: &'a Arc<Request>) -> Result<()> {
        let len: usize = request.ops.iter().map(space).sum();
        let alone = request.stands_alone();
        let meets = request.ops.iter().any(|op| self.hashes.contains(&op.hash));
        if meets
            || self.is_alone
            || alone
            || self.bytes.saturating_add(len) > GROUP_MAX
            || !self.log.has_room(len)
        {
            self.flush();
        }
        self.core.check_writable()?;
        if !self.log.has_room(len) {
            self.core.rotate(self.log)?;
        }
        debug_assert!(!self.is_alone && (!alone || self.decided.is_empty()));
        debug_assert!(self.log.has_room(len), "a batch lies in one segment");
        let (old, outcome) = self.decide(request)?;
        self.encode(request, old, outcome);
        self.is_alone = alone;
        let larges = request.ops.iter().filter_map(Op::large_pointer);
        larges.for_each(|large| self.log.note_large(large.len));
        self.bytes = self.bytes.saturating_add(len);
        if self.has_more {
            self.hashes.extend(request.ops.iter().map(|op| op.hash));
        }
        Ok(())
    }

    /// For each operation the record it replaces, or `None` if it changes nothing.
    fn decide(&self, request: &Request) -> Result<(Vec<Option<Decision>>, Outcome)> {
        debug_assert!(
            request.ops.iter().all(|op| !self.hashes.contains(&op.hash)),
            "what it is decided on is published"
        );
        let guard = epoch::pin();
        let now = self.core.clock.now();
        let mut outcome = Outcome::default();
        let mut replaced = Vec::with_capacity(request.ops.len());
        let mut known: Option<View> = None;
        for op in &request.ops {
            if !op.is_put() && op.kind != Kind::Tombstone {
                replaced.push(Some(Decision::default()));
                continue;
            }
            // Nothing is published meanwhile, so that it is the same for all.
            let view = match known.take().filter(|view| view.number == op.namespace) {
                Some(view) => view,
                None => self.core.namespaces.view_of(op.namespace)?,
            };
            let view = known.insert(view);
            self.core.check_table(op.hash, &guard)?;
            // A damaged record cannot be told from another key's: a put goes beside it, and a delete
            // is logged, so that replay does not bring back what the damaged record had replaced.
            let found = self.core.find(op.namespace, op.key(), op.hash, &guard);
            let (found, damaged) = match found {
                Ok(found) => (found, None),
                Err(error) => (None, Some(error)),
            };
            let visible = found.as_ref().filter(|f| f.is_visible(view, || now));
            let generation = visible.map(|f| f.record.header.generation());
            let newest = found.as_ref().map(|f| f.record.header.seqno);
            match op.condition {
                Condition::Before(seqno) if newest.is_some_and(|n| n >= seqno) => {
                    replaced.push(None);
                    continue;
                }
                Condition::Absent | Condition::Generation(_) if damaged.is_some() => {
                    // Nobody can say whether it holds.
                    return Err(damaged.unwrap_or(Error::Poisoned));
                }
                Condition::Absent if generation.is_some() => {
                    return Err(Error::Conflict { found: generation });
                }
                Condition::Generation(n) if generation != Some(n) => {
                    return Err(Error::Conflict { found: generation });
                }
                _ => {}
            }
            outcome.existed = generation.is_some();
            let damaged = damaged.is_some();
            let old = found.map(|found| {
                // Keys that a list does not show are not there for it.
                let is_listed = found.is_visible(view, || now);
                let lists_alike = is_listed && op.alike == Some(found.address());
                old(&found, lists_alike)
            });
            let logged = op.kind != Kind::Tombstone || old.is_some() || damaged;
            // Once a put has expired and its segment is gone, a rebuild from the log must not find an
            // older version again.
            let outlived = damaged || old.as_ref().is_some_and(|old| old.outlives(op.expiration));
            let needs_tombstone = op.is_put() && op.expiration != 0 && outlived;
            replaced.push(logged.then_some(Decision {
                old,
                needs_tombstone,
            }));
        }
        debug_assert_eq!(replaced.len(), request.ops.len(), "each is decided");
        Ok((replaced, outcome))
    }

    fn encode(
        &mut self,
        request: &'a Arc<Request>,
        decisions: Vec<Option<Decision>>,
        mut outcome: Outcome,
    ) {
        let before = self.log.seqno;
        let mut left = decisions.iter().flatten().count();
        let mut changes = Vec::with_capacity(left);
        for (op, decision) in request.ops.iter().zip(decisions) {
            let Some(decision) = decision else { continue };
            let Decision {
                old,
                needs_tombstone,
            } = decision;
            left = left.saturating_sub(1);
            let mut replaced = old.as_ref().map(|old| old.replaced).unwrap_or_default();
            if needs_tombstone {
                self.push(Kind::Tombstone, op, replaced, true);
                replaced = Replaced::default();
            }
            let (number, address) = self.log.next();
            let header = self.push(op.kind, op, replaced, left > 0);
            outcome.generation = header.seqno;
            debug_assert!(
                u64::from(address.offset) < SEGMENT_LEN,
                "a slot can name it"
            );
            changes.push(Change {
                op,
                header,
                needs_tombstone,
                old,
                new: Location::new(number, u64::from(address.offset)),
            });
        }
        debug_assert_eq!(left, 0, "the last record ends the batch");
        let twice = changes.iter().filter(|c: &&Change<'_>| c.needs_tombstone);
        let given = (changes.len() + twice.count()) as u64;
        debug_assert_eq!(self.log.seqno, before.saturating_add(given), "no gaps");
        debug_assert!(do_rise(&changes), "numbers rise");
        self.decided.push(Decided {
            request,
            changes,
            outcome,
        });
    }

    /// Encodes one record under the next sequence number: the operation's own, or the tombstone before
    /// it.
    fn push(&mut self, kind: Kind, op: &Op, replaced: Replaced, more: bool) -> Header {
        let seqno = self.log.seqno.saturating_add(1);
        debug_assert!(seqno >= self.log.durable, "a number is given out once");
        self.log.seqno = seqno;
        let own = kind == op.kind;
        let body = if own { op.body() } else { &[] };
        let header = Header {
            kind,
            more,
            key_len: u16::try_from(op.key().len()).unwrap_or(u16::MAX),
            metadata_len: if own { op.metadata_len } else { 0 },
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            seqno,
            expiration: if own { op.expiration } else { 0 },
            namespace: op.namespace,
            body_crc: if own { op.body_crc } else { 0 },
            replaced,
            durable_lag: self.log.durable_lag(seqno),
        };
        self.log.push(&header, op.key(), body);
        header
    }

    /// Writes what was encoded, flushes it if a writer waits for that, publishes it in order, and
    /// wakes the writers.
    fn flush(&mut self) {
        let decided = std::mem::take(&mut self.decided);
        self.hashes.clear();
        self.is_alone = false;
        self.bytes = 0;
        if decided.is_empty() {
            return;
        }
        match self.write(&decided) {
            Ok(()) => {
                self.publish(&decided);
                self.before = self.log.seqno;
                decided.iter().for_each(|d| d.request.finish(Ok(d.outcome)));
            }
            Err(Error::Full) => self.use_reserve(decided),
            Err(error) => fail(&decided, error),
        }
    }

    /// Nothing of a group could be written: what frees space goes on alone, the others have to wait.
    fn use_reserve(&mut self, decided: Vec<Decided<'a>>) {
        let alone = decided.len() == 1;
        for d in decided {
            if alone || !d.request.frees_space() {
                d.request.finish(Err(Error::Full));
                continue;
            }
            match self.take(d.request) {
                Ok(()) => self.flush(),
                Err(error) => d.request.finish(Err(error)),
            }
        }
    }

    /// Writes what was encoded.
    ///
    /// # Errors
    /// `Full` if there is no space for it: nothing was written, nothing has changed. After any other
    /// error the store is poisoned.
    fn write(&mut self, decided: &[Decided<'_>]) -> Result<()> {
        let frees_space = decided.iter().all(|d| d.request.frees_space());
        if let Err(error) = self.log.reserve(frees_space) {
            debug_assert!(self.before <= self.log.seqno, "its numbers are given back");
            self.log.discard();
            self.log.seqno = self.before;
            return Err(error);
        }
        let immediate = decided.iter().any(|d| d.request.immediate);
        let written = self
            .log
            .write()
            .and_then(|()| if immediate { self.log.sync() } else { Ok(()) });
        debug_assert!(
            !immediate || written.is_err() || self.log.durable == self.log.seqno,
            "who waits for a flush has one"
        );
        written.map_err(|error| {
            self.core.poison();
            if matches!(error, Error::Full) {
                Error::Poisoned
            } else {
                error
            }
        })
    }

    fn publish(&mut self, decided: &[Decided<'_>]) {
        debug_assert_eq!(
            self.log.buffered(),
            0,
            "what is published is written (rule 1)"
        );
        let changes = || decided.iter().flat_map(|d| &d.changes);
        debug_assert!(do_rise(changes()), "they are published in their order");
        debug_assert!(changes().all(|c| c.header.seqno > self.before.min(u64::MAX - 1)));
        let guard = epoch::pin();
        let mut listed = Vec::with_capacity(changes().count());
        for change in changes() {
            let published = self.core.publish(change, &guard);
            self.work |= published.leaves_work;
            if !published.lists_alike {
                listed.extend(change.listed());
            }
        }
        drop(guard);
        self.core.keys.apply(listed);
    }
}

impl Change<'_> {
    /// What the ordered keys take of it.
    fn listed(&self) -> Option<KeyRecord<'_>> {
        let op = self.op;
        let tombstone = op.kind == Kind::Tombstone;
        (tombstone || op.is_put()).then(|| KeyRecord {
            namespace: op.namespace,
            key: op.key(),
            metadata: op.metadata(),
            expiration: op.expiration,
            seqno: self.header.seqno,
            tombstone,
        })
    }
}

/// Whether sequence numbers do, up to the highest that there is: a log may say that it was given out. Asked by
/// assertions alone.
fn do_rise<'a>(changes: impl IntoIterator<Item = &'a Change<'a>>) -> bool {
    let seqnos = changes.into_iter().map(|change| change.header.seqno);
    seqnos.is_sorted_by(|a, b| a < b || *a == u64::MAX)
}

/// What came of publishing a change.
#[derive(Default)]
struct Published {
    /// Whether there is work for maintenance.
    leaves_work: bool,
    /// Whether the ordered keys hold what they would take of it: it took the place of a record that
    /// lists alike.
    lists_alike: bool,
}

impl Core {
    /// Applies one change that is in the log to the table.
    fn publish(&self, change: &Change<'_>, guard: &Guard) -> Published {
        let mut published = Published::default();
        let Change {
            op,
            header,
            needs_tombstone,
            old,
            new,
        } = change;
        let segment = self.segments.get(new.number(), guard);
        let segment = segment.expect("the active segment is in the list");
        debug_assert!(
            new.offset() < segment.published(),
            "nobody sees what was not written (rule 1)"
        );
        debug_assert!(old.is_none() || op.key_len > 0, "only keys have slots");
        let at = old.as_ref().map(|old| old.location);
        match op.kind {
            Kind::Put | Kind::PutLarge => {
                segment.usage.add(header);
                if *needs_tombstone {
                    // Replay counts it too.
                    let bytes = HEADER_LEN
                        .saturating_add(op.key().len())
                        .next_multiple_of(8);
                    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                    segment.usage.pin(bytes, header.seqno.saturating_sub(1));
                }
                // Maintenance takes away the slots of what is dead.
                let (is_replaced, is_found) = self.change_key(op, || {
                    let is_replaced = at.is_some_and(|at| self.table.replace(op.hash, at, *new));
                    (is_replaced, is_replaced || self.table.insert(op.hash, *new))
                });
                published.lists_alike = is_replaced && header.replaced.lists_alike;
                if !is_found {
                    // More than 128 keys of one hash: nobody meets that by chance. The write is in
                    // the log but cannot be found, so no later one may build on it.
                    self.poison();
                }
            }
            Kind::Tombstone => {
                segment.usage.add(header);
                let remove = || at.is_some_and(|at| self.table.remove(op.hash, at));
                let _reclaimed_before = self.change_key(op, remove);
            }
            Kind::Namespace => {
                let (number, seqno) = (op.namespace, header.seqno);
                self.namespaces.apply(number, op.body(), segment.id, seqno);
                let state = self.namespaces.by_number(number);
                if let Some(hot) = &self.hot
                    && state.is_none_or(|state| state.is_deleting())
                {
                    hot.forget(number);
                }
            }
            Kind::Move => {
                let moved = op.moved.as_ref();
                published.leaves_work = moved.is_some_and(|m| self.relocate(m, guard));
                return published;
            }
            Kind::Retire | Kind::Close => {}
        }
        let large = op.large_pointer().map(|pointer| pointer.segment);
        if let Some(large) = large {
            self.larges.lock().insert(large);
        }
        let Some(old) = old else { return published };
        let garbage = old.large.filter(|id| large != Some(*id));
        if let Some(garbage) = garbage {
            self.larges.lock().remove(&garbage);
            self.garbage.lock().push((header.seqno, garbage));
        }
        // Its number may be another's by now, if it was retired since.
        let segment = self.segments.get(old.location.number(), guard);
        let segment = segment.filter(|s| s.id == old.replaced.address.segment);
        let (bytes, expires) = (u64::from(old.replaced.len), old.replaced.expires);
        let is_empty = segment.is_some_and(|s| s.usage.lose(bytes, expires));
        published.leaves_work = is_empty || garbage.is_some();
        published
    }

    /// Changes what the table has for a key, which the hot cache forgets.
    fn change_key<R>(&self, op: &Op, change: impl FnOnce() -> R) -> R {
        match &self.hot {
            Some(hot) => hot.change(Key::from((op.namespace, op.key())), change),
            None => change(),
        }
    }

    /// Lets the table point to the copies of the records that it still points to. Returns whether that
    /// left nothing live in their segment.
    fn relocate(&self, moved: &Moved, guard: &Guard) -> bool {
        let segments = self.segments.get(moved.from, guard);
        let Some((from, to)) = segments.zip(self.segments.get(moved.to, guard)) else {
            return false;
        };
        debug_assert_eq!(to.id, moved.moved.to);
        debug_assert!(
            to.published() >= u64::from(moved.moved.len),
            "copies are there before slots name them (rule 2)"
        );
        to.usage.receive(&moved.moved);
        for relocation in &moved.moved.relocations {
            self.table.prefetch(relocation.hash);
        }
        let mut is_empty = false;
        for relocation in &moved.moved.relocations {
            let old = Location::new(moved.from, u64::from(relocation.old));
            let new = Location::new(moved.to, u64::from(relocation.new));
            if self.table.replace(relocation.hash, old, new) {
                is_empty = from.usage.lose(relocation.bytes(), relocation.expires);
                to.usage.gain(relocation.bytes(), relocation.expires);
            }
        }
        is_empty
    }
}

fn old(found: &Found<'_>, lists_alike: bool) -> Old {
    let header = &found.record.header;
    let large = found.record.large_pointer().map(|pointer| pointer.segment);
    Old {
        location: found.location,
        replaced: Replaced {
            address: found.address(),
            len: u32::try_from(header.record_len()).unwrap_or(u32::MAX),
            expires: expires(header.expiration),
            large: large.is_some(),
            lists_alike,
        },
        large,
        expiration: header.expiration,
    }
}

fn fail(decided: &[Decided<'_>], error: Error) {
    let mut first = Some(error);
    for d in decided {
        d.request
            .finish(Err(first.take().unwrap_or(Error::Poisoned)));
    }
}

/// Bytes of log that an operation may take: its record, and the tombstone that may precede it.
pub(crate) fn space(op: &Op) -> usize {
    let record = |body: usize| {
        HEADER_LEN
            .saturating_add(op.key().len())
            .saturating_add(body)
            .next_multiple_of(8)
    };
    let tombstone = if op.is_put() && op.expiration != 0 {
        record(0)
    } else {
        0
    };
    let space = record(op.body().len()).saturating_add(tombstone);
    debug_assert!(space >= HEADER_LEN);
    debug_assert!(space.is_multiple_of(8));
    space
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Clock, Durability, Options, PutOptions};

    /// Both come in one group, so nothing of the first is published when the second is looked at.
    #[test]
    fn of_two_writes_that_build_on_the_same_one_only_the_first_counts() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::None);
        let store = options.clock(Clock::manual(1)).open(dir.path()).unwrap();
        let ns = store.namespace("n").unwrap();
        let generation = ns.put("k", "seen").unwrap();
        let same = PutOptions::new().if_generation(generation);
        let requests = ["first", "second"].map(|value| {
            let put = ns.put_op(b"k", value.as_bytes(), &same).unwrap();
            Request::new(vec![put], false)
        });
        ns.core().lead(&requests);
        assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"first");
        assert_eq!(ns.core().log.lock().seqno, generation + 1);
    }
}
