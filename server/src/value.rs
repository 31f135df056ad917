//! Values on their way: stored as they arrive, sent as they are read.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rimstone::{CacheStatus, Namespace, PutOptions, ReadOptions, ValueStream};
use tokio::sync::mpsc;

use crate::body::Body;
use crate::kv::{Fault, Result, check_value_length};
use crate::limits::INLINE_BYTES_MAX;
use crate::response::{Outgoing, whole};

/// Runs what may wait for the disk where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if cfg!(feature = "fuzzing") {
        // In memory nothing waits, and to hand it to another thread takes longer than to do it.
        return work();
    }
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(Fault::new(500, 10001, "internal error")))
}

/// Stores a body as the value of a key once all of it has arrived.
pub(crate) async fn store(
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
pub(crate) async fn open(
    ns: Namespace,
    key: String,
    options: ReadOptions,
) -> Result<Option<ValueStream>> {
    if let Some(ready) = ns.try_stream_with(&key, &options)? {
        return Ok(ready);
    }
    blocking(move || Ok(ns.stream_with(key, &options)?)).await
}

/// The body of a response with this value.
pub(crate) async fn respond(value: ValueStream) -> Result<Outgoing> {
    if value.len() <= INLINE_BYTES_MAX as u64 {
        if value.cache_status() == CacheStatus::Hit {
            // It is in memory, and verified.
            return Ok(whole(Bytes::from(value.read_all()?)));
        }
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
