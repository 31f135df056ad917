//! A cache in memory for values that expire, that others overwrite, and that differ in size by orders
//! of magnitude.
//!
//! ```
//! use std::time::Duration;
//! use rimstone_cache::{Cache, Value};
//!
//! let cache = Cache::with_max_weight(64 << 20);
//! let minute = Duration::from_secs(60);
//! let fetch = || Ok::<_, std::io::Error>(Value::from("on").ttl(minute));
//! assert_eq!(cache.try_get_with("flag", None, fetch)?.value(), b"on");
//!
//! // In place, if no older than this reader accepts:
//! let len = cache.get_with("flag", Some(minute), |entry| entry.value().len());
//! assert_eq!(len, Some(2));
//!
//! // A writer changes the source first, then the cache, and then tells its own caller.
//! cache.invalidate("flag");
//! assert!(cache.get("flag", None).is_none());
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! # What sets it apart
//!
//! - **Fills cannot overtake writes.** A reader that misses takes a [`Ticket`] before it goes to the
//!   source. If the key is written or invalidated meanwhile, what the ticket brings is not stored. With
//!   [versions](Value::version), a source that lags behind cannot bring an old value back either.
//!   Until a write is told to the cache, and so before it is acknowledged, readers may still be given
//!   the old value, even one that has seen the new value at the source.
//!   A source in the same process can be asked while its key is locked, and then even that is impossible:
//!   [`Cache::insert_if`], [`Cache::invalidate_with`].
//! - **One fetch at a time for each key**, blocking or as a future on any runtime. A leader that fails,
//!   panics or is cancelled hands over to one of those who wait.
//! - **Freshness is the reader's.** Each read may bring its own `cache_ttl` and is given nothing older,
//!   whatever other readers accept. Stale entries can be served while one caller fetches anew, and hot
//!   ones fetched anew before they are stale: [`Lookup`].
//! - **One budget of bytes**, for all shards: a value of 25 MiB can be held whenever it is at most the
//!   share that one entry may have. What counts is memory, tables included: an entry takes its key,
//!   metadata and value and 144 bytes.
//! - **What leaves is worth least**: frequency times the cost of a miss, for each byte. Hits write
//!   nothing that other threads read, but for the lock of their shard, once an entry has been read
//!   three times since it was last looked at.
//!
//! Time is that of a [`Clock`], in whole seconds. The cache has no threads: writes evict and expire,
//! and [`Cache::maintain`] can be called to expire more.
//!
//! On Linux, memory that a cache of 16 MiB or more filled is made large pages where the system has them on
//! request; the write that finds 2 MiB filled takes about a millisecond for that, for which who reads there waits.
#![deny(unsafe_code)]

mod block;
mod builder;
mod cache;
mod clock;
mod cost;
mod entry;
mod fill;
mod floors;
mod freshness;
mod history;
mod index;
mod key;
mod leaving;
#[cfg(all(test, not(feature = "loom")))]
#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: an index out of range fails them"
)]
mod linear;
mod lookup;
#[cfg(all(test, feature = "loom"))]
mod models;
mod pages;
mod parts;
mod prefetch;
mod queues;
mod rates;
mod room;
#[cfg(all(test, not(feature = "loom")))]
mod schedules;
mod shard;
mod slots;
mod source;
mod stats;
mod sync;
mod value;
mod wheel;

pub use builder::Builder;
pub use cache::Cache;
pub use clock::Clock;
pub use cost::MissCost;
pub use entry::{Cause, Entry};
pub use fill::{Completed, Ticket, Waited, Waiter};
pub use key::Key;
pub use lookup::Lookup;
pub use stats::Stats;
pub use value::Value;
