//! Space, cost and races, on named workloads.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code may panic"
)]

mod support;

use rimstone_compaction::{
    CLASSES, Compactor, CostBenefit, Plan, SegmentStats, Segments, Strategy, class, run,
};
use support::load::{Load, write};
use support::{Background, FOREVER, Random, Store};

const SEGMENT: u64 = 1 << 13;
/// A filter of keys that is never wrong.
const EXACT: u32 = u32::MAX;

/// All of the sealed segments, whatever they hold.
struct Everything;

impl Strategy for Everything {
    fn choose(&self, segments: &[SegmentStats], _: u64) -> Option<Plan> {
        Plan::new(segments, |s| s.sealed)
    }
}

/// Writes for long, with compaction as fast as its pace allows, and compares at every tenth write.
fn space_stays_under_the_bound(load: Load, seconds: u64, filter: u32) {
    let mut random = Random::new(7);
    let mut store = Store::new(SEGMENT);
    store.filter = filter;
    let mut background = Background::new(CostBenefit::default(), SEGMENT);
    let writes = 40_000;
    for at in 0..writes {
        if at % 100 == 0 {
            store.now += seconds * 100;
        }
        write(load, &mut store, &mut random, 3_000, at, 100);
        background.work(&mut store, SEGMENT / 8);
        if at > writes / 4 && at % 10 == 0 {
            let (all, live) = (store.bytes().0, store.live_bytes());
            // The open segments, and one that was sealed or retired a moment ago.
            let bound = live * 130 / 100 + (store.open_segments() + 1) * SEGMENT;
            assert!(all <= bound, "{load:?} at {at}: {all} bytes, {live} live");
        }
    }
    store.validate();
}

#[test]
fn space_stays_under_the_bound_while_keys_are_overwritten() {
    space_stays_under_the_bound(Load::Overwrite, 0, EXACT);
    space_stays_under_the_bound(Load::Skewed, 0, EXACT);
}

#[test]
fn space_stays_under_the_bound_while_keys_are_deleted() {
    space_stays_under_the_bound(Load::Delete, 0, EXACT);
    // A filter that is wrong for one key in ten.
    space_stays_under_the_bound(Load::Delete, 0, 30_000);
}

#[test]
fn space_stays_under_the_bound_while_keys_expire() {
    space_stays_under_the_bound(Load::Expire, 1, EXACT);
    space_stays_under_the_bound(Load::Mixed, 60, EXACT);
}

#[test]
fn what_only_expires_is_never_copied() {
    let mut random = Random::new(1);
    let mut store = Store::new(SEGMENT);
    let mut background = Background::new(CostBenefit::default(), SEGMENT);
    for at in 0..30_000 {
        store.now += u64::from(at % 4 == 0);
        let last_visible = store.now + 900;
        store.put(
            u32::try_from(at).unwrap(),
            at,
            random.below(100),
            last_visible,
        );
        background.work(&mut store, SEGMENT / 8);
    }
    assert!(store.copied < store.written / 100, "{} bytes", store.copied);
    assert!(store.bytes().0 < store.written * 3 / 4);
}

#[test]
fn deleting_everything_frees_everything() {
    let mut store = Store::new(SEGMENT);
    for key in 0..2_000 {
        store.put(key, 1, 100, FOREVER);
    }
    for key in 0..2_000 {
        store.delete(key);
    }
    store.compact(&CostBenefit::default());
    let (all, sealed) = store.bytes();
    assert!(sealed == 0 && all <= 2 * SEGMENT, "{all}, {sealed} sealed");
}

#[test]
fn large_values_are_never_copied() {
    let mut store = Store::new(SEGMENT);
    for key in 0..400 {
        store.put_large(key, u64::from(key), FOREVER);
        store.put(1_000 + key, 0, 50, FOREVER);
    }
    for key in 0..100 {
        store.delete(key);
        store.put(100 + key, 0, 50, FOREVER);
    }
    let before = store.larges.clone();
    assert!(before.len() == 200 && before.iter().all(|value| *value >= 200));
    run(&mut store, &Everything, 0).unwrap();
    assert_eq!(store.larges, before);
    assert!(store.copied < 1_000 * 200);
    assert!((200..400).all(|key| store.get(key) == Some(u64::from(key))));
}

#[test]
fn losing_the_race_to_a_put_or_a_delete_is_harmless() {
    let mut store = Store::new(SEGMENT);
    for key in 0..200 {
        store.put(key, 1, 100, FOREVER);
    }
    let plan = Everything.choose(&store.stats(0), 0).unwrap();
    let mut compactor = Compactor::new(plan, 0);
    // All but the last step: the copies are there, the moves are not.
    while compactor.step(&mut store, 1).unwrap().scanned < 100 * 180 {}
    for key in 0..50 {
        store.put(key, 2, 100, FOREVER);
        store.delete(50 + key);
    }
    while !compactor.step(&mut store, 1).unwrap().is_done {}
    store.validate();
    for store in [&store, &store.rebuilt()] {
        assert!((0..50).all(|key| store.get(key) == Some(2)));
        assert!((50..100).all(|key| store.get(key).is_none()));
        assert!((100..200).all(|key| store.get(key) == Some(1)));
    }
}

#[test]
fn a_segment_with_an_unreadable_record_stays() {
    let mut store = Store::new(SEGMENT);
    for key in 0..200 {
        store.put(key, 1, 100, FOREVER);
    }
    store.unreadable = Some(40);
    let before = store.stats(0).len();
    assert!(run(&mut store, &Everything, 0).is_err());
    assert!(store.stats(0).len() >= before);
    assert!((0..200).all(|key| store.get(key) == Some(1) && store.rebuilt().get(key) == Some(1)));
}

#[test]
fn a_step_does_no_more_than_its_budget_and_a_record() {
    let mut store = Store::new(SEGMENT);
    for key in 0..200 {
        store.put(key, 1, 100, FOREVER);
    }
    let plan = Everything.choose(&store.stats(0), 0).unwrap();
    let mut compactor = Compactor::new(plan, 0);
    let mut before = 0;
    loop {
        let progress = compactor.step(&mut store, 1_000).unwrap();
        assert!(progress.scanned - before < 1_000 + 180);
        before = progress.scanned;
        if progress.is_done {
            break;
        }
    }
}

#[test]
fn classes_are_in_the_order_of_lives() {
    assert_eq!(
        (class(0), class(u64::MAX - 1), class(u64::MAX)),
        (0, CLASSES - 2, CLASSES - 1)
    );
    assert!(
        (0..2_000_000)
            .step_by(77)
            .all(|life| class(life) <= class(life + 77))
    );
}
