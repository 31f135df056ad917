//! A disk in memory whose power can be cut at any operation, and which fails when told to.
//!
//! A running program sees what it wrote. What survives a cut is another matter: bytes are durable once
//! their file was synced, names once their directory was. Everything random follows from the seed of
//! the [`Cut`].
//!
//! What is written through memory is no operation. The disk is asked for the pages, looks at them whenever
//! something else happens, and takes what has changed for a write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use memmap2::{MmapMut, MmapOptions};
use rimstone::{Map, Vfs, VfsFile, WritableMap};
use rustix::fs::MemfdFlags;

use crate::image::{
    Content, Event, FileChange, Image, Left, NameChange, Node, Timeline, apply_name,
};
use crate::{Cut, Dice};

/// The largest page of a system. The one in which a file ends is not to be written through memory: some kernels
/// do not notice later writes to it once the file grew.
const PAGE_MAX: u64 = 64 << 10;

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Rung when syncs that were held may go on, and when more was [`Done`].
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What was durable when the power came on, and every change since.
    base: Image,
    journal: Vec<Event>,
    /// What the running program sees.
    names: BTreeMap<Arc<Path>, Node>,
    files: BTreeMap<u64, Arc<Inode>>,
    next_file: u64,
    locked: Vec<PathBuf>,
    /// How often somebody asked for random bytes.
    rolls: u64,
    faults: Vec<Planned>,
    /// How many operations failed.
    failures: u64,
    capacity: Option<u64>,
    hold_syncs: bool,
    done: Done,
    /// How much of a file has to be unflushed until it is written to through memory.
    mapped_from: Option<u64>,
    /// Where files may be written to through memory now, by number.
    watched: BTreeMap<u64, Watched>,
    /// How many writes through memory were seen, here and on the disks that this one was left of.
    mapped_writes: Arc<AtomicU64>,
    /// Up to where somebody wanted to write through memory, in a page that was not reserved as a whole.
    misused: Option<u64>,
}

/// What somebody did to the files of a disk so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Writes by calls.
    pub writes: usize,
    /// Syncs of files, those that failed, too.
    pub syncs: usize,
    /// Syncs that somebody waits in as they are [held](SimDisk::hold_syncs).
    pub held: usize,
}

/// Bytes of a file that somebody may be writing through memory.
struct Watched {
    inode: Arc<Inode>,
    offset: u64,
    /// What they were when somebody last looked.
    seen: Vec<u8>,
}

/// A file as the running program sees it.
struct Inode {
    number: u64,
    /// What it held when the power came on.
    old: Arc<Content>,
    /// Shared memory, so that a mapping shows later writes; made when the file is first written to.
    memory: OnceLock<File>,
    /// The length up to which space was reserved.
    reserved: AtomicU64,
}

/// How operations fail, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Any change, with an I/O error: nothing was done. Pages to write to are refused, too.
    Io,
    /// Any change, as no space is left: nothing was done. Pages as above.
    Full,
    /// A write, half-way and with an I/O error.
    Partial,
    /// A sync, and as on Linux the bytes are dropped: they can be read until the power is cut, and a second
    /// sync says that all is well.
    Forget,
    /// Whatever reads: opening, listing, reading and mapping a file.
    Read,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Read,
    Write,
    Sync,
    /// Changes names or lengths, or brings in pages that are to be changed.
    Other,
}

/// A fault to come.
struct Planned {
    fault: Fault,
    /// How many operations that it could hit come first.
    skip: u64,
    lasting: bool,
}

