//! A server with little memory: large values pass through it, and never lie in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Server, create, head};

const LIMIT: u64 = 64 << 20;
const TRANSFERS: u8 = 8;
const VALUE: usize = 25 << 20;
/// What eight transfers may add to memory of the server's own: twice a piece of 256 KiB each, and room for
/// threads and their stacks.
const GROWTH_MAX: u64 = 8 * 2 * (256 << 10) + (8 << 20);

/// A group of processes with so much memory, the system's cache of their files included.
struct Group(PathBuf);

impl Group {
    /// The first that can be made, or why none of those can that there might be.
    fn new() -> Result<Group, String> {
        let mut why = Vec::new();
        for (parent, file) in hierarchies() {
            match Group::below(&parent, file) {
                Ok(group) => return Ok(group),
                Err(error) => why.push(format!("{}: {error}", parent.display())),
            }
        }
        Err(why.join("; "))
    }

    fn below(parent: &Path, file: &str) -> io::Result<Group> {
        let dir = parent.join(format!("rimstone-test-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let group = Group(dir);
        // A file that is not there is not made: this may be no hierarchy of groups at all.
        let mut limit = File::options().write(true).open(group.0.join(file))?;
        limit.write_all(LIMIT.to_string().as_bytes())?;
        Ok(group)
    }

    /// How often the system killed for want of memory.
    fn kills(&self) -> u64 {
        let events = ["memory.oom_control", "memory.events"].map(|file| self.0.join(file));
        let events = events.iter().find_map(|path| fs::read_to_string(path).ok());
        let count = events.as_deref().unwrap_or_default().lines();
        let count = count.filter_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok());
        count.sum()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}

/// Directories in which groups may be made, and the file in each group that holds the limit: those of
/// version 1 and version 2, below the group of this process and below the root.
fn hierarchies() -> Vec<(PathBuf, &'static str)> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = |mark: &str| {
        let path = own.lines().find_map(|line| line.split_once(mark));
        path.map_or("", |(_, path)| path.trim_start_matches('/'))
    };
    let mut all = Vec::new();
    for (root, mark, file) in [
        ("/sys/fs/cgroup/memory", ":memory:", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "0::", "memory.max"),
        ("/sys/fs/cgroup/unified", "0::", "memory.max"),
    ] {
        let root = Path::new(root);
        if file == "memory.max" {
            // It may be so already.
            _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        all.extend([(root.join(own(mark)), file), (root.to_path_buf(), file)]);
    }
    all
}

/// A server in a group, if there is one.
fn start(directory: &Path, group: Option<&Group>) -> Server {
    let enter = group.map_or(String::new(), |group| {
        format!("echo $$ > {}/cgroup.procs && ", group.0.display())
    });
    Server::start(directory, &format!("{enter}exec"), Stdio::inherit())
}

impl Server {
    /// Memory of its own, which no file stands behind.
    fn own_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let own = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let own = own.and_then(|own| own.trim().strip_suffix(" kB")).unwrap();
        own.parse::<u64>().unwrap() << 10
    }

    fn connect(&self, line: &str, len: usize) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.write_all(head(line, len).as_bytes()).unwrap();
        socket
    }

    fn put(&self, key: u8) {
        let mut socket = self.connect(&format!("PUT /{key}"), VALUE);
        for at in 0..VALUE / PIECE {
            socket.write_all(&piece(key, at)).unwrap();
        }
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }

    fn get(&self, key: u8) {
        let mut socket = BufReader::new(self.connect(&format!("GET /{key}"), 0));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            socket.read_line(&mut line).unwrap();
            assert!(!line.starts_with("HTTP") || line.starts_with("HTTP/1.1 200"));
        }
        let mut read = [0; PIECE];
        for at in 0..VALUE / PIECE {
            socket.read_exact(&mut read).unwrap();
            assert!(read == piece(key, at), "piece {at} of {key}");
        }
        assert_eq!(socket.read(&mut read).unwrap(), 0);
    }

    /// Does something for each key at once, and returns the most memory of its own that the server had
    /// meanwhile.
    fn at_once(&self, transfer: impl Fn(u8) + Sync) -> u64 {
        let (most, over) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    most.fetch_max(self.own_bytes(), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let transfer = &transfer;
            let all: Vec<_> = (0..TRANSFERS)
                .map(|key| scope.spawn(move || transfer(key)))
                .collect();
            let done: Vec<_> = all.into_iter().map(|one| one.join()).collect();
            over.store(true, Ordering::Relaxed);
            assert!(done.iter().all(Result::is_ok));
        });
        most.into_inner()
    }
}

const PIECE: usize = 64 << 10;

/// A part of a value that is like no other.
fn piece(key: u8, at: usize) -> [u8; PIECE] {
    let mut piece = [key; PIECE];
    piece.chunks_mut(8).zip(0u64..).for_each(|(word, number)| {
        let number = (number << 32) | u64::try_from(at).unwrap() << 8 | u64::from(key);
        word.copy_from_slice(&number.to_le_bytes());
    });
    piece
}

/// Says a line on stderr, past the capture of the test harness.
fn say(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Row 18 of the faults.
#[test]
fn eight_values_of_25_mib_go_in_and_out_at_once_within_64_mib() {
    // Without a group the system's cache is not limited; the memory of the server's own is measured anyhow.
    let group = Group::new();
    if let Err(why) = &group {
        assert!(std::env::var_os("CI").is_none(), "no group in CI: {why}");
        say(&format!(
            "NOT LIMITED: no group of memory can be made: {why}"
        ));
    }
    let group = group.ok();
    // Not in a file system in memory, whose files nobody can push out.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    create(directory.path());
    let mut server = start(directory.path(), group.as_ref());
    let before = server.own_bytes();
    // The system may take back some of what it had before.
    let more = |most: u64| most.saturating_sub(before);
    let put = more(server.at_once(|key| server.put(key)));
    let got = more(server.at_once(|key| server.get(key)));
    // Half of them again, while the others are read.
    let mixed = more(server.at_once(|key| match key % 2 {
        0 => server.put(key),
        _ => server.get(key),
    }));
    let within = group
        .as_ref()
        .map_or(String::new(), |_| format!(" in {LIMIT}"));
    say(&format!(
        "{TRANSFERS} transfers of {VALUE} bytes{within}: {put} bytes more in, {got} out, {mixed} mixed"
    ));
    assert!(put.max(got).max(mixed) < GROWTH_MAX, "{GROWTH_MAX} at most");
    assert_eq!(server.process.try_wait().unwrap(), None, "it lives");
    assert_eq!(group.as_ref().map_or(0, Group::kills), 0);
    drop(server);
}
