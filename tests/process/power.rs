//! The power goes on a real ext4 and a real XFS: their shutdown call stops all writing at once, and forgets
//! what was not on the disk yet.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rimstone_tests::{Dice, cases, say};
use rustix::ioctl::{Setter, ioctl, opcode};
use tempfile::TempDir;

use super::{Ran, check, command, has, run};

const ACTS: usize = 40;

/// A file system in a file, mounted as long as it lives.
pub(super) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// One that this program makes, `None` without the rights or the program.
    pub(super) fn new(mkfs: &str) -> Option<Disk> {
        // In memory, if there is such a place: what counts is what the file system wrote.
        let shared = Path::new("/dev/shm");
        let directory = if shared.is_dir() {
            tempfile::tempdir_in(shared)
        } else {
            tempfile::tempdir()
        };
        let disk = Disk {
            directory: directory.unwrap(),
        };
        let image = File::create(disk.image()).unwrap();
        // The least that mkfs.xfs takes; what nobody writes to takes no space.
        image.set_len(300 << 20).unwrap();
        std::fs::create_dir(disk.mounted()).unwrap();
        let made = succeeds(mkfs, &["-q".as_ref(), disk.image().as_ref()]);
        (made && disk.mount()).then_some(disk)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub(super) fn mounted(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn mount(&self) -> bool {
        let (image, mounted) = (self.image(), self.mounted());
        succeeds(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_ref(),
                mounted.as_ref(),
            ],
        )
    }

    fn unmount(&self) -> bool {
        succeeds("umount", &[self.mounted().as_ref()])
    }

    /// Nothing reaches the disk from now on; what it holds already is all there is.
    pub(super) fn cut(&self) {
        let root = File::open(self.mounted()).unwrap();
        shut_down(&root).unwrap();
    }

    /// Whoever used the disk is gone: the power comes back.
    pub(super) fn come_back(&self) {
        assert!(patiently(|| self.unmount()), "the disk is let go");
        assert!(patiently(|| self.mount()), "the disk comes back");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// `EXT4_IOC_SHUTDOWN`, which is `XFS_IOC_GOINGDOWN`, too, without a flush of the journal.
#[allow(unsafe_code, reason = "rustix has no name for this call")]
fn shut_down(root: &File) -> rustix::io::Result<()> {
    const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the call reads a u32 and nothing else.
    let call = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
    // SAFETY: as above; it has no effect on this process's memory.
    unsafe { ioctl(root, call) }
}

/// Whether something succeeds within ten seconds: others look for a free loop device at the same moment, or the
/// system is not done with the files of a process that just ended.
fn patiently(mut attempt: impl FnMut() -> bool) -> bool {
    (0..100).any(|_| {
        let done = attempt();
        if !done {
            thread::sleep(Duration::from_millis(100));
        }
        done
    })
}

fn succeeds(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stderr(Stdio::null())
        .stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Cuts the power a moment after the child said so many lines. Returns how many acts were durable then:
/// what is acknowledged later is not, though the system may say so (ext4 does, for a flush under way).
fn run_and_cut(
    disk: &Disk,
    store: &Path,
    acts: Range<usize>,
    after: usize,
    pause: Duration,
) -> (Ran, usize) {
    let (durable, at_cut) = (AtomicUsize::new(acts.start), AtomicUsize::new(acts.start));
    let ran = thread::scope(|scope| {
        let mut heard = 0;
        run(command(&[]), store, acts, |ran| {
            durable.store(ran.durable, Ordering::SeqCst);
            if heard == after {
                scope.spawn(|| {
                    thread::sleep(pause);
                    at_cut.store(durable.load(Ordering::SeqCst), Ordering::SeqCst);
                    disk.cut();
                });
            }
            heard += 1;
        })
    });
    (ran, at_cut.into_inner())
}

#[test]
fn a_power_cut_of_a_real_file_system_loses_nothing_durable() {
    let disk = Disk::new("mkfs.ext4");
    if has("root, mkfs.ext4 or a loop device", disk.is_some()) {
        cut_often(&disk.unwrap(), "ext4", cases(200));
    }
}

#[test]
fn a_power_cut_of_an_xfs_loses_nothing_durable() {
    let disk = Disk::new("mkfs.xfs");
    // To mount one has loaded what the kernel has for it.
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    if disk.is_none() && !known.contains("\txfs\n") {
        // CI cannot bring another kernel along.
        return say("SKIPPED: the kernel has no XFS");
    }
    if has("root, mkfs.xfs or a loop device", disk.is_some()) {
        cut_often(&disk.unwrap(), "XFS", cases(100));
    }
}

fn cut_often(disk: &Disk, name: &str, rounds: u32) {
    let store = disk.mounted().join("store");
    let (mut dice, mut performed, mut cuts, mut lost) = (Dice::of_run(1), 0, [0, 0], 0);
    for round in 0..rounds {
        if round % 8 == 0 && store.exists() {
            std::fs::remove_dir_all(&store).unwrap();
            rustix::fs::syncfs(File::open(disk.mounted()).unwrap()).unwrap();
            performed = 0;
        }
        // Every other cut comes early, while the child recovers from the one before.
        let early = round % 2 == 1;
        let after = dice.below(if early { 1 } else { ACTS });
        let pause = dice.below(if early { 12_000 } else { 6_000 });
        let pause = Duration::from_micros(u64::try_from(pause).unwrap());
        let acts = performed..performed + ACTS;
        let (ran, durable) = run_and_cut(disk, &store, acts, after, pause);
        disk.come_back();
        cuts[usize::from(early)] += 1;
        performed = if store.exists() {
            check(&store, durable..=ran.acknowledged + 1)
        } else {
            assert_eq!(durable, 0);
            0
        };
        lost += ran.acknowledged.saturating_sub(performed);
    }
    let [late, early] = cuts;
    say(&format!(
        "{name}: {late} cuts at work, {early} in recovery or after it; {lost} acts that were not durable lost"
    ));
    assert!(lost > 0, "the cuts cut something");
}
