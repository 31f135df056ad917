use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::error::Result;
use crate::format::record::INLINE_MAX;
use crate::hashed::ByHash;
use crate::log::commit::Op;
use crate::namespace::Namespace;
use crate::options::{Durability, PutOptions};
use crate::store::Owner;

/// Writes that happen together or not at all, also across namespaces.
///
/// Of several writes to one key the last counts. A crash leaves all of a batch or nothing of it; a
/// reader in the same process may see one key's change a moment before another's.
#[derive(Default)]
pub struct WriteBatch {
    writes: Vec<Write>,
    /// Where the write of a key is, by a hash of the key, or by the next number if that is another key's.
    places: HashMap<u64, usize, ByHash>,
    pub(crate) durability: Option<Durability>,
}

/// One key's change.
struct Write {
    namespace: Namespace,
    change: Change,
}

enum Change {
    /// Encoded when it is added, so that it is copied once.
    Ready(Op),
    /// What has to wait for the batch to be written, as a value gets a file of its own, begins to live, or is
    /// refused. Without a put it is a delete.
    Later {
        key: Vec<u8>,
        put: Option<(Vec<u8>, PutOptions)>,
    },
}

impl Write {
    fn is_of(&self, namespace: &Namespace, key: &[u8]) -> bool {
        let own = match &self.change {
            Change::Ready(op) => op.key(),
            Change::Later { key, .. } => key,
        };
        own == key && self.namespace.id() == namespace.id()
    }
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Adds a plain put.
    pub fn put(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut WriteBatch {
        self.put_with(namespace, key, value, &PutOptions::new())
    }

    /// Adds a put. A condition that does not hold fails the whole batch; the durability of a single
    /// put is ignored in favour of the batch's.
    pub fn put_with(
        &mut self,
        namespace: &Namespace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &PutOptions,
    ) -> &mut WriteBatch {
        let (key, value) = (key.as_ref(), value.as_ref());
        let is_ready = value.len() <= INLINE_MAX && options.expiration_ttl.is_none();
        let op = is_ready.then(|| namespace.put_op(key, value, options));
        let change = match op {
            Some(Ok(op)) => Change::Ready(op),
            _ => Change::Later {
                key: key.to_vec(),
                put: Some((value.to_vec(), options.clone())),
            },
        };
        self.add(namespace, key, change)
    }

    /// Adds a delete; a missing key is fine.
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> &mut WriteBatch {
        let key = key.as_ref();
        let change = match namespace.delete_op(key) {
            Ok(op) => Change::Ready(op),
            Err(_) => Change::Later {
                key: key.to_vec(),
                put: None,
            },
        };
        self.add(namespace, key, change)
    }

    /// Overrides the store's durability for this batch.
    pub fn durability(&mut self, durability: Durability) -> &mut WriteBatch {
        self.durability = Some(durability);
        self
    }

    /// How many keys the batch changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether the batch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn add(&mut self, namespace: &Namespace, key: &[u8], change: Change) -> &mut WriteBatch {
        let hash = namespace.stable_hash(key);
        self.add_at(hash, namespace, key, change)
    }

    fn add_at(
        &mut self,
        mut hash: u64,
        namespace: &Namespace,
        key: &[u8],
        change: Change,
    ) -> &mut WriteBatch {
        let write = Write {
            namespace: namespace.clone(),
            change,
        };
        debug_assert!(write.is_of(namespace, key), "it is found under its key");
        loop {
            match self.places.entry(hash) {
                Entry::Vacant(place) => {
                    place.insert(self.writes.len());
                    self.writes.push(write);
                    debug_assert_eq!(self.places.len(), self.writes.len(), "a place for each");
                    return self;
                }
                Entry::Occupied(place) => {
                    debug_assert!(*place.get() < self.writes.len());
                    let earlier = self.writes.get_mut(*place.get());
                    if let Some(earlier) = earlier.filter(|w| w.is_of(namespace, key)) {
                        *earlier = write;
                        return self;
                    }
                }
            }
            hash = hash.wrapping_add(1);
        }
    }

    /// Whether all namespaces are of this store.
    pub(crate) fn is_within(&self, store: &Arc<Owner>) -> bool {
        self.writes
            .iter()
            .all(|write| Arc::ptr_eq(&write.namespace.owner, store))
    }

    /// The operations as the log takes them; large values are written and durable on return. If one
    /// cannot be written, none is left behind.
    pub(crate) fn into_ops(self) -> Result<Vec<Op>> {
        let writes = self.writes.len();
        debug_assert_eq!(self.places.len(), writes, "each key once");
        let mut ops = Vec::with_capacity(writes);
        for Write { namespace, change } in self.writes {
            let op = match change {
                Change::Ready(op) => Ok(namespace.renumbered(op)),
                Change::Later { key, put } => match put {
                    Some((value, options)) => namespace.put_op(&key, &value, &options),
                    None => namespace.delete_op(&key),
                },
            };
            match op {
                Ok(op) => ops.push(op),
                Err(error) => {
                    namespace.core().remove_larges(&ops);
                    return Err(error);
                }
            }
        }
        debug_assert_eq!(ops.len(), writes, "none is left out");
        Ok(ops)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Clock, Options};

    #[test]
    fn keys_of_one_hash_are_all_written_and_of_one_key_the_last_write() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().clock(Clock::manual(1));
        let store = options.durability(Durability::None).open(dir.path());
        let store = store.unwrap();
        let (ns, other) = (store.namespace("n").unwrap(), store.namespace("o").unwrap());
        let mut batch = WriteBatch::new();
        for (ns, key, value) in [
            (&ns, "a", "1"),
            (&ns, "b", "2"),
            (&other, "a", "3"),
            (&ns, "a", "4"),
            (&ns, "b", "5"),
        ] {
            let op = ns.put_op(key.as_bytes(), value.as_bytes(), &PutOptions::new());
            batch.add_at(u64::MAX, ns, key.as_bytes(), Change::Ready(op.unwrap()));
        }
        assert_eq!(batch.len(), 3);
        store.write(batch).unwrap();
        for (ns, key, value) in [(&ns, "a", "4"), (&ns, "b", "5"), (&other, "a", "3")] {
            assert_eq!(&ns.get(key).unwrap().unwrap()[..], value.as_bytes());
        }
    }

    /// When it is written, nobody may know any more which number the namespace had.
    #[test]
    fn a_batch_stays_good_when_all_of_its_namespace_is_deleted_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().clock(Clock::manual(1));
        let store = options.durability(Durability::None).open(dir.path());
        let store = store.unwrap();
        let ns = store.namespace("n").unwrap();
        let (core, number) = (ns.core(), ns.state.number());
        let mut batch = WriteBatch::new();
        batch.put(&ns, "k", "v").delete(&ns, "other");
        ns.delete_prefix("").unwrap();
        ns.put("other", "new").unwrap();
        let (_, active) = core.log.lock().active();
        core.namespaces.forget_dropped(active.id);
        assert!(!core.namespaces.knows(number));
        store.write(batch).unwrap();
        assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"v");
        assert_eq!(ns.get("other").unwrap(), None);
    }
}
