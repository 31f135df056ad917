use super::*;

fn parts<'v>(name: &'v [u8], metadata: &'v [u8], body: Body<'v>, version: u64) -> Parts<'v> {
    Parts {
        key: Key::from((7, name)),
        metadata,
        body,
        version,
        expiration: 9,
        fetched: 1,
        fresh_until: 2,
        kept_until: 3,
        generation: 4,
        hash: 5,
    }
}

#[test]
fn a_block_holds_its_parts() {
    let value = vec![3; 5000];
    let shared = Bytes::from(value.clone());
    let bodies = [
        Body::Copied(&value),
        Body::Copied(&[]),
        Body::Shared(shared.clone()),
        Body::Absent,
    ];
    for body in bodies {
        for version in [0, 77] {
            let parts = parts(b"name", b"metadata", body.clone(), version);
            let block = Block::new(parts).expect("short");
            assert_eq!(block.key(), Key::from((7, "name")));
            assert_eq!(block.metadata(), b"metadata");
            assert_eq!((block.version(), block.expiration()), (version, 9));
            let expected: &[u8] = match &body {
                Body::Copied(value) => value,
                Body::Shared(value) => value,
                Body::Absent => &[],
            };
            assert_eq!(block.value(), expected);
            assert_eq!(block.is_absent(), matches!(body, Body::Absent));
            assert!(block.size() as usize >= expected.len() + 60);
            let copy = block.clone();
            drop(block);
            assert_eq!((copy.count(), copy.value()), (1, expected));
        }
    }
    assert!(shared.is_unique(), "each block dropped its handle once");
}

#[test]
fn a_shard_notes_slot_and_reads() {
    let block = Block::new(parts(b"k", b"", Body::Absent, 0)).expect("short");
    block.set_slot(77);
    for hits in [0, 1, 2, 3, 3] {
        assert_eq!((block.slot(), block.hits()), (77, hits));
        block.touch();
    }
    block.keep_until(2);
    assert_eq!(block.kept_until(), 3);
    block.keep_until(9);
    assert_eq!(block.kept_until(), 9);
}

#[test]
fn handles_of_many_threads_free_the_block_once() {
    let shared = Bytes::from(vec![1; 100]);
    let block = Block::new(parts(b"k", b"", Body::Shared(shared.clone()), 0)).expect("short");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| drop(block.clone())));
        }
    });
    assert!(!shared.is_unique());
    drop(block);
    assert!(shared.is_unique());
}

#[test]
fn a_part_that_is_too_long_is_refused() {
    let name = vec![0; 1 << 29];
    let shorter = name.split_last().expect("long").1;
    assert!(Block::new(parts(&name, b"", Body::Absent, 0)).is_none());
    assert!(Block::size_of(&parts(shorter, b"", Body::Absent, 0)).is_some());
}
