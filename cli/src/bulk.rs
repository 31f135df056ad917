//! `rimstone bulk`.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rimstone::{Namespace, PutOptions, Store, WriteBatch};
use rimstone_server::kv::{self, Expiry};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::Outcome;
use crate::local::{Data, Which, read_json, read_keys};

/// A batch is written at this many keys or bytes, well below the engine's limit.
const BATCH_KEYS: usize = 1000;
const BATCH_BYTES: usize = 8 << 20;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Write the pairs of a JSON array of {key, value, base64?, expiration?, expiration_ttl?,
    /// metadata?}.
    Put(Args),
    /// Print a JSON object from key to value, null for a missing one.
    Get(Args),
    /// Delete the keys of a JSON array.
    Delete(Args),
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The JSON file, `-` for stdin.
    file: PathBuf,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    data: Data,
}

#[derive(serde::Deserialize)]
struct Pair {
    key: String,
    value: String,
    #[serde(default)]
    base64: bool,
    expiration: Option<Number>,
    expiration_ttl: Option<Number>,
    metadata: Option<Box<RawValue>>,
}

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Put(args) => put(&args),
        Command::Get(args) => get(&args),
        Command::Delete(args) => delete(&args),
    }
}

// Everything is checked before anything is written.
fn put(args: &Args) -> Outcome {
    let pairs: Vec<Pair> = read_json(&args.file, "a JSON array of objects with key and value")?;
    let store = args.data.open()?;
    let ns = args.which.find(&store)?;
    let now = store.clock().now();
    let check = |pair: Pair| {
        let key = pair.key.clone();
        checked(pair, now).map_err(|error| format!("{key:?}: {error}"))
    };
    let pairs: Vec<_> = pairs.into_iter().map(check).collect::<Result<_, _>>()?;
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    for (key, value, options) in pairs {
        if batch.len() >= BATCH_KEYS || bytes >= BATCH_BYTES {
            store.write(std::mem::take(&mut batch))?;
            bytes = 0;
        }
        bytes += value.len();
        batch.put_with(&ns, key, value, &options);
    }
    store.write(batch)?;
    Ok(store.close()?)
}

fn checked(pair: Pair, now: u64) -> Outcome<(String, Vec<u8>, PutOptions)> {
    kv::check_key(&pair.key)?;
    let value = if pair.base64 {
        let decoded = BASE64_STANDARD.decode(pair.value);
        decoded.map_err(|_| "the value is not base64; correct it, or leave out \"base64\"")?
    } else {
        pair.value.into_bytes()
    };
    kv::check_value_length(value.len() as u64)?;
    let text = |number: Option<Number>| number.map(|number| number.to_string());
    let expiry = Expiry {
        expiration: text(pair.expiration),
        expiration_ttl: text(pair.expiration_ttl),
    };
    let metadata = pair.metadata.as_ref().map_or("", |metadata| metadata.get());
    let options = kv::put_options(&expiry, metadata.as_bytes(), now)?;
    Ok((pair.key, value, options))
}

fn get(args: &Args) -> Outcome {
    let mut keys = read_keys(&args.file)?;
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    let store = args.data.open()?;
    let ns = args.which.find(&store)?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let mut separator = "{\n  ";
    for key in &keys {
        let value = text(&ns, key)?;
        let (key, value) = (serde_json::to_string(key)?, serde_json::to_string(&value)?);
        write!(stdout, "{separator}{key}: {value}")?;
        separator = ",\n  ";
    }
    writeln!(stdout, "{}", if keys.is_empty() { "{}" } else { "\n}" })?;
    Ok(stdout.flush()?)
}

// Replacing bytes that JSON cannot hold would be a silent loss.
fn text(ns: &Namespace, key: &str) -> Outcome<Option<String>> {
    let Some(value) = ns.get(key)? else {
        return Ok(None);
    };
    let text = String::from_utf8(value.to_vec());
    let text = text.map_err(|_| {
        format!("the value of {key:?} is not text; read it with `rimstone key get`")
    })?;
    Ok(Some(text))
}

fn delete(args: &Args) -> Outcome {
    let keys = read_keys(&args.file)?;
    let store = args.data.open()?;
    let ns = args.which.find(&store)?;
    for keys in keys.chunks(BATCH_KEYS) {
        delete_some(&store, &ns, keys)?;
    }
    Ok(store.close()?)
}

fn delete_some(store: &Store, ns: &Namespace, keys: &[String]) -> Outcome {
    let mut batch = WriteBatch::new();
    for key in keys {
        batch.delete(ns, key);
    }
    Ok(store.write(batch)?)
}
