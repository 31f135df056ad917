//! Whether an entry is fresh enough for a reader.

use std::time::Duration;

use crate::block::HITS_MAX;
use crate::clock::{NEVER, Seconds};
use crate::{Cache, Entry};

/// What an entry is for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    /// Fresh, but it should be fetched anew before it no longer is.
    Aging,
    Stale,
    Useless,
}

impl Cache {
    /// Whether an entry is fresh for a reader.
    #[inline]
    pub(crate) fn is_fresh(&self, entry: &Entry, cache_ttl: Option<Duration>) -> bool {
        let judged = self.judge(entry, cache_ttl);
        matches!(judged, Freshness::Fresh | Freshness::Aging)
    }

    #[inline]
    pub(crate) fn judge(&self, entry: &Entry, ttl: Option<Duration>) -> Freshness {
        if entry.0.generation() != self.generation(entry.key().namespace) {
            return Freshness::Useless;
        }
        if ttl.is_none() && entry.never_ends() {
            // Most entries of a source in the same process: no need to look at the clock.
            return Freshness::Fresh;
        }
        let now = self.now();
        if entry.is_expired(now) {
            return Freshness::Useless;
        }
        let fresh_until = entry.fresh_until(ttl);
        if now < fresh_until {
            let aging = self.is_aging(entry, fresh_until, now);
            return if aging {
                Freshness::Aging
            } else {
                Freshness::Fresh
            };
        }
        let stale = now < fresh_until.saturating_add(self.0.settings.stale);
        if stale {
            Freshness::Stale
        } else {
            Freshness::Useless
        }
    }

    /// Notes that an entry was read, and has it kept for this reader, who may want it for longer than others.
    #[inline]
    pub(crate) fn touch(&self, entry: &Entry, ttl: Option<Duration>) {
        entry.0.touch();
        if ttl.is_some() {
            // One without a timer stays without.
            let until = self.kept_until(entry.fresh_until(ttl), entry.0.expiration());
            entry.0.keep_until(until.min(NEVER - 1));
        }
    }

    pub(crate) fn kept_until(&self, fresh_until: Seconds, expiration: Seconds) -> Seconds {
        let stale_until = fresh_until.saturating_add(self.0.settings.stale);
        stale_until.min(expiration)
    }

    fn is_aging(&self, entry: &Entry, fresh_until: Seconds, now: Seconds) -> bool {
        let part = self.0.settings.refresh_ahead;
        if part <= 0.0 || fresh_until == NEVER || entry.0.hits() < HITS_MAX {
            return false;
        }
        let life = f64::from(fresh_until - entry.0.fetched());
        f64::from(fresh_until - now) <= life * part
    }
}
