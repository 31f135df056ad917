//! Runs that nobody writes, though all their checksums are right.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::ahead::WINDOW;
use super::block::BlockBuilder;
use super::*;

const STORE: [u8; 16] = *b"a store's own id";
const ID: u64 = 9;

fn put(key: &[u8], seqno: u64) -> KeyRecord<'_> {
    KeyRecord {
        namespace: 7,
        key,
        metadata: b"",
        expiration: 0,
        seqno,
        tombstone: false,
    }
}

fn sort_key(key: &[u8]) -> Vec<u8> {
    [&namespace_bytes(7), key].concat()
}

/// The keys of so many records, in order. Many have the same eight bytes in front of their sort key.
fn keys(count: usize) -> Vec<Vec<u8>> {
    let key = |n| format!("user:{:04}", 2 * n + 1).into_bytes();
    (0..count).map(key).collect()
}

fn writer(file: &mut Vec<u8>) -> RunWriter<impl FnMut(&[u8]) -> io::Result<()>> {
    let sink = |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    };
    RunWriter::new(STORE, ID, sink).unwrap()
}

/// A run of so many records, whose index leads from some of its children to other places.
fn misled(count: usize, astray: &[(usize, u64)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = writer(&mut file);
    for (key, seqno) in keys(count).iter().zip(1..) {
        writer.push(&put(key, seqno)).unwrap();
    }
    writer.mislead(astray);
    writer.finish().unwrap();
    file
}

#[test]
fn a_record_that_does_not_come_after_the_one_before_is_refused() {
    for key in ["b", "a", ""] {
        let pushed = std::panic::catch_unwind(|| {
            let mut file = Vec::new();
            let mut writer = writer(&mut file);
            writer.push(&put(b"b", 1)).unwrap();
            writer.push(&put(key.as_bytes(), 2))
        });
        assert!(pushed.is_err(), "{key:?}");
    }
}

fn tree(count: usize) -> Vec<u8> {
    misled(count, &[])
}

/// A run of version 1 with these blocks: the first sort key, what the block says, how many records that counts as.
pub(super) fn flat_with(blocks: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<u8> {
    let (mut file, mut index) = (header(STORE, ID).to_vec(), Vec::new());
    for (first, payload, _) in blocks {
        let start = file.len() as u64;
        let mut prefix = first.clone();
        prefix.resize(8, 0);
        index.extend(prefix.iter().rev());
        index.extend(start.to_le_bytes());
        file.extend(payload);
        file.extend(block_crc(ID, start, payload).to_le_bytes());
    }
    let records: u64 = blocks.iter().map(|(_, _, count)| count).sum();
    let (at, len) = (file.len() as u64, blocks.len() as u64);
    file.extend(&index);
    for field in [at, len, records, 0, 1, records] {
        file.extend(field.to_le_bytes());
    }
    file.extend(crc32fast::hash(&index).to_le_bytes());
    file.extend([0; 4]);
    file.extend(FOOTER_MAGIC);
    file.extend([0; 4]);
    set(&mut file, 8, &1u16.to_le_bytes());
    file
}

/// A run of version 1, each block of which holds these records under these sort keys.
fn flat_of(blocks: &[Vec<(Vec<u8>, u64)>]) -> Vec<u8> {
    let block = |records: &Vec<(Vec<u8>, u64)>| {
        let (mut builder, mut payload) = (BlockBuilder::default(), Vec::new());
        for (key, seqno) in records {
            builder.push(key, &put(b"", *seqno));
        }
        builder.finish(&mut payload);
        (records[0].0.clone(), payload, records.len() as u64)
    };
    flat_with(&blocks.iter().map(block).collect::<Vec<_>>())
}

fn flat(count: usize) -> Vec<u8> {
    let records: Vec<_> = keys(count)
        .iter()
        .map(|key| sort_key(key))
        .zip(1..)
        .collect();
    let blocks: Vec<_> = records.chunks(32).map(<[_]>::to_vec).collect();
    flat_of(&blocks)
}

/// Changes bytes, and puts the checksums of header and footer right.
fn set(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&file[..60]);
    file[60..64].copy_from_slice(&crc.to_le_bytes());
    let (body, footer) = file.split_at_mut(file.len() - FOOTER_LEN);
    let crc = footer_crc(body.first_chunk().unwrap(), &footer[..60]);
    footer[60..].copy_from_slice(&crc.to_le_bytes());
}

/// The same with a number in the footer.
fn set_footer(file: &mut [u8], at: usize, number: u64) {
    let at = file.len() - FOOTER_LEN + at;
    set(file, at, &number.to_le_bytes());
}

/// The same with an entry of a flat index.
fn set_entry(file: &mut [u8], entry: usize, field: usize, number: u64) {
    let footer = file.len() - FOOTER_LEN;
    let index = field_place(file, footer);
    let at = index + 16 * entry + field;
    file[at..at + 8].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&file[index..footer]);
    set(file, footer + 48, &crc.to_le_bytes());
}

