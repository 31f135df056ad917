//! Bytes that an entry takes, by an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::subjects::{SUBJECTS, VALUE, key};

/// The system's allocator, which knows how much is asked for.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Counting = Counting;

/// Between powers of two, where no table has just grown, and one that has.
const ENTRIES: [usize; 4] = [150_000, 200_000, 250_000, 300_000];

pub fn run() {
    println!("\nBytes for each entry beside the value's {VALUE}, key and handle included:\n");
    println!(
        "| cache | {} | mean |",
        ENTRIES.map(|n| format!("{n} entries")).join(" | ")
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, make) in SUBJECTS {
        let bytes = ENTRIES.map(|entries| {
            let before = TAKEN.load(Relaxed);
            // Room to spare: nothing is evicted.
            let subject = make(entries * 2);
            for id in 0..entries as u64 {
                subject.insert(&key(id), &[7; VALUE]);
                // Some allocate only once a value is handed out.
                subject.read(&key(id));
            }
            (TAKEN.load(Relaxed) - before) as f64 / entries as f64 - VALUE as f64
        });
        let mean = bytes.iter().sum::<f64>() / bytes.len() as f64;
        let cells = bytes.map(|bytes| format!("{bytes:.0}")).join(" | ");
        println!("| {name} | {cells} | {mean:.0} |");
    }
}
