//! One test, or a few, for each rule of the design that a store without it breaks: what a cut, a failed
//! operation, a full disk or a race may do.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use rimstone::{
    Clock, Durability, Error, ListOptions, Namespace, PutOptions, Result, Store, WriteBatch,
};
use rimstone_tests::{Cut, Fault, Names, SimDisk, State, Unsynced, observe, open_alone, open_on};

const NOW: u64 = 1_000;

fn clock() -> Clock {
    Clock::manual(NOW)
}

fn reopen(disk: &SimDisk) -> Store {
    open_on(disk, &clock(), Durability::Immediate).unwrap()
}

fn see(store: &Store) -> State {
    observe(store, &["k", "other", "large"].map(|key| key.into()))
}

/// A store with the durable entries `k` and `large`. Of what is not flushed the first record is written by a
/// call, and all others through memory.
fn prepared() -> (SimDisk, Store, Namespace) {
    prepared_and_mapped_from(1)
}

fn prepared_and_mapped_from(unflushed: u64) -> (SimDisk, Store, Namespace) {
    let disk = SimDisk::new();
    disk.map_from(Some(unflushed));
    let store = reopen(&disk);
    let ns = store.create_namespace("n").unwrap();
    ns.put("k", "old").unwrap();
    ns.put("large", vec![1; 70_000]).unwrap();
    (disk, store, ns)
}

fn unsynced() -> PutOptions {
    PutOptions::new().durability(Durability::None)
}

/// Cuts of every kind, the random ones with several seeds.
fn cuts() -> Vec<Cut> {
    (0..3).flat_map(Cut::kinds).collect()
}

/// Writes of every kind, each of which changes `k`, or `large`, or both.
type Write = fn(&Store, &Namespace) -> Result<()>;
const WRITES: [Write; 5] = [
    |_, ns| ns.put("k", "new").map(drop),
    |_, ns| ns.put("large", vec![2; 140_000]).map(drop),
    |_, ns| ns.put_with("k", "new", &unsynced()).map(drop),
    |_, ns| ns.delete("k").map(drop),
    |store, ns| {
        let mut batch = WriteBatch::new();
        batch.delete(ns, "large").put(ns, "k", vec![3; 70_000]);
        batch.put(ns, "other", "new");
        store.write(batch)
    },
];

/// Runs `write` with a fault at its first operation, its second, and so on until it passes untouched; by a call
/// and through memory. What succeeds in spite of a fault must have happened.
fn sweep(write: Write, mut check: impl FnMut(&SimDisk, Store, Namespace, &State, Fault, Error)) {
    for (fault, mapped_from) in Fault::ALL.iter().flat_map(|f| [(*f, 1), (*f, 0)]) {
        for skip in 0.. {
            let (disk, store, ns) = prepared_and_mapped_from(mapped_from);
            let before = see(&store);
            disk.fail(skip, fault, false);
            let result = write(&store, &ns);
            let hit = disk.failures() > 0;
            disk.heal();
            match result {
                Err(error) => check(&disk, store, ns, &before, fault, error),
                Ok(()) => {
                    let seen = see(&store);
                    assert_ne!(seen, before, "acknowledged after {fault:?}");
                    assert_eq!(see(&reopen(&disk.crash(Cut::KEPT))), seen);
                }
            }
            if !hit {
                break;
            }
        }
    }
}

/// Rule 1: a write whose operation on the disk failed is not visible, neither to a get nor to a list,
/// and if it may have left bytes in the log, no further write is accepted.
#[test]
fn a_failed_write_is_not_visible() {
    for write in WRITES {
        sweep(write, |disk, store, ns, before, fault, _| {
            assert_eq!(see(&store), *before, "after {fault:?}");
            let again = ns.put("k", "again");
            if store.stats().poisoned {
                assert!(matches!(again, Err(Error::Poisoned)), "{again:?}");
            } else {
                again.unwrap();
                let seen = see(&store);
                assert_eq!(see(&reopen(&disk.crash(Cut::LOST))), seen, "{fault:?}");
            }
        });
    }
}

/// Rule 1: an acknowledged write was handed to the disk first, at every durability: the death of the
/// process the moment after loses nothing.
#[test]
fn an_acknowledged_write_was_written_first() {
    for write in WRITES {
        let (disk, store, ns) = prepared();
        write(&store, &ns).unwrap();
        let seen = see(&store);
        assert_eq!(see(&reopen(&disk.crash(Cut::KEPT))), seen);
    }
}

