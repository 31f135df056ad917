//! What every command on a local directory begins with.

use std::io::Write;
use std::path::{Path, PathBuf};

use rimstone::{Error, Namespace, Options, Store};
use rimstone_server::kv;

use crate::Outcome;

/// Which store.
#[derive(clap::Args)]
pub(crate) struct Data {
    /// The store's directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Data {
    /// Opens a store that must exist.
    pub(crate) fn open(&self) -> Outcome<Store> {
        let opened = Options::new().create(false).open(&self.data);
        opened.map_err(|error| explain(error, &self.data))
    }

    /// Opens a store, creating it if missing.
    pub(crate) fn open_or_create(&self) -> Outcome<Store> {
        self.open_as(None)
    }

    /// Opens a store, creating it if missing; with a capacity it evicts.
    pub(crate) fn open_as(&self, capacity: Option<u64>) -> Outcome<Store> {
        let options = Options::new();
        let options = match capacity {
            Some(bytes) => options.capacity(bytes),
            None => options,
        };
        let opened = options.open(&self.data);
        opened.map_err(|error| explain(error, &self.data))
    }
}

fn explain(error: Error, path: &Path) -> Box<dyn std::error::Error> {
    let shown = path.display();
    match &error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => format!(
            "there is no store in {shown}; name another --data, or create a namespace in it"
        )
        .into(),
        Error::Locked { .. } => {
            format!("{error}; if that is `rimstone serve`, ask it over HTTP, or stop it first")
                .into()
        }
        _ => error.into(),
    }
}

/// Which namespace.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The namespace's id, 32 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    namespace_id: Option<String>,
    /// The namespace's title.
    #[arg(long, value_name = "TITLE")]
    namespace: Option<String>,
}

impl Which {
    /// Finds the namespace.
    pub(crate) fn find(&self, store: &Store) -> Outcome<Namespace> {
        let found = match (&self.namespace_id, &self.namespace) {
            (Some(id), _) => id.parse().ok().and_then(|id| store.namespace_by_id(id)),
            (None, title) => store.find_namespace(title.as_deref().unwrap_or_default()),
        };
        found.ok_or_else(|| {
            let name = self.namespace_id.as_ref().or(self.namespace.as_ref());
            let name = name.map_or("", String::as_str);
            format!("there is no namespace {name:?}; `rimstone namespace list` shows them").into()
        })
    }
}

/// Prints one line. Unlike `println!` it fails where nobody can read.
pub(crate) fn print(line: impl std::fmt::Display) -> Outcome {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Reads a JSON file, `-` for stdin.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, shape: &str) -> Outcome<T> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes)?;
        bytes
    } else {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("{} must hold {shape}: {error}", path.display()).into())
}

/// Reads a file of keys and checks each.
pub(crate) fn read_keys(path: &Path) -> Outcome<Vec<String>> {
    let keys: Vec<String> = read_json(path, "a JSON array of keys")?;
    keys.iter().try_for_each(|key| kv::check_key(key))?;
    Ok(keys)
}
