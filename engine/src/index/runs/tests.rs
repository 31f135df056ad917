use super::cursor::{self, Fingerprint};
use super::*;
use crate::format::run::{Backward, Forward, Summary};
use proptest::prelude::*;
use std::collections::BTreeMap;

const STORE: [u8; 16] = *b"a store's own id";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    metadata: Vec<u8>,
    expiration: u64,
    seqno: u64,
    tombstone: bool,
}

type Model = BTreeMap<(u32, Vec<u8>), Owned>;

fn record<'a>(namespace: u32, key: &'a [u8], owned: &'a Owned) -> KeyRecord<'a> {
    KeyRecord {
        namespace,
        key,
        metadata: &owned.metadata,
        expiration: owned.expiration,
        seqno: owned.seqno,
        tombstone: owned.tombstone,
    }
}

fn own(r: &KeyRecord<'_>) -> ((u32, Vec<u8>), Owned) {
    let owned = Owned {
        metadata: r.metadata.to_vec(),
        expiration: r.expiration,
        seqno: r.seqno,
        tombstone: r.tombstone,
    };
    ((r.namespace, r.key.to_vec()), owned)
}

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

fn write_run(
    sources: &Sources,
    id: u64,
    bottom: bool,
    drop: impl Fn(&KeyRecord<'_>) -> bool,
) -> Vec<u8> {
    let mut file = Vec::new();
    let sink = |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    };
    let mut writer = RunWriter::new(STORE, id, sink).unwrap();
    merge(sources, bottom, drop, |r| writer.push(r)).unwrap();
    let summary = writer.finish().unwrap();
    assert_eq!(summary.bytes, file.len() as u64);
    file
}

fn open(file: Vec<u8>) -> Result<Run, Damage> {
    Run::open(Arc::new(file))
}

fn everything(run: Run) -> Result<Model, RunDamage> {
    let sources = Sources {
        runs: vec![Arc::new(run)],
        ..Sources::default()
    };
    let mut found = Model::new();
    merge(
        &sources,
        false,
        |_| false,
        |r| {
            let (key, owned) = own(r);
            found.insert(key, owned);
            Ok(())
        },
    )
    .map_err(|error| match error {
        MergeError::Damage(damage) => damage,
        MergeError::Io(error) => panic!("{error}"),
    })?;
    Ok(found)
}

fn all(namespace: u32, limit: usize) -> Query<'static> {
    Query {
        namespace,
        deletions: &[],
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
        limit,
        reverse: false,
        now: 0,
        work: usize::MAX,
    }
}

/// The memtable, frozen parts and runs as an engine would hold them.
struct Store {
    memtable: Memtable,
    frozen: Vec<Arc<Frozen>>,
    runs: Vec<Arc<Run>>,
    next_run: u64,
    seqno: u64,
    model: Model,
    /// Erased at the bottom: expired by then.
    erased: u64,
}

impl Store {
    fn new() -> Self {
        Store {
            memtable: Memtable::new(),
            frozen: Vec::new(),
            runs: Vec::new(),
            next_run: 1,
            seqno: 0,
            model: Model::new(),
            erased: 0,
        }
    }

    fn insert(&mut self, writes: &[Write]) {
        let first = self.seqno + 1;
        self.seqno += writes.len() as u64;
        let owned: Vec<_> = writes
            .iter()
            .zip(first..)
            .map(|(w, seqno)| w.owned(seqno))
            .collect();
        self.memtable.insert(
            writes
                .iter()
                .zip(&owned)
                .map(|(w, owned)| record(w.namespace, &w.key, owned)),
        );
        for (w, owned) in writes.iter().zip(owned) {
            self.model.insert((w.namespace, w.key.clone()), owned);
        }
    }

    fn freeze(&mut self) {
        let frozen = self.memtable.freeze();
        assert_eq!(self.memtable.len(), 0);
        if frozen.len() > 0 {
            self.frozen.insert(0, frozen);
        }
    }

    fn flush(&mut self) {
        let Some(frozen) = self.frozen.pop() else {
            return;
        };
        let bottom = self.runs.is_empty();
        self.add_run(
            0,
            Sources {
                frozen: vec![frozen],
                ..Sources::default()
            },
            bottom,
        );
    }

    fn merge(&mut self, from: usize, width: usize) {
        let from = from % (self.runs.len() + 1);
        let to = (from + width).min(self.runs.len());
        if from < to {
            let bottom = to == self.runs.len();
            let runs = self.runs.drain(from..to).collect();
            self.add_run(
                from,
                Sources {
                    runs,
                    ..Sources::default()
                },
                bottom,
            );
        }
    }

    fn add_run(&mut self, place: usize, sources: Sources, bottom: bool) {
        let erased = self.erased;
        let drop = |r: &KeyRecord<'_>| r.expiration != 0 && r.expiration <= erased;
        let run = open(write_run(&sources, self.next_run, bottom, drop)).unwrap();
        self.next_run += 1;
        self.runs.insert(place, Arc::new(run));
    }

