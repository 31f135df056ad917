//! Has memory brought near before it is needed.
#![allow(unsafe_code, reason = "a hint to the processor, which reads nothing")]

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use crate::index::spread;

/// Begins to load the line of memory where `value` begins, if there is any. Does nothing but take its
/// time off what reads it next.
#[inline]
pub(crate) fn prefetch<T>(value: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it neither faults nor changes anything, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(value.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

/// Where a table's lines lie, for those who have not locked it yet. It may be a moment old, or of two
/// tables: it leads to memory that is only ever brought near, never read.
#[derive(Debug)]
pub(crate) struct Whereabouts<T> {
    lines: AtomicPtr<T>,
    len: AtomicUsize,
}

impl<T> Default for Whereabouts<T> {
    fn default() -> Whereabouts<T> {
        Whereabouts {
            lines: AtomicPtr::default(),
            len: AtomicUsize::new(0),
        }
    }
}

impl<T> Whereabouts<T> {
    /// Tells where the table is now.
    pub(crate) fn tell(&self, lines: *const [T]) {
        if self.lines.load(Relaxed).cast_const() != lines.cast() {
            self.lines.store(lines.cast_mut().cast(), Relaxed);
            self.len.store(lines.len(), Relaxed);
        }
    }

    /// Has the line of a hash brought near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(self.line(hash));
    }

    /// Has the line behind that of a hash brought near.
    pub(crate) fn prefetch_next(&self, hash: u32) {
        prefetch(self.line(hash).wrapping_add(1));
    }

    pub(crate) fn line(&self, hash: u32) -> *const T {
        let at = spread(hash, self.len.load(Relaxed));
        self.lines.load(Relaxed).wrapping_add(at)
    }
}
