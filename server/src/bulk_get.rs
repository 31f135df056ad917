//! A bulk get, the same in both dialects.

use std::collections::HashSet;

use rimstone::{Entry, Namespace};
use serde_json::value::RawValue;

use crate::json::{self, Items, quote};
use crate::kv::{Fault, Result, check_key, read_options};
use crate::limits::{BULK_GET_BYTES_MAX, BULK_GET_KEYS_MAX, QUOTED_CHARS_MAX};

/// What a bulk get asks for.
pub(crate) struct BulkGet {
    keys: Vec<String>,
    json: bool,
    with_metadata: bool,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    keys: Items<String, BULK_GET_KEYS_MAX>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(default)]
    with_metadata: Option<bool>,
    #[serde(borrow)]
    cache_ttl: Option<&'a RawValue>,
}

impl BulkGet {
    /// Parses and checks the request of either dialect.
    pub(crate) fn parse(body: &[u8]) -> Result<BulkGet> {
        let broken = || Fault::new(400, 10012, "Request body must be a JSON object with keys");
        let body: &RawValue = serde_json::from_slice(body).map_err(|_| broken())?;
        let request: Request<'_> = json::object(body).ok_or_else(broken)?;
        let keys = request.keys.0;
        check_count(keys.len())?;
        keys.iter().try_for_each(|key| check_key(key))?;
        // The runtime sends the number as a string. Reads of many keys go around the cache.
        let ttl = request.cache_ttl.map(|ttl| ttl.get().trim_matches('"'));
        read_options(ttl)?;
        Ok(BulkGet {
            keys,
            json: is_json(request.kind.map_or("\"text\"", RawValue::get))?,
            with_metadata: request.with_metadata.unwrap_or(false),
        })
    }

    /// Reads the keys and writes the JSON object from key to value, in the order asked for.
    ///
    /// Written member by member: each key appears once, and names such as `10` keep their place.
    pub(crate) fn answer(mut self, ns: &Namespace) -> Result<String> {
        let mut seen = HashSet::new();
        self.keys.retain(|key| seen.insert(key.clone()));
        let entries = ns.get_many(&self.keys)?;
        let total: usize = entries
            .iter()
            .flatten()
            .map(|entry| entry.value().len())
            .sum();
        if total > BULK_GET_BYTES_MAX {
            let text = format!("Total size of {total} exceeds limit of {BULK_GET_BYTES_MAX}.");
            return Err(Fault::new(413, 10024, text));
        }
        let mut members = Vec::with_capacity(entries.len());
        for (key, entry) in self.keys.iter().zip(&entries) {
            let shown = entry.as_ref().map(|entry| self.show(entry)).transpose()?;
            members.push(format!(
                "{}:{}",
                quote(key),
                shown.as_deref().unwrap_or("null")
            ));
        }
        Ok(format!("{{{}}}", members.join(",")))
    }

    fn show(&self, entry: &Entry) -> Result<String> {
        let value = if self.json {
            let text = "At least one of the requested keys corresponds to a non-JSON value";
            let broken = |_| Fault::new(400, 10012, text);
            let raw: &RawValue = serde_json::from_slice(entry.value()).map_err(broken)?;
            raw.get().to_owned()
        } else {
            quote(&String::from_utf8_lossy(entry.value()))
        };
        if !self.with_metadata {
            return Ok(value);
        }
        let expiration = entry.expiration();
        let expiration = expiration.map_or(String::new(), |at| format!(",\"expiration\":{at}"));
        let metadata = json::or_null(entry.metadata());
        Ok(format!(
            "{{\"value\":{value},\"metadata\":{metadata}{expiration}}}"
        ))
    }
}

fn check_count(count: usize) -> Result<()> {
    let text = match count {
        0 => "You must request a minimum of 1 key".to_owned(),
        1..=BULK_GET_KEYS_MAX => return Ok(()),
        _ => format!("You can request a maximum of {BULK_GET_KEYS_MAX} keys"),
    };
    Err(Fault::new(400, 10029, text))
}

fn is_json(kind: &str) -> Result<bool> {
    match kind {
        r#""text""# => Ok(false),
        r#""json""# => Ok(true),
        _ => {
            let kind: String = kind
                .trim_matches('"')
                .chars()
                .take(QUOTED_CHARS_MAX)
                .collect();
            let text = format!("\"{kind}\" is not a valid type. Use \"json\" or \"text\"");
            Err(Fault::new(400, 10012, text))
        }
    }
}
