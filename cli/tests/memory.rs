//! A server with little memory: large values pass through it, and never lie in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const RIMSTONE: &str = env!("CARGO_BIN_EXE_rimstone");
const LIMIT: u64 = 64 << 20;
const TRANSFERS: u8 = 8;
const VALUE: usize = 25 << 20;
/// What eight transfers may add to memory of the server's own: twice a piece of 256 KiB each, and room for
/// threads and their stacks.
const GROWTH_MAX: u64 = 8 * 2 * (256 << 10) + (8 << 20);

/// A group of processes with so much memory, the system's cache of their files included.
struct Group(PathBuf);

impl Group {
    /// `None` where there cannot be one.
    fn new() -> Option<Group> {
        let (parent, file) = hierarchy()?;
        let dir = parent.join(format!("rimstone-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        let group = Group(dir);
        let limited = fs::write(group.0.join(file), LIMIT.to_string());
        limited.is_ok().then_some(group)
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

/// A directory in which groups can be made, and the file in each that holds the limit: below that of this
/// process in version 1, below the root in version 2.
fn hierarchy() -> Option<(PathBuf, &'static str)> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let memory = Path::new("/sys/fs/cgroup/memory");
    if memory.is_dir() {
        let own = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        return Some((
            memory.join(own.trim_start_matches('/')),
            "memory.limit_in_bytes",
        ));
    }
    let root = PathBuf::from("/sys/fs/cgroup");
    // It may be so already.
    _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
    Some((root, "memory.max"))
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(directory: &Path, group: &Group) -> Server {
        let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
        let line = format!("{enter}; exec {RIMSTONE} serve --data d --listen 127.0.0.1:0");
        let mut command = Command::new("sh");
        command.current_dir(directory).args(["-c", &line]);
        command.env_remove("RIMSTONE_TOKEN").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Server { process, address }
    }

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
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-kv-namespace: n\r\n\
             content-length: {len}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
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

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
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
    let Some(group) = Group::new() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI has root and memory groups"
        );
        return say("SKIPPED: root or a hierarchy of memory groups is missing");
    };
    // Not in a file system in memory, whose files nobody can push out.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut create = Command::new(RIMSTONE);
    create
        .current_dir(&directory)
        .args(["namespace", "create", "n", "--data", "d"]);
    assert!(create.status().unwrap().success());
    let mut server = Server::start(directory.path(), &group);
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
    say(&format!(
        "{TRANSFERS} transfers of {VALUE} bytes in {LIMIT}: {put} bytes more in, {got} out, {mixed} mixed"
    ));
    assert!(put.max(got).max(mixed) < GROWTH_MAX, "{GROWTH_MAX} at most");
    assert_eq!(server.process.try_wait().unwrap(), None, "it lives");
    assert_eq!(group.kills(), 0);
    drop(server);
}
