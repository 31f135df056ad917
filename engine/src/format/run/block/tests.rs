//! Blocks read slowly, by what the format says and nothing of how to read it fast; and that the fast ways agree.

use super::super::tests::{flat_with, forward, open};
use super::super::varint::put_varint;
use super::super::*;
use super::{BLOCK_RECORDS, BlockBuilder, common_len};
use proptest::prelude::*;

/// A record under its whole sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slow {
    sort_key: Vec<u8>,
    metadata: Vec<u8>,
    expiration: u64,
    seqno: u64,
    tombstone: bool,
}

impl Slow {
    fn of(record: &KeyRecord<'_>) -> Slow {
        Slow {
            sort_key: sort_key(record.namespace, record.key),
            metadata: record.metadata.to_vec(),
            expiration: record.expiration,
            seqno: record.seqno,
            tombstone: record.tombstone,
        }
    }
}

fn take<'a>(input: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(usize::try_from(len).ok()?)?;
    *input = rest;
    Some(taken)
}

fn number(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u128;
    for at in 0..10 {
        let byte = take(input, 1)?[0];
        value |= u128::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return u64::try_from(value).ok();
        }
    }
    None
}

/// All records of a block, or `None` if it is none.
fn slowly(payload: &[u8]) -> Option<Vec<Slow>> {
    let mut input = payload;
    let count = take(&mut input, 1)?[0];
    let (seqnos, expirations) = (number(&mut input)?, number(&mut input)?);
    if !(1..=32).contains(&count) {
        return None;
    }
    let (mut key, mut found) = (Vec::<u8>::new(), Vec::new());
    for _ in 0..count {
        let flags = take(&mut input, 1)?[0];
        let shared = usize::try_from(number(&mut input)?).ok()?;
        let suffix_len = number(&mut input)?;
        let seqno = seqnos.checked_add(number(&mut input)?)?;
        let mut expiration = 0;
        if flags & 2 != 0 {
            expiration = expirations.checked_add(number(&mut input)?)?;
        }
        let metadata_len = if flags & 4 != 0 {
            number(&mut input)?
        } else {
            0
        };
        let (suffix, metadata) = (
            take(&mut input, suffix_len)?,
            take(&mut input, metadata_len)?,
        );
        let ascends = match (suffix.first(), key.get(shared)) {
            (Some(new), Some(old)) => new > old,
            (Some(_), None) => shared == key.len(),
            (None, _) => false,
        };
        key.truncate(shared);
        key.extend_from_slice(suffix);
        let is_key = (NAMESPACE_LEN..=NAMESPACE_LEN + KEY_LEN_MAX).contains(&key.len());
        if flags > 7 || !ascends || !is_key || (flags & 2 != 0 && expiration == 0) {
            return None;
        }
        found.push(Slow {
            sort_key: key.clone(),
            metadata: metadata.to_vec(),
            expiration,
            seqno,
            tombstone: flags & 1 != 0,
        });
    }
    input.iter().all(|byte| *byte == 0).then_some(found)
}

/// A run of version 1 that has this block alone.
fn run_of(payload: &[u8]) -> Run {
    open(flat_with(&[(Vec::new(), payload.to_vec(), 1)])).unwrap()
}

fn up(mut place: Forward<'_>) -> Result<Vec<Slow>, Damage> {
    let mut found = Vec::new();
    while let Some(record) = place.record() {
        found.push(Slow::of(&record));
        place.advance()?;
    }
    Ok(found)
}

/// As pages are made: in stretches of so many records, and one by itself between them. What was given before damage
/// counts, too.
fn walked(mut place: Forward<'_>, stretch: usize) -> (Vec<Slow>, Result<(), Damage>) {
    let mut found = Vec::new();
    loop {
        let end = stretch.saturating_add(found.len());
        let walked = place.walk(|record, _| {
            let goes_on = found.len() < end;
            if goes_on {
                found.push(Slow::of(record));
            }
            goes_on
        });
        let Some(record) = place.record().filter(|_| walked.is_ok()) else {
            return (found, walked);
        };
        found.push(Slow::of(&record));
        if let Err(damage) = place.advance() {
            return (found, Err(damage));
        }
    }
}

fn down(mut place: Backward<'_>) -> Result<Vec<Slow>, Damage> {
    let mut found = Vec::new();
    while let Some(record) = place.record() {
        found.push(Slow::of(&record));
        place.advance()?;
    }
    Ok(found)
}

/// Reads a block in all ways, from the beginning, the end, and from around each of its keys.
fn check(payload: &[u8]) {
    check_alone(payload);
    // A record is copied at once if as much lies behind it.
    check_alone(&[payload, &[0; 100]].concat());
}