/// Rule 1: a write with `Immediate` durability survives a power cut the moment after, whatever else the
/// cut takes.
#[test]
fn an_immediate_write_survives_a_cut_at_once() {
    let (disk, store, ns) = prepared();
    for n in 0..40u8 {
        ns.put_with([n], [n], &unsynced()).unwrap();
        ns.put("k", vec![n; 600]).unwrap();
        for cut in Cut::kinds(u64::from(n)) {
            let left = reopen(&disk.crash(cut));
            let ns = left.find_namespace("n").unwrap();
            assert_eq!(&ns.get("k").unwrap().unwrap()[..], &vec![n; 600]);
            assert_eq!(&ns.get([n]).unwrap().unwrap()[..], &[n]);
        }
    }
    drop(store);
}

/// Rule 1: what is written through memory can be read at once, and is durable with the next flush, not sooner.
#[test]
fn what_is_written_through_memory_is_durable_with_the_next_flush() {
    let (disk, store, ns) = prepared_and_mapped_from(0);
    let (mut durable, mut mapped) = (0, 0);
    let newest = |ns: &Namespace| {
        let value = ns.get("k").unwrap().unwrap();
        assert!(value[..] == *b"old" || value[..] == vec![value[0]; 30_000]);
        if value.len() == 3 { 0 } else { value[0] }
    };
    for n in 1..=50 {
        let before = disk.mapped_writes();
        ns.put_with("k", vec![n; 30_000], &unsynced()).unwrap();
        mapped += disk.mapped_writes() - before;
        assert_eq!(newest(&ns), n);
        if n % 10 == 0 {
            store.sync().unwrap();
            durable = n;
        }
        if n % 5 != 0 {
            continue;
        }
        for cut in Cut::kinds(n.into()) {
            let left = reopen(&disk.crash(cut));
            assert_eq!(left.stats().damage, Vec::<String>::new());
            let left = newest(&left.find_namespace("n").unwrap());
            match cut.bytes {
                Unsynced::Lost => assert_eq!(left, durable),
                Unsynced::Kept => assert_eq!(left, n),
                _ => assert!((durable..=n).contains(&left), "{left} of {durable}..={n}"),
            }
        }
    }
    assert_eq!(mapped, 50);
}

/// Rule 1: the page in which a file ends is written to by calls, since some systems do not notice later writes through
/// memory there once the file grew. The simulated disk fails if it is not. On a full disk files end inside a page, and deletes
/// go on to the end.
#[test]
fn nothing_goes_through_memory_in_the_page_where_the_file_ends() {
    let (disk, store, ns) = prepared_and_mapped_from(0);
    let keys: Vec<_> = (0..10_000u16).map(u16::to_le_bytes).collect();
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.put(&ns, key, "");
    }
    store.write(batch).unwrap();
    disk.limit(Some(disk.bytes_used() + 100_001));
    while ns.put("k", vec![1; 30_000]).is_ok() {}
    disk.limit(None);
    let (used, mapped) = (disk.bytes_used(), disk.mapped_writes());
    for key in &keys {
        assert!(ns.delete(key).unwrap());
    }
    assert!(disk.bytes_used() > used, "the file grew");
    let mapped = disk.mapped_writes() - mapped;
    assert!((8_000..10_000).contains(&mapped), "{mapped} of 10,000");
    let left = reopen(&disk.crash(Cut::LOST));
    let ns = left.find_namespace("n").unwrap();
    assert_eq!(ns.list(&ListOptions::new()).unwrap().len(), 2);
}

/// Rule 1: with `Interval` durability a write is durable once the interval has passed: a thread flushes then.
#[test]
fn an_interval_flushes_what_was_written_before() {
    let disk = SimDisk::new();
    let interval = Durability::Interval(Duration::from_millis(2));
    let store = open_on(&disk, &clock(), interval).unwrap();
    let ns = store.create_namespace("n").unwrap();
    // Nothing is left to be flushed but what comes now.
    let syncs = disk.done().syncs;
    ns.put("k", "v").unwrap();
    disk.await_done(|done| done.syncs > syncs);
    let left = reopen(&disk.crash(Cut::LOST));
    assert_eq!(see(&left), see(&store));
}

/// Rule 1: the same of writes of every kind, step by step: until the flush at the end of the interval a cut may take
/// them, from then on none does.
#[test]
fn what_an_interval_flushed_survives_any_cut() {
    for write in WRITES {
        let (disk, store, ns) = prepared();
        drop((store, ns));
        let interval = Durability::Interval(Duration::from_secs(1));
        let store = open_alone(&disk, &clock(), interval).unwrap();
        let ns = store.find_namespace("n").unwrap();
        let before = see(&store);
        write(&store, &ns).unwrap();
        let written = see(&store);
        assert_eq!(see(&reopen(&disk.crash(Cut::LOST))), before);
        store.step(false);
        for cut in cuts() {
            assert_eq!(see(&reopen(&disk.crash(cut))), written, "{cut:?}");
        }
    }
}

