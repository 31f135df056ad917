//! What a reader gets.

use std::fmt;

use bytes::Bytes;

use crate::Key;
use crate::block::Block;
use crate::clock::{NEVER, Seconds, after};
use std::time::Duration;

/// Bytes that an entry takes beside its block: its slot, the one in eight that may be free, and its
/// share of the index and of the history.
const OVERHEAD: u32 = 96;

/// A value with what belongs to it. Cloning it counts a handle and copies nothing; the memory stays
/// while any handle does, whatever the cache does meanwhile.
#[derive(Clone)]
pub struct Entry(pub(crate) Block);

impl Entry {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key<'_> {
        self.0.key()
    }

    /// The value; empty if it is [absent](Entry::is_absent).
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.0.value()
    }

    /// The value as `Bytes`, without a copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.0.shared() {
            Some(shared) => shared.clone(),
            None => Bytes::from_owner(self.clone()),
        }
    }

    /// The metadata; empty if there are none.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.0.metadata()
    }

    /// Whether this says that there is no such key.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_absent()
    }

    /// The version it was stored with; 0 for none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// The second from which on the value itself is no more, on the cache's clock.
    #[must_use]
    pub fn expiration(&self) -> Option<u64> {
        let expiration = self.0.expiration();
        (expiration != NEVER).then_some(expiration.into())
    }

    /// The second in which it was put, or in which its fetch began, on the cache's clock.
    #[must_use]
    pub fn fetched_at(&self) -> u64 {
        self.0.fetched().into()
    }

    /// What it counts for in the cache's budget: bytes of memory, tables included.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.0.size().saturating_add(OVERHEAD)
    }

    /// Until when it is fresh for a reader.
    pub(crate) fn fresh_until(&self, cache_ttl: Option<Duration>) -> Seconds {
        match cache_ttl {
            None => self.0.fresh_until(),
            ttl => after(self.0.fetched(), ttl),
        }
    }

    /// Whether it is fresh for ever, for readers without a limit of their own.
    #[inline]
    pub(crate) fn never_ends(&self) -> bool {
        self.0.fresh_until() == NEVER && self.0.expiration() == NEVER
    }

    pub(crate) fn is_expired(&self, now: Seconds) -> bool {
        let expiration = self.0.expiration();
        expiration <= now && expiration != NEVER
    }
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        self.value()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Entry");
        debug.field("key", &self.key());
        debug.field("value_len", &self.value().len());
        debug.field("is_absent", &self.is_absent());
        debug.finish_non_exhaustive()
    }
}

/// Why an entry left the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The budget was needed for others.
    Size,
    /// No reader could want it any more.
    Expired,
    /// Its key got another value.
    Replaced,
    /// It was invalidated, or everything was.
    Explicit,
}
