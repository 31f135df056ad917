//! The operating system's file system.
#![allow(clippy::disallowed_methods, reason = "the file-system seam itself")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::{Map, UNMAPPABLE, Vfs, VfsFile, WritableMap};
use crate::mem::{Origin, READ_AHEAD};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = loop {
            match fs::read_dir(dir) {
                // The standard library goes on by itself with everything but this.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                entries => break entries?,
            }
        };
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into()))
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(OsFile::new(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut file = OsFile::new(File::open(path)?);
        file.is_unmappable = fs::exists(path.with_extension(UNMAPPABLE))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn note(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(bytes, 0)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        check_is_local(path.parent().unwrap_or(path))?;
        Ok(Box::new(OsLock::take(lock_file(path)?, path)?))
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path)
}

fn without_locks(why: impl std::fmt::Display) -> io::Error {
    let text = format!("a store needs a file system with working locks: {why}");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// What `f_type` says of file systems that other machines write to: their locks may hold for one machine
/// only, and a mapping may show what is no longer there.
const NETWORK: [(i64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
];

/// # Errors
/// `Unsupported` on a network file system.
fn check_is_local(dir: &Path) -> io::Result<()> {
    let kind = rustix::fs::statfs(dir)?.f_type;
    match NETWORK.iter().find(|(network, _)| *network == kind) {
        None => Ok(()),
        Some((_, name)) => {
            let text = format!("a store needs a local file system, and this one is {name}");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    }
}

struct OsLock {
    file: File,
    origin: Origin,
}

impl OsLock {
    /// Locks a file that was opened by this name.
    fn take(file: File, path: &Path) -> io::Result<OsLock> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(without_locks(error)),
        }
        let origin = Origin::here();
        let lock = OsLock { file, origin };
        // Since it was opened another may have got its name: a repaired store takes the place of the old one.
        let (locked, named) = (lock.file.metadata()?, fs::metadata(path)?);
        if (locked.dev(), locked.ino()) != (named.dev(), named.ino()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Some file systems grant every lock. One that works keeps out whoever opens the file again.
        if lock_file(path)?.try_lock().is_ok() {
            return Err(without_locks("a second one is granted beside the first"));
        }
        Ok(lock)
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that was forked and has not yet run its program shares the
        // lock, and would hold it a moment longer. Such a child itself only closes.
        if !self.origin.is_elsewhere() {
            let _ = self.file.unlock();
        }
    }
}

struct OsFile {
    file: File,
    /// Held by who changes its length.
    growing: Mutex<()>,
    /// Whether it is copied to memory instead of being mapped.
    is_unmappable: bool,
}

impl OsFile {
    fn new(file: File) -> OsFile {
        OsFile {
            file,
            growing: Mutex::new(()),
            is_unmappable: false,
        }
    }

    /// A copy of the file in so much memory, with zeros for what cannot be read: no record, page or block of
    /// a store is valid with them, so that whoever needs it is told of damage. The end of the log needs more:
    /// zeros look as if nothing had been written there.
    fn copied(&self, len: usize) -> io::Result<Map> {
        let mut copy = MmapMut::map_anon(len)?;
        let there = usize::try_from(self.file.metadata()?.len()).unwrap_or(usize::MAX);
        debug_assert_eq!(copy.len(), len, "as much as would have been mapped");
        let (all, _) = copy.split_at_mut(there.min(len));
        let mut unread_end = 0;
        for (page, at) in all.chunks_mut(4096).zip((0u64..).step_by(4096)) {
            if self.file.read_exact_at(page, at).is_err() {
                page.fill(0);
                unread_end = at.saturating_add(page.len() as u64);
            }
        }
        Ok(Map::new(MmapRaw::from(copy)).unread_before(unread_end))
    }
}

impl VfsFile for OsFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // Two at once could shrink the file, where lengths are set without a reservation.
        let alone = self.growing.lock();
        let old = self.file.metadata()?.len();
        if len <= old {
            return Ok(());
        }
        let more = len.saturating_sub(old);
        let grow = || rustix::fs::fallocate(&self.file, FallocateFlags::empty(), old, more);
        match retry_on_intr(grow) {
            Err(Errno::OPNOTSUPP) => return self.file.set_len(len),
            result => result?,
        }
        debug_assert!(self.len().map_or(true, |there| there >= len));
        // Who asks for less meanwhile does not wait.
        drop(alone);
        self.fault_in(old, len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        if self.is_unmappable {
            return self.copied(len);
        }
        let raw = MmapOptions::new().len(len).map_raw_read_only(&self.file)?;
        // Without this a cold get of 4 KiB reads megabytes ahead on common settings.
        raw.advise(Advice::Random)?;
        Ok(Map::new(raw))
    }

    fn map_to_write(&self, len: usize) -> Option<WritableMap> {
        let kind = rustix::fs::fstatfs(&self.file).ok()?.f_type;
        // Without extents, as in a file system that was ext3, nothing can be reserved.
        let reserves = || rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, 1).is_ok();
        (kind == EXT4 && reserves()).then(|| writable(&self.file, len))?
    }

    fn map_private(&self) -> io::Result<Map> {
        if self.is_unmappable {
            let len = usize::try_from(self.len()?).unwrap_or(usize::MAX);
            return self.copied(len);
        }
        map_copy(&self.file)
    }

    fn is_resident(&self, offset: u64, len: usize) -> bool {
        // Reading one byte of each page without waiting says whether the page is cached.
        let last = offset.saturating_add(u64::try_from(len.saturating_sub(1)).unwrap_or(0));
        let mut byte = [0u8; 1];
        let mut at = offset;
        loop {
            let mut buffers = [IoSliceMut::new(&mut byte)];
            if rustix::io::preadv2(&self.file, &mut buffers, at, ReadWriteFlags::NOWAIT).is_err() {
                return false;
            }
            at = (at | 4095).saturating_add(1);
            if at > last {
                return true;
            }
        }
    }

    fn will_need(&self, offset: u64, len: usize) {
        let end = offset.saturating_add(len as u64);
        for at in (offset..end).step_by(READ_AHEAD) {
            let len = NonZeroU64::new(end.saturating_sub(at).min(READ_AHEAD as u64));
            // Who needs them reads them, if this does not.
            let _ = rustix::fs::fadvise(&self.file, at, len, rustix::fs::Advice::WillNeed);
        }
    }
}

/// What `f_type` says of the file system in which reserved blocks stay a file's own whatever is written where. Others
/// write elsewhere what is written again, which takes space.
const EXT4: i64 = 0xef53;

fn writable(file: &File, len: usize) -> Option<WritableMap> {
    let raw = MmapOptions::new().len(len).map_raw(file).ok()?;
    // Small pages do, too.
    let _ = raw.advise(Advice::HugePage);
    Some(WritableMap::new(raw))
}

/// The size of a huge page.
const HUGE_PAGE: u64 = 2 << 20;
const _: () = assert!(HUGE_PAGE.is_power_of_two(), "lengths are cut with a mask");

impl OsFile {
    /// Brings the new part of a file into the page cache in huge pages, as far as it covers any. Its
    /// blocks were not written yet, so nothing is read; what is written later goes into these pages, and
    /// who reads it through a mapping waits for one entry of the page tables where there were 512.
    fn fault_in(&self, from: u64, to: u64) {
        let first = from.next_multiple_of(HUGE_PAGE);
        let Some(len) = to.checked_sub(first).filter(|len| *len >= HUGE_PAGE) else {
            return;
        };
        let len = usize::try_from(len & !(HUGE_PAGE - 1)).unwrap_or(0);
        debug_assert!(first >= from);
        debug_assert!(first + len as u64 <= to, "only what is new");
        // All of it is about speed: whatever is refused stays in small pages.
        let Ok(raw) = MmapOptions::new()
            .offset(first)
            .len(len)
            .map_raw_read_only(&self.file)
        else {
            return;
        };
        if raw.advise(Advice::HugePage).is_err() {
            return;
        }
        // Page by page: until one is there nobody in the process can map or unmap anything.
        let page = usize::try_from(HUGE_PAGE).unwrap_or(usize::MAX);
        for at in (0..len).step_by(page) {
            let _ = raw.advise_range(Advice::PopulateRead, at, page);
        }
    }
}

#[allow(unsafe_code, reason = "memmap2 asks for a promise about the file")]
fn map_copy(file: &File) -> io::Result<Map> {
    // SAFETY: the mapping is private and its file is a finished checkpoint, which nobody changes:
    // files of a store are written once and then only unlinked, and one process holds the lock.
    let map = unsafe { MmapOptions::new().map_copy(file)? };
    // One page of the table is needed here and there, and megabytes would come with it. Who needs all says so.
    map.advise(Advice::Random)?;
    Ok(Map::new(MmapRaw::from(map)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_through_memory_is_in_the_file_and_what_has_no_page_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsVfs.create(&path).unwrap();
        file.allocate(1 << 20).unwrap();
        let map = writable(
            &File::options().read(true).write(true).open(&path).unwrap(),
            4 << 20,
        );
        let map = map.unwrap();
        assert!(map.write(b"seen", 9_000));
        let mut found = [0; 4];
        file.read_at(&mut found, 9_000).unwrap();
        assert_eq!(&found, b"seen");
        assert!(!map.write(b"no", 2 << 20), "the file ends before it");
        assert!(!map.write(b"no", (4 << 20) - 1), "the mapping does");
        assert_eq!(file.len().unwrap(), 1 << 20);
    }

    /// Otherwise two would write: who holds the lock of the old directory believes to have that of the new one.
    #[test]
    fn the_lock_of_a_file_that_lost_its_name_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let opened = lock_file(&path).unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        let other = OsVfs.lock(&path).unwrap();
        let late = OsLock::take(opened, &path).map(drop);
        assert!(matches!(late, Err(e) if e.kind() == io::ErrorKind::WouldBlock));
        drop(other);
        assert!(OsVfs.lock(&path).is_ok());
    }
}
