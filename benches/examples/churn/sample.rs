//! What the process and the directory look like at a moment.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rimstone::Store;
use rustix::time::{ClockId, clock_gettime};

/// Beside 1.3 times what is live, in segments of 64 MiB at most: the one that is written, the one made ready behind
/// it, one that compaction fills, and two that wait for checkpoints. All classes are not filled at once.
const OPEN: u64 = 5 * (64 << 20);

#[derive(Debug)]
pub(crate) struct Sample {
    at: Duration,
    /// Bytes of memory that no file backs.
    anonymous: u64,
    pub(crate) descriptors: usize,
    pub(crate) maps: usize,
    pub(crate) threads: usize,
    /// Bytes of all files, and of them those that are live.
    pub(crate) disk: u64,
    pub(crate) live: u64,
    keys: u64,
    longest: (Duration, Duration),
}

impl Sample {
    pub(crate) const HEAD: &str = "seconds  anonymous MiB  fds  maps  threads  disk MiB  disk/live  keys  longest put, get ms";

    pub(crate) fn take(
        at: Duration,
        store: &Store,
        dir: &Path,
        longest: (Duration, Duration),
    ) -> io::Result<Sample> {
        let (mut disk, mut larges) = (0, 0);
        for entry in fs::read_dir(dir)?.flatten() {
            // Some vanish meanwhile.
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            disk += bytes;
            if entry.path().extension().is_some_and(|e| e == "large") {
                larges += bytes;
            }
        }
        let stats = store.stats();
        let live: u64 = store.segments().iter().map(|segment| segment.live).sum();
        Ok(Sample {
            at,
            anonymous: anonymous()?,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            maps: fs::read_to_string("/proc/self/maps")?.lines().count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            disk,
            live: live + larges,
            keys: stats.keys,
            longest,
        })
    }

    pub(crate) fn hours(&self) -> f64 {
        self.at.as_secs_f64() / 3600.0
    }

    pub(crate) fn anonymous_mib(&self) -> f64 {
        self.anonymous as f64 / 1048576.0
    }

    /// Bytes that the files may take.
    pub(crate) fn bound(&self) -> u64 {
        self.live * 13 / 10 + OPEN
    }

    /// How much of that they take.
    pub(crate) fn over(&self) -> f64 {
        self.disk as f64 / self.bound() as f64
    }
}

impl Display for Sample {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (put, get) = self.longest;
        write!(
            f,
            "{:7.0} {:14.1} {:4} {:5} {:8} {:9} {:10.2} {:8} {:.1} {:.1}",
            self.at.as_secs_f64(),
            self.anonymous_mib(),
            self.descriptors,
            self.maps,
            self.threads,
            self.disk >> 20,
            self.disk as f64 / self.live.max(1) as f64,
            self.keys,
            put.as_secs_f64() * 1e3,
            get.as_secs_f64() * 1e3,
        )
    }
}

/// The system's own sum over all mappings; private pages of a mapped checkpoint that changed are in it.
fn anonymous() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Seconds in which any thread of this process ran.
pub(crate) fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
