//! The leader's work: decide each request in order, write them as one group, flush, publish.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::record::{Address, HEADER_LEN, Header, Kind, LargePointer};
use crate::index::runs::KeyRecord;
use crate::index::table::Location;
use crate::log::appender::Appender;
use crate::log::commit::{Op, Outcome, Request};
use crate::log::segment::large_path;
use crate::options::Condition;

/// Largest batch, encoded: it lies in one segment.
pub(crate) const BATCH_MAX: usize = 32 << 20;
/// A group is flushed once it has this many bytes, so that memory stays bounded.
const GROUP_MAX: usize = 8 << 20;

/// A request that is encoded but not yet written.
struct Decided<'a> {
    request: &'a Arc<Request>,
    changes: Vec<Change<'a>>,
    outcome: Outcome,
}

/// What publishing one operation changes.
struct Change<'a> {
    op: &'a Op,
    old: Option<(Location, usize)>,
    new: Location,
    seqno: u64,
}

/// What an operation that is logged replaces: slot, permanent address and length of the old record.
type Decision = Option<(Location, Address, usize)>;

/// One turn of the leader.
struct Group<'a> {
    core: &'a Core,
    log: &'a mut Appender,
    decided: Vec<Decided<'a>>,
    hashes: HashSet<u64>,
    bytes: usize,
}

impl Core {
    /// Commits operations together and returns the outcome of the last.
    pub(crate) fn commit(&self, ops: Vec<Op>, immediate: bool) -> Result<Outcome> {
        self.warm(&ops);
        let request = Request::new(ops, immediate);
        let result = self
            .check_writable()
            .and_then(|()| self.queue.submit(&request, |requests| self.lead(requests)));
        if let Err(Error::Conflict { .. } | Error::Full | Error::NoSuchNamespace) = result {
            // Nothing of the request was written, so no record will ever name its large values.
            self.remove_larges(&request.ops);
        }
        result
    }

    /// Removes the files of large values that no record will name.
    pub(crate) fn remove_larges(&self, ops: &[Op]) {
        for op in ops.iter().filter(|op| op.kind == Kind::PutLarge) {
            let pointer = op.body.get(usize::from(op.metadata_len)..);
            if let Some(pointer) = pointer.and_then(LargePointer::decode) {
                let _ = self.vfs.remove(&large_path(&self.dir, pointer.segment));
            }
        }
    }

    /// Touches the records that will be replaced, in the writer's own thread: overwriting a cold key
    /// must not make other writers wait for the disk.
    fn warm(&self, ops: &[Op]) {
        let guard = crossbeam_epoch::pin();
        for op in ops {
            let _ = self.find(op.namespace, &op.key, op.hash, &guard);
        }
    }

    fn lead(&self, requests: &[Arc<Request>]) {
        let mut log = self.log.lock();
        let mut group = Group {
            core: self,
            log: &mut log,
            decided: Vec::with_capacity(requests.len()),
            hashes: HashSet::new(),
            bytes: 0,
        };
        for request in requests {
            if let Err(error) = group.take(request) {
                request.finish(Err(error));
            }
        }
        group.flush();
    }
}

impl<'a> Group<'a> {
    /// Decides and encodes a request. What it decides on is published: if the group already changes
    /// one of its keys, the group is written first.
    fn take(&mut self, request: &'a Arc<Request>) -> Result<()> {
        let len: usize = request.ops.iter().map(encoded_len).sum();
        let meets = request.ops.iter().any(|op| self.hashes.contains(&op.hash));
        if meets || self.bytes.saturating_add(len) > GROUP_MAX || !self.log.has_room(len) {
            self.flush();
        }
        self.core.check_writable()?;
        if !self.log.has_room(len) {
            self.log.sync().inspect_err(|_| self.core.poison())?;
            let time = self.core.clock.confirmed();
            let id = self.core.new_file_id();
            let rotated = self.log.rotate(&self.core.segments, id, time);
            rotated.inspect_err(|error| {
                if !matches!(error, Error::Full) {
                    self.core.poison();
                }
            })?;
        }
        let (old, outcome) = self.decide(request)?;
        self.encode(request, old, outcome);
        self.bytes = self.bytes.saturating_add(len);
        self.hashes.extend(request.ops.iter().map(|op| op.hash));
        Ok(())
    }

