//! Many sources become one run.

use super::source::{Heads, Range};
use super::{KeyRecord, RunDamage, Sources};
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error(transparent)]
    Damage(#[from] RunDamage),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Gives the newest record of every key to `sink`, in order.
///
/// With `bottom`, when nothing older than the sources exists, tombstones are left out, and records for
/// which `drop` is true. Above the bottom both must stay: without them an older record would be seen.
pub(crate) fn merge(
    sources: &Sources,
    bottom: bool,
    drop: impl Fn(&KeyRecord<'_>) -> bool,
    mut sink: impl FnMut(&KeyRecord<'_>) -> io::Result<()>,
) -> Result<(), MergeError> {
    let mut failed = None;
    Heads::open(sources, Range::all())?.each(&mut |record: &KeyRecord<'_>, _| {
        if !(bottom && (record.tombstone || drop(record))) {
            failed = sink(record).err();
        }
        failed.is_none()
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