    fn sources(&self) -> Sources {
        Sources {
            memtable: self.memtable.snapshot(),
            frozen: self.frozen.clone(),
            runs: self.runs.clone(),
        }
    }
}

#[derive(Clone, Debug)]
struct Write {
    namespace: u32,
    key: Vec<u8>,
    metadata: Vec<u8>,
    expiration: u64,
    tombstone: bool,
}

impl Write {
    fn owned(&self, seqno: u64) -> Owned {
        Owned {
            metadata: self.metadata.clone(),
            expiration: self.expiration,
            seqno,
            tombstone: self.tombstone,
        }
    }
}

#[derive(Clone, Debug)]
struct Ask {
    namespace: u32,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    limit: usize,
    reverse: bool,
    now: u64,
    work: usize,
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<Write>),
    /// This many distinct keys, so that chunks are sorted and merged.
    Fill(u16),
    Freeze,
    Flush,
    Merge(usize, usize),
    /// Merges the chunks of the memtable; these writes, and with `true` a freeze, come meanwhile.
    MergeChunks(Vec<Write>, bool),
    List(Ask),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(b"\0ab\xff".to_vec()), 0..4),
        4 => (0u32..400).prop_map(|n| format!("user:profile:{n:05}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn namespace() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 1, 0x0100, u32::MAX])
}

fn write() -> impl Strategy<Value = Write> {
    let metadata = prop::collection::vec(any::<u8>(), 0..5);
    (
        namespace(),
        key(),
        metadata,
        prop_oneof![Just(0), 1u64..100],
        prop::bool::weighted(0.25),
    )
        .prop_map(|(namespace, key, metadata, expiration, tombstone)| Write {
            namespace,
            key,
            metadata,
            expiration,
            tombstone,
        })
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let counts = (
        prop_oneof![0usize..8, 8usize..2000],
        prop_oneof![0usize..8, 8usize..2000],
    );
    (
        namespace(),
        bound(),
        bound(),
        counts,
        any::<bool>(),
        0u64..100,
    )
        .prop_map(
            |(namespace, lower, upper, (limit, work), reverse, now)| Ask {
                namespace,
                lower,
                upper,
                limit,
                reverse,
                now,
                work,
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(write(), 1..40).prop_map(Op::Insert),
        1 => (1u16..6000).prop_map(Op::Fill),
        2 => Just(Op::Freeze),
        2 => Just(Op::Flush),
        2 => (0usize..6, 1usize..6).prop_map(|(from, width)| Op::Merge(from, width)),
        1 => (prop::collection::vec(write(), 0..600), prop::bool::weighted(0.3))
            .prop_map(|(writes, freezes)| Op::MergeChunks(writes, freezes)),
        6 => ask().prop_map(Op::List),
    ]
}

/// Pages through a whole query and checks every page against the model.
fn check_pages(sources: &Sources, model: &Model, ask: &Ask, erased: u64) {
    let inside = |key: &[u8]| {
        let low = match &ask.lower {
            Bound::Unbounded => true,
            Bound::Included(k) => key >= k.as_slice(),
            Bound::Excluded(k) => key > k.as_slice(),
        };
        let high = match &ask.upper {
            Bound::Unbounded => true,
            Bound::Included(k) => key <= k.as_slice(),
            Bound::Excluded(k) => key < k.as_slice(),
        };
        low && high
    };
    let live =
        |o: &Owned| !o.tombstone && (o.expiration == 0 || o.expiration > ask.now.max(erased));
    let mut expected: Vec<_> = model
        .iter()
        .filter(|((n, k), o)| *n == ask.namespace && inside(k) && live(o))
        .map(|(k, o)| (k.clone(), o.clone()))
        .collect();
    if ask.reverse {
        expected.reverse();
    }

    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let (mut lower, mut upper) = (
            ask.lower.as_ref().map(Vec::as_slice),
            ask.upper.as_ref().map(Vec::as_slice),
        );
        match &after {
            Some(after) if ask.reverse => upper = Bound::Excluded(after),
            Some(after) => lower = Bound::Excluded(after),
            None => {}
        }
        let query = Query {
            namespace: ask.namespace,
            deletions: &[],
            lower,
            upper,
            limit: ask.limit,
            reverse: ask.reverse,
            now: ask.now.max(erased),
            work: ask.work,
        };
        let before = found.len();
        let outcome = list(sources, &query, |r| found.push(own(r))).unwrap();
        let page = found.len() - before;
        assert!(page <= ask.limit.max(1) && page <= ask.work.max(1));
        match outcome {
            Outcome::Complete => break,
            Outcome::More { after: key } => {
                if page == ask.limit.max(1) && ask.work == usize::MAX {
                    assert!(
                        found.len() < expected.len(),
                        "a full page at the end says More"
                    );
                }
                let onward = |old: &Vec<u8>| if ask.reverse { key < *old } else { key > *old };
                assert!(after.as_ref().is_none_or(onward), "no progress");
                after = Some(key);
            }
        }
    }
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_page_agrees_with_the_model(ops in prop::collection::vec(op(), 1..40)) {
        let mut store = Store::new();
        for op in ops {
            match op {
                Op::Insert(writes) => store.insert(&writes),
                Op::Fill(count) => {
                    let writes: Vec<_> = (0..u32::from(count))
                        .map(|i| Write {
                            namespace: 1,
                            key: format!("user:{}", i.wrapping_mul(2_654_435_761)).into_bytes(),
                            metadata: Vec::new(),
                            expiration: 0,
                            tombstone: i % 5 == 0,
                        })
                        .collect();
                    store.insert(&writes);
                }
                Op::Freeze => store.freeze(),
                Op::Flush => store.flush(),
                Op::MergeChunks(writes, freezes) => {
                    let inputs = store.memtable.begin_merge();
                    store.insert(&writes);
                    if freezes {
                        store.freeze();
                        store.insert(&writes);
                    }
                    store.memtable.end_merge(&inputs, memtable::all_merged(&inputs));
                }
                Op::Merge(from, width) => {
                    store.erased = store.erased.max(store.seqno % 50);
                    store.merge(from, width);
                }
                Op::List(mut ask) => {
                    // Paging thousands of keys one by one finds nothing that a few hundred do not.
                    if store.model.len() > 500 {
                        ask.limit = ask.limit.max(50);
                        ask.work = ask.work.max(50);
                    }
                    check_pages(&store.sources(), &store.model, &ask, store.erased);
                }
            }
        }
        for reverse in [false, true] {
            for namespace in [0, 1, 0x0100, u32::MAX] {
                let ask = Ask {
                    namespace,
                    lower: Bound::Unbounded,
                    upper: Bound::Unbounded,
                    limit: 100,
                    reverse,
                    now: 0,
                    work: usize::MAX,
                };
                check_pages(&store.sources(), &store.model, &ask, store.erased);
            }
        }
    }

    #[test]
    fn a_run_gives_back_what_was_written(
        model in prop::collection::btree_map(
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)),
            (prop::collection::vec(any::<u8>(), 0..300), any::<u64>(), any::<u64>(), any::<bool>())
                .prop_map(|(metadata, expiration, seqno, tombstone)| Owned {
                    metadata, expiration, seqno, tombstone,
                }),
            0..150,
        )
    ) {
        let file = file_of(&model);
        prop_assert_eq!(everything(open(file).unwrap()).unwrap(), model);
    }

    #[test]
    fn arbitrary_bytes_are_damage_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(bytes).is_err());
    }

    /// Checksums are put right after the change, so that the decoder itself is what refuses.
    #[test]
    fn a_block_of_arbitrary_bytes_is_damage_or_in_order(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = small_file();
        let run = open(file.clone()).unwrap();
        let blocks = run.block_ranges();
        for (index, byte) in changes {
            let (start, end) = blocks[0];
            let at = start + index.index(end - start - 4);
            file[at] = byte;
        }
        let (start, end) = blocks[0];
        run.seal_block(&mut file, start, end);
        let run = open(file).unwrap();
        let sources = Sources { runs: vec![Arc::new(run)], ..Sources::default() };
        for reverse in [false, true] {
            let query = Query { reverse, ..all(7, usize::MAX) };
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let _ = list(&sources, &query, |record| keys.push(record.key.to_vec()));
            if reverse {
                keys.reverse();
            }
            prop_assert!(keys.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_cursor_comes_back_for_its_query(
        secret in any::<[u8; 16]>(),
        namespace in any::<u32>(),
        prefix in key(),
        start in prop::option::of(key()),
        end in prop::option::of(key()),
        reverse in any::<bool>(),
        after in prop::collection::vec(any::<u8>(), 0..600),
        other in (any::<u32>(), key(), prop::option::of(key()), prop::option::of(key())),
    ) {
        let query = Fingerprint {
            namespace, prefix: &prefix, start: start.as_deref(), end: end.as_deref(), reverse,
        };
        let text = cursor::encode(&secret, &query, &after);
        prop_assert_eq!(cursor::decode(&secret, &query, &text), Some(after));
        let others = [
            Fingerprint { namespace: other.0, ..query },
            Fingerprint { prefix: &other.1, ..query },
            Fingerprint { start: other.2.as_deref(), ..query },
            Fingerprint { end: other.3.as_deref(), ..query },
            Fingerprint { start: query.end, end: query.start, ..query },
            Fingerprint { reverse: !reverse, ..query },
        ];
        for other in others {
            let same = format!("{other:?}") == format!("{query:?}");
            prop_assert_eq!(cursor::decode(&secret, &other, &text).is_some(), same);
        }
    }

    #[test]
    fn arbitrary_text_is_no_cursor(text in "[A-Za-z0-9_=+/ -]{0,80}|.{0,40}") {
        let query = Fingerprint { namespace: 1, prefix: b"", start: None, end: None, reverse: false };
        prop_assert_eq!(cursor::decode(&[7; 16], &query, &text), None);
    }
}

fn file_of(model: &Model) -> Vec<u8> {
    let mut file = Vec::new();
    let sink = |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    };
    let mut writer = RunWriter::new(STORE, 9, sink).unwrap();
    for ((namespace, key), owned) in model {
        writer.push(&record(*namespace, key, owned)).unwrap();
    }
    writer.finish().unwrap();
    file
}

fn small_model() -> Model {
    (0..70u64)
        .map(|i| {
            let owned = Owned {
                metadata: vec![i as u8; (i % 4) as usize],
                expiration: if i % 3 == 0 {
                    0
                } else {
                    1_700_000_000 + i * 1000
                },
                seqno: 5000 - i * 7,
                tombstone: i % 11 == 0,
            };
            ((7, format!("user:{i:03}").into_bytes()), owned)
        })
        .collect()
}

fn small_file() -> Vec<u8> {
    file_of(&small_model())
}

#[test]
fn every_changed_bit_of_a_run_is_damage() {
    let file = small_file();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let read = open(changed)
                .map_err(|_| ())
                .and_then(|run| everything(run).map_err(|_| ()));
            assert!(read.is_err(), "bit {bit} of byte {at} changed unseen");
        }
    }
}

