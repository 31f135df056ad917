//! Places in a run, and steps from record to record.
//!
//! The index says where a search begins to look, and is not verified each time: it may have been damaged since.
//! So what is found counts only where verified blocks of keys, which name their neighbours, say that it is between
//! what lies on both sides.

use super::ahead::WINDOW;
use super::block::{Block, Coded, Records, SortKey};
use super::file::{Leaf, Run, astray};
use super::{Damage, KeyRecord, NAMESPACE_LEN, namespace_bytes};

/// A place that moves to higher keys. A block is read as the place moves through it.
pub(crate) struct Forward<'a> {
    run: &'a Run,
    leaf: Leaf<'a>,
    /// Of the block, those behind the place.
    records: Records<'a>,
    key: SortKey,
    /// The record at the place; `None` at the end.
    record: Option<Coded<'a>>,
    /// Where what was asked for from the disk ends, and what time it is.
    ahead: usize,
    now: u64,
}

impl<'a> Forward<'a> {
    /// Returns the place of the first record that is not before (or with `after_equal`, after) a sort key.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn seek(
        run: &'a Run,
        namespace: u32,
        key: &[u8],
        after_equal: bool,
    ) -> Result<Forward<'a>, Damage> {
        let sort_key = sort_key(namespace, key);
        let found = run.find(&sort_key)?;
        Forward::seek_from(run, found, &sort_key, after_equal, 0)
    }

    /// Returns the place of the first record that is not before (or with `after_equal`, after) a sort key, for which
    /// the run [found](Run::find) a block.
    pub(crate) fn seek_from(
        run: &'a Run,
        found: Option<usize>,
        sort_key: &[u8],
        after_equal: bool,
        now: u64,
    ) -> Result<Forward<'a>, Damage> {
        let mut place = Forward {
            run,
            leaf: Leaf::default(),
            records: Records::default(),
            key: SortKey::default(),
            record: None,
            ahead: 0,
            now,
        };
        let Some(start) = found else {
            return Ok(place);
        };
        place.enter(run.leaf_at(start)?)?;
        let found = place.records.seek(sort_key, !after_equal);
        let found = found.map_err(|_| place.malformed())?;
        match found.record {
            Some((shared, record)) => {
                if found.before.is_none() {
                    place.check_before(sort_key, after_equal)?;
                }
                if !place.key.set(sort_key, shared, &record) {
                    return Err(place.malformed());
                }
                place.record = Some(record);
            }
            None => {
                place.key.set_to(sort_key);
                place.next_block()?;
            }
        }
        debug_assert!(
            place.record().is_none_or(|record| {
                let found = self::sort_key(record.namespace, record.key);
                found.as_slice() > sort_key || (!after_equal && found == sort_key)
            }),
            "what is before it was passed over"
        );
        Ok(place)
    }

    pub(crate) fn run(&self) -> &'a Run {
        self.run
    }

    #[inline]
    pub(crate) fn record(&self) -> Option<KeyRecord<'_>> {
        let record = self.record.as_ref()?;
        Some(KeyRecord {
            namespace: self.key.namespace(),
            key: self.key.key(),
            metadata: record.metadata,
            expiration: record.expiration,
            seqno: record.seqno,
            tombstone: record.tombstone,
        })
    }

    #[inline]
    pub(crate) fn advance(&mut self) -> Result<(), Damage> {
        match self.records.next_short() {
            Some(record) if self.key.follow(&record) => {
                self.record = Some(record);
                Ok(())
            }
            Some(_) => Err(self.malformed()),
            None => self.advance_far(),
        }
    }

    /// Gives the record at the place and those behind it to `take`, until there are no more or it says that it does not
    /// take one, where the place then is. With each come the bytes at the beginning of the key that it has from
    /// the one before it, `None` if not even the namespace.
    ///
    /// What changes with each record is in locals, and written back where this ends: here pages are made.
    #[inline]
    pub(crate) fn walk(
        &mut self,
        mut take: impl FnMut(&KeyRecord<'_>, Option<usize>) -> bool,
    ) -> Result<(), Damage> {
        while let Some(mut record) = self.record {
            let (mut records, namespace) = (self.records, self.key.namespace());
            let mut key = self.key.growing();
            let is_taken = loop {
                let listed = KeyRecord {
                    namespace,
                    key: key.key(),
                    metadata: record.metadata,
                    expiration: record.expiration,
                    seqno: record.seqno,
                    tombstone: record.tombstone,
                };
                if !take(&listed, record.shared.checked_sub(NAMESPACE_LEN)) {
                    break false;
                }
                let mut behind = records;
                match behind.next_short() {
                    Some(next) if key.grow(&next) => (record, records) = (next, behind),
                    _ => break true,
                }
            };
            let len = key.len();
            self.key.set_len(len);
            (self.record, self.records) = (Some(record), records);
            if !is_taken {
                break;
            }
            self.advance_far()?;
        }
        Ok(())
    }

    /// To a record that is not like most, or into the next block.
    #[inline(never)]
    fn advance_far(&mut self) -> Result<(), Damage> {
        match self.records.next() {
            Ok(Some(record)) if self.key.follow(&record) => {
                self.record = Some(record);
                Ok(())
            }
            Ok(None) => self.next_block(),
            _ => Err(self.malformed()),
        }
    }

    fn next_block(&mut self) -> Result<(), Damage> {
        self.record = None;
        if self.leaf.end == 0 {
            // There are no blocks.
            return Ok(());
        }
        let Some(leaf) = self.run.after(&self.leaf)? else {
            return Ok(());
        };
        debug_assert!(leaf.start >= self.leaf.end, "blocks follow each other");
        if leaf.end + WINDOW / 2 > self.ahead {
            let end = leaf.end + WINDOW / 2;
            self.run.will_need(leaf.start..end, self.now);
            self.ahead = end.next_multiple_of(WINDOW);
        }
        debug_assert!(leaf.end <= self.ahead, "what is read was asked for");
        self.enter(leaf)?;
        // Who goes on once will most likely go on again.
        self.run.prefetch_after(&leaf);
        match self.records.next() {
            Ok(Some(record)) if self.key.begin(&record) => {
                self.record = Some(record);
                Ok(())
            }
            _ => Err(self.malformed()),
        }
    }

    /// Whether what is sought cannot be in the block before.
    fn check_before(&self, sort_key: &[u8], after_equal: bool) -> Result<(), Damage> {
        let Some(before) = self.run.before(&self.leaf)? else {
            return Ok(());
        };
        match before.sides(sort_key, after_equal) {
            Ok((_, false)) => Ok(()),
            _ => Err(astray(&before)),
        }
    }

    fn enter(&mut self, leaf: Leaf<'a>) -> Result<(), Damage> {
        self.leaf = leaf;
        debug_assert!(leaf.start < leaf.end);
        self.records = Records::new(leaf.payload).ok_or(self.malformed())?;
        Ok(())
    }

    fn malformed(&self) -> Damage {
        Damage::at(self.leaf.start, "record in a run block")
    }
}

