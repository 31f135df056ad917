//! Bulk writes and deletes: all checked before any is done.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::Response;
use rimstone::{Namespace, PutOptions, Store, WriteBatch};
use serde_json::value::RawValue;

use super::envelope;
use crate::body::Body;
use crate::json::{self, Items, quote};
use crate::kv::{self, Expiry, Fault, Result};
use crate::limits::{
    BATCH_BYTES_MAX, BULK_BYTES_MAX, BULK_PAIRS_MAX, PAIR_BYTES, QUOTED_CHARS_MAX,
};
use crate::response::Outgoing;
use crate::value::blocking;

/// Padding is a matter of taste between encoders.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Bulk<T> = serde_json::Result<Items<T, BULK_PAIRS_MAX>>;

/// Reads a request, does it and says how many keys it was about.
pub(super) async fn answer(
    store: &Store,
    ns: Namespace,
    mut body: Body,
    write: fn(&Store, &Namespace, &[u8]) -> Result<usize>,
) -> Result<Response<Outgoing>> {
    let (store, body) = (store.clone(), body.collect(BULK_BYTES_MAX).await?);
    let count = blocking(move || write(&store, &ns, &body)).await?;
    let result = format!("{{\"successful_key_count\":{count},\"unsuccessful_keys\":[]}}");
    Ok(envelope(&result, None))
}

/// Stores all pairs and returns how many, or stores nothing if one is refused.
///
/// Each batch is all or nothing, their sequence is not: should the store fail between two, the
/// client learns of it and repeats the request.
pub(super) fn put(store: &Store, ns: &Namespace, body: &[u8]) -> Result<usize> {
    let raw: Bulk<&RawValue> = serde_json::from_slice(body);
    let raw = items(raw, broken_pairs)?;
    let now = store.clock().now();
    // Twice, so that no more than a batch of them is in memory beside the request.
    raw.iter().try_for_each(|raw| pair(raw, now).map(drop))?;
    let (mut batch, mut len) = (WriteBatch::new(), 0);
    for raw in &raw {
        let pair = pair(raw, now)?;
        if len + pair.len > BATCH_BYTES_MAX {
            store.write(std::mem::take(&mut batch))?;
            len = 0;
        }
        len += pair.len;
        batch.put_with(ns, pair.key, pair.value, &pair.options);
    }
    store.write(batch)?;
    Ok(raw.len())
}

/// Deletes all keys and returns how many were named. They fit one batch: a key is short.
pub(super) fn delete(store: &Store, ns: &Namespace, body: &[u8]) -> Result<usize> {
    let text = "Request body must be a JSON array of key names";
    let keys: Bulk<String> = serde_json::from_slice(body);
    let keys = items(keys, || Fault::new(400, 10012, text))?;
    keys.iter().try_for_each(|key| kv::check_key(key))?;
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.delete(ns, key);
    }
    store.write(batch)?;
    Ok(keys.len())
}

/// The items of a request, not too many; `broken` if they are no array.
fn items<T>(items: Bulk<T>, broken: impl Fn() -> Fault) -> Result<Vec<T>> {
    let Items(items) = items.map_err(|_| broken())?;
    if items.len() <= BULK_PAIRS_MAX {
        return Ok(items);
    }
    let text = format!("You can send a maximum of {BULK_PAIRS_MAX} keys");
    Err(Fault::new(400, 10029, text))
}

/// A pair as it was sent; numbers keep their text.
#[derive(serde::Deserialize)]
struct Sent<'a> {
    key: String,
    value: String,
    base64: Option<bool>,
    #[serde(borrow)]
    expiration: Option<&'a RawValue>,
    #[serde(borrow)]
    expiration_ttl: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// A pair that was checked.
struct Pair {
    key: String,
    value: Vec<u8>,
    options: PutOptions,
    len: usize,
}

fn pair(raw: &RawValue, now: u64) -> Result<Pair> {
    let sent: Sent<'_> = json::object(raw).ok_or_else(broken_pairs)?;
    kv::check_key(&sent.key)?;
    let mut value = sent.value.into_bytes();
    if sent.base64 == Some(true) {
        value = BASE64.decode(&value).map_err(|_| {
            let text = format!("The value of {} is not valid base64", quote(&sent.key));
            Fault::new(400, 10012, text)
        })?;
    }
    kv::check_value_length(value.len() as u64)?;
    let text = |raw: &RawValue| raw.get().chars().take(QUOTED_CHARS_MAX).collect();
    let expiry = Expiry {
        expiration: sent.expiration.map(text),
        expiration_ttl: sent.expiration_ttl.map(text),
    };
    let metadata = sent.metadata.map_or("", RawValue::get);
    let options = kv::put_options(&expiry, metadata.as_bytes(), now)?;
    let len = sent.key.len() + value.len() + metadata.len() + PAIR_BYTES;
    Ok(Pair {
        key: sent.key,
        value,
        options,
        len,
    })
}

fn broken_pairs() -> Fault {
    let text = "Request body must be a JSON array of objects with the strings key and value";
    Fault::new(400, 10012, text)
}
