//! A request's body, read within limits.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Shared;
use crate::connection::UnderWay;
use crate::kv::{Fault, Result};
use crate::limits::Limits;
use crate::pace::Pace;
use crate::share::Share;

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
    /// When the request must be over.
    deadline: Instant,
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
            deadline: Instant::now() + shared.limits.request,
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
        let until = self.deadline.min(started + self.limits.pause);
        let Some(body) = &mut self.incoming else {
            return Ok(None);
        };
        let piece = timeout_at(until, next(body)).await;
        let piece = piece.map_err(|_| slow())??;
        self.pace.waited(started.elapsed());
        self.pace.moved(piece.as_ref().map_or(0, Bytes::len));
        if self.pace.is_slow(&self.limits) || Instant::now() >= self.deadline {
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
