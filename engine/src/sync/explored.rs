//! The locks of an explorer of schedules, with the methods of those that they stand for.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

#[cfg(feature = "loom")]
use loom as explorer;
#[cfg(not(feature = "loom"))]
use shuttle as explorer;

use self::explorer::sync as inner;

pub(crate) use self::explorer::thread;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(inner::Mutex<T>);

/// What holds a mutex; empty while it waits for a condition.
pub(crate) struct MutexGuard<'l, T>(Option<inner::MutexGuard<'l, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(inner::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        note_lock();
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard(Some(held))
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.try_lock().is_none()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        note_lock();
        match self.0.try_lock() {
            Ok(held) => Some(MutexGuard(Some(held))),
            Err(TryLockError::Poisoned(held)) => Some(MutexGuard(Some(held.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("held, but while it waits")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect("held, but while it waits")
    }
}

#[derive(Default)]
pub(crate) struct Condvar(inner::Condvar);

/// Whether a wait ended since its time was over. In a schedule it never does.
pub(crate) struct Waited;

impl Waited {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(inner::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.0.take() {
            let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
            guard.0 = Some(held);
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _time: Duration) -> Waited {
        self.wait(guard);
        Waited
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(inner::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock(inner::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> inner::RwLockReadGuard<'_, T> {
        note_lock();
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> inner::RwLockWriteGuard<'_, T> {
        note_lock();
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note_lock() {
    #[cfg(not(feature = "loom"))]
    super::census::note_lock();
}

/// Numbers that follow from the schedule.
pub(crate) mod random {
    #[cfg(feature = "loom")]
    pub(crate) use getrandom::fill;

    #[cfg(not(feature = "loom"))]
    pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), std::convert::Infallible> {
        use shuttle::rand::Rng;
        let mut source = shuttle::rand::thread_rng();
        bytes.fill_with(|| source.r#gen());
        Ok(())
    }
}