fn check_alone(payload: &[u8]) {
    let run = run_of(payload);
    let given = |stretch| {
        let place = Forward::seek(&run, 0, b"", false);
        place.map(|place| walked(place, stretch))
    };
    let one_by_one = given(0);
    for stretch in [1, 2, 5, usize::MAX] {
        assert_eq!(given(stretch), one_by_one, "{stretch} at once");
    }
    let Some(all) = slowly(payload) else {
        assert!(run.check(|_| {}).is_err());
        assert!(Backward::last(&run).is_err());
        // Who does not come by what is wrong may not notice.
        let found = one_by_one.map_or(Vec::new(), |(found, _)| found);
        assert!(found.is_sorted_by(|a, b| a.sort_key < b.sort_key));
        return;
    };
    run.check(|_| {}).unwrap();
    let down_from = |end: usize| all[..end].iter().rev().cloned().collect::<Vec<_>>();
    assert_eq!(
        up(Forward::seek(&run, 0, b"", false).unwrap()).unwrap(),
        all
    );
    assert_eq!(
        down(Backward::last(&run).unwrap()).unwrap(),
        down_from(all.len())
    );
    for record in &all {
        let key = &record.sort_key;
        let longer = [key, &[0][..]].concat();
        let shorter = key[..key.len() - 1].to_vec();
        for sought in [key, &longer, &shorter] {
            let Some(namespace) = namespace_of(sought) else {
                continue;
            };
            for after_equal in [false, true] {
                let is_before = |record: &Slow| match after_equal {
                    true => record.sort_key <= *sought,
                    false => record.sort_key < *sought,
                };
                let at = all.partition_point(is_before);
                let key = &sought[NAMESPACE_LEN..];
                let place = Forward::seek(&run, namespace, key, after_equal).unwrap();
                assert_eq!(up(place).unwrap(), all[at..]);
                let place = Backward::seek(&run, namespace, key, after_equal).unwrap();
                assert_eq!(down(place).unwrap(), down_from(at));
            }
        }
    }
}

/// A block that says how many records it has, what their numbers begin with, and these bytes.
fn block(count: u8, seqnos: u64, expirations: u64, records: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![count];
    put_varint(&mut payload, seqnos);
    put_varint(&mut payload, expirations);
    payload.extend(records.concat());
    payload
}

/// Flags, bytes shared, bytes of its own, sequence number; then these. Of namespace 7.
const FIRST: &[u8] = &[0, 0, 5, 0, 0, 0, 0, 7, b'a'];
/// What follows a record of which the last byte of the key is below `y`.
const LAST: &[u8] = b"\x00\x04\x08\x00yyyyyyyy";

/// Each is tried in the middle, where records are read at once, and at the end, where byte by byte.
#[test]
fn a_record_that_says_what_none_can_is_damage() {
    let huge = [&[0xff; 9][..], &[2]].concat();
    let with = |before: &[u8], middle: &[u8], after: &[u8]| [before, middle, after].concat();
    let cases: [(&str, u64, u64, Vec<u8>); 18] = [
        ("a flag that there is not", 0, 0, vec![8, 4, 1, 0, b'b']),
        (
            "an expiration that is none",
            0,
            0,
            vec![2, 4, 1, 0, 0, b'b'],
        ),
        (
            "an expiration too large",
            0,
            u64::MAX,
            vec![2, 4, 1, 0, 1, b'b'],
        ),
        ("a number too large", u64::MAX, 0, vec![0, 4, 1, 1, b'b']),
        (
            "more of a key than there is",
            0,
            0,
            vec![0, 4, 100, 0, b'b'],
        ),
        (
            "more metadata than there is",
            0,
            0,
            vec![4, 4, 1, 0, 100, b'b'],
        ),
        ("the same key", 0, 0, vec![0, 4, 1, 0, b'a']),
        ("a key before", 0, 0, vec![0, 3, 2, 0, 6, b'z']),
        ("less shared than there is", 0, 0, vec![0, 3, 2, 0, 7, b'z']),
        ("no byte of its own", 0, 0, vec![0, 5, 0, 0]),
        ("more shared than there is", 0, 0, vec![0, 6, 1, 0, b'b']),
        (
            "too much shared for a byte",
            0,
            0,
            vec![0, 0x86, 1, 1, 0, b'b'],
        ),
        ("a number of 65 bits", 0, 0, with(&[0, 4, 1], &huge, b"b")),
        (
            "an expiration of 65 bits",
            0,
            0,
            with(&[2, 4, 1, 0], &huge, b"b"),
        ),
        (
            "a length of 65 bits",
            0,
            0,
            with(&[0, 4], &huge, &[0, b'b']),
        ),
        ("a share of 65 bits", 0, 0, with(&[0], &huge, &[1, 0, b'b'])),
        (
            "metadata of 65 bits",
            0,
            0,
            with(&[4, 4, 1, 0], &huge, b"b"),
        ),
        (
            "long metadata that is not there",
            0,
            0,
            with(&[4, 4, 1, 0], &[0xff, 0x7f], b"b"),
        ),
    ];
    for (what, seqnos, expirations, record) in cases {
        for records in [&[FIRST, &record, LAST][..], &[FIRST, &record]] {
            let count = u8::try_from(records.len()).unwrap();
            let payload = block(count, seqnos, expirations, records);
            assert_eq!(slowly(&payload), None, "{what}");
            check(&payload);
            let run = run_of(&payload);
            assert!(forward(&run, b"").is_err(), "{what}");
            // Who passes over it reads no more of it than a search needs.
            let last = forward(&run, b"yyyyyyyy");
            assert!(
                last.is_err() || last.is_ok_and(|found| found.len() < 2),
                "{what}"
            );
        }
    }
    // Flags are looked at even so.
    let flagged = block(3, 0, 0, &[FIRST, &[8, 4, 1, 0, b'b'], LAST]);
    assert!(forward(&run_of(&flagged), b"yyyyyyyy").is_err());
    let intact = block(3, 0, 0, &[FIRST, &[0, 4, 1, 0, b'b'], LAST]);
    assert_eq!(slowly(&intact).unwrap().len(), 3);
    check(&intact);
}

