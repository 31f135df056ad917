//! The real disk with a gate before it: what is to be done to files of a kind waits there, or fails.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rimstone::{Map, OsVfs, Vfs, VfsFile};

/// A gate, open until told otherwise. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: Option<(Doing, &'static str, Then)>,
    /// How many may still pass.
    passes: usize,
    waiting: usize,
    failed: usize,
    seems_cold: bool,
    listed: Option<Box<dyn FnOnce() + Send>>,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is created.
    Create,
    /// It is opened.
    Open,
    /// It is flushed, or a directory whose name ends so is. A file is still of the kind that it was created as.
    Sync,
    /// Somebody asks how long it is.
    Measure,
    /// It is mapped, to be read.
    Map,
    /// Somebody asks whether a part of it is in memory. If that fails it is not.
    IsResident,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    WaitAlone,
    Fail,
    Panic,
}

impl Gate {
    /// From now on who does this to a file whose name ends so waits.
    pub fn hold(&self, doing: Doing, kind: &'static str) {
        self.hold_after(0, doing, kind);
    }

    /// As [`hold`](Gate::hold), for those who come after so many.
    pub fn hold_after(&self, passes: usize, doing: Doing, kind: &'static str) {
        let mut state = self.state();
        state.passes = passes;
        state.closed = Some((doing, kind, Then::Wait));
    }

    /// From now on the first who does this to a file whose name ends so waits; others pass by.
    pub fn hold_one(&self, doing: Doing, kind: &'static str) {
        self.state().closed = Some((doing, kind, Then::WaitAlone));
    }

    /// From now on doing this to a file whose name ends so fails.
    pub fn fail(&self, doing: Doing, kind: &'static str) {
        self.fail_after(0, doing, kind);
    }

    /// As [`fail`](Gate::fail), for those who come after so many.
    pub fn fail_after(&self, passes: usize, doing: Doing, kind: &'static str) {
        let mut state = self.state();
        state.passes = passes;
        state.closed = Some((doing, kind, Then::Fail));
    }

    /// From now on who does this to a file whose name ends so panics.
    pub fn panic(&self, doing: Doing, kind: &'static str) {
        self.state().closed = Some((doing, kind, Then::Panic));
    }

    /// From now on nothing seems to be in memory.
    pub fn seem_cold(&self) {
        self.state().seems_cold = true;
    }

    /// Does something as soon as a directory has been listed, before who asked knows its names.
    pub fn once_listed(&self, act: impl FnOnce() + Send + 'static) {
        self.state().listed = Some(Box::new(act));
    }

    /// Lets everyone through.
    pub fn open(&self) {
        self.state().closed = None;
        self.0.changed.notify_all();
    }

    /// How often somebody failed since the last time this was called.
    #[must_use]
    pub fn failed(&self) -> usize {
        mem::take(&mut self.state().failed)
    }

    /// Whether nobody is held or failed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().closed.is_none()
    }

    /// Returns once somebody waits before the gate.
    pub fn await_someone(&self) {
        let nobody = |state: &mut State| state.waiting == 0;
        drop(self.0.changed.wait_while(self.state(), nobody));
    }

    fn pass(&self, doing: Doing, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        while let Some((what, kind, then)) = state.closed {
            if what != doing || !path.to_string_lossy().ends_with(kind) {
                break;
            }
            if state.passes > 0 {
                state.passes -= 1;
                break;
            }
            if then == Then::WaitAlone && state.waiting > 0 {
                break;
            }
            if then == Then::Fail {
                state.failed += 1;
                return Err(io::Error::other("the gate is closed"));
            }
            assert!(then != Then::Panic, "the gate was told to panic");
            state.waiting += 1;
            self.0.changed.notify_all();
            let woken = self.0.changed.wait_while(state, |s| s.closed.is_some());
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct GatedFile {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    gate: Gate,
}

impl Vfs for Gate {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsVfs.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = OsVfs.list(dir);
        let act = self.state().listed.take();
        if let Some(act) = act {
            act();
        }
        names
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.pass(Doing::Create, path)?;
        Ok(Box::new(GatedFile {
            file: OsVfs.create(path)?,
            path: path.to_path_buf(),
            gate: self.clone(),
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.pass(Doing::Open, path)?;
        Ok(Box::new(GatedFile {
            file: OsVfs.open(path)?,
            path: path.to_path_buf(),
            gate: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.pass(Doing::Sync, dir)?;
        OsVfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
}

impl VfsFile for GatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass(Doing::Sync, &self.path)?;
        self.file.sync()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.gate.pass(Doing::Measure, &self.path)?;
        self.file.len()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        self.gate.pass(Doing::Map, &self.path)?;
        self.file.map(len)
    }

    fn map_private(&self) -> io::Result<Map> {
        self.file.map_private()
    }

    fn is_resident(&self, offset: u64, len: usize) -> bool {
        let passed = self.gate.pass(Doing::IsResident, &self.path);
        let seems_cold = self.gate.state().seems_cold;
        passed.is_ok() && !seems_cold && self.file.is_resident(offset, len)
    }

    fn will_need(&self, offset: u64, len: usize) {
        self.file.will_need(offset, len);
    }
}