#[test]
fn no_lookup_in_a_changed_run_gives_a_wrong_answer() {
    let file = small_file();
    let model = small_model();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x5a;
        let Ok(run) = open(changed) else { continue };
        let sources = Sources {
            runs: vec![Arc::new(run)],
            ..Sources::default()
        };
        for (_, key) in model.keys() {
            let lower = Bound::Included(key.as_slice());
            let mut found = Vec::new();
            let query = Query { lower, ..all(7, 3) };
            let live: Vec<_> = model
                .range((7, key.clone())..)
                .filter(|(_, o)| !o.tombstone)
                .take(3)
                .map(|(k, o)| (k.clone(), o.clone()))
                .collect();
            match list(&sources, &query, |r| found.push(own(r))) {
                Ok(_) => assert_eq!(found, live, "byte {at}"),
                Err(_) => assert!(live.starts_with(&found), "byte {at}"),
            }
        }
    }
}

#[test]
fn a_changed_first_key_does_not_lead_a_search_astray() {
    // A search that believed it would land beside the block, and in reverse never decode it.
    let key = |i: u64| format!("user:{i:04}").into_bytes();
    let owned = |seqno| Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno,
        tombstone: false,
    };
    let model: Model = (0..320).map(|i| ((7, key(i)), owned(i))).collect();
    let file = file_of(&model);
    let blocks = open(file.clone()).unwrap().block_ranges();
    assert_eq!(blocks.len(), 10);
    for (start, _) in blocks {
        // The first key is within the first 24 bytes of its block.
        for at in start..start + 24 {
            let mut changed = file.clone();
            changed[at] ^= 0x0a;
            let run = Arc::new(open(changed).unwrap());
            let sources = Sources {
                runs: vec![run],
                ..Sources::default()
            };
            for target in (0..320).step_by(8) {
                let bound = key(target);
                let open = Bound::Unbounded;
                let included = Bound::Included(bound.as_slice());
                for reverse in [false, true] {
                    let (lower, upper) = if reverse {
                        (open, included)
                    } else {
                        (included, open)
                    };
                    let query = Query {
                        lower,
                        upper,
                        reverse,
                        ..all(7, 1)
                    };
                    let mut found = Vec::new();
                    if list(&sources, &query, |r| found.push(r.key.to_vec())).is_ok() {
                        assert_eq!(
                            found,
                            std::slice::from_ref(&bound),
                            "byte {at}, reverse {reverse}"
                        );
                    }
                }
            }
        }
    }
}

