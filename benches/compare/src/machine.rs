//! Where a run took place, and of what.

use std::fs;
use std::process::Command;

/// Processor, memory, system, compiler, commit, date, versions of the engines.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let commit = output("git", &["describe", "--always", "--dirty"]);
    format!(
        "{}, {cores} cores, {} GiB, Linux {}, {}\ncommit {commit}, {} UTC\n{}",
        field("/proc/cpuinfo", "model name").unwrap_or_default(),
        kib.div_ceil(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
        env!("RUSTC_VERSION"),
        output("date", &["-u", "+%Y-%m-%d %H:%M"]),
        versions(),
    )
}

/// How busy the machine has been in the last minutes.
pub fn load() -> String {
    let text = read("/proc/loadavg");
    let averages: Vec<_> = text.split_whitespace().take(3).collect();
    format!("load {}", averages.join(" "))
}

fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let after = lock
            .split(&format!("name = \"{name}\"\nversion = \""))
            .nth(1)?;
        Some(format!("{name} {}", after.split('"').next()?))
    };
    let crates = ["heed", "libmdbx", "redb", "fjall", "rocksdb", "rusqlite"];
    let mut versions: Vec<_> = crates.into_iter().filter_map(version).collect();
    if cfg!(system_rocksdb) {
        versions.push("RocksDB of the system".to_owned());
    }
    versions.join(", ")
}

fn field(path: &str, label: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(label))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn output(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}