/// A search knows what a record shares with the one before it, and that it must be all.
#[test]
fn a_record_that_says_again_what_it_could_share_is_not_found() {
    for record in [&[0, 4, 1, 0, b'a'][..], &[0, 3, 2, 0, 7, b'z']] {
        let run = run_of(&block(3, 0, 0, &[FIRST, record, LAST]));
        assert!(Forward::seek(&run, 7, b"ab", false).is_err(), "{record:?}");
    }
}

#[test]
fn a_block_that_is_cut_or_goes_on_or_counts_wrong_is_damage() {
    let expiring = [2, 4, 1, 0, 9, b'b'];
    let described = [4, 4, 1, 0, 3, b'c', 1, 2, 3];
    let records: [&[u8]; 4] = [FIRST, &expiring, &described, LAST];
    let payload = block(4, 1, 1, &records);
    check(&payload);
    for len in 0..payload.len() {
        assert_eq!(slowly(&payload[..len]), None, "{len}");
        check(&payload[..len]);
    }
    let padded = [&payload[..], &[0; 20]].concat();
    assert_eq!(slowly(&padded), slowly(&payload));
    check(&padded);
    for at in payload.len()..padded.len() {
        let mut goes_on = padded.clone();
        goes_on[at] = 1;
        check(&goes_on);
        assert!(forward(&run_of(&goes_on), b"yyyyyyyy").is_err(), "{at}");
        let run = run_of(&goes_on);
        assert!(Forward::seek(&run, 7, b"z", false).is_err(), "{at}");
    }
    for count in [0, 3, 5, 33, 255] {
        let payload = block(count, 1, 1, &records);
        assert_eq!(slowly(&payload), None, "{count}");
        check(&payload);
    }
}

/// These bytes are on disks: an encoder that writes others needs a new format version.
#[test]
fn a_block_has_these_bytes() {
    let bytes = |expirations: [u64; 3]| {
        let (mut builder, mut payload) = (BlockBuilder::default(), Vec::new());
        for (at, expiration) in (0u8..).zip(expirations) {
            let record = KeyRecord {
                namespace: 0,
                key: b"",
                metadata: &[b'm'; 2][..usize::from(at)],
                expiration,
                seqno: 300 + 200 * u64::from(at),
                tombstone: at == 2,
            };
            builder.push(&[0, 0, 0, 7, b'k', b'a' + at], &record);
        }
        builder.finish(&mut payload);
        crate::format::hex(&payload).concat()
    };
    // How many, the least sequence number, the first expiration; then each record as in docs/format.md.
    let none = [
        "03ac0200",
        "00000600000000076b61",
        "040501c80101626d",
        "050501900302636d6d",
    ];
    assert_eq!(bytes([0; 3]), none.concat());
    let expiring = [
        "03ac0205",
        "00000600000000076b61",
        "060501c8010001626d",
        "07050190030402636d6d",
    ];
    assert_eq!(bytes([0, 5, 9]), expiring.concat());
}

