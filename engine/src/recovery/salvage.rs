//! What of a store can still be read, however damaged it is: the log alone decides, and what is missing
//! of it is left out and reported.
//!
//! Checkpoints that can be read help where the log may not be able to: they know which segments were
//! retired, what namespaces are called, and, if the newest is whole, which keys there were and where the
//! newest record of each lay.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::files::{Chain, Files};
use super::read::join;
use super::replay::Replay;
use super::slots::Slots;
use super::{Replayed, check_there, open_runs};
use crate::clock::Clock;
use crate::core::Core;
use crate::damage::{Damage, Loss};
use crate::error::{Error, Result};
use crate::format::checkpoint::{FRONT, Header, Meta};
use crate::format::namespace::NamespaceBody;
use crate::index::checkpoint;
use crate::index::keys::Keys;
use crate::log::appender::random;
use crate::log::segment::segment_path;
use crate::maintenance::Maintenance;
use crate::namespaces::Namespaces;
use crate::vfs::Vfs;

/// What could be read.
pub(crate) struct Salvaged {
    pub(crate) core: Core,
    /// Where the newest checkpoint has the records of keys, if it is whole.
    pub(crate) slots: Option<Slots>,
    /// Names that were made up for namespaces whose records are lost.
    pub(crate) renamed: Vec<String>,
}

/// Reads what can be read of the store in `dir`. It writes nothing.
pub(crate) fn salvage(vfs: &Arc<dyn Vfs>, dir: &Path, clock: &Clock) -> Result<Salvaged> {
    let files = Files::list(&**vfs, dir)?;
    check_there(&files, dir)?;
    let (mut damage, mut first) = (Vec::new(), None);
    let chain = Chain::read(&**vfs, &files, 0, |error| {
        damage.push(Damage::of(&error, Loss::Records).ok_or(error)?);
        Ok(())
    })?;
    // Any segment tells whose it is.
    let any = chain.fronts.iter().chain(&chain.classes).next();
    let any = any.ok_or_else(|| Error::Corrupt {
        path: dir.into(),
        offset: 0,
        reason: "no segment can be read",
    })?;
    let mut replay = Replay::new(any.header.store);
    replay.is_salvage = true;
    if let Some(last) = chain.fronts.last() {
        clock.raise(last.header.time);
    }
    let mut known = Vec::new();
    for id in files.checkpoints.keys().rev() {
        if let Ok((header, meta, _)) = checkpoint::read(&**vfs, dir, *id)
            && header.store == replay.id
        {
            first = first.or(Some(*id));
            known.push((header, meta));
        }
    }
    replay.retirements.extend(retired(&files, &chain, &known));
    let newest = files.checkpoints.keys().next_back().copied();
    // Only the newest: in an older one are keys that were deleted since, by tombstones that went.
    let newest = first.filter(|id| Some(*id) == newest);
    let newest = newest.and_then(|id| checkpoint::load(&**vfs, dir, id).ok());
    if let Some(checkpoint) = &newest {
        let runs = open_runs(&**vfs, dir, checkpoint).ok();
        if let Some(runs) = runs.filter(|runs| runs.iter().all(|run| run.check(|_| {}).is_ok())) {
            replay.keys = Keys::new(runs);
        }
    }
    let slots = newest.map(|checkpoint| Slots::of(&**vfs, dir, checkpoint));
    if let Some((header, meta)) = known.first() {
        let segments = meta.segments.iter().map(|entry| entry.id);
        replay.in_use = (header.seqno, segments.collect());
        let classes = meta.segments.iter().filter(|entry| entry.class != FRONT);
        replay.checkpointed_classes = classes.map(|entry| (entry.id, entry.len)).collect();
    }
    let mut holes = chain.holes.clone();
    holes.extend(chain.lost_end(&files, &replay.id));
    let tail = replay.run(chain)?;
    debug_assert!(replay.is_rebuilt, "the log alone decides");
    replay.check_end(&files, &tail, dir)?;
    let gone: HashSet<u64> = holes.into_iter().chain(replay.lost_classes()).collect();
    for id in gone.difference(&replay.retirements) {
        let path = segment_path(dir, *id);
        damage.push(Damage::at(&path, 0, "the segment is missing"));
    }
    let replayed = Replayed {
        replay,
        tail,
        strays: Vec::new(),
        maintenance: Maintenance::default(),
        is_current: true,
    };
    let named = replayed.replay.named.clone();
    let core = join(vfs, dir, clock, replayed, damage)?;
    let metas = known.iter().map(|(_, meta)| meta);
    let renamed = name(&**vfs, &core.namespaces, named, metas)?;
    Ok(Salvaged {
        core,
        slots,
        renamed,
    })
}

/// Segments that a checkpoint says were retired, or no longer knows.
fn retired(files: &Files, chain: &Chain, known: &[(Header, Meta)]) -> HashSet<u64> {
    let listed = known.iter().flat_map(|(_, meta)| &meta.retired);
    let mut retired: HashSet<u64> = listed.map(|retired| retired.id).collect();
    if let Some((header, meta)) = known.first() {
        let fronts: HashSet<u64> = chain.fronts.iter().map(|front| front.header.id).collect();
        let before = files.segments.range(..header.position.segment);
        let unknown = before.map(|(id, _)| *id).filter(|id| fronts.contains(id));
        retired.extend(unknown.filter(|id| !meta.segments.iter().any(|entry| entry.id == *id)));
    }
    retired
}

