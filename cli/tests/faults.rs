//! A server whose disk fails under it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;

use crate::support::{RIMSTONE, Server, create, head};

impl Server {
    /// The response to a request of the binding; empty if there is none.
    fn ask(&self, line: &str, body: &[u8]) -> Vec<u8> {
        ask(&self.address, line, body)
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let kill = Command::new("kill").args(["-s", name, &process]).status();
        assert!(kill.unwrap().success());
    }

    /// How many of its threads are in the handler, where the signal is blocked.
    fn faulted(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id()));
        let tasks = tasks.into_iter().flatten().flatten();
        let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        let is_in_it = |status: &String| {
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let blocked = blocked.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
            blocked.is_some_and(|set| set >> (libc::SIGBUS - 1) & 1 == 1)
        };
        status.filter(is_in_it).count()
    }
}

fn start(directory: &TempDir) -> Server {
    Server::start(directory.path(), "exec", Stdio::piped())
}

fn ask(address: &str, line: &str, body: &[u8]) -> Vec<u8> {
    let head = head(line, body.len());
    let mut said = Vec::new();
    if let Ok(mut socket) = TcpStream::connect(address) {
        _ = socket.write_all(head.as_bytes());
        _ = socket.write_all(body);
        _ = socket.read_to_end(&mut said);
    }
    said
}

/// A directory with a store `d` that has the namespace `n`.
fn store() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    create(directory.path());
    directory
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Puts twenty keys and cuts their segment short, whose path it returns.
fn fill_and_cut(server: &Server, data: &Path) -> PathBuf {
    for key in 0..20 {
        let put = server.ask(&format!("PUT /{key}"), &[2; 8000]);
        assert!(put.starts_with(b"HTTP/1.1 200"));
    }
    let segments = files(data).into_keys();
    let active = segments
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .max()
        .unwrap();
    let file = File::options().write(true).open(&active).unwrap();
    file.set_len(40_960).unwrap();
    active
}

/// Fills a pipe, so that who writes to it waits.
fn fill(pipe: &mut PipeWriter) {
    let flags = fcntl_getfl(&*pipe).unwrap();
    fcntl_setfl(&*pipe, flags | OFlags::NONBLOCK).unwrap();
    while pipe.write(b".").is_ok() {}
    fcntl_setfl(&*pipe, flags).unwrap();
}

#[test]
fn a_segment_cut_short_under_a_server_ends_it_by_name_and_harms_nothing() {
    let directory = store();
    let data = directory.path().join("d");
    let mut server = start(&directory);
    assert!(
        server
            .ask("PUT /large", &vec![1; 300_000])
            .starts_with(b"HTTP/1.1 200")
    );
    let active = fill_and_cut(&server, &data);
    let before = files(&data);

    assert!(server.ask("GET /19", b"").is_empty());
    assert_eq!(server.process.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    server
        .process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let name = active.file_name().unwrap().to_str().unwrap();
    assert!(
        said.contains(&format!("/d/{name} failed: it was cut short")),
        "{said}"
    );
    let mark = active.with_extension("pread");
    let mut after = files(&data);
    assert_eq!(after.remove(&mark), Some(Vec::new()));
    assert!(after == before, "nothing else changed");

    // What is left is served, what was lost is no older value and no crash: the file is not mapped again.
    let mut server = start(&directory);
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.process.id())).unwrap();
    assert!(!maps.contains(name), "{maps}");
    let cut = File::options().write(true).open(&active).unwrap();
    cut.set_len(4096).unwrap();
    assert!(server.ask("GET /large", b"").ends_with(&[1; 300_000]));
    assert!(server.ask("GET /0", b"").ends_with(&[2; 8000]));
    let lost = server.ask("GET /19", b"");
    assert!(lost.starts_with(b"HTTP/1.1 404") || lost.starts_with(b"HTTP/1.1 500"));
    assert_eq!(server.process.try_wait().unwrap(), None);
}

/// Without it a test says so and passes, unless in CI.
fn has_strace() -> bool {
    let mut strace = Command::new("strace");
    let has = strace.arg("-V").stdout(Stdio::null()).status().is_ok();
    if !has {
        assert!(std::env::var_os("CI").is_none(), "CI has strace");
        // Past the capture of the test harness.
        _ = writeln!(std::io::stderr(), "SKIPPED: strace is missing");
    }
    has
}