/// Rule 1: a sequence number that a caller saw, or that lies in the log, is not given out again: not
/// after a failed write, not after a cut that loses unacknowledged bytes, not after a clean close.
#[test]
fn sequence_numbers_are_never_given_out_again() {
    for write in WRITES {
        sweep(write, |disk, store, ns, _, fault, _| {
            drop((store, ns));
            let mut newest = 0;
            let mut disk = disk.crash(Cut::KEPT);
            for round in 0..3 {
                let store = reopen(&disk);
                let ns = store.find_namespace("n").unwrap();
                let page = ns.list(&ListOptions::new()).unwrap();
                for key in page.keys() {
                    let entry = ns.get_with_metadata(key.name).unwrap().unwrap();
                    newest = newest.max(entry.generation());
                }
                let generation = ns.put("k", "again").unwrap();
                assert!(generation > newest, "round {round} after {fault:?}");
                newest = generation;
                drop((store, ns));
                disk = disk.crash(Cut::kinds(3)[round]);
            }
        });
    }
}

/// Rule 2: the body of a large value is durable before a record names it. After a cut at any operation
/// the value is the old one or the new one, all of it, and nothing is called damaged.
#[test]
fn a_large_value_is_whole_or_absent_after_any_cut() {
    for durability in [Durability::Immediate, Durability::None] {
        let (disk, _store, ns) = prepared();
        let first = disk.place();
        let options = PutOptions::new().durability(durability);
        ns.put_with("large", vec![2; 200_000], &options).unwrap();
        let acknowledged = disk.place();
        ns.put_with("other", "so that the log goes on", &options)
            .unwrap();
        for place in first..=disk.place() {
            for cut in cuts() {
                let store = reopen(&disk.crash_at(place, cut));
                assert!(store.stats().damage.is_empty());
                let ns = store.find_namespace("n").unwrap();
                let value = ns.get("large").unwrap().unwrap();
                let (old, new) = (value[..] == [1; 70_000], value[..] == [2; 200_000]);
                assert!(old || new, "{} bytes", value.len());
                let promised = durability == Durability::Immediate && place >= acknowledged;
                assert!(new || !promised, "{place}, {cut:?}");
            }
        }
    }
}

/// Rule 6: a failed flush stops all writing, reads go on, and reopening shows everything that was
/// acknowledged, whatever its durability. What it shows is durable: a cut at once takes nothing back.
#[test]
fn a_failed_flush_stops_writing_and_reopening_keeps_what_was_acknowledged() {
    for fault in [Fault::Io, Fault::Forget, Fault::Full] {
        let (disk, store, ns) = prepared();
        for n in 0..5u8 {
            ns.put_with([n], [n], &unsynced()).unwrap();
        }
        let acknowledged = see(&store);
        disk.fail(0, fault, false);
        store.sync().unwrap_err();
        assert!(store.stats().poisoned);
        assert!(matches!(ns.put("k", "v"), Err(Error::Poisoned)));
        assert!(matches!(ns.delete("k"), Err(Error::Poisoned)));
        assert!(
            matches!(store.sync(), Err(Error::Poisoned)),
            "never tried again"
        );
        assert_eq!(see(&store), acknowledged);
        drop((ns, store));

        let store = reopen(&disk);
        assert_eq!(see(&store), acknowledged);
        for cut in cuts() {
            assert_eq!(see(&reopen(&disk.crash(cut))), acknowledged, "{cut:?}");
        }
    }
}

/// Rule 6: two callers wait for one flush. It fails, and the system forgets the bytes: a second flush
/// would succeed, so the second caller must not try one and call the bytes durable. The first is in the flush, the
/// second has written and has nothing left to do but flush.
#[test]
fn nobody_retries_a_failed_flush() {
    let (disk, store, ns) = prepared_and_mapped_from(u64::MAX);
    ns.put_with("k", "lost", &unsynced()).unwrap();
    disk.hold_syncs(true);
    disk.fail(0, Fault::Forget, false);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| store.sync());
        disk.await_done(|done| done.held == 1);
        let writes = disk.done().writes;
        let second = scope.spawn(|| ns.put("other", "lost, too"));
        disk.await_done(|done| done.writes > writes);
        disk.hold_syncs(false);
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(first.is_err());
    assert!(second.is_err(), "{second:?}");
    let syncs = disk.done().syncs;
    store.sync().unwrap_err();
    assert_eq!(disk.done().syncs, syncs, "never tried again");
}

/// A disk that lost power in the middle of much.
fn interrupted(cut: Cut) -> SimDisk {
    let (disk, store, ns) = prepared();
    for n in 0..6u8 {
        ns.put_with([n], vec![n; 300], &unsynced()).unwrap();
    }
    let mut batch = WriteBatch::new();
    batch.durability(Durability::None);
    batch.put(&ns, "k", "in a batch").put(&ns, "other", "too");
    store.write(batch).unwrap();
    ns.put_with("large", vec![9; 100_000], &unsynced()).unwrap();
    ns.put_with("k", vec![7; 900], &unsynced()).unwrap();
    disk.crash(cut)
}

