//! What a first user tries.

use std::time::Duration;

use rimstone::{
    Clock, Error, ListOptions, NamespaceId, Options, PutOptions, Store, Verify, WriteBatch,
};
use rimstone_tests::open;
use tempfile::tempdir;

#[test]
fn values_metadata_and_generations_come_back_after_reopening() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let store = open(dir.path(), &clock);
    let flags = store.namespace("flags").unwrap();
    let options = PutOptions::new().metadata("{\"a\":1}").expiration(5_000);
    let generation = flags.put_with("k", "v", &options).unwrap();
    let id = flags.id();
    drop(flags);
    store.close().unwrap();

    let store = open(dir.path(), &clock);
    let flags = store.find_namespace("flags").unwrap();
    assert_eq!(flags.id(), id);
    assert_eq!(id.to_string().parse::<NamespaceId>().unwrap(), id);
    let entry = flags.get_with_metadata("k").unwrap().unwrap();
    assert_eq!(&entry.value()[..], b"v");
    assert_eq!(entry.metadata(), b"{\"a\":1}");
    assert_eq!(entry.expiration(), Some(5_000));
    assert_eq!(entry.generation(), generation);
}

#[test]
fn an_entry_is_gone_from_the_second_it_expires_in() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    ns.put_with(
        "k",
        "v",
        &PutOptions::new().expiration_ttl(Duration::from_secs(60)),
    )
    .unwrap();
    clock.advance(59);
    assert!(ns.get("k").unwrap().is_some());
    assert_eq!(ns.list(&ListOptions::new()).unwrap().len(), 1);
    clock.advance(1);
    assert!(ns.get("k").unwrap().is_none());
    assert_eq!(ns.list(&ListOptions::new()).unwrap().len(), 0);
    assert!(!ns.delete("k").unwrap(), "an expired key does not exist");
}

#[test]
fn conditions_are_decided_against_the_newest_write() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let ns = store.namespace("n").unwrap();
    let first = ns
        .put_with("k", "1", &PutOptions::new().if_absent())
        .unwrap();
    let again = ns.put_with("k", "2", &PutOptions::new().if_absent());
    assert!(matches!(again, Err(Error::Conflict { found: Some(g) }) if g == first));
    let second = ns
        .put_with("k", "2", &PutOptions::new().if_generation(first))
        .unwrap();
    assert!(second > first);
    let stale = ns.put_with("k", "3", &PutOptions::new().if_generation(first));
    assert!(matches!(stale, Err(Error::Conflict { found: Some(g) }) if g == second));
    assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"2");
}

#[test]
fn only_one_of_many_threads_creates_a_key() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for round in 0..50 {
        let key = format!("k{round}");
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        ns.put_with(&key, "v", &PutOptions::new().if_absent())
                            .is_ok()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| usize::from(t.join().unwrap()))
                .sum()
        });
        assert_eq!(winners, 1);
    }
}

#[test]
fn large_values_stream_in_and_out_and_ranges_agree() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let ns = store.namespace("n").unwrap();
    let value: Vec<u8> = (0..3_000_000u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let mut writer = ns.writer("big", &PutOptions::new().metadata("m")).unwrap();
    value
        .chunks(100_001)
        .for_each(|piece| writer.write(piece).unwrap());
    assert!(
        ns.get("big").unwrap().is_none(),
        "nothing is stored before finish"
    );
    writer.finish().unwrap();
    let stream = ns.stream("big").unwrap().unwrap();
    assert_eq!(stream.len(), 3_000_000);
    assert_eq!(
        &stream.range(65_000..200_000).unwrap()[..],
        &value[65_000..200_000]
    );
    let pieces: Vec<_> = stream.map(Result::unwrap).collect();
    assert!(pieces.iter().all(|piece| piece.len() <= 65_536));
    assert_eq!(pieces.concat(), value);
    assert_eq!(&ns.get("big").unwrap().unwrap()[..], &value[..]);
    let too_large = ns.put("big", vec![0; (25 << 20) + 1]);
    assert!(matches!(
        too_large,
        Err(Error::TooLarge {
            len: 26_214_401,
            max: 26_214_400,
            ..
        })
    ));
    assert!(ns.put("full", vec![7; 25 << 20]).is_ok());
}

#[test]
fn a_batch_spans_namespaces_and_the_last_write_of_a_key_counts() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let store = open(dir.path(), &clock);
    let (a, b) = (store.namespace("a").unwrap(), store.namespace("b").unwrap());
    a.put("gone", "x").unwrap();
    let mut batch = WriteBatch::new();
    batch
        .put(&a, "k", "old")
        .put(&b, "k", "b")
        .put(&a, "k", "new")
        .delete(&a, "gone");
    assert_eq!(batch.len(), 3);
    store.write(batch).unwrap();
    let check = |store: &Store| {
        let (a, b) = (store.namespace("a").unwrap(), store.namespace("b").unwrap());
        assert_eq!(&a.get("k").unwrap().unwrap()[..], b"new");
        assert_eq!(&b.get("k").unwrap().unwrap()[..], b"b");
        assert!(a.get("gone").unwrap().is_none());
    };
    check(&store);
    drop((a, b, store));
    check(&open(dir.path(), &clock));
}

