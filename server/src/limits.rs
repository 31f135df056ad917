//! Every number of the Workers KV contract that this server enforces, with its source.

use std::time::Duration;

/// Longest key and longest list prefix, in bytes of UTF-8 (Cloudflare's limits page).
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value: 25 MiB (Cloudflare's limits page).
pub const VALUE_BYTES_MAX: u64 = 25 * 1024 * 1024;
/// Largest metadata, in bytes of serialised JSON (Cloudflare's limits page).
pub const METADATA_BYTES_MAX: usize = 1024;
/// Shortest time to live and nearest expiration, in seconds (Cloudflare's documentation of `put`).
pub const EXPIRATION_SECONDS_MIN: u64 = 60;
/// Shortest `cacheTtl`, in seconds (Cloudflare's changelog of 2026-01-30; 60 before).
pub const CACHE_TTL_SECONDS_MIN: u64 = 30;
/// Most keys on a page, and the default (Cloudflare's documentation of `list`).
pub const LIST_KEYS_MAX: usize = 1000;
/// Fewest keys a REST client may ask for (Cloudflare's OpenAPI description).
pub const REST_LIST_KEYS_MIN: usize = 10;
/// Most keys in one bulk get (Cloudflare's documentation of `get`).
pub const BULK_GET_KEYS_MAX: usize = 100;
/// Largest total of the values one bulk get returns (Cloudflare's documentation of `get`).
pub const BULK_GET_BYTES_MAX: usize = 25 * 1024 * 1024;
/// Most pairs in one bulk write or delete (Cloudflare's OpenAPI description).
pub const BULK_PAIRS_MAX: usize = 10_000;
/// Largest request of a bulk write or delete (Cloudflare's OpenAPI description).
pub const BULK_BYTES_MAX: usize = 100_000_000;
/// Longest namespace title, in characters (Cloudflare's OpenAPI description).
pub const TITLE_CHARS_MAX: usize = 512;
/// Longest reason phrase (Miniflare cuts there too).
pub const REASON_BYTES_MAX: usize = 512;
/// Largest small JSON request: a hundred keys, all escaped, and room to spare. Ours.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Values up to here travel in one piece; larger ones are streamed. Ours.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Namespaces on a page unless the client says otherwise (as Cloudflare).
pub const PER_PAGE: usize = 20;
/// Most namespaces on a page; wrangler asks for as many. Ours.
pub const PER_PAGE_MAX: usize = 1000;
/// Bytes of one batch of a bulk write; the engine takes twice that, its headers included. Ours.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a pair of it costs beside its key, value and metadata, generously. Ours.
pub const PAIR_BYTES: usize = 128;
/// Most characters of a client's own text that a message quotes. Ours.
pub const QUOTED_CHARS_MAX: usize = 64;
/// Longest request line. Ours: a key of 512 bytes, all escaped, takes 1.5 KiB of it.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Largest headers of a request together. Ours: metadata is at most 1 KiB of them.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Most request headers. Ours.
pub const HEADERS_MAX: usize = 100;
/// A longer head is refused before it is parsed; also the largest piece of a body. Ours.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Most connections at a time of who collects metrics. Ours.
pub const METRICS_CONNECTIONS_MAX: usize = 16;

/// What clients may cost the server. All ours; the defaults are meant for everybody, tests take
/// less.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time; more wait to be accepted. Default: 1,024.
    pub connections: usize,
    /// Most connections at a time from one address, or one IPv6 network of 64 bits; the next one is
    /// closed. From loopback there may be any number: the Workers runtime opens one for each operation
    /// under way. Default: 64.
    pub per_address: usize,
    /// How long a connection may wait for the first byte of a request. Default: 60 s.
    pub idle: Duration,
    /// How long a client may take for a request's head from its first byte. Default: 10 s.
    pub head: Duration,
    /// How long a body may pause, in either direction. Default: 30 s.
    pub pause: Duration,
    /// How long a request may take in all, from its head to the last byte of its response. Default:
    /// 5 min.
    pub request: Duration,
    /// Fewest bytes a second of a body that had `pause` to get going. Default: 1 KiB.
    pub rate: u64,
    /// Memory for the bodies of all requests, in bytes; beyond it a request is told to come back
    /// later. Default: 256 MiB.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            per_address: 64,
            idle: Duration::from_secs(60),
            head: Duration::from_secs(10),
            pause: Duration::from_secs(30),
            request: Duration::from_secs(300),
            rate: 1024,
            memory: 256 * 1024 * 1024,
        }
    }
}
