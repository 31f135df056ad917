//! The few file operations the engine needs, so that tests can put a failing disk under it.
//!
//! Only what changes or finds files crosses this seam. Reads do not: a file hands out a [`Map`] once,
//! and a get reads its slices without a virtual call. Nor do records that are written through a
//! [`WritableMap`], which a file system may do without.

mod os;
mod output;

use std::io;
use std::path::Path;

pub use crate::mem::{Map, WritableMap};
pub use os::OsVfs;
pub(crate) use output::Output;

/// So much of a file is not flushed when writing through memory begins to pay, unless its file system says otherwise: the
/// system then writes huge pages out as a whole, which is too much where every few records are flushed.
const MAPPED_FROM: u64 = 4 << 20;

// Of twice its size at most.
const _: () = assert!(MAPPED_FROM >= 2 << 20);

/// What the name of a file is followed by beside one of the same id that must not be mapped any more, since
/// reading it that way ended a process.
pub(crate) const UNMAPPABLE: &str = "pread";

/// A file system. All names are inside the store's one directory, and a backup's.
pub trait Vfs: Send + Sync {
    /// Creates the directory and its parents; fine if it is there.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, readable by its owner only.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, or what the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Replaces `to` by `from` in one step.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must not exist and may be in another directory. Where that cannot
    /// be done files are copied, which is what happens if this is left out.
    ///
    /// # Errors
    /// What the operating system says, `Unsupported` if this is left out.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file's name; who has it mapped keeps its bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Writes a few bytes over the start of a file that is there. A crash may leave any mixture of old and
    /// new; who reads them tells. Where this is left out nothing is noted.
    ///
    /// # Errors
    /// What the operating system says, `Unsupported` if this is left out.
    fn note(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let _ = (path, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Takes the lock that lets one process write; it is freed when the answer is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Fills `bytes` with random ones: salts, ids and secrets of files that will lie here. Left out, they are
    /// the system's; a simulation may have them follow from a seed.
    ///
    /// # Errors
    /// If the system has no random source.
    #[allow(clippy::disallowed_methods, reason = "the only source of randomness")]
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        crate::sync::random::fill(bytes).map_err(|_| io::Error::other("no random source"))
    }
}

/// An open file.
#[allow(
    clippy::len_without_is_empty,
    reason = "nobody asks whether a file is empty"
)]
pub trait VfsFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the operating system says; any part may then have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof`, or what the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes all written bytes durable.
    ///
    /// # Errors
    /// What the operating system says. The bytes must then be taken for lost.
    fn sync(&self) -> io::Result<()>;
    /// Reserves space so that the file has at least `len` bytes, new ones zero. It never gets shorter,
    /// also when two threads ask at once.
    ///
    /// # Errors
    /// `StorageFull`, or what the operating system says.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;
    /// Maps the first `len` bytes for reading; the file may grow into them later.
    ///
    /// # Errors
    /// What the operating system says.
    fn map(&self, len: usize) -> io::Result<Map>;
    /// Maps the first `len` bytes, so that those that were reserved can be written through memory. `None`, also where
    /// this is left out, if what was written so could not be written out later for want of space.
    fn map_to_write(&self, len: usize) -> Option<WritableMap> {
        let _ = len;
        None
    }
    /// How many bytes have to wait for a flush until a record is written through memory.
    fn mapped_from(&self) -> u64 {
        MAPPED_FROM
    }
    /// Maps the whole file copy-on-write: changes stay in memory.
    ///
    /// # Errors
    /// What the operating system says.
    fn map_private(&self) -> io::Result<Map>;
    /// Whether these bytes are in memory, so that touching them does not wait for the disk.
    fn is_resident(&self, offset: u64, len: usize) -> bool;
    /// Starts to read these bytes, as far as they are not in memory, without waiting for them. Where this is left
    /// out, whoever needs them waits.
    fn will_need(&self, offset: u64, len: usize) {
        let _ = (offset, len);
    }
}
