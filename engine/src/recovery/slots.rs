//! What the table of a checkpoint says of records that were found without it.
//!
//! A rebuild gives each key the newest of its records that can be read. Where the newest of all is damaged,
//! that is an older one, and the key runs do not tell: overwrites that list alike are not in them. But up to
//! the checkpoint its table knows where the newest record of each key lay.

use std::collections::HashMap;
use std::path::Path;

use super::open_segment;
use super::replay::is_same_key;
use crate::core::{Core, Found, key_hash};
use crate::format::segment::StoreId;
use crate::index::checkpoint::Checkpoint;
use crate::index::table::Table;
use crate::log::segment::Segment;
use crate::sync::epoch;
use crate::vfs::Vfs;

/// The table of a checkpoint, with the segments that its slots name.
pub(crate) struct Slots {
    store: StoreId,
    seqno: u64,
    table: Table,
    /// By number; also those that were retired since, as long as their files are there.
    segments: HashMap<u32, Segment>,
    /// How much of each segment the checkpoint knows, by id.
    lens: HashMap<u64, u64>,
}

/// What a checkpoint says of the newest record of a key that can be read.
pub(crate) enum Standing {
    /// Nothing that it knows of is newer.
    Newest,
    /// There was a newer one.
    Older,
    /// The key was deleted since.
    Deleted,
}

impl Slots {
    pub(super) fn of(vfs: &dyn Vfs, dir: &Path, checkpoint: Checkpoint) -> Slots {
        let Checkpoint {
            header,
            meta,
            table,
        } = checkpoint;
        let entries = meta.segments.iter();
        let lens = entries.clone().map(|entry| (entry.id, entry.len));
        let open = entries.filter_map(|entry| {
            let segment = open_segment(vfs, dir, entry.id, entry.len).ok()?;
            Some((entry.number, segment))
        });
        debug_assert!(!table.is_damaged(), "a damaged table is refused");
        Slots {
            store: header.store,
            seqno: header.seqno,
            table,
            segments: open.collect(),
            lens: lens.collect(),
        }
    }

    /// What the checkpoint says of the record that the core has of a key; of none, nothing.
    pub(crate) fn standing(&self, core: &Core, namespace: u32, key: &[u8]) -> Standing {
        let guard = epoch::pin();
        let hash = key_hash(&self.store, namespace, key);
        match core.find(namespace, key, hash, &guard) {
            Ok(Some(found)) if self.knows(&found) => self.judge(&found, hash),
            _ => Standing::Newest,
        }
    }

    /// Whether a record was there, where it is now. What was moved since was the newest of its key then.
    fn knows(&self, found: &Found<'_>) -> bool {
        let address = found.address();
        let len = self.lens.get(&address.segment);
        found.record.header.seqno <= self.seqno
            && len.is_some_and(|len| u64::from(address.offset) < *len)
    }

    fn judge(&self, found: &Found<'_>, hash: u64) -> Standing {
        debug_assert!(
            found.record.header.seqno <= self.seqno,
            "newer than the checkpoint"
        );
        let guard = epoch::pin();
        let mut standing = Standing::Deleted;
        self.table.find(hash, &guard, |location| {
            let segment = self.segments.get(&location.number());
            match segment.and_then(|segment| segment.record(location.offset()).ok()) {
                Some(record) if !is_same_key(&record, &found.record) => false,
                Some(record) if record.header.seqno <= found.record.header.seqno => {
                    standing = Standing::Newest;
                    true
                }
                // It is newer, or nobody can read whose it is.
                _ => {
                    standing = Standing::Older;
                    false
                }
            }
        });
        if self.table.is_damaged_at(hash, &guard) {
            return Standing::Newest;
        }
        standing
    }
}
