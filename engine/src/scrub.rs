//! Reads all that a store holds and tells what does not have its checksum.
//!
//! What is read may be retired, replaced or merged meanwhile. So who finds nothing where something
//! should be asks once more whether it still should.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::core::{Core, key_hash};
use crate::damage::{Damage, Loss};
use crate::error::{Error, Result};
use crate::format::checkpoint::{Meta, file_name};
use crate::format::record::{CHUNK, Kind, Record};
use crate::format::segment::{HEADER_LEN, Header, SEGMENT_LEN};
use crate::index::checkpoint::{self, CURRENT};
use crate::index::keys::RunFiles;
use crate::index::table::Location;
use crate::list::ListOptions;
use crate::log::large::Large;
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Segment, large_path};
use crate::namespaces::View;
use crate::options::Verify;
use crate::recovery::{DAMAGED, checkpoint_ids, open_segment};
use crate::sync::epoch;

/// Bytes that are read between two calls of whoever watches.
const PIECE: u64 = 1 << 20;
const _: () = assert!(PIECE >= CHUNK as u64, "a call tells of a chunk at least");

impl Core {
    /// Everything that is damaged, by file and place. `progress` is told how many bytes were read, and of
    /// how many.
    pub(crate) fn scrub(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>> {
        let mut scrub = Scrub {
            core: self,
            found: Vec::new(),
            done: 0,
            told: 0,
            all: 0,
            progress,
        };
        scrub.run()?;
        let Scrub { mut found, .. } = scrub;
        found.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        Ok(found)
    }

    /// As [`scrub`](Core::scrub), and what was found when the store was opened, or why it was refused.
    pub(crate) fn scrub_all(
        &self,
        refused: Option<Damage>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Damage>> {
        let mut found = self.scrub(progress)?;
        let opening = self.damage.iter().cloned().chain(refused);
        for damage in opening.chain(self.missing_end()?) {
            let is_same = |other: &&mut Damage| match damage.loss {
                Loss::Nothing => other.path == damage.path,
                _ => other.path == damage.path && other.offset == damage.offset,
            };
            match found.iter_mut().find(is_same) {
                Some(same) => {
                    same.records = same.records.or(damage.records);
                    if same.loss == Loss::Dead {
                        // Who opened the store missed it.
                        same.loss = damage.loss;
                    }
                }
                None => found.push(damage),
            }
        }
        Ok(found)
    }

    /// Calls `f` with every key of a namespace that is listed, and a write that it had at least.
    pub(crate) fn each_key(
        &self,
        view: &View,
        mut f: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        let (mut options, now) = (ListOptions::new(), self.clock.now());
        loop {
            let page = self.keys.list(view, &options, &self.secret(), now)?;
            for key in page.keys() {
                f(key.name, key.seqno)?;
            }
            debug_assert!(
                page.cursor.is_none() || page.cursor != options.cursor,
                "each page goes on"
            );
            match page.cursor {
                Some(cursor) => options = options.cursor(cursor),
                None => return Ok(()),
            }
        }
    }
}

struct Scrub<'a> {
    core: &'a Core,
    found: Vec<Damage>,
    /// Bytes read, how many somebody was told of, and how many there are.
    done: u64,
    told: u64,
    all: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Scrub<'_> {
    fn run(&mut self) -> Result<()> {
        let core = self.core;
        let segments = core.segments.all();
        self.all = segments.iter().map(|(_, segment)| segment.end()).sum();
        let larges: Vec<u64> = core.larges.lock().iter().copied().collect();
        let larges = larges.iter().map(|id| large_path(&core.dir, *id));
        self.all += larges.map(|path| self.len(&path)).sum::<u64>();
        let checkpoints = checkpoint_ids(&*core.vfs, &core.dir)?;
        let paths = checkpoints.iter().map(|id| core.dir.join(file_name(*id)));
        self.all += paths.map(|path| self.len(&path)).sum::<u64>();

        let mut known = BTreeMap::new();
        for id in checkpoints {
            if let Some(meta) = self.checkpoint(id)? {
                known.insert(id, meta);
            }
        }
        self.current()?;
        self.runs(&known)?;
        for (number, segment) in &segments {
            self.segment(Some(*number), segment, segment.end())?;
        }
        // What was retired stays for the older checkpoint.
        let ids: BTreeSet<u64> = segments.iter().map(|(_, segment)| segment.id).collect();
        let entries = known.values().flat_map(|meta| &meta.segments);
        let mut retired: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in entries.filter(|entry| !ids.contains(&entry.id)) {
            let len = retired.entry(entry.id).or_default();
            *len = entry.len.max(*len);
        }
        for (id, len) in retired {
            match open_segment(&*core.vfs, &core.dir, id, len) {
                Ok(segment) => self.segment(None, &segment, segment.published())?,
                // It may be gone by right, or have been made by another process just now.
                Err(error) if is_missing(&error) => {}
                Err(error) => self.note(error, Loss::Dead, None)?,
            }
        }
        self.name_lost_keys()?;
        (self.progress)(self.all, self.all);
        Ok(())
    }

    fn len(&self, path: &Path) -> u64 {
        let file = self.core.vfs.open(path);
        file.and_then(|file| file.len()).unwrap_or(0)
    }

    fn read(&mut self, bytes: u64) {
        debug_assert!(
            self.told <= self.done,
            "nobody was told of what was not read"
        );
        self.done = self.done.saturating_add(bytes);
        if self.done.saturating_sub(self.told) >= PIECE {
            debug_assert!(self.done > self.told, "each call tells of more");
            self.told = self.done;
            (self.progress)(self.done.min(self.all), self.all);
        }
    }

    /// Notes what an error says is damaged.
    fn note(&mut self, error: Error, loss: Loss, key: Option<(String, Vec<u8>)>) -> Result<()> {
        let damage = Damage::of(&error, loss).ok_or(error)?;
        self.found.push(Damage { key, ..damage });
        Ok(())
    }

    /// A checkpoint's lists, if it is whole. One without a header was not finished.
    fn checkpoint(&mut self, id: u64) -> Result<Option<Meta>> {
        let core = self.core;
        let read = checkpoint::scrub(&*core.vfs, &core.dir, id, |bytes| self.read(bytes));
        match read {
            Ok(meta) => return Ok(Some(meta)),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                if !checkpoint::is_unfinished(&*core.vfs, &core.dir, id) {
                    self.note(error, Loss::Nothing, None)?;
                }
            }
        }
        Ok(None)
    }