pub(super) fn open(file: Vec<u8>) -> Result<Run, Damage> {
    Run::open(Arc::new(file))
}

fn refused(file: Vec<u8>) -> &'static str {
    open(file).map(drop).unwrap_err().reason
}

pub(super) fn forward(run: &Run, key: &[u8]) -> Result<Vec<u64>, Damage> {
    let (mut place, mut found) = (Forward::seek(run, 7, key, false)?, Vec::new());
    while let Some(record) = place.record() {
        found.push(record.seqno);
        place.advance()?;
    }
    place.advance()?;
    assert!(place.record().is_none(), "an end is one");
    Ok(found)
}

fn backward(mut place: Backward<'_>) -> Result<Vec<u64>, Damage> {
    let mut found = Vec::new();
    while let Some(record) = place.record() {
        found.push(record.seqno);
        place.advance()?;
    }
    Ok(found)
}

#[test]
fn a_header_that_is_not_understood_is_refused_by_name() {
    for file in [tree(40), flat(40)] {
        let with = |at, bytes: &[u8]| {
            let mut file = file.clone();
            set(&mut file, at, bytes);
            file
        };
        assert_eq!(
            refused(with(8, &[0, 0])),
            "unknown version of the run format"
        );
        assert_eq!(refused(with(10, &[31, 0])), "unknown block size of a run");
        assert_eq!(refused(with(0, b"X")), "not a run");
        let newer = with(8, &[3, 0]);
        assert_eq!(Run::newer_version(&newer), Some(3));
        assert_eq!(refused(newer), "unknown version of the run format");
        let mut damaged = file.clone();
        damaged[8] = 3;
        assert_eq!(
            Run::newer_version(&damaged),
            None,
            "nobody knows what it was"
        );
        let places = [damaged.clone(), with(8, &[0, 0]), with(10, &[31, 0])];
        let places = places.map(|file| open(file).unwrap_err().offset);
        assert_eq!(places, [60, 8, 10]);
        assert_eq!(refused(damaged), "checksum of a run header");
        let none = [with(0, b"X"), Vec::new()].map(|file| open(file).unwrap_err().offset);
        assert_eq!(none, [0, 0]);
        for other in [with(0, b"X"), file[..63].to_vec(), file.clone()] {
            assert_eq!(Run::newer_version(&other), None);
        }
    }
}

#[test]
fn a_footer_that_leads_out_of_its_run_is_refused() {
    let (start, root, records) = (0, 8, 16);
    for wrong in [
        &[(root, 0)][..],
        &[(root, 63)],
        &[(root, u64::MAX)],
        &[(root, tree(40).len() as u64 - 64)],
        &[(start, 64)],
        &[(start, u64::MAX)],
        &[(start, 64), (root, 0)],
        &[(records, 0)],
    ] {
        let mut file = tree(40);
        for (at, number) in wrong {
            set_footer(&mut file, *at, *number);
        }
        assert_eq!(refused(file), "index outside of its run", "{wrong:?}");
    }
    for (at, number) in [(start, 65), (root, 64), (records, 1)] {
        let mut file = tree(0);
        set_footer(&mut file, at, number);
        assert_eq!(refused(file), "index outside of its run", "{at}");
    }
}

/// What fails first when all of a run is read, up and down.
fn damage_of(file: Vec<u8>) -> (u64, &'static str) {
    let read = |run: Run| {
        forward(&run, b"")?;
        backward(Backward::last(&run)?)
    };
    let damage = open(file).and_then(read).unwrap_err();
    (damage.offset, damage.reason)
}

/// Who looks at a damaged file by hand begins there.
#[test]
fn damage_says_where_it_is_and_what() {
    let file = tree(96);
    let intact = open(file.clone()).unwrap();
    let blocks = intact.block_ranges();
    let (second, third) = (blocks[1], blocks[2]);
    let footer = file.len() - FOOTER_LEN;
    let index = (third.1, footer);
    let length = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
    // How many records a block has is said behind the lengths, then two numbers of one byte each, then flags.
    let (count, flags) = (LENGTHS_LEN, LENGTHS_LEN + 3);
    let (too_short, too_long) = (length(63), length(index.1 - second.0 + 1));
    let (to_header, to_nowhere) = (length(third.0 - 32), length(third.0 + 1));
    for (block, at, bytes, offset, reason) in [
        (second, 0, &too_short[..], second.0, "length of a run block"),
        (second, 0, &too_long, second.0, "length of a run block"),
        (second, count, &[0], second.0, "record in a run block"),
        (second, count, &[33], second.0, "record in a run block"),
        (second, flags, &[8], second.0, "record in a run block"),
        (third, 4, &to_header, 32, "length of a run block"),
        (third, 4, &to_nowhere, third.0, "place of a run block"),
        (third, 4, &[0], third.0, "place of a run block"),
        (index, count, &[0], index.0, "record in a run index"),
        (index, flags, &[8], index.0, "record in a run index"),
    ] {
        let mut sealed = file.clone();
        let at = block.0 + at;
        sealed[at..at + bytes.len()].copy_from_slice(bytes);
        intact.seal_block(&mut sealed, block.0, block.1);
        assert_eq!(
            damage_of(sealed),
            (offset as u64, reason),
            "{bytes:?} at {at}"
        );
    }
    for (at, offset, reason) in [
        (second.0 + 20, second.0, "checksum of a run block"),
        (index.0 + 20, index.0, "checksum of a run block"),
        (footer, footer, "checksum of a run footer"),
        (footer + 56, footer, "run without a footer"),
    ] {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert_eq!(damage_of(changed), (offset as u64, reason), "{at}");
    }
    let headless = file[..HEADER_LEN + FOOTER_LEN - 1].to_vec();
    assert_eq!(damage_of(headless), (64, "run without a footer"));
    let to_itself = misled(96, &[(0, index.0 as u64)]);
    assert_eq!(
        damage_of(to_itself),
        (index.0 as u64, "order of a run index")
    );
}

