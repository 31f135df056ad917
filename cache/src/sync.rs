//! The locks, in one place, so that the tests inside the crate can run every schedule of them: there
//! they are those of `shuttle`, as with the feature of that name. And what keys are hashed with, on which a
//! schedule that is to be repeated must not depend.

#[cfg(any(test, feature = "shuttle"))]
use std::sync::PoisonError;

#[cfg(any(test, feature = "shuttle"))]
pub(crate) use shuttle::sync::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(any(test, feature = "shuttle"))]
pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
}

#[cfg(not(any(test, feature = "shuttle")))]
pub(crate) use parking_lot::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(any(test, feature = "shuttle")))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
}

#[cfg(any(test, feature = "shuttle"))]
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);
#[cfg(not(any(test, feature = "shuttle")))]
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(parking_lot::RwLock<T>);

#[cfg(any(test, feature = "shuttle"))]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);
#[cfg(not(any(test, feature = "shuttle")))]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

#[cfg(not(any(test, feature = "shuttle")))]
impl<T> RwLock<T> {
    #[inline]
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write()
    }
}

#[cfg(not(any(test, feature = "shuttle")))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

#[cfg(not(any(test, feature = "shuttle")))]
pub(crate) type Secret = foldhash::quality::RandomState;
#[cfg(any(test, feature = "shuttle"))]
pub(crate) type Secret = foldhash::quality::FixedState;

/// A new secret, which nobody else knows.
#[cfg(not(any(test, feature = "shuttle")))]
pub(crate) fn secret() -> Secret {
    Secret::default()
}

/// A secret that follows from the schedule.
#[cfg(any(test, feature = "shuttle"))]
pub(crate) fn secret() -> Secret {
    use shuttle::rand::Rng;
    Secret::with_seed(shuttle::rand::thread_rng().r#gen())
}

/// Waits until the condition is told to have changed.
#[cfg(not(any(test, feature = "shuttle")))]
pub(crate) fn wait<'l, T>(changed: &Condvar, mut guard: MutexGuard<'l, T>) -> MutexGuard<'l, T> {
    changed.wait(&mut guard);
    guard
}

#[cfg(any(test, feature = "shuttle"))]
impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "shuttle"))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "shuttle"))]
pub(crate) fn wait<'l, T>(changed: &Condvar, guard: MutexGuard<'l, T>) -> MutexGuard<'l, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
