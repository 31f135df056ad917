//! The namespaces of a store: numbers in records, ids and names outside.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::checkpoint::NamespaceEntry;
use crate::format::namespace::{Deletion, NamespaceBody};
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
        debug_assert!(NamespaceId(bytes).to_string().eq_ignore_ascii_case(text));
        Ok(NamespaceId(bytes))
    }
}

/// What is known of one namespace, shared by its handles.
pub(crate) struct State {
    pub(crate) id: NamespaceId,
    /// What its records have. It gets another when all of it is deleted.
    number: AtomicU32,
    name: RwLock<String>,
    dropped: AtomicBool,
    /// Whether there are deletions that are not carried out.
    is_deleting: AtomicBool,
    deletions: RwLock<Arc<[Deletion]>>,
}

/// A namespace as one call sees it.
pub(crate) struct View {
    pub(crate) number: u32,
    pub(crate) id: NamespaceId,
    deletions: Option<Arc<[Deletion]>>,
}

impl View {
    /// Deletions that are not carried out.
    pub(crate) fn deletions(&self) -> &[Deletion] {
        self.deletions.as_deref().unwrap_or_default()
    }

    /// Whether a record was deleted with all that begins like its key.
    pub(crate) fn hides(&self, key: &[u8], seqno: u64) -> bool {
        self.deletions().iter().any(|d| d.hides(key, seqno))
    }
}

