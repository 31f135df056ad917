use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::log::commit::Op;
use crate::namespace::Namespace;
use crate::namespaces::NamespaceId;
use crate::options::{Durability, PutOptions};
use crate::store::Owner;

/// Writes that happen together or not at all, also across namespaces.
///
/// Of several writes to one key the last counts. A crash leaves all of a batch or nothing of it; a
/// reader in the same process may see one key's change a moment before another's.
#[derive(Default)]
pub struct WriteBatch {
    ops: Vec<Write>,
    places: HashMap<(NamespaceId, Vec<u8>), usize>,
    pub(crate) durability: Option<Durability>,
}

/// One key's change; without a put it is a delete.
struct Write {
    namespace: Namespace,
    key: Vec<u8>,
    put: Option<(Vec<u8>, PutOptions)>,
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
        let put = (value.as_ref().to_vec(), options.clone());
        self.add(namespace, key.as_ref(), Some(put))
    }

    /// Adds a delete; a missing key is fine.
    pub fn delete(&mut self, namespace: &Namespace, key: impl AsRef<[u8]>) -> &mut WriteBatch {
        self.add(namespace, key.as_ref(), None)
    }

    /// Overrides the store's durability for this batch.
    pub fn durability(&mut self, durability: Durability) -> &mut WriteBatch {
        self.durability = Some(durability);
        self
    }

    /// How many keys the batch changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether the batch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn add(
        &mut self,
        namespace: &Namespace,
        key: &[u8],
        put: Option<(Vec<u8>, PutOptions)>,
    ) -> &mut WriteBatch {
        let place = (namespace.id(), key.to_vec());
        let op = Write {
            namespace: namespace.clone(),
            key: key.to_vec(),
            put,
        };
        match self.places.get(&place).and_then(|at| self.ops.get_mut(*at)) {
            Some(earlier) => *earlier = op,
            None => {
                self.places.insert(place, self.ops.len());
                self.ops.push(op);
                debug_assert_eq!(self.places.len(), self.ops.len(), "each key once");
            }
        }
        self
    }

    /// Whether all namespaces are of this store.
    pub(crate) fn is_within(&self, store: &Arc<Owner>) -> bool {
        self.ops
            .iter()
            .all(|write| Arc::ptr_eq(&write.namespace.owner, store))
    }

    /// The operations as the log takes them; large values are written and durable on return. If one
    /// cannot be written, none is left behind.
    pub(crate) fn into_ops(self) -> Result<Vec<Op>> {
        let mut ops = Vec::with_capacity(self.ops.len());
        for write in self.ops {
            let op = match &write.put {
                Some((value, options)) => write.namespace.put_op(&write.key, value, options),
                None => write.namespace.delete_op(&write.key),
            };
            match op {
                Ok(op) => ops.push(op),
                Err(error) => {
                    write.namespace.core().remove_larges(&ops);
                    return Err(error);
                }
            }
        }
        Ok(ops)
    }
}
