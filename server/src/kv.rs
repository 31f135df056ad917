//! The rules of Workers KV, once for both dialects and the command line.
//!
//! Everything is checked here before the engine is called; a dialect only renders the [`Fault`].

use std::time::Duration;

use percent_encoding::percent_decode_str;
use rimstone::{Error, ListOptions, Namespace, NamespaceId, PutOptions, ReadOptions, Store};
use serde_json::value::RawValue;

use crate::limits::*;

/// Why a request was refused: an HTTP status, the REST API's code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// The code of the REST envelope.
    pub code: u32,
    /// What a person reads: the reason phrase, or the message in the envelope.
    pub text: String,
}

impl Fault {
    pub(crate) fn new(status: u16, code: u32, text: impl Into<String>) -> Fault {
        Fault {
            status,
            code,
            text: text.into(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let text = error.to_string();
        match error {
            Error::InvalidKey { .. } => Fault::new(400, 10042, text),
            Error::TooLarge { .. } => Fault::new(413, 10024, text),
            Error::InvalidCursor => Fault::new(400, 10041, "Invalid cursor"),
            Error::NoSuchNamespace => Fault::new(404, 10013, "namespace not found"),
            Error::NamespaceExists { .. } => Fault::new(
                400,
                10014,
                "a namespace with this account ID and title already exists",
            ),
            Error::Full => Fault::new(507, 10001, text),
            Error::Poisoned => Fault::new(503, 10001, text),
            // The path of a damaged file is for the log, not for the network.
            _ => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                Fault::new(
                    500,
                    10001,
                    "the store could not answer; see the server's log",
                )
            }
        }
    }
}

/// A value, or why there is none.
pub type Result<T> = std::result::Result<T, Fault>;

/// Finds a namespace by its id or, failing that, by its title.
#[must_use]
pub fn find_namespace(store: &Store, id_or_title: &str) -> Option<Namespace> {
    let id = id_or_title.parse::<NamespaceId>().ok();
    id.and_then(|id| store.namespace_by_id(id))
        .or_else(|| store.find_namespace(id_or_title))
}

/// Decodes the rest of a raw URI path into a key and checks it. A plus is a plus.
///
/// # Errors
///
/// If the escapes or the UTF-8 are broken, or [`check_key`] refuses the key.
pub fn decode_key(raw: &str) -> Result<String> {
    let broken = || Fault::new(400, 10042, "Could not URL-decode key name");
    let escapes = raw.split('%').skip(1);
    let whole = |tail: &str| tail.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !escapes.into_iter().all(whole) {
        return Err(broken());
    }
    let key = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| broken())?
        .into_owned();
    check_key(&key)?;
    Ok(key)
}

/// Checks a key.
///
/// # Errors
///
/// If it is empty, `.`, `..` or too long.
pub fn check_key(key: &str) -> Result<()> {
    match key {
        "" => Err(Fault::new(400, 10042, "Key names must not be empty")),
        "." | ".." => Err(Fault::new(
            400,
            10042,
            format!("\"{key}\" is not allowed as a key name."),
        )),
        _ => check_key_length(key),
    }
}

fn check_key_length(key: &str) -> Result<()> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "UTF-8 encoded length of {} exceeds key length limit of {KEY_BYTES_MAX}.",
        key.len()
    );
    Err(Fault::new(414, 10030, text))
}

/// Checks the length of a value.
///
/// # Errors
///
/// If it is over 25 MiB.
pub fn check_value_length(len: u64) -> Result<()> {
    if len <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let text = format!("Value length of {len} exceeds limit of {VALUE_BYTES_MAX}.");
    Err(Fault::new(413, 10024, text))
}

/// Checks metadata and returns it without the whitespace between its tokens; `null` becomes empty.
///
/// Numbers keep the text they came with. The length is that of the text as it arrived.
///
/// # Errors
///
/// If it is too long or no JSON.
pub fn metadata(raw: &[u8]) -> Result<Vec<u8>> {
    if raw.len() > METADATA_BYTES_MAX {
        let text = format!(
            "Metadata length of {} exceeds limit of {METADATA_BYTES_MAX}.",
            raw.len()
        );
        return Err(Fault::new(413, 10047, text));
    }
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let broken = |_| Fault::new(400, 10047, "Metadata must be valid JSON");
    let text: &RawValue = serde_json::from_slice(raw).map_err(broken)?;
    let compact = compact(text.get());
    Ok(if compact == b"null" {
        Vec::new()
    } else {
        compact
    })
}

