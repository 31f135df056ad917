//! Reads that fetch what is missing, each key once at a time.

use std::future::Future;
use std::time::Duration;

use crate::fill::{Fill, Joined};
use crate::freshness::Freshness;
use crate::shard::Shard;
use crate::stats::Read;
use crate::sync::Arc;
use crate::{Cache, Entry, Key, Ticket, Value, Waited, Waiter};

/// What [`Cache::lookup`] finds.
#[derive(Debug)]
pub enum Lookup {
    /// A fresh entry.
    Hit(Entry),
    /// A fresh entry, hot and soon to be stale. This caller is asked to fetch it anew.
    Refresh(Entry, Ticket),
    /// An entry that is no longer fresh, but may be served. One caller is asked to fetch it anew.
    Stale(Entry, Option<Ticket>),
    /// Nothing. This caller fetches.
    Lead(Ticket),
    /// Nothing yet. Somebody else fetches.
    Wait(Waiter),
}

/// What a lookup finds while its shard is locked.
enum Found {
    Lookup(Lookup),
    /// This caller is to lead, with what it may serve meanwhile.
    Vacant(Option<Entry>, Freshness),
}

impl Cache {
    /// Returns the entry of `key`, or the right to fetch it, or a place among those who wait for
    /// somebody else's fetch. Only here stale entries are served, and entries fetched ahead of time.
    #[must_use]
    pub fn lookup<'k>(&self, key: impl Into<Key<'k>>, cache_ttl: Option<Duration>) -> Lookup {
        let key = key.into();
        let hash = self.hash(key);
        let found = self.attempt(&self.shard(hash).read(), hash, key, cache_ttl);
        let lookup = match found {
            Found::Lookup(lookup) => lookup,
            Found::Vacant(..) => self.lead(hash, key, cache_ttl),
        };
        self.count(match &lookup {
            Lookup::Hit(entry) | Lookup::Refresh(entry, _) if entry.is_absent() => Read::Negative,
            Lookup::Hit(_) | Lookup::Refresh(..) => Read::Hit,
            Lookup::Stale(..) => Read::Stale,
            Lookup::Lead(_) => Read::Miss,
            Lookup::Wait(_) => Read::Coalesced,
        });
        lookup
    }

    /// Looks again under the writer's lock, where nobody else can come first, and begins a fill.
    fn lead(&self, hash: u64, key: Key<'_>, ttl: Option<Duration>) -> Lookup {
        let mut shard = self.shard(hash).write();
        let (entry, freshness) = match self.attempt(&shard, hash, key, ttl) {
            Found::Lookup(lookup) => return lookup,
            Found::Vacant(entry, freshness) => (entry, freshness),
        };
        let ahead = freshness == Freshness::Aging;
        if let Some(entry) = entry.clone().filter(|_| ahead && !self.may_refresh()) {
            return Lookup::Hit(entry);
        }
        let fill = Arc::new(Fill::new(hash, key, self.generation(key.namespace)));
        shard.fills.insert(Arc::clone(&fill));
        let ticket = Ticket::new(self.clone(), fill, ahead);
        match entry {
            None => Lookup::Lead(ticket),
            Some(entry) if ahead => Lookup::Refresh(entry, ticket),
            Some(entry) => Lookup::Stale(entry, Some(ticket)),
        }
    }

    fn attempt(&self, shard: &Shard, hash: u64, key: Key<'_>, ttl: Option<Duration>) -> Found {
        let generation = self.generation(key.namespace);
        let fill = shard.fills.find(hash, key);
        let fill = fill.filter(|fill| fill.generation == generation);
        let found = shard.find(hash, key);
        let judged = found.map(|entry| (entry, self.judge(entry, ttl)));
        let Some((entry, freshness)) = judged.filter(|(_, f)| *f != Freshness::Useless) else {
            return fill.map_or(Found::Vacant(None, Freshness::Useless), |fill| {
                Found::Lookup(self.join(fill, ttl))
            });
        };
        self.touch(entry, ttl);
        let entry = entry.clone();
        match (freshness, fill) {
            (Freshness::Aging, None) => Found::Vacant(Some(entry), freshness),
            (Freshness::Stale, None) => Found::Vacant(Some(entry), freshness),
            (Freshness::Stale, Some(fill)) => {
                let ticket = self.adopt(fill);
                Found::Lookup(Lookup::Stale(entry, ticket))
            }
            _ => Found::Lookup(Lookup::Hit(entry)),
        }
    }

    fn join(&self, fill: &Arc<Fill>, ttl: Option<Duration>) -> Lookup {
        match fill.join() {
            Joined::Leads => Lookup::Lead(Ticket::new(self.clone(), Arc::clone(fill), false)),
            Joined::Waits => Lookup::Wait(Waiter::new(self.clone(), Arc::clone(fill), ttl)),
        }
    }

    /// Leads a fill that has lost its leader.
    fn adopt(&self, fill: &Arc<Fill>) -> Option<Ticket> {
        let orphan = fill.adopt();
        orphan.then(|| Ticket::new(self.clone(), Arc::clone(fill), false))
    }

    /// Returns the entry of `key`, fetching it if it is missing; blocks while somebody else does.
    ///
    /// A caller that is asked to fetch anew what it could serve does so first; if that fails, it
    /// returns what there was.
    ///
    /// # Errors
    /// What `fetch` returns. It is told to this caller only; who waited then fetches in turn.
    ///
    /// # Panics
    /// If the entry would take 4 GiB or more.
    pub fn try_get_with<'k, 'v, E>(
        &self,
        key: impl Into<Key<'k>>,
        cache_ttl: Option<Duration>,
        fetch: impl FnOnce() -> Result<Value<'v>, E>,
    ) -> Result<Entry, E> {
        let key = key.into();
        loop {
            let (entry, ticket) = match self.lookup(key, cache_ttl) {
                Lookup::Hit(entry) | Lookup::Stale(entry, None) => return Ok(entry),
                Lookup::Refresh(entry, ticket) => (Some(entry), ticket),
                Lookup::Stale(entry, Some(ticket)) => (Some(entry), ticket),
                Lookup::Lead(ticket) => (None, ticket),
                Lookup::Wait(waiter) => match waiter.wait() {
                    Waited::Done(entry) => return Ok(entry),
                    Waited::Lead(ticket) => (None, ticket),
                    Waited::Again => continue,
                },
            };
            return finish(entry, ticket, fetch());
        }
    }

    /// [`try_get_with`](Cache::try_get_with) for futures, on any runtime. If this future is dropped
    /// while it fetches, one of those who wait takes over.
    ///
    /// # Errors
    /// What `fetch` returns.
    ///
    /// # Panics
    /// If the entry would take 4 GiB or more.
    pub async fn try_get_with_async<'k, 'v, E, F>(
        &self,
        key: impl Into<Key<'k>>,
        cache_ttl: Option<Duration>,
        fetch: impl FnOnce() -> F,
    ) -> Result<Entry, E>
    where
        F: Future<Output = Result<Value<'v>, E>>,
    {
        let key = key.into();
        loop {
            let (entry, ticket) = match self.lookup(key, cache_ttl) {
                Lookup::Hit(entry) | Lookup::Stale(entry, None) => return Ok(entry),
                Lookup::Refresh(entry, ticket) => (Some(entry), ticket),
                Lookup::Stale(entry, Some(ticket)) => (Some(entry), ticket),
                Lookup::Lead(ticket) => (None, ticket),
                Lookup::Wait(waiter) => match waiter.await {
                    Waited::Done(entry) => return Ok(entry),
                    Waited::Lead(ticket) => (None, ticket),
                    Waited::Again => continue,
                },
            };
            return finish(entry, ticket, fetch().await);
        }
    }
}

/// Hands in what was fetched; if nothing was, there may be something else to serve.
fn finish<E>(
    entry: Option<Entry>,
    ticket: Ticket,
    fetched: Result<Value<'_>, E>,
) -> Result<Entry, E> {
    match (fetched, entry) {
        (Ok(value), _) => Ok(ticket.complete(value).entry),
        (Err(_), Some(entry)) => Ok(entry),
        (Err(error), None) => Err(error),
    }
}
