//! Counts what a thread does to the memory that it shares with others: of each access that goes through
//! [`sync`](super) whether it may change what others read.

use std::cell::Cell;

/// What a thread did to shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Words that were read.
    pub loads: u64,
    /// Words that were written, or may have been.
    pub stores: u64,
    /// Locks that were taken, for reading or writing.
    pub locks: u64,
}

thread_local! {
    static COUNTED: Cell<Option<Census>> = const { Cell::new(None) };
}

/// What `f` does. No other thread may have anything to do meanwhile, or it is counted, too.
pub fn take(f: impl FnOnce()) -> Census {
    COUNTED.set(Some(Census::default()));
    f();
    COUNTED.take().unwrap_or_default()
}

pub(super) fn note_load() {
    note(|census| census.loads += 1);
}

pub(super) fn note_store() {
    note(|census| census.stores += 1);
}

pub(super) fn note_lock() {
    note(|census| census.locks += 1);
}

fn note(count: impl FnOnce(&mut Census)) {
    if let Some(mut census) = COUNTED.get() {
        count(&mut census);
        COUNTED.set(Some(census));
    }
}
