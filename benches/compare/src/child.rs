//! What is measured in a process of its own: memory, bytes written and read, opening, and death.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::data::{Data, Entry, Key};
use crate::engines::{Kind, Setup, Subject, Touch, stored};
use crate::jobs::stalls::Stalls;
use crate::jobs::{churn, starved};
use crate::lives::Workload;
use crate::process::{anonymous_bytes, die, process_time, read_bytes, written_bytes};
use crate::stats::{median, percentile};
use crate::{cgroup, files, sequences};

/// How often every key is overwritten to see what space that takes.
const OVERWRITES: u32 = 5;
/// Gets of a cold measurement, at most one in so many keys.
const COLD: usize = 2000;
const SHARE: usize = 50;
/// Entries of a commit before the process is killed.
const KILLED: usize = 100;

struct Child {
    kind: Kind,
    dir: PathBuf,
    data: Data,
}

/// Does a job and prints what was found.
pub fn run(job: &str, args: &Args) {
    let kinds = args.kinds();
    let kind = *kinds.first().expect("an engine");
    let dir = args.dir.clone().expect("a directory");
    let mut data = Data::new(args.keys_within(), args.values);
    data.fresh = args.fresh;
    let child = Child { kind, dir, data };
    let (job, which) = job.split_once(' ').unwrap_or((job, ""));
    let found = match job {
        "load" => child.load(),
        "open" => child.open_once(),
        "die" => child.die(),
        "cold" => child.cold(),
        "overwrite" => child.overwrite(),
        "churn" => child.churn(which, args.live << 20),
        "starved" => child.starved(args),
        "stalls" => child.stalls(which, args.puts),
        _ => unreachable!("a job of this program"),
    };
    println!("{found}");
}

impl Child {
    fn open(&self) -> Box<dyn Subject> {
        self.kind.open(&Setup::new(&self.dir, &self.data, false))
    }

    /// Loads everything and flushes it.
    fn load(&self) -> Value {
        let (anonymous, written) = (anonymous_bytes(), written_bytes());
        let mut subject = self.open();
        let mut timer = Outside::default();
        let (start, cpu) = (Instant::now(), process_time());
        let mut logical = 0;
        let batches = self.data.batches().inspect(|batch| {
            logical += batch.iter().map(Entry::logical_bytes).sum::<u64>();
        });
        subject.load(&mut timer.around(batches));
        subject.sync();
        let wall = start.elapsed().saturating_sub(timer.wall);
        let cpu = (process_time() - cpu).saturating_sub(timer.cpu);
        let anonymous = anonymous_bytes().saturating_sub(anonymous);
        subject.close();
        files::sync(&self.dir);
        json!({
            "seconds": wall.as_secs_f64(),
            "cpu": cpu.as_secs_f64(),
            "logical": logical,
            "written": written_bytes() - written,
            "anonymous": anonymous,
            "disk": files::disk_bytes(&self.dir),
        })
    }

    /// Opens the engine and gets one of the keys that were overwritten last.
    fn open_once(&self) -> Value {
        let entry = self.data.entry(0);
        let start = Instant::now();
        let subject = self.open();
        let found = subject.find(&entry.key);
        let took = start.elapsed();
        assert_eq!(found, Some(stored(&entry)), "{}", self.kind.name);
        // All that was acknowledged must be there, not only what the timer saw.
        let intact = self.data.freshest().all(|entries| subject.holds(&entries));
        assert!(intact, "{} lost a write", self.kind.name);
        subject.close();
        json!({ "ns": took.as_nanos() as u64 })
    }

    /// Overwrites a hundredth of the keys, and is killed.
    fn die(&self) -> ! {
        let subject = self.open();
        for batch in self.data.freshest() {
            batch
                .chunks(KILLED)
                .for_each(|entries| subject.put_all(entries));
        }
        die()
    }

