//! An embeddable, log-structured key-value store for read-heavy edge caching.
//!
//! Values up to 25 MiB with metadata and an expiration live in an append-only log; a table of
//! 64-byte buckets in memory finds each with one cache line and no lock. An acknowledged write
//! survives a power cut, and no byte is returned without its checksum.
//!
//! ```
//! use rimstone::{ListOptions, PutOptions, Store};
//! use std::time::Duration;
//!
//! # fn main() -> rimstone::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let store = Store::open(path)?;
//! let flags = store.namespace("flags")?;
//! flags.put("user:1", "on")?;
//! let hour = Duration::from_secs(3600);
//! flags.put_with("user:2", "off", &PutOptions::new().expiration_ttl(hour).metadata("{}"))?;
//! assert_eq!(flags.get("user:1")?.as_deref(), Some(&b"on"[..]));
//! let page = flags.list(&ListOptions::new().prefix("user:"))?;
//! assert_eq!(page.len(), 2);
//! store.close()
//! # }
//! ```
//!
//! Whole programs are in `examples/`: `hello` as above, `stream` for values that do not fit into memory,
//! `batch` for writes that happen together or not at all.

mod admission;
mod backup;
mod batch;
mod brake;
mod capacity;
mod clock;
mod compact;
mod core;
mod damage;
mod deletions;
mod entry;
mod error;
mod filters;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hashed;
mod hot;
mod index;
mod list;
mod log;
mod maintenance;
mod many;
mod mem;
#[cfg(all(test, feature = "loom"))]
mod models;
mod namespace;
mod namespaces;
mod opening;
mod options;
mod read;
mod reclaim;
mod records;
mod recovery;
mod repair;
mod reserve;
mod retire;
mod scrub;
mod space;
mod store;
mod stream;
#[cfg(not(feature = "shuttle"))]
mod sync;
#[cfg(feature = "shuttle")]
#[doc(hidden)]
pub mod sync;
mod verified;
mod vfs;
mod worker;
mod writer;

pub use batch::WriteBatch;
pub use clock::Clock;
pub use damage::{Damage, Loss};
pub use entry::{Entry, EntryRef, Value};
pub use error::{Error, Result};
pub use hot::{CacheStats, CacheStatus};
pub use list::{ListOptions, ListedKey, Page};
pub use namespace::Namespace;
pub use namespaces::NamespaceId;
pub use opening::Options;
pub use options::{Durability, PutOptions, ReadOptions, Verify};
pub use repair::{LostKey, Repaired};
pub use space::SegmentSpace;
pub use store::{Stats, Store};
pub use stream::{ValueStream, ValueWriter};
pub use vfs::{Map, OsVfs, Vfs, VfsFile, WritableMap};