/// What is damaged after it was verified, or was never right.
#[test]
fn an_index_that_misleads_gives_no_wrong_answer() {
    let key = |i: u64| format!("user:{i:04}").into_bytes();
    let owned = |seqno| Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno,
        tombstone: false,
    };
    let model: Model = (0..320).map(|i| ((7, key(i * 3)), owned(i + 1))).collect();
    let file = file_of(&model);
    let intact = open(file.clone()).unwrap();
    let (start, end) = (intact.block_ranges()[9].1, file.len() - 64);
    let targets: Vec<_> = (0..960).step_by(7).map(key).collect();
    let mut refused = 0;
    for at in start + 8..end - 4 {
        for change in [1, 2, 0x0c, 0x20, 0x7f] {
            let mut changed = file.clone();
            changed[at] ^= change;
            intact.seal_block(&mut changed, start, end);
            let Ok(run) = open(changed.clone()) else {
                continue;
            };
            let sources = Sources {
                runs: vec![Arc::new(run)],
                ..Sources::default()
            };
            for target in &targets {
                let bound = (7, target.clone());
                let (open, included) = (Bound::Unbounded, Bound::Included(target.as_slice()));
                for reverse in [false, true] {
                    let expected = if reverse {
                        model.range(..=bound.clone()).next_back()
                    } else {
                        model.range(bound.clone()..).next()
                    };
                    let (lower, upper) = if reverse {
                        (open, included)
                    } else {
                        (included, open)
                    };
                    let query = Query {
                        lower,
                        upper,
                        reverse,
                        ..all(7, 1)
                    };
                    let mut found = None;
                    if list(&sources, &query, |r| found = Some(own(r).0)).is_err() {
                        refused += 1;
                        continue;
                    }
                    let expected = expected.map(|(key, _)| key.clone());
                    assert_eq!(found, expected, "byte {at}, {change}, reverse {reverse}");
                }
            }
            let run = Run::open(Arc::new(changed)).unwrap();
            if let Ok(last) = Backward::last(&run) {
                assert_eq!(last.record().map(|r| own(&r).0), Some((7, key(319 * 3))));
            }
            if let Ok(all) = everything(run) {
                assert_eq!(all, model, "byte {at}, {change}");
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_search_gives_nothing_from_before_where_it_began() {
    // A record that says it is after the one before it, and is not.
    let owned = |seqno| Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno,
        tombstone: false,
    };
    let model = Model::from([
        ((7, b"bbb".to_vec()), owned(1)),
        ((7, b"bz".to_vec()), owned(2)),
    ]);
    let mut file = file_of(&model);
    let intact = open(file.clone()).unwrap();
    let (start, end) = intact.block_ranges()[0];
    let last = file[..end - 4]
        .iter()
        .rposition(|byte| *byte == b'z')
        .unwrap();
    file[last] = b'a';
    intact.seal_block(&mut file, start, end);
    let run = open(file).unwrap();
    assert!(Forward::seek(&run, 7, b"bbx", false).is_err());
}

#[test]
fn a_block_that_begins_before_the_end_of_the_one_before_it_is_found_by_a_check() {
    let owned = Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno: 1,
        tombstone: false,
    };
    let key = |i: u32| ((7, format!("key {i:03}").into_bytes()), owned.clone());
    let mut file = file_of(&(0..64).map(key).collect());
    let intact = open(file.clone()).unwrap();
    intact.check(|_| {}).unwrap();
    let (start, end) = intact.block_ranges()[1];
    let first = file[start..end]
        .windows(7)
        .position(|key| key == b"key 032");
    // All keys of the block begin like its first.
    file[start + first.unwrap()] = b'j';
    intact.seal_block(&mut file, start, end);
    let damage = open(file).unwrap().check(|_| {}).unwrap_err();
    assert_eq!(damage.offset, start as u64);
}

#[test]
fn a_truncated_run_is_damage() {
    let file = small_file();
    for len in 0..file.len() {
        assert!(open(file[..len].to_vec()).is_err(), "cut to {len}");
    }
    let mut longer = file;
    longer.push(0);
    assert!(open(longer).is_err());
}

#[test]
fn a_block_of_another_run_or_place_is_damage() {
    // Runs 9 and 10 have the same layout; only the ids differ.
    let nine = small_file();
    let mut ten = nine.clone();
    let run = open(nine.clone()).unwrap();
    let (start, end) = run.block_ranges()[0];
    let sources = Sources {
        runs: vec![Arc::new(run)],
        ..Sources::default()
    };
    let other = write_run(&sources, 10, false, |_| false);
    assert_eq!(other.len(), nine.len());
    ten.copy_from_slice(&other);
    ten[start..end].copy_from_slice(&nine[start..end]);
    let damage = everything(open(ten).unwrap()).unwrap_err();
    assert_eq!(damage.run, 10);
    assert_eq!(damage.damage.offset, start as u64);
}

#[test]
fn an_empty_run_is_a_run() {
    let file = file_of(&Model::new());
    assert_eq!(file.len(), 128);
    let run = open(file).unwrap();
    assert_eq!(
        run.summary(),
        Summary {
            bytes: 128,
            ..Summary::default()
        }
    );
    assert_eq!((run.id(), run.store_id()), (9, STORE));
    let sources = Sources {
        runs: vec![Arc::new(run)],
        ..Sources::default()
    };
    for reverse in [false, true] {
        let query = Query {
            reverse,
            ..all(7, 10)
        };
        assert_eq!(list(&sources, &query, |_| {}).unwrap(), Outcome::Complete);
    }
}

#[test]
fn the_smallest_run_has_these_bytes() {
    let mut model = Model::new();
    let owned = Owned {
        metadata: b"m".to_vec(),
        expiration: 300,
        seqno: 5,
        tombstone: false,
    };
    model.insert((1, b"ab".to_vec()), owned);
    let owned = Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno: 7,
        tombstone: true,
    };
    model.insert((1, b"ac".to_vec()), owned);
    let file = file_of(&model);
    assert_eq!(&file[..8], b"RIMSTRUN");
    let block = [
        64, 0, 0, 0, 0, 0, 0, 0, // its own length, and none before it
        2, 5, 0xac, 0x02, // two records, base seqno 5, base expiration 300
        6, 0, 6, 0, 0, 1, 0, 0, 0, 1, b'a', b'b', b'm', // ab: whole
        1, 5, 1, 2, b'c', // ac: five bytes shared, two seqnos later
    ];
    assert_eq!(file[64..64 + block.len()], block);
    assert!(file[64 + block.len()..124].iter().all(|byte| *byte == 0));
    // One block needs no index: it is where every search ends.
    assert_eq!(file.len(), 128 + 64);
    assert_eq!(file[128..136], 128u64.to_le_bytes());
    assert_eq!(file[136..144], 64u64.to_le_bytes());
}