#[test]
fn a_run_says_what_was_written_to_it() {
    let mut file = Vec::new();
    let mut some = writer(&mut file);
    for (key, seqno, tombstone) in [(b"a", 5, false), (b"b", 3, true), (b"c", 9, true)] {
        let record = put(key, seqno);
        some.push(&KeyRecord {
            tombstone,
            ..record
        })
        .unwrap();
    }
    let written = some.finish().unwrap();
    let expected = Summary {
        records: 3,
        tombstones: 2,
        seqno_min: 3,
        seqno_max: 9,
        bytes: file.len() as u64,
    };
    assert_eq!(written, expected);
    let run = open(file).unwrap();
    assert_eq!(
        (run.summary(), run.id(), run.store_id()),
        (expected, ID, STORE)
    );
}

/// These bytes are on disks: an encoder that writes others needs a new format version.
#[test]
fn a_run_has_these_bytes() {
    let mut file = Vec::new();
    let mut smallest = writer(&mut file);
    let first = KeyRecord {
        namespace: 1,
        metadata: b"m",
        expiration: 300,
        ..put(b"ab", 5)
    };
    let second = KeyRecord {
        namespace: 1,
        tombstone: true,
        ..put(b"ac", 7)
    };
    smallest.push(&first).unwrap();
    smallest.push(&second).unwrap();
    smallest.finish().unwrap();
    // Header, block and footer, each with its checksum at the end.
    let expected = [
        "52494d535452554e0200200000000000",
        "612073746f72652773206f776e206964",
        "09000000000000000000000000000000",
        "000000000000000000000000616a8ea6",
        "40000000000000000205ac0206000600",
        "00010000000161626d01050102630000",
        "00000000000000000000000000000000",
        "000000000000000000000000296c00b4",
        "80000000000000004000000000000000",
        "02000000000000000100000000000000",
        "05000000000000000700000000000000",
        "000000000000000052554e45f76b4141",
    ];
    assert_eq!(crate::format::hex(&file), expected);
}

/// Numbers of records are added up.
#[test]
fn more_records_than_bytes_are_refused() {
    for file in [tree(40), flat(40)] {
        let (mut most, mut more) = (file.clone(), file);
        let len = most.len() as u64;
        set_footer(&mut most, 16, len);
        assert!(open(most).is_ok());
        set_footer(&mut more, 16, len + 1);
        assert_eq!(refused(more), "number of records of a run");
    }
}

#[test]
fn a_length_that_leads_elsewhere_is_damage() {
    let file = tree(96);
    let intact = open(file.clone()).unwrap();
    let blocks = intact.block_ranges();
    let (first, third) = (blocks[0], blocks[2]);
    // The one before the third is not its neighbour, no block at all, in the header, before the file.
    let nowhere = third.0 as u64 + 8;
    let two = (third.0 - first.0) as u64;
    for len in [two, 8, 0, third.0 as u64 - 44, nowhere] {
        let mut file = file.clone();
        // What would be the length of a block in the header.
        set(&mut file, 44, &64u32.to_le_bytes());
        let len = u32::try_from(len).unwrap();
        file[third.0 + 4..third.0 + 8].copy_from_slice(&len.to_le_bytes());
        intact.seal_block(&mut file, third.0, third.1);
        let run = open(file).unwrap();
        let found = backward(Backward::last(&run).unwrap());
        let reason = found.unwrap_err().reason;
        assert!(reason.ends_with("of a run block"), "{len}: {reason}");
        assert_eq!(forward(&run, b"").unwrap().len(), 96);
    }
}

