//! What is on the platter: the durable bytes and names, and what a power cut makes of the rest.
//!
//! A [`Disk`](crate::SimDisk) keeps the image it began with and a journal of everything that changed
//! since. The state after a cut at any place of that journal is a fold over it: a sync makes changes
//! durable, and the policy of the cut chooses among those that no sync had covered.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::Dice;
use crate::dice::{Choose, Odometer};

/// Bytes that are kept in memory together; how a cut tears them is the policy's choice.
const BLOCK: usize = 4096;

/// One change of the disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Name {
        dir: Arc<Path>,
        change: NameChange,
    },
    SyncDir {
        dir: Arc<Path>,
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
        path: Arc<Path>,
        node: Node,
    },
    Rename {
        from: Arc<Path>,
        to: Arc<Path>,
        node: Node,
    },
    Remove {
        path: Arc<Path>,
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
    /// As with sectors of 512 bytes, and of its newest version a sector may have only the front: its page
    /// was written back while the bytes were still being copied to it.
    Halves,
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
            cut(Unsynced::Halves, Names::Any),
            cut(Unsynced::Prefix, Names::Kept),
        ]
    }

    /// So many cuts: the four that keep all or nothing, and samples of the others.
    fn samples(count: usize, seed: u64) -> Vec<Cut> {
        let mut dice = Dice::new(seed);
        let rolled = std::iter::repeat_with(|| Cut::kinds(dice.roll()));
        let others = rolled.flat_map(|kinds| kinds.into_iter().skip(4));
        let mut samples = Cut::kinds(seed);
        samples.truncate(4);
        samples.extend(others.take(count - 4));
        samples
    }
}

/// A disk without power.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) names: BTreeMap<Arc<Path>, Node>,
    pub(crate) files: BTreeMap<u64, Arc<Content>>,
}

/// The bytes of one file, by block; a missing block is zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) len: usize,
    pub(crate) blocks: BTreeMap<usize, Arc<Block>>,
}

/// Bytes that many images share, and their digest once somebody asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) bytes: [u8; BLOCK],
    digest: OnceLock<u64>,
}

impl Block {
    fn zero() -> Arc<Block> {
        let (bytes, digest) = ([0; BLOCK], OnceLock::new());
        Arc::new(Block { bytes, digest })
    }

    /// 0 if all bytes are zero.
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.bytes.hash(&mut hasher);
            let is_zero = self.bytes == [0; BLOCK];
            if is_zero { 0 } else { hasher.finish() | 1 }
        })
    }
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
            out[from - offset..to - offset].copy_from_slice(&block.bytes[start..end]);
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
            let place = self.blocks.entry(block).or_insert_with(Block::zero);
            let place = Arc::make_mut(place);
            place.bytes[start..start + now.len()].copy_from_slice(now);
            place.digest = OnceLock::new();
            (offset, bytes) = (offset + now.len(), later);
        }
    }

    /// Forgets what lies behind the end.
    fn truncate(&mut self) {
        drop(self.blocks.split_off(&self.len.div_ceil(BLOCK)));
        if let Some(last) = self.blocks.get_mut(&(self.len / BLOCK)) {
            let beyond = self.len % BLOCK;
            if last.bytes[beyond..].iter().any(|byte| *byte != 0) {
                let last = Arc::make_mut(last);
                last.bytes[beyond..].fill(0);
                last.digest = OnceLock::new();
            }
        }
    }
}

impl Image {
    /// Whether two images hold the same; the numbers of files may differ.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in &self.names {
            path.hash(&mut hasher);
            if let Node::File(file) = node
                && let Some(content) = self.files.get(file)
            {
                content.len.hash(&mut hasher);
                let blocks = content.blocks.iter().map(|(at, b)| (at, b.digest()));
                blocks
                    .filter(|(_, digest)| *digest != 0)
                    .for_each(|block| block.hash(&mut hasher));
            }
        }
        hasher.finish()
    }
}

/// A disk's journal, at each place of which the power may be cut.
pub struct Timeline {
    pub(crate) base: Image,
    pub(crate) journal: Vec<Event>,
}

/// A place in a journal: the operation that comes next is begun.
pub struct Moment<'a> {
    place: usize,
    fold: Fold<'a>,
}

/// Up to so many parts that no sync covered, each by itself kept or lost, all of their subsets are tried.
const PARTS_MAX: usize = 5;
/// Otherwise so many samples.
const SAMPLES: usize = 32;

impl Timeline {
    /// All moments from a place on.
    pub fn moments(&self, from: usize) -> impl Iterator<Item = Moment<'_>> {
        let mut fold = Fold {
            image: self.base.clone(),
            names: Vec::new(),
            files: BTreeMap::new(),
        };
        (0..=self.journal.len()).filter_map(move |place| {
            let event = self.journal.get(place);
            let moment = (place >= from).then(|| Moment::new(place, fold.clone(), event));
            if let Some(event) = event {
                fold.take(place, event);
            }
            moment
        })
    }
}