#[test]
fn the_index_leads_to_every_block() {
    // Three levels: 32 blocks in each of the lowest, with a beginning in common that is longer than the rest.
    let key = |i: u64| format!("{}{:06}", "beginning/".repeat(20), i * 3).into_bytes();
    let owned = |seqno| Owned {
        metadata: Vec::new(),
        expiration: 0,
        seqno,
        tombstone: false,
    };
    let count = 32 * 32 * 33;
    let model: Model = (0..count).map(|i| ((7, key(i)), owned(i))).collect();
    let run = open(file_of(&model)).unwrap();
    run.check(|_| {}).unwrap();
    // The ends of each block, and a key beside.
    for i in (0..count).filter(|i| [0, 1, 31].contains(&(i % 32))) {
        let sought = |mut key: Vec<u8>, by: i8| {
            let last = key.last_mut().unwrap();
            *last = last.wrapping_add_signed(by);
            let place = Forward::seek(&run, 7, &key, false).unwrap();
            place.record().map(|record| record.seqno)
        };
        let next = Some(i + 1).filter(|next| *next < count);
        assert_eq!((sought(key(i), 0), sought(key(i), -1)), (Some(i), Some(i)));
        assert_eq!(sought(key(i), 1), next);
        let place = Backward::seek(&run, 7, &key(i), false).unwrap();
        let before = place.record().map(|record| record.seqno);
        assert_eq!(before, i.checked_sub(1));
    }
    for (namespace, found) in [(6, Some(0)), (8, None)] {
        let place = Forward::seek(&run, namespace, b"z", true).unwrap();
        assert_eq!(place.record().map(|record| record.seqno), found);
    }
}