/// Rule 6: recovery ends durable and can be repeated. The power is cut at every operation of a recovery,
/// and at every operation of the recovery from that: each shows the same state.
#[test]
fn a_cut_during_recovery_changes_nothing() {
    for first_cut in Cut::kinds(5) {
        let disk = interrupted(first_cut);
        let seen = see(&reopen(&disk));
        let mut tried = HashSet::new();
        let again = cut_everywhere(&disk, &seen, &mut tried);
        for disk in again {
            cut_everywhere(&disk, &seen, &mut tried);
        }
    }
}

/// Opens what is left of a recovery that is cut at each operation; it must show what was `seen` then.
/// What was `tried` before is not tried again. Returns the disks, opened.
fn cut_everywhere(disk: &SimDisk, seen: &State, tried: &mut HashSet<u64>) -> Vec<SimDisk> {
    let places = 0..=disk.place();
    let cuts = places.flat_map(|place| Cut::kinds(1).into_iter().map(move |cut| (place, cut)));
    let mut left = Vec::new();
    for (place, cut) in cuts {
        if tried.insert(disk.digest_at(place, cut)) {
            let again = disk.crash_at(place, cut);
            assert_eq!(see(&reopen(&again)), *seen, "{place} {cut:?}");
            left.push(again);
        }
    }
    left
}

/// Rule 6: an operation that fails during recovery makes the open fail, or changes nothing; the next
/// open shows the same state, durably.
#[test]
fn a_failed_operation_during_recovery_changes_nothing() {
    let seen = see(&reopen(&interrupted(Cut::KEPT)));
    for (fault, lasting) in Fault::ALL.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        for skip in 0.. {
            let disk = interrupted(Cut::KEPT);
            disk.fail(skip, fault, lasting);
            let opened = open_on(&disk, &clock(), Durability::Immediate);
            let hit = disk.failures() > 0;
            disk.heal();
            match opened {
                Ok(store) => assert_eq!(see(&store), seen, "{fault:?} {skip}"),
                Err(_) => assert_eq!(see(&reopen(&disk)), seen, "{fault:?} {skip}"),
            }
            let left = disk.crash(Cut::LOST);
            assert_eq!(see(&reopen(&left)), seen, "{fault:?} {skip} {lasting}");
            if !hit {
                break;
            }
        }
    }
}

/// A store whose bytes are all durable, on a disk of its own.
fn closed() -> (SimDisk, State) {
    let (disk, store, ns) = prepared();
    for n in 0..5u8 {
        ns.put([n], vec![n + 100; 90]).unwrap();
    }
    let seen = see(&store);
    drop((store, ns));
    (disk.crash(Cut::LOST), seen)
}

/// Rule 6: a checkpoint that cannot be read now is not one that is damaged. The open fails, or did not need
/// what it could not read; nothing is called damaged, the newest checkpoint stays, and the next open has all.
#[test]
fn a_checkpoint_that_cannot_be_read_now_is_not_given_up() {
    let (disk, store, ns) = prepared();
    for value in ["first", "second"] {
        store.checkpoint().unwrap();
        ns.put("other", value).unwrap();
    }
    let seen = see(&store);
    drop((store, ns));
    let disk = disk.crash(Cut::LOST);
    let newest = |disk: &SimDisk| {
        let is_one = |path: &PathBuf| path.extension().is_some_and(|e| e == "ckpt");
        disk.files().into_iter().filter(is_one).max()
    };
    let before = newest(&disk);
    assert!(before.is_some());
    let mut refused = 0;
    for skip in 0.. {
        let disk = disk.crash(Cut::KEPT);
        disk.fail(skip, Fault::Read, false);
        let opened = open_alone(&disk, &clock(), Durability::Immediate);
        let hit = disk.failures() > 0;
        refused += u32::from(opened.is_err());
        assert_eq!(newest(&disk), before, "{skip}");
        drop(opened);
        let store = reopen(&disk);
        assert_eq!(store.stats().damage, Vec::<String>::new(), "{skip}");
        assert_eq!(see(&store), seen, "{skip}");
        if !hit {
            break;
        }
    }
    assert!(refused > 0);
}

/// Rule 7: what is damaged below the durable mark is reported, at open or when it is read, and wrong
/// bytes are never served; every other entry stays. Tried with each sixth byte of every file.
#[test]
fn damage_of_what_was_durable_is_reported() {
    let (disk, seen) = closed();
    for path in disk.files() {
        let bytes = disk.bytes(&path);
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let step = if used > 10_000 { 4001 } else { 6 };
        for at in (0..used).step_by(step) {
            let damaged = disk.crash(Cut::LOST);
            damaged.rot(&path, u64::try_from(at).unwrap(), &[bytes[at] ^ 0x10]);
            check_damage(&damaged, &seen, &format!("{} byte {at}", path.display()));
        }
    }
}

