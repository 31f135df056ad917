//! A new store with all that can be read of a damaged one, which stays as it is.
//!
//! Of each key the newest record counts that the log still has. If that one is known to be older than
//! what the key held, or if its value is damaged, the key is left out and named, so that nobody takes an
//! old value for the present one.

use std::path::Path;
use std::sync::Arc;

use crate::backup::{check_empty, check_outside, finish, mark};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::format::namespace::NamespaceBody;
use crate::format::record::Kind;
use crate::log::commit::Op;
use crate::namespace::Namespace;
use crate::options::PutOptions;
use crate::recovery::{Salvaged, Slots, Standing, salvage, take_lock};
use crate::store::Store;
use crate::vfs::Vfs;
use crate::{Clock, Durability, Options};

/// What came of a repair.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repaired {
    /// How many entries the new store has.
    pub entries: u64,
    /// Keys that were listed, or whose records are there, and that the new store does not have.
    pub lost: Vec<LostKey>,
    /// Names that were made up for namespaces whose own records are lost.
    pub renamed: Vec<String>,
    /// All that is damaged in the old store.
    pub damage: Vec<Damage>,
    /// Keeps the old store from being opened for writing.
    lock: Held,
}

impl Repaired {
    /// Lets the old store be opened again. Until then, or until this and its clones are dropped, nobody does,
    /// so that the new one can be put in its place.
    pub fn release(self) {
        drop(self.lock);
    }
}

/// A lock, shared by who has a copy of it.
#[derive(Clone)]
struct Held(#[expect(dead_code, reason = "it is held")] Arc<dyn Send + Sync>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// A key that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostKey {
    /// The name of its namespace.
    pub namespace: String,
    /// The key.
    pub key: Vec<u8>,
    /// Why, as a sentence.
    pub reason: String,
}

/// Makes `into`, an empty or new directory, a store with what can be read of the one in `dir`.
pub(crate) fn repair(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    into: &Path,
    clock: &Clock,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Repaired> {
    check_outside(dir, into)?;
    check_empty(&**vfs, into)?;
    let lock = Held(Arc::from(take_lock(&**vfs, dir)?));
    let Salvaged {
        core,
        slots,
        renamed,
    } = salvage(vfs, dir, clock)?;
    let damage = core.scrub_all(None, progress)?;
    let options = Options::new().vfs(Arc::clone(vfs)).clock(clock.clone());
    let new = options.durability(Durability::None).open(into)?;
    mark(&**vfs, into)?;
    let old = Store::of(core);
    let mut repaired = Repaired {
        entries: 0,
        lost: Vec::new(),
        renamed,
        damage,
        lock,
    };
    for from in old.namespaces() {
        let view = from.state.view()?;
        let body = NamespaceBody {
            id: from.id().0,
            name: from.name().into_bytes(),
            ..NamespaceBody::default()
        };
        let made = Op::keyless(Kind::Namespace, view.number, body.encode());
        new.core().commit(vec![made], false)?;
        let to = new
            .namespace_by_id(from.id())
            .ok_or(Error::NoSuchNamespace)?;
        old.core().each_key(&view, |key, seqno| {
            let standing = |slots: &Slots| slots.standing(old.core(), view.number, key);
            let lost = match slots.as_ref().map_or(Standing::Newest, standing) {
                Standing::Newest => copy(&from, &to, key, seqno)?,
                Standing::Older => Some("its newest record cannot be read".to_owned()),
                Standing::Deleted => return Ok(()),
            };
            match lost {
                None => repaired.entries += 1,
                Some(reason) => repaired.lost.push(LostKey {
                    namespace: from.name(),
                    key: key.to_vec(),
                    reason,
                }),
            }
            Ok(())
        })?;
    }
    debug_assert_eq!(
        new.core().table.len() as u64,
        repaired.entries,
        "each key that was kept has a slot, and no other"
    );
    new.checkpoint()?;
    new.close()?;
    finish(&**vfs, into)?;
    Ok(repaired)
}

/// Copies the entry of a key that had this write. Returns why it cannot be kept, if so.
fn copy(from: &Namespace, to: &Namespace, key: &[u8], seqno: u64) -> Result<Option<String>> {
    let kept = || -> Result<Option<String>> {
        let Some(entry) = from.stream(key)? else {
            return Ok(Some("its record is gone".to_owned()));
        };
        if entry.generation() < seqno {
            let older = entry.generation();
            return Ok(Some(format!(
                "write {seqno} of it is gone; what is left of it is write {older}"
            )));
        }
        // Before anything of it is written.
        let mut options = PutOptions::new().metadata(entry.metadata());
        if let Some(expiration) = entry.expiration() {
            options = options.expiration(expiration);
        }
        let mut writer = to.writer(key, &options)?;
        for piece in entry {
            writer.write(&piece?)?;
        }
        writer.finish()?;
        Ok(None)
    };
    match kept() {
        Err(error @ Error::Corrupt { .. }) => Ok(Some(error.to_string())),
        kept => kept,
    }
}
