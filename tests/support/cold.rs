//! The real disk, as if nothing of its files were in memory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rimstone::{Map, OsVfs, Vfs, VfsFile};

/// A disk that says of everything that it is not in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Cold(Arc<AtomicUsize>);

impl Cold {
    /// How often somebody asked since the last time this was called.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    fn file(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        let disk = self.clone();
        Box::new(ColdFile { file, disk })
    }
}

struct ColdFile {
    file: Box<dyn VfsFile>,
    disk: Cold,
}

impl Vfs for Cold {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsVfs.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsVfs.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(self.file(OsVfs.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(self.file(OsVfs.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
}

impl VfsFile for ColdFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        self.file.map(len)
    }

    fn map_private(&self) -> io::Result<Map> {
        self.file.map_private()
    }

    fn is_resident(&self, _: u64, _: usize) -> bool {
        self.disk.0.fetch_add(1, Ordering::Relaxed);
        false
    }
}
