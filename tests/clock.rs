//! Rule 14: hiding by time and erasing by time differ. Clocks jump under a store that is open.

use std::time::Duration;

use rimstone::{Clock, Durability, ListOptions, Namespace, PutOptions, Store};
use rimstone_tests::{SimDisk, open_on};

const NOW: u64 = 1_000_000;
const DAY: u64 = 86_400;

/// A store with one key for a day and one for ever, in a segment that is not written to any more.
fn prepared(disk: &SimDisk, clock: &Clock) -> (Store, Namespace) {
    let store = open_on(disk, clock, Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    let day = PutOptions::new().expiration_ttl(Duration::from_secs(DAY));
    ns.put_with("day", "value", &day).unwrap();
    drop((store, ns));
    let store = open_on(disk, clock, Durability::Immediate).unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("ever", "value").unwrap();
    (store, ns)
}

fn sees(ns: &Namespace) -> bool {
    let listed = ns.list(&ListOptions::new().prefix("day")).unwrap();
    let got = ns.get("day").unwrap();
    assert_eq!(listed.len(), usize::from(got.is_some()));
    assert!(ns.get("ever").unwrap().is_some());
    got.is_some()
}

/// What a wrong clock hides is there again once the clock is right and the process another.
#[test]
fn a_jump_forward_hides_at_once_and_erases_nothing() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(NOW));
    let (store, ns) = prepared(&disk, &clock);
    clock.jump(NOW + 30 * DAY);
    assert!(!sees(&ns));
    store.compact().unwrap();
    store.checkpoint().unwrap();
    clock.advance(1_800);
    store.compact().unwrap();
    store.checkpoint().unwrap();
    ns.put("ever", "written under the wrong clock").unwrap();
    drop((store, ns));
    let right = Clock::manual(NOW + 1_800);
    let store = open_on(&disk, &right, Durability::Immediate).unwrap();
    assert!(
        right.now() < NOW + DAY,
        "the jump was persisted: {}",
        right.now()
    );
    let ns = store.find_namespace("n").unwrap();
    assert!(sees(&ns), "erased by a clock that was wrong");
    right.advance(DAY);
    assert!(!sees(&ns));
}

#[test]
fn a_jump_that_lasts_an_hour_is_believed() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(NOW));
    let (store, ns) = prepared(&disk, &clock);
    clock.jump(NOW + 30 * DAY);
    store.compact().unwrap();
    assert_eq!(store.stats().keys, 2);
    clock.advance(3_601);
    store.compact().unwrap();
    assert_eq!(store.stats().keys, 1, "{:?}", store.segments());
    store.checkpoint().unwrap();
    assert!(!sees(&ns));
    drop((store, ns));
    let behind = Clock::manual(NOW);
    let store = open_on(&disk, &behind, Durability::Immediate).unwrap();
    assert!(
        behind.now() >= NOW + 30 * DAY,
        "time goes on from what was believed"
    );
    assert!(!sees(&store.find_namespace("n").unwrap()));
}

/// A clock that is set back and forth has not run for an hour with any of its jumps.
#[test]
fn a_jump_that_is_taken_back_is_forgotten() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(NOW));
    let (store, ns) = prepared(&disk, &clock);
    clock.jump(NOW + 30 * DAY);
    assert!(!sees(&ns));
    clock.jump(NOW);
    clock.advance(60);
    // Who saw the key gone never sees it again, as long as this process runs.
    assert!(!sees(&ns));
    store.compact().unwrap();
    assert_eq!(store.stats().keys, 2, "erased by a clock that was wrong");
    drop((store, ns));
    let store = open_on(&disk, &Clock::manual(NOW + 60), Durability::Immediate).unwrap();
    assert!(sees(&store.find_namespace("n").unwrap()));
}

/// Nothing expires late because the clock went back, and nothing lives longer than it was told to.
#[test]
fn a_jump_back_does_not_bring_time_back() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(NOW));
    let (store, ns) = prepared(&disk, &clock);
    clock.advance(DAY);
    assert!(!sees(&ns));
    clock.jump(10);
    assert_eq!(clock.now(), NOW + DAY);
    assert!(!sees(&ns));
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("minute", "value", &minute).unwrap();
    let expiration = ns
        .get_with_metadata("minute")
        .unwrap()
        .unwrap()
        .expiration();
    assert_eq!(expiration, Some(NOW + DAY + 60));
    store.compact().unwrap();
    store.checkpoint().unwrap();
    drop((store, ns));
    let store = open_on(&disk, &Clock::manual(10), Durability::Immediate).unwrap();
    assert!(!sees(&store.find_namespace("n").unwrap()));
}

/// A checkpoint is younger than the segment in which the log goes on.
#[test]
fn time_goes_on_from_that_of_a_checkpoint() {
    let (disk, clock) = (SimDisk::new(), Clock::manual(NOW));
    let (store, ns) = prepared(&disk, &clock);
    clock.advance(DAY);
    store.checkpoint().unwrap();
    drop((store, ns));
    let behind = Clock::manual(NOW);
    let store = open_on(&disk, &behind, Durability::Immediate).unwrap();
    assert_eq!(behind.now(), NOW + DAY);
    assert!(!sees(&store.find_namespace("n").unwrap()));
}
