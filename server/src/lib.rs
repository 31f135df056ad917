//! A Workers KV server on a Rimstone store.
#![forbid(unsafe_code)]

mod auth;
mod binding;
mod body;
pub mod kv;
pub mod limits;
mod multipart;
mod query;
mod rest;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rimstone::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::body::{Body, Outgoing};
use crate::kv::Fault;

/// A server that has an address but does not answer yet.
pub struct Server {
    store: Store,
    token: Option<String>,
    listener: TcpListener,
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// If the address is taken, or is beyond loopback without both a token and `insecure_listen`.
    pub async fn bind(
        store: Store,
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
        if token.is_none() {
            tracing::warn!("no token is set: answering anybody, on loopback only");
        }
        Ok(Server {
            store,
            token,
            listener: TcpListener::bind(address).await?,
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    ///
    /// If the operating system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` completes, then finishes the requests under way. Does not close the
    /// store.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Server {
            store,
            token,
            listener,
        } = self;
        let shared = Arc::new((store, token));
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
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
            let Ok((socket, _)) = accepted else {
                // Out of descriptors, most likely: let some connections end.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let connection = graceful.watch(connection(socket, Arc::clone(&shared)));
            tokio::spawn(async move {
                _ = connection.await;
                drop(permit);
            });
        }
        _ = tokio::time::timeout(limits::BODY_IDLE, graceful.shutdown()).await;
    }
}

type Shared = Arc<(Store, Option<String>)>;

fn connection(
    socket: TcpStream,
    shared: Shared,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    _ = socket.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_headers(limits::HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Outgoing> {
    let (store, token) = &**shared;
    let (head, incoming) = request.into_parts();
    let body = Body::new(incoming);
    let rest = rest::owns(&head.uri);
    if !auth::allows(token.as_deref(), &head.headers) {
        let fault = Fault::new(401, 10000, "Authentication error");
        return if rest {
            rest::refuse(&fault)
        } else {
            binding::refuse(&fault)
        };
    }
    if rest {
        return rest::answer(store, &head.method, &head.uri, &head.headers, body).await;
    }
    binding::answer(store, &head.method, &head.uri, &head.headers, body).await
}
