//! Requests that nobody sends by accident, on raw sockets.
//!
//! A case is one connection's bytes. Each puts a value, or hides a second request that would: whatever
//! the words of the refusal, nothing may be stored.

mod auth;
mod framing;
mod keys;
mod limits;
mod slow;

use crate::support::{Running, say};

/// The bytes of a connection that must be refused.
pub(super) struct Case {
    sent: Vec<u8>,
    status: u16,
    /// Part of the response, so that the refusal is for this reason and no other.
    says: &'static str,
}

impl Case {
    fn new(status: u16, says: &'static str, sent: impl Into<Vec<u8>>) -> Case {
        let sent = sent.into();
        Case { sent, status, says }
    }

    /// Sends it: there must be one response, which refuses it, and the store stays empty.
    #[track_caller]
    fn run(&self, server: &Running) -> String {
        let said = server.send(&[&self.sent]);
        let said = String::from_utf8_lossy(&said).into_owned();
        let start = &self.sent[..self.sent.len().min(300)];
        let shown = format!("{}: {said}", String::from_utf8_lossy(start).escape_debug());
        let line = format!("HTTP/1.1 {} ", self.status);
        assert!(said.starts_with(&line), "not {}: {shown}", self.status);
        assert!(said.contains(self.says), "not {:?}: {shown}", self.says);
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{shown}");
        assert_eq!(server.keys(), 0, "{shown}");
        said
    }
}

/// A request of the binding to the namespace `ns`, with its length.
fn binding(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    request(line, &format!("x-kv-namespace: ns\r\n{headers}"), body)
}

/// A request with its length.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A table that lost its rows would pass.
#[test]
fn there_are_150_cases() {
    let id = "0123456789abcdef0123456789abcdef";
    let counts = [
        ("smuggling and framing", framing::cases().len(), 60),
        ("limits", limits::cases(id).len(), 30),
        ("slow clients", slow::cases(id).len(), 20),
        ("auth", auth::cases().len(), 20),
        ("keys and parameters", keys::cases(id).len(), 20),
    ];
    for (what, count, least) in counts {
        say(&format!("{count:4} {what}"));
        assert!(count >= least, "{what}: {count} of {least}");
    }
    say(&format!(
        "{:4} in all",
        counts.map(|(_, count, _)| count).iter().sum::<usize>()
    ));
}
