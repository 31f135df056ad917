use std::path::{Path, PathBuf};

/// What can go wrong, one variant for each thing a caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation. The store is unchanged by the call that failed.
    #[error("{doing} failed on {}", path.display())]
    Io {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An earlier write or flush failed, so nothing more is written until the store is reopened.
    /// Reads go on.
    #[error("an earlier write or flush failed; reads go on, reopen the store to write again")]
    Poisoned,
    /// This process was forked from the one that opened the store, which may go on writing to it; nothing
    /// was written.
    #[error("the store was opened before this process was forked; open one of its own")]
    Forked,
    /// The store was opened for reading only; nothing was written.
    #[error("the store was opened for reading only")]
    ReadOnly,
    /// The value was replaced since the store was opened for reading, and its file removed.
    #[error("the value was replaced since the store was opened for reading; refresh it")]
    Outdated,
    /// Stored bytes do not match their checksum. They are never returned.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the damage was found.
        offset: u64,
        /// What did not fit.
        reason: &'static str,
    },
    /// The directory was written by a newer version of Rimstone; nothing in it was touched.
    #[error(
        "{} has format version {found}, this program reads up to {supported}; use a newer Rimstone",
        path.display()
    )]
    UnsupportedFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version it has.
        found: u16,
        /// The newest version this program reads.
        supported: u16,
    },
    /// The directory holds something that is not a Rimstone store; nothing in it was touched.
    #[error("{} is not a Rimstone store: it contains {found:?}; choose an empty or a new directory", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// A file in it that no store contains.
        found: String,
    },
    /// A directory that is to become a store holds something already; nothing in it was touched.
    #[error("{} is not empty; choose an empty or a new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has the store open for writing.
    #[error("the store in {} is locked: another process has it open", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A key is empty or longer than 512 bytes.
    #[error("a key has 1 to 512 bytes, this one has {len}")]
    InvalidKey {
        /// Its length in bytes.
        len: usize,
    },
    /// A value, metadata, name or batch is larger than its limit.
    #[error("{what} of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The largest length allowed.
        max: u64,
    },
    /// A cursor that this store did not issue for this namespace and listing.
    #[error("the cursor does not belong to this listing; start again without one")]
    InvalidCursor,
    /// The disk is full. Reads and deletes go on; writes work again once space is free.
    #[error("no space is left for writing; free some and try again")]
    Full,
    /// `if_absent` or `if_generation` did not hold; nothing was written.
    #[error("the key's generation is {found:?}, which the write's condition does not allow")]
    Conflict {
        /// The generation found, `None` if the key is absent.
        found: Option<u64>,
    },
    /// The namespace was dropped, or never existed.
    #[error("the namespace does not exist")]
    NoSuchNamespace,
    /// A namespace needs a name.
    #[error("a namespace's name must not be empty")]
    EmptyName,
    /// Another namespace has this name.
    #[error("a namespace named {name:?} already exists")]
    NamespaceExists {
        /// The name asked for.
        name: String,
    },
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An I/O error with what was being done, a full disk told apart.
pub(crate) fn io_error(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::Io {
            doing,
            path: path.to_path_buf(),
            source,
        },
    }
}
