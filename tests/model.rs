//! Every history of puts, deletes, expiries, lists and reopenings agrees with an ordered map.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rimstone::{Clock, Durability, ListOptions, Options, PutOptions, ReadOptions, Store};
use rimstone_tests::{cases, copy, newest};
use tempfile::tempdir;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        len: usize,
        ttl: Option<u64>,
        metadata: bool,
    },
    Delete {
        key: u8,
    },
    DeletePrefix {
        prefix: &'static str,
    },
    Get {
        key: u8,
        cache_ttl: u64,
    },
    List {
        prefix: bool,
        limit: usize,
        reverse: bool,
    },
    Advance {
        seconds: u64,
    },
    Checkpoint,
    Compact,
    Reopen(How),
}

/// What happens to the store before it is opened again.
#[derive(Clone, Copy, Debug)]
enum How {
    Closed,
    Killed,
    /// Killed, and its newest checkpoint damaged.
    FellBack,
    /// Killed, and everything but the log is gone.
    Rebuilt,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0..300usize, 1 => 4_000..70_000usize];
    prop_oneof![
        6 => (0..40u8, len, prop::option::of(1..50u64), any::<bool>())
            .prop_map(|(key, len, ttl, metadata)| Step::Put { key, len, ttl, metadata }),
        2 => (0..40u8).prop_map(|key| Step::Delete { key }),
        1 => prop::sample::select(vec!["", "a", "b1", "b3", "c"])
            .prop_map(|prefix| Step::DeletePrefix { prefix }),
        6 => (0..40u8, 1..90u64).prop_map(|(key, cache_ttl)| Step::Get { key, cache_ttl }),
        1 => (any::<bool>(), 1..50usize, any::<bool>())
            .prop_map(|(prefix, limit, reverse)| Step::List { prefix, limit, reverse }),
        1 => (1..30u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => Just(Step::Advance { seconds: 4_000 }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        2 => prop_oneof![
            Just(How::Closed), Just(How::Killed), Just(How::FellBack), Just(How::Rebuilt)
        ].prop_map(Step::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Vec<u8>,
    metadata: Vec<u8>,
    expiration: Option<u64>,
    generation: u64,
}

/// With a hot cache that does not hold all of it.
fn open(dir: &Path, clock: &Clock) -> Store {
    let options = Options::new().durability(Durability::None).cache(4 << 10);
    options.clock(clock.clone()).open(dir).unwrap()
}

fn name(key: u8) -> Vec<u8> {
    format!("{}{}", if key.is_multiple_of(3) { "a" } else { "b" }, key).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(64), ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_map(steps in prop::collection::vec(step(), 1..120)) {
        let mut dir = tempdir().unwrap();
        let clock = Clock::manual(1_000);
        let mut store = open(dir.path(), &clock);
        let mut ns = store.namespace("model").unwrap();
        let mut model: BTreeMap<Vec<u8>, Expected> = BTreeMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let now = clock.now();
            model.retain(|_, e| e.expiration.is_none_or(|t| t > now));
            match step {
                Step::Put { key, len, ttl, metadata } => {
                    let value = vec![u8::try_from(at % 256).unwrap(); len];
                    let metadata = if metadata { vec![key; 9] } else { vec![] };
                    let mut options = PutOptions::new().metadata(&metadata);
                    if let Some(ttl) = ttl {
                        options = options.expiration_ttl(Duration::from_secs(ttl));
                    }
                    let generation = ns.put_with(name(key), &value, &options).unwrap();
                    let expiration = ttl.map(|ttl| now + ttl);
                    model.insert(name(key), Expected { value, metadata, expiration, generation });
                }
                Step::Delete { key } => {
                    let existed = model.remove(&name(key)).is_some();
                    prop_assert_eq!(ns.delete(name(key)).unwrap(), existed);
                }
                Step::DeletePrefix { prefix } => {
                    model.retain(|key, _| !key.starts_with(prefix.as_bytes()));
                    ns.delete_prefix(prefix).unwrap();
                }
                Step::Get { key, cache_ttl } => {
                    let options = ReadOptions::new().cache_ttl(Duration::from_secs(cache_ttl));
                    let entry = ns.get_with(name(key), &options).unwrap().map(|e| Expected {
                        value: e.value().to_vec(),
                        metadata: e.metadata().to_vec(),
                        expiration: e.expiration(),
                        generation: e.generation(),
                    });
                    prop_assert_eq!(entry.as_ref(), model.get(&name(key)));
                }
                Step::List { prefix, limit, reverse } => {
                    let prefix = if prefix { "a" } else { "" };
                    let mut options = ListOptions::new().prefix(prefix).limit(limit);
                    if reverse {
                        options = options.reverse();
                    }
                    let mut listed = Vec::new();
                    loop {
                        let page = ns.list(&options).unwrap();
                        prop_assert!(page.len() <= limit);
                        listed.extend(page.keys().map(|k| {
                            (k.name.to_vec(), k.metadata.to_vec(), k.expiration)
                        }));
                        match page.cursor {
                            Some(cursor) => options = options.cursor(cursor),
                            None => break,
                        }
                    }
                    let mut expected: Vec<_> = model
                        .iter()
                        .filter(|(key, _)| key.starts_with(prefix.as_bytes()))
                        .map(|(k, e)| (k.clone(), e.metadata.clone(), e.expiration))
                        .collect();
                    if reverse {
                        expected.reverse();
                    }
                    prop_assert_eq!(listed, expected);
                }
                Step::Advance { seconds } => clock.advance(seconds),
                Step::Checkpoint => store.checkpoint().unwrap(),
                Step::Compact => drop(store.compact().unwrap()),
                Step::Reopen(how) => {
                    let killed = (!matches!(how, How::Closed)).then(|| copy(dir.path()));
                    drop((ns, store));
                    if let Some(killed) = killed {
                        dir = killed;
                    }
                    let newest = newest(dir.path(), "ckpt");
                    match (how, newest) {
                        (How::FellBack, Some(path)) => damage(&path),
                        (How::Rebuilt, _) => forget_all_but_the_log(dir.path()),
                        _ => {}
                    }
                    store = open(dir.path(), &clock);
                    ns = store.namespace("model").unwrap();
                    let reported = store.stats().damage;
                    prop_assert!(matches!(how, How::FellBack) || reported.is_empty(), "{:?}", reported);
                }
            }
        }
    }
}

/// Changes one byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn forget_all_but_the_log(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|e| e == "seg" || e == "large") {
            fs::remove_file(path).unwrap();
        }
    }
}