impl<'a> Moment<'a> {
    fn new(place: usize, mut fold: Fold<'a>, next: Option<&'a Event>) -> Moment<'a> {
        // The interrupted operation: begun, hence not durable, and any part of it may be lost.
        if let Some(event @ (Event::Bytes { .. } | Event::Name { .. })) = next {
            fold.take(place, event);
        }
        Moment { place, fold }
    }

    /// How many changes came before.
    #[must_use]
    pub fn place(&self) -> usize {
        self.place
    }

    pub(crate) fn cut(&self, cut: Cut) -> Image {
        self.fold.clone().cut(cut, &mut Dice::new(cut.seed))
    }

    /// What cuts at this moment leave: every subset of what was not synced, by names, lengths and sectors of
    /// 512 bytes, if that is up to five, otherwise 32 samples; and one with a sector that was being
    /// copied. Some may be the same.
    #[must_use]
    pub fn all(&self) -> Vec<Left> {
        let seed = u64::try_from(self.place).unwrap_or(0);
        let sectors = Cut {
            bytes: Unsynced::Sectors(512),
            names: Names::Any,
            seed,
        };
        let mut choice = Odometer::default();
        let mut all = vec![self.fold.clone().cut(sectors, &mut choice)];
        if choice.places() > PARTS_MAX {
            let samples = Cut::samples(SAMPLES, seed).into_iter();
            return samples.map(|cut| Left(self.cut(cut))).collect();
        }
        while choice.turn() {
            all.push(self.fold.clone().cut(sectors, &mut choice));
        }
        let bytes = Unsynced::Halves;
        all.push(self.cut(Cut { bytes, ..sectors }));
        all.into_iter().map(Left).collect()
    }
}

/// A disk as a power cut left it.
pub struct Left(pub(crate) Image);

impl Left {
    /// A number that is the same for disks that hold the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}

/// The image so far, and the changes no sync has covered, each with its place in the journal.
#[derive(Clone)]
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
                for (_, _, change) in self
                    .names
                    .extract_if(.., |(_, in_dir, _)| **in_dir == **dir)
                {
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

    fn cut(mut self, cut: Cut, choice: &mut impl Choose) -> Image {
        if cut.bytes == Unsynced::Prefix {
            self.cut_prefix(choice);
        } else {
            self.cut_names(cut.names, choice);
            self.cut_bytes(cut.bytes, choice);
        }
        // A file without a directory above it is out of reach.
        let dirs: Vec<Arc<Path>> = self.image.names.keys().cloned().collect();
        self.image.names.retain(|path, _| {
            let parent = path.parent().filter(|p| *p != Path::new("/"));
            parent.is_none_or(|parent| dirs.iter().any(|dir| **dir == *parent))
        });
        self.image
    }

    /// Keeps the changes before one moment of the journal.
    fn cut_prefix(&mut self, choice: &mut impl Choose) {
        let names = self.names.iter().map(|(order, ..)| *order);
        let bytes = self.files.values().flatten().map(|(order, _)| *order);
        let mut orders: Vec<usize> = names.chain(bytes).collect();
        orders.sort_unstable();
        let end = orders.get(choice.below(orders.len() + 1)).copied();
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

    fn cut_names(&mut self, policy: Names, choice: &mut impl Choose) {
        for (_, _, change) in &self.names {
            let kept = match policy {
                Names::Lost => false,
                Names::Kept => true,
                Names::Any => choice.below(2) == 1,
            };
            if kept {
                apply_name(&mut self.image.names, change);
            }
        }
    }

    fn cut_bytes(&mut self, policy: Unsynced, choice: &mut impl Choose) {
        for (file, changes) in &self.files {
            let content = Arc::make_mut(self.image.files.entry(*file).or_default());
            match policy {
                Unsynced::Sectors(size) => cut_sectors(content, changes, size, false, choice),
                Unsynced::Halves => cut_sectors(content, changes, 512, true, choice),
                Unsynced::Kept => changes.iter().for_each(|(_, change)| content.apply(change)),
                Unsynced::Lost | Unsynced::Prefix => {}
            }
        }
    }
}

/// Gives the file any of its lengths since the last sync, and each sector any of its versions, or with
/// `halves` only the front of one.
fn cut_sectors(
    content: &mut Content,
    changes: &[(usize, &FileChange)],
    size: usize,
    halves: bool,
    choice: &mut impl Choose,
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
        let kept = choice.below(parts.len() + 1);
        for (at, (offset, bytes)) in parts[..kept].iter().enumerate() {
            let is_newest = at + 1 == kept;
            let len = if halves && is_newest {
                choice.below(bytes.len() + 1)
            } else {
                bytes.len()
            };
            content.write(*offset, &bytes[..len]);
        }
    }
    lens.sort_unstable();
    lens.dedup();
    content.len = lens[choice.below(lens.len())];
    content.truncate();
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

pub(crate) fn apply_name(names: &mut BTreeMap<Arc<Path>, Node>, change: &NameChange) {
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
