//! What the server counts, told to Prometheus by a listener of its own, which is never the one of clients.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rimstone::Stats;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connection::Connection;
use crate::limits::METRICS_CONNECTIONS_MAX;
use crate::response::{Outgoing, status, whole};
use crate::{Shared, limits};

/// Upper bounds of the counted times, in microseconds.
const TIMES: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000,
];

/// Which dialect a request was in, as metrics call it.
pub(crate) const DIALECTS: [&str; 2] = ["binding", "rest"];

/// The classes of status codes, from 1xx.
const CLASSES: usize = 5;

/// Counts of the server's own since it was started.
#[derive(Default)]
pub(crate) struct Metrics {
    answered: [[AtomicU64; CLASSES]; DIALECTS.len()],
    /// By the first bound that they are within; the last has none.
    times: [AtomicU64; TIMES.len() + 1],
    micros: AtomicU64,
    /// Connections that were accepted, and that were one too many for their address.
    accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// One reference here and one for each open connection, whose task may panic.
    open: Arc<()>,
}

impl Metrics {
    /// Counts a connection, which is open until the mark is dropped.
    pub(crate) fn accepted(&self) -> Arc<()> {
        add(Some(&self.accepted), 1);
        Arc::clone(&self.open)
    }

    fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Counts a request whose response begins now.
    pub(crate) fn answered(&self, is_rest: bool, status: StatusCode, time: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let dialect = self.answered.get(usize::from(is_rest));
        add(dialect.and_then(|classes| classes.get(class)), 1);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bound = TIMES.iter().position(|bound| micros <= *bound);
        add(self.times.get(bound.unwrap_or(TIMES.len())), 1);
        add(Some(&self.micros), micros);
    }

    fn show(&self, stats: &Stats) -> String {
        let mut text = Text::default();
        text.head("requests_total", "counter", "Requests answered.");
        for (dialect, classes) in DIALECTS.iter().zip(&self.answered) {
            for (class, count) in (1..).zip(classes) {
                let labels = format!("dialect=\"{dialect}\",status=\"{class}xx\"");
                text.labelled("requests_total", &labels, load(count));
            }
        }
        self.show_times(&mut text);
        let open = self.open() as u64;
        text.number("connections", "Open connections of clients.", open);
        let accepted = load(&self.accepted);
        text.number("connections_total", "Connections accepted.", accepted);
        text.number(
            "connections_refused_total",
            "Connections closed at once, as their address had enough.",
            load(&self.refused),
        );
        show_store(&mut text, stats);
        text.0
    }

    fn show_times(&self, text: &mut Text) {
        let name = "request_seconds";
        text.head(name, "histogram", "Time to the beginning of the response.");
        let mut count = 0;
        for (bound, within) in TIMES.iter().zip(&self.times) {
            count += load(within);
            let labels = format!("le=\"{}\"", seconds(*bound));
            text.labelled("request_seconds_bucket", &labels, count);
        }
        count += self.times.last().map_or(0, load);
        text.labelled("request_seconds_bucket", "le=\"+Inf\"", count);
        text.line("request_seconds_sum", seconds(load(&self.micros)));
        text.line("request_seconds_count", count);
    }
}

fn show_store(text: &mut Text, stats: &Stats) {
    let of_all = [
        (
            "degraded",
            "Whether something stored is damaged.",
            u64::from(!stats.damage.is_empty()),
        ),
        (
            "damages",
            "Places found damaged.",
            stats.damage.len() as u64,
        ),
        (
            "poisoned",
            "Whether a failed write or flush stopped all writing.",
            u64::from(stats.poisoned),
        ),
        (
            "maintenance_failed",
            "Whether maintenance failed when it last tried.",
            u64::from(stats.maintenance_error.is_some()),
        ),
        (
            "stuck_segments",
            "Segments that compaction cannot read.",
            stats.stuck_segments,
        ),
        (
            "keys",
            "Keys in the table, expired ones included.",
            stats.keys,
        ),
        ("namespaces", "Namespaces.", stats.namespaces),
        ("segments", "Front and class segments.", stats.segments),
        ("runs", "Key runs.", stats.runs),
        (
            "disk_bytes",
            "Bytes of all files of the store.",
            stats.disk_bytes,
        ),
        (
            "live_bytes",
            "Bytes of records that keys lead to.",
            stats.live_bytes,
        ),
        (
            "held_bytes",
            "Bytes of retired segments that somebody still reads.",
            stats.held_bytes,
        ),
        (
            "behind_bytes",
            "Bytes that compaction is behind.",
            stats.behind_bytes,
        ),
        ("index_bytes", "Memory of both indexes.", stats.index_bytes),
        ("seqno", "The newest sequence number.", stats.last_seqno),
        (
            "durable_seqno",
            "The newest sequence number known to be durable.",
            stats.durable_seqno,
        ),
        (
            "checkpoint_seqno",
            "The sequence number of the newest checkpoint.",
            stats.checkpoint_seqno,
        ),
        (
            "evicted_keys_total",
            "Keys evicted to keep the capacity.",
            stats.evicted_keys,
        ),
        (
            "evicted_bytes_total",
            "Bytes evicted to keep the capacity.",
            stats.evicted_bytes,
        ),
    ];
    let of_cache = stats.cache.iter().flat_map(|cache| {
        [
            (
                "cache_hits_total",
                "Reads that the hot cache answered.",
                cache.hits,
            ),
            (
                "cache_misses_total",
                "Reads that asked the hot cache in vain.",
                cache.misses,
            ),
            ("cache_entries", "Entries in the hot cache.", cache.entries),
            (
                "cache_bytes",
                "Memory that the hot cache takes.",
                cache.bytes,
            ),
        ]
    });
    for (name, help, value) in of_all.into_iter().chain(of_cache) {
        text.number(name, help, value);
    }
}