#[test]
fn the_longest_key_and_metadata_survive() {
    let key = vec![b'k'; crate::format::run::KEY_LEN_MAX];
    let metadata = vec![b'm'; 1 << 20];
    let memtable = Memtable::new();
    memtable.insert([
        KeyRecord {
            metadata: &metadata,
            ..put(&key, 1)
        },
        put(b"a", 2),
    ]);
    let sources = Sources {
        frozen: vec![memtable.freeze()],
        ..Sources::default()
    };
    let found = everything(open(write_run(&sources, 1, true, |_| false)).unwrap()).unwrap();
    assert_eq!(found[&(7, key)].metadata, metadata);
    assert_eq!(found.len(), 2);
}

#[test]
fn of_records_with_one_seqno_the_last_counts() {
    let memtable = Memtable::new();
    let tombstone = KeyRecord {
        tombstone: true,
        ..put(b"k", 3)
    };
    memtable.insert([
        tombstone,
        KeyRecord {
            metadata: b"new",
            ..put(b"k", 3)
        },
    ]);
    let sources = Sources {
        memtable: memtable.snapshot(),
        ..Sources::default()
    };
    let mut found = Vec::new();
    list(&sources, &all(7, 10), |r| found.push(own(r).1)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata, b"new");
}

#[test]
fn a_snapshot_does_not_see_later_inserts() {
    let memtable = Memtable::new();
    let keys: Vec<_> = (0..5000)
        .map(|i| format!("{:05}", i * 7919 % 5000))
        .collect();
    let count = |snapshot: &MemSnapshot| {
        let sources = Sources {
            memtable: snapshot.clone(),
            ..Sources::default()
        };
        let mut count = 0;
        list(&sources, &all(7, usize::MAX), |_| count += 1).unwrap();
        count
    };
    let mut snapshots = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        if i % 37 == 0 {
            snapshots.push((i, memtable.snapshot()));
        }
        memtable.insert([put(key.as_bytes(), i as u64 + 1)]);
    }
    let frozen = memtable.freeze();
    assert_eq!(frozen.len(), 5000);
    assert_eq!(count(&memtable.snapshot()), 0);
    for (inserted, snapshot) in &snapshots {
        assert_eq!(count(snapshot), *inserted);
    }
}

