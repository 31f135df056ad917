//! What a block is made of.

use bytes::Bytes;

use crate::Key;
use crate::clock::Seconds;

/// A value, as a block takes it.
#[derive(Clone, Debug)]
pub(crate) enum Body<'v> {
    /// Bytes to be copied into the block.
    Copied(&'v [u8]),
    /// Bytes that are somebody's already.
    Shared(Bytes),
    /// There is no such key.
    Absent,
}

/// What a block is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'v> {
    pub(crate) key: Key<'v>,
    pub(crate) metadata: &'v [u8],
    pub(crate) body: Body<'v>,
    /// 0 for none.
    pub(crate) version: u64,
    pub(crate) expiration: Seconds,
    pub(crate) fetched: Seconds,
    /// For readers without a limit of their own.
    pub(crate) fresh_until: Seconds,
    /// Until when some reader may want it.
    pub(crate) kept_until: Seconds,
    /// The generation of the namespace it belongs to.
    pub(crate) generation: u32,
    /// The half of the key's hash that a shard uses.
    pub(crate) hash: u32,
}