/// Rule 7: records behind a stretch of zeros, as a lost page leaves them, are found wherever it begins and ends.
#[test]
fn records_behind_zeros_are_found() {
    let disk = SimDisk::new();
    let ns = reopen(&disk).create_namespace("n").unwrap();
    let keys: Vec<_> = (0..200u8).map(|n| [n]).collect();
    for key in &keys {
        ns.put_with(key, vec![key[0] | 1; 60], &unsynced()).unwrap();
    }
    drop(ns);
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "seg");
    let path = disk.files().into_iter().find(is_segment).unwrap();
    let at = |record: usize| {
        // Each of the same length, one behind the other.
        let bytes = disk.bytes(&path);
        let first = bytes.windows(60).position(|body| body == [1; 60]).unwrap() - 65;
        first + record * 128
    };
    for (from, len) in [
        (1, 8),
        (64, 64),
        (0, 128),
        (3, 200),
        (0, 4096),
        (70, 4090),
        (127, 8201),
    ] {
        let damaged = disk.crash(Cut::LOST);
        let start = at(5) + from;
        damaged.rot(&path, u64::try_from(start).unwrap(), &vec![0; len]);
        let store = reopen(&damaged);
        assert!(!store.stats().damage.is_empty(), "{len} zeros at {from}");
        let ns = store.find_namespace("n").unwrap();
        let hit = at(0)..start + len;
        for (n, key) in keys.iter().enumerate() {
            if n < 5 || at(n) >= hit.end {
                let value = ns.get(key).unwrap().expect("an intact entry");
                assert_eq!(value[..], [key[0] | 1; 60], "{len} zeros at {from}");
            }
        }
    }
}

fn check_damage(disk: &SimDisk, seen: &State, context: &str) {
    let store = match open_on(disk, &clock(), Durability::Immediate) {
        Ok(store) => store,
        Err(Error::Corrupt { .. }) => return,
        Err(other) => panic!("{context}: {other}"),
    };
    let reported = !store.stats().damage.is_empty();
    let mut missing = 0;
    for (name, entries) in seen {
        let Some(ns) = store.find_namespace(name) else {
            assert!(reported, "{context}: a namespace is gone");
            continue;
        };
        for (key, entry) in entries {
            match ns.get(key) {
                Ok(Some(value)) => assert_eq!(value[..], entry.value, "{context}"),
                Ok(None) => {
                    assert!(reported, "{context}: {key:?} is gone");
                    missing += 1;
                }
                Err(Error::Corrupt { .. }) => missing += 1,
                Err(other) => panic!("{context}: {other}"),
            }
        }
    }
    assert!(missing <= 1, "{context}: {missing} entries are lost");
}

/// Rule 7: a tail that no flush had covered is cut off where it is torn, and is not called damage, be
/// the store new, reopened, or reopened without a write in between.
#[test]
fn a_torn_tail_is_cut_off_and_is_no_damage() {
    for reopened in 0..3 {
        let (mut disk, store, ns) = prepared();
        drop((store, ns));
        for round in 0..reopened {
            let store = reopen(&disk);
            let ns = store.find_namespace("n").unwrap();
            if round == 1 {
                ns.put("other", "v").unwrap();
            }
            drop((store, ns));
            disk = disk.crash(Cut::LOST);
        }
        let store = reopen(&disk);
        let ns = store.find_namespace("n").unwrap();
        for n in 0..8u8 {
            ns.put_with([n], vec![n; 400], &unsynced()).unwrap();
        }
        for seed in 0..40 {
            let (bytes, names) = (Unsynced::Sectors(512), Names::Kept);
            let left = reopen(&disk.crash(Cut { bytes, names, seed }));
            let damage = left.stats().damage;
            assert!(damage.is_empty(), "{reopened} {seed}: {damage:?}");
            let ns = left.find_namespace("n").unwrap();
            let found: Vec<_> = (0..8u8).map(|n| ns.get([n]).unwrap().is_some()).collect();
            assert!(found.is_sorted_by(|a, b| a >= b), "a prefix: {found:?}");
        }
    }
}

/// Rule 6: a close whose flush failed, or which was cut short, leaves nothing in the log that the next
/// open takes for durable.
#[test]
fn an_unfinished_close_is_no_damage() {
    for (fault, skip) in Fault::ALL.iter().flat_map(|f| (0..4).map(|n| (*f, n))) {
        let (disk, store, ns) = prepared();
        let seen = see(&store);
        disk.fail(skip, fault, true);
        drop((store, ns));
        disk.heal();
        drop(reopen(&disk));
        for cut in cuts() {
            let left = reopen(&disk.crash(cut));
            let damage = left.stats().damage;
            assert!(damage.is_empty(), "{fault:?} {skip} {cut:?}: {damage:?}");
            assert_eq!(see(&left), seen);
        }
    }
}

