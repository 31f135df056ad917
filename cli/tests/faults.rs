//! A server whose disk fails under it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const RIMSTONE: &str = env!("CARGO_BIN_EXE_rimstone");

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Server {
    /// Serves the store `d` after what this line of a shell sets.
    fn start(directory: &Path, limit: &str) -> Server {
        let line = format!("{limit} exec {RIMSTONE} serve --data d --listen 127.0.0.1:0");
        let mut command = Command::new("sh");
        command
            .current_dir(directory)
            .args(["-c", &line])
            .env_remove("RIMSTONE_TOKEN");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Server { process, address }
    }

    /// The response to a request of the binding; empty if there is none.
    fn ask(&self, line: &str, body: &[u8]) -> Vec<u8> {
        let len = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-kv-namespace: n\r\n\
             content-length: {len}\r\n\r\n"
        );
        let mut said = Vec::new();
        if let Ok(mut socket) = TcpStream::connect(&self.address) {
            _ = socket.write_all(head.as_bytes());
            _ = socket.write_all(body);
            _ = socket.read_to_end(&mut said);
        }
        said
    }
}

/// A directory with a store `d` that has the namespace `n`.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut create = Command::new(RIMSTONE);
    create
        .current_dir(&directory)
        .args(["namespace", "create", "n", "--data", "d"]);
    assert!(create.status().unwrap().success());
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

#[test]
fn a_segment_cut_short_under_a_server_ends_it_by_name_and_harms_nothing() {
    let directory = store();
    let data = directory.path().join("d");
    let mut server = Server::start(directory.path(), "");
    assert!(
        server
            .ask("PUT /large", &vec![1; 300_000])
            .starts_with(b"HTTP/1.1 200")
    );
    for key in 0..20 {
        let put = server.ask(&format!("PUT /{key}"), &[2; 8000]);
        assert!(put.starts_with(b"HTTP/1.1 200"));
    }
    let segments = files(&data).into_keys();
    let active = segments
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .max()
        .unwrap();
    File::options()
        .write(true)
        .open(&active)
        .unwrap()
        .set_len(40_960)
        .unwrap();
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
    assert!(files(&data) == before, "nothing changed");

    // What is left is served, what was lost is no older value and no crash.
    let server = Server::start(directory.path(), "");
    assert!(server.ask("GET /large", b"").ends_with(&[1; 300_000]));
    assert!(server.ask("GET /0", b"").ends_with(&[2; 8000]));
    let lost = server.ask("GET /19", b"");
    assert!(lost.starts_with(b"HTTP/1.1 404") || lost.starts_with(b"HTTP/1.1 500"));
}

#[test]
fn a_limit_of_file_sizes_refuses_a_value_and_the_server_goes_on() {
    let directory = store();
    let server = Server::start(directory.path(), "ulimit -f 4096;");
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