impl Planned {
    /// Whether the fault hits an operation, which is counted.
    fn hits(&mut self, doing: Doing) -> bool {
        let is_hit = self.fault.reaches(doing) && self.skip == 0;
        if self.fault.reaches(doing) {
            // What does not last is over then.
            self.skip = match (self.skip, self.lasting) {
                (0, true) => 0,
                (0, false) => u64::MAX,
                (skip, _) => skip - 1,
            };
        }
        is_hit
    }
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 5] = [
        Fault::Io,
        Fault::Full,
        Fault::Partial,
        Fault::Forget,
        Fault::Read,
    ];

    fn reaches(self, doing: Doing) -> bool {
        match self {
            Fault::Io | Fault::Full => doing != Doing::Read,
            Fault::Partial => doing == Doing::Write,
            Fault::Forget => doing == Doing::Sync,
            Fault::Read => doing == Doing::Read,
        }
    }

    fn error(self) -> io::Error {
        match self {
            Fault::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("the simulated disk fails"),
        }
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::from_image(Image::default())
    }

    fn from_image(image: Image) -> SimDisk {
        let mut state = State::default();
        for (path, node) in &image.names {
            let Node::File(number) = *node else {
                state.names.insert(Arc::clone(path), Node::Dir);
                continue;
            };
            let old = image.files.get(&number).cloned().unwrap_or_default();
            state.names.insert(Arc::clone(path), *node);
            let inode = Arc::new(Inode::of(number, old));
            state.files.insert(number, inode);
        }
        // Files without bytes have names alone.
        let named = image.names.values().filter_map(|node| match node {
            Node::File(number) => Some(number),
            Node::Dir => None,
        });
        let numbers = image.files.keys().chain(named);
        state.next_file = numbers.max().map_or(0, |max| max + 1);
        state.base = image;
        SimDisk(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look();
        state
    }

    fn wait_if_held(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.done.held += 1;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_while(state, |state| state.hold_syncs);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        state.done.held -= 1;
        state
    }

    /// Whether there are pages for bytes of a file that are to be written through memory.
    fn has_pages(&self, inode: &Arc<Inode>, offset: u64, len: usize) -> bool {
        let mut state = self.state();
        if state.check(Doing::Other).is_err() {
            return false;
        }
        let end = offset + u64::try_from(len).unwrap_or(0);
        let is_reserved = end.next_multiple_of(PAGE_MAX) <= inode.reserved.load(Relaxed);
        match is_reserved {
            true => state.watch(inode, offset, len),
            // For the test to fail on: a store that stops here leaves others waiting for ever.
            false => state.misused = Some(end),
        }
        is_reserved
    }

    /// The place in the disk's history: how many changes it has seen. Every place up to this one is
    /// one to cut the power at.
    #[must_use]
    pub fn place(&self) -> usize {
        self.state().journal.len()
    }

    /// The disk as a power cut now leaves it.
    #[must_use]
    pub fn crash(&self, cut: Cut) -> SimDisk {
        self.crash_at(self.place(), cut)
    }

    /// The disk as a power cut at an earlier place leaves it. The operation that was under way may
    /// have been done in part.
    #[must_use]
    pub fn crash_at(&self, place: usize, cut: Cut) -> SimDisk {
        let left = SimDisk::from_image(self.image(place, cut));
        let (old, mut new) = (self.state(), left.state());
        new.mapped_from = old.mapped_from;
        new.mapped_writes = Arc::clone(&old.mapped_writes);
        drop(new);
        left
    }

    /// The disk that a cut left, with the power on.
    #[must_use]
    pub fn of(left: Left) -> SimDisk {
        SimDisk::from_image(left.0)
    }

    /// A number that is the same for cuts that leave the same disk.
    #[must_use]
    pub fn digest_at(&self, place: usize, cut: Cut) -> u64 {
        self.image(place, cut).digest()
    }

    fn image(&self, place: usize, cut: Cut) -> Image {
        let timeline = self.timeline();
        let place = place.min(timeline.journal.len());
        let moment = timeline.moments(place).next();
        moment.expect("a place of the journal").cut(cut)
    }

    /// All that happened to the disk since the power came on.
    ///
    /// # Panics
    /// Panics if somebody wanted to write through memory what was not reserved.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let state = self.state();
        assert_eq!(
            state.misused, None,
            "a write through memory beyond what is reserved"
        );
        let (base, journal) = (state.base.clone(), state.journal.clone());
        Timeline { base, journal }
    }

    /// From here on other random numbers come than on a disk that holds the same.
    pub fn reseed(&self, seed: u64) {
        self.state().rolls = seed << 32;
    }

    /// How many operations failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Makes an operation fail, of those that the fault can hit the one that comes after `skip` others, and all
    /// after it if `lasting`.
    pub fn fail(&self, skip: u64, fault: Fault, lasting: bool) {
        self.state().faults.push(Planned {
            fault,
            skip,
            lasting,
        });
    }

    /// Takes back all faults that are still to come. What failed stays failed.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Limits the bytes that all files together may have; `None` for no limit.
    pub fn limit(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.state().bytes_used()
    }

    /// Has records be written through memory from here on, once so many bytes of their file are not flushed, also on
    /// the disks that cuts leave of this one. With `None`, as at first, all are written by calls.
    pub fn map_from(&self, unflushed: Option<u64>) {
        self.state().mapped_from = unflushed;
    }

    /// How many writes went through memory, on this disk and those that it was left of and that were left of it.
    #[must_use]
    pub fn mapped_writes(&self) -> u64 {
        self.state().mapped_writes.load(Relaxed)
    }

    /// Makes every sync wait until it is called with `false`.
    pub fn hold_syncs(&self, hold: bool) {
        self.state().hold_syncs = hold;
        self.0.changed.notify_all();
    }

    /// What was done so far.
    #[must_use]
    pub fn done(&self) -> Done {
        self.state().done
    }

    /// Returns once other threads did enough.
    ///
    /// # Panics
    /// Panics if that takes minutes.
    pub fn await_done(&self, is_enough: impl Fn(Done) -> bool) {
        let (state, minutes) = (self.state(), Duration::from_secs(300));
        let waits = |state: &mut State| !is_enough(state.done);
        let waited = self.0.changed.wait_timeout_while(state, minutes, waits);
        assert!(!waited.expect("nobody panics").1.timed_out(), "nobody came");
    }

    /// The files that exist.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.names.iter().filter(|(_, node)| **node != Node::Dir);
        files.map(|(path, _)| path.to_path_buf()).collect()
    }

    /// The bytes of a file, empty if there is none.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let inode = self.state().inode(path);
        inode.and_then(|inode| inode.bytes()).unwrap_or_default()
    }

    /// Changes bytes of a file behind everybody's back.
    ///
    /// # Panics
    /// Panics if there is no such file.
    pub fn rot(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inode(path).expect("a file to damage");
        state.write(&inode, bytes, offset).expect("in memory");
        let file = inode.number;
        state.journal.push(Event::Sync { file });
    }
}