/// Rule 12: a key run counts only once the log is durable past its keys. The power is cut at every operation of the
/// checkpoint that names the run: what lists and gets show alike is one of the states before it.
#[test]
fn a_key_run_counts_only_when_the_log_is_durable_past_it() {
    let (disk, store, ns) = prepared();
    drop((store, ns));
    let store = open_alone(&disk, &clock(), Durability::None).unwrap();
    let ns = store.find_namespace("n").unwrap();
    let mut states = vec![see(&store)];
    for write in WRITES {
        write(&store, &ns).unwrap();
        states.push(see(&store));
    }
    let begun = disk.place();
    store.checkpoint().unwrap();
    let ended = disk.place();
    let (mut oldest, mut newest) = (0, 0);
    for (place, cut) in
        (begun..=ended).flat_map(|place| cuts().into_iter().map(move |c| (place, c)))
    {
        let left = reopen(&disk.crash_at(place, cut));
        assert_eq!(left.stats().damage, Vec::<String>::new());
        let seen = see(&left);
        let state = states.iter().rposition(|state| *state == seen);
        let state = state.unwrap_or_else(|| panic!("{place} {cut:?}: {seen:?}"));
        assert!(state == WRITES.len() || place < ended, "it was made");
        oldest += usize::from(state == 0);
        newest += usize::from(state == WRITES.len());
    }
    assert!(oldest > 0 && newest > 0, "nothing was durable, then all");
}

/// Rule 14: an expired entry stays hidden when a later process has a clock that is behind, since the
/// latest time is kept with the log.
#[test]
fn time_does_not_run_back_over_a_restart() {
    let (disk, store, ns) = prepared();
    let minute = PutOptions::new().expiration_ttl(Duration::from_secs(60));
    ns.put_with("k", "v", &minute).unwrap();
    store.clock().advance(61);
    assert!(ns.get("k").unwrap().is_none());
    let later = store.clock().clone();
    drop((store, ns));
    drop(open_on(&disk, &later, Durability::Immediate).unwrap());
    let store = reopen(&disk);
    assert_eq!(store.clock().now(), NOW + 61);
    let ns = store.find_namespace("n").unwrap();
    assert!(ns.get("k").unwrap().is_none());
}

/// Rule 15: a put that races a drop of its namespace is refused, or is dropped with it; a namespace made
/// later under the same name holds nothing of it.
#[test]
fn a_put_racing_a_drop_is_refused_or_dropped_with_it() {
    let disk = SimDisk::new();
    let store = open_on(&disk, &clock(), Durability::None).unwrap();
    for round in 0..30 {
        let ns = store.create_namespace("n").unwrap();
        let written = disk.done().writes;
        std::thread::scope(|scope| {
            for thread in 0..3u8 {
                let ns = &ns;
                scope.spawn(move || {
                    let refused = (0..).find_map(|n: u32| ns.put([thread], n.to_le_bytes()).err());
                    assert!(matches!(refused, Some(Error::NoSuchNamespace)));
                });
            }
            scope.spawn(|| {
                disk.await_done(|done| done.writes >= written + round * 3);
                store.drop_namespace(ns.id()).unwrap();
            });
        });
        assert!(ns.get("k").is_err());
    }
    store.create_namespace("n").unwrap();
    drop(store);
    let store = reopen(&disk);
    let keys: Vec<_> = (0..3u8).map(|n| vec![n]).collect();
    assert!(observe(&store, &keys)["n"].is_empty());
}

/// Rule 15: what identifies a namespace is never used again, also after a reopening or a cut: a new
/// namespace does not inherit the entries of one that was dropped.
#[test]
fn a_dropped_namespace_leaves_nothing_to_later_ones() {
    let mut disk = SimDisk::new();
    for round in 0..6 {
        let store = reopen(&disk);
        let ns = store.create_namespace("n").unwrap();
        assert!(see(&store)["n"].is_empty(), "round {round}");
        ns.put("k", "v").unwrap();
        ns.put("large", vec![1; 70_000]).unwrap();
        store.drop_namespace(ns.id()).unwrap();
        drop((store, ns));
        disk = disk.crash(Cut::kinds(1)[round]);
    }
}

/// Where a segment of the log holds these bytes.
fn find(disk: &SimDisk, bytes: &[u8]) -> (PathBuf, usize) {
    let holds = |path: PathBuf| {
        let all = disk.bytes(&path);
        let at = all.windows(bytes.len()).position(|w| w == bytes)?;
        Some((path, at))
    };
    let mut found = disk.files().into_iter().filter_map(holds);
    found.next().expect("bytes of a record on the disk")
}

