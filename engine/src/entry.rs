use std::ops::Deref;

use bytes::Bytes;

use crate::hot::CacheStatus;

/// The bytes of a value: cheap to clone, readable as a slice, turned into [`Bytes`] without a copy.
///
/// It stays valid after its key is overwritten or deleted. While a large one is held, the file it
/// lies in stays on disk.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Value(pub(crate) Bytes);

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Value> for Bytes {
    fn from(value: Value) -> Bytes {
        value.0
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A value with what was stored beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(crate) value: Value,
    pub(crate) metadata: Bytes,
    pub(crate) expiration: u64,
    pub(crate) generation: u64,
}

impl Entry {
    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value, by itself.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The metadata, empty if there is none.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// When the entry expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expiration(&self) -> Option<u64> {
        (self.expiration != 0).then_some(self.expiration)
    }

    /// The sequence number of the write that made this entry.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// An entry lent in place by [`Namespace::read`](crate::Namespace::read).
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) metadata: &'a [u8],
    pub(crate) expiration: u64,
    pub(crate) generation: u64,
    pub(crate) cache_status: CacheStatus,
}

impl<'a> EntryRef<'a> {
    /// The value.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The metadata, empty if there is none.
    #[must_use]
    pub fn metadata(&self) -> &'a [u8] {
        self.metadata
    }

    /// When the entry expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expiration(&self) -> Option<u64> {
        (self.expiration != 0).then_some(self.expiration)
    }

    /// The sequence number of the write that made this entry.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the hot cache had it.
    #[must_use]
    pub fn cache_status(&self) -> CacheStatus {
        self.cache_status
    }
}
