//! A fetch that is under way: who may bring its value, and who waits for it.
//!
//! A fill stands in its shard from the miss until it ends or its key is written. A write takes it out
//! under the shard's lock, and a fill that no longer stands there is not stored: it cannot bring back
//! what the write replaced. Those who waited already are still given its value, since they asked
//! before the write; who asks later starts anew.
//!
//! ```text
//!            complete
//!  Running ------------> Done
//!   |   ^
//!   |   | a waiter, or somebody new, leads
//!   v   |
//!  Orphaned -----------> (gone, once nobody waits)
//!   the ticket was dropped; one waiter is woken
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashTable;

use crate::clock::Seconds;
use crate::key::OwnedKey;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, wait};
use crate::{Cache, Entry, Key, Value};

/// The fills of a shard.
#[derive(Debug, Default)]
pub(crate) struct Fills(HashTable<Arc<Fill>>);

impl Fills {
    pub(crate) fn find(&self, hash: u64, key: Key<'_>) -> Option<&Arc<Fill>> {
        self.0.find(hash, |fill| fill.key() == key)
    }

    /// A fill takes the place of any other of its key.
    pub(crate) fn insert(&mut self, fill: Arc<Fill>) {
        self.remove(fill.hash, fill.key());
        self.0.insert_unique(fill.hash, fill, |fill| fill.hash);
    }

    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) {
        if self.0.is_empty() {
            return;
        }
        let held = self.0.find_entry(hash, |fill| fill.key() == key);
        if let Ok(held) = held {
            held.remove();
        }
    }

    /// Takes this very fill out, and returns whether it stood.
    pub(crate) fn end(&mut self, fill: &Arc<Fill>) -> bool {
        let held = self.0.find_entry(fill.hash, |held| Arc::ptr_eq(held, fill));
        held.map(|held| held.remove()).is_ok()
    }

    fn holds(&self, fill: &Arc<Fill>) -> bool {
        let held = self.0.find(fill.hash, |held| Arc::ptr_eq(held, fill));
        held.is_some()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[derive(Debug)]
pub(crate) struct Fill {
    hash: u64,
    key: OwnedKey,
    /// The generation of the namespace when it began.
    pub(crate) generation: u32,
    state: Mutex<State>,
    /// For those who wait without a waker.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Waiters of either kind.
    waiters: usize,
    wakers: Vec<(u64, Waker)>,
    next_waker: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Running,
    Orphaned,
    Done(Entry),
    /// It ended without a value and was superseded: waiters ask again.
    Abandoned,
}

impl State {
    fn adopt(&mut self) -> bool {
        let orphaned = matches!(self.phase, Phase::Orphaned);
        if orphaned {
            self.phase = Phase::Running;
        }
        orphaned
    }
}

impl Fill {
    pub(crate) fn new(hash: u64, key: Key<'_>, generation: u32) -> Fill {
        Fill {
            hash,
            key: key.into(),
            generation,
            state: Mutex::new(State {
                phase: Phase::Running,
                waiters: 0,
                wakers: Vec::new(),
                next_waker: 0,
            }),
            changed: Condvar::default(),
        }
    }

    pub(crate) fn key(&self) -> Key<'_> {
        self.key.key()
    }

    /// Joins a fill that stands, while its shard is locked: as the leader, if it has none.
    pub(crate) fn join(&self) -> Joined {
        let mut state = self.state.lock();
        if state.adopt() {
            return Joined::Leads;
        }
        state.waiters += 1;
        Joined::Waits
    }

    /// Becomes the leader of a fill that has none, and returns whether it did.
    pub(crate) fn adopt(&self) -> bool {
        self.state.lock().adopt()
    }

    /// Ends the fill and tells everybody.
    fn end(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Leaves the fill without a leader and wakes one waiter, of either kind.
    fn orphan(&self, mut state: MutexGuard<'_, State>) {
        state.phase = Phase::Orphaned;
        let waker = state.wakers.pop();
        drop(state);
        if let Some((_, waker)) = waker {
            waker.wake();
        } else {
            self.changed.notify_one();
        }
    }
}

pub(crate) enum Joined {
    Leads,
    Waits,
}

/// The right, and the duty, to fetch one key. Others who want the key wait for it. Dropping it, as a
/// panic or a cancelled future does, hands it to one of them.
#[derive(Debug)]
#[must_use = "others wait until the ticket is completed or dropped"]
pub struct Ticket {
    cache: Cache,
    fill: Arc<Fill>,
    started: Seconds,
    /// Counted among those that fetch ahead of time.
    ahead: bool,
    ended: bool,
}

/// What became of a fetched value.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The entry, for the caller's own use.
    pub entry: Entry,
    /// Whether the cache holds it now: not if the key was written since the ticket was given out, if
    /// a newer version is known, or if it is too heavy.
    pub stored: bool,
}

