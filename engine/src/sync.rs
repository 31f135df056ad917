//! Locks, atomics, epochs and threads, in one place, so that tests can run every schedule of them.
//!
//! Everything that threads share goes through here, but for counts of references, cells that are set once, and
//! what belongs to the operating system: files, and the page that tells of a fork. With the feature `loom` or
//! `shuttle`, which only tests turn on, they are those of that explorer of schedules: `loom` knows what the
//! orderings of atomics permit, and takes the table, the list of segments and the commit queue; `shuttle` knows
//! one order of all accesses, and takes a whole store.

#[cfg(all(feature = "shuttle", not(feature = "loom")))]
#[path = "sync/words.rs"]
pub(crate) mod atomic;
#[cfg(all(feature = "shuttle", not(feature = "loom")))]
pub use atomic::alone;
#[cfg(all(feature = "shuttle", not(feature = "loom")))]
pub mod census;
#[cfg(any(feature = "loom", feature = "shuttle"))]
#[path = "sync/grace.rs"]
pub(crate) mod epoch;
#[cfg(any(feature = "loom", feature = "shuttle"))]
mod explored;

#[cfg(any(feature = "loom", feature = "shuttle"))]
pub(crate) use explored::{Condvar, Mutex, RwLock, random, thread};
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};

/// What readers and writers share without a lock.
#[cfg(any(feature = "loom", not(feature = "shuttle")))]
pub(crate) mod atomic {
    #[cfg(feature = "loom")]
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    #[cfg(not(feature = "loom"))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}

/// Guards of readers, and what has to wait until those are gone who may still see what was replaced.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) mod epoch {
    pub(crate) use crossbeam_epoch::{Atomic, Guard, Owned, pin};
}

/// The threads of an open store.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) mod thread {
    pub(crate) use std::thread::{Builder, JoinHandle};
}

/// The system's randomness, which a schedule that is to be repeated must not depend on.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) mod random {
    pub(crate) use getrandom::fill;
}
