//! An embeddable, log-structured key-value store for read-heavy edge caching.
#![allow(missing_docs, dead_code, unused, reason = "API sketch, replaced by the store")]
mod entry;
mod error;
mod list;
mod options;
pub use entry::{Entry, EntryRef, Value};
pub use error::{Error, Result};
pub use list::{ListOptions, ListedKey, Page};
pub use options::{Durability, PutOptions};
use bytes::Bytes;
use std::path::Path;

/// `Display`/`FromStr` as 32 lower-case hex digits; random at creation, stable for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub [u8; 16]);
impl std::fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { for b in self.0 { write!(f, "{b:02x}")?; } Ok(()) }
}
impl std::str::FromStr for NamespaceId { type Err = Error; fn from_str(_: &str) -> Result<Self> { unimplemented!() } }

#[derive(Clone)]
pub struct Options {}
impl Options {
    pub fn new() -> Options { Options {} }
    pub fn durability(self, _: Durability) -> Options { self }
    pub fn clock(self, _: Clock) -> Options { self }
    /// open an existing store only; `Error::Io(NotFound)` if there is none
    pub fn create(self, _: bool) -> Options { self }
    pub fn open(self, _: impl AsRef<Path>) -> Result<Store> { unimplemented!() }
}
#[derive(Clone)]
pub struct Clock {}
impl Clock {
    pub fn system() -> Clock { Clock {} }
    pub fn manual(_seconds: u64) -> Clock { Clock {} }
    pub fn advance(&self, _seconds: u64) {}
    /// whole seconds since the epoch, never going back
    pub fn now(&self) -> u64 { 0 }
}
#[derive(Clone)]
pub struct Store {}
impl Store {
    pub fn open(_: impl AsRef<Path>) -> Result<Store> { unimplemented!() }
    /// find by name or create
    pub fn namespace(&self, _name: &str) -> Result<Namespace> { unimplemented!() }
    /// create; `Error::NamespaceExists` if the name is taken; names are 1..=2048 bytes
    pub fn create_namespace(&self, _name: &str) -> Result<Namespace> { unimplemented!() }
    pub fn find_namespace(&self, _name: &str) -> Option<Namespace> { unimplemented!() }
    pub fn namespace_by_id(&self, _id: NamespaceId) -> Option<Namespace> { unimplemented!() }
    /// in creation order
    pub fn namespaces(&self) -> Vec<Namespace> { unimplemented!() }
    pub fn rename_namespace(&self, _id: NamespaceId, _name: &str) -> Result<()> { unimplemented!() }
    pub fn drop_namespace(&self, _id: NamespaceId) -> Result<()> { unimplemented!() }
    pub fn write(&self, _batch: WriteBatch) -> Result<()> { unimplemented!() }
    pub fn sync(&self) -> Result<()> { unimplemented!() }
    pub fn compact(&self) -> Result<()> { unimplemented!() }
    pub fn close(self) -> Result<()> { unimplemented!() }
    pub fn stats(&self) -> Stats { unimplemented!() }
    pub fn clock(&self) -> &Clock { unimplemented!() }
}
/// plain public numbers
#[derive(Clone, Debug)]
pub struct Stats { pub keys: u64, pub namespaces: u64, pub segments: u64, pub disk_bytes: u64, pub live_bytes: u64, pub index_bytes: u64, pub last_seqno: u64, pub durable_seqno: u64, pub poisoned: bool, pub damage: Vec<String> }
pub struct WriteBatch {}
impl WriteBatch {
    pub fn new() -> WriteBatch { WriteBatch {} }
    pub fn put(&mut self, _ns: &Namespace, _key: impl AsRef<[u8]>, _value: impl AsRef<[u8]>) -> &mut Self { self }
    pub fn put_with(&mut self, _ns: &Namespace, _key: impl AsRef<[u8]>, _value: impl AsRef<[u8]>, _o: &PutOptions) -> &mut Self { self }
    pub fn delete(&mut self, _ns: &Namespace, _key: impl AsRef<[u8]>) -> &mut Self { self }
    pub fn durability(&mut self, _: Durability) -> &mut Self { self }
    pub fn len(&self) -> usize { 0 }
}
#[derive(Clone)]
pub struct Namespace {}
impl Namespace {
    pub fn id(&self) -> NamespaceId { unimplemented!() }
    pub fn name(&self) -> String { unimplemented!() }
    /// returns the generation; every call on a dropped namespace is `Error::NoSuchNamespace`
    pub fn put(&self, _k: impl AsRef<[u8]>, _v: impl AsRef<[u8]>) -> Result<u64> { unimplemented!() }
    pub fn put_with(&self, _k: impl AsRef<[u8]>, _v: impl AsRef<[u8]>, _o: &PutOptions) -> Result<u64> { unimplemented!() }
    /// streams a value in with bounded memory; dropped without `finish` nothing is stored
    pub fn writer(&self, _k: impl AsRef<[u8]>, _o: &PutOptions) -> Result<ValueWriter> { unimplemented!() }
    pub fn get(&self, _k: impl AsRef<[u8]>) -> Result<Option<Value>> { unimplemented!() }
    pub fn get_with_metadata(&self, _k: impl AsRef<[u8]>) -> Result<Option<Entry>> { unimplemented!() }
    pub fn read<R>(&self, _k: impl AsRef<[u8]>, _f: impl FnOnce(EntryRef<'_>) -> R) -> Result<Option<R>> { unimplemented!() }
    pub fn get_many<K: AsRef<[u8]>>(&self, _keys: &[K]) -> Result<Vec<Option<Entry>>> { unimplemented!() }
    /// metadata at once, the value chunk by chunk, each verified as it is handed out
    pub fn stream(&self, _k: impl AsRef<[u8]>) -> Result<Option<ValueStream>> { unimplemented!() }
    /// `stream` without waiting for the disk: `Ok(None)` if a page it needs is not in memory (call `stream` from a thread that may block)
    pub fn try_stream(&self, _k: impl AsRef<[u8]>) -> Result<Option<Option<ValueStream>>> { unimplemented!() }
    /// whether the key existed
    pub fn delete(&self, _k: impl AsRef<[u8]>) -> Result<bool> { unimplemented!() }
    pub fn list(&self, _o: &ListOptions) -> Result<Page> { unimplemented!() }
}
pub struct ValueWriter {}
impl ValueWriter {
    pub fn write(&mut self, _b: &[u8]) -> Result<()> { unimplemented!() }
    pub fn finish(self) -> Result<u64> { unimplemented!() }
}
pub struct ValueStream {}
impl ValueStream {
    pub fn len(&self) -> u64 { 0 }
    pub fn metadata(&self) -> &[u8] { unimplemented!() }
    pub fn expiration(&self) -> Option<u64> { None }
    pub fn generation(&self) -> u64 { 0 }
    /// the whole value
    pub fn read_all(&mut self) -> Result<Value> { unimplemented!() }
    /// these bytes, verifying only the chunks they lie in
    pub fn range(&self, _r: std::ops::Range<u64>) -> Result<Bytes> { unimplemented!() }
}
/// verified pieces of at most 64 KiB, zero-copy for large values; one piece for small ones
impl Iterator for ValueStream { type Item = Result<Bytes>; fn next(&mut self) -> Option<Result<Bytes>> { None } }