impl Ticket {
    pub(crate) fn new(cache: Cache, fill: Arc<Fill>, ahead: bool) -> Ticket {
        let started = cache.now();
        Ticket {
            cache,
            fill,
            started,
            ahead,
            ended: false,
        }
    }

    /// The key to fetch.
    #[must_use]
    pub fn key(&self) -> Key<'_> {
        self.fill.key()
    }

    /// Hands in what was fetched and gives it to those who wait. Its age counts from when the ticket
    /// was given out.
    ///
    /// # Panics
    /// If the entry would take 4 GiB or more.
    pub fn complete(mut self, value: Value<'_>) -> Completed {
        let (fill, started) = (&self.fill, self.started);
        let (cache, key) = (&self.cache, fill.key());
        let entry = cache.newcomer(fill.hash, key, value, started, fill.generation);
        let stored = cache.store(fill.hash, entry.clone(), Some(fill));
        self.ended = true;
        fill.end(Phase::Done(entry.clone()));
        Completed { entry, stored }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.ahead {
            self.cache.refreshed();
        }
        if self.ended {
            return;
        }
        let mut shard = self.cache.shard(self.fill.hash).write();
        if !shard.fills.holds(&self.fill) {
            drop(shard);
            return self.fill.end(Phase::Abandoned);
        }
        let state = self.fill.state.lock();
        if state.waiters == 0 {
            shard.fills.end(&self.fill);
        } else {
            drop(shard);
            self.fill.orphan(state);
        }
    }
}

/// A place among those who wait for somebody else's fetch: block on [`wait`](Waiter::wait), or await
/// it on any runtime.
#[derive(Debug)]
pub struct Waiter {
    cache: Cache,
    fill: Arc<Fill>,
    cache_ttl: Option<Duration>,
    joined: Seconds,
    waker: Option<u64>,
    ended: bool,
}

/// What waiting came to.
#[derive(Debug)]
pub enum Waited {
    /// The value, fresh enough for this reader.
    Done(Entry),
    /// The one who fetched gave up; it is this reader's turn.
    Lead(Ticket),
    /// The key was written and the fetch came to nothing, or what it brought is too old for this
    /// reader: look up again.
    Again,
}

impl Waiter {
    /// For a fill that was joined.
    pub(crate) fn new(cache: Cache, fill: Arc<Fill>, cache_ttl: Option<Duration>) -> Waiter {
        let joined = cache.now();
        Waiter {
            cache,
            fill,
            cache_ttl,
            joined,
            waker: None,
            ended: false,
        }
    }

    /// Blocks this thread until the fetch ends. A thread must not wait for a ticket of its own.
    #[must_use]
    pub fn wait(mut self) -> Waited {
        let fill = Arc::clone(&self.fill);
        let mut state = fill.state.lock();
        while matches!(state.phase, Phase::Running) {
            state = wait(&fill.changed, state);
        }
        self.outcome(state)
    }

    /// Ends the waiting, in any phase but `Running`.
    fn outcome(&mut self, mut state: MutexGuard<'_, State>) -> Waited {
        self.leave(&mut state);
        match state.phase.clone() {
            Phase::Done(entry) if self.is_fresh(&entry) => Waited::Done(entry),
            Phase::Done(_) | Phase::Abandoned => Waited::Again,
            Phase::Orphaned | Phase::Running => {
                state.phase = Phase::Running;
                drop(state);
                let (cache, fill) = (self.cache.clone(), Arc::clone(&self.fill));
                Waited::Lead(Ticket::new(cache, fill, false))
            }
        }
    }

    fn leave(&mut self, state: &mut State) {
        self.ended = true;
        state.waiters -= 1;
        state.wakers.retain(|(id, _)| Some(*id) != self.waker);
    }

    /// What was fetched since this reader came is as fresh as it gets.
    fn is_fresh(&self, entry: &Entry) -> bool {
        let now = self.cache.now();
        let fresh = now < entry.fresh_until(self.cache_ttl) && !entry.is_expired(now);
        fresh || entry.0.fetched() >= self.joined
    }
}

impl Future for Waiter {
    type Output = Waited;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited> {
        let fill = Arc::clone(&self.fill);
        let mut state = fill.state.lock();
        if !matches!(state.phase, Phase::Running) {
            return Poll::Ready(self.outcome(state));
        }
        let id = *self.waker.get_or_insert(state.next_waker);
        state.next_waker = state.next_waker.max(id + 1);
        state.wakers.retain(|(held, _)| *held != id);
        state.wakers.push((id, context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (cache, fill) = (self.cache.clone(), Arc::clone(&self.fill));
        let mut shard = cache.shard(fill.hash).write();
        let mut state = fill.state.lock();
        self.leave(&mut state);
        if !matches!(state.phase, Phase::Orphaned) {
            return;
        }
        // This one may be who was woken to lead.
        if state.waiters == 0 {
            shard.fills.end(&fill);
        } else {
            drop(shard);
            fill.orphan(state);
        }
    }
}