    /// For each operation the record it replaces, or `None` if it changes nothing.
    fn decide(&self, request: &Request) -> Result<(Vec<Option<Decision>>, Outcome)> {
        let guard = crossbeam_epoch::pin();
        let now = self.core.clock.now();
        let mut outcome = Outcome::default();
        let mut replaced = Vec::with_capacity(request.ops.len());
        for op in &request.ops {
            if matches!(op.kind, Kind::Namespace | Kind::Close) {
                replaced.push(Some(None));
                continue;
            }
            let namespace = self.core.namespaces.by_number(op.namespace);
            namespace.ok_or(Error::NoSuchNamespace)?;
            // A damaged record cannot be told from another key's: a put goes beside it, and a delete
            // is logged, so that replay does not bring back what the damaged record had replaced.
            let found = self.core.find(op.namespace, &op.key, op.hash, &guard);
            let damaged = found.is_err();
            let found = found.unwrap_or(None);
            let visible = found.as_ref().filter(|f| !f.is_expired(now));
            let generation = visible.map(|f| f.record.header.seqno);
            match op.condition {
                Condition::Absent if generation.is_some() => {
                    return Err(Error::Conflict { found: generation });
                }
                Condition::Generation(n) if generation != Some(n) => {
                    return Err(Error::Conflict { found: generation });
                }
                _ => {}
            }
            outcome.existed = generation.is_some();
            let old = found.map(|f| {
                let offset = u32::try_from(f.location.offset()).unwrap_or(u32::MAX);
                let address = Address {
                    segment: f.segment.id,
                    offset,
                };
                (f.location, address, f.record.header.record_len())
            });
            let logged = op.kind != Kind::Tombstone || old.is_some() || damaged;
            replaced.push(logged.then_some(old));
        }
        Ok((replaced, outcome))
    }

    fn encode(
        &mut self,
        request: &'a Arc<Request>,
        replaced: Vec<Option<Decision>>,
        mut outcome: Outcome,
    ) {
        let mut left = replaced.iter().flatten().count();
        let mut changes = Vec::with_capacity(left);
        for (op, old) in request.ops.iter().zip(replaced) {
            let Some(old) = old else { continue };
            left = left.saturating_sub(1);
            let seqno = self.log.seqno.saturating_add(1);
            self.log.seqno = seqno;
            let (number, address) = self.log.next();
            let header = Header {
                kind: op.kind,
                more: left > 0,
                key_len: u16::try_from(op.key.len()).unwrap_or(u16::MAX),
                metadata_len: op.metadata_len,
                body_len: u32::try_from(op.body.len()).unwrap_or(u32::MAX),
                seqno,
                expiration: op.expiration,
                namespace: op.namespace,
                body_crc: crc32fast::hash(&op.body),
                replaced: old.map(|(_, address, _)| address).unwrap_or_default(),
                durable_lag: self.log.durable_lag(seqno),
            };
            self.log.push(&header, &op.key, &op.body);
            let new = Location::new(number, u64::from(address.offset));
            let old = old.map(|(location, _, len)| (location, len));
            changes.push(Change {
                op,
                old,
                new,
                seqno,
            });
            outcome.generation = seqno;
        }
        self.decided.push(Decided {
            request,
            changes,
            outcome,
        });
    }

    /// Writes what was encoded, flushes it if a writer waits for that, publishes it in order, and
    /// wakes the writers.
    fn flush(&mut self) {
        let decided = std::mem::take(&mut self.decided);
        self.hashes.clear();
        self.bytes = 0;
        if decided.is_empty() {
            return;
        }
        let immediate = decided.iter().any(|d| d.request.immediate);
        match self.write(&decided, immediate) {
            Ok(()) => {
                self.publish(&decided);
                decided.iter().for_each(|d| d.request.finish(Ok(d.outcome)));
            }
            Err(error) => fail(&decided, error),
        }
    }

