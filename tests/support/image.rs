//! What is on the platter: the durable bytes and names, and what a power cut makes of the rest.
//!
//! A [`Disk`](crate::SimDisk) keeps the image it began with and a journal of everything that changed
//! since. The state after a cut at any place of that journal is a fold over it: a sync makes changes
//! durable, and the policy of the cut chooses among those that no sync had covered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Dice;

/// Bytes that are kept in memory together; how a cut tears them is the policy's choice.
const BLOCK: usize = 4096;

/// One change of the disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Name {
        dir: PathBuf,
        change: NameChange,
    },
    SyncDir {
        dir: PathBuf,
    },
    Bytes {
        file: u64,
        change: FileChange,
    },
    Sync {
        file: u64,
    },
    /// A failed sync: the system forgets that these bytes were ever to be written.
    Forget {
        file: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Add {
        path: PathBuf,
        node: Node,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
    Remove {
        path: PathBuf,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum FileChange {
    Write { offset: usize, bytes: Arc<[u8]> },
    Len(usize),
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(u64),
}

/// What becomes of written bytes that no sync covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// None of them reached the platter.
    Lost,
    /// All of them did.
    Kept,
    /// Of each sector of this many bytes, any version since the last sync.
    Sectors(usize),
    /// Everything before some moment, nothing after; names too.
    Prefix,
}

/// What becomes of names that no sync of their directory covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// As if they had never changed.
    Lost,
    /// All as they were changed.
    Kept,
    /// Each change by itself is kept or lost.
    Any,
}

/// A power cut: which of the changes that were not yet durable survive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Written bytes.
    pub bytes: Unsynced,
    /// Created, renamed and removed names.
    pub names: Names,
    /// Decides what the policies leave open.
    pub seed: u64,
}

impl Cut {
    /// Only what was synced survives.
    pub const LOST: Cut = Cut {
        bytes: Unsynced::Lost,
        names: Names::Lost,
        seed: 0,
    };
    /// Everything survives: what the death of a process alone leaves.
    pub const KEPT: Cut = Cut {
        bytes: Unsynced::Kept,
        names: Names::Kept,
        seed: 0,
    };

    /// One of each kind of cut; `seed` decides what they leave open.
    #[must_use]
    pub fn kinds(seed: u64) -> Vec<Cut> {
        let cut = |bytes, names| Cut { bytes, names, seed };
        vec![
            Cut::LOST,
            Cut::KEPT,
            cut(Unsynced::Lost, Names::Kept),
            cut(Unsynced::Kept, Names::Lost),
            cut(Unsynced::Sectors(512), Names::Any),
            cut(Unsynced::Sectors(4096), Names::Any),
            cut(Unsynced::Prefix, Names::Kept),
        ]
    }
}

/// A disk without power.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) names: BTreeMap<PathBuf, Node>,
    pub(crate) files: BTreeMap<u64, Arc<Content>>,
}

/// The bytes of one file, by block; a missing block is zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) len: usize,
    pub(crate) blocks: BTreeMap<usize, [u8; BLOCK]>,
}

impl Content {
    /// Copies the bytes from `offset` on; holes and what lies beyond the end are left alone.
    pub(crate) fn copy_to(&self, out: &mut [u8], offset: usize) {
        let end = self.len.min(offset + out.len());
        let first = offset / BLOCK;
        for (at, block) in self.blocks.range(first..) {
            let (from, to) = (offset.max(at * BLOCK), end.min((at + 1) * BLOCK));
            if from >= to {
                return;
            }
            let (start, end) = (from - at * BLOCK, to - at * BLOCK);
            out[from - offset..to - offset].copy_from_slice(&block[start..end]);
        }
    }

    fn apply(&mut self, change: &FileChange) {
        match change {
            FileChange::Len(len) => self.len = *len,
            FileChange::Write { offset, bytes } => {
                self.len = self.len.max(offset + bytes.len());
                self.write(*offset, bytes);
            }
        }
    }

    fn write(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (block, start) = (offset / BLOCK, offset % BLOCK);
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - start));
            let place = self.blocks.entry(block).or_insert([0; BLOCK]);
            place[start..start + now.len()].copy_from_slice(now);
            (offset, bytes) = (offset + now.len(), later);
        }
    }
}

impl Image {
    /// The image after `events` and a power cut.
    pub(crate) fn after(&self, events: &[Event], cut: Cut) -> Image {
        let mut fold = Fold {
            image: self.clone(),
            names: Vec::new(),
            files: BTreeMap::new(),
        };
        for (order, event) in events.iter().enumerate() {
            fold.take(order, event);
        }
        fold.cut(cut)
    }

