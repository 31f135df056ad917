//! What a writer or a fetch hands in.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::Key;
use crate::block::Block;
use crate::clock::{NEVER, Seconds, seconds};
use crate::parts::{Body, Parts};

/// Shorter bytes are copied next to their key, even if they are somebody's `Bytes`: that saves the
/// reader a line of memory, and keeps no large buffer for a small slice of it.
const COPY_MAX: usize = 4 << 10;

/// A value on its way into the cache, or the news that there is none.
///
/// ```
/// use std::time::Duration;
/// use rimstone_cache::Value;
///
/// let on = Value::from("on").metadata(b"{}").ttl(Duration::from_secs(60));
/// let gone = Value::absent();
/// ```
#[derive(Clone, Debug)]
pub struct Value<'v> {
    body: Body<'v>,
    metadata: Cow<'v, [u8]>,
    ttl: Option<Duration>,
    expiration: Seconds,
    version: u64,
}

/// What the cache adds to a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) fetched: Seconds,
    pub(crate) fresh_until: Seconds,
    pub(crate) kept_until: Seconds,
    pub(crate) generation: u32,
    pub(crate) hash: u32,
}

impl<'v> Value<'v> {
    fn new(body: Body<'v>) -> Value<'v> {
        Value {
            body,
            metadata: Cow::Borrowed(&[]),
            ttl: None,
            expiration: NEVER,
            version: 0,
        }
    }

    /// There is no such key. Without a [`ttl`](Value::ttl), it has the cache's `negative_ttl`.
    #[must_use]
    pub fn absent() -> Value<'v> {
        Value::new(Body::Absent)
    }

    /// Bytes that belong to the value.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Cow<'v, [u8]>>) -> Value<'v> {
        self.metadata = metadata.into();
        self
    }

    /// How long it is fresh for readers that bring no limit of their own, in whole seconds; for ever
    /// if this is not called. Entries may get a little less, so that they do not end together.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Value<'v> {
        self.ttl = Some(ttl);
        self
    }

    /// The second of the cache's clock from which on nobody may see the value, stale or not.
    #[must_use]
    pub fn expiration(mut self, expiration: u64) -> Value<'v> {
        self.expiration = seconds(expiration);
        self
    }

    /// A number that grows with each write of the key at its source; above 0. A value never takes the
    /// place of one with a higher version.
    #[must_use]
    pub fn version(mut self, version: u64) -> Value<'v> {
        self.version = version;
        self
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.body, Body::Absent)
    }

    pub(crate) fn own_ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(crate) fn own_expiration(&self) -> Seconds {
        self.expiration
    }

    /// The value with its key in memory of its own.
    ///
    /// # Panics
    /// If key, metadata and value together take 4 GiB, or the key's name 512 MiB.
    pub(crate) fn into_block(self, key: Key<'_>, life: Life) -> Block {
        let body = match &self.body {
            Body::Shared(bytes) if bytes.len() <= COPY_MAX => Body::Copied(bytes),
            body => body.clone(),
        };
        let block = Block::new(Parts {
            key,
            metadata: &self.metadata,
            body,
            version: self.version,
            expiration: self.expiration,
            fetched: life.fetched,
            fresh_until: life.fresh_until,
            kept_until: life.kept_until,
            generation: life.generation,
            hash: life.hash,
        });
        block.expect("an entry of less than 4 GiB")
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(value: &'v [u8]) -> Value<'v> {
        Value::new(Body::Copied(value))
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(value: &'v str) -> Value<'v> {
        Value::from(value.as_bytes())
    }
}

/// Long `Bytes` are kept as they are, without a copy; short ones are copied.
impl From<Bytes> for Value<'_> {
    fn from(value: Bytes) -> Self {
        Value::new(Body::Shared(value))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(value: Vec<u8>) -> Self {
        Value::from(Bytes::from(value))
    }
}
