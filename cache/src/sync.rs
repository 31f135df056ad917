//! The locks, and the atomics that matter to what they guard, in one place, so that tests can run every schedule
//! of them: in those inside the crate they are those of `shuttle`, as with the feature of that name, and with the
//! feature `loom`, for `models.rs`, those of `loom`. And what keys are hashed with, on which a schedule that is to
//! be repeated must not depend.

#[cfg(any(test, feature = "shuttle", feature = "loom"))]
use std::sync::PoisonError;

#[cfg(feature = "loom")]
use loom::sync as inner;
#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
use parking_lot as inner;
#[cfg(all(any(test, feature = "shuttle"), not(feature = "loom")))]
use shuttle::sync as inner;

pub(crate) use inner::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "loom")]
pub(crate) use loom::sync::Arc;
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::Arc;

pub(crate) mod atomic {
    #[cfg(feature = "loom")]
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, fence};
    #[cfg(all(any(test, feature = "shuttle"), not(feature = "loom")))]
    pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
    // What has one order of all accesses anyhow learns nothing from those of an entry.
    #[cfg(not(feature = "loom"))]
    pub(crate) use std::sync::atomic::{AtomicU32, fence};
    #[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(inner::RwLock<T>);

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(inner::Mutex<T>);

/// Memory that `loom` does not see, and is told of here: it is read before it ends, and never after.
#[cfg(feature = "loom")]
#[derive(Default)]
pub(crate) struct Memory(loom::cell::UnsafeCell<()>);
#[cfg(not(feature = "loom"))]
#[derive(Default)]
pub(crate) struct Memory(());

impl Memory {
    #[inline]
    pub(crate) fn read(&self) {
        #[cfg(feature = "loom")]
        self.0.with(|_| ());
    }

    pub(crate) fn end(&self) {
        #[cfg(feature = "loom")]
        self.0.with_mut(|_| ());
    }
}

#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
impl<T> RwLock<T> {
    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write()
    }
}

#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(inner::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
pub(crate) type Secret = foldhash::quality::RandomState;
#[cfg(any(test, feature = "shuttle", feature = "loom"))]
pub(crate) type Secret = foldhash::quality::FixedState;

/// A new secret, which nobody else knows.
#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
pub(crate) fn secret() -> Secret {
    Secret::default()
}

/// A secret that follows from the schedule.
#[cfg(all(any(test, feature = "shuttle"), not(feature = "loom")))]
pub(crate) fn secret() -> Secret {
    use shuttle::rand::Rng;
    Secret::with_seed(shuttle::rand::thread_rng().r#gen())
}

/// A secret that is the same in every schedule.
#[cfg(feature = "loom")]
pub(crate) fn secret() -> Secret {
    Secret::with_seed(1)
}

/// Waits until the condition is told to have changed.
#[cfg(not(any(test, feature = "shuttle", feature = "loom")))]
pub(crate) fn wait<'l, T>(changed: &Condvar, mut guard: MutexGuard<'l, T>) -> MutexGuard<'l, T> {
    changed.wait(&mut guard);
    guard
}

#[cfg(any(test, feature = "shuttle", feature = "loom"))]
impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "shuttle", feature = "loom"))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(inner::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "shuttle", feature = "loom"))]
pub(crate) fn wait<'l, T>(changed: &Condvar, guard: MutexGuard<'l, T>) -> MutexGuard<'l, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
