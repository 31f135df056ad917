//! Signals that mean an error of the disk.
//!
//! Reading a mapped file that somebody cut short, or whose device fails, is a SIGBUS. Nothing can go on
//! from there, but it can be said which file it was. The handler may interrupt anything, so it takes no
//! memory and no lock: it asks the system, and nobody else.
#![allow(
    unsafe_code,
    reason = "the standard library has no signal handlers, and tokio none for a fault"
)]

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{SA_SIGINFO, SIG_IGN, SIGBUS, SIGXFSZ, siginfo_t};
use rustix::fs::{Mode, OFlags};

/// The longest path and what comes before it in a line of `/proc/self/maps`.
const LINE_MAX: usize = 4096 + 128;

/// Whether a thread is ending the process.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Whether the next process should be told which file it was.
static TELLS_NEXT: AtomicBool = AtomicBool::new(false);

/// From now on a fault leaves a file beside the one that it was in, which tells the next process to read that
/// one into memory instead of mapping it: so a server that is started again does not end again.
pub(crate) fn tell_next() {
    TELLS_NEXT.store(true, Ordering::Relaxed);
}

/// From now on a fault in a mapped file ends the process with the name of the file and exit code 1, and a
/// file that would exceed the limit of sizes is an error of the write, as it is for any other limit.
pub(crate) fn watch() {
    // SAFETY: zeros are a valid `sigaction`: no flags, nothing blocked, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = end;
    action.sa_sigaction = handler as usize;
    // The signal is blocked in its handler, where another fault therefore ends the process at once.
    action.sa_flags = SA_SIGINFO;
    // SAFETY: the handler is of the kind that `SA_SIGINFO` asks for and only makes system calls.
    unsafe { libc::sigaction(SIGBUS, &raw const action, std::ptr::null_mut()) };
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(SIGXFSZ, SIG_IGN) };
}

extern "C" fn end(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the system passes a pointer that is valid until the handler returns.
    let address = unsafe { info.as_ref() }.map_or(0, |info| {
        // SAFETY: a SIGBUS carries an address.
        unsafe { info.si_addr() as usize }
    });
    if IS_ENDING.swap(true, Ordering::Relaxed) {
        // Several threads read what is gone, as a rule: one says so, and ends them all.
        loop {
            // SAFETY: it only waits, and may be called in a handler.
            unsafe { libc::pause() };
        }
    }
    let mut line = [0; LINE_MAX];
    let len = find_line(address, &mut line).unwrap_or(0);
    let line = line.get(..len).unwrap_or_default();
    let path = line.iter().position(|byte| *byte == b'/');
    let path = path.and_then(|at| line.get(at..));
    if TELLS_NEXT.load(Ordering::Relaxed)
        && let Some(path) = path
    {
        mark_unmappable(path);
    }
    say(b"rimstone: reading ");
    say(path.unwrap_or(b"memory that is no file"));
    say(b" failed: it was cut short, or its device failed; ");
    say(b"nothing was written since; start again for what is left\n");
    // SAFETY: ends the process at once, without running anything that it interrupted.
    unsafe { libc::_exit(1) }
}

/// Makes the file that keeps another from being mapped: of the same id, if it is a store's at all. Should it
/// fail, the next process faults where this one did.
fn mark_unmappable(path: &[u8]) -> Option<()> {
    const SUFFIX: &[u8] = b".pread\0";
    let name = path.iter().rposition(|byte| *byte == b'/')? + 1;
    let dot = name + path.get(name..)?.iter().position(|byte| *byte == b'.')?;
    let (id, kind) = (path.get(name..dot)?, path.get(dot + 1..)?);
    let is_id = id.len() == 16 && id.iter().all(u8::is_ascii_hexdigit);
    let is_kind = [&b"seg"[..], b"large", b"run", b"ckpt"].contains(&kind);
    let mut mark = [0; LINE_MAX];
    mark.get_mut(..dot)?.copy_from_slice(path.get(..dot)?);
    mark.get_mut(dot..dot + SUFFIX.len())?
        .copy_from_slice(SUFFIX);
    let mark = CStr::from_bytes_until_nul(&mark)
        .ok()
        .filter(|_| is_id && is_kind)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::open(mark, flags, Mode::RUSR | Mode::WUSR).ok()?;
    Some(())
}

fn say(text: &[u8]) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
}

/// The line of `/proc/self/maps` about an address: its length in `line`.
fn find_line(address: usize, line: &mut [u8; LINE_MAX]) -> Option<usize> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let maps = rustix::fs::open(c"/proc/self/maps", flags, Mode::empty()).ok()?;
    let (mut piece, mut len) = ([0; 1024], 0);
    loop {
        let read = rustix::io::read(&maps, &mut piece).ok()?;
        for byte in piece.get(..read).filter(|piece| !piece.is_empty())? {
            if *byte != b'\n' {
                *line.get_mut(len)? = *byte;
                len += 1;
            } else if covers(line.get(..len)?, address) {
                return Some(len);
            } else {
                len = 0;
            }
        }
    }
}

/// Whether a line is about the mapping with this address.
fn covers(line: &[u8], address: usize) -> bool {
    let range = line.split(|byte| *byte == b' ').next();
    let range = range.and_then(|range| std::str::from_utf8(range).ok()?.split_once('-'));
    let number = |text| usize::from_str_radix(text, 16).ok();
    let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
    range.is_some_and(|range| range.contains(&address))
}