/// Records that are unlike most: long keys, long metadata, numbers that take more than eight bytes.
#[test]
fn what_is_unlike_most_is_read_like_the_rest() {
    // Of keys that begin alike the longer comes first, as what ends the shorter is more than what goes on.
    let lens = [20_000, 300, 129, 128, 127, 124, 123, 120, 2, 1];
    let mut builder = BlockBuilder::default();
    for (at, len) in (0u8..).zip(lens) {
        let key = [
            &[0, 0, 0, 7][..],
            &[b'k'; 1_000][..len.min(1_000)],
            &[b'l' + at],
        ]
        .concat();
        let metadata = vec![at; if at % 2 == 0 { len } else { 0 }];
        let record = KeyRecord {
            namespace: 0,
            key: b"",
            metadata: &metadata,
            expiration: u64::from(at % 3) << (7 * u32::from(at)),
            seqno: u64::MAX >> (6 * u32::from(at)),
            tombstone: at % 2 == 1,
        };
        builder.push(&key, &record);
    }
    let mut payload = Vec::new();
    builder.finish(&mut payload);
    assert_eq!(slowly(&payload).unwrap().len(), lens.len());
    check(&payload);
}

/// Lengths that just fit a byte, and that do not.
#[test]
fn lengths_of_one_byte_and_of_two_are_told_apart() {
    for len in [1, 126, 127, 128, 129, 255, 256] {
        let (mut builder, mut payload) = (BlockBuilder::default(), Vec::new());
        let key = [&namespace_bytes(7)[..], &vec![b'k'; len - 1]].concat();
        for (key, metadata) in [
            (&key[..len.max(4)], len),
            (&[&key[..], b"zz"].concat()[..], 0),
        ] {
            let record = KeyRecord {
                namespace: 0,
                key: b"",
                metadata: &vec![b'm'; metadata],
                expiration: 0,
                seqno: 1,
                tombstone: false,
            };
            builder.push(key, &record);
        }
        builder.finish(&mut payload);
        assert_eq!(slowly(&payload).unwrap().len(), 2, "{len}");
        check(&payload);
    }
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let small = prop::collection::vec(0u8..3, 0..6);
    let longer = (small.clone(), 0usize..200).prop_map(|(key, len)| [key, vec![1; len]].concat());
    let key = prop_oneof![4 => small, 1 => longer];
    (0u32..2, key).prop_map(|(namespace, key)| sort_key(namespace, &key))
}

/// A record that has no key yet.
fn any_record() -> impl Strategy<Value = Slow> {
    let number = (any::<u64>(), 0u32..64).prop_map(|(number, bits)| number >> bits);
    let metadata = prop_oneof![Just(0), 0usize..5, 120usize..140];
    let expiration = prop_oneof![Just(0), number.clone()];
    let record = (metadata, expiration, number, any::<bool>());
    record.prop_map(|(len, expiration, seqno, tombstone)| Slow {
        sort_key: Vec::new(),
        metadata: vec![9; len],
        expiration,
        seqno,
        tombstone,
    })
}

#[test]
fn what_two_keys_begin_with_is_counted_alike_eight_bytes_at_once_and_one_by_one() {
    let long: Vec<u8> = (0..40).collect();
    for len in 0..40 {
        for other in 0..40 {
            assert_eq!(common_len(&long[..len], &long[..other]), len.min(other));
            let mut unlike = long.clone();
            unlike[other] ^= 0x80;
            assert_eq!(common_len(&long[..len], &unlike), len.min(other));
            assert_eq!(common_len(&unlike, &long[..len]), len.min(other));
        }
    }
}

proptest! {
    #[test]
    fn blocks_are_read_fast_as_slowly_intact_or_not(
        records in prop::collection::btree_map(any_key(), any_record(), 1..=usize::from(BLOCK_RECORDS)),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut builder = BlockBuilder::default();
        let mut expected = Vec::new();
        for (key, record) in records {
            let record = Slow {
                sort_key: key,
                ..record
            };
            builder.push(&record.sort_key, &KeyRecord {
                namespace: 0,
                key: b"",
                metadata: &record.metadata,
                expiration: record.expiration,
                seqno: record.seqno,
                tombstone: record.tombstone,
            });
            expected.push(record);
        }
        let mut payload = Vec::new();
        builder.finish(&mut payload);
        prop_assert_eq!(slowly(&payload), Some(expected));
        check(&payload);
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        check(&payload);
    }
}
