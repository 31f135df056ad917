//! The token of a server stays with those who know it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

const TOKEN: &str = "Planted-Token-4fd1c0ffee";

/// What the server says to these bytes.
fn send(address: &str, sent: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    _ = socket.write_all(sent.as_bytes());
    _ = socket.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    _ = socket.read_to_end(&mut said);
    said
}

#[test]
fn nothing_that_leaves_the_server_holds_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimstone"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(directory.path().join("d"));
    command
        .env("RIMSTONE_TOKEN", TOKEN)
        .env("RUST_LOG", "trace");
    let mut server = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut output = String::new();
    stdout.read_line(&mut output).unwrap();
    let address = output.trim().rsplit('/').next().unwrap().to_owned();

    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    let wrong = format!("authorization: Bearer {TOKEN}x\r\n");
    let rest = "/client/v4/accounts/a/storage/kv/namespaces";
    let mut said = Vec::new();
    for (line, headers) in [
        (format!("GET {rest}"), &bearer),
        (format!("GET {rest}"), &wrong),
        (format!("GET {rest}?per_page=x"), &bearer),
        (format!("GET {rest}/x/values/k"), &bearer),
        (format!("BREW {rest}"), &bearer),
        ("GET /client/v4/user/tokens/verify".to_owned(), &bearer),
        ("GET /k".to_owned(), &bearer),
        ("GET /k".to_owned(), &wrong),
        (format!("GET /k?token={TOKEN}"), &wrong),
        (format!("GET http://{TOKEN}@x/k"), &wrong),
        ("GET /k BROKEN".to_owned(), &bearer),
    ] {
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let answer = send(&address, &head);
        assert!(answer.starts_with(b"HTTP/1.1 "), "{line}");
        said.extend(answer);
    }
    server.kill().unwrap();
    stdout.read_to_string(&mut output).unwrap();
    server
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    server.wait().unwrap();
    said.extend(output.into_bytes());
    for entry in fs::read_dir(directory.path().join("d")).unwrap() {
        said.extend(fs::read(entry.unwrap().path()).unwrap());
    }
    let token = TOKEN.as_bytes();
    assert!(!said.windows(token.len()).any(|window| window == token));
}