#[test]
fn chunks_that_pages_ask_often_become_one() {
    let memtable = Memtable::new();
    for i in 0..20_000u64 {
        let key = format!("{:05}", i * 7919 % 20_000);
        memtable.insert([put(key.as_bytes(), i + 1)]);
    }
    assert!(!memtable.wants_merge(), "nobody asked");
    let mut asked = 0;
    while !memtable.wants_merge() {
        asked += memtable.snapshot().chunks().count();
        assert!(asked < 20_000);
    }
    let before = memtable.snapshot();
    memtable.merge();
    assert_eq!(memtable.len(), 20_000);
    let chunks = |snapshot: &MemSnapshot| snapshot.chunks().map(|chunk| chunk.len()).collect();
    let left: Vec<usize> = chunks(&memtable.snapshot());
    assert!(
        left.len() <= 2,
        "what arrived last, and all the others: {left:?}"
    );
    assert_eq!(
        before.chunks().map(|chunk| chunk.len()).sum::<usize>(),
        20_000
    );
    assert!(!memtable.wants_merge());

    // A few more are merged by themselves, and what is much larger is left alone.
    for i in 0..2000u64 {
        let key = format!("{:05}", i * 7919 % 20_000);
        memtable.insert([put(key.as_bytes(), 30_000 + i)]);
    }
    let mut asked = 0;
    while !memtable.wants_merge() {
        asked += memtable.snapshot().chunks().count();
        assert!(asked < 2000);
    }
    memtable.merge();
    let grown: Vec<usize> = chunks(&memtable.snapshot());
    assert!(grown.len() <= 3, "{grown:?}");
    assert_eq!(grown.last(), left.last());
    assert_eq!(grown.iter().sum::<usize>(), 22_000);
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let memtable = Memtable::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seqno in 1..=3000u64 {
                let key = seqno.to_le_bytes();
                let other = (!seqno).to_le_bytes();
                memtable.insert([put(&key, seqno), put(&other, seqno)]);
            }
        });
        loop {
            let sources = Sources {
                memtable: memtable.snapshot(),
                ..Sources::default()
            };
            let mut seen = BTreeMap::new();
            list(&sources, &all(7, usize::MAX), |r| {
                *seen.entry(r.seqno).or_insert(0) += 1
            })
            .unwrap();
            assert!(seen.values().all(|&keys| keys == 2));
            assert!(seen.keys().copied().eq(1..=seen.len() as u64));
            if seen.len() == 3000 {
                break;
            }
        }
    });
}

#[test]
fn freezing_loses_nothing_that_is_inserted_meanwhile() {
    let memtable = Memtable::new();
    let frozen = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seqno in 1..=20_000u64 {
                memtable.insert([put(&seqno.to_le_bytes(), seqno)]);
            }
        });
        for _ in 0..50 {
            let part = memtable.freeze();
            let _ = memtable.snapshot();
            frozen.lock().insert(0, part);
        }
    });
    let frozen = std::mem::take(&mut *frozen.lock());
    let sources = Sources {
        memtable: memtable.snapshot(),
        frozen,
        ..Sources::default()
    };
    let mut count = 0;
    assert_eq!(
        list(&sources, &all(7, usize::MAX), |_| count += 1).unwrap(),
        Outcome::Complete
    );
    assert_eq!(count, 20_000);
}

#[test]
fn overwriting_one_key_does_not_grow_the_memtable_for_ever() {
    let memtable = Memtable::new();
    for seqno in 1..=200_000 {
        memtable.insert([put(b"the same key", seqno)]);
    }
    assert!(memtable.len() < 600, "{} records", memtable.len());
}

#[test]
fn a_range_of_tombstones_costs_its_work_and_no_more() {
    let memtable = Memtable::new();
    let keys: Vec<_> = (0..1000).map(|i| format!("{i:04}")).collect();
    for (key, seqno) in keys.iter().zip(1..) {
        memtable.insert([KeyRecord {
            tombstone: seqno != 1000,
            ..put(key.as_bytes(), seqno)
        }]);
    }
    let sources = Sources {
        memtable: memtable.snapshot(),
        ..Sources::default()
    };
    let query = Query {
        work: 100,
        ..all(7, 10)
    };
    let outcome = list(&sources, &query, |_| panic!("nothing lives here")).unwrap();
    assert_eq!(
        outcome,
        Outcome::More {
            after: b"0099".to_vec()
        }
    );
    // The one live key is beyond the work a full page has left: it must not be called complete.
    memtable.insert([put(b"0000", 1001)]);
    let sources = Sources {
        memtable: memtable.snapshot(),
        ..Sources::default()
    };
    let outcome = list(&sources, &Query { limit: 1, ..query }, |_| {}).unwrap();
    assert!(matches!(outcome, Outcome::More { .. }));
}

#[test]
fn a_full_page_before_dead_keys_only_is_complete() {
    let memtable = Memtable::new();
    memtable.insert([
        put(b"a", 1),
        put(b"b", 2),
        KeyRecord {
            tombstone: true,
            ..put(b"c", 3)
        },
        KeyRecord {
            expiration: 10,
            ..put(b"d", 4)
        },
        KeyRecord {
            namespace: 8,
            ..put(b"e", 5)
        },
    ]);
    let sources = Sources {
        memtable: memtable.snapshot(),
        ..Sources::default()
    };
    let query = Query {
        now: 10,
        ..all(7, 2)
    };
    assert_eq!(list(&sources, &query, |_| {}).unwrap(), Outcome::Complete);
    let query = Query { now: 9, ..query };
    assert_eq!(
        list(&sources, &query, |_| {}).unwrap(),
        Outcome::More {
            after: b"c".to_vec()
        }
    );
}

