//! The index of version 2: blocks that lead to blocks.

use super::block::{BLOCK_RECORDS, Malformed, Records};
use super::file::{FETCHED_MAX, File, Leaf};
use super::node::{Node, Slot};
use super::{
    BLOCK_LEN_MIN, CRC_LEN, Damage, HEADER_LEN, LENGTHS_LEN, field_place, field_u32, field_u64,
};

/// Bytes of a block of keys that are brought to the cache at once, whatever the index says of its length.
const LEAF_LEN_MIN: usize = 1 << 10;
/// Levels of an index, at most: all blocks of one but the last lead to 32, so no file has as many. Nodes hold those below
/// them, and who lets go of one goes as deep.
const LEVELS_MAX: u32 = 16;
const _: () = assert!(BLOCK_RECORDS.ilog2() * LEVELS_MAX > u64::BITS);

pub(super) struct Tree {
    /// Where blocks of keys end and the index begins.
    start: usize,
    /// Where the index ends.
    end: usize,
    /// The block that leads to all others; 0 in an empty run.
    root: usize,
    /// The node of the root.
    top: Slot,
}

/// Where a search is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Where the block begins in which it goes on.
    start: usize,
    /// How many levels of the index lie above it.
    level: u32,
    /// Bytes that this block's separators and the sort key are known to begin with.
    known: usize,
    /// Where the node of the block is kept, if it is one of the index.
    slot: Option<&'a Slot>,
}

impl Place<'_> {
    /// In a block of keys.
    pub(super) fn leaf(start: usize) -> Self {
        let (level, known, slot) = (0, 0, None);
        Place {
            start,
            level,
            known,
            slot,
        }
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }
}

impl Tree {
    pub(super) fn open(end: usize, footer: &[u8]) -> Result<Tree, Damage> {
        let (start, root) = (field_place(footer, 0), field_place(footer, 8));
        let is_empty = root == 0 && start == HEADER_LEN && end == HEADER_LEN;
        let is_in_place = root >= HEADER_LEN && root < end && start > HEADER_LEN && start <= end;
        if !is_empty && !is_in_place || (field_u64(footer, 16) == 0) != is_empty {
            return Err(Damage::at(end, "index outside of its run"));
        }
        Ok(Tree {
            start,
            end,
            root,
            top: Slot::new(),
        })
    }