/// The text format of Prometheus.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        _ = writeln!(
            self.0,
            "# HELP rimstone_{name} {help}\n# TYPE rimstone_{name} {kind}"
        );
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        _ = writeln!(self.0, "rimstone_{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &str, value: u64) {
        _ = writeln!(self.0, "rimstone_{name}{{{labels}}} {value}");
    }

    /// What only grows is a counter, and is called a total.
    fn number(&mut self, name: &str, help: &str, value: u64) {
        let only_grows = name.ends_with("_total");
        self.head(name, if only_grows { "counter" } else { "gauge" }, help);
        self.line(name, value);
    }
}

/// Microseconds in seconds, as exact as they are.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn add(count: Option<&AtomicU64>, by: u64) {
    if let Some(count) = count {
        count.fetch_add(by, Ordering::Relaxed);
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Listens for whoever collects metrics, on this machine only: it asks for no token.
///
/// # Errors
/// If the address is taken, or beyond loopback.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::other(
            "metrics are told without a token, so only on loopback",
        ));
    }
    TcpListener::bind(address).await
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let connection = Connection::new(socket, shared.limits);
        let requests = connection.requests();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (shared, _under_way) = (Arc::clone(&shared), requests());
                async move {
                    let (method, path) =
                        (request.method().clone(), request.uri().path().to_owned());
                    let response = answer(&shared, &method, &path).await;
                    drop::<hyper::Request<hyper::body::Incoming>>(request);
                    Ok::<_, Infallible>(response)
                }
            });
            let served = http1::Builder::new()
                .keep_alive(false)
                .header_read_timeout(None)
                .max_headers(limits::HEADERS_MAX)
                .max_buf_size(limits::BUFFER_BYTES_MAX)
                .serve_connection(TokioIo::new(connection), service);
            _ = served.await;
            drop(permit);
        });
    }
}

async fn answer(shared: &Shared, method: &Method, path: &str) -> Response<Outgoing> {
    if method != Method::GET {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        crate::response::allow(&mut response, ["GET"]);
        return response;
    }
    match path {
        "/metrics" => all(shared).await,
        // Who reads it takes writers elsewhere; reads go on whatever it says.
        "/health" if shared.store.is_poisoned() => status(StatusCode::SERVICE_UNAVAILABLE),
        "/health" => status(StatusCode::OK),
        _ => status(StatusCode::NOT_FOUND),
    }
}

async fn all(shared: &Shared) -> Response<Outgoing> {
    // This looks at every file.
    let store = shared.store.clone();
    let stats = tokio::task::spawn_blocking(move || store.stats()).await;
    let Ok(stats) = stats else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = status(StatusCode::OK);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.body_mut() = whole(shared.metrics.show(&stats));
    response
}

#[cfg(test)]
#[allow(clippy::panic, reason = "that is the test")]
mod tests {
    use super::Metrics;

    #[test]
    fn a_connection_whose_task_panicked_is_open_no_more() {
        let metrics = Metrics::default();
        let (open, panics) = (metrics.accepted(), metrics.accepted());
        assert_eq!(metrics.open(), 2);
        let task = std::thread::spawn(move || {
            let _open = panics;
            panic!("as a task may");
        });
        assert!(task.join().is_err());
        assert_eq!(metrics.open(), 1);
        drop(open);
        assert_eq!(metrics.open(), 0);
    }
}
