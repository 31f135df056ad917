//! What opening takes, at any number of keys: after closing, with nothing in memory, and after the process was
//! killed; and what the index takes of memory, and its checkpoints of what is written.
//!
//! `cargo run --release -p rimstone-bench --example opening -- [KEYS] [VALUE] [TAIL] [DIR]`, for values of so
//! many bytes and a kill that leaves about so many megabytes of log; at least one hundredth of the keys is
//! overwritten before another.
//!
//! Each opening is in a process of its own, of a copy of the store (hard links), and gets one key. It tells the
//! median of some: time, processor time of the thread that opened, page faults, bytes read from the disk.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints figures or stops"
)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::time::Instant;

use fastrand::Rng;
use rimstone::{Durability, Namespace, Options, Store, WriteBatch};
use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

const BATCH: u64 = 100;
const ROUNDS: usize = 5;
/// What a record takes beside its value: a header of 64 bytes and a key of 8.
const HEAD: u64 = 72;

struct Run {
    dir: PathBuf,
    keys: u64,
    value: usize,
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let job = args.next_if(|first| first.parse::<u64>().is_err());
    let mut number = |or| args.next().map_or(or, |text| text.parse().unwrap());
    let (keys, value, count) = (number(1_000_000u64), number(600), number(100));
    let run = |dir: &Path| Run {
        dir: dir.into(),
        keys,
        value: usize::try_from(value).unwrap(),
    };
    match (job.as_deref(), args.next()) {
        (None, None) => run(tempfile::tempdir().unwrap().path()).all(count),
        (None, Some(dir)) => run(tempfile::tempdir_in(dir).unwrap().path()).all(count),
        (Some("load"), Some(dir)) => run(Path::new(&dir)).load(),
        (Some("die"), Some(dir)) => run(Path::new(&dir)).die(count),
        (Some("open"), Some(dir)) => run(Path::new(&dir)).open(),
        _ => exit(2),
    }
}

impl Run {
    fn all(&self, tail: u64) {
        let (keys, value) = (self.keys, self.value);
        println!("{keys} keys, values of {value} bytes");
        let store = self.dir.join("store");
        self.job("load", 0, &store);
        self.measure(&store, "clean", false);
        self.measure(&store, "clean, nothing in memory", true);
        let few = keys / 100;
        let many = (tail << 20) / (HEAD + self.value as u64);
        for count in [few, many.max(few)] {
            let killed = self.dir.join("killed");
            copy(&store, &killed);
            self.job("die", count, &killed);
            let megabytes = (count * (HEAD + self.value as u64)) as f64 / 1e6;
            let name = format!("killed after {count} overwrites, {megabytes:.0} MB");
            self.measure(&killed, &name, false);
            fs::remove_dir_all(&killed).unwrap();
        }
    }

