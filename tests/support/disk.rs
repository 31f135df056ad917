//! A disk in memory whose power can be cut at any operation, and which fails when told to.
//!
//! A running program sees what it wrote. What survives a cut is another matter: bytes are durable once
//! their file was synced, names once their directory was. Everything random follows from the seed of
//! the [`Cut`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use memmap2::{MmapMut, MmapOptions};
use rimstone::{Map, Vfs, VfsFile};
use rustix::fs::MemfdFlags;

use crate::image::{Content, Event, FileChange, Image, NameChange, Node, apply_name};
use crate::{Cut, Dice};

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Rung when syncs that were held may go on.
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// What was durable when the power came on, and every change since.
    base: Image,
    journal: Vec<Event>,
    /// What the running program sees.
    names: BTreeMap<PathBuf, Node>,
    files: BTreeMap<u64, Arc<Inode>>,
    next_file: u64,
    locked: Vec<PathBuf>,
    calls: u64,
    faults: Vec<(u64, Fault, bool)>,
    capacity: Option<u64>,
    hold_syncs: bool,
}

/// A file as the running program sees it.
struct Inode {
    number: u64,
    /// What it held when the power came on.
    old: Arc<Content>,
    /// Shared memory, so that a mapping shows later writes; made when the file is first written to.
    memory: OnceLock<File>,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An I/O error; nothing was done.
    Io,
    /// No space is left; nothing was done.
    Full,
    /// A write that stops half-way with an I/O error; other operations fail as with `Io`.
    Partial,
    /// A sync that fails and, as on Linux, drops the bytes: they can be read until the power is cut,
    /// and a second sync says that all is well. Other operations fail as with `Io`.
    Forget,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 4] = [Fault::Io, Fault::Full, Fault::Partial, Fault::Forget];

    fn error(self) -> io::Error {
        match self {
            Fault::Full => io::ErrorKind::StorageFull.into(),
            Fault::Io | Fault::Partial | Fault::Forget => {
                io::Error::other("the simulated disk fails")
            }
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
                state.names.insert(path.clone(), Node::Dir);
                continue;
            };
            let old = image.files.get(&number).cloned().unwrap_or_default();
            let memory = OnceLock::new();
            let inode = Inode {
                number,
                old,
                memory,
            };
            state.names.insert(path.clone(), *node);
            state.files.insert(number, Arc::new(inode));
        }
        state.next_file = image.files.keys().max().map_or(0, |max| max + 1);
        state.base = image;
        SimDisk(Arc::new(Shared {
            state: Mutex::new(state),
            released: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        SimDisk::from_image(self.image(place, cut))
    }

    /// A number that is the same for cuts that leave the same disk.
    #[must_use]
    pub fn digest_at(&self, place: usize, cut: Cut) -> u64 {
        self.image(place, cut).digest()
    }

    fn image(&self, place: usize, cut: Cut) -> Image {
        let state = self.state();
        let mut events = state.journal[..place.min(state.journal.len())].to_vec();
        // The interrupted operation: begun, hence not durable, and any part of it may be lost.
        if let Some(event @ (Event::Bytes { .. } | Event::Name { .. })) = state.journal.get(place) {
            events.push(event.clone());
        }
        state.base.after(&events, cut)
    }

    /// How many operations that can fail were asked for.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Makes the operation fail that comes after `skip` others, and all after it if `lasting`.
    pub fn fail(&self, skip: u64, fault: Fault, lasting: bool) {
        let mut state = self.state();
        let at = state.calls + skip;
        state.faults.push((at, fault, lasting));
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

    /// Makes every sync wait until it is called with `false`.
    pub fn hold_syncs(&self, hold: bool) {
        self.state().hold_syncs = hold;
        self.0.released.notify_all();
    }

    /// The files that exist.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.names.iter().filter(|(_, node)| **node != Node::Dir);
        files.map(|(path, _)| path.clone()).collect()
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
    fn call(&mut self) -> Result<(), Fault> {
        let at = self.calls;
        self.calls += 1;
        let hits = |(n, _, lasting): &&(u64, Fault, bool)| *n == at || (*lasting && *n <= at);
        self.faults
            .iter()
            .find(hits)
            .map_or(Ok(()), |(_, fault, _)| Err(*fault))
    }

    fn check(&mut self) -> io::Result<()> {
        self.call().map_err(Fault::error)
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
        let (path, node) = (path.to_path_buf(), Node::File(number));
        let dir = parent(&path);
        self.change_name(&dir, NameChange::Add { path, node });
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
        let (offset, bytes) = (usize::try_from(offset).unwrap_or(0), bytes.into());
        self.journal.push(Event::Bytes {
            file: inode.number,
            change: FileChange::Write { offset, bytes },
        });
        Ok(())
    }
}

impl Inode {
    /// A new file.
    fn new(number: u64) -> Inode {
        let (old, memory) = Default::default();
        let inode = Inode {
            number,
            old,
            memory,
        };
        inode.memory();
        inode
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
    for (at, bytes) in &content.blocks {
        let offset = u64::try_from(at * bytes.len()).unwrap_or(0);
        memory.write_all_at(bytes, offset)?;
    }
    memory.set_len(u64::try_from(content.len).unwrap_or(0))?;
    Ok(memory)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).into()
}

impl Vfs for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Ok(());
        }
        state.check()?;
        let (path, node) = (path.to_path_buf(), Node::Dir);
        let dir = parent(&path);
        state.change_name(&dir, NameChange::Add { path, node });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.names.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|p| p.parent() == Some(dir));
        let names = inside.filter_map(|p| Some(p.file_name()?.to_string_lossy().into()));
        Ok(names.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state();
        state.check()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add_file(path)?;
        Ok(Box::new(SimFile::new(self, inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state();
        state.check()?;
        let inode = state.inode(path)?;
        Ok(Box::new(SimFile::new(self, inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let node = Node::File(state.inode(from)?.number);
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        let dir = parent(&to);
        state.change_name(&dir, NameChange::Rename { from, to, node });
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let node = Node::File(state.inode(from)?.number);
        let path = to.to_path_buf();
        let dir = parent(&path);
        state.change_name(&dir, NameChange::Add { path, node });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.inode(path)?;
        let path = path.to_path_buf();
        let dir = parent(&path);
        state.change_name(&dir, NameChange::Remove { path });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let dir = dir.into();
        state.journal.push(Event::SyncDir { dir });
        Ok(())
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
        match state.call() {
            Ok(()) => {
                let end = offset + u64::try_from(bytes.len()).unwrap_or(0);
                state.check_space(&self.inode, end)?;
                state.write(&self.inode, bytes, offset)
            }
            Err(fault) => {
                if fault == Fault::Partial {
                    let part = Dice::new(state.calls).below(bytes.len());
                    state.write(&self.inode, &bytes[..part], offset)?;
                }
                Err(fault.error())
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inode.read(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        while state.hold_syncs {
            let waited = self.disk.0.released.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let file = self.inode.number;
        let result = state.call();
        match result {
            Ok(()) => state.journal.push(Event::Sync { file }),
            Err(Fault::Forget) => state.journal.push(Event::Forget { file }),
            Err(_) => {}
        }
        result.map_err(Fault::error)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check()?;
        state.check_space(&self.inode, len)?;
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
        let Some(memory) = self.inode.memory.get() else {
            return sparse(&self.inode.old, len);
        };
        let raw = MmapOptions::new().len(len).map_raw_read_only(memory)?;
        Ok(Map::new(raw))
    }

    fn map_private(&self) -> io::Result<Map> {
        Map::from_bytes(&self.inode.bytes()?)
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
