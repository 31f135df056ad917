//! A served store, and a client of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) const RIMSTONE: &str = env!("CARGO_BIN_EXE_rimstone");

/// A server, ended when it is dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
}

impl Server {
    /// Serves the store `d` after what a shell does before it.
    pub(crate) fn start(directory: &Path, before: &str, stderr: Stdio) -> Server {
        let line = format!("{before} {RIMSTONE} serve --data d --listen 127.0.0.1:0");
        let mut command = Command::new("sh");
        command
            .current_dir(directory)
            .args(["-c", &line])
            .env_remove("RIMSTONE_TOKEN")
            // Threads that wait, or fault, must not keep the others from their work.
            .env("TOKIO_WORKER_THREADS", "8");
        command.stdout(Stdio::piped()).stderr(stderr);
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Server { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Makes the store `d` with the namespace `n`.
pub(crate) fn create(directory: &Path) {
    let mut create = Command::new(RIMSTONE);
    create
        .current_dir(directory)
        .args(["namespace", "create", "n", "--data", "d"]);
    assert!(create.status().unwrap().success());
}

/// The head of a request to the binding.
pub(crate) fn head(line: &str, len: usize) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-kv-namespace: n\r\n\
         content-length: {len}\r\n\r\n"
    )
}