    fn current(&mut self) -> Result<()> {
        let (vfs, dir) = (&*self.core.vfs, &self.core.dir);
        let path = dir.join(CURRENT);
        let named = match checkpoint::current(vfs, dir) {
            // A store without a checkpoint, or a crash while it made its first.
            Err(error) if is_missing(&error) => return Ok(()),
            named => named?,
        };
        let is_there = |id| vfs.open(&dir.join(file_name(id))).is_ok();
        if named.is_some_and(is_there)
            || matches!(checkpoint::current(vfs, dir), Ok(n) if n != named)
        {
            return Ok(());
        }
        let damage = Damage::derived(&path, 0, "it names no checkpoint");
        self.found.push(damage);
        Ok(())
    }

    /// All runs that a checkpoint or the open store names.
    fn runs(&mut self, known: &BTreeMap<u64, Meta>) -> Result<()> {
        let core = self.core;
        let next_id = || 0;
        let files = RunFiles {
            vfs: &*core.vfs,
            dir: &core.dir,
            store: core.id.id,
            next_id: &next_id,
            is_stopped: &|| false,
        };
        let named = known.values().flat_map(|meta| meta.runs.iter().copied());
        let mut ids: BTreeSet<u64> = named.chain(core.keys.run_ids()).collect();
        // With the merging of runs goes what only the open store names.
        let of_checkpoint = |id: u64| {
            let mut names = known.iter().filter(|(_, meta)| meta.runs.contains(&id));
            names.any(|(ckpt, _)| core.vfs.open(&core.dir.join(file_name(*ckpt))).is_ok())
        };
        while let Some(id) = ids.pop_first() {
            let path = files.path(id);
            self.all += self.len(&path);
            let run = match files.open(id) {
                Err(error) if is_missing(&error) && !of_checkpoint(id) => continue,
                Err(error) => {
                    self.note(error, Loss::Nothing, None)?;
                    continue;
                }
                Ok(run) => run,
            };
            // A run is made anew for one damaged block as for many.
            if let Err(damage) = run.check(|len| self.read(len)) {
                let damage = Damage::derived(&path, damage.offset, damage.reason);
                self.found.push(damage);
            }
        }
        Ok(())
    }