impl State {
    fn inode(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.names.get(path) {
            Some(Node::File(number)) => Ok(Arc::clone(&self.files[number])),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn bytes_used(&self) -> u64 {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(number) => self.files.get(number),
            Node::Dir => None,
        });
        files.map(|inode| inode.len().unwrap_or(0)).sum()
    }

    /// Counts an operation and says whether it fails.
    fn call(&mut self, doing: Doing) -> Result<(), Fault> {
        let mut hit = None;
        for planned in &mut self.faults {
            if planned.hits(doing) {
                hit.get_or_insert(planned.fault);
            }
        }
        self.failures += u64::from(hit.is_some());
        hit.map_or(Ok(()), Err)
    }

    fn check(&mut self, doing: Doing) -> io::Result<()> {
        self.call(doing).map_err(Fault::error)
    }

    fn change_name(&mut self, dir: &Path, change: NameChange) {
        apply_name(&mut self.names, &change);
        let dir = dir.into();
        self.journal.push(Event::Name { dir, change });
    }

    fn add_file(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let number = self.next_file;
        let inode = Arc::new(Inode::new(number));
        self.next_file += 1;
        self.files.insert(number, Arc::clone(&inode));
        let (path, node) = (Arc::from(path), Node::File(number));
        let dir = parent(&path);
        self.change_name(
            dir,
            NameChange::Add {
                path: Arc::clone(&path),
                node,
            },
        );
        Ok(inode)
    }

    /// Whether a file may grow to `len`.
    fn check_space(&self, inode: &Inode, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(inode.len()?);
        let fits = |capacity| self.bytes_used() + more <= capacity;
        if more == 0 || self.capacity.is_none_or(fits) {
            Ok(())
        } else {
            Err(Fault::Full.error())
        }
    }

    fn write(&mut self, inode: &Inode, bytes: &[u8], offset: u64) -> io::Result<()> {
        inode.memory().write_all_at(bytes, offset)?;
        self.note_write(inode.number, bytes, offset);
        match self.watched.get_mut(&inode.number) {
            // It is known already.
            Some(watched) => watched.read().map(|now| watched.seen = now),
            None => Ok(()),
        }
    }

