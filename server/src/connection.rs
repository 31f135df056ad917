//! A connection whose client must keep up.
//!
//! Between requests it may be idle for a while, the head of a request must come quickly once it has
//! begun, and a response must be taken as it is sent. A request's body is watched where it is read.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::Limits;
use crate::pace::Pace;

/// Held by whatever is still at work on a request; counts those that have begun.
pub(crate) type UnderWay = Arc<AtomicU64>;

/// A socket with timeouts.
pub(crate) struct Connection {
    socket: TcpStream,
    limits: Limits,
    phase: Phase,
    /// Ends the phase.
    timer: Pin<Box<Sleep>>,
    /// Ends a write that makes no progress.
    stalled: Pin<Box<Sleep>>,
    stalled_since: Option<Instant>,
    pace: Pace,
    /// One reference here and one for everything under way.
    requests: UnderWay,
    /// How many requests had begun when last looked at.
    begun: u64,
    /// When the newest of them must be over.
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Request,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, limits: Limits) -> Connection {
        Connection {
            socket,
            limits,
            phase: Phase::Idle,
            timer: Box::pin(sleep(limits.idle)),
            stalled: Box::pin(sleep(limits.pause)),
            stalled_since: None,
            pace: Pace::default(),
            requests: UnderWay::default(),
            begun: 0,
            deadline: Instant::now() + limits.request,
        }
    }

    /// What makes the mark of a request that begins.
    pub(crate) fn requests(&self) -> impl Fn() -> UnderWay + use<> {
        let requests = Arc::downgrade(&self.requests);
        move || {
            let under_way = requests.upgrade().unwrap_or_default();
            under_way.fetch_add(1, Ordering::Relaxed);
            under_way
        }
    }

    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.requests) > 1
    }

    /// Finds out what became of the requests since the last look: a short one may have come and
    /// gone.
    fn look(&mut self) {
        let begun = self.requests.load(Ordering::Relaxed);
        if begun != self.begun {
            self.begun = begun;
            self.pace = Pace::default();
            self.deadline = Instant::now() + self.limits.request;
            self.enter(Phase::Request);
        }
        match (self.is_busy(), self.phase) {
            (true, Phase::Idle | Phase::Head) => self.enter(Phase::Request),
            (false, Phase::Request) => self.enter(Phase::Idle),
            _ => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let time = match phase {
            Phase::Head => self.limits.head,
            Phase::Idle | Phase::Request => self.limits.idle,
        };
        self.timer.as_mut().reset(Instant::now() + time);
    }

    fn wait_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.phase != Phase::Request {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            // Nothing says when the request will be over, so look again later.
            self.enter(Phase::Request);
            self.look();
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.look();
        let now = Instant::now();
        match &written {
            Poll::Ready(result) => {
                self.pace.moved(*result.as_ref().unwrap_or(&0));
                if let Some(since) = self.stalled_since.take() {
                    self.pace.waited(now - since);
                }
                if !self.pace.is_slow(&self.limits) && now < self.deadline {
                    return written;
                }
            }
            Poll::Pending => {
                if self.stalled_since.is_none() {
                    self.stalled_since = Some(now);
                    let until = self.deadline.min(now + self.limits.pause);
                    self.stalled.as_mut().reset(until);
                }
                if self.stalled.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.look();
        let before = buf.filled().len();
        let read = Pin::new(&mut me.socket).poll_read(cx, buf);
        if read.is_pending() {
            return me.wait_to_read(cx);
        }
        if me.phase == Phase::Idle && buf.filled().len() > before {
            me.enter(Phase::Head);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.socket).poll_write(cx, buf);
        me.wrote(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let written = Pin::new(&mut me.socket).poll_write_vectored(cx, bufs);
        me.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
