//! What a store holds, as its users see it.

use std::collections::BTreeMap;

use std::time::Duration;

use rimstone::{Entry, ListOptions, Namespace, ReadOptions, Store};

/// An entry, all of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The value.
    pub value: Vec<u8>,
    /// The metadata.
    pub metadata: Vec<u8>,
    /// When it expires, if ever.
    pub expiration: Option<u64>,
    /// Its sequence number.
    pub generation: u64,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (len, first) = (self.value.len(), self.value.first());
        let (metadata, expiration) = (self.metadata.len(), self.expiration);
        let generation = self.generation;
        write!(
            f,
            "#{generation} {len} of {first:?}, metadata {metadata}, until {expiration:?}"
        )
    }
}

impl Seen {
    /// A plain entry whose generation is not known: written as 0, it equals any.
    #[must_use]
    pub fn of(value: Vec<u8>) -> Seen {
        Seen {
            value,
            metadata: Vec::new(),
            expiration: None,
            generation: 0,
        }
    }

    fn matches(&self, seen: &Seen) -> bool {
        let same_generation = self.generation == 0 || self.generation == seen.generation;
        let like_seen = Seen {
            generation: seen.generation,
            ..self.clone()
        };
        same_generation && like_seen == *seen
    }
}

/// Entries by namespace name and key.
pub type State = BTreeMap<String, BTreeMap<Vec<u8>, Seen>>;

/// What of `state` is not expired at `now`.
#[must_use]
pub fn alive(state: &State, now: u64) -> State {
    let mut state = state.clone();
    for entries in state.values_mut() {
        entries.retain(|_, seen| seen.expiration.is_none_or(|at| at > now));
    }
    state
}

/// Whether a store that should be in a state was seen in it.
#[must_use]
pub fn matches(expected: &State, seen: &State) -> bool {
    let entries = |one: &BTreeMap<Vec<u8>, Seen>, other: &BTreeMap<Vec<u8>, Seen>| {
        let mut pairs = one.iter().zip(other);
        one.len() == other.len() && pairs.all(|(a, b)| a.0 == b.0 && a.1.matches(b.1))
    };
    let mut pairs = expected.iter().zip(seen);
    expected.len() == seen.len() && pairs.all(|(a, b)| a.0 == b.0 && entries(a.1, b.1))
}

/// Reads everything a store holds. The list and the gets must agree, forwards, backwards, page by
/// page, and for each of `keys`, listed or not.
///
/// # Panics
/// Panics if they do not, or if anything cannot be read.
#[must_use]
pub fn observe(store: &Store, keys: &[Vec<u8>]) -> State {
    let namespaces = store.namespaces();
    namespaces
        .iter()
        .map(|ns| (ns.name(), entries(ns, keys)))
        .collect()
}

fn entries(ns: &Namespace, keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Seen> {
    let listed = list(ns, &ListOptions::new().limit(7));
    let mut backwards = list(ns, &ListOptions::new().reverse());
    backwards.reverse();
    assert_eq!(listed, backwards, "both directions list the same");
    let mut entries = BTreeMap::new();
    for (key, listed) in listed {
        let got = get(ns, &key).expect("a listed key can be got");
        let like_got = Seen {
            value: got.value.clone(),
            generation: got.generation,
            ..listed
        };
        assert_eq!(got, like_got, "list and get agree on {key:?}");
        assert!(entries.insert(key, got).is_none(), "a key is listed once");
    }
    for key in keys.iter().filter(|key| !entries.contains_key(*key)) {
        assert_eq!(get(ns, key), None, "{key:?} is not listed");
    }
    entries
}

fn get(ns: &Namespace, key: &[u8]) -> Option<Seen> {
    // Around the hot cache, and then by way of it.
    let around = ns.get_many(&[key]).expect("an undamaged entry").pop()?;
    let minute = ReadOptions::new().cache_ttl(Duration::from_secs(60));
    let entry = ns.get_with(key, &minute).expect("an undamaged entry");
    assert_eq!(entry.as_ref(), around.as_ref(), "of {key:?}");
    around.map(seen)
}

fn seen(entry: Entry) -> Seen {
    Seen {
        value: entry.value().to_vec(),
        metadata: entry.metadata().to_vec(),
        expiration: entry.expiration(),
        generation: entry.generation(),
    }
}

/// All keys that a listing returns, page by page, without their values and generations.
fn list(ns: &Namespace, options: &ListOptions) -> Vec<(Vec<u8>, Seen)> {
    let (mut options, mut listed) = (options.clone(), Vec::new());
    loop {
        let page = ns.list(&options).expect("a page");
        listed.extend(page.keys().map(|key| {
            let seen = Seen {
                value: Vec::new(),
                metadata: key.metadata.to_vec(),
                expiration: key.expiration,
                generation: 0,
            };
            (key.name.to_vec(), seen)
        }));
        match page.cursor {
            Some(cursor) => options = options.cursor(cursor),
            None => return listed,
        }
    }
}