/// Namespaces whose records are lost are called what a checkpoint says, or anew.
fn name<'a>(
    vfs: &dyn Vfs,
    namespaces: &Namespaces,
    named: impl IntoIterator<Item = u32>,
    metas: impl Iterator<Item = &'a Meta>,
) -> Result<Vec<String>> {
    let mut metas = metas.peekable();
    // The newest checkpoint knows all numbers up to its highest, but for those that were dropped and forgotten.
    let newest = metas.peek().map_or(&[][..], |meta| &meta.namespaces);
    let highest = newest.iter().map(|entry| entry.number).max();
    let is_forgotten = |number: u32| {
        highest.is_some_and(|highest| number < highest)
            && !newest.iter().any(|entry| entry.number == number)
    };
    for entry in metas.flat_map(|meta| &meta.namespaces) {
        if is_forgotten(entry.number) {
            continue;
        }
        let body = NamespaceBody::decode(&entry.body, 0);
        let was_dropped = body.as_ref().is_some_and(|body| body.dropped);
        let is_known = namespaces.knows(entry.number);
        if was_dropped || !is_known {
            namespaces.apply(entry.number, &entry.body, entry.segment, 0);
        } else if let (Some(body), Some(state)) = (body, namespaces.by_number(entry.number)) {
            // What was deleted stays so, whether or not the log still says it.
            let mut now = state.body(false);
            let missed = body.deletions.into_iter();
            let missed: Vec<_> = missed.filter(|d| !now.deletions.contains(d)).collect();
            if !missed.is_empty() {
                now.deletions.extend(missed);
                namespaces.apply(entry.number, &now.encode(), entry.segment, 0);
            }
        }
    }
    let mut renamed: Vec<String> = Vec::new();
    for number in named {
        if namespaces.knows(number) || is_forgotten(number) {
            continue;
        }
        let mut name = format!("recovered-{number}");
        while namespaces.by_name(&name).is_some() {
            name.push('\'');
        }
        debug_assert!(!namespaces.knows(number), "what is known keeps its name");
        debug_assert!(!renamed.contains(&name), "each has a name of its own");
        let mut id = [0; 16];
        random(vfs, &mut id)?;
        let body = NamespaceBody {
            id,
            name: name.clone().into_bytes(),
            ..NamespaceBody::default()
        };
        namespaces.apply(number, &body.encode(), 0, 0);
        renamed.push(name);
    }
    Ok(renamed)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::format::checkpoint::NamespaceEntry;
    use crate::format::namespace::Deletion;

    /// Of a number that the newest checkpoint forgot, the one before it may not know that it was dropped.
    #[test]
    fn repair_brings_no_namespace_back_that_was_dropped_and_forgotten() {
        let entry = |number: u32| {
            let body = NamespaceBody {
                id: [u8::try_from(number).unwrap(); 16],
                name: format!("n{number}").into_bytes(),
                ..NamespaceBody::default()
            };
            NamespaceEntry {
                number,
                segment: 1,
                body: body.encode(),
            }
        };
        let meta = |numbers: &[u32]| Meta {
            namespaces: numbers.iter().copied().map(entry).collect(),
            ..Meta::default()
        };
        let (newest, before) = (meta(&[3, 5]), meta(&[1, 3]));
        let namespaces = Namespaces::default();
        let metas = [&newest, &before].into_iter();
        let named = [1, 2, 3, 4, 6, 7];
        let renamed = name(&crate::vfs::OsVfs, &namespaces, named, metas).unwrap();
        assert_eq!(renamed, ["recovered-6", "recovered-7"]);
        let names: Vec<_> = namespaces.all().iter().map(|ns| ns.name()).collect();
        assert_eq!(names, ["n3", "n5", "recovered-6", "recovered-7"]);
    }

    #[test]
    fn what_the_log_does_not_say_any_more_is_taken_from_the_checkpoints() {
        let deletion = |prefix: &str| Deletion {
            seqno: 9,
            prefix: prefix.into(),
        };
        let body = |number: u8, name: &str, deletions: &[&str], dropped| NamespaceBody {
            dropped,
            id: [number; 16],
            deletions: deletions.iter().copied().map(deletion).collect(),
            name: name.into(),
        };
        // As the log says it: the last has the name that another would get.
        let namespaces = Namespaces::default();
        for (number, name, deletions) in [
            (1, "kept", &["a"][..]),
            (2, "dropped", &[]),
            (3, "recovered-5", &[]),
        ] {
            let body = body(number, name, deletions, false);
            namespaces.apply(number.into(), &body.encode(), 1, 1);
        }
        let entry = |body: NamespaceBody| NamespaceEntry {
            number: body.id[0].into(),
            segment: 1,
            body: body.encode(),
        };
        let strange = NamespaceEntry {
            number: 1,
            segment: 1,
            body: b"says nothing".to_vec(),
        };
        let meta = Meta {
            namespaces: vec![
                strange,
                entry(body(1, "renamed", &["a", "b"], false)),
                entry(body(2, "dropped", &[], true)),
                entry(body(3, "recovered-5", &[], false)),
                entry(body(4, "unknown", &[], false)),
            ],
            ..Meta::default()
        };
        let named = [1, 2, 3, 4, 5];
        let renamed = name(&crate::vfs::OsVfs, &namespaces, named, [&meta].into_iter()).unwrap();
        assert_eq!(renamed, ["recovered-5'"]);
        let all = namespaces.all();
        let names: Vec<_> = all.iter().map(|ns| ns.name()).collect();
        assert_eq!(names, ["kept", "recovered-5", "unknown", "recovered-5'"]);
        let kept = all.first().unwrap().deletions();
        assert_eq!(
            kept[..],
            [deletion("a"), deletion("b")],
            "nothing comes back"
        );
        assert!(namespaces.was_dropped(2));
    }
}