#[test]
fn above_the_bottom_a_merge_hides_what_it_hid_before() {
    let older = Memtable::new();
    older.insert([put(b"a", 1), put(b"b", 2)]);
    let newer = Memtable::new();
    newer.insert([
        KeyRecord {
            tombstone: true,
            ..put(b"a", 3)
        },
        KeyRecord {
            expiration: 5,
            ..put(b"b", 4)
        },
    ]);
    let newer = Sources {
        frozen: vec![newer.freeze()],
        ..Sources::default()
    };
    let file = write_run(&newer, 1, false, |_| true);
    let sources = Sources {
        frozen: vec![older.freeze()],
        runs: vec![Arc::new(open(file).unwrap())],
        ..Sources::default()
    };
    let query = Query {
        now: 5,
        ..all(7, 10)
    };
    assert_eq!(
        list(&sources, &query, |_| panic!("uncovered")).unwrap(),
        Outcome::Complete
    );
    let bottom = write_run(&sources, 2, true, |r| r.expiration == 5);
    assert_eq!(open(bottom).unwrap().summary().records, 0);
}

#[test]
fn a_sink_that_fails_stops_the_merge() {
    let memtable = Memtable::new();
    memtable.insert([put(b"a", 1), put(b"b", 2)]);
    let sources = Sources {
        memtable: memtable.snapshot(),
        ..Sources::default()
    };
    let full = |_: &KeyRecord<'_>| Err(std::io::Error::other("full"));
    assert!(matches!(
        merge(&sources, true, |_| false, full),
        Err(MergeError::Io(_))
    ));
}

#[test]
fn every_changed_character_of_a_cursor_is_refused() {
    let secret = [9; 16];
    let query = Fingerprint {
        namespace: 3,
        prefix: b"user:",
        start: None,
        end: Some(b"user:9"),
        reverse: false,
    };
    for key in [&b""[..], b"k", b"ke", b"key", b"user:0001"] {
        let text = cursor::encode(&secret, &query, key);
        assert_eq!(cursor::decode(&secret, &query, &text).as_deref(), Some(key));
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(
                    cursor::decode(&secret, &query, &changed),
                    None,
                    "{text} {changed}"
                );
            }
            assert_eq!(cursor::decode(&secret, &query, &text[..at]), None);
        }
        for tail in ["A", "=", "==", "\n"] {
            assert_eq!(
                cursor::decode(&secret, &query, &format!("{text}{tail}")),
                None
            );
        }
        assert_eq!(cursor::decode(&[8; 16], &query, &text), None);
    }
}

#[test]
fn a_cursor_has_this_text() {
    // Cursors outlive the process: the text may not change between versions.
    let query = Fingerprint {
        namespace: 1,
        prefix: b"p",
        start: None,
        end: None,
        reverse: true,
    };
    assert_eq!(
        cursor::encode(&[1; 16], &query, b"key?"),
        "lM39uvmmcz3L7jkNPMB0n2tleT8"
    );
}

#[test]
fn few_runs_stay_and_few_bytes_are_written_again() {
    for flush in [
        |_: u64| 100u64,
        |i| 50 + i * 7919 % 200,
        |i| 1 + 100 * (i % 2),
    ] {
        let mut runs: Vec<u64> = Vec::new();
        let (mut flushed, mut merged) = (0, 0);
        for i in 0..5000 {
            runs.insert(0, flush(i));
            flushed += flush(i);
            while let Some(range) = pick_merge(&runs) {
                assert!(range.len() >= 2 && range.end <= runs.len());
                let size: u64 = runs[range.clone()].iter().sum();
                merged += size;
                runs.splice(range, [size]);
            }
            assert!(runs.len() <= super::tiers::RUNS_MAX, "{runs:?}");
        }
        assert!(merged < flushed * 12, "{merged} for {flushed}");
    }
}

#[test]
fn merges_are_picked_by_these_rules() {
    assert_eq!(pick_merge(&[]), None);
    assert_eq!(pick_merge(&[5]), None);
    assert_eq!(pick_merge(&[5, 1000]), None);
    assert_eq!(pick_merge(&[500, 1000]), Some(0..2));
    assert_eq!(pick_merge(&[5, 5, 5, 1000]), None);
    assert_eq!(pick_merge(&[5, 5, 5, 5, 1000]), Some(0..4));
    assert_eq!(pick_merge(&[1, 100, 90, 95, 90, 10_000]), Some(1..5));
    assert_eq!(
        pick_merge(&[1, 2, 4, 8, 16, 32, 64, 128, 10_000]),
        Some(0..2)
    );
    assert_eq!(pick_merge(&[u64::MAX, u64::MAX]), Some(0..2));
}