    /// The length of the index.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.start <= self.end, "checked when it was opened");
        self.end - self.start
    }

    /// Verifies the index.
    pub(super) fn verify(&self, file: File<'_>) -> Result<(), Damage> {
        let mut at = self.start;
        while at < self.end {
            let end = self.end_of(file, at)?;
            file.verified(at, end)?;
            debug_assert!(end > at);
            debug_assert!(end <= self.end, "block by block");
            at = end;
        }
        debug_assert_eq!(at, self.end, "the index ends with a block");
        Ok(())
    }

    /// Where every search begins; `None` in an empty run.
    pub(super) fn top(&self) -> Option<Place<'_>> {
        (self.root != 0).then_some(Place {
            slot: Some(&self.top),
            ..Place::leaf(self.root)
        })
    }

    /// Where the last block of keys begins.
    pub(super) fn last(&self, file: File<'_>) -> Result<Option<usize>, Damage> {
        let mut place = self.top();
        if let Some(place) = &mut place {
            while self.step(file, place, None)? {}
        }
        Ok(place.map(|place| place.start))
    }

    /// Goes on in the last child whose separator is not after a sort key, or in the last of all. No if this is a block
    /// of keys. What comes next is on its way to the cache.
    pub(super) fn step<'a>(
        &'a self,
        file: File<'_>,
        place: &mut Place<'a>,
        sort_key: Option<&[u8]>,
    ) -> Result<bool, Damage> {
        let (start, level, known) = (place.start, place.level, place.known);
        if start < self.start {
            return Ok(false);
        }
        let order = Damage::at(start, "order of a run index");
        if level == LEVELS_MAX {
            return Err(order);
        }
        let node = self.node(file, start, place.slot.ok_or(order)?)?;
        let number = match sort_key {
            Some(sort_key) => match node.find(sort_key, known) {
                Some(number) => number,
                None => self.search(file, start, sort_key)?,
            },
            None => node.last(),
        };
        let (child, len) = node.child(number).ok_or(order)?;
        // Children are written first, so that every search ends.
        if child >= start {
            return Err(order);
        }
        *place = Place {
            start: child,
            level: level + 1,
            known: node.known_below(number, known),
            slot: node.slot(number),
        };
        match place.slot.and_then(Slot::get) {
            Some(node) => node.prefetch(),
            None => file.prefetch(child, len.clamp(LEAF_LEN_MIN, FETCHED_MAX)),
        }
        Ok(true)
    }

    pub(super) fn after<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        debug_assert!(leaf.end <= self.start, "keys lie before their index");
        if leaf.end == self.start {
            return Ok(None);
        }
        self.leaf_at(file, leaf.end).map(Some)
    }

    pub(super) fn before<'a>(
        &self,
        file: File<'a>,
        leaf: &Leaf<'_>,
    ) -> Result<Option<Leaf<'a>>, Damage> {
        debug_assert!(leaf.start >= HEADER_LEN, "and behind the header");
        if leaf.start == HEADER_LEN {
            return Ok(None);
        }
        let len = field_u32(file.bytes, leaf.start + 4) as usize;
        let start = leaf.start.checked_sub(len);
        let before = start.map_or(Err(out_of_place(leaf.start)), |at| self.leaf_at(file, at))?;
        if before.end != leaf.start {
            return Err(out_of_place(leaf.start));
        }
        Ok(Some(before))
    }

    pub(super) fn leaf_at<'a>(&self, file: File<'a>, start: usize) -> Result<Leaf<'a>, Damage> {
        let end = self.end_of(file, start)?;
        if start < HEADER_LEN || end > self.start {
            return Err(out_of_place(start));
        }
        debug_assert!(end - start >= LENGTHS_LEN + CRC_LEN);
        let content = file.leaf(start, end)?;
        let payload = content.get(LENGTHS_LEN..).unwrap_or_default();
        Ok(Leaf {
            start,
            end,
            payload,
        })
    }

    /// A block of the index, verified and read when it is first needed.
    fn node<'a>(&self, file: File<'_>, start: usize, slot: &'a Slot) -> Result<&'a Node, Damage> {
        if let Some(node) = slot.get() {
            return Ok(node);
        }
        file.verified(start, self.end_of(file, start)?)?;
        let node = Node::read(self.payload(file, start)?, self.start);
        let node = node.map_err(|_| malformed(start))?;
        Ok(slot.get_or_init(|| Box::new(node)))
    }

    /// The last child of a block of the index whose separator is not after a sort key.
    #[cold]
    fn search(&self, file: File<'_>, start: usize, sort_key: &[u8]) -> Result<usize, Damage> {
        let child = last_child(self.payload(file, start)?, sort_key);
        child.map_err(|_| malformed(start))
    }

    fn payload<'a>(&self, file: File<'a>, start: usize) -> Result<&'a [u8], Damage> {
        debug_assert!(start >= self.start, "leaves are no nodes");
        let end = self.end_of(file, start)?;
        let payload = file.bytes.get(start + LENGTHS_LEN..end - CRC_LEN);
        payload.ok_or(out_of_place(start))
    }

    /// Where a block ends, as its own beginning says.
    fn end_of(&self, file: File<'_>, start: usize) -> Result<usize, Damage> {
        let len = field_u32(file.bytes, start) as usize;
        let end = start.checked_add(len).filter(|end| *end <= self.end);
        end.filter(|_| len >= BLOCK_LEN_MIN)
            .ok_or(Damage::at(start, "length of a run block"))
    }
}

fn out_of_place(start: usize) -> Damage {
    Damage::at(start, "place of a run block")
}

fn malformed(start: usize) -> Damage {
    Damage::at(start, "record in a run index")
}

/// The number of the last child whose separator is not after a sort key.
fn last_child(payload: &[u8], sort_key: &[u8]) -> Result<usize, Malformed> {
    let mut records = Records::new(payload).ok_or(Malformed)?;
    let all = records.left();
    let passed = records.seek(sort_key, false)?.before.ok_or(Malformed)?;
    Ok(usize::from(all - passed.left()))
}