#[test]
fn an_index_that_begins_or_ends_elsewhere_is_noticed() {
    let blocks = open(tree(96)).unwrap().block_ranges();
    let [first, second, third] = blocks[..] else {
        panic!("{} blocks", blocks.len())
    };
    let begins_late = open(misled(96, &[(0, second.0 as u64)])).unwrap();
    let reason = begins_late.check(|_| {}).unwrap_err().reason;
    assert_eq!(reason, "order of the blocks of a run");
    let ends_early = open(misled(96, &[(2, first.0 as u64)])).unwrap();
    let reason = Backward::last(&ends_early).map(drop).unwrap_err().reason;
    assert_eq!(reason, "order of the blocks of a run");
    for place in [third.1 as u64, 0, u64::MAX] {
        let lost = open(misled(96, &[(1, place)]));
        let lost = lost.and_then(|run| forward(&run, b"user:0080"));
        assert!(lost.is_err(), "{place}");
    }
    let mut file = misled(96, &[(1, 44)]);
    set(&mut file, 44, &64u32.to_le_bytes());
    let in_header = forward(&open(file).unwrap(), b"user:0080").unwrap_err();
    assert_eq!(in_header.reason, "place of a run block");
}

#[test]
fn a_key_that_is_too_short_or_too_long_is_damage() {
    let long = vec![9; NAMESPACE_LEN + KEY_LEN_MAX + 1];
    for key in [&[9, 9][..], &long] {
        let mut file = Vec::new();
        let mut writer = writer(&mut file);
        writer.push_as(key, &put(b"", 1));
        writer.finish().unwrap();
        let run = open(file).unwrap();
        assert!(forward(&run, b"a").is_err());
        assert!(Backward::last(&run).is_err());
        assert!(run.check(|_| {}).is_err());
    }
    let mut file = Vec::new();
    let mut longest = writer(&mut file);
    longest.push_as(&long[..long.len() - 1], &put(b"", 1));
    longest.finish().unwrap();
    assert_eq!(forward(&open(file).unwrap(), b"a").unwrap(), [1]);
    // Of which a part is the key before.
    let mut file = Vec::new();
    let mut parts = writer(&mut file);
    parts.push_as(&long[..60_000], &put(b"", 1));
    parts.push_as(&long, &put(b"", 2));
    parts.finish().unwrap();
    assert!(forward(&open(file).unwrap(), b"a").is_err());
}

#[test]
fn runs_of_both_versions_are_read_alike() {
    let keys = keys(100);
    let all: Vec<u64> = (1..=100).collect();
    for run in [tree(100), flat(100)].map(|file| open(file).unwrap()) {
        let (mut sum, mut calls) = (0, 0);
        run.check(|bytes| {
            sum += bytes;
            calls += 1;
        })
        .unwrap();
        assert_eq!(
            (sum, calls),
            (run.summary().bytes, 5),
            "and what is no block"
        );
        assert_eq!(run.block_ranges().len(), 4);
        assert!(format!("{run:?}").contains("records: 100"));
        let mut down = all.clone();
        down.reverse();
        assert_eq!(backward(Backward::last(&run).unwrap()).unwrap(), down);
        for (key, at) in keys.iter().zip(0..) {
            let mut between = key.clone();
            *between.last_mut().unwrap() += 1;
            assert_eq!(forward(&run, key).unwrap(), all[at..]);
            assert_eq!(forward(&run, &between).unwrap(), all[at + 1..]);
            let before = Backward::seek(&run, 7, key, false).unwrap();
            assert_eq!(backward(before).unwrap(), down[100 - at..]);
        }
        assert_eq!(forward(&run, b"").unwrap(), all);
        assert_eq!(forward(&run, b"v").unwrap(), [0; 0]);
    }
    for empty in [tree(0), flat(0)].map(|file| open(file).unwrap()) {
        assert_eq!(forward(&empty, b"").unwrap(), [0; 0]);
        assert_eq!(backward(Backward::last(&empty).unwrap()).unwrap(), [0; 0]);
        empty.check(|_| {}).unwrap();
    }
}

#[test]
fn a_flat_index_that_does_not_fit_is_refused() {
    let file = flat(96);
    let end = file.len() - FOOTER_LEN;
    let index = end - 3 * 16;
    let (outside, length) = ("index outside of its run", "length of a run index");
    let refusal = |fields: &[(usize, usize)]| {
        let mut file = file.clone();
        for (at, number) in fields {
            set_footer(&mut file, *at, *number as u64);
        }
        open(file).map(drop)
    };
    for (at, number, offset, reason) in [
        (0, 63, end, outside),
        (0, end + 1, end, outside),
        (0, usize::MAX, end, outside),
        (0, index + 8, index + 8, length),
        (0, index + 16, index + 16, length),
        (8, 2, index, length),
        (48, 0, index, "checksum of a run index"),
    ] {
        let there = Damage::at(offset, reason);
        assert_eq!(refusal(&[(at, number)]), Err(there), "{at} {number}");
    }
    let there = Damage::at(HEADER_LEN, "blocks without an index");
    assert_eq!(refusal(&[(0, end), (8, 0)]), Err(there));
}

