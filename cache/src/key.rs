//! A key: a namespace and a name in it.

use std::hash::BuildHasher;

use crate::sync::{Secret, secret};

/// What an entry is found by: a number and bytes. Names alone are in namespace 0.
///
/// ```
/// use rimstone_cache::Key;
///
/// assert_eq!(Key::from("flag"), Key { namespace: 0, name: b"flag" });
/// assert_eq!(Key::from((7, "flag")), Key { namespace: 7, name: b"flag" });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'k> {
    /// Keys of different namespaces never meet; a namespace can be forgotten as a whole.
    pub namespace: u32,
    /// Any bytes.
    pub name: &'k [u8],
}

impl<'k, N: AsRef<[u8]> + ?Sized> From<&'k N> for Key<'k> {
    fn from(name: &'k N) -> Key<'k> {
        Key::from((0, name))
    }
}

impl<'k, N: AsRef<[u8]> + ?Sized> From<(u32, &'k N)> for Key<'k> {
    fn from((namespace, name): (u32, &'k N)) -> Key<'k> {
        let name = name.as_ref();
        Key { namespace, name }
    }
}

/// Hashes keys with a secret of its own, so that nobody can choose keys that collide.
#[derive(Debug)]
pub(crate) struct Hasher(Secret);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(secret())
    }
}

impl Hasher {
    pub(crate) fn hash(&self, key: Key<'_>) -> u64 {
        self.0.hash_one((key.namespace, key.name))
    }
}

/// A key that owns its name.
#[derive(Clone, Debug)]
pub(crate) struct OwnedKey {
    namespace: u32,
    name: Box<[u8]>,
}

impl OwnedKey {
    pub(crate) fn key(&self) -> Key<'_> {
        Key::from((self.namespace, &self.name))
    }
}

impl From<Key<'_>> for OwnedKey {
    fn from(key: Key<'_>) -> OwnedKey {
        OwnedKey {
            namespace: key.namespace,
            name: key.name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use shuttle::scheduler::RandomScheduler;
    use shuttle::{Config, Runner};

    use super::*;

    #[test]
    fn a_schedule_that_is_repeated_hashes_as_before() {
        let hashes = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..2 {
            let hashes = Arc::clone(&hashes);
            let hash = move || {
                let hash = Hasher::default().hash(Key::from("key"));
                hashes.lock().expect("a lock").push(hash);
            };
            Runner::new(RandomScheduler::new_from_seed(7, 1), Config::new()).run(hash);
        }
        let hashes = hashes.lock().expect("a lock");
        assert!(
            matches!(hashes[..], [first, again] if first == again),
            "{hashes:?}"
        );
    }
}
