use std::time::Duration;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After a flush that many writers share: an acknowledged write survives a power cut.
    #[default]
    Immediate,
    /// Once written to the operating system, which is flushed this often: a power cut loses at most
    /// this much time, the death of the process nothing.
    Interval(Duration),
    /// Once written to the operating system: the death of the process loses nothing, a power cut
    /// whatever was not written back.
    None,
}

/// Whether a value is verified against its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// On every read, so that no wrong byte is ever served.
    #[default]
    Always,
    /// On the first read since the store was opened; a large value, which is verified in pieces of
    /// 64 KiB, also when it was not read for long. Header and key are verified on every read. Lists verify
    /// what they read of the ordered index likewise. What the disk changes after that first read, and the
    /// system reads again, is served as it is.
    FirstRead,
}

/// How one entry is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    pub(crate) cache_ttl: Option<Duration>,
}

impl ReadOptions {
    /// A plain read: the hot cache, if [there is one](crate::Options::cache), is used where it was
    /// measured that such reads gain by it.
    #[must_use]
    pub fn new() -> ReadOptions {
        ReadOptions::default()
    }

    /// Has the hot cache keep a verified copy for this long, in whole seconds, as long as there is room; and
    /// takes one that is younger. It says nothing about staleness: the entry is the newest, whatever the time.
    #[must_use]
    pub fn cache_ttl(mut self, ttl: Duration) -> ReadOptions {
        self.cache_ttl = Some(ttl);
        self
    }
}

/// How one value is written.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    pub(crate) expiration: Option<u64>,
    pub(crate) expiration_ttl: Option<Duration>,
    pub(crate) metadata: Vec<u8>,
    pub(crate) condition: Condition,
    pub(crate) durability: Option<Durability>,
}

/// What must hold of a key for a write to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    None,
    Absent,
    Generation(u64),
    /// Nothing is done if the key was written at this sequence number or later.
    Before(u64),
}

impl PutOptions {
    /// A plain put: no expiration, no metadata, no condition, the store's durability.
    #[must_use]
    pub fn new() -> PutOptions {
        PutOptions::default()
    }

    /// Expires the entry at this time, in seconds since the Unix epoch.
    #[must_use]
    pub fn expiration(mut self, seconds: u64) -> PutOptions {
        self.expiration = Some(seconds);
        self
    }

    /// Expires the entry this long after the put, in whole seconds rounded up. Wins over
    /// [`expiration`](PutOptions::expiration).
    #[must_use]
    pub fn expiration_ttl(mut self, ttl: Duration) -> PutOptions {
        self.expiration_ttl = Some(ttl);
        self
    }

    /// Stores up to 1024 bytes beside the value. An empty slice means no metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: impl AsRef<[u8]>) -> PutOptions {
        self.metadata = metadata.as_ref().to_vec();
        self
    }

    /// Writes only if the key is absent (or expired), else fails with
    /// [`Error::Conflict`](crate::Error::Conflict).
    #[must_use]
    pub fn if_absent(mut self) -> PutOptions {
        self.condition = Condition::Absent;
        self
    }

    /// Writes only if the key's newest write has this generation, else fails with
    /// [`Error::Conflict`](crate::Error::Conflict).
    #[must_use]
    pub fn if_generation(mut self, generation: u64) -> PutOptions {
        self.condition = Condition::Generation(generation);
        self
    }

    /// Overrides the store's durability for this write. An interval that is shorter than the store's
    /// counts as `Immediate`.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> PutOptions {
        self.durability = Some(durability);
        self
    }
}
