//! Locks, atomics, epochs and threads, in one place, so that tests can run every schedule of them.
//!
//! Everything that threads share goes through here, but for the clock and the files of the operating
//! system, under whose locks nothing else happens.

pub(crate) use parking_lot::{Condvar, Mutex, RwLock};

/// What readers and writers share without a lock.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}

/// Guards of readers, and what has to wait until those are gone who may still see what was replaced.
pub(crate) mod epoch {
    pub(crate) use crossbeam_epoch::{Atomic, Guard, Owned, pin};
}

/// The threads of an open store.
pub(crate) mod thread {
    pub(crate) use std::thread::{Builder, JoinHandle};
}
