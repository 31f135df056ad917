//! Bodies: read within a limit, stored as they arrive, sent as they are read.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{EXPECT, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Response};
use rimstone::{Namespace, PutOptions, ValueStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::Shared;
use crate::connection::UnderWay;
use crate::kv::{Fault, Result, check_value_length};
use crate::limits::{INLINE_BYTES_MAX, Limits};
use crate::pace::Pace;
use crate::share::Share;

/// What a response carries.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole body.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Outgoing {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Tells the client of a refusal that will not last when to ask again.
pub(crate) fn come_back(fault: &Fault, response: &mut Response<Outgoing>) {
    if fault.status == 503 {
        let seconds = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
}

/// A request's body.
///
/// One that is dropped unread is drained for a while: a connection closed under a client that is
/// still sending would lose the response with the reason.
pub(crate) struct Body {
    /// `None` once it must not be read.
    incoming: Option<Incoming>,
    /// The client sends nothing until we begin to read.
    waits_for_us: bool,
    pace: Pace,
    limits: Limits,
    share: Arc<Share>,
    under_way: UnderWay,
}

/// Bytes, and what they take of the memory for bodies.
pub(crate) struct Held {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body {
    pub(crate) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        shared: &Shared,
        under_way: UnderWay,
    ) -> Body {
        Body {
            incoming: Some(incoming),
            waits_for_us: headers.contains_key(EXPECT),
            pace: Pace::default(),
            limits: shared.limits,
            share: Arc::new(Share::of(Arc::clone(&shared.memory))),
            under_way,
        }
    }

    /// The length the client declared.
    pub(crate) fn declared(&self) -> Option<u64> {
        let incoming = self.incoming.as_ref();
        incoming.and_then(|body| body.size_hint().exact())
    }

    /// What this body takes of the memory for bodies.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// The next piece, `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.waits_for_us = false;
        let started = Instant::now();
        let slow = || Fault::new(408, 10001, "Request body timed out");
        let Some(body) = &mut self.incoming else {
            return Ok(None);
        };
        let piece = timeout(self.limits.pause, next(body)).await;
        let piece = piece.map_err(|_| slow())??;
        self.pace.waited(started.elapsed());
        self.pace.moved(piece.as_ref().map_or(0, Bytes::len));
        if self.pace.is_slow(&self.limits) {
            return Err(slow());
        }
        Ok(piece)
    }

    /// As [`next`](Body::next), and counts the piece as held for as long as the share lives.
    pub(crate) async fn next_held(&mut self) -> Result<Option<Bytes>> {
        let piece = self.next().await?;
        self.share.grow(piece.as_ref().map_or(0, Bytes::len))?;
        Ok(piece)
    }

    /// Everything, or a fault once it is longer than `max`.
    pub(crate) async fn collect(&mut self, max: usize) -> Result<Held> {
        let long = || Fault::new(413, 10024, format!("Request exceeds limit of {max} bytes."));
        if self.declared().is_some_and(|len| len > max as u64) {
            return Err(long());
        }
        let mut all = BytesMut::new();
        while let Some(piece) = self.next_held().await? {
            if all.len() + piece.len() > max {
                return Err(long());
            }
            all.extend_from_slice(&piece);
        }
        Ok(Held {
            bytes: all.freeze(),
            _share: Arc::clone(&self.share),
        })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let incoming = self.incoming.take();
        let Some(mut incoming) = incoming.filter(|body| !body.is_end_stream()) else {
            return;
        };
        if self.waits_for_us {
            return;
        }
        let (pause, under_way) = (self.limits.pause, Arc::clone(&self.under_way));
        tokio::spawn(async move {
            let drain = async { while let Ok(Some(_)) = next(&mut incoming).await {} };
            _ = timeout(pause, drain).await;
            drop(under_way);
        });
    }
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        let Some(frame) = body.frame().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|_| Fault::new(400, 10001, "Request body is incomplete"))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Runs what may wait for the disk where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(Fault::new(500, 10001, "internal error")))
}

/// Stores a body as the value of a key once all of it has arrived.
pub(crate) async fn store_value(
    ns: Namespace,
    key: String,
    options: PutOptions,
    mut body: Body,
) -> Result<()> {
    let declared = body.declared();
    check_value_length(declared.unwrap_or(0))?;
    if declared.is_some_and(|len| len <= INLINE_BYTES_MAX as u64) {
        let value = body.collect(INLINE_BYTES_MAX).await?;
        return blocking(move || Ok(ns.put_with(key, &*value, &options).map(|_| ())?)).await;
    }
    // The pieces between the socket and the disk.
    body.share().grow(INLINE_BYTES_MAX)?;
    let (sender, receiver) = mpsc::channel(4);
    let writing = tokio::task::spawn_blocking(move || write(&ns, &key, &options, receiver));
    let sent = send(&mut body, sender).await;
    let written = writing
        .await
        .unwrap_or_else(|_| Err(Fault::new(500, 10001, "internal error")));
    sent.and(written)
}

/// Hands the pieces on, `None` after the last: a channel that merely closes is a broken upload.
async fn send(body: &mut Body, sender: mpsc::Sender<Option<Bytes>>) -> Result<()> {
    let mut received = 0;
    while let Some(piece) = body.next().await? {
        received += piece.len() as u64;
        check_value_length(received)?;
        if sender.send(Some(piece)).await.is_err() {
            return Ok(());
        }
    }
    _ = sender.send(None).await;
    Ok(())
}

fn write(
    ns: &Namespace,
    key: &str,
    options: &PutOptions,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
) -> Result<()> {
    let mut writer = ns.writer(key, options)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Some(piece) => writer.write(&piece)?,
            None => return Ok(writer.finish().map(|_| ())?),
        }
    }
    Err(Fault::new(400, 10001, "Request body is incomplete"))
}

/// Opens the value of a key: at once if it is in memory, else where waiting is allowed.
pub(crate) async fn open_value(ns: Namespace, key: String) -> Result<Option<ValueStream>> {
    if let Some(ready) = ns.try_stream(&key)? {
        return Ok(ready);
    }
    blocking(move || Ok(ns.stream(key)?)).await
}

/// The body of a response with this value.
pub(crate) async fn send_value(value: ValueStream) -> Result<Outgoing> {
    if value.len() <= INLINE_BYTES_MAX as u64 {
        return blocking(move || Ok(whole(Bytes::from(value.read_all()?)))).await;
    }
    let pieces = stream::unfold(Some((value, Vec::new().into_iter())), |state| async move {
        let (mut value, mut ready) = state?;
        loop {
            match ready.next() {
                Some(Ok(bytes)) => return Some((Ok(Frame::data(bytes)), Some((value, ready)))),
                Some(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "reading a value");
                    return Some((Err(std::io::Error::other(error)), None));
                }
                None => {}
            }
            // A few pieces a turn, so that a slow client does not keep a thread.
            let read = tokio::task::spawn_blocking(move || {
                let pieces: Vec<_> = value.by_ref().take(8).collect();
                (value, pieces)
            });
            let (rest, pieces) = read.await.ok()?;
            if pieces.is_empty() {
                return None;
            }
            (value, ready) = (rest, pieces.into_iter());
        }
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}
