//! Requests of strangers, through a whole connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rimstone::fuzzing::Input;
use rimstone::{Clock, Durability, ListOptions, Namespace, Store};
use rimstone_tests::{SimDisk, open_alone};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const NOW: u64 = 1_700_000_000;
pub(crate) const NAMESPACES: &str = "/client/v4/accounts/any/storage/kv/namespaces";
pub(crate) const KEPT: &str = "the only value";

/// How many inputs one server serves that change something, so that what they leave in the log is bounded.
const CHANGES_MAX: u32 = 256;

/// A store with the namespace `ns` and one key in it.
pub(crate) struct Server {
    store: Store,
    pub(crate) ns: Namespace,
    pub(crate) clock: Clock,
    runtime: tokio::runtime::Runtime,
    changes: u32,
}

thread_local! {
    /// The server between two inputs: opening a store takes a hundred times as long as a request.
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

impl Server {
    fn new() -> Server {
        let clock = Clock::manual(NOW);
        let store = open_alone(&SimDisk::new(), &clock, Durability::None).expect("a store");
        let ns = store.namespace("ns").expect("a namespace");
        ns.put("key", KEPT).expect("a put");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().expect("a runtime");
        Server {
            store,
            ns,
            clock,
            runtime,
            changes: 0,
        }
    }

    /// Runs `check` with a server that holds nothing but that one key.
    pub(crate) fn with(check: impl FnOnce(&Server)) {
        let server = SERVER.take().unwrap_or_else(Server::new);
        check(&server);
        SERVER.set(server.tidied());
    }

    /// As it was at the beginning, unless it is worn.
    fn tidied(mut self) -> Option<Server> {
        if self.is_untouched() {
            return Some(self);
        }
        self.changes += 1;
        for ns in self.store.namespaces() {
            if ns.id() != self.ns.id() {
                self.store.drop_namespace(ns.id()).expect("a namespace");
            }
        }
        self.store.rename_namespace(self.ns.id(), "ns").ok()?;
        self.ns.delete_prefix("").expect("a delete");
        self.ns.put("key", KEPT).expect("a put");
        (self.changes < CHANGES_MAX && self.is_untouched()).then_some(self)
    }

    /// What comes back when a client sends these bytes and no more.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> Vec<u8> {
        let sent = Arc::default();
        let connection = Bytes {
            from: bytes,
            at: 0,
            to: Arc::clone(&sent),
        };
        let serve = rimstone_server::fuzzing::serve(self.store.clone(), connection);
        self.runtime.block_on(serve);
        let sent = sent.lock().expect("nobody panicked");
        sent.clone()
    }

    /// One request inside the namespace: status and body.
    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (id, len) = (self.ns.id(), body.len());
        let head = format!(
            "{method} {NAMESPACES}/{id}/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {len}\r\n{headers}\r\n"
        );
        let answer = self.send([head.as_bytes(), body].concat());
        let line = answer.strip_prefix(b"HTTP/1.1 ").expect("a response");
        let status = std::str::from_utf8(&line[..3]).expect("a status");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let body = answer[end.expect("a head") + 4..].to_vec();
        (status.parse().expect("a status"), body)
    }

    /// All keys of the namespace.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let mut options = ListOptions::new();
        let mut keys = Vec::new();
        loop {
            let page = self.ns.list(&options).expect("an intact store");
            keys.extend(page.keys().map(|key| key.name.to_vec()));
            let Some(cursor) = page.cursor else {
                return keys;
            };
            options = options.cursor(cursor);
        }
    }

    /// Whether nothing was written.
    fn is_untouched(&self) -> bool {
        let value = self.ns.get("key").expect("an intact store");
        self.store.namespaces().len() == 1
            && self.keys() == [b"key"]
            && value.is_some_and(|value| value[..] == *KEPT.as_bytes())
    }
}

