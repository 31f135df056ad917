//! What space costs: bytes written for each byte that users wrote, bytes on disk for each that is live,
//! and what a get takes while compaction runs.
//!
//! `cargo run --release -p rimstone-bench --example space -- WORKLOAD [MEGABYTES] [PERCENT]`, where the
//! workload is `uniform`, `five`, `mixed`, `sizes` or `gets`, with about so many megabytes live and so
//! much space for 100 bytes that are live.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rimstone::{
    Clock, Durability, Map, Namespace, Options, OsVfs, PutOptions, Store, Vfs, VfsFile,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a record takes beside its value: a header of 64 bytes and a key of 17, rounded up.
const HEAD: u64 = 88;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let workload = args.next().ok_or("name a workload")?;
    let megabytes: u64 = args.next().map_or(Ok(500), |text| text.parse())?;
    let percent: u64 = args.next().map_or(Ok(130), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let disk = Counting::default();
    let clock = Clock::manual(1_700_000_000);
    let store = Options::new()
        .durability(Durability::None)
        .space_amplification(percent)
        .vfs(Arc::new(disk.clone()))
        .clock(clock.clone())
        .open(dir.path())?;
    let ns = store.namespace("space")?;
    let mut run = Run {
        store,
        ns,
        clock,
        disk,
        live: megabytes << 20,
        dir: dir.path().into(),
        random: Rng::with_seed(1),
        written: 0,
    };
    match workload.as_str() {
        "uniform" => run.uniform(),
        "five" => run.five(),
        "mixed" => run.mixed(|random| random.u64(64..192)),
        "sizes" => run.mixed(|random| match random.u64(..100) {
            0..70 => random.u64(64..1024),
            70..95 => random.u64(1024..32_768),
            _ => random.u64(70_000..300_000),
        }),
        "gets" => run.gets(),
        _ => Err("no such workload".into()),
    }
}

struct Run {
    store: Store,
    ns: Namespace,
    clock: Clock,
    disk: Counting,
    /// About how many bytes are live.
    live: u64,
    dir: PathBuf,
    random: Rng,
    /// Bytes of records that users wrote.
    written: u64,
}

impl Run {
    /// Overwrites keys at random, all equally likely.
    fn uniform(&mut self) -> Result<()> {
        let keys = self.live / (400 + HEAD);
        for id in 0..keys {
            self.put(id, 400, None)?;
        }
        self.measured("uniform overwrites", |run, _| {
            for _ in 0..2 * keys {
                let id = run.random.u64(..keys);
                run.put(id, 400, None)?;
                run.sample();
            }
            Ok(())
        })
    }

    /// Overwrites every key five times.
    fn five(&mut self) -> Result<()> {
        let keys = self.live / (400 + HEAD);
        let mut highest = (0.0f64, 0.0f64);
        let began = Instant::now();
        for round in 0..6 {
            let mut ids: Vec<u64> = (0..keys).collect();
            self.random.shuffle(&mut ids);
            for (at, id) in (0u64..).zip(ids) {
                self.put(id, 400, None)?;
                if at % (keys / 20).max(1) == 0 && round > 0 {
                    let (segments, all) = self.space();
                    highest = (highest.0.max(segments), highest.1.max(all));
                }
            }
        }
        println!("every key overwritten five times, {:.1?}", began.elapsed());
        let (segments, all) = highest;
        println!("  space while writing: segments {segments:.2} times live at most, all {all:.2}");
        self.store.compact()?;
        let (segments, all) = self.space();
        println!("  space after compact: segments {segments:.2}, all {all:.2}");
        println!(
            "  written {:.2} times what users wrote",
            self.amplification()
        );
        Ok(())
    }