#[test]
fn a_flat_index_that_is_out_of_order_is_refused() {
    let file = flat(96);
    let blocks = open(file.clone()).unwrap().block_ranges();
    let (prefix, offset) = (0, 8);
    for (entry, field, number) in [
        (0, offset, 72),
        (1, offset, 64),
        (2, offset, blocks[1].0 as u64),
        (2, offset, blocks[2].1 as u64),
        (2, offset, u64::MAX),
        (1, prefix, 0),
    ] {
        let mut file = file.clone();
        let index = field_place(&file, file.len() - FOOTER_LEN);
        set_entry(&mut file, entry, field, number);
        let there = Damage::at(index + 16 * entry, "order of a run index");
        let refused = open(file).map(drop);
        assert_eq!(refused, Err(there), "{field} {number}");
    }
    let mut same = file;
    set_entry(&mut same, 2, offset, blocks[2].0 as u64);
    assert!(open(same).is_ok(), "as it was");
}

/// The index of version 1 has eight bytes of each, which do not tell.
#[test]
fn blocks_that_begin_alike_and_are_out_of_order_are_damage() {
    let block = |key: &[u8], seqno| vec![(sort_key(key), seqno)];
    let run = open(flat_of(&[block(b"aaaac", 1), block(b"aaaab", 2)])).unwrap();
    assert_eq!(
        run.check(|_| {}).unwrap_err().reason,
        "order of the blocks of a run"
    );
    assert_eq!(
        forward(&run, b"").unwrap_err().reason,
        "record in a run block"
    );
    for from in [Backward::last(&run), Backward::seek(&run, 7, b"b", false)] {
        let found = from.and_then(backward);
        assert_eq!(found.unwrap_err().reason, "order of the blocks of a run");
    }
    // One that begins within the one before it, and one that begins with its last key.
    let long = [(b"aaaaa", 1), (b"aaaae", 2)].map(|(key, seqno)| (sort_key(key), seqno));
    for first in [b"aaaac", b"aaaae"] {
        let run = open(flat_of(&[long.to_vec(), block(first, 3)])).unwrap();
        assert!(run.check(|_| {}).is_err());
        assert!(forward(&run, b"").is_err());
    }
}

/// A file that changes once, while it is open.
struct Rotting {
    versions: [Vec<u8>; 2],
    is_rotten: AtomicBool,
}

impl AsRef<[u8]> for Rotting {
    fn as_ref(&self) -> &[u8] {
        let [intact, rotten] = &self.versions;
        match self.is_rotten.load(Ordering::Relaxed) {
            true => rotten,
            false => intact,
        }
    }
}

impl RunBytes for Rotting {}