/// A place that moves to lower keys. A block is decoded whole, since each key needs the one before it.
pub(crate) struct Backward<'a> {
    run: &'a Run,
    leaf: Leaf<'a>,
    block: Block<'a>,
    /// Of the block's records those that are not behind the place; 0 at the end.
    left: usize,
    /// Where what was asked for from the disk begins, and what time it is.
    ahead: usize,
    now: u64,
}

impl<'a> Backward<'a> {
    /// Returns the place of the last record before (or with `after_equal`, not after) a sort key.
    pub(crate) fn seek(
        run: &'a Run,
        namespace: u32,
        key: &[u8],
        after_equal: bool,
    ) -> Result<Backward<'a>, Damage> {
        let sort_key = sort_key(namespace, key);
        let mut place = Backward::at(run, run.leaf(&sort_key)?)?;
        place.left = place.block.seek(namespace, key, after_equal);
        if place.left == 0 {
            place.block_before()?;
            if place.block.seek(namespace, key, after_equal) < place.left {
                return Err(astray(&place.leaf));
            }
        } else if place.left == place.block.len()
            && let Some(after) = run.after(&place.leaf)?
            && !matches!(after.sides(&sort_key, after_equal), Ok((false, _)))
        {
            return Err(astray(&after));
        }
        debug_assert!(
            place.record().is_none_or(|record| {
                let (found, sought) = ((record.namespace, record.key), (namespace, key));
                found < sought || (after_equal && found == sought)
            }),
            "what is behind it was passed over"
        );
        Ok(place)
    }

    /// Returns the place of the last record of all.
    pub(crate) fn last(run: &'a Run) -> Result<Backward<'a>, Damage> {
        Backward::at(run, run.last()?)
    }

    fn at(run: &'a Run, leaf: Option<Leaf<'a>>) -> Result<Backward<'a>, Damage> {
        let mut place = Backward {
            run,
            leaf: Leaf::default(),
            block: Block::default(),
            left: 0,
            ahead: usize::MAX,
            now: 0,
        };
        if let Some(leaf) = leaf {
            place.enter(leaf)?;
        }
        Ok(place)
    }

    /// The same place for who has the time.
    pub(crate) fn at_time(self, now: u64) -> Backward<'a> {
        Backward { now, ..self }
    }

    pub(crate) fn run(&self) -> &'a Run {
        self.run
    }

    #[inline]
    pub(crate) fn record(&self) -> Option<KeyRecord<'_>> {
        self.block.get(self.left.checked_sub(1)?)
    }

    #[inline]
    pub(crate) fn advance(&mut self) -> Result<(), Damage> {
        debug_assert!(self.left <= self.block.len(), "it stands in its block");
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return Ok(());
        }
        self.block_before()
    }

    fn block_before(&mut self) -> Result<(), Damage> {
        let Some(first) = self.block.get(0) else {
            return Ok(());
        };
        let (namespace, key) = (first.namespace, first.key.to_vec());
        if let Some(leaf) = self.run.before(&self.leaf)? {
            debug_assert!(leaf.end <= self.leaf.start, "blocks precede each other");
            let start = leaf.start.saturating_sub(WINDOW / 2);
            if start < self.ahead {
                self.run.will_need(start..leaf.end, self.now);
                self.ahead = start / WINDOW * WINDOW;
            }
            debug_assert!(self.ahead <= leaf.start, "what is read was asked for");
            self.enter(leaf)?;
            if self.block.seek(namespace, &key, false) < self.left {
                return Err(astray(&leaf));
            }
        }
        Ok(())
    }

    fn enter(&mut self, leaf: Leaf<'a>) -> Result<(), Damage> {
        self.leaf = leaf;
        self.run.decode(&leaf, &mut self.block)?;
        self.left = self.block.len();
        debug_assert!(self.left > 0, "no block is without records");
        Ok(())
    }
}

pub(crate) fn sort_key(namespace: u32, key: &[u8]) -> Vec<u8> {
    [&namespace_bytes(namespace), key].concat()
}