    /// Gets of keys whose values are not in memory, while the index mostly is.
    fn cold(&self) -> Value {
        let subject = self.open();
        let ids = sequences::shuffled(self.data.keys, 11);
        let keys: Vec<Key> = ids.into_iter().map(|id| self.data.key(id)).collect();
        // A fiftieth of the keys, half of them misses, reaches nearly every page of an index that
        // has hundreds of keys to the page, and few of those that hold values.
        let (warming, cold) = keys.split_at(keys.len() / SHARE / 2);
        subject.get(&self.data.missing(warming.len()), usize::MAX, Touch::Ends);
        subject.get(warming, usize::MAX, Touch::Ends);
        let cold = &cold[..COLD.min(keys.len() / SHARE)];
        // What was read ahead of what was asked for is not warm.
        files::drop_cache(&self.dir);
        let (read, mut times) = (read_bytes(), Vec::new());
        subject.get_timed(cold, usize::MAX, &mut times);
        let read = read_bytes() - read;
        subject.close();
        json!({
            "p50": percentile(&mut times, 0.5),
            "p99": percentile(&mut times, 0.99),
            "read": read as f64 / cold.len() as f64,
        })
    }

    fn churn(&self, name: &str, live: u64) -> Value {
        let found = Workload::ALL.iter().find(|(other, _)| *other == name);
        let workload = found.expect("a workload").1;
        churn::run(self.kind, &self.dir, workload, live)
    }

    /// Gets in a control group with little memory.
    fn starved(&self, args: &Args) -> Value {
        cgroup::enter(args.group.as_ref().expect("a group"));
        let mut setup = Setup::new(&self.dir, &self.data, false);
        setup.memory = args.memory;
        let subject = self.kind.open(&setup);
        let found = starved::run(&*subject, self.data);
        subject.close();
        found
    }

    /// Gets and puts with compaction beside them.
    fn stalls(&self, round: &str, puts: u64) -> Value {
        let subject = self.open();
        let stalls = Stalls {
            subject: &*subject,
            data: self.data,
            tidies: self.kind.can.tidies,
            puts,
            round: round.parse().expect("a number"),
        };
        let found = stalls.run();
        subject.close();
        found
    }

    /// Overwrites every key at random several times.
    fn overwrite(&self) -> Value {
        let (base, written) = (anonymous_bytes(), written_bytes());
        let mut subject = self.open();
        let (mut anonymous, mut logical, mut disk) = (0, 0, Vec::new());
        let mut timer = Outside::default();
        let start = Instant::now();
        for round in 0..OVERWRITES {
            for batch in timer.around(self.data.overwrites(round)) {
                subject.put_all(&batch);
                logical += batch.iter().map(Entry::logical_bytes).sum::<u64>();
                // The first rounds fill what space an engine gives itself.
                if round >= 2 {
                    disk.push(files::disk_bytes(&self.dir) as f64);
                }
            }
            if round == 0 {
                subject.sync();
                anonymous = anonymous_bytes().saturating_sub(base);
            }
        }
        subject.sync();
        let wall = start.elapsed().saturating_sub(timer.wall);
        let written = written_bytes() - written;
        let start = Instant::now();
        subject.compact();
        subject.sync();
        let compacting = start.elapsed();
        subject.close();
        files::sync(&self.dir);
        json!({
            "seconds": wall.as_secs_f64(),
            "logical": logical,
            "written": written,
            "anonymous": anonymous,
            "disk": median(&disk),
            "largest": disk.iter().copied().fold(0.0, f64::max),
            "compacting": compacting.as_secs_f64(),
            "compacted": files::disk_bytes(&self.dir),
        })
    }
}

/// Time that passes while entries are made, which is not the engine's.
#[derive(Default)]
struct Outside {
    wall: Duration,
    cpu: Duration,
}

impl Outside {
    fn around<I: Iterator>(&mut self, mut inner: I) -> impl Iterator<Item = I::Item> {
        std::iter::from_fn(move || {
            let (start, cpu) = (Instant::now(), crate::process::thread_time());
            let item = inner.next();
            self.wall += start.elapsed();
            self.cpu += crate::process::thread_time() - cpu;
            item
        })
    }
}
