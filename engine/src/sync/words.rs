//! Atomics for whole stores under `shuttle`. They are plain words, as in memory that is mapped, and before
//! each access another thread may come. All accesses have one order: what weaker orderings permit is for
//! `loom`.

use std::cell::Cell;
use std::sync::atomic as plain;

pub(crate) use plain::{Ordering, fence};

use super::census::{note_load, note_store};

thread_local! {
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Another thread may go on here.
pub(super) fn point() {
    if !IS_ALONE.get() {
        shuttle_engine::runtime::thread::switch();
    }
}

/// What `f` returns, which does so much that no other thread has a part in that none needs to go on at each
/// access.
pub fn alone<R>(f: impl FnOnce() -> R) -> R {
    IS_ALONE.set(true);
    let result = f();
    IS_ALONE.set(false);
    result
}

macro_rules! word {
    ($name:ident, $value:ty) => {
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub(crate) struct $name(plain::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> $name {
                $name(plain::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                point();
                note_load();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                point();
                note_store();
                self.0.store(value, order);
            }

            #[allow(dead_code, reason = "not of every type")]
            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                point();
                note_store();
                self.0.swap(value, order)
            }
        }

        impl From<$value> for $name {
            fn from(value: $value) -> $name {
                $name::new(value)
            }
        }
    };
}

macro_rules! changes {
    ($name:ident, $value:ty, $($change:ident),*) => {
        impl $name {
            $(pub(crate) fn $change(&self, value: $value, order: Ordering) -> $value {
                point();
                note_store();
                self.0.$change(value, order)
            })*
        }
    };
}

word!(AtomicBool, bool);
word!(AtomicU32, u32);
word!(AtomicU64, u64);
changes!(AtomicU64, u64, fetch_add, fetch_max, fetch_min, fetch_or);