/// The end of the log, too: that it cannot be read does not make it one that was never written.
#[test]
fn an_end_of_the_log_that_cannot_be_read_is_damage() {
    if !has_strace() {
        return;
    }
    let directory = store();
    let data = directory.path().join("d");
    let server = start(&directory);
    for key in 0..20 {
        let put = server.ask(&format!("PUT /{key}"), &[2; 8000]);
        assert!(put.starts_with(b"HTTP/1.1 200"));
    }
    drop(server);
    let segments = files(&data).into_keys();
    let mut segments = segments.filter(|path| path.extension().is_some_and(|e| e == "seg"));
    let active = segments.next_back().unwrap();
    File::create(active.with_extension("pread")).unwrap();
    // Its beginning is read, and nothing behind that.
    let stats = |how: &str| {
        let mut stats = Command::new("strace");
        stats
            .current_dir(&directory)
            .args(["-f", "-qq", "-o", "/dev/null", "-P"])
            .arg(&active)
            .args(["-e", "trace=pread64", "-e", how])
            .args([RIMSTONE, "stats", "--json", "--data", "d"]);
        String::from_utf8(stats.output().unwrap().stdout).unwrap()
    };
    let told = stats("inject=pread64:error=EIO:when=20+");
    assert!(told.contains("\"degraded\":true"), "{told}");
    assert!(told.contains("may hold the end of the log"), "{told}");
    // The log goes on behind what is left, and is whole.
    for value in [b"3", b"4"] {
        let server = start(&directory);
        assert!(server.ask("GET /0", b"").ends_with(&[2; 8000]));
        assert!(server.ask("PUT /k", value).starts_with(b"HTTP/1.1 200"));
    }
    let server = start(&directory);
    assert!(server.ask("GET /k", b"").ends_with(b"4"));
    drop(server);
    let told = stats("inject=pread64:error=EIO:when=20000+");
    assert!(told.contains("\"degraded\":false"), "{told}");
}

/// Where the device fails for good, so that reading fails as mapping did.
#[test]
fn what_cannot_be_read_of_a_file_that_is_not_mapped_is_damage() {
    if !has_strace() {
        return;
    }
    let directory = store();
    let data = directory.path().join("d");
    let server = start(&directory);
    for (key, byte) in [("a", b'a'), ("b", b'b')] {
        let put = server.ask(&format!("PUT /{key}"), &vec![byte; 300_000]);
        assert!(put.starts_with(b"HTTP/1.1 200"));
    }
    drop(server);
    let larges = files(&data).into_keys();
    let mut larges = larges.filter(|path| path.extension().is_some_and(|e| e == "large"));
    let first = larges.next().unwrap();
    File::create(first.with_extension("pread")).unwrap();
    // Its beginning is read, and nothing behind that. The server stays the process that is ended below.
    let trace = format!(
        "exec strace -D -f -qq -o /dev/null -P {} -e trace=pread64 -e inject=pread64:error=EIO:when=20+",
        first.display()
    );
    let mut server = Server::start(directory.path(), &trace, Stdio::piped());
    let said = server.ask("GET /a", b"");
    assert!(!said.ends_with(&[b'a'; 300_000]));
    assert!(said.len() < 300_000, "no more than what was read");
    assert!(server.ask("GET /b", b"").ends_with(&[b'b'; 300_000]));
    assert_eq!(server.process.try_wait().unwrap(), None);
}

#[test]
fn threads_that_fault_together_end_it_by_name_too() {
    let directory = store();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap();
    let mut server = Server::start(directory.path(), "exec", stderr.into());
    let active = fill_and_cut(&server, &directory.path().join("d"));
    // The first one cannot go on before the other has come.
    fill(&mut writer);
    // Both requests are there when it looks: a thread that was given one alone would keep the other from being seen.
    server.signal("STOP");
    let asking = [18, 19].map(|key| {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let head = head(&format!("GET /{key}"), 0);
        socket.write_all(head.as_bytes()).unwrap();
        socket
    });
    server.signal("CONT");
    while server.faulted() < asking.len() && server.process.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(server.process.wait().unwrap().code(), Some(1), "{said}");
    let name = active.file_name().unwrap().to_str().unwrap();
    let message = format!("/d/{name} failed: it was cut short");
    assert_eq!(said.matches(&message).count(), 1, "{said}");
    for mut asked in asking {
        let mut answer = Vec::new();
        _ = asked.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
}

#[test]
fn a_limit_of_file_sizes_refuses_a_value_and_the_server_goes_on() {
    let directory = store();
    let server = Server::start(directory.path(), "ulimit -f 4096; exec", Stdio::piped());
    let refused = server.ask("PUT /k", &vec![1; 3 << 20]);
    assert!(
        refused.starts_with(b"HTTP/1.1 5"),
        "{}",
        String::from_utf8_lossy(&refused)
    );
    assert!(server.ask("GET /k", b"").starts_with(b"HTTP/1.1 404"));
    assert!(server.ask("PUT /k", b"v").starts_with(b"HTTP/1.1 200"));
    assert!(server.ask("GET /k", b"").ends_with(b"v"));
}
