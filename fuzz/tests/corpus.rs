//! Every saved input: no panic, at most 16 MiB of heap beside its own length and the files that it changes, under
//! a second.
#![allow(
    clippy::disallowed_methods,
    reason = "the inputs are ordinary files, the clock is the processor's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rimstone_fuzz::seeds;
use rimstone_tests::Dice;
use rustix::time::{ClockId, clock_gettime};

const MEMORY_MAX: usize = 16 << 20;
const TIME_MAX: Duration = Duration::from_secs(1);

/// The system's allocator, which knows how much is taken and how much was at most.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(taken + layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static MEMORY: Counting = Counting;

/// One target at a time, as memory and time are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn replay(name: &str, target: fn(&[u8])) {
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let dir = seeds::corpus(name);
    let entries = std::fs::read_dir(&dir).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no input in {}", dir.display());
    // What is made once is not the input's.
    target(&[]);
    let inputs = paths
        .iter()
        .map(|path| std::fs::read(path).expect("an input"));
    let inputs: Vec<_> = inputs.collect();
    let files = files(name);
    for (path, data) in paths.iter().zip(&inputs) {
        check(target, data, files, &path.display().to_string());
    }
    let Some(seconds) = std::env::var_os("RIMSTONE_FUZZ_SECONDS") else {
        return;
    };
    let seconds = seconds.to_string_lossy().parse().expect("seconds");
    let (started, mut seed) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        seed += 1;
        let data = mutated(&inputs, &mut Dice::new(seed));
        // What is running when it fails is what failed.
        std::fs::write(std::env::temp_dir().join(format!("rimstone-{name}")), &data)
            .expect("a file");
        check(target, &data, files, &format!("number {seed}"));
    }
    println!("{name}: {seed} inputs");
}

/// Bytes of the files that a target's inputs are changes to: of the larger of the two fixtures.
fn files(target: &str) -> usize {
    if target != "dir_open" {
        return 0;
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/full");
    let files = std::fs::read_dir(dir).expect("the fixture");
    let lens = files.map(|file| file.and_then(|file| file.metadata()).expect("a file").len());
    usize::try_from(lens.sum::<u64>()).expect("it fits")
}

fn check(target: fn(&[u8]), data: &[u8], files: usize, name: &str) {
    let (before, started) = (TAKEN.load(Ordering::Relaxed), now());
    PEAK.store(before, Ordering::Relaxed);
    target(data);
    let time = now() - started;
    let memory = PEAK.load(Ordering::Relaxed) - before;
    assert!(time < TIME_MAX, "{name} took {time:?}");
    assert!(
        memory < MEMORY_MAX + files + data.len(),
        "{name} took {memory} bytes"
    );
}

/// One input, or the beginning of one and the end of another, with a few bytes changed.
fn mutated(inputs: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = inputs[dice.below(inputs.len())].clone();
    if dice.coin() {
        let other = &inputs[dice.below(inputs.len())];
        data.truncate(dice.below(data.len() + 1));
        data.extend_from_slice(&other[dice.below(other.len() + 1)..]);
    }
    for _ in 0..dice.below(8) {
        let at = dice.below(data.len() + 1);
        let byte = dice.roll().to_le_bytes()[0];
        match (dice.below(4), data.get_mut(at)) {
            (0, Some(_)) => drop(data.remove(at)),
            (1, Some(old)) => *old ^= 1 << (byte & 7),
            (2, Some(old)) => *old = byte,
            _ => data.insert(at, byte),
        }
    }
    data
}

/// Time the processor spent, so that others on the machine do not count.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

macro_rules! targets {
    ($(#[test] fn $target:ident();)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), rimstone_fuzz::$target);
            }
        )*
    };
}

// Spelt as tests are, so that whoever looks for one finds it.
targets! {
    #[test]
    fn record();
    #[test]
    fn segment_header();
    #[test]
    fn segment_open();
    #[test]
    fn checkpoint();
    #[test]
    fn checkpoint_open();
    #[test]
    fn current();
    #[test]
    fn run_open();
    #[test]
    fn cursor();
    #[test]
    fn dir_open();
    #[test]
    fn ops();
    #[test]
    fn faults();
    #[test]
    fn http_bytes();
    #[test]
    fn kv_requests();
    #[test]
    fn multipart();
    #[test]
    fn bulk_json();
    #[test]
    fn query();
    #[test]
    fn cache();
}

#[test]
fn inputs_with_names_are_what_the_command_writes() {
    for (target, name, bytes) in seeds::all() {
        let saved = std::fs::read(seeds::corpus(target).join(name));
        assert_eq!(saved.ok(), Some(bytes), "{target}/{name}");
    }
}
