//! What the server tells of itself, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rimstone::Options;
use rimstone_server::Server;
use rimstone_server::limits::Limits;
use rimstone_tests::{Fault, SimDisk};

use crate::support::{Answer, start, start_cached, start_on};

fn ask(address: SocketAddr, line: &str) -> Answer {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    Answer::read(&mut socket).unwrap()
}

/// What a text says, by name and labels; it must be as Prometheus wants it.
fn told(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = ask(address, "GET /metrics");
    assert_eq!(answer.status(), 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    let (mut told, mut kinds) = (BTreeMap::new(), BTreeSet::new());
    for line in answer.text().lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert!(kinds.insert(name.to_owned()), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        assert!(
            kinds.contains(name) || base.is_some_and(|base| kinds.contains(base)),
            "{name} has no type"
        );
        let before = told.insert(sample.to_owned(), value.parse().unwrap());
        assert_eq!(before, None, "{sample} twice");
    }
    told
}

#[test]
fn metrics_and_health_are_told_on_their_own_address_only() {
    let server = start(None);
    assert!(
        ask(server.metrics, "GET /metrics")
            .text()
            .contains("rimstone_keys")
    );
    assert_eq!(ask(server.metrics, "GET /health").status(), 200);
    assert_eq!(ask(server.metrics, "GET /").status(), 404);
    assert_eq!(ask(server.metrics, "PUT /metrics").status(), 405);
    // There a path is a key, and a namespace is asked for first.
    for path in [
        "metrics",
        "health",
        "debug",
        "stats",
        "healthz",
        "debug/pprof/",
    ] {
        let answer = ask(server.address, &format!("GET /{path}"));
        assert_eq!(answer.status(), 400);
        assert!(answer.body.is_empty());
        let answer = server.binding(&format!("GET /{path}"), "", b"");
        assert_eq!(answer.status(), 404);
        assert!(answer.body.is_empty());
    }
    // Nor does the other address know clients' requests.
    assert_eq!(
        ask(server.metrics, "GET /client/v4/user/tokens/verify").status(),
        404
    );
}

/// Who is told so takes writers elsewhere; reads go on.
#[test]
fn a_store_that_stopped_writing_is_not_healthy() {
    let disk = SimDisk::new();
    let options = Options::new().vfs(Arc::new(disk.clone()));
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let server = start_on(localhost, options, None, Limits::default());
    assert_eq!(server.binding("PUT /k", "", b"v").status(), 200);
    assert_eq!(ask(server.metrics, "GET /health").status(), 200);
    disk.fail(0, Fault::Forget, false);
    assert!(server.binding("PUT /k", "", b"w").status() >= 500);
    assert_eq!(ask(server.metrics, "GET /health").status(), 503);
    assert_eq!(told(server.metrics)["rimstone_poisoned"], 1.0);
    let refused = server.inside("PUT", "values/k", b"w");
    assert_eq!(refused.status(), 503);
    assert!(refused.head.contains("\r\nretry-after: "));
    assert_eq!(server.binding("GET /k", "", b"").body, b"v");
}

#[test]
fn what_was_asked_is_counted() {
    let server = start_cached();
    for _ in 0..3 {
        assert_eq!(server.binding("PUT /k", "", b"v").status(), 200);
    }
    assert_eq!(server.binding("GET /k?cache_ttl=60", "", b"").status(), 200);
    assert_eq!(server.binding("GET /k?cache_ttl=60", "", b"").status(), 200);
    assert_eq!(server.binding("GET /missing", "", b"").status(), 404);
    assert_eq!(server.inside("GET", "keys", b"").status(), 200);
    let told = told(server.metrics);
    let value = |name: &str| told[&format!("rimstone_{name}")];
    let requests = |dialect: &str, class: &str| {
        value(&format!(
            "requests_total{{dialect=\"{dialect}\",status=\"{class}\"}}"
        ))
    };
    assert_eq!(requests("binding", "2xx"), 5.0);
    assert_eq!(requests("binding", "4xx"), 1.0);
    assert_eq!(requests("rest", "2xx"), 1.0);
    assert_eq!(value("request_seconds_count"), 7.0);
    assert_eq!(value("request_seconds_bucket{le=\"+Inf\"}"), 7.0);
    assert!(value("request_seconds_sum") > 0.0);
    let buckets: Vec<f64> = told
        .iter()
        .filter(|(name, _)| name.starts_with("rimstone_request_seconds_bucket"))
        .map(|(_, count)| *count)
        .collect();
    assert!(buckets.len() > 10 && buckets.iter().all(|count| *count <= 7.0));
    assert_eq!(value("keys"), 1.0);
    assert_eq!(value("namespaces"), 1.0);
    assert_eq!(value("cache_hits_total"), 1.0);
    assert_eq!((value("degraded"), value("poisoned")), (0.0, 0.0));
    assert_eq!(value("connections_total"), 7.0);
}

#[test]
fn metrics_stay_on_loopback() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let told = runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), None, false).await;
        server
            .unwrap()
            .with_metrics("0.0.0.0:0".parse().unwrap())
            .await
    });
    let refused = told.err().unwrap().to_string();
    assert_eq!(
        refused,
        "metrics are told without a token, so only on loopback"
    );
}
