//! A cut where one segment of the log ends and the next begins.

use rimstone::{Clock, Durability, Namespace, PutOptions, Store, WriteBatch};
use rimstone_tests::{Cut, SimDisk, open_on};

/// How many values each batch puts: the first two leave a segment open, and the last begins the next.
const BATCHES: [u16; 3] = [110, 110, 80];
/// Where a record is the last of a segment that begins before it, in a store as small as this.
const SEGMENT: u64 = 16 << 20;

fn open(disk: &SimDisk) -> (Store, Namespace) {
    let store = open_on(disk, &Clock::manual(1), Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

/// Rule 6: the last bytes of a segment are durable before the next one follows it, under a name that is
/// durable itself. Everything acknowledged is there, unsynced writes form a prefix, nothing is damaged.
#[test]
fn a_cut_where_a_segment_ends_loses_nothing() {
    let disk = SimDisk::new();
    // The marks; batches are too long for that.
    disk.map_from(Some(0));
    let (store, ns) = open(&disk);
    let unsynced = PutOptions::new().durability(Durability::None);
    let (mut first, mut segments) = (0, 0);
    for (n, puts) in (0..).zip(BATCHES) {
        if n == 2 {
            fill(&store, &ns);
        }
        store.sync().unwrap();
        // Not durable yet when the last batch ends its segment.
        ns.put_with(mark(n, 0), "before", &unsynced).unwrap();
        (first, segments) = (disk.place(), store.stats().segments);
        let mut batch = WriteBatch::new();
        batch.durability(Durability::None);
        for key in 0..puts {
            batch.put(&ns, key.to_le_bytes(), vec![n; 65_000]);
        }
        store.write(batch).unwrap();
        ns.put_with(mark(n, 1), "after", &unsynced).unwrap();
    }
    assert_eq!(
        store.stats().segments,
        segments + 1,
        "the last batch began a new segment"
    );
    assert!(disk.mapped_writes() >= 6, "marks in both segments");
    for (n, at) in (0..3).flat_map(|n| [(n, 0), (n, 1)]) {
        assert!(ns.get(mark(n, at)).unwrap().is_some(), "it was written");
    }
    for place in first..=disk.place() {
        check(&disk.crash_at(place, Cut::LOST), &place);
    }
    let torn = Cut::kinds(1)[5];
    check(&disk.crash(torn), &torn);
}

/// Leaves room for less than a record.
fn fill(store: &Store, ns: &Namespace) {
    let end = store.segments().last().unwrap().bytes;
    let mut left = usize::try_from(SEGMENT - end - 40).unwrap();
    while left > 0 {
        let len = if left > 60_000 { 40_000 } else { left };
        // A header, and the key.
        ns.put("fill", vec![7; len - 64 - 4]).unwrap();
        left -= len;
    }
    assert_eq!(store.segments().last().unwrap().bytes, SEGMENT - 40);
}

fn check(disk: &SimDisk, context: &dyn std::fmt::Debug) {
    let (store, ns) = open(disk);
    let damage = store.stats().damage;
    assert!(damage.is_empty(), "{context:?}: {damage:?}");
    let there = |n, at| ns.get(mark(n, at)).unwrap().is_some();
    let marks: Vec<_> = (0..3).flat_map(|n| [there(n, 0), there(n, 1)]).collect();
    let prefix = marks.is_sorted_by(|a, b| a >= b);
    assert!(prefix, "{context:?}: a prefix: {marks:?}");
    let value = |key: u16| {
        ns.get(key.to_le_bytes())
            .unwrap()
            .map(|value| value[64_999])
    };
    let first = value(0);
    let whole = (0..BATCHES[2]).all(|key| value(key) == first)
        && (BATCHES[2]..BATCHES[0]).all(|key| value(key) == first.map(|n| n.min(1)));
    assert!(whole, "{context:?}: a batch is whole");
    let batches = first.map_or(0, |n| usize::from(n) + 1);
    let count = marks.iter().filter(|there| **there).count();
    assert!(
        batches >= 2 && count >= 4,
        "{context:?}: what was flushed before is there: {batches} batches, {marks:?}"
    );
    // One mark before each batch and one after it.
    assert!(
        (2 * batches).saturating_sub(1) <= count && count <= 2 * batches + 1,
        "{context:?}: one prefix: {batches} batches, {marks:?}"
    );
}

fn mark(n: u8, at: u8) -> [u8; 3] {
    [b'm', n, at]
}