#[test]
fn a_dropped_namespace_refuses_everything_and_its_name_is_free() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1);
    let store = open(dir.path(), &clock);
    let old = store.create_namespace("n").unwrap();
    assert!(matches!(
        store.create_namespace("n"),
        Err(Error::NamespaceExists { .. })
    ));
    old.put("k", "v").unwrap();
    store.drop_namespace(old.id()).unwrap();
    assert!(matches!(old.get("k"), Err(Error::NoSuchNamespace)));
    assert!(matches!(old.put("k", "v"), Err(Error::NoSuchNamespace)));
    assert!(matches!(
        store.drop_namespace(old.id()),
        Err(Error::NoSuchNamespace)
    ));
    let new = store.create_namespace("n").unwrap();
    assert_ne!(new.id(), old.id());
    assert!(new.get("k").unwrap().is_none());
    store.rename_namespace(new.id(), "m").unwrap();
    drop((old, new, store));
    let store = open(dir.path(), &clock);
    let names: Vec<_> = store
        .namespaces()
        .iter()
        .map(rimstone::Namespace::name)
        .collect();
    assert_eq!(names, ["m"]);
}

#[test]
fn a_second_open_is_told_that_the_store_is_locked() {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked { .. })));
    store.close().unwrap();
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let refused = Store::open(dir.path());
    assert!(matches!(refused, Err(Error::NotAStore { found, .. }) if found == "letter.txt"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn keys_and_metadata_have_limits() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let ns = store.namespace("n").unwrap();
    assert!(matches!(ns.put("", "v"), Err(Error::InvalidKey { len: 0 })));
    assert!(matches!(
        ns.get([b'k'; 513]),
        Err(Error::InvalidKey { len: 513 })
    ));
    let options = PutOptions::new().metadata([b'm'; 1025]);
    assert!(matches!(
        ns.put_with("k", "v", &options),
        Err(Error::TooLarge { len: 1025, .. })
    ));
    ns.put_with([0u8; 512], "v", &PutOptions::new().metadata([b'm'; 1024]))
        .unwrap();
    assert_eq!(
        ns.get_with_metadata([0u8; 512])
            .unwrap()
            .unwrap()
            .metadata()
            .len(),
        1024
    );
}

#[test]
fn get_many_answers_as_single_gets_do() {
    let dir = tempdir().unwrap();
    let clock = Clock::manual(1_000);
    let store = open(dir.path(), &clock);
    let ns = store.namespace("n").unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 5 != 0) {
        let options = PutOptions::new().metadata(vec![7; n % 3]);
        let options = options.expiration(1_001 + n as u64 % 2);
        ns.put_with(key, vec![1; n * 1_000], &options).unwrap();
    }
    clock.advance(1);
    ns.delete(&keys[3]).unwrap();
    let single: Vec<_> = keys
        .iter()
        .map(|key| ns.get_with_metadata(key).unwrap())
        .collect();
    assert_eq!(single.iter().flatten().count(), 39);
    assert_eq!(ns.get_many(&keys).unwrap(), single);
    assert!(matches!(
        ns.get_many(&["a", ""]),
        Err(Error::InvalidKey { len: 0 })
    ));
}

#[test]
fn read_many_lends_what_single_reads_do() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let ns = store.namespace("n").unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key {n}")).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 5 != 0) {
        let options = PutOptions::new().metadata(vec![7; n % 3]);
        ns.put_with(key, key.repeat(n * 100), &options).unwrap();
    }
    let mut lent = Vec::new();
    ns.read_many(&keys, |place, entry| {
        assert_eq!(entry.value(), keys[place].repeat(place * 100).as_bytes());
        assert_eq!(entry.metadata(), vec![7; place % 3]);
        lent.push(place);
    })
    .unwrap();
    let stored: Vec<usize> = (0..100).filter(|n| n % 5 != 0).collect();
    assert_eq!(lent, stored);
}

#[test]
fn values_verified_once_are_verified_the_first_time() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(1));
    let ns = store.namespace("n").unwrap();
    let large = vec![3u8; 200_000];
    ns.put("small", "a value of some length").unwrap();
    ns.put("other", "another").unwrap();
    ns.put("large", &large).unwrap();
    store.close().unwrap();
    for (kind, needle) in [("seg", &b"a value"[..]), ("large", &large[..100])] {
        let path = rimstone_tests::newest(dir.path(), kind).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|w| w == needle);
        bytes[at.unwrap()] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let options = Options::new().verify(Verify::FirstRead);
    let store = options.open(dir.path()).unwrap();
    let ns = store.find_namespace("n").unwrap();
    for _ in 0..2 {
        assert!(matches!(ns.get("small"), Err(Error::Corrupt { .. })));
        assert!(matches!(ns.get("large"), Err(Error::Corrupt { .. })));
        assert_eq!(&ns.get("other").unwrap().unwrap()[..], b"another");
    }
}