    fn note_write(&mut self, file: u64, bytes: &[u8], offset: u64) {
        let (offset, bytes) = (usize::try_from(offset).unwrap_or(0), bytes.into());
        let change = FileChange::Write { offset, bytes };
        self.journal.push(Event::Bytes { file, change });
    }

    /// Expects these bytes of a file to change, and no others.
    fn watch(&mut self, inode: &Arc<Inode>, offset: u64, len: usize) {
        let mut watched = Watched {
            inode: Arc::clone(inode),
            offset,
            seen: vec![0; len],
        };
        watched.seen = watched.read().expect("memory");
        self.watched.insert(inode.number, watched);
    }

    /// Finds what was written through memory since somebody last looked: maybe a part of what will be.
    fn look(&mut self) {
        let mut watched = std::mem::take(&mut self.watched);
        for (file, watched) in &mut watched {
            let now = watched.read().expect("memory");
            if now != watched.seen {
                self.note_write(*file, &now, watched.offset);
                self.mapped_writes.fetch_add(1, Relaxed);
                watched.seen = now;
            }
        }
        self.watched = watched;
    }
}

impl Watched {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut now = vec![0; self.seen.len()];
        self.inode.read(&mut now, self.offset)?;
        Ok(now)
    }
}

impl Inode {
    /// A new file.
    fn new(number: u64) -> Inode {
        let inode = Inode::of(number, Arc::default());
        inode.memory();
        inode
    }

    fn of(number: u64, old: Arc<Content>) -> Inode {
        let (memory, reserved) = Default::default();
        Inode {
            number,
            old,
            memory,
            reserved,
        }
    }

    fn memory(&self) -> &File {
        self.memory
            .get_or_init(|| fill(&self.old).expect("memory for a file"))
    }

    fn len(&self) -> io::Result<u64> {
        match self.memory.get() {
            Some(memory) => Ok(memory.metadata()?.len()),
            None => Ok(u64::try_from(self.old.len).unwrap_or(0)),
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(memory) = self.memory.get() {
            return memory.read_exact_at(buffer, offset);
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset.saturating_add(buffer.len()) > self.old.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        self.old.copy_to(buffer, offset);
        Ok(())
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len()?).unwrap_or(0)];
        self.read(&mut bytes, 0)?;
        Ok(bytes)
    }
}