    /// Whether two images hold the same; the numbers of files may differ.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for (path, node) in &self.names {
            path.hash(&mut hasher);
            if let Node::File(file) = node
                && let Some(content) = self.files.get(file)
            {
                content.len.hash(&mut hasher);
                let written = content.blocks.iter();
                for (at, bytes) in written.filter(|(_, b)| **b != [0; BLOCK]) {
                    (at, bytes).hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}

/// The image so far, and the changes no sync has covered, each with its place in the journal.
struct Fold<'a> {
    image: Image,
    names: Vec<(usize, &'a Path, &'a NameChange)>,
    files: BTreeMap<u64, Vec<(usize, &'a FileChange)>>,
}

impl<'a> Fold<'a> {
    fn take(&mut self, order: usize, event: &'a Event) {
        match event {
            Event::Name { dir, change } => self.names.push((order, dir, change)),
            Event::SyncDir { dir } => {
                for (_, _, change) in self.names.extract_if(.., |(_, in_dir, _)| in_dir == dir) {
                    apply_name(&mut self.image.names, change);
                }
            }
            Event::Bytes { file, change } => {
                self.files.entry(*file).or_default().push((order, change));
            }
            Event::Sync { file } => {
                let content = Arc::make_mut(self.image.files.entry(*file).or_default());
                for (_, change) in self.files.remove(file).unwrap_or_default() {
                    content.apply(change);
                }
            }
            Event::Forget { file } => {
                self.files.remove(file);
            }
        }
    }

    fn cut(mut self, cut: Cut) -> Image {
        let mut dice = Dice::new(cut.seed);
        if cut.bytes == Unsynced::Prefix {
            self.cut_prefix(&mut dice);
        } else {
            self.cut_names(cut.names, &mut dice);
            self.cut_bytes(cut.bytes, &mut dice);
        }
        // A file without a directory above it is out of reach.
        let dirs: Vec<PathBuf> = self.image.names.keys().cloned().collect();
        self.image.names.retain(|path, _| {
            let parent = path.parent().filter(|p| *p != Path::new("/"));
            parent.is_none_or(|parent| dirs.iter().any(|dir| dir == parent))
        });
        self.image
    }

    /// Keeps the changes before one moment of the journal.
    fn cut_prefix(&mut self, dice: &mut Dice) {
        let names = self.names.iter().map(|(order, ..)| *order);
        let bytes = self.files.values().flatten().map(|(order, _)| *order);
        let mut orders: Vec<usize> = names.chain(bytes).collect();
        orders.sort_unstable();
        let end = orders.get(dice.below(orders.len() + 1)).copied();
        let end = end.unwrap_or(usize::MAX);
        for (_, _, change) in self.names.iter().filter(|(order, ..)| *order < end) {
            apply_name(&mut self.image.names, change);
        }
        for (file, changes) in &self.files {
            let content = Arc::make_mut(self.image.files.entry(*file).or_default());
            for (_, change) in changes.iter().filter(|(order, _)| *order < end) {
                content.apply(change);
            }
        }
    }

    fn cut_names(&mut self, policy: Names, dice: &mut Dice) {
        for (_, _, change) in &self.names {
            let kept = match policy {
                Names::Lost => false,
                Names::Kept => true,
                Names::Any => dice.coin(),
            };
            if kept {
                apply_name(&mut self.image.names, change);
            }
        }
    }

    fn cut_bytes(&mut self, policy: Unsynced, dice: &mut Dice) {
        for (file, changes) in &self.files {
            let content = Arc::make_mut(self.image.files.entry(*file).or_default());
            match policy {
                Unsynced::Sectors(size) => cut_sectors(content, changes, size, dice),
                Unsynced::Kept => changes.iter().for_each(|(_, change)| content.apply(change)),
                Unsynced::Lost | Unsynced::Prefix => {}
            }
        }
    }
}

/// Gives the file any of its lengths since the last sync, and each sector any of its versions.
fn cut_sectors(
    content: &mut Content,
    changes: &[(usize, &FileChange)],
    size: usize,
    dice: &mut Dice,
) {
    let mut lens = vec![content.len];
    let mut len = content.len;
    let mut versions: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
    for (_, change) in changes {
        len = match change {
            FileChange::Len(len) => *len,
            FileChange::Write { offset, bytes } => {
                split(*offset, bytes, size, &mut versions);
                len.max(offset + bytes.len())
            }
        };
        lens.push(len);
    }
    for parts in versions.values() {
        let kept = dice.below(parts.len() + 1);
        for (offset, bytes) in &parts[..kept] {
            content.write(*offset, bytes);
        }
    }
    content.len = lens[dice.below(lens.len())];
}

fn split<'a>(
    mut offset: usize,
    mut bytes: &'a [u8],
    size: usize,
    versions: &mut BTreeMap<usize, Vec<(usize, &'a [u8])>>,
) {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(size - offset % size));
        versions
            .entry(offset / size)
            .or_default()
            .push((offset, now));
        (offset, bytes) = (offset + now.len(), later);
    }
}

pub(crate) fn apply_name(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    match change {
        NameChange::Add { path, node } => {
            names.insert(path.clone(), *node);
        }
        NameChange::Rename { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
        NameChange::Remove { path } => {
            names.remove(path);
        }
    }
}
