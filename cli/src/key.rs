//! `rimstone key`.

use std::io::{Read, Write};
use std::path::PathBuf;

use rimstone_server::kv::{self, Expiry};
use rimstone_server::limits::VALUE_BYTES_MAX;
use serde_json::value::RawValue;

use crate::Outcome;
use crate::local::{Data, Which};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Write a value.
    Put(Put),
    /// Print a value, byte for byte.
    Get(One),
    /// Delete a key, where a missing one is fine; or all keys that begin alike, or all there are.
    Delete(Delete),
    /// Print the keys as a JSON array.
    List(List),
}

#[derive(clap::Args)]
pub(crate) struct Put {
    /// The key.
    key: String,
    /// The value; or give --path.
    #[arg(required_unless_present = "path", conflicts_with = "path")]
    value: Option<String>,
    /// A file with the value, `-` for stdin.
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// Seconds until the key expires, at least 60.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<String>,
    /// When the key expires, in seconds since the Unix epoch.
    #[arg(long, value_name = "TIME")]
    expiration: Option<String>,
    /// Any JSON, kept beside the value.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    data: Data,
}

#[derive(clap::Args)]
pub(crate) struct One {
    /// The key.
    key: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    data: Data,
}

#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The key.
    #[arg(required_unless_present_any = ["prefix", "all"])]
    key: Option<String>,
    /// Delete every key that begins so.
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["key", "all"])]
    prefix: Option<String>,
    /// Delete every key of the namespace.
    #[arg(long, conflicts_with = "key")]
    all: bool,
    /// Do not ask before deleting many.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    data: Data,
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Only keys that begin so.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Put(args) => put(args),
        Command::Get(args) => get(args),
        Command::Delete(args) => delete(args),
        Command::List(args) => list(args),
    }
}

fn put(args: Put) -> Outcome {
    kv::check_key(&args.key)?;
    let value = match (args.path, args.value) {
        (Some(path), _) => read(&path)?,
        (None, value) => value.unwrap_or_default().into_bytes(),
    };
    kv::check_value_length(value.len() as u64)?;
    let store = args.data.open()?;
    let expiry = Expiry {
        expiration: args.expiration,
        expiration_ttl: args.ttl,
    };
    let metadata = args.metadata.unwrap_or_default();
    let options = kv::put_options(&expiry, metadata.as_bytes(), store.clock().now())?;
    args.which
        .find(&store)?
        .put_with(&args.key, value, &options)?;
    Ok(store.close()?)
}

fn delete(args: Delete) -> Outcome {
    let prefix = args.prefix.unwrap_or_default();
    if let Some(key) = &args.key {
        kv::check_key(key)?;
    } else if prefix.is_empty() && !args.all {
        return Err("an empty prefix is every key: say --all".into());
    }
    let store = args.data.open()?;
    let ns = args.which.find(&store)?;
    if let Some(key) = &args.key {
        ns.delete(key)?;
    } else {
        if !args.yes {
            confirm(&prefix, &ns.name())?;
        }
        ns.delete_prefix(prefix)?;
    }
    Ok(store.close()?)
}

/// Asks a person whether so much is to be deleted.
fn confirm(prefix: &str, namespace: &str) -> Outcome {
    let what = match prefix {
        "" => "every key".to_owned(),
        prefix => format!("every key that begins with {prefix:?}"),
    };
    eprint!("Delete {what} in {namespace:?}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err("nothing was deleted; say y, or --yes".into()),
    }
}

// One byte more than a value may have is enough to know.
fn read(path: &std::path::Path) -> Outcome<Vec<u8>> {
    let mut value = Vec::new();
    let limit = VALUE_BYTES_MAX.saturating_add(1);
    let result = if path == std::path::Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut value)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))
    };
    result.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(value)
}

fn get(args: One) -> Outcome {
    kv::check_key(&args.key)?;
    let store = args.data.open()?;
    let value = args.which.find(&store)?.stream(&args.key)?;
    let value = value.ok_or_else(|| {
        format!(
            "there is no key {:?}; `rimstone key list` shows those there are",
            args.key
        )
    })?;
    let mut stdout = std::io::stdout().lock();
    for piece in value {
        stdout.write_all(&piece?)?;
    }
    Ok(stdout.flush()?)
}

#[derive(serde::Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

// Written as it is read: a namespace may have more keys than memory holds.
fn list(args: List) -> Outcome {
    let store = args.data.open()?;
    let ns = args.which.find(&store)?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut cursor, mut separator) = (None, "[\n  ");
    loop {
        let options = kv::list_options(Some(&args.prefix), None, cursor.as_deref(), 1)?;
        let page = ns.list(&options)?;
        for key in page.keys() {
            let listed = Listed {
                name: &String::from_utf8_lossy(key.name),
                expiration: key.expiration,
                metadata: serde_json::from_slice(key.metadata).ok(),
            };
            write!(stdout, "{separator}{}", serde_json::to_string(&listed)?)?;
            separator = ",\n  ";
        }
        cursor = page.cursor.clone();
        if cursor.is_none() {
            break;
        }
    }
    writeln!(
        stdout,
        "{}",
        if separator == ",\n  " { "\n]" } else { "[]" }
    )?;
    Ok(stdout.flush()?)
}