fn fill(content: &Content) -> io::Result<File> {
    let memory = File::from(rustix::fs::memfd_create("rimstone", MemfdFlags::CLOEXEC)?);
    for (at, block) in &content.blocks {
        let offset = u64::try_from(at * block.bytes.len()).unwrap_or(0);
        memory.write_all_at(&block.bytes, offset)?;
    }
    memory.set_len(u64::try_from(content.len).unwrap_or(0))?;
    Ok(memory)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Vfs for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Ok(());
        }
        state.check(Doing::Other)?;
        let node = Node::Dir;
        let new = Arc::from(path);
        state.change_name(parent(path), NameChange::Add { path: new, node });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.check(Doing::Read)?;
        if !state.names.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|p| p.parent() == Some(dir));
        let names = inside.filter_map(|p| Some(p.file_name()?.to_string_lossy().into()));
        Ok(names.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state();
        state.check(Doing::Other)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add_file(path)?;
        Ok(Box::new(SimFile::new(self, inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state();
        state.check(Doing::Read)?;
        let inode = state.inode(path)?;
        Ok(Box::new(SimFile::new(self, inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Doing::Other)?;
        let node = Node::File(state.inode(from)?.number);
        let (from, new) = (Arc::from(from), Arc::from(to));
        let change = NameChange::Rename {
            from,
            to: new,
            node,
        };
        state.change_name(parent(to), change);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Doing::Other)?;
        let node = Node::File(state.inode(from)?.number);
        let path = Arc::from(to);
        state.change_name(parent(to), NameChange::Add { path, node });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Doing::Other)?;
        state.inode(path)?;
        let gone = Arc::from(path);
        state.change_name(parent(path), NameChange::Remove { path: gone });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Doing::Sync)?;
        let dir = dir.into();
        state.journal.push(Event::SyncDir { dir });
        Ok(())
    }

    fn note(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let inode = self.state().inode(path)?;
        SimFile::new(self, inode).write_at(bytes, 0)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        if state.locked.iter().any(|locked| locked == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.names.contains_key(path) {
            state.add_file(path)?;
        }
        state.locked.push(path.into());
        let disk = self.clone();
        Ok(Box::new(SimLock {
            disk,
            path: path.into(),
        }))
    }

    /// They follow from what was on the disk when the power came on, so that everything can be replayed: equal
    /// disks are opened equally.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.rolls += 1;
        let mut dice = Dice::new(state.base.digest().wrapping_add(state.rolls));
        for part in bytes.chunks_mut(8) {
            let rolled = dice.roll().to_le_bytes();
            part.copy_from_slice(&rolled[..part.len()]);
        }
        Ok(())
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locked.retain(|path| *path != self.path);
    }
}

struct SimFile {
    disk: SimDisk,
    inode: Arc<Inode>,
}

impl SimFile {
    fn new(disk: &SimDisk, inode: Arc<Inode>) -> SimFile {
        let disk = disk.clone();
        SimFile { disk, inode }
    }
}

impl VfsFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.call(Doing::Write) {
            Ok(()) => {
                let end = offset + u64::try_from(bytes.len()).unwrap_or(0);
                state.check_space(&self.inode, end)?;
                state.done.writes += 1;
                self.disk.0.changed.notify_all();
                state.write(&self.inode, bytes, offset)
            }
            Err(fault) => {
                if fault == Fault::Partial {
                    let part = Dice::new(state.failures).below(bytes.len());
                    state.write(&self.inode, &bytes[..part], offset)?;
                }
                Err(fault.error())
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state().check(Doing::Read)?;
        self.inode.read(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.wait_if_held();
        state.look();
        let file = self.inode.number;
        let result = state.call(Doing::Sync);
        match result {
            Ok(()) => state.journal.push(Event::Sync { file }),
            Err(Fault::Forget) => state.journal.push(Event::Forget { file }),
            Err(_) => {}
        }
        state.done.syncs += 1;
        self.disk.0.changed.notify_all();
        result.map_err(Fault::error)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check(Doing::Other)?;
        state.check_space(&self.inode, len)?;
        self.inode.reserved.fetch_max(len, Relaxed);
        if len > self.inode.len()? {
            self.inode.memory().set_len(len)?;
            let change = FileChange::Len(usize::try_from(len).unwrap_or(0));
            let file = self.inode.number;
            state.journal.push(Event::Bytes { file, change });
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inode.len()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        self.disk.state().check(Doing::Read)?;
        let Some(memory) = self.inode.memory.get() else {
            return sparse(&self.inode.old, len);
        };
        let raw = MmapOptions::new().len(len).map_raw_read_only(memory)?;
        Ok(Map::new(raw))
    }

    fn map_to_write(&self, len: usize) -> Option<WritableMap> {
        let raw = MmapOptions::new().len(len).map_raw(self.inode.memory());
        let (disk, inode) = (self.disk.clone(), Arc::clone(&self.inode));
        let ask = move |offset, len| disk.has_pages(&inode, offset, len);
        Some(WritableMap::asking(raw.ok()?, ask))
    }

    fn mapped_from(&self) -> u64 {
        self.disk.state().mapped_from.unwrap_or(u64::MAX)
    }

    fn map_private(&self) -> io::Result<Map> {
        self.disk.state().check(Doing::Read)?;
        match self.inode.memory.get() {
            Some(_) => Map::from_bytes(&self.inode.bytes()?),
            None => sparse(&self.inode.old, self.inode.old.len),
        }
    }

    fn is_resident(&self, _offset: u64, _len: usize) -> bool {
        true
    }
}

/// A copy of a file that was not written to since the power came on: files of a store are written
/// before they are opened for reading. Its holes cost no memory, which in shared memory they would as
/// soon as a scan reads them.
fn sparse(content: &Content, len: usize) -> io::Result<Map> {
    let mut map = MmapMut::map_anon(len.max(1))?;
    content.copy_to(&mut map, 0);
    Ok(Map::new(map.into()))
}
