//! A model of epochs: what is deferred happens as soon as every guard is gone that was held then, the
//! deferring thread's included. `crossbeam-epoch` may take longer, and never less.
//!
//! All threads of a schedule are one thread of the system, so the state is that thread's.
#![allow(
    unsafe_code,
    reason = "stands for crossbeam-epoch, with the same unsafe functions; tests alone use it"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::marker::PhantomData;

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicPtr, Ordering, fence};
#[cfg(not(feature = "loom"))]
use shuttle::sync::atomic::{AtomicPtr, Ordering, fence};

#[derive(Default)]
struct State {
    next: u64,
    /// The numbers of the guards that are held, in order.
    held: Vec<u64>,
    /// What waits until all guards below a number are gone.
    deferred: VecDeque<(u64, Box<dyn FnOnce()>)>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Keeps what its holder may see from being freed.
pub(crate) struct Guard(u64);

pub(crate) fn pin() -> Guard {
    point();
    let number = STATE.with_borrow_mut(|state| {
        let number = state.next;
        state.next += 1;
        state.held.push(number);
        number
    });
    // As in the original: who frees sees this guard, or the holder sees what was replaced.
    fence(Ordering::SeqCst);
    Guard(number)
}

impl Guard {
    /// Calls `f` once nobody can see any more what the caller took away before.
    pub(crate) fn defer<F: FnOnce() -> R + Send + 'static, R>(&self, f: F) {
        fence(Ordering::SeqCst);
        STATE.with_borrow_mut(|state| {
            let f = Box::new(move || drop(f()));
            state.deferred.push_back((state.next, f));
        });
    }

    /// # Safety
    /// Nobody who pins from now on can find the value, and it is deferred once.
    pub(crate) unsafe fn defer_destroy<T: 'static>(&self, shared: Shared<'_, T>) {
        struct Sent<T>(*mut T);
        // SAFETY: all threads of a schedule are one thread.
        unsafe impl<T> Send for Sent<T> {}
        let sent = Sent(shared.0);
        self.defer(move || {
            let sent = sent;
            // SAFETY: it came from a box, and nobody can reach it any more.
            drop(unsafe { Box::from_raw(sent.0) });
        });
    }

    #[allow(clippy::unused_self, reason = "stands for another's method")]
    pub(crate) fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        point();
        fence(Ordering::SeqCst);
        STATE.with_borrow_mut(|state| state.held.retain(|number| *number != self.0));
        while let Some(f) = STATE.with_borrow_mut(State::take) {
            f();
        }
    }
}

impl State {
    /// Something whose guards are all gone.
    fn take(&mut self) -> Option<Box<dyn FnOnce()>> {
        let oldest = self.held.first().copied().unwrap_or(self.next);
        let is_due = self
            .deferred
            .front()
            .is_some_and(|(below, _)| *below <= oldest);
        is_due.then(|| self.deferred.pop_front())?.map(|(_, f)| f)
    }
}

/// Another thread may go on here. `loom` has points of its own at all accesses, and more would be too many
/// schedules.
fn point() {
    #[cfg(not(feature = "loom"))]
    if !std::thread::panicking() {
        super::atomic::point();
    }
}

/// A pointer to a value that can be replaced.
pub(crate) struct Atomic<T>(AtomicPtr<T>);

/// A value for it.
pub(crate) struct Owned<T>(Box<T>);

/// What was loaded from it.
pub(crate) struct Shared<'g, T>(*mut T, PhantomData<&'g T>);

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Owned<T> {
        Owned(Box::new(value))
    }
}

impl<T> Atomic<T> {
    pub(crate) fn new(value: T) -> Atomic<T> {
        Atomic(AtomicPtr::new(Box::into_raw(Box::new(value))))
    }

    pub(crate) fn null() -> Atomic<T> {
        Atomic(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(crate) fn load<'g>(&self, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
        #[cfg(not(feature = "loom"))]
        super::census::note_load();
        Shared(self.0.load(order), PhantomData)
    }

    pub(crate) fn swap<'g>(&self, new: Owned<T>, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
        #[cfg(not(feature = "loom"))]
        super::census::note_store();
        Shared(self.0.swap(Box::into_raw(new.0), order), PhantomData)
    }

    /// # Safety
    /// Nobody else can reach the value.
    pub(crate) unsafe fn try_into_owned(mut self) -> Option<Owned<T>> {
        #[cfg(feature = "loom")]
        let value = self.0.with_mut(|value| *value);
        #[cfg(not(feature = "loom"))]
        let value = *self.0.get_mut();
        // SAFETY: it came from a box, and is the caller's alone.
        (!value.is_null()).then(|| Owned(unsafe { Box::from_raw(value) }))
    }
}

impl<'g, T> Shared<'g, T> {
    /// # Safety
    /// It is not null, and was not freed.
    pub(crate) unsafe fn deref(&self) -> &'g T {
        // SAFETY: the caller's word.
        unsafe { &*self.0 }
    }
}