    /// One write in five to a key that lasts for ever, 80/20; the others are new keys with lives from a
    /// minute to 35 days, of which one in five writes deletes one early; a write each so many seconds.
    fn mixed(&mut self, len: fn(&mut Rng) -> u64) -> Result<()> {
        let mean = (0..1000).map(|_| len(&mut self.random) + HEAD).sum::<u64>() / 1000;
        // A third is of keys that last, the others live some 9 days on average.
        let lasting = (self.live / 3 / mean).max(10);
        let writes_alive = self.live * 2 / 3 / mean;
        let mut every = (9 * 86_400 * 1000) / writes_alive.max(1);
        every = every.max(1);
        let (mut millis, mut next) = (0u64, 1u64 << 40);
        let mut mortal: Vec<u64> = Vec::new();
        self.measured("mixed lives", |run, from_start| {
            let writes = if from_start { 3 } else { 2 } * writes_alive;
            for _ in 0..writes {
                millis += every;
                run.clock.advance(millis / 1000);
                millis %= 1000;
                let size = len(&mut run.random);
                match run.random.u64(..5) {
                    0 => {
                        let hot = run.random.u64(..100) < 80;
                        let id = run.random.u64(..if hot { lasting / 5 } else { lasting });
                        run.put(id, size, None)?;
                    }
                    1 if !mortal.is_empty() => {
                        let at = run.random.usize(..mortal.len());
                        run.delete(mortal.swap_remove(at))?;
                    }
                    _ => {
                        next += 1;
                        // Lives are spread evenly over their orders of magnitude.
                        let life = 60.0 * (50_400f64).powf(run.random.f64());
                        run.put(next, size, Some(Duration::from_secs_f64(life)))?;
                        mortal.push(next);
                        if mortal.len() > 100_000 {
                            let at = run.random.usize(..mortal.len());
                            mortal.swap_remove(at);
                        }
                    }
                }
                run.sample();
            }
            Ok(())
        })
    }

    /// Gets while nothing else happens, and while compaction runs flat out.
    fn gets(&mut self) -> Result<()> {
        let keys = self.live / (400 + HEAD);
        for id in 0..keys {
            self.put(id, 400, None)?;
        }
        let done = AtomicBool::new(false);
        let busy = AtomicBool::new(false);
        let (mut quiet, mut loud) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| -> Result<()> {
            let (store, ns) = (self.store.clone(), self.ns.clone());
            let (done, busy) = (&done, &busy);
            let compaction = scope.spawn(move || {
                let mut random = Rng::with_seed(3);
                while !done.load(Ordering::Relaxed) {
                    // A quarter of all keys is overwritten, then all segments are compacted.
                    for _ in 0..keys / 4 {
                        let id = random.u64(..keys);
                        ns.put(key(id), [8; 400]).map_err(|e| e.to_string())?;
                    }
                    store.checkpoint().map_err(|e| e.to_string())?;
                    std::thread::sleep(Duration::from_millis(500));
                    busy.store(true, Ordering::Relaxed);
                    store.compact().map_err(|e| e.to_string())?;
                    busy.store(false, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1500));
                }
                Ok::<(), String>(())
            });
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(30) {
                let was_busy = busy.load(Ordering::Relaxed);
                let mut times = Vec::with_capacity(20_000);
                for _ in 0..20_000 {
                    let id = self.random.u64(..keys);
                    let began = Instant::now();
                    let found = self.ns.get(key(id))?.is_some();
                    times.push(u64::try_from(began.elapsed().as_nanos())?);
                    assert!(found, "no key is ever missing");
                }
                if was_busy == busy.load(Ordering::Relaxed) {
                    if was_busy { &mut loud } else { &mut quiet }.append(&mut times);
                }
            }
            done.store(true, Ordering::Relaxed);
            compaction.join().map_err(|_| "compaction panicked")??;
            Ok(())
        })?;
        for times in [&mut quiet, &mut loud] {
            times.sort_unstable();
        }
        let at = |times: &[u64], thousandth: usize| {
            let place = times.len() * thousandth / 1000;
            times.get(place).copied().unwrap_or_default()
        };
        for (name, thousandth) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
            let (quiet, loud) = (at(&quiet, thousandth), at(&loud, thousandth));
            let ratio = loud as f64 / quiet as f64;
            println!("get {name}: {quiet} ns quiet, {loud} ns while compacting, ratio {ratio:.2}");
        }
        Ok(())
    }

    /// Runs a workload twice: to fill the store, and to measure it.
    fn measured(
        &mut self,
        name: &str,
        mut workload: impl FnMut(&mut Run, bool) -> Result<()>,
    ) -> Result<()> {
        workload(self, true)?;
        self.disk.clear();
        self.written = 0;
        SAMPLES.lock().map_err(|_| "poisoned")?.clear();
        let began = Instant::now();
        workload(self, false)?;
        let took = began.elapsed();
        let samples = SAMPLES.lock().map_err(|_| "poisoned")?;
        println!("{name}, {took:.1?} for {} MiB", self.written >> 20);
        let segments: Vec<f64> = samples.iter().map(|(segments, _)| *segments).collect();
        let all: Vec<f64> = samples.iter().map(|(_, all)| *all).collect();
        for (part, samples) in [("segments", segments), ("all", all)] {
            let mean = samples.iter().sum::<f64>() / samples.len().max(1) as f64;
            let highest = samples.iter().copied().fold(0.0, f64::max);
            println!("  space, {part}: {mean:.2} times live on average, {highest:.2} at most");
        }
        println!(
            "  written {:.2} times what users wrote",
            self.amplification()
        );
        for (kind, bytes) in self.disk.written() {
            let share = bytes as f64 / self.written as f64;
            println!("    {kind:>10} {share:.3}");
        }
        let stats = self.store.stats();
        if let Some(error) = stats.maintenance_error {
            println!("  maintenance: {error}");
        }
        Ok(())
    }

    fn put(&mut self, id: u64, len: u64, life: Option<Duration>) -> Result<()> {
        let mut options = PutOptions::new();
        if let Some(life) = life {
            options = options.expiration_ttl(life);
        }
        let value = vec![7; usize::try_from(len)?];
        self.ns.put_with(key(id), value, &options)?;
        self.written += len + HEAD;
        Ok(())
    }

    fn delete(&mut self, id: u64) -> Result<()> {
        self.ns.delete(key(id))?;
        self.written += HEAD;
        Ok(())
    }

    fn amplification(&self) -> f64 {
        let written: u64 = self.disk.written().values().sum();
        written as f64 / self.written as f64
    }

    /// Bytes of segments on disk for each that is live, and bytes of all files. Large values count as live
    /// as long as their files are there.
    fn space(&self) -> (f64, f64) {
        let (mut segments, mut larges, mut all) = (0, 0, 0);
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            all += bytes;
            match entry.path().extension().and_then(|e| e.to_str()) {
                Some("seg") => segments += bytes,
                Some("large") => larges += bytes,
                _ => {}
            }
        }
        let live: u64 = self.store.segments().iter().map(|s| s.live).sum();
        let live = (live + larges).max(1) as f64;
        ((segments + larges) as f64 / live, all as f64 / live)
    }

    /// Looks at the space from time to time.
    fn sample(&mut self) {
        if self.random.u64(..20_000) == 0
            && let Ok(mut samples) = SAMPLES.lock()
        {
            samples.push(self.space());
        }
    }
}

