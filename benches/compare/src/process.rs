//! What the system knows of this process and its threads.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time in which this thread ran, its page faults included. Unlike wall time it does not count the
/// moments in which another process had the core.
pub fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.try_into().expect("a time after zero")
}

/// Time in which any thread of this process ran.
pub fn process_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.try_into().expect("a time after zero")
}

/// Bytes of memory that no file backs, after the allocator gave back what it could.
pub fn anonymous_bytes() -> u64 {
    trim();
    number("/proc/self/status", "RssAnon:") * 1024
}

/// Bytes that this process made dirty in files, whether or not they are on the disk yet.
pub fn written_bytes() -> u64 {
    number("/proc/self/io", "write_bytes:")
}

/// Bytes that were read from the disk for this process.
pub fn read_bytes() -> u64 {
    number("/proc/self/io", "read_bytes:")
}

/// The number after a label at the beginning of a line.
fn number(path: &str, label: &str) -> u64 {
    let text = fs::read_to_string(path).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).expect("a number")
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "a declaration of a C function")]
fn trim() {
    // SAFETY: the signature is that of the GNU C library, which may be called at any time.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Ends this process as `kill -9` does.
pub fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    unreachable!("killed")
}