/// Valid JSON without the whitespace between its tokens.
fn compact(json: &str) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |&byte: &u8| {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let keep = quoted || !space;
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
        keep
    };
    json.bytes().filter(keep).collect()
}

/// What the options of a put say about time, as text so that a fault can quote it.
#[derive(Clone, Debug, Default)]
pub struct Expiry {
    /// Absolute, in seconds since the Unix epoch.
    pub expiration: Option<String>,
    /// Relative, in seconds; wins over `expiration`.
    pub expiration_ttl: Option<String>,
}

impl Expiry {
    fn check(&self, now: u64) -> Result<PutOptions> {
        let options = PutOptions::new();
        if let Some(ttl) = &self.expiration_ttl {
            return Ok(options.expiration_ttl(Duration::from_secs(check_ttl(ttl)?)));
        }
        match &self.expiration {
            Some(expiration) => Ok(options.expiration(check_expiration(expiration, now)?)),
            None => Ok(options),
        }
    }
}

fn check_ttl(text: &str) -> Result<u64> {
    let fault = |rule| {
        Fault::new(
            400,
            10034,
            format!("Invalid expiration_ttl of {text}. {rule}"),
        )
    };
    match text.parse::<u64>() {
        Ok(ttl @ EXPIRATION_SECONDS_MIN..=0xff_ffff_ffff) => Ok(ttl),
        Ok(1..EXPIRATION_SECONDS_MIN) => Err(fault("Expiration TTL must be at least 60.")),
        _ => Err(fault("Please specify integer greater than 0.")),
    }
}

fn check_expiration(text: &str, now: u64) -> Result<u64> {
    let fault = |rule| Fault::new(400, 10033, format!("Invalid expiration of {text}. {rule}"));
    match text.parse::<u64>() {
        Ok(at) if at > now && at - now >= EXPIRATION_SECONDS_MIN && at <= 0xff_ffff_ffff => Ok(at),
        Ok(at) if at > now && at - now < EXPIRATION_SECONDS_MIN => Err(fault(
            "Expiration times must be at least 60 seconds in the future.",
        )),
        _ => Err(fault(
            "Please specify integer greater than the current number of seconds since the UNIX epoch.",
        )),
    }
}

/// The engine's options for a put, everything checked.
///
/// # Errors
///
/// If an expiration or the metadata is refused.
pub fn put_options(expiry: &Expiry, raw_metadata: &[u8], now: u64) -> Result<PutOptions> {
    Ok(expiry.check(now)?.metadata(metadata(raw_metadata)?))
}

/// How a read with this `cacheTtl` is done. It says how long the hot cache may keep a copy; what a store
/// on one node answers is never stale.
///
/// # Errors
///
/// If it is no integer of at least 30.
pub fn read_options(cache_ttl: Option<&str>) -> Result<ReadOptions> {
    let Some(text) = cache_ttl else {
        return Ok(ReadOptions::new());
    };
    match text.parse::<u64>() {
        Ok(seconds @ CACHE_TTL_SECONDS_MIN..) => {
            Ok(ReadOptions::new().cache_ttl(Duration::from_secs(seconds)))
        }
        _ => {
            let text = format!("Invalid cache_ttl of {text}. Cache TTL must be at least 30.");
            Err(Fault::new(400, 10001, text))
        }
    }
}

/// The engine's options for a page.
///
/// # Errors
///
/// If the prefix is too long or the limit out of bounds.
pub fn list_options(
    prefix: Option<&str>,
    limit: Option<&str>,
    cursor: Option<&str>,
    limit_min: usize,
) -> Result<ListOptions> {
    let prefix = prefix.unwrap_or_default();
    check_key_length(prefix)?;
    let mut options = ListOptions::new().prefix(prefix).limit(LIST_KEYS_MAX);
    if let Some(text) = limit {
        options = options.limit(check_limit(text, limit_min)?);
    }
    if let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) {
        options = options.cursor(cursor);
    }
    Ok(options)
}

fn check_limit(text: &str, min: usize) -> Result<usize> {
    let too_few = || format!("greater than {}", min.saturating_sub(1));
    let rule = match text.parse::<i64>() {
        Ok(limit) if limit > 1000 => "less than 1000".to_owned(),
        Ok(limit) => match usize::try_from(limit) {
            Ok(limit) if limit >= min => return Ok(limit),
            _ => too_few(),
        },
        Err(_) => too_few(),
    };
    let text = format!("Invalid key_count_limit of {text}. Please specify an integer {rule}.");
    Err(Fault::new(400, 10028, text))
}
