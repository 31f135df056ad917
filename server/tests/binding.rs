//! The binding protocol over a real socket.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rimstone::Store;
use rimstone_server::Server;

const MIB_25: usize = 25 << 20;

struct Running {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

struct Answer {
    line: String,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn start(token: Option<&str>) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.create_namespace("ns").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(store, any, token.map(str::to_owned), false);
    let server = runtime.block_on(server).unwrap();
    let address = server.local_addr().unwrap();
    runtime.spawn(server.serve(std::future::pending()));
    Running {
        address,
        _runtime: runtime,
        _directory: directory,
    }
}

impl Running {
    fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let len = format!("content-length: {}\r\n", body.len());
        self.raw(line, &format!("x-kv-namespace: ns\r\n{len}{headers}"), body)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", b"")
    }

    fn put(&self, path: &str, body: &[u8]) -> String {
        self.ask(&format!("PUT {path}"), "", body).line
    }

    fn raw(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        // The server may answer, and stop reading, before all is sent.
        _ = socket.write_all(body);
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let body = all.split_off(end + 4);
        let head = String::from_utf8(all).unwrap();
        let line = head.lines().next().unwrap();
        let line = line.strip_prefix("HTTP/1.1 ").unwrap().to_owned();
        Answer { line, head, body }
    }
}

#[test]
fn a_value_is_put_read_and_deleted() {
    let server = start(None);
    assert_eq!(server.put("/k?urlencoded=true", b"value"), "200 OK");
    assert_eq!(server.get("/k?urlencoded=true").text(), "value");
    assert_eq!(server.ask("DELETE /k", "", b"").line, "200 OK");
    assert_eq!(server.get("/k").line, "404 Not Found");
}

#[test]
fn a_slash_may_be_escaped_and_a_plus_is_a_plus() {
    let server = start(None);
    server.put("/a%2Fb+c", b"1");
    assert_eq!(server.get("/a/b%2Bc").text(), "1");
}

#[test]
fn a_key_may_be_named_like_the_bulk_route() {
    let server = start(None);
    server.put("/bulk%2Fget", b"1");
    assert_eq!(server.get("/bulk%2Fget").text(), "1");
}

#[test]
fn broken_escapes_are_refused() {
    let line = start(None).get("/%ED%A0%80").line;
    assert_eq!(line, "400 Could not URL-decode key name");
}

#[test]
fn a_long_key_is_refused() {
    let line = start(None).get(&format!("/{}", "k".repeat(513))).line;
    let text = "414 UTF-8 encoded length of 513 exceeds key length limit of 512.";
    assert_eq!(line, text);
}

#[test]
fn metadata_travels_as_utf8() {
    let server = start(None);
    server.ask("PUT /k", "cf-kv-metadata: {\"a\":\"ä\"}\r\n", b"");
    assert!(
        server
            .get("/k")
            .head
            .contains("cf-kv-metadata: {\"a\":\"ä\"}")
    );
}

#[test]
fn metadata_that_is_no_json_or_too_long_is_refused() {
    let server = start(None);
    let put = |metadata: &str| {
        let header = format!("cf-kv-metadata: {metadata}\r\n");
        server.ask("PUT /k", &header, b"").line
    };
    assert_eq!(put("{"), "400 Metadata must be valid JSON");
    let long = format!("\"{}\"", "m".repeat(1023));
    assert_eq!(
        put(&long),
        "413 Metadata length of 1025 exceeds limit of 1024."
    );
}

#[test]
fn expirations_too_near_are_refused() {
    let server = start(None);
    let ttl = "400 Invalid expiration_ttl of 30. Expiration TTL must be at least 60.";
    assert_eq!(server.put("/k?expiration_ttl=30", b""), ttl);
    let zero = "400 Invalid expiration_ttl of 0. Please specify integer greater than 0.";
    assert_eq!(server.put("/k?expiration_ttl=0", b""), zero);
    assert!(
        server
            .put("/k?expiration=1", b"")
            .ends_with("since the UNIX epoch.")
    );
}

#[test]
fn a_value_of_25_mib_is_stored_whole() {
    let server = start(None);
    assert_eq!(server.put("/k", &vec![7; MIB_25]), "200 OK");
    assert!(server.get("/k").body == vec![7; MIB_25]);
}

#[test]
fn one_byte_more_is_refused_declared_or_chunked() {
    let server = start(None);
    let text = "413 Value length of 26214401 exceeds limit of 26214400.";
    assert_eq!(server.put("/k", &vec![7; MIB_25 + 1]), text);
    let mut chunked = format!("{:x}\r\n", MIB_25 + 1).into_bytes();
    chunked.resize(chunked.len() + MIB_25 + 1, 7);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let headers = "x-kv-namespace: ns\r\ntransfer-encoding: chunked\r\n";
    let line = server.raw("PUT /k", headers, &chunked).line;
    assert!(line.starts_with("413 Value length of "), "{line}");
    assert_eq!(server.get("/k").line, "404 Not Found");
}

#[test]
fn a_list_is_paged_in_byte_order() {
    let server = start(None);
    for key in ["/b", "/a", "/c"] {
        server.put(key, b"");
    }
    let page = server.get("/?key_count_limit=2");
    let start = "{\"keys\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"list_complete\":false,\"cursor\":";
    assert!(page.text().starts_with(start), "{}", page.text());
    let rest = "{\"keys\":[{\"name\":\"c\"}],\"list_complete\":true}";
    assert_eq!(server.get("/?prefix=c").text(), rest);
    assert_eq!(server.get("/?cursor=nonsense").line, "400 Invalid cursor");
}

#[test]
fn a_bulk_get_answers_in_the_order_asked_for() {
    let server = start(None);
    server.put("/10", b"ten");
    let body = br#"{"keys":["z","10"],"withMetadata":true}"#;
    let answer = server.ask("POST /bulk/get", "", body);
    let text = r#"{"z":null,"10":{"value":"ten","metadata":null}}"#;
    assert_eq!(answer.text(), text);
    let none = server.ask("POST /bulk/get", "", br#"{"keys":[]}"#).line;
    assert_eq!(none, "400 You must request a minimum of 1 key");
}

#[test]
fn a_request_without_a_namespace_is_refused() {
    let line = start(None).raw("GET /k", "", b"").line;
    assert!(line.starts_with("400 namespace not found"), "{line}");
}

#[test]
fn only_the_token_opens() {
    let server = start(Some("secret"));
    let ask = |header: &str| server.ask("GET /k", header, b"").line;
    assert_eq!(ask(""), "401 Authentication error");
    assert_eq!(
        ask("authorization: Bearer wrong\r\n"),
        "401 Authentication error"
    );
    assert_eq!(ask("authorization: Bearer secret\r\n"), "404 Not Found");
}