    /// Has a process of its own do a job, and returns the numbers that it prints.
    fn job(&self, job: &str, count: u64, dir: &Path) -> Vec<f64> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let numbers = [self.keys, self.value as u64, count];
        command.arg(job).args(numbers.map(|n| n.to_string()));
        let output = command.arg(dir).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if job == "open" {
            assert!(output.status.success(), "{text}");
            return text
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
        }
        print!("{text}");
        assert!(output.status.success() || output.status.signal() == Some(9));
        Vec::new()
    }

    fn measure(&self, store: &Path, name: &str, is_cold: bool) {
        let mut found: [Vec<f64>; 6] = Default::default();
        for _ in 0..ROUNDS {
            let dir = self.dir.join("copy");
            copy(store, &dir);
            if is_cold {
                drop_cache(&dir);
            }
            let numbers = self.job("open", 0, &dir);
            found
                .iter_mut()
                .zip(numbers)
                .for_each(|(all, n)| all.push(n));
            fs::remove_dir_all(&dir).unwrap();
        }
        let [wall, cpu, get, minor, major, read] = found.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap()
        });
        println!(
            "  {name}: {wall:.2} ms, {cpu:.2} of the processor, first get {get:.0} us, \
             {minor} faults and {major} that wait, {read:.0} KB read"
        );
    }

    fn store(&self) -> (Store, Namespace) {
        let options = Options::new().durability(Durability::None);
        let store = options.open(&self.dir).unwrap();
        let ns = store.namespace("opening").unwrap();
        (store, ns)
    }

    /// Puts keys in batches, and tells of each batch.
    fn put(&self, store: &Store, ns: &Namespace, ids: impl Iterator<Item = u64>, version: u8) {
        let mut batch = WriteBatch::new();
        let mut left = BATCH;
        for id in ids {
            batch.put(ns, key(id), vec![version; self.value]);
            left -= 1;
            if left == 0 {
                store.write(std::mem::take(&mut batch)).unwrap();
                left = BATCH;
            }
        }
        store.write(batch).unwrap();
    }

    /// Puts every key twice, and counts what is written meanwhile.
    fn load(&self) {
        let (store, ns) = self.store();
        let before = anonymous();
        let mut files = HashMap::new();
        for version in 0..2u8 {
            for part in 0..100 {
                let ids = (part..self.keys).step_by(100);
                let ids = ids.map(|id| spread(id, self.keys));
                self.put(&store, &ns, ids, version);
                note_files(&self.dir, &mut files);
            }
        }
        store.checkpoint().unwrap();
        note_files(&self.dir, &mut files);
        let keys = self.keys as f64;
        let stats = store.stats();
        println!(
            "  every key overwritten: {:.1} bytes of memory a key, {:.1} as counted",
            anonymous().saturating_sub(before) as f64 / keys,
            stats.index_bytes as f64 / keys,
        );
        drop(ns);
        store.close().unwrap();
        note_files(&self.dir, &mut files);
        let of = |kind: &str| -> u64 {
            let of_kind = files.iter().filter(|(name, _)| name.ends_with(kind));
            of_kind.map(|(_, len)| *len).sum()
        };
        let log = 2 * self.keys * (HEAD + self.value as u64);
        println!(
            "  checkpoints of {} MB, key runs of {} MB, for {} MB of log: {:.3} and {:.3}",
            of(".ckpt") >> 20,
            of(".run") >> 20,
            log >> 20,
            of(".ckpt") as f64 / log as f64,
            of(".run") as f64 / log as f64,
        );
    }

    /// Overwrites some keys, and is killed.
    fn die(&self, count: u64) {
        let (store, ns) = self.store();
        let mut random = Rng::with_seed(count);
        let ids = (0..count).map(|_| random.u64(..self.keys));
        self.put(&store, &ns, ids, 2);
        let id = std::process::id().to_string();
        Command::new("kill").args(["-9", &id]).status().unwrap();
    }

    fn open(&self) {
        let id = spread(7, self.keys);
        let (minor, major) = faults();
        let read = read_bytes();
        let (start, cpu) = (Instant::now(), thread_time());
        let (store, ns) = self.store();
        let (opened, cpu) = (start.elapsed(), thread_time() - cpu);
        let found = ns.get(key(id)).unwrap();
        let got = start.elapsed() - opened;
        let faults = (faults().0 - minor, faults().1 - major);
        let read = read_bytes() - read;
        assert!(found.is_some_and(|value| value.len() == self.value));
        println!(
            "{} {} {} {} {} {}",
            opened.as_secs_f64() * 1e3,
            cpu * 1e3,
            got.as_secs_f64() * 1e6,
            faults.0,
            faults.1,
            read as f64 / 1e3
        );
        drop(store);
    }
}

fn key(id: u64) -> [u8; 8] {
    id.to_le_bytes()
}

/// The keys in another order: neighbours in time are not neighbours in order.
fn spread(id: u64, keys: u64) -> u64 {
    let step = (0x9E37_79B9_7F4A_7C15 % keys) | 1;
    (0..)
        .map(|n| step + 2 * n)
        .find(|step| gcd(*step, keys) == 1)
        .map_or(id, |step| {
            u64::try_from(u128::from(id) * u128::from(step) % u128::from(keys)).unwrap()
        })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A copy of a store that shares the files that are never written again.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        let to = to.join(&name);
        match name == "LOCK" {
            true => drop(fs::copy(path, to).unwrap()),
            false => fs::hard_link(path, to).unwrap(),
        }
    }
}

fn drop_cache(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Notes how long each file became, also of those that are removed later.
fn note_files(dir: &Path, files: &mut HashMap<String, u64>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let len = entry.metadata().map_or(0, |metadata| metadata.len());
        files
            .entry(name)
            .and_modify(|max| *max = len.max(*max))
            .or_insert(len);
    }
}

fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn anonymous() -> u64 {
    labelled("/proc/self/status", "RssAnon:") * 1024
}

fn read_bytes() -> u64 {
    labelled("/proc/self/io", "read_bytes:")
}

fn labelled(path: &str, label: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Minor and major page faults of this process.
fn faults() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let mut fields = after.split_whitespace().skip(7).step_by(2);
    let mut next = || fields.next().unwrap().parse().unwrap();
    (next(), next())
}