/// Rule 16: the image of a record is a record only where it was written. Another segment's record, with
/// a higher sequence number, lies inside a value at every alignment; damage makes the scan search
/// through that value, and must not find it.
#[test]
fn a_record_image_inside_a_value_is_never_a_record() {
    let (disk, store, ns) = prepared();
    let other_disk = disk.crash(Cut::KEPT);
    let image = {
        let store = reopen(&other_disk);
        let ns = store.find_namespace("n").unwrap();
        for n in 0..30u8 {
            ns.put([n], "so that the number is high").unwrap();
        }
        ns.put("k", "a forged value").unwrap();
        let (path, at) = find(&other_disk, b"ka forged value");
        other_disk.bytes(&path)[at - 64..at + 24].to_vec()
    };
    let mut value = b"begin".to_vec();
    for shift in 0..8 {
        value.resize(value.len() + shift, 0);
        value.extend_from_slice(&image);
    }
    ns.put("other", &value).unwrap();
    ns.put("last", "so that the damage is below a durable mark")
        .unwrap();
    drop((store, ns));
    let disk = disk.crash(Cut::LOST);
    let (path, at) = find(&disk, b"otherbegin");
    disk.rot(&path, u64::try_from(at - 60).unwrap(), &[0xff]);
    let store = reopen(&disk);
    assert_eq!(store.stats().damage.len(), 1);
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(&ns.get("k").unwrap().unwrap()[..], b"old");
    assert!(ns.get("other").unwrap().is_none());
    assert!(ns.get("last").unwrap().is_some());
}

/// Rule 16: a record of another segment that is copied to the same place in this one, as a stale block
/// would be, is not taken for a record of this one.
#[test]
fn a_record_copied_from_another_segment_is_never_a_record() {
    let (disk, store, ns) = prepared();
    drop((store, ns));
    let sibling = |value: &str, seed| {
        let disk = disk.crash(Cut::LOST);
        disk.reseed(seed);
        let store = reopen(&disk);
        let ns = store.find_namespace("n").unwrap();
        ns.put("k", value).unwrap();
        ns.put("last", "v").unwrap();
        drop((store, ns));
        disk.crash(Cut::LOST)
    };
    let (one, two) = (sibling("value 1", 1), sibling("value 2", 2));
    let (from, at) = find(&two, b"kvalue 2");
    let record = two.bytes(&from)[at - 64..at + 8].to_vec();
    let (to, at) = find(&one, b"kvalue 1");
    one.rot(&to, u64::try_from(at - 64).unwrap(), &record);
    let store = reopen(&one);
    assert_eq!(store.stats().damage.len(), 1);
    let value = store.find_namespace("n").unwrap().get("k").unwrap();
    assert_ne!(value.as_deref(), Some(&b"value 2"[..]));
}

/// Rules 9 and 11: a reader without a lock always finds a key that is being overwritten, never an older
/// value than it saw before, and never a key that was deleted before it looked.
#[test]
fn readers_always_find_a_key_that_is_overwritten() {
    let disk = SimDisk::new();
    let store = open_on(&disk, &clock(), Durability::None).unwrap();
    let ns = store.create_namespace("n").unwrap();
    ns.put("k", 0u32.to_le_bytes()).unwrap();
    let number = |value: &[u8]| u32::from_le_bytes(value.try_into().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while last < 20_000 {
                    let seen = number(&ns.get("k").unwrap().expect("always there"));
                    assert!(seen >= last, "{seen} after {last}");
                    last = seen;
                    let page = ns.list(&ListOptions::new().prefix("k")).unwrap();
                    assert_eq!(page.len(), 1);
                }
            });
        }
        scope.spawn(|| {
            for n in 1..=20_000u32 {
                ns.put("k", n.to_le_bytes()).unwrap();
                let passing = format!("passing {n}");
                ns.put(&passing, "v").unwrap();
                assert!(ns.delete(&passing).unwrap());
                assert!(ns.get(&passing).unwrap().is_none());
            }
        });
    });
}

/// Rule 10: conditions are decided in commit order, against writes that are queued too: no increment
/// that was acknowledged is lost, and none is counted that was refused.
#[test]
fn increments_under_a_condition_are_never_lost() {
    let disk = SimDisk::new();
    let store = open_on(&disk, &clock(), Durability::None).unwrap();
    let ns = store.create_namespace("n").unwrap();
    ns.put("k", 0u32.to_le_bytes()).unwrap();
    let increment = || {
        let entry = ns.get_with_metadata("k").unwrap().unwrap();
        let count = u32::from_le_bytes(entry.value()[..].try_into().unwrap()) + 1;
        let options = PutOptions::new().if_generation(entry.generation());
        match ns.put_with("k", count.to_le_bytes(), &options) {
            Ok(_) => 1,
            Err(Error::Conflict { .. }) => 0,
            Err(other) => panic!("{other}"),
        }
    };
    let counted: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..2_000).map(|_| increment()).sum::<u32>()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(&ns.get("k").unwrap().unwrap()[..], counted.to_le_bytes());
}

