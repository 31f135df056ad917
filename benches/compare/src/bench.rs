//! One run: its engines, their directories, and what was measured.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::data::Data;
use crate::engines::{Kind, Setup};
use crate::floors::{self, Floor};
use crate::results::{Results, Unit};
use crate::{machine, plot, table};

pub struct Bench {
    pub args: Args,
    pub kinds: Vec<Kind>,
    pub data: Data,
    results: Results,
    floors: Vec<Floor>,
    /// What was not measured, and why.
    notes: Vec<String>,
    /// Where and of what everything is measured.
    setting: String,
    /// The file for all figures.
    json: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    /// A run whose files are in the target directory, if the arguments name no other: that is on a
    /// disk where the directory for temporary files may not be.
    pub fn new(mut args: Args, target: &Path) -> Bench {
        let floors = args.short.then(floors::read).unwrap_or_default();
        args.rows
            .extend(floors.iter().map(|floor| floor.row.clone()));
        let parent = args.dir.clone().unwrap_or_else(|| target.to_path_buf());
        fs::create_dir_all(&parent).expect("a directory");
        let data = Data::new(args.keys_within(), args.values);
        let load = machine::load();
        Bench {
            floors,
            setting: format!("{}\n{}\n{load}", machine::describe(), args.describe()),
            json: target.join("compare.json"),
            kinds: args.kinds(),
            results: Results::default(),
            notes: Vec::new(),
            dir: tempfile::tempdir_in(parent).expect("a directory"),
            data,
            args,
        }
    }

    /// Engines with files.
    pub fn stores(&self) -> Vec<Kind> {
        let kinds = self.kinds.iter().copied();
        kinds.filter(|kind| kind.can.files).collect()
    }

    /// Some engines with files; others only if they were named.
    pub fn few(&self, names: &[&str]) -> Vec<Kind> {
        self.args.few(names)
    }

    /// The directory of an engine, which may not exist yet.
    pub fn dir_of(&self, kind: Kind) -> PathBuf {
        self.dir.path().join(kind.name)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn setup(&self, kind: Kind, durable: bool) -> Setup {
        let dir = self.dir_of(kind);
        fs::create_dir_all(&dir).expect("a directory");
        Setup::new(&dir, &self.data, durable)
    }

    pub fn wants(&self, group: &str, row: &str) -> bool {
        self.args.wants(group, row)
    }

    /// Adds a figure, if its row was asked for.
    pub fn add(&mut self, group: &'static str, row: &str, unit: Unit, kind: &'static str, v: f64) {
        if self.wants(group, row) {
            self.results.add(group, row, unit, kind, v);
        }
    }

    /// Says what is done now, for whom waits.
    pub fn say(&self, what: &str) {
        eprintln!("{what}");
    }

    /// Says what is not measured, now and at the end.
    pub fn note(&mut self, what: String) {
        self.say(&what);
        self.notes.push(what);
    }

    /// Runs a job of `child.rs` for one engine in a process of its own; what it reports.
    pub fn child(&self, kind: Kind, job: &str) -> Value {
        self.child_with(kind, job, &[], Duration::MAX)
    }

    /// The same, but nothing if it takes longer than it may.
    pub fn child_within(&self, kind: Kind, job: &str, longest: Duration) -> Value {
        self.child_with(kind, job, &[], longest)
    }

    /// Runs `starved` in a control group with so much memory.
    pub fn starved(&self, kind: Kind, memory: u64, group: &Path, longest: Duration) -> Value {
        let (memory, group) = (memory.to_string(), group.as_os_str());
        let more = [
            "--memory".as_ref(),
            memory.as_ref(),
            "--group".as_ref(),
            group,
        ];
        self.child_with(kind, "starved", &more, longest)
    }

    fn child_with(&self, kind: Kind, job: &str, more: &[&OsStr], longest: Duration) -> Value {
        let dir = self.setup(kind, false).dir;
        let values = format!("{:?}", self.data.values).to_lowercase();
        let child = Command::new(std::env::current_exe().expect("a program"))
            .args(["--child", job, "--engines", kind.name, "--values", &values])
            .args(["--keys", &self.data.keys.to_string()])
            .args(["--fresh", &self.data.fresh.to_string()])
            .args(["--budget", &self.args.budget.to_string()])
            .args(["--live", &self.args.live.to_string()])
            .args(["--puts", &self.args.puts.to_string()])
            .args(more)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("runs");
        serde_json::from_slice(&output_within(child, longest)).unwrap_or(Value::Null)
    }

    /// Writes the figures so far, so that a run that is cut short was not for nothing.
    pub fn save(&self) {
        let found = json!({ "setting": self.setting, "rows": self.results.json() });
        fs::write(&self.json, format!("{found:#}")).expect("writes");
    }

    /// Prints the tables and draws the charts; whether no ratio is below its floor.
    pub fn finish(&self) -> bool {
        println!("{}\n{} at the end", self.setting, machine::load());
        println!("{}", table::tables(&self.results));
        self.notes.iter().for_each(|note| println!("{note}"));
        println!("all rounds: {}", self.json.display());
        if let Some(dir) = &self.args.plot {
            plot::draw(&self.results, &self.setting, dir).expect("draws");
        }
        let fallen = floors::fallen(&self.floors, &self.results);
        fallen.iter().for_each(|text| println!("{text}"));
        fallen.is_empty()
    }
}

/// What a child prints, which is less than a pipe holds. One that takes longer than it may is killed.
fn output_within(mut child: Child, longest: Duration) -> Vec<u8> {
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > longest {
            let _ = child.kill();
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("a child").stdout
}

/// Rounds of a group, at least one: another begins only while those before took less than so long.
pub fn rounds_within(rounds: usize, longest: Duration) -> impl Iterator<Item = usize> {
    let start = Instant::now();
    (0..rounds).take_while(move |round| *round == 0 || start.elapsed() < longest)
}

/// The order in which engines take turns in a round: each is first once, so that none always
/// follows the same other.
pub fn turns(kinds: &[Kind], round: usize) -> Vec<Kind> {
    let mut turns = kinds.to_vec();
    let first = round % turns.len().max(1);
    turns.rotate_left(first);
    turns
}