/// A connection of bytes in memory.
struct Bytes {
    from: Vec<u8>,
    at: usize,
    to: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &self.from[self.at..];
        let part = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(part);
        self.at += part.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.to.lock().expect("nobody panicked").extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whatever arrives on a connection: responses or a close, and no change unless a request succeeded.
pub fn http_bytes(data: &[u8]) {
    Server::with(|server| check_http_bytes(server, data));
}

fn check_http_bytes(server: &Server, data: &[u8]) {
    let answer = server.send(data.to_vec());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
    let succeeded = answer
        .windows(10)
        .any(|w| w == b"HTTP/1.1 2" || w == b"HTTP/1.0 2");
    assert!(succeeded || server.is_untouched(), "a change without a 2xx");
}

/// A form is stored as its parts say, or refused without a trace.
pub fn multipart(data: &[u8]) {
    Server::with(|server| check_form(server, data));
}

fn check_form(server: &Server, data: &[u8]) {
    let mut input = Input(data);
    let boundary = ["B", "----x", "\"quoted\"", "a b"][usize::from(input.u8() & 3)];
    let kind = format!("content-type: multipart/form-data; boundary={boundary}\r\n");
    let body = input.0;
    let (status, _) = server.request("PUT", "values/new", &kind, body);
    if status != 200 {
        assert!((400..500).contains(&status), "{status}");
        assert!(server.is_untouched());
        return;
    }
    let entry = server.ns.get_with_metadata("new").expect("an intact store");
    let entry = entry.expect("what was acknowledged");
    let value = entry.value();
    let is_part = value.is_empty() || body.windows(value.len()).any(|part| part == &value[..]);
    assert!(is_part, "a value that was not sent");
    check_metadata(entry.metadata());
    assert!(entry.expiration().is_none_or(|at| at >= NOW + 60));
}

fn check_metadata(metadata: &[u8]) {
    assert!(metadata.len() <= 1024);
    let json = serde_json::from_slice::<&serde_json::value::RawValue>(metadata);
    assert!(metadata.is_empty() || json.is_ok());
}

/// Bulk requests: all of it is done, exactly, or nothing.
pub fn bulk_json(data: &[u8]) {
    Server::with(|server| check_bulk_json(server, data));
}

fn check_bulk_json(server: &Server, data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8() % 3;
    let body = input.0;
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let count = |answer: &[u8]| {
        let answer: Value = serde_json::from_slice(answer).expect("an envelope");
        answer["result"]["successful_key_count"].as_u64()
    };
    let (method, path) = [
        ("PUT", "bulk"),
        ("POST", "bulk/delete"),
        ("POST", "bulk/get"),
    ][usize::from(kind)];
    let (status, answer) = server.request(method, path, "", body);
    if status != 200 {
        assert!((400..500).contains(&status), "{status}");
        assert!(server.is_untouched());
        return;
    }
    let Some(parsed) = parsed else {
        // What the server parses as well, but for what it does not look into: depth, lone surrogates.
        return;
    };
    match kind {
        0 => check_put(server, &parsed, count(&answer)),
        1 => {
            let keys = parsed.as_array().expect("keys");
            assert_eq!(count(&answer), Some(keys.len() as u64));
            let deleted = keys.iter().any(|key| key == "key");
            assert_eq!(server.keys().is_empty(), deleted);
        }
        _ => {
            assert!(server.is_untouched());
            let answer: Value = serde_json::from_slice(&answer).expect("an envelope");
            let values = answer["result"]["values"].as_object().expect("values");
            let asked = parsed["keys"].as_array().expect("keys");
            assert!(asked.len() <= 100);
            assert!(
                values
                    .keys()
                    .all(|key| asked.iter().any(|asked| asked == key))
            );
            assert!(
                asked
                    .iter()
                    .all(|key| values.contains_key(key.as_str().expect("a key")))
            );
        }
    }
}

fn check_put(server: &Server, parsed: &Value, count: Option<u64>) {
    let base64 =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&base64::alphabet::STANDARD, base64);
    let pairs = parsed.as_array().expect("pairs");
    assert_eq!(count, Some(pairs.len() as u64));
    assert!(pairs.len() <= 10_000);
    let mut expected = std::collections::BTreeMap::from([("key", KEPT.as_bytes().to_vec())]);
    for pair in pairs {
        let (key, value) = (pair["key"].as_str(), pair["value"].as_str());
        let (key, value) = (key.expect("a key"), value.expect("a value"));
        let value = match pair.get("base64") {
            Some(Value::Bool(true)) => base64.decode(value).expect("base64"),
            _ => value.as_bytes().to_vec(),
        };
        expected.insert(key, value);
    }
    let keys: Vec<_> = expected.keys().map(|key| key.as_bytes().to_vec()).collect();
    assert_eq!(server.keys(), keys);
    for (key, value) in &expected {
        let entry = server.ns.get_with_metadata(key).expect("an intact store");
        let entry = entry.expect("what was acknowledged");
        assert_eq!(entry.value()[..], value[..]);
        check_metadata(entry.metadata());
        assert!(entry.expiration().is_none_or(|at| at >= NOW + 60));
    }
}

/// A query decides what is listed, or how a put expires.
pub fn query(data: &[u8]) {
    Server::with(|server| check_query(server, data));
}

fn check_query(server: &Server, data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8() % 3;
    // Everything else is not part of a URI, and would end or break the request line.
    let query = input
        .0
        .iter()
        .filter(|byte| byte.is_ascii_graphic() && **byte != b'#');
    let query: String = query.map(|byte| char::from(*byte)).take(4096).collect();
    for key in ["a/1", "a/2", "b/é", "c"] {
        server.ns.put(key, "x").expect("a put");
    }
    let first = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(given, _)| given == name)
            .map(|(_, value)| value)
    };
    if kind == 0 {
        let (status, _) = server.request("PUT", &format!("values/new?{query}"), "", b"v");
        let entry = server.ns.get_with_metadata("new").expect("an intact store");
        match status {
            200 => {
                let at = entry.expect("what was acknowledged").expiration();
                assert!(at.is_none_or(|at| at >= NOW + 60));
                assert_eq!(
                    at.is_some(),
                    ["expiration", "expiration_ttl"]
                        .iter()
                        .any(|n| first(n).is_some())
                );
            }
            400..500 => assert_eq!(entry, None),
            _ => panic!("{status}"),
        }
        return;
    }
    let path = if kind == 1 { "keys" } else { "" };
    let path = format!("{path}?{query}");
    let (status, answer) = server.request("GET", &path, "", b"");
    assert!(status == 200 || (400..500).contains(&status), "{status}");
    if answer.is_empty() {
        assert_eq!(status, 400, "a head that is none of HTTP's");
        return;
    }
    let answer: Value = serde_json::from_slice(&answer).expect("an envelope");
    assert_eq!(answer["success"], status == 200);
    if kind == 1 && status == 200 {
        let prefix = first("prefix").unwrap_or_default();
        let keys = answer["result"].as_array().expect("keys");
        let names = keys.iter().map(|key| key["name"].as_str().expect("a name"));
        let all = server.keys();
        let all: Vec<_> = all.iter().map(|key| String::from_utf8_lossy(key)).collect();
        let expected = all.iter().filter(|key| key.starts_with(&*prefix));
        assert!(names.eq(expected), "five keys are one page: {query}");
    }
}