/// A full disk fails writes with `Full` and nothing else: reads and deletes go on, a write that was
/// refused leaves neither bytes nor files, and writing works again once there is space, without
/// reopening.
#[test]
fn a_full_disk_stops_only_writing() {
    [0, 1].into_iter().for_each(fill_up);
}

fn fill_up(mapped_from: u64) {
    let (disk, store, ns) = prepared_and_mapped_from(mapped_from);
    disk.limit(Some(disk.bytes_used() + 40_000));
    let mut written = 0u32;
    let refused = loop {
        match ns.put(written.to_le_bytes(), vec![5; 30_000]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full), "{refused}");
    // To the last record that fits.
    let refused = (0u32..).find_map(|n| ns.put((!n).to_le_bytes(), "").err());
    assert!(matches!(refused, Some(Error::Full)), "{refused:?}");
    assert!(ns.delete(0u32.to_le_bytes()).unwrap(), "from the reserve");
    for write in WRITES {
        let (seen, used) = (see(&store), disk.bytes_used());
        // A small write may still fit into space that was reserved before.
        if let Err(error) = write(&store, &ns) {
            assert!(matches!(error, Error::Full), "{error}");
            assert_eq!((see(&store), disk.bytes_used()), (seen, used));
        }
    }
    assert!(!store.stats().poisoned);
    assert!((1..written).all(|n| ns.get(n.to_le_bytes()).unwrap().is_some()));
    disk.limit(None);
    ns.put("k", "there is space again").unwrap();
    ns.put("large", vec![8; 100_000]).unwrap();
    let seen = see(&store);
    assert_eq!(see(&reopen(&disk.crash(Cut::LOST))), seen);
}

/// A large value that is refused, by a condition or a full disk, gives its space back at once.
#[test]
fn a_refused_large_value_gives_its_space_back() {
    let (disk, store, ns) = prepared();
    let used = disk.bytes_used();
    let absent = PutOptions::new().if_absent();
    let refused = ns.put_with("k", vec![1; 200_000], &absent);
    assert!(matches!(refused, Err(Error::Conflict { .. })));
    assert_eq!(disk.bytes_used(), used, "after a conflict");
    let mut batch = WriteBatch::new();
    batch.put(&ns, "large", vec![1; 200_000]);
    batch.put_with(&ns, "k", vec![1; 200_000], &absent);
    store.write(batch).unwrap_err();
    assert_eq!(disk.bytes_used(), used, "after a conflict in a batch");
    disk.limit(Some(used + 100_000));
    let refused = ns.put("large", vec![1; 200_000]);
    assert!(matches!(refused, Err(Error::Full)));
    assert_eq!(disk.bytes_used(), used, "after a full disk");
    let mut batch = WriteBatch::new();
    batch.put(&ns, "k", vec![1; 70_000]);
    batch.put(&ns, "large", vec![1; 70_000]);
    assert!(matches!(store.write(batch), Err(Error::Full)));
    assert_eq!(disk.bytes_used(), used, "after a full disk in a batch");
}

/// A store that was being created when the power went opens as a new, empty one, and works.
#[test]
fn a_cut_while_a_store_is_created_leaves_an_empty_one() {
    let disk = SimDisk::new();
    drop(reopen(&disk));
    for place in 0..=disk.place() {
        for cut in cuts() {
            let left = disk.crash_at(place, cut);
            let store = reopen(&left);
            assert!(see(&store).is_empty() && store.stats().damage.is_empty());
            let ns = store.create_namespace("n").unwrap();
            ns.put("k", "v").unwrap();
            let seen = see(&store);
            assert_eq!(
                see(&reopen(&left.crash(Cut::LOST))),
                seen,
                "{place} {cut:?}"
            );
        }
    }
}

/// An operation that fails while a store is created makes the open fail, or takes nothing from what is
/// acknowledged afterwards: a cut at once leaves it there.
#[test]
fn a_failed_operation_while_a_store_is_created_costs_nothing() {
    for (fault, lasting) in Fault::ALL.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        for skip in 0.. {
            let disk = SimDisk::new();
            disk.fail(skip, fault, lasting);
            let opened = open_on(&disk, &clock(), Durability::Immediate);
            let hit = disk.failures() > 0;
            disk.heal();
            let store = opened.unwrap_or_else(|_| reopen(&disk));
            let ns = store.create_namespace("n").unwrap();
            ns.put("k", "v").unwrap();
            let seen = see(&store);
            let left = reopen(&disk.crash(Cut::LOST));
            assert_eq!(see(&left), seen, "{fault:?} at {skip}, lasting: {lasting}");
            if !hit {
                break;
            }
        }
    }
}
