//! What a cache can be told before it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Seconds;
use crate::cost::Ranking;
use crate::{Cache, Cause, Clock, Entry, MissCost};

/// Far above any memory, and far enough from overflow that sums need no care.
const WEIGHT_MAX: u64 = 1 << 48;
/// An entry's weight is below this, whatever is allowed.
const ENTRY_WEIGHT_MAX: u64 = u32::MAX as u64;
const SHARDS_MAX: usize = 256;

type Listener = dyn Fn(&Entry, Cause) + Send + Sync;

/// Makes a [`Cache`].
#[derive(Clone)]
#[must_use = "a builder makes a cache only when it is told to build"]
pub struct Builder {
    max_weight: u64,
    max_entry_weight: Option<u64>,
    shards: Option<usize>,
    settings: Settings,
}

/// What a cache goes by as long as it lives.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) ranking: Ranking,
    /// Seconds for which a stale value may be served.
    pub(crate) stale: Seconds,
    pub(crate) refresh_ahead: f64,
    pub(crate) refreshes_max: usize,
    pub(crate) negative_ttl: Duration,
    pub(crate) fill_timeout: Duration,
    pub(crate) jitter: f64,
    pub(crate) listener: Option<Arc<Listener>>,
}

impl Builder {
    pub(crate) fn new(max_weight: u64) -> Builder {
        Builder {
            max_weight,
            max_entry_weight: None,
            shards: None,
            settings: Settings {
                clock: Clock::machine(),
                ranking: Ranking::new(MissCost::local()),
                stale: 0,
                refresh_ahead: 0.0,
                refreshes_max: 64,
                negative_ttl: Duration::from_secs(30),
                fill_timeout: Duration::from_secs(60),
                jitter: 0.05,
                listener: None,
            },
        }
    }

    /// The heaviest entry that is kept, in bytes; an eighth of the budget unless this is called.
    pub fn max_entry_weight(mut self, bytes: u64) -> Builder {
        self.max_entry_weight = Some(bytes);
        self
    }

    /// Parts of the cache that are locked by themselves, rounded up to a power of two, at most 256;
    /// four for each processor unless this is called. The budget is not divided among them.
    pub fn shards(mut self, shards: usize) -> Builder {
        self.shards = Some(shards);
        self
    }

    /// What a miss costs, which decides how much small entries are preferred; [`MissCost::local`]
    /// unless this is called.
    pub fn miss_cost(mut self, cost: MissCost) -> Builder {
        self.settings.ranking = Ranking::new(cost);
        self
    }

    /// For how long a value that is no longer fresh may be served while somebody fetches a new one;
    /// not at all unless this is called.
    pub fn stale_while_revalidate(mut self, time: Duration) -> Builder {
        self.settings.stale = crate::clock::after(0, Some(time));
        self
    }

    /// The last part of an entry's fresh life, 0 to 1, in which a read of a hot entry is asked to
    /// fetch it anew; none unless this is called.
    pub fn refresh_ahead(mut self, part: f64) -> Builder {
        self.settings.refresh_ahead = part;
        self
    }

    /// How many fetches ahead of time may be under way at once; 64 unless this is called.
    pub fn max_refreshes(mut self, refreshes: usize) -> Builder {
        self.settings.refreshes_max = refreshes;
        self
    }

    /// How long the news that there is no such key is fresh, if it says nothing itself; 30 seconds
    /// unless this is called.
    pub fn negative_ttl(mut self, ttl: Duration) -> Builder {
        self.settings.negative_ttl = ttl;
        self
    }

    /// The longest that a fetch may take; 60 seconds unless this is called. For so long an invalidated
    /// version is refused.
    pub fn fill_timeout(mut self, time: Duration) -> Builder {
        self.settings.fill_timeout = time;
        self
    }

    /// By how much of its ttl, 0 to 1, an entry may end early, so that what was fetched in the same
    /// second does not end in the same second; 0.05 unless this is called.
    pub fn jitter(mut self, part: f64) -> Builder {
        self.settings.jitter = part.clamp(0.0, 1.0);
        self
    }

    /// Where the time comes from; [`Clock::machine`] unless this is called.
    pub fn clock(mut self, clock: Clock) -> Builder {
        self.settings.clock = clock;
        self
    }

    /// Is told of every entry that leaves, and why. Nothing is locked then, so it may use the cache.
    pub fn eviction_listener(
        mut self,
        listener: impl Fn(&Entry, Cause) + Send + Sync + 'static,
    ) -> Builder {
        self.settings.listener = Some(Arc::new(listener));
        self
    }

    /// Makes the cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let max_weight = self.max_weight.min(WEIGHT_MAX);
        let max_entry = self.max_entry_weight.unwrap_or(max_weight / 8);
        let max_entry = max_entry.min(max_weight).min(ENTRY_WEIGHT_MAX - 1);
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let shards = self.shards.unwrap_or(4 * cores).clamp(1, SHARDS_MAX);
        Cache::new(
            max_weight,
            max_entry,
            shards.next_power_of_two(),
            self.settings,
        )
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Builder");
        debug.field("max_weight", &self.max_weight);
        debug.field("max_entry_weight", &self.max_entry_weight);
        debug.field("shards", &self.shards);
        debug.finish_non_exhaustive()
    }
}
