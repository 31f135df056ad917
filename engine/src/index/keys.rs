//! The keys of the store in order, for `list`: today the memtable alone, which replay fills.

use std::ops::Bound;

use super::runs::{self, KeyRecord, Memtable, Outcome, Query, Sources, cursor};
use crate::error::{Error, Result};
use crate::list::{ListOptions, Page};

/// Records examined for one page at most, for each key asked for: a range full of dead keys gives a
/// short page and a cursor instead of a stall.
const WORK_PER_KEY: usize = 20;
const WORK_MIN: usize = 1000;

/// The ordered index.
pub(crate) struct Keys {
    memtable: Memtable,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys {
            memtable: Memtable::new(),
        }
    }

    /// Takes changes in sequence order; a page sees all of a call or nothing.
    pub(crate) fn apply<'a>(&self, changes: impl IntoIterator<Item = KeyRecord<'a>>) {
        self.memtable.insert(changes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.memtable.bytes()
    }

    /// One page of a namespace's keys at time `now`.
    pub(crate) fn list(
        &self,
        namespace: u32,
        options: &ListOptions,
        secret: &[u8; 16],
        now: u64,
    ) -> Result<Page> {
        let print = cursor::Fingerprint {
            namespace,
            prefix: &options.prefix,
            start: options.start.as_deref(),
            end: options.end.as_deref(),
            reverse: options.reverse,
        };
        let after = match &options.cursor {
            Some(text) => Some(cursor::decode(secret, &print, text).ok_or(Error::InvalidCursor)?),
            None => None,
        };
        let prefix_end = successor(&options.prefix);
        let start = options
            .start
            .as_deref()
            .unwrap_or_default()
            .max(&options.prefix[..]);
        let end = match (options.end.as_deref(), prefix_end.as_deref()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let (mut lower, mut upper) = (Bound::Included(start), Bound::Unbounded);
        if let Some(end) = end {
            upper = Bound::Excluded(end);
        }
        match (&after, options.reverse) {
            (Some(key), false) => lower = Bound::Excluded(key),
            (Some(key), true) => upper = Bound::Excluded(key),
            (None, _) => {}
        }
        let limit = options.limit;
        let work = limit.saturating_mul(WORK_PER_KEY).max(WORK_MIN);
        let query = Query {
            namespace,
            lower,
            upper,
            limit,
            reverse: options.reverse,
            now,
            work,
        };
        let sources = Sources {
            memtable: self.memtable.snapshot(),
            ..Sources::default()
        };
        let mut page = Page::default();
        let outcome = runs::list(&sources, &query, |record| {
            page.push(record.key, record.metadata, record.expiration, record.seqno);
        });
        let outcome = outcome.map_err(|damage| Error::Corrupt {
            path: format!("{:016x}.run", damage.run).into(),
            offset: damage.damage.offset,
            reason: damage.damage.reason,
        })?;
        if let Outcome::More { after } = outcome {
            page.cursor = Some(cursor::encode(secret, &print, &after));
        }
        Ok(page)
    }
}

/// The least key after all keys with this prefix, `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=keep)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.wrapping_add(1);
    }
    Some(end)
}