impl State {
    fn new(id: NamespaceId) -> State {
        State {
            id,
            number: AtomicU32::new(0),
            name: RwLock::default(),
            dropped: AtomicBool::new(false),
            is_deleting: AtomicBool::new(false),
            deletions: RwLock::new(Arc::new([])),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

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

    pub(crate) fn is_deleting(&self) -> bool {
        self.is_deleting.load(Ordering::Acquire)
    }

    pub(crate) fn deletions(&self) -> Arc<[Deletion]> {
        Arc::clone(&self.deletions.read())
    }

    /// The namespace as it is now, to be taken before anything is looked up: what is deleted later may be
    /// seen, what was deleted before may not.
    ///
    /// # Errors
    /// `NoSuchNamespace` if it was dropped.
    #[inline]
    pub(crate) fn view(&self) -> Result<View> {
        self.check()?;
        // The number last: who no longer sees a deletion since everything was deleted sees the new one.
        let deletions = self.is_deleting().then(|| self.deletions());
        Ok(View {
            number: self.number(),
            id: self.id,
            deletions,
        })
    }

    /// The namespace as it is now, and what `f` finds while it stays so: who changes it waits.
    ///
    /// # Errors
    /// `NoSuchNamespace` if it was dropped.
    pub(crate) fn held<R>(&self, f: impl FnOnce() -> R) -> Result<(View, R)> {
        let _unchanged = self.name.read();
        Ok((self.view()?, f()))
    }

    /// All that is kept under a number, deleted or not.
    pub(crate) fn all_of(&self, number: u32) -> View {
        View {
            number,
            id: self.id,
            deletions: None,
        }
    }

    /// Takes over what a record says of its number.
    fn set(&self, number: u32, body: NamespaceBody) {
        debug_assert!(number >= self.number(), "the highest counts");
        // Until all of it is taken over: see `held`.
        let mut name = self.name.write();
        *name = String::from_utf8_lossy(&body.name).into_owned();
        self.number.store(number, Ordering::Release);
        let is_deleting = !body.deletions.is_empty();
        *self.deletions.write() = body.deletions.into();
        self.is_deleting.store(is_deleting, Ordering::Release);
        self.dropped.store(body.dropped, Ordering::Release);
    }

    /// The body of the record that says this state, or that a number of it was dropped.
    pub(crate) fn body(&self, dropped: bool) -> NamespaceBody {
        let deletions = if dropped {
            Vec::new()
        } else {
            self.deletions().to_vec()
        };
        NamespaceBody {
            dropped,
            id: self.id.0,
            deletions,
            name: self.name().into_bytes(),
        }
    }
}

/// A number that a namespace has or had.
struct Numbered {
    state: Arc<State>,
    dropped: bool,
    /// The segment of the newest record about it.
    segment: u64,
}

/// All namespaces, in a state that a prefix of the log decides.
///
/// Of several numbers of one namespace the highest counts; what is left under the others was deleted.
#[derive(Default)]
pub(crate) struct Namespaces(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    numbers: HashMap<u32, Numbered>,
    ids: HashMap<NamespaceId, Arc<State>>,
    /// How many numbers were dropped so far, forgotten ones too.
    drops: u64,
}

impl Inner {
    fn exists(&self, number: u32) -> bool {
        let of = self.numbers.get(&number);
        of.is_some_and(|of| !of.dropped && of.state.number() == number)
    }

    fn existing(&self) -> impl Iterator<Item = (u32, &Arc<State>)> {
        let numbers = self.numbers.iter();
        numbers
            .filter(|(number, _)| self.exists(**number))
            .map(|(number, of)| (*number, &of.state))
    }
}

impl Namespaces {
    /// Applies a namespace record of this segment and sequence number.
    pub(crate) fn apply(&self, number: u32, body: &[u8], segment: u64, seqno: u64) {
        let Some(body) = NamespaceBody::decode(body, seqno) else {
            return;
        };
        let id = NamespaceId(body.id);
        let mut inner = self.0.write();
        let state = inner.ids.entry(id);
        let state = Arc::clone(state.or_insert_with(|| Arc::new(State::new(id))));
        let numbered = Numbered {
            state: Arc::clone(&state),
            dropped: body.dropped,
            segment,
        };
        let before = inner.numbers.insert(number, numbered);
        if body.dropped && before.is_none_or(|before| !before.dropped) {
            inner.drops = inner.drops.saturating_add(1);
        }
        if number >= state.number() {
            state.set(number, body);
        }
        debug_assert!(number <= state.number(), "the highest counts");
    }

    /// Every namespace as its newest record says, dropped ones too, by number.
    pub(crate) fn entries(&self) -> Vec<NamespaceEntry> {
        let inner = self.0.read();
        let entry = |(number, of): (&u32, &Numbered)| NamespaceEntry {
            number: *number,
            segment: of.segment,
            body: of.state.body(!inner.exists(*number)).encode(),
        };
        let mut entries: Vec<_> = inner.numbers.iter().map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        debug_assert_eq!(entries.len(), inner.numbers.len());
        debug_assert!(
            entries.is_sorted_by(|a, b| a.number < b.number),
            "each number once"
        );
        entries
    }

    /// Forgets the dropped namespaces whose newest record is in this segment: with it goes the last
    /// of what they held.
    pub(crate) fn forget_dropped(&self, segment: u64) {
        let mut inner = self.0.write();
        let numbers = inner.numbers.iter();
        let forgotten = numbers.filter(|(n, of)| of.segment == segment && !inner.exists(**n));
        for number in forgotten.map(|(n, _)| *n).collect::<Vec<_>>() {
            debug_assert!(!inner.exists(number), "only what was dropped is forgotten");
            inner.numbers.remove(&number);
        }
        let Inner { numbers, ids, .. } = &mut *inner;
        ids.retain(|_, state| numbers.contains_key(&state.number()));
        let mut existing = inner.existing();
        debug_assert!(
            existing.all(|(_, state)| inner.ids.contains_key(&state.id)),
            "what exists stays"
        );
    }

    /// How many were dropped and are not forgotten yet.
    pub(crate) fn dropped(&self) -> usize {
        let inner = self.0.read();
        inner.numbers.keys().filter(|n| !inner.exists(**n)).count()
    }

    /// How many were ever dropped, as far as this was told: a number that only grows.
    pub(crate) fn drops(&self) -> u64 {
        self.0.read().drops
    }

    /// Whether anything was said of a namespace of this number.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.0.read().numbers.contains_key(&number)
    }

    /// Whether this one was dropped and is not forgotten yet.
    pub(crate) fn was_dropped(&self, number: u32) -> bool {
        let inner = self.0.read();
        inner.numbers.contains_key(&number) && !inner.exists(number)
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<Arc<State>> {
        let inner = self.0.read();
        let of = inner.numbers.get(&number);
        of.filter(|of| !of.dropped && of.state.number() == number)
            .map(|of| Arc::clone(&of.state))
    }

    /// What who writes under this number sees of the namespace.
    pub(crate) fn view_of(&self, number: u32) -> Result<View> {
        self.by_number(number).ok_or(Error::NoSuchNamespace)?.view()
    }

    /// The number that the namespace has which had this one, if it exists.
    pub(crate) fn newest_number(&self, number: u32) -> Option<u32> {
        let inner = self.0.read();
        let of = inner.numbers.get(&number)?;
        of.state.check().is_ok().then(|| of.state.number())
    }

    /// The namespaces that exist, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<State>> {
        let inner = self.0.read();
        let mut all: Vec<_> = inner.existing().collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        debug_assert!(all.is_sorted_by(|a, b| a.0 < b.0), "each once");
        all.into_iter()
            .map(|(_, state)| Arc::clone(state))
            .collect()
    }

    /// The numbers of those that exist.
    pub(crate) fn numbers(&self) -> HashSet<u32> {
        self.0.read().existing().map(|(number, _)| number).collect()
    }

    pub(crate) fn by_id(&self, id: NamespaceId) -> Option<Arc<State>> {
        let inner = self.0.read();
        let state = inner.ids.get(&id);
        state.filter(|state| state.check().is_ok()).cloned()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<State>> {
        let inner = self.0.read();
        let mut existing = inner.existing().map(|(_, state)| state);
        existing.find(|state| state.is_named(name)).cloned()
    }

    /// A number no namespace ever had.
    pub(crate) fn next_number(&self) -> u32 {
        let inner = self.0.read();
        let highest = inner.numbers.keys().max();
        highest.map_or(1, |max| max.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_records_may_give_two_namespaces_one_number() {
        let namespaces = Namespaces::default();
        for id in [1, 2] {
            let body = NamespaceBody {
                id: [id; 16],
                ..NamespaceBody::default()
            };
            namespaces.apply(7, &body.encode(), 1, 1);
        }
        namespaces.forget_dropped(1);
        let ids: Vec<_> = namespaces.all().iter().map(|state| state.id.0).collect();
        assert_eq!(ids, [[2; 16]]);
    }
}
