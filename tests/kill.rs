//! A real process, killed while it writes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rimstone::{Durability, Store, WriteBatch};
use tempfile::tempdir;

const CHILD: &str = "RIMSTONE_TEST_CHILD";
const ROUNDS: u64 = 12;

/// Not a test of its own: the process that `acknowledged_writes_survive_sigkill` starts and kills. It
/// prints each number once its write is acknowledged.
#[test]
fn child_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    let first: u64 = match ns.get("next").unwrap() {
        Some(value) => std::str::from_utf8(&value).unwrap().parse().unwrap(),
        None => 0,
    };
    for n in first.. {
        let durability = if n % 3 == 0 {
            Durability::Immediate
        } else {
            Durability::None
        };
        let mut batch = WriteBatch::new();
        let value =
            vec![u8::try_from(n % 251).unwrap(); usize::try_from(n * 997 % 90_000).unwrap()];
        batch
            .put(&ns, n.to_le_bytes(), value)
            .put(&ns, "next", (n + 1).to_string());
        batch.durability(durability);
        store.write(batch).unwrap();
        // In one call, so that the kill cannot tear the line.
        std::io::stderr()
            .write_all(format!("acknowledged {n}\n").as_bytes())
            .unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let dir = tempdir().unwrap();
    let mut written = 0;
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(dir.path(), 20 + round * 17 % 50);
        let store = Store::open(dir.path()).unwrap();
        let ns = store.find_namespace("n").unwrap();
        let next: u64 = std::str::from_utf8(&ns.get("next").unwrap().unwrap())
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            next > acknowledged,
            "{acknowledged} was acknowledged, the store ends at {next}"
        );
        for n in written..next {
            let value = ns.get(n.to_le_bytes()).unwrap().unwrap();
            assert_eq!(value.len(), usize::try_from(n * 997 % 90_000).unwrap());
            assert!(value.iter().all(|byte| u64::from(*byte) == n % 251));
        }
        assert!(
            ns.get(next.to_le_bytes()).unwrap().is_none(),
            "a batch is whole or absent"
        );
        assert!(store.stats().damage.is_empty());
        written = next;
    }
}

/// Lets a child acknowledge `count` writes, kills it, and returns the last number it acknowledged.
fn run_and_kill(dir: &Path, count: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "kill::child_writes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = None;
    let mut seen = 0;
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(n) = line.strip_prefix("acknowledged ") {
            last = Some(n.parse().unwrap());
            seen += 1;
            if seen == count {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    last.expect("the child wrote")
}
