//! A Workers KV server on a Rimstone store.
#![forbid(unsafe_code)]

mod addresses;
mod auth;
mod binding;
mod body;
mod bulk_get;
mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod json;
pub mod kv;
pub mod limits;
mod listing;
mod metrics;
mod multipart;
mod pace;
mod query;
mod response;
mod rest;
mod share;
mod value;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use rimstone::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::body::Body;
use crate::connection::{Connection, UnderWay};
use crate::kv::Fault;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::response::Outgoing;

/// A server that has an address but does not answer yet. Clients that connect wait.
pub struct Server {
    listener: TcpListener,
    token: Option<String>,
    limits: Limits,
    metrics: Option<TcpListener>,
}

/// What all requests have in common.
struct Shared {
    store: Store,
    token: Option<String>,
    limits: Limits,
    /// For bodies, a permit a byte.
    memory: Arc<Semaphore>,
    metrics: Metrics,
}

impl Shared {
    fn new(store: Store, token: Option<String>, limits: Limits) -> Shared {
        Shared {
            store,
            token,
            limits,
            memory: Arc::new(Semaphore::new(limits.memory)),
            metrics: Metrics::default(),
        }
    }
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// If the address is taken, or is beyond loopback without both a token and `insecure_listen`.
    pub async fn bind(
        address: SocketAddr,
        token: Option<String>,
        insecure_listen: bool,
    ) -> std::io::Result<Server> {
        let token = token.filter(|token| !token.is_empty());
        if !address.ip().is_loopback() && (token.is_none() || !insecure_listen) {
            return Err(std::io::Error::other(
                "beyond loopback the server needs a token (RIMSTONE_TOKEN) and --insecure-listen",
            ));
        }
        let listener = TcpListener::bind(address).await?;
        Ok(Server {
            listener,
            token,
            limits: Limits::default(),
            metrics: None,
        })
    }

    /// Tells `GET /metrics` in Prometheus' text format, and `GET /health`, on this loopback address too. The
    /// address of clients never tells either. Returns the address that is listened on.
    ///
    /// # Errors
    ///
    /// If the address is taken, or beyond loopback: nobody is asked for a token there.
    pub async fn with_metrics(
        mut self,
        address: SocketAddr,
    ) -> std::io::Result<(Server, SocketAddr)> {
        let listener = metrics::bind(address).await?;
        let address = listener.local_addr()?;
        self.metrics = Some(listener);
        Ok((self, address))
    }

    /// Serves within these limits instead of the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// If the operating system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers from `store` until `stop` completes, then finishes the requests under way. Does not
    /// close the store.
    pub async fn serve(self, store: Store, stop: impl Future<Output = ()>) {
        let Server {
            listener,
            token,
            limits,
            metrics,
        } = self;
        if token.is_none() {
            tracing::warn!("no token is set: answering anybody, on loopback only");
        }
        for damage in store.stats().damage {
            tracing::warn!(damage, "the store is degraded");
        }
        let shared = Arc::new(Shared::new(store, token, limits));
        let told = metrics.map(|listener| {
            let told = metrics::serve(listener, Arc::clone(&shared));
            tokio::spawn(told)
        });
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(limits.connections));
        let addresses = Addresses::with_max(limits.per_address);
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = &mut stop => break,
            };
            let Ok((socket, peer)) = accepted else {
                // Out of descriptors, most likely: let some connections end.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let Some(place) = addresses.enter(peer.ip()) else {
                shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let open = shared.metrics.accepted();
            let connection = graceful.watch(connection(socket, Arc::clone(&shared)));
            tokio::spawn(async move {
                _ = connection.await;
                drop((permit, place, open));
            });
        }
        if let Some(told) = told {
            told.abort();
        }
        _ = tokio::time::timeout(limits.pause, graceful.shutdown()).await;
    }
}

fn connection(
    socket: TcpStream,
    shared: Arc<Shared>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    _ = socket.set_nodelay(true);
    let connection = Connection::new(socket, shared.limits);
    let requests = connection.requests();
    http(connection, requests, shared)
}

/// Answers the requests of one connection; `requests` makes the mark of each.
fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    connection: T,
    requests: impl Fn() -> UnderWay,
    shared: Arc<Shared>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = service_fn(move |request| {
        let (shared, under_way) = (Arc::clone(&shared), requests());
        async move {
            let (is_rest, began) = (rest::owns(request.uri()), Instant::now());
            let response = answer(&shared, request, &under_way).await;
            let status = response.status();
            shared.metrics.answered(is_rest, status, began.elapsed());
            // The closure is never called: it keeps the request under way until it is all sent.
            let keep = |body: Outgoing| {
                let kept = move |error| {
                    _ = &under_way;
                    error
                };
                body.map_err(kept).boxed_unsync()
            };
            Ok::<_, Infallible>(response.map(keep))
        }
    });
    http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service)
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    under_way: &UnderWay,
) -> Response<Outgoing> {
    let (head, incoming) = request.into_parts();
    let body = Body::new(incoming, &head.headers, shared, Arc::clone(under_way));
    let rest = rest::owns(&head.uri);
    if let Err(fault) = check_head(&head).and_then(|()| check_token(shared, &head)) {
        return if rest {
            rest::refuse(&fault)
        } else {
            binding::refuse(&fault)
        };
    }
    if rest {
        rest::answer(&shared.store, &head, body).await
    } else {
        binding::answer(&shared.store, &head, body).await
    }
}

fn check_head(head: &Parts) -> kv::Result<()> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let line = head.method.as_str().len() + target.len() + "  HTTP/1.1".len();
    if line > limits::LINE_BYTES_MAX {
        let text = format!(
            "Request line exceeds limit of {} bytes.",
            limits::LINE_BYTES_MAX
        );
        return Err(Fault::new(414, 10001, text));
    }
    let headers = head.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers > limits::HEADERS_BYTES_MAX {
        let text = format!(
            "Headers exceed limit of {} bytes.",
            limits::HEADERS_BYTES_MAX
        );
        return Err(Fault::new(431, 10001, text));
    }
    if head.headers.get_all(HOST).iter().count() > 1 {
        return Err(Fault::new(400, 10001, "Host is repeated."));
    }
    Ok(())
}

fn check_token(shared: &Shared, head: &Parts) -> kv::Result<()> {
    if auth::allows(shared.token.as_deref(), &head.headers) {
        return Ok(());
    }
    Err(Fault::new(401, 10000, "Authentication error"))
}
