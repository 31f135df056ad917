//! The namespaces of a store: numbers in records, ids and names outside.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::format::checkpoint::NamespaceEntry;

/// Longest name of a namespace, in bytes: 512 characters of UTF-8.
pub(crate) const NAME_MAX: usize = 2048;

/// A namespace's identity: random at creation, the same for ever. Displayed and parsed as 32
/// lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub(crate) [u8; 16]);

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for NamespaceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<NamespaceId> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        let number = number.ok_or(Error::NoSuchNamespace)?;
        let mut bytes = [0u8; 16];
        for (at, byte) in bytes.iter_mut().rev().enumerate() {
            *byte = u8::try_from((number >> (8 * at)) & 0xff).unwrap_or(0);
        }
        Ok(NamespaceId(bytes))
    }
}

/// What is known of one namespace, shared by its handles.
pub(crate) struct State {
    pub(crate) number: u32,
    pub(crate) id: NamespaceId,
    name: RwLock<String>,
    dropped: AtomicBool,
    /// The segment of the newest record about it.
    segment: AtomicU64,
}

impl State {
    pub(crate) fn name(&self) -> String {
        self.name.read().clone()
    }

    pub(crate) fn is_named(&self, name: &str) -> bool {
        *self.name.read() == name
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.dropped.load(Ordering::Acquire) {
            Err(Error::NoSuchNamespace)
        } else {
            Ok(())
        }
    }
}

/// All namespaces, in a state that a prefix of the log decides.
#[derive(Default)]
pub(crate) struct Namespaces(RwLock<HashMap<u32, Arc<State>>>);

impl Namespaces {
    /// Applies a namespace record of this segment. Its body is `u8` dropped, 16 bytes of id, the name.
    pub(crate) fn apply(&self, number: u32, body: &[u8], segment: u64) {
        let Some(([dropped], rest)) = body.split_first_chunk::<1>() else {
            return;
        };
        let Some((id, name)) = rest.split_first_chunk::<16>() else {
            return;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let mut states = self.0.write();
        let state = states.entry(number).or_insert_with(|| {
            let (name, dropped) = (RwLock::new(String::new()), AtomicBool::new(false));
            Arc::new(State {
                number,
                id: NamespaceId(*id),
                name,
                dropped,
                segment: AtomicU64::new(segment),
            })
        });
        state.segment.store(segment, Ordering::Release);
        *state.name.write() = name;
        state.dropped.store(*dropped != 0, Ordering::Release);
    }

    /// The body of the record that gives a namespace this state.
    pub(crate) fn body(id: NamespaceId, name: &str, dropped: bool) -> Vec<u8> {
        let mut body = vec![u8::from(dropped)];
        body.extend_from_slice(&id.0);
        body.extend_from_slice(name.as_bytes());
        body
    }

    /// Every namespace as its newest record says, dropped ones too, by number.
    pub(crate) fn entries(&self) -> Vec<NamespaceEntry> {
        let entry = |state: &Arc<State>| NamespaceEntry {
            number: state.number,
            segment: state.segment.load(Ordering::Acquire),
            body: Namespaces::body(state.id, &state.name(), state.check().is_err()),
        };
        let mut entries: Vec<_> = self.0.read().values().map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        entries
    }

    /// Forgets the dropped namespaces whose newest record is in this segment: with it goes the last
    /// of what they held.
    pub(crate) fn forget_dropped(&self, segment: u64) {
        let forgotten = |state: &Arc<State>| {
            state.check().is_err() && state.segment.load(Ordering::Acquire) == segment
        };
        self.0.write().retain(|_, state| !forgotten(state));
    }

    /// How many were dropped and are not forgotten yet.
    pub(crate) fn dropped(&self) -> usize {
        let states = self.0.read();
        states.values().filter(|s| s.check().is_err()).count()
    }

    /// Whether anything was said of a namespace of this number.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.0.read().contains_key(&number)
    }

    /// Whether this one was dropped and is not forgotten yet.
    pub(crate) fn was_dropped(&self, number: u32) -> bool {
        let states = self.0.read();
        states.get(&number).is_some_and(|s| s.check().is_err())
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<Arc<State>> {
        self.0
            .read()
            .get(&number)
            .filter(|state| state.check().is_ok())
            .cloned()
    }

    /// The namespaces that exist, in the order of their creation.
    pub(crate) fn all(&self) -> Vec<Arc<State>> {
        let states = self.0.read();
        let mut all: Vec<_> = states
            .values()
            .filter(|s| s.check().is_ok())
            .cloned()
            .collect();
        all.sort_unstable_by_key(|state| state.number);
        all
    }

    pub(crate) fn find(&self, mut matches: impl FnMut(&State) -> bool) -> Option<Arc<State>> {
        self.0
            .read()
            .values()
            .find(|s| s.check().is_ok() && matches(s))
            .cloned()
    }

    /// A number no namespace ever had.
    pub(crate) fn next_number(&self) -> u32 {
        self.0
            .read()
            .keys()
            .max()
            .map_or(1, |max| max.saturating_add(1))
    }
}
