//! The commit queue: writers line up, one of them leads and commits for all who wait.
//!
//! While a leader writes and flushes, new writers queue up; when it is done it hands the lead to the
//! first of them. So one flush acknowledges many writers, and nobody waits for more than two.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::lists::Move;
use crate::format::record::{Address, INLINE_MAX, KEY_MAX, Kind, LargePointer, METADATA_MAX};
use crate::options::Condition;
use crate::sync::{Condvar, Mutex};

/// One change of one key or namespace.
#[derive(Clone)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) namespace: u32,
    pub(crate) hash: u64,
    /// The key, then the body, in one piece: a batch has thousands of operations.
    pub(crate) bytes: Vec<u8>,
    pub(crate) key_len: u16,
    pub(crate) metadata_len: u16,
    pub(crate) body_crc: u32,
    pub(crate) expiration: u64,
    pub(crate) condition: Condition,
    /// A record of the key that was found to list alike: with the same metadata and expiration.
    pub(crate) alike: Option<Address>,
    /// What a move says, which is its body, too.
    pub(crate) moved: Option<Moved>,
}

/// A move, with the numbers that slots have for its two segments.
#[derive(Clone)]
pub(crate) struct Moved {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) moved: Move,
}

impl Op {
    /// An operation that changes no key.
    pub(crate) fn keyless(kind: Kind, namespace: u32, body: Vec<u8>) -> Op {
        Op {
            kind,
            namespace,
            hash: u64::from(namespace),
            body_crc: crc32fast::hash(&body),
            bytes: body,
            key_len: 0,
            metadata_len: 0,
            expiration: 0,
            condition: Condition::None,
            alike: None,
            moved: None,
        }
    }

    /// An operation on a key, unconditional and for ever. The value is also what stands for it.
    pub(crate) fn keyed(
        kind: Kind,
        (namespace, hash): (u32, u64),
        key: &[u8],
        metadata: &[u8],
        value: &[u8],
    ) -> Op {
        debug_assert!(key.len() <= KEY_MAX);
        debug_assert!(!key.is_empty(), "refused before it comes here");
        debug_assert!(metadata.len() <= METADATA_MAX);
        debug_assert!(
            kind != Kind::Put || value.len() <= INLINE_MAX,
            "larger ones lie elsewhere"
        );
        debug_assert!(kind != Kind::Tombstone || metadata.len() + value.len() == 0);
        let bytes = [key, metadata, value].concat();
        Op {
            hash,
            body_crc: crc32fast::hash(bytes.get(key.len()..).unwrap_or_default()),
            bytes,
            key_len: u16::try_from(key.len()).unwrap_or(u16::MAX),
            metadata_len: u16::try_from(metadata.len()).unwrap_or(u16::MAX),
            ..Op::keyless(kind, namespace, Vec::new())
        }
    }

    /// The operation that tells the log of copies.
    pub(crate) fn relocating(moved: Moved) -> Op {
        debug_assert_ne!(moved.from, moved.to, "a copy lies elsewhere");
        debug_assert!(moved.from > 0);
        debug_assert!(moved.to > 0, "0 is no segment");
        let body = moved.moved.encode();
        Op {
            moved: Some(moved),
            ..Op::keyless(Kind::Move, 0, body)
        }
    }

    pub(crate) fn is_put(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::PutLarge)
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.parts().0
    }

    /// Metadata, then the value or what stands for it.
    pub(crate) fn body(&self) -> &[u8] {
        self.parts().1
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        debug_assert!(usize::from(self.key_len) <= self.bytes.len());
        let parts = self.bytes.split_at_checked(usize::from(self.key_len));
        parts.unwrap_or_default()
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        debug_assert!(usize::from(self.metadata_len) <= self.body().len());
        self.body()
            .get(..usize::from(self.metadata_len))
            .unwrap_or_default()
    }

    /// Where the value of a put lies, if that is large.
    pub(crate) fn large_pointer(&self) -> Option<LargePointer> {
        let pointer = self.body().get(usize::from(self.metadata_len)..);
        let pointer = (self.kind == Kind::PutLarge).then(|| LargePointer::decode(pointer?))?;
        debug_assert_eq!(pointer.is_some(), self.kind == Kind::PutLarge);
        pointer
    }
}

/// What became of a request's last operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) generation: u64,
    pub(crate) existed: bool,
}

/// Operations that are committed together or not at all.
pub(crate) struct Request {
    pub(crate) ops: Vec<Op>,
    /// Whether the writer waits for a flush.
    pub(crate) immediate: bool,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Waiting,
    Lead,
    Done(Result<Outcome>),
    Taken,
}

impl Request {
    pub(crate) fn new(ops: Vec<Op>, immediate: bool) -> Arc<Request> {
        let (state, changed) = (Mutex::new(State::Waiting), Condvar::new());
        Arc::new(Request {
            ops,
            immediate,
            state,
            changed,
        })
    }