    fn write(&mut self, decided: &[Decided<'_>], immediate: bool) -> Result<()> {
        let changes: usize = decided.iter().map(|d| d.changes.len()).sum();
        if let Err(error) = self.log.reserve() {
            // Nothing was written: the numbers were given out in memory only.
            self.log.discard();
            let unused = u64::try_from(changes).unwrap_or(0);
            self.log.seqno = self.log.seqno.saturating_sub(unused);
            return Err(error);
        }
        let written = self
            .log
            .write()
            .and_then(|()| if immediate { self.log.sync() } else { Ok(()) });
        written.map_err(|error| {
            self.core.poison();
            if matches!(error, Error::Full) {
                Error::Poisoned
            } else {
                error
            }
        })
    }

    fn publish(&self, decided: &[Decided<'_>]) {
        let changes = || decided.iter().flat_map(|d| &d.changes);
        for change in changes() {
            self.publish_one(change);
        }
        self.core.keys.apply(changes().filter_map(|change| {
            let op = change.op;
            let tombstone = op.kind == Kind::Tombstone;
            let listed = tombstone || matches!(op.kind, Kind::Put | Kind::PutLarge);
            listed.then(|| KeyRecord {
                namespace: op.namespace,
                key: &op.key,
                metadata: op
                    .body
                    .get(..usize::from(op.metadata_len))
                    .unwrap_or_default(),
                expiration: op.expiration,
                seqno: change.seqno,
                tombstone,
            })
        }));
    }

    fn publish_one(&self, change: &Change<'_>) {
        let (core, op) = (self.core, change.op);
        let old = change.old.map(|(location, _)| location);
        match (op.kind, old) {
            (Kind::Put | Kind::PutLarge, Some(old)) => {
                let replaced = core.table.replace(op.hash, old, change.new);
                debug_assert!(replaced, "only the leader changes slots");
            }
            (Kind::Put | Kind::PutLarge, None) => {
                if !core.table.insert(op.hash, change.new) {
                    // More than 32 keys of one hash: nobody meets that by chance. The write is in
                    // the log but cannot be found, so no later one may build on it.
                    core.poison();
                }
            }
            (Kind::Tombstone, Some(old)) => {
                let removed = core.table.remove(op.hash, old);
                debug_assert!(removed, "only the leader changes slots");
            }
            (Kind::Namespace, _) => core.namespaces.apply(op.namespace, &op.body),
            (Kind::Tombstone, None) | (Kind::Close, _) => {}
        }
        if matches!(op.kind, Kind::Put | Kind::PutLarge) {
            count(&core.live_bytes, encoded_len(op), true);
        }
        if let Some((_, len)) = change.old {
            count(&core.live_bytes, len, false);
        }
    }
}

fn fail(decided: &[Decided<'_>], error: Error) {
    let full = matches!(error, Error::Full);
    let mut first = Some(error);
    for d in decided {
        let other = if full { Error::Full } else { Error::Poisoned };
        d.request.finish(Err(first.take().unwrap_or(other)));
    }
}

/// Adds to or takes from a byte count.
pub(crate) fn count(counter: &std::sync::atomic::AtomicU64, len: usize, add: bool) {
    let len = u64::try_from(len).unwrap_or(0);
    if add {
        counter.fetch_add(len, Ordering::Relaxed);
    } else {
        counter.fetch_sub(len, Ordering::Relaxed);
    }
}

/// Bytes of the record that an operation becomes.
pub(crate) fn encoded_len(op: &Op) -> usize {
    HEADER_LEN
        .saturating_add(op.key.len())
        .saturating_add(op.body.len())
        .next_multiple_of(8)
}
