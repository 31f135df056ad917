//! A server on a free port, and a client that hides nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use rimstone::{ListOptions, Options, Store};
use rimstone_server::Server;
use rimstone_server::limits::Limits;
use serde_json::Value;

pub(crate) const MIB_25: usize = 25 << 20;
pub(crate) const NAMESPACES: &str = "/client/v4/accounts/any/storage/kv/namespaces";

/// Says a line on stderr, past the capture of the test harness.
pub(crate) fn say(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where it tells its metrics.
    pub(crate) metrics: SocketAddr,
    pub(crate) store: Store,
    /// The id of the namespace `ns`.
    pub(crate) id: String,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

pub(crate) fn start(token: Option<&str>) -> Running {
    start_within(token, Limits::default())
}

pub(crate) fn start_within(token: Option<&str>, limits: Limits) -> Running {
    start_on(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        Options::new(),
        token,
        limits,
    )
}

/// A server on a store with a hot cache.
pub(crate) fn start_cached() -> Running {
    let options = Options::new().cache(4 << 20);
    start_on(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        options,
        None,
        Limits::default(),
    )
}

pub(crate) fn start_on(
    address: IpAddr,
    options: Options,
    token: Option<&str>,
    limits: Limits,
) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let store = options.open(directory.path()).unwrap();
    let id = store.create_namespace("ns").unwrap().id().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let any = SocketAddr::new(address, 0);
    let server = Server::bind(any, token.map(str::to_owned), !address.is_loopback());
    let server = runtime.block_on(server).unwrap().with_limits(limits);
    let told = server.with_metrics(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    let (server, metrics) = runtime.block_on(told).unwrap();
    let address = server.local_addr().unwrap();
    runtime.spawn(server.serve(store.clone(), std::future::pending()));
    Running {
        address,
        metrics,
        store,
        id,
        _runtime: runtime,
        _directory: directory,
    }
}

impl Running {
    /// A request of the binding to the namespace `ns`.
    pub(crate) fn binding(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let len = format!("content-length: {}\r\n", body.len());
        self.raw(line, &format!("x-kv-namespace: ns\r\n{len}{headers}"), body)
    }

    /// A request of the REST API, below the namespaces of an account.
    pub(crate) fn rest(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let len = format!("content-length: {}\r\n", body.len());
        self.raw(&format!("{method} {NAMESPACES}{path}"), &len, body)
    }

    /// A request of the REST API inside the namespace `ns`.
    pub(crate) fn inside(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.rest(method, &format!("/{}/{path}", self.id), body)
    }

    /// A form put of the REST API.
    pub(crate) fn form(&self, path: &str, body: &[u8]) -> Answer {
        let line = format!("PUT {NAMESPACES}/{}/{path}", self.id);
        let len = body.len();
        let kind = "content-type: multipart/form-data; boundary=B\r\n";
        self.raw(&line, &format!("{kind}content-length: {len}\r\n"), body)
    }

    /// One request and its response; the server may keep the connection.
    pub(crate) fn raw(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let mut socket = self.connect();
        // The server may answer, and stop reading, before all is sent.
        _ = socket.write_all(head.as_bytes());
        _ = socket.write_all(body);
        let answer = Answer::read(&mut socket).unwrap();
        check_described(line, answer.status());
        answer
    }

    /// Sends bytes, ends the sending side, and reads until the connection closes.
    pub(crate) fn send(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut socket = self.connect();
        for part in parts {
            _ = socket.write_all(part);
        }
        _ = socket.shutdown(Shutdown::Write);
        let mut all = Vec::new();
        _ = socket.read_to_end(&mut all);
        all
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// How many keys the namespace `ns` has, up to a page of them.
    pub(crate) fn keys(&self) -> usize {
        let ns = self.store.find_namespace("ns").unwrap();
        ns.list(&ListOptions::new()).unwrap().len()
    }
}

pub(crate) struct Answer {
    /// Status and reason.
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The next response; `None` if the connection closes before one has begun.
    pub(crate) fn read(socket: &mut TcpStream) -> Option<Answer> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(socket.read(&mut byte), Ok(1)) {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next()?.strip_prefix("HTTP/1.1 ")?.to_owned();
        let len = head
            .split_once("content-length: ")
            .map(|(_, rest)| rest.lines().next());
        let len = len.flatten().map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; len];
        socket.read_exact(&mut body).unwrap();
        Some(Answer { line, head, body })
    }

    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status, code and message of a refusal, whose envelope must have no other parts.
    pub(crate) fn refusal(&self) -> (u16, u64, String) {
        let body = self.json();
        let error = &body["errors"][0];
        let (code, message) = (&error["code"], &error["message"]);
        let rest = serde_json::json!({
            "success": false, "errors": body["errors"], "messages": [], "result": null,
        });
        assert_eq!(body, rest);
        let message = message.as_str().unwrap().to_owned();
        (self.status(), code.as_u64().unwrap(), message)
    }
}

/// Whatever a test is answered by an operation of the REST API, `docs/openapi.json` tells of.
fn check_described(line: &str, status: u16) {
    let description: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let path = target.split('?').next().unwrap();
    let paths = description["paths"].as_object().unwrap();
    // Of those that fit the one with the fewest holes.
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    let place = fitting.min_by_key(|(template, _)| template.matches('{').count());
    let operation = place.and_then(|(_, methods)| methods.get(method.to_ascii_lowercase()));
    if let Some(operation) = operation {
        let described = operation["responses"].get(status.to_string());
        assert!(described.is_some(), "{line} is answered {status}");
    }
}

/// Whether a path is one of a template, the last part of which may have slashes if it is a hole.
fn fits(template: &str, path: &str) -> bool {
    let holes = template.split('/').count();
    let mut parts = path.splitn(holes, '/');
    let same = |hole: &str| {
        let part = parts.next();
        part.is_some_and(|part| part == hole || hole.starts_with('{') && !part.is_empty())
    };
    let all = template.split('/').all(same);
    let last_is_key = template.ends_with("{key_name}");
    all && (last_is_key || path.split('/').count() == holes)
}

#[test]
fn an_answer_that_is_not_described_is_noticed() {
    let token = "GET /client/v4/user/tokens/verify";
    let value = format!("GET {NAMESPACES}/0/values/a/b?c");
    for line in [token, &value] {
        check_described(line, 401);
        assert!(std::panic::catch_unwind(|| check_described(line, 507)).is_err());
    }
}
