//! A fork of the process that has the store open, and file systems whose locks do not work.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rimstone::{
    Error, ListOptions, Namespace, Options, PutOptions, Result, Store, ValueWriter, WriteBatch,
};
use rimstone_tests::say;
use tempfile::tempdir;

use super::{DIR, can_run, command, command_of, has, run};

const PARENT: &str = "process::fork::the_parent";
const LARGE: usize = 200_000;
/// How many children are forked while another thread writes.
const FORKS: usize = 30;

/// Runs `child` in a fork of this process, and returns the code that it ended with. A child that waits for ever
/// is ended by a signal.
#[allow(unsafe_code, reason = "the standard library cannot fork")]
fn in_a_fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls into the store, which says what may be called there, and into the C library,
    // whose memory allocator may be used after a fork; it never returns from here.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sets a timer whose signal ends the process.
            unsafe { libc::alarm(20) };
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: ends the process without running anything that belongs to the parent.
            unsafe { libc::_exit(code.unwrap_or(255)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for a child of our own and writes its status to a place of our own.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            assert!(libc::WIFEXITED(status), "the child hung or died: {status}");
            libc::WEXITSTATUS(status)
        }
    }
}

fn is_refused<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Forked))
}

/// What a child is refused, by name.
fn refusals(store: &Store, n: &Namespace, dir: &Path) -> Vec<(&'static str, bool)> {
    let mut batch = WriteBatch::new();
    batch.put(n, "k", "child");
    let mut large = WriteBatch::new();
    large.put(n, "k", vec![0; LARGE]);
    vec![
        ("put", is_refused(&n.put("k", "child"))),
        (
            "put of a large value",
            is_refused(&n.put("k", vec![0; LARGE])),
        ),
        ("delete", is_refused(&n.delete("k"))),
        ("delete a missing key", is_refused(&n.delete("missing"))),
        ("delete a prefix", is_refused(&n.delete_prefix("k"))),
        ("delete everything", is_refused(&n.delete_prefix(""))),
        ("batch", is_refused(&store.write(batch))),
        ("batch of large values", is_refused(&store.write(large))),
        ("create", is_refused(&store.create_namespace("m"))),
        ("rename", is_refused(&store.rename_namespace(n.id(), "m"))),
        ("drop", is_refused(&store.drop_namespace(n.id()))),
        ("sync", is_refused(&store.sync())),
        ("checkpoint", is_refused(&store.checkpoint())),
        ("compact", is_refused(&store.compact())),
        ("scrub", is_refused(&store.scrub(|_, _| {}))),
        ("backup", is_refused(&store.backup(dir.join("backup")))),
        ("list", is_refused(&n.list(&ListOptions::new()))),
        ("get of a large value", is_refused(&n.get("large"))),
    ]
}

/// What a process has of a store.
struct Held {
    store: Store,
    n: Namespace,
    begun: ValueWriter,
}

/// All that a child tries with what its parent has, until it lets go of it, and then with a store of its own.
fn child(held: Held, beside: &Path) -> i32 {
    let Held {
        store,
        n,
        mut begun,
    } = held;
    for (what, is_refused) in refusals(&store, &n, beside) {
        if !is_refused {
            say(&format!("not refused: {what}"));
            return 1;
        }
    }
    let value = n.get("k");
    if !value.is_ok_and(|value| value.is_some_and(|value| *value == *b"parent")) {
        return 2;
    }
    if !is_refused(&begun.write(&[7; LARGE])) || !is_refused(&begun.finish()) {
        return 3;
    }
    drop(n);
    if !is_refused(&store.close()) {
        return 4;
    }
    let own = Store::open(beside.join("own")).and_then(|own| {
        own.namespace("n")?.put("k", "own")?;
        own.close()
    });
    if own.is_err() { 5 } else { 0 }
}

/// Not a test of its own: the process that forks.
#[test]
fn the_parent() {
    let Ok(beside) = std::env::var(DIR) else {
        return;
    };
    let (dir, beside) = (Path::new(&beside).join("d"), Path::new(&beside));
    let store = Options::new().cache(1 << 20).open(&dir).unwrap();
    let n = store.namespace("n").unwrap();
    n.put("k", "parent").unwrap();
    n.put("large", vec![1; LARGE]).unwrap();
    let mut begun = n.writer("begun", &PutOptions::new()).unwrap();
    begun.write(&[3; LARGE]).unwrap();
    let before = names(&dir);
    let mut held = Some(Held { store, n, begun });
    let code = in_a_fork(|| held.take().map_or(6, |held| child(held, beside)));
    assert_eq!(code, 0);
    assert_eq!(names(&dir), before, "the child made and removed nothing");
    let again = Store::open(&dir);
    assert!(matches!(again, Err(Error::Locked { .. })), "still locked");
    let Held {
        store,
        n,
        mut begun,
    } = held.unwrap();
    begun.write(&[4; LARGE]).unwrap();
    begun.finish().unwrap();
    n.put("k", "parent again").unwrap();
    fork_while_busy(&n);
    drop(n);
    store.close().unwrap();
}

/// Forks at moments when another thread is in the middle of a write, and holds what it takes for one.
fn fork_while_busy(n: &Namespace) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let key = format!("busy {}", number % 100);
                n.put(key, number.to_le_bytes()).unwrap();
                number += 1;
            }
            number
        });
        for _ in 0..FORKS {
            let code = in_a_fork(|| i32::from(!is_refused(&n.put("k", "child"))));
            assert_eq!(code, 0);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 0);
    });
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_forked_child_is_refused_and_changes_nothing() {
    let beside = tempdir().unwrap();
    let mut parent = command_of(PARENT, &[]);
    parent.env(DIR, beside.path());
    let ran = parent.output().unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let store = Store::open(beside.path().join("d")).unwrap();
    assert!(store.stats().damage.is_empty());
    let n = store.find_namespace("n").unwrap();
    assert_eq!(*n.get("k").unwrap().unwrap(), *b"parent again");
    let begun = [[3; LARGE], [4; LARGE]].concat();
    assert_eq!(*n.get("begun").unwrap().unwrap(), begun);
    assert_eq!(*n.get("large").unwrap().unwrap(), [1; LARGE]);
    assert!(store.find_namespace("m").is_none());
}

/// What a store says on a file system that answers like this.
fn refusal_where(call: &str, answers: &str) -> String {
    let dir = tempdir().unwrap();
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{answers}"));
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let ran = run(command(&strace), dir.path(), 0..3, |_| {});
    assert_eq!((ran.acknowledged, ran.closed), (0, false), "{ran:?}");
    ran.failed.unwrap()
}

#[test]
fn a_file_system_without_working_locks_is_refused() {
    if !has("strace", can_run("strace")) {
        return;
    }
    for answers in ["error=ENOLCK", "error=ENOSYS", "retval=0"] {
        let refusal = refusal_where("flock", answers);
        assert!(refusal.contains("with working locks"), "{refusal}");
    }
    // `f_type` of NFS.
    let refusal = refusal_where("statfs", "poke_exit=@arg2=6969000000000000");
    assert!(refusal.contains("this one is NFS"), "{refusal}");
}
