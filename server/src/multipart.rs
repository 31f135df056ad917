//! Forms: a value and what goes with it, in parts whose own content types say nothing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::{Map, Value};

use crate::body::Body;
use crate::kv::{Expiry, Fault, Result, check_value_length};
use crate::limits::{JSON_BYTES_MAX, METADATA_BYTES_MAX, VALUE_BYTES_MAX};
use crate::share::Share;

/// Deepest `metadata[a][b]`, so that nobody chooses how deep we recurse.
const DEPTH_MAX: usize = 16;

/// What a form says. The value is held in memory: its metadata may come after it.
pub(crate) struct Form {
    pub(crate) value: Bytes,
    /// As it arrived, unchecked; empty if there is none.
    pub(crate) metadata: Vec<u8>,
    pub(crate) expiry: Expiry,
    _share: Arc<Share>,
}

/// Reads a form. Of parts with one name the last counts.
pub(crate) async fn read(boundary: String, body: Body) -> Result<Form> {
    let max = VALUE_BYTES_MAX + JSON_BYTES_MAX as u64;
    if body.declared().is_some_and(|len| len > max) {
        return Err(too_long(max));
    }
    let share = Arc::clone(body.share());
    let pieces = stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.next_held().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(body))),
            Ok(None) => None,
            Err(fault) => Some((Err(fault), None)),
        }
    });
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(max));
    let mut parts = Multipart::with_constraints(pieces, boundary, limits);
    let (mut value, mut metadata, mut expiry) = (None, Vec::new(), Expiry::default());
    let mut rebuilt = Rebuilt::default();
    while let Some(mut part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "value" => value = Some(collect(&mut part, check_value_length).await?),
            "metadata" => metadata = collect(&mut part, check_metadata).await?.to_vec(),
            "expiration" => expiry.expiration = Some(text(&mut part).await?),
            "expiration_ttl" => expiry.expiration_ttl = Some(text(&mut part).await?),
            _ => {
                if let Some(path) = name.strip_prefix("metadata[") {
                    rebuilt.add(path, text(&mut part).await?)?;
                }
            }
        }
    }
    let value = value.ok_or_else(|| Fault::new(400, 10012, "The form has no part named value"))?;
    if metadata.is_empty() && !rebuilt.object.is_null() {
        metadata = rebuilt.object.to_string().into_bytes();
    }
    Ok(Form {
        value,
        metadata,
        expiry,
        _share: share,
    })
}

async fn collect(part: &mut Field<'_>, check: impl Fn(u64) -> Result<()>) -> Result<Bytes> {
    let mut all = BytesMut::new();
    while let Some(piece) = part.chunk().await.map_err(broken)? {
        check((all.len() + piece.len()) as u64)?;
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

async fn text(part: &mut Field<'_>) -> Result<String> {
    let bytes = collect(part, check_metadata).await?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn check_metadata(len: u64) -> Result<()> {
    if len <= METADATA_BYTES_MAX as u64 {
        return Ok(());
    }
    let text = format!("Metadata length of {len} exceeds limit of {METADATA_BYTES_MAX}.");
    Err(Fault::new(413, 10047, text))
}

fn too_long(max: u64) -> Fault {
    Fault::new(413, 10024, format!("Request exceeds limit of {max} bytes."))
}

fn broken(error: multer::Error) -> Fault {
    let broken = |error| Fault::new(400, 10012, format!("Request body is no form: {error}"));
    match error {
        multer::Error::StreamSizeExceeded { limit } => too_long(limit),
        multer::Error::StreamReadFailed(error) => match error.downcast::<Fault>() {
            Ok(fault) => *fault,
            Err(error) => broken(error.to_string()),
        },
        error => broken(error.to_string()),
    }
}

/// The object that a client took apart into `metadata[a]`, `metadata[b][c]`, `metadata[d][]`.
///
/// Its leaves are strings: what they were before is lost on the way.
#[derive(Default)]
struct Rebuilt {
    object: Value,
    len: usize,
}

impl Rebuilt {
    fn add(&mut self, path: &str, text: String) -> Result<()> {
        self.len += path.len() + text.len();
        check_metadata(self.len as u64)?;
        let malformed = || Fault::new(400, 10047, "Metadata must be valid JSON");
        let path = path.strip_suffix(']').ok_or_else(malformed)?;
        let names: Vec<&str> = path.split("][").collect();
        if names.len() > DEPTH_MAX {
            return Err(malformed());
        }
        insert(&mut self.object, &names, text);
        Ok(())
    }
}

fn insert(at: &mut Value, names: &[&str], text: String) {
    match names.split_first() {
        None => *at = Value::String(text),
        Some((&"", rest)) => {
            if !at.is_array() {
                *at = Value::Array(Vec::new());
            }
            if let Value::Array(items) = at {
                let mut item = Value::Null;
                insert(&mut item, rest, text);
                items.push(item);
            }
        }
        Some((&name, rest)) => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(members) = at {
                insert(members.entry(name).or_insert(Value::Null), rest, text);
            }
        }
    }
}
