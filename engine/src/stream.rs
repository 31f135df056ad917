//! Values streamed in and out with bounded memory.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::Value;
use crate::error::{Error, Result};
use crate::format::record::{CHUNK, INLINE_MAX};
use crate::hot::CacheStatus;
use crate::log::commit::Op;
use crate::log::large::{Large, LargeWriter};
use crate::log::segment::large_path;
use crate::namespace::{Namespace, VALUE_MAX};
use crate::options::PutOptions;

/// A value being written piece by piece; see [`Namespace::writer`].
pub struct ValueWriter {
    namespace: Namespace,
    key: Vec<u8>,
    options: PutOptions,
    /// The value while it is small enough to lie in its record.
    inline: Vec<u8>,
    large: Option<LargeWriter>,
    len: u64,
    /// Whether a write failed: the value has a hole then and must not be stored.
    failed: bool,
}

impl ValueWriter {
    pub(crate) fn new(namespace: Namespace, key: &[u8], options: &PutOptions) -> ValueWriter {
        ValueWriter {
            namespace,
            key: key.to_vec(),
            options: options.clone(),
            inline: Vec::new(),
            large: None,
            len: 0,
            failed: false,
        }
    }

    /// Appends to the value.
    ///
    /// # Errors
    /// `TooLarge` once the value exceeds 25 MiB, `Full`, or an I/O error. Nothing is stored then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.append(bytes);
        self.failed |= written.is_err();
        written
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.len = self
            .len
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.len > VALUE_MAX {
            return Err(Error::TooLarge {
                what: "value",
                len: self.len,
                max: VALUE_MAX,
            });
        }
        if let Some(large) = &mut self.large {
            self.namespace.core().origin.check()?;
            self.namespace.core().take_capacity(bytes.len(), true)?;
            return large.write(bytes);
        }
        if self.inline.len().saturating_add(bytes.len()) <= INLINE_MAX {
            self.inline.extend_from_slice(bytes);
            return Ok(());
        }
        let core = self.namespace.core();
        core.check_writable()?;
        core.check_room()?;
        core.take_capacity(self.inline.len().saturating_add(bytes.len()), true)?;
        let id = core.new_file_id();
        let path = large_path(&core.dir, id);
        let (vfs, origin) = (Arc::clone(&core.vfs), Arc::clone(&core.origin));
        let mut large = LargeWriter::new(vfs, origin, path, id, core.id)?;
        large.write(&self.inline)?;
        large.write(bytes)?;
        debug_assert!(
            self.len > INLINE_MAX as u64,
            "small values lie in their record"
        );
        debug_assert!(self.large.is_none(), "a value lies in one file");
        self.inline = Vec::new();
        self.large = Some(large);
        Ok(())
    }

    /// Stores the value and returns its generation.
    ///
    /// # Errors
    /// As for [`Namespace::put_with`].
    pub fn finish(self) -> Result<u64> {
        let core = Arc::clone(self.namespace.core());
        let immediate = self.namespace.is_immediate(self.options.durability);
        Ok(core.commit(vec![self.into_op()?], immediate)?.generation)
    }

    /// The put that stores the value; a large one is durable on return.
    pub(crate) fn into_op(self) -> Result<Op> {
        self.namespace.core().origin.check()?;
        if self.failed {
            let source = std::io::Error::other("an earlier write of this value failed");
            let path = self.namespace.core().dir.clone();
            return Err(Error::Io {
                doing: "storing a value",
                path,
                source,
            });
        }
        debug_assert!(
            self.large.is_none() || self.inline.is_empty(),
            "a value lies in one place"
        );
        debug_assert!(self.len <= VALUE_MAX, "longer ones were refused");
        debug_assert!(
            self.large.is_some() || self.inline.len() as u64 == self.len,
            "all that was written is there"
        );
        let pointer = self.large.map(LargeWriter::finish).transpose()?;
        self.namespace
            .op(&self.key, &self.inline, pointer, &self.options)
    }
}

/// A value being read: what is known of the entry at once, the value in verified pieces of at most
/// 64 KiB. Small values come in one piece.
pub struct ValueStream {
    pub(crate) body: Body,
    pub(crate) metadata: Bytes,
    pub(crate) expiration: u64,
    pub(crate) generation: u64,
    pub(crate) position: u64,
    pub(crate) cache_status: CacheStatus,
}

pub(crate) enum Body {
    Inline(Bytes),
    Large(Arc<Large>),
}

impl ValueStream {
    /// Length of the value in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Inline(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Body::Large(large) => large.len(),
        }
    }

    /// Whether the value has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

    /// Whether the hot cache had it.
    #[must_use]
    pub fn cache_status(&self) -> CacheStatus {
        self.cache_status
    }

    /// The whole value, wherever the stream stands.
    ///
    /// # Errors
    /// `Corrupt` if a piece does not match its checksum.
    pub fn read_all(&self) -> Result<Value> {
        self.range(0..self.len()).map(Value)
    }

    /// These bytes of the value, fewer if it ends before; only the chunks they lie in are verified.
    ///
    /// # Errors
    /// `Corrupt` if a chunk does not match its checksum.
    pub fn range(&self, range: Range<u64>) -> Result<Bytes> {
        match &self.body {
            Body::Inline(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                let (start, end) = (at(range.start), at(range.end));
                Ok(bytes.slice(start.min(end)..end))
            }
            Body::Large(large) => large.range(range.start, range.end),
        }
    }
}

impl Iterator for ValueStream {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.position >= self.len() {
            return None;
        }
        let start = self.position;
        let end = start.saturating_add(CHUNK as u64).min(self.len());
        debug_assert!(start < end);
        debug_assert!(end <= self.len());
        debug_assert!(end - start <= CHUNK as u64, "bounded memory");
        let piece = self.range(start..end);
        self.position = if piece.is_ok() { end } else { self.len() };
        Some(piece)
    }
}