    /// The records of a segment. Without a number it is retired.
    fn segment(&mut self, number: Option<u32>, segment: &Segment, end: u64) -> Result<()> {
        let header = segment.bytes(0).and_then(|bytes| bytes.first_chunk());
        if header.is_none_or(|bytes: &[u8; HEADER_LEN]| Header::decode(bytes).is_err()) {
            let loss = if number.is_some() {
                Loss::Records
            } else {
                Loss::Dead
            };
            let damage = segment.damage(0, "segment header checksum");
            self.note(damage, loss, None)?;
        }
        debug_assert!(end <= SEGMENT_LEN, "what a slot can name, and no more");
        let start = HEADER_LEN as u64;
        let mut scan = match segment.class {
            Some(_) => Scan::of_class(segment),
            None => Scan::new(segment, start, end, 0),
        };
        let mut at = start;
        while at < end {
            let before = at;
            match scan.step() {
                Step::Record {
                    offset,
                    record,
                    is_intact,
                } => {
                    at = offset
                        .saturating_add(u64::try_from(record.header.record_len()).unwrap_or(0));
                    if offset < end {
                        self.record(number, segment, offset, &record, is_intact)?;
                    }
                }
                Step::Damage { offset, next } => {
                    debug_assert!(offset >= before);
                    debug_assert!(next > offset, "nothing is left out");
                    at = next;
                    let mut damage = Damage::bytes(&segment.path, offset, next.min(end), DAMAGED);
                    if number.is_none() {
                        damage.loss = Loss::Dead;
                    }
                    self.found.push(damage);
                }
                Step::End { offset } => {
                    at = end;
                    // Of a file that is too short.
                    if offset < end {
                        let damage = Damage::bytes(&segment.path, offset, end, "missing");
                        self.found.push(damage);
                    }
                }
            }
            debug_assert!(at > before, "it comes to an end");
            self.read(at.saturating_sub(before));
        }
        Ok(())
    }

    fn record(
        &mut self,
        number: Option<u32>,
        segment: &Segment,
        offset: u64,
        record: &Record<'_>,
        is_intact: bool,
    ) -> Result<()> {
        let (core, header) = (self.core, &record.header);
        let is_put = matches!(header.kind, Kind::Put | Kind::PutLarge);
        let guard = epoch::pin();
        let hash = key_hash(&core.id, header.namespace, record.key);
        let location = number.map(|number| Location::new(number, offset));
        let is_live = || is_put && location.is_some_and(|at| core.holds(hash, at, &guard));
        if !is_intact {
            let loss = match header.kind {
                _ if number.is_none() => Loss::Dead,
                _ if is_live() => Loss::Value,
                Kind::Put | Kind::PutLarge | Kind::Tombstone => Loss::Dead,
                _ => Loss::Records,
            };
            let damage = Damage::body(&segment.path, offset);
            let key = self.key(header.namespace, record.key);
            self.found.push(Damage {
                loss,
                key,
                ..damage
            });
            return Ok(());
        }
        if let Some(pointer) = record.large_pointer().filter(|_| is_live()) {
            let path = large_path(&core.dir, pointer.segment);
            let opened = Large::open(&*core.vfs, path, pointer, Verify::Always);
            let large = match opened {
                Ok(large) => large,
                // Replaced meanwhile.
                Err(_) if !is_live() => return Ok(()),
                Err(error) => match core.outdated(error) {
                    Error::Outdated => return Ok(()),
                    error => {
                        let key = self.key(header.namespace, record.key);
                        return self.note(error, Loss::Value, key);
                    }
                },
            };
            let mut at = 0;
            while at < large.len() {
                let next = at.saturating_add(CHUNK as u64);
                debug_assert!(at.is_multiple_of(CHUNK as u64), "each chunk once");
                if let Err(error) = large.range(at, next) {
                    let key = self.key(header.namespace, record.key);
                    self.note(error, Loss::Value, key)?;
                }
                self.read(next.min(large.len()).saturating_sub(at));
                at = next;
            }
        }
        Ok(())
    }

    fn key(&self, namespace: u32, key: &[u8]) -> Option<(String, Vec<u8>)> {
        let state = self.core.namespaces.by_number(namespace);
        (!key.is_empty()).then(|| (state.map_or_else(String::new, |s| s.name()), key.to_vec()))
    }

    /// Where records cannot be read, the keys that are listed tell whose they were.
    fn name_lost_keys(&mut self) -> Result<()> {
        let core = self.core;
        if !self.found.iter().any(|damage| damage.loss == Loss::Records) {
            return Ok(());
        }
        for state in core.namespaces.all() {
            let Ok(view) = state.view() else { continue };
            let mut lost = Vec::new();
            let listed = core.each_key(&view, |key, _| {
                let guard = epoch::pin();
                let hash = core.hash(view.number, key);
                if let Err(error) = core.find(view.number, key, hash, &guard) {
                    lost.push((error, key.to_vec()));
                }
                Ok(())
            });
            for (error, key) in lost {
                self.note(error, Loss::Value, Some((state.name(), key)))?;
            }
            // A damaged run was reported.
            match listed {
                Err(error) if Damage::of(&error, Loss::Nothing).is_none() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