static SAMPLES: Mutex<Vec<(f64, f64)>> = Mutex::new(Vec::new());

fn key(id: u64) -> String {
    format!("user:{id:012}")
}

/// The system's files, and how many bytes are written to each kind.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counting {
    fn clear(&self) {
        if let Ok(mut written) = self.0.lock() {
            written.clear();
        }
    }

    fn written(&self) -> BTreeMap<&'static str, u64> {
        self.0
            .lock()
            .map(|written| written.clone())
            .unwrap_or_default()
    }
}

struct CountingFile {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    kind: Mutex<&'static str>,
    counting: Counting,
}

impl Vfs for Counting {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsVfs.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsVfs.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let kind = match path.extension().and_then(|e| e.to_str()) {
            Some("ckpt") => "checkpoint",
            Some("run") => "runs",
            Some("large") => "large",
            _ => "front",
        };
        Ok(Box::new(CountingFile {
            file: OsVfs.create(path)?,
            path: path.into(),
            kind: Mutex::new(kind),
            counting: self.clone(),
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        OsVfs.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
}

impl VfsFile for CountingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let is_class = offset == 0
            && self.path.extension().is_some_and(|e| e == "new")
            && bytes.get(10) == Some(&2);
        if let (Ok(mut kind), Ok(mut written)) = (self.kind.lock(), self.counting.0.lock()) {
            if is_class {
                *kind = "class";
            }
            *written.entry(*kind).or_default() += bytes.len() as u64;
        }
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        self.file.map(len)
    }

    fn map_private(&self) -> io::Result<Map> {
        self.file.map_private()
    }

    fn is_resident(&self, offset: u64, len: usize) -> bool {
        self.file.is_resident(offset, len)
    }
}