    /// Whether no operation adds data: such a request may use the last space of a full disk.
    pub(crate) fn frees_space(&self) -> bool {
        self.ops.iter().all(|op| !op.is_put())
    }

    /// Whether it is written alone, as others are decided on what is published: it relocates records, or
    /// changes a namespace.
    pub(crate) fn stands_alone(&self) -> bool {
        let matters = |op: &Op| op.moved.is_some() || op.kind == Kind::Namespace;
        self.ops.iter().any(matters)
    }

    /// Wakes the writer with its result.
    pub(crate) fn finish(&self, result: Result<Outcome>) {
        let mut state = self.state.lock();
        debug_assert!(!matches!(*state, State::Done(_)), "finished once");
        *state = State::Done(result);
        drop(state);
        self.changed.notify_one();
    }

    /// Whether its writer has its result, or can take it.
    fn is_finished(&self) -> bool {
        matches!(*self.state.lock(), State::Done(_) | State::Taken)
    }

    fn appoint(&self) {
        let mut state = self.state.lock();
        debug_assert!(matches!(*state, State::Waiting), "nobody leads who is done");
        *state = State::Lead;
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for a result, or for `None`: the order to lead.
    fn wait(&self) -> Option<Result<Outcome>> {
        let mut state = self.state.lock();
        while matches!(*state, State::Waiting) {
            self.changed.wait(&mut state);
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            _ => None,
        }
    }
}

/// Writers in the order in which they will be committed.
#[derive(Default)]
pub(crate) struct Queue(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Arc<Request>>,
    led: bool,
}

impl Queue {
    /// Commits `request` and returns its outcome. `commit` finishes every request it is given; it is
    /// called by one writer at a time.
    pub(crate) fn submit(
        &self,
        request: &Arc<Request>,
        mut commit: impl FnMut(&[Arc<Request>]),
    ) -> Result<Outcome> {
        let led = {
            let mut inner = self.0.lock();
            inner.waiting.push_back(Arc::clone(request));
            std::mem::replace(&mut inner.led, true)
        };
        if led && let Some(result) = request.wait() {
            return result;
        }
        let group = self.0.lock().waiting.drain(..).collect();
        let led = Led { queue: self, group };
        let is_own = |other: &Arc<Request>| Arc::ptr_eq(other, request);
        debug_assert!(led.group.iter().any(is_own), "who leads waits itself");
        commit(&led.group);
        debug_assert!(led.group.iter().all(|request| request.is_finished()));
        drop(led);
        request.wait().unwrap_or(Err(Error::Poisoned))
    }

    /// Lets the next writer lead, if there is one.
    fn pass_on(&self) {
        let mut inner = self.0.lock();
        debug_assert!(inner.led, "one leads until the next does");
        match inner.waiting.front() {
            Some(next) => next.appoint(),
            None => inner.led = false,
        }
        debug_assert!(inner.led || inner.waiting.is_empty());
    }
}

/// The writers that one of them leads. If that one panics, the others are told, and somebody else leads on.
struct Led<'a> {
    queue: &'a Queue,
    group: Vec<Arc<Request>>,
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let waiting = self.group.iter().filter(|request| !request.is_finished());
            waiting.for_each(|request| request.finish(Err(Error::Poisoned)));
        }
        self.queue.pass_on();
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise, and their threads are real"
)]
mod tests {
    use std::thread;

    use super::*;

    fn request() -> Arc<Request> {
        Request::new(vec![Op::keyless(Kind::Namespace, 1, Vec::new())], true)
    }

    fn finish(group: &[Arc<Request>]) {
        let outcome = Outcome::default();
        group.iter().for_each(|request| request.finish(Ok(outcome)));
    }

    #[test]
    fn who_waits_for_a_leader_that_panics_is_told_and_the_next_one_leads() {
        let queue = Queue::default();
        let waiting = || queue.0.lock().waiting.len();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                queue.submit(&request(), |group| {
                    while waiting() < 2 {
                        thread::yield_now();
                    }
                    finish(group);
                })
            });
            let next = || queue.submit(&request(), |_| panic!("as planned"));
            let is_leading = || {
                let inner = queue.0.lock();
                inner.led && inner.waiting.is_empty()
            };
            while !is_leading() {
                thread::yield_now();
            }
            let both = [scope.spawn(next), scope.spawn(next)];
            first.join().unwrap().unwrap();
            let ends = both.map(std::thread::ScopedJoinHandle::join);
            let told = |end: &thread::Result<_>| matches!(end, Ok(Err(Error::Poisoned)));
            assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 1);
            assert_eq!(ends.iter().filter(|end| told(end)).count(), 1);
        });
        queue.submit(&request(), finish).unwrap();
    }
}