/// A list fails or is right, whatever becomes of the index after it was verified.
#[test]
fn a_flat_index_that_rots_while_it_is_open_is_damage() {
    let (file, keys) = (flat(96), keys(96));
    let all: Vec<u64> = (1..=96).collect();
    let index = field_place(&file, file.len() - FOOTER_LEN);
    let mut refused = 0;
    for at in index..index + 48 {
        for change in [1, 0x40, 0xff] {
            let mut rotten = file.clone();
            rotten[at] ^= change;
            let bytes = Arc::new(Rotting {
                versions: [file.clone(), rotten],
                is_rotten: AtomicBool::new(false),
            });
            let run = Run::open(bytes.clone()).unwrap();
            bytes.is_rotten.store(true, Ordering::Relaxed);
            for skip in [0, 31, 32, 70, 95] {
                let found = forward(&run, &keys[skip]);
                refused += usize::from(found.is_err());
                assert!(found.is_err() || found.is_ok_and(|found| found == all[skip..]));
                let before = Backward::seek(&run, 7, &keys[skip], true).and_then(backward);
                refused += usize::from(before.is_err());
                let down: Vec<u64> = all[..=skip].iter().rev().copied().collect();
                assert!(before.is_err() || before.is_ok_and(|before| before == down));
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Of an index that changed since it was verified, a walk tells where it does not fit.
#[test]
fn a_flat_index_that_rots_is_damage_where_a_walk_comes_to_it() {
    let file = flat(96);
    let blocks = open(file.clone()).unwrap().block_ranges();
    let [_, second, third] = blocks[..] else {
        panic!("{} blocks", blocks.len())
    };
    let (of_no_length, with_a_gap) = ([second.0, second.0], [third.0, third.1]);
    for (offsets, there) in [(of_no_length, third.1 + 16), (with_a_gap, second.0)] {
        let mut rotten = file.clone();
        for (entry, offset) in (1..).zip(offsets) {
            set_entry(&mut rotten, entry, 8, offset as u64);
        }
        let bytes = Arc::new(Rotting {
            versions: [file.clone(), rotten],
            is_rotten: AtomicBool::new(false),
        });
        let run = Run::open(bytes.clone()).unwrap();
        let mut place = Forward::seek(&run, 7, b"", false).unwrap();
        bytes.is_rotten.store(true, Ordering::Relaxed);
        let damage = (0..96).find_map(|_| place.advance().err());
        assert_eq!(damage, Some(Damage::at(there, "order of a run index")));
    }
}

#[test]
fn a_block_is_verified_once_if_that_is_enough_and_again_by_who_copies_it() {
    let intact = tree(96);
    let (_, end) = open(intact.clone()).unwrap().block_ranges()[1];
    let mut rotten = intact.clone();
    rotten[end - 1] ^= 1;
    for once in [false, true] {
        let bytes = Arc::new(Rotting {
            versions: [intact.clone(), rotten.clone()],
            is_rotten: AtomicBool::new(false),
        });
        let run = Run::open(bytes.clone()).unwrap();
        if once {
            run.verify_once();
        }
        let all: Vec<u64> = (1..=96).collect();
        assert_eq!(forward(&run, b"").unwrap(), all);
        bytes.is_rotten.store(true, Ordering::Relaxed);
        assert_eq!(forward(&run, b"").ok(), once.then_some(all));
        let copied = forward(&run.verified_always().unwrap(), b"");
        assert_eq!(copied.unwrap_err().reason, "checksum of a run block");
        let reopened = Run::open(bytes).unwrap();
        reopened.verify_once();
        assert!(forward(&reopened, b"").is_err(), "the first time it is");
    }
}

#[test]
fn a_block_of_keys_ends_when_it_is_long() {
    let (mut file, keys, metadata) = (Vec::new(), keys(300), [7; 100]);
    let mut writer = writer(&mut file);
    for (key, seqno) in keys.iter().zip(1..) {
        let metadata = &metadata[..];
        let record = KeyRecord {
            metadata,
            ..put(key, seqno)
        };
        writer.push(&record).unwrap();
    }
    writer.finish().unwrap();
    let run = open(file).unwrap();
    run.check(|_| {}).unwrap();
    let ranges = run.block_ranges();
    let (last, others) = ranges.split_last().unwrap();
    let lens = others.iter().map(|(start, end)| end - start);
    assert!(
        lens.clone().all(|len| (1024..1300).contains(&len)),
        "{ranges:?}"
    );
    assert!(last.1 - last.0 < 1300);
    for (key, at) in keys.iter().zip(1..) {
        assert_eq!(forward(&run, key).unwrap(), (at..=300).collect::<Vec<_>>());
    }
}

#[test]
fn a_flat_block_without_a_first_key_is_damage() {
    let whole = |key: &[u8]| vec![(sort_key(key), 1)];
    let short = vec![(namespace_bytes(7)[..3].to_vec(), 2)];
    // Only where prefixes do not decide.
    let run = open(flat_of(&[short, whole(b"b"), whole(b"c")])).unwrap();
    let searched = Forward::seek(&run, 0, b"", false).map(drop);
    assert_eq!(searched.unwrap_err().reason, "first key of a run block");
    assert_eq!(forward(&run, b"b").unwrap(), [1, 1]);

    // One whose first record shares bytes with one before it, of which there is none.
    let file = flat_of(&[whole(b"aaaaa"), whole(b"aaaab"), whole(b"aaaac")]);
    let intact = open(file.clone()).unwrap();
    let (start, end) = intact.block_ranges()[1];
    let mut shares = file;
    // A count, two numbers to begin with, flags: then what is shared.
    shares[start + 4] = 1;
    intact.seal_block(&mut shares, start, end);
    let found = forward(&open(shares).unwrap(), b"aaaab");
    assert_eq!(found.unwrap_err().reason, "first key of a run block");
}

/// What is larger is verified when it is read.
#[test]
fn a_large_index_is_verified_where_it_is_used() {
    // Keys on both sides of two blocks have most of their bytes in common, so that the index has them all.
    let mut file = Vec::new();
    let mut large = writer(&mut file);
    let key = |block: u32, side| [&vec![0; 60_000][..], &block.to_le_bytes(), &[side]].concat();
    let mut seqno = 0;
    for block in 0..40u8 {
        for n in 0..32u32 {
            seqno += 1;
            let mut key = key(n, 0);
            key[0] = block + u8::from(n == 31);
            if n == 31 {
                key.truncate(60_000);
            }
            large.push(&put(&key, seqno)).unwrap();
        }
    }
    large.finish().unwrap();
    let footer = file.len() - FOOTER_LEN;
    let index = field_place(&file, footer);
    assert!(footer - index > 1 << 20, "{}", footer - index);
    let run = open(file.clone()).unwrap();
    run.check(|_| {}).unwrap();
    assert_eq!(forward(&run, b"").unwrap().len(), 1_280);
    // Who looks for the first key does not come there.
    let mut damaged = file.clone();
    damaged[index + (footer - index) / 10 * 9] ^= 1;
    let run = open(damaged).unwrap();
    assert!(forward(&run, b"").is_ok() && run.check(|_| {}).is_err());
    file[index + 100] ^= 1;
    let run = open(file).unwrap();
    assert_eq!(
        forward(&run, b"").unwrap_err().reason,
        "checksum of a run block"
    );
    assert!(run.check(|_| {}).is_err());
    // A small one is read at once.
    let mut small = tree(96);
    let index = field_place(&small, small.len() - FOOTER_LEN);
    small[index + 20] ^= 1;
    assert_eq!(refused(small), "checksum of a run block");

    let record = |n: u32| vec![(sort_key(&n.to_le_bytes().map(u8::reverse_bits)), 1)];
    let mut records: Vec<_> = (0..70_000).map(record).collect();
    records.sort_unstable();
    let mut file = flat_of(&records);
    assert_eq!(
        forward(&open(file.clone()).unwrap(), b"").unwrap().len(),
        70_000
    );
    let index = field_place(&file, file.len() - FOOTER_LEN);
    file[index] ^= 1;
    let run = open(file).unwrap();
    assert_eq!(
        forward(&run, b"").unwrap_err().reason,
        "checksum of a run index"
    );
}

/// What lies between two separators begins like both. What lies before or behind all need not.
#[test]
fn keys_unlike_all_others_are_before_or_behind_them() {
    // A block for each, and three children of the root, the last of which begin alike for longer than all do.
    let (mut file, metadata, count) = (Vec::new(), [7; 1024], 2_100);
    let mut wide = writer(&mut file);
    for n in 1..=count {
        let key = format!("user:{n:06}");
        let record = KeyRecord {
            metadata: &metadata,
            ..put(key.as_bytes(), n)
        };
        wide.push(&record).unwrap();
    }
    wide.finish().unwrap();
    let run = open(file).unwrap();
    let beside = |namespace, key: &str| {
        let after = Forward::seek(&run, namespace, key.as_bytes(), false).unwrap();
        let before = Backward::seek(&run, namespace, key.as_bytes(), false).unwrap();
        let seqno = |record: KeyRecord<'_>| record.seqno;
        (before.record().map(seqno), after.record().map(seqno))
    };
    for (namespace, key) in [(6, "user:001"), (7, ""), (7, "a"), (7, "user:")] {
        assert_eq!(beside(namespace, key), (None, Some(1)), "{key}");
    }
    let of_another = 7 | 1 << 24;
    for (namespace, key) in [
        (7, "user:01"),
        (7, "user;"),
        (7, "v"),
        (of_another, "user:001"),
    ] {
        assert_eq!(beside(namespace, key), (Some(count), None), "{key}");
    }
}

/// A run of one record, whose index has so many levels.
fn deep(levels: usize) -> Vec<u8> {
    let mut file = header(STORE, ID).to_vec();
    let mut child = push_block(&mut file, &[(&sort_key(b"a"), 1)]);
    let index = file.len() as u64;
    for _ in 0..levels {
        child = push_block(&mut file, &[(b"", child)]);
    }
    push_footer(&mut file, index, child);
    file
}

/// Adds a block with these sort keys and numbers; where it begins.
fn push_block(file: &mut Vec<u8>, records: &[(&[u8], u64)]) -> u64 {
    let (mut builder, mut block) = (BlockBuilder::default(), vec![0; LENGTHS_LEN]);
    for (key, number) in records {
        builder.push(key, &put(b"", *number));
    }
    builder.finish(&mut block);
    block.resize(block.len().max(BLOCK_LEN_MIN - CRC_LEN), 0);
    let len = u32::try_from(block.len() + CRC_LEN).unwrap();
    block[..4].copy_from_slice(&len.to_le_bytes());
    let start = file.len() as u64;
    let crc = block_crc(ID, start, &block);
    file.extend(block);
    file.extend(crc.to_le_bytes());
    start
}

/// Ends a run of one record.
fn push_footer(file: &mut Vec<u8>, index: u64, root: u64) {
    let mut footer = Vec::new();
    for field in [index, root, 1, 0, 1, 1, 0] {
        footer.extend(field.to_le_bytes());
    }
    footer.extend(FOOTER_MAGIC);
    let crc = footer_crc(file.first_chunk().unwrap(), &footer);
    file.extend(footer);
    file.extend(crc.to_le_bytes());
}

/// Who lets go of a run must not go as deep as somebody says that its index is.
#[test]
fn an_index_with_more_levels_than_any_file_has_is_damage() {
    for levels in [1, 16] {
        let run = open(deep(levels)).unwrap();
        assert_eq!(forward(&run, b"").unwrap(), [1], "{levels}");
        assert_eq!(backward(Backward::last(&run).unwrap()).unwrap(), [1]);
    }
    for levels in [17, 100_000] {
        let run = open(deep(levels)).unwrap();
        let found = [
            forward(&run, b"").map(drop),
            Backward::last(&run).map(drop),
            Backward::seek(&run, 7, b"b", false).map(drop),
        ];
        let reasons = found.map(|found| found.map_err(|damage| damage.reason));
        assert_eq!(reasons, [Err("order of a run index"); 3], "{levels}");
    }
}

/// What reading an index allocates is bounded, whatever it says.
#[test]
fn a_separator_that_is_longer_than_a_sort_key_is_damage() {
    let long = [1; NAMESPACE_LEN + KEY_LEN_MAX + 1];
    for (len, found) in [
        (long.len() - 1, Ok(vec![1])),
        (long.len(), Err("record in a run index")),
    ] {
        let mut file = header(STORE, ID).to_vec();
        let leaf = push_block(&mut file, &[(&sort_key(b"a"), 1)]);
        let index = file.len() as u64;
        let root = push_block(&mut file, &[(b"", leaf), (&long[..len], leaf)]);
        push_footer(&mut file, index, root);
        let run = open(file).unwrap();
        assert_eq!(forward(&run, b"").map_err(|damage| damage.reason), found);
    }
}

/// A file that notes what of it is asked for ahead.
struct Asked {
    file: Vec<u8>,
    ranges: Mutex<Vec<Range<usize>>>,
}

impl AsRef<[u8]> for Asked {
    fn as_ref(&self) -> &[u8] {
        &self.file
    }
}

impl RunBytes for Asked {
    fn will_need(&self, start: usize, len: usize) {
        self.ranges.lock().unwrap().push(start..start + len);
    }
}

#[test]
fn who_opens_a_run_asks_for_its_index() {
    for file in [tree(96), flat(96)] {
        let footer = file.len() - FOOTER_LEN;
        let index = field_place(&file, footer)..footer;
        let ranges = Mutex::default();
        let asked = Arc::new(Asked { file, ranges });
        Run::open(asked.clone()).unwrap();
        assert_eq!(*asked.ranges.lock().unwrap(), [index]);
    }
}

/// A list in either direction asks for half a window before it comes there, for each window once, and not for more
/// than the window that this ends in.
#[test]
fn a_walk_asks_for_what_comes_next() {
    const RECORDS: usize = 30_000;
    let (mut file, metadata) = (Vec::new(), [7; 16]);
    let mut large = writer(&mut file);
    for n in 0..RECORDS {
        let key = format!("{n:05}");
        let record = KeyRecord {
            metadata: &metadata,
            ..put(key.as_bytes(), 1)
        };
        large.push(&record).unwrap();
    }
    large.finish().unwrap();
    let (len, half) = (file.len(), WINDOW / 2);
    assert!(len > 10 * WINDOW);
    let open = || {
        let ranges = Mutex::default();
        let file = file.clone();
        let asked = Arc::new(Asked { file, ranges });
        let run = Run::open(asked.clone()).unwrap();
        let footer = asked.file.len() - FOOTER_LEN;
        let index = field_place(&asked.file, footer)..footer;
        assert_eq!(mem::take(&mut *asked.ranges.lock().unwrap()), [index]);
        (run, asked)
    };
    let blocks = open().0.block_ranges();

    let (run, asked) = open();
    let key = super::sort_key(7, b"");
    let found = run.find(&key).unwrap();
    let mut place = Forward::seek_from(&run, found, &key, false, 100).unwrap();
    for record in 0..RECORDS {
        assert!(place.record().is_some());
        let ranges = asked.ranges.lock().unwrap();
        let end = ranges.last().map_or(0, |range| range.end);
        let needed = blocks[record / 32].1 + half;
        match record / 32 {
            0 => assert_eq!(end, 0, "who wants a key or a few does not ask"),
            _ => assert!((needed.min(len)..=needed.next_multiple_of(WINDOW)).contains(&end)),
        }
        drop(ranges);
        place.advance().unwrap();
    }
    let windows = |from: usize| -> Vec<_> {
        let starts = (from / WINDOW * WINDOW..len).step_by(WINDOW);
        starts.map(|at| at..len.min(at + WINDOW)).collect()
    };
    assert_eq!(*asked.ranges.lock().unwrap(), windows(blocks[1].0));

    let (run, asked) = open();
    let mut place = Backward::last(&run).unwrap().at_time(100);
    for record in (0..RECORDS).rev() {
        assert!(place.record().is_some());
        let ranges = asked.ranges.lock().unwrap();
        let lowest = ranges.iter().map(|range| range.start).min();
        let needed = blocks[record / 32].0.saturating_sub(half);
        match lowest {
            None => assert_eq!(record / 32, blocks.len() - 1, "the block that it began in"),
            Some(start) => assert!((needed / WINDOW * WINDOW..=needed).contains(&start)),
        }
        drop(ranges);
        place.advance().unwrap();
    }
    let mut ranges = asked.ranges.lock().unwrap().clone();
    ranges.sort_by_key(|range| range.start);
    let last = (blocks[blocks.len() - 2].1 - 1) / WINDOW;
    assert_eq!(ranges, windows(0)[..=last]);
}
