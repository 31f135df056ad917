//! Logs that nobody writes, though all their checksums are right.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::{TempDir, tempdir};

use super::files::{Chain, Files};
use super::replay::{CROWDED, Replay, UNREAD};
use super::salvage;
use crate::damage::Damage;
use crate::format::lists::{Move, Relocation, Retire};
use crate::format::record::{Address, Kind};
use crate::format::segment::{HEADER_LEN, SEGMENT_LEN};
use crate::index::table::Location;
use crate::log::commit::Op;
use crate::log::scan::{Scan, Step};
use crate::log::segment::{Segment, segment_path};
use crate::vfs::{Map, OsVfs, Vfs, VfsFile};
use crate::{Clock, Durability, Error, Namespace, Options, Store};

fn open(dir: &Path) -> (Store, Namespace) {
    let store = Options::new().clock(Clock::manual(1)).open(dir).unwrap();
    let ns = store.namespace("n").unwrap();
    (store, ns)
}

fn close(store: Store, ns: Namespace) {
    drop(ns);
    store.close().unwrap();
}

fn remove_what_is_derived(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "seg") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// What a process leaves that is killed now.
fn copy(dir: &Path) -> TempDir {
    let killed = tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    killed
}

/// A store with a key, this record, and another key.
fn with_record(kind: Kind, body: Vec<u8>) -> TempDir {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    store.checkpoint().unwrap();
    ns.put("before", "value").unwrap();
    let op = Op::keyless(kind, 9, body);
    ns.core().commit(vec![op], true).unwrap();
    ns.put("after", "value").unwrap();
    close(store, ns);
    dir
}

#[test]
fn a_record_whose_body_says_nothing_changes_nothing() {
    for kind in [Kind::Namespace, Kind::Retire, Kind::Move] {
        let dir = with_record(kind, vec![7; 3]);
        for is_rebuilt in [false, true] {
            if is_rebuilt {
                remove_what_is_derived(dir.path());
            }
            let (store, ns) = open(dir.path());
            assert_eq!(store.stats().damage, Vec::<String>::new());
            assert_eq!(store.namespaces().len(), 1);
            for key in ["before", "after"] {
                assert_eq!(&ns.get(key).unwrap().unwrap()[..], b"value", "{kind:?}");
            }
            close(store, ns);
        }
    }
}

/// A store of which compaction copied the odd ones of forty keys; where the copies of 1 and 3 lie, and the number of
/// their namespace.
fn with_copies() -> (TempDir, Store, Namespace, Arc<Segment>, [u32; 2], u32) {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    for key in 0..40u8 {
        ns.put([key], [key; 1000]).unwrap();
    }
    for key in (0..40u8).step_by(2) {
        ns.delete([key]).unwrap();
    }
    store.compact().unwrap();
    let all = ns.core().segments.all();
    let (_, class) = all.iter().find(|(_, s)| s.class.is_some()).unwrap();
    let mut scan = Scan::of_class(class);
    let (mut places, mut number) = ([0; 2], 0);
    loop {
        match scan.step() {
            Step::Record { offset, record, .. } => {
                number = record.header.namespace;
                if let [key @ (1 | 3)] = record.key {
                    places[usize::from(*key / 2)] = u32::try_from(offset).unwrap();
                }
            }
            Step::End { .. } => break,
            Step::Damage { .. } => panic!("it is intact"),
        }
    }
    let class = Arc::clone(class);
    (dir, store, ns, class, places, number)
}

/// Commits a move within a class segment, for which nobody copied anything.
fn commit_move(ns: &Namespace, class: &Segment, hash: u64, places: &[u32]) {
    let relocation = |new: &u32| Relocation {
        hash,
        old: 128,
        new: *new,
        len: 1072,
        expires: 0,
    };
    let moved = Move {
        from: class.id,
        to: class.id,
        len: u32::try_from(class.published()).unwrap(),
        relocations: places.iter().map(relocation).collect(),
        ..Move::default()
    };
    let op = Op::keyless(Kind::Move, 0, moved.encode());
    ns.core().commit(vec![op], true).unwrap();
}

/// What `with_copies` put is there.
fn assert_odd_keys(ns: &Namespace) {
    for key in 0..40u8 {
        let value = ns.get([key]).unwrap().map(|value| value.to_vec());
        assert_eq!(value, (key % 2 == 1).then(|| vec![key; 1000]));
    }
}

#[test]
fn a_move_to_places_where_no_record_can_be_moves_nothing() {
    let (dir, store, ns, class, ..) = with_copies();
    let end = u32::try_from(SEGMENT_LEN).unwrap();
    commit_move(&ns, &class, 1, &[132, end, u32::MAX - 7]);
    let killed = copy(dir.path());
    close(store, ns);
    for is_rebuilt in [false, true] {
        if is_rebuilt {
            remove_what_is_derived(killed.path());
        }
        let (store, ns) = open(killed.path());
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert_odd_keys(&ns);
        close(store, ns);
    }
}

/// Where the record is damaged that says what was copied out of a segment, the segment stays, whoever says that it was
/// retired; and the next retirement lists it.
#[test]
fn a_rebuild_takes_in_a_segment_that_was_retired_and_stayed() {
    for is_said_again in [false, true] {
        let (dir, store, ns, class, ..) = with_copies();
        let all = ns.core().segments.all();
        let classes = all.iter().filter(|(_, s)| s.class.is_some() && s.end() > 0);
        let classes: Vec<_> = classes
            .map(|(_, segment)| Address {
                segment: segment.id,
                offset: u32::try_from(segment.end()).unwrap(),
            })
            .collect();
        let commit = |victims: Vec<u64>, classes: Vec<Address>| {
            let retire = Retire {
                victims,
                holes: Vec::new(),
                classes,
            };
            let op = Op::keyless(Kind::Retire, 0, retire.encode());
            ns.core().commit(vec![op], true).unwrap();
        };
        if is_said_again {
            commit(vec![class.id], Vec::new());
            commit(Vec::new(), classes);
        } else {
            commit(vec![class.id], classes);
        }
        let killed = copy(dir.path());
        drop((all, class));
        close(store, ns);
        remove_what_is_derived(killed.path());
        for _ in 0..2 {
            let (store, ns) = open(killed.path());
            assert_odd_keys(&ns);
            close(store, ns);
        }
    }
}

/// It stayed, and the checkpoint that was made then has it.
#[test]
fn a_repair_takes_in_a_segment_that_was_retired_and_is_in_use() {
    let (dir, store, ns, class, ..) = with_copies();
    let retire = Retire {
        victims: vec![class.id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], true).unwrap();
    store.checkpoint().unwrap();
    drop(class);
    close(store, ns);
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
    let salvaged = salvage(&vfs, dir.path(), &Clock::manual(1)).unwrap();
    assert_eq!(salvaged.core.table.len(), 20);
}

/// The same of one that users wrote to, of which the log does not say what is part of the store.
#[test]
fn a_repair_takes_in_a_segment_of_the_log_that_was_retired_and_is_in_use() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    let victims = vec![ns.core().log.lock().active().1.id];
    close(store, ns);
    let (store, ns) = open(dir.path());
    let retire = Retire {
        victims,
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], true).unwrap();
    store.checkpoint().unwrap();
    ns.put("after", "value").unwrap();
    close(store, ns);
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
    let salvaged = salvage(&vfs, dir.path(), &Clock::manual(1)).unwrap();
    assert_eq!(salvaged.core.table.len(), 2);
}

/// Ids of the segments that wait to be removed.
fn waiting(store: &Store) -> Vec<u64> {
    let state = store.core().maintenance.lock();
    state.retired.iter().map(|retired| retired.id).collect()
}

#[test]
fn a_retired_segment_is_removed_by_the_process_after_the_one_that_retired_it() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    let id = ns.core().log.lock().active().1.id;
    close(store, ns);
    let options = || Options::new().clock(Clock::manual(1)).without_threads();
    let store = options().open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    store.checkpoint().unwrap();
    ns.put("key", "newer").unwrap();
    let retire = Retire {
        victims: vec![id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], true).unwrap();
    ns.put("after", "value").unwrap();
    let killed = copy(dir.path());
    close(store, ns);
    let reader = options().open_read_only(killed.path()).unwrap();
    assert_eq!(waiting(&reader), [id], "a backup takes it along");
    drop(reader);
    let rebuilt = copy(killed.path());
    remove_what_is_derived(rebuilt.path());
    assert_eq!(waiting(&options().open(rebuilt.path()).unwrap()), [id]);
    let store = options().open(killed.path()).unwrap();
    assert_eq!(waiting(&store), [id]);
    store.checkpoint().unwrap();
    assert_eq!(waiting(&store), [id], "the older checkpoint needs it");
    let gone = copy(killed.path());
    std::fs::remove_file(segment_path(gone.path(), id)).unwrap();
    assert_eq!(waiting(&options().open(gone.path()).unwrap()), []);
    store.checkpoint().unwrap();
    assert!(!segment_path(killed.path(), id).exists());
}

#[test]
fn who_reads_knows_that_the_log_went_on_in_another_segment() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    let options = Options::new().clock(Clock::manual(1));
    let reader = options.open_read_only(dir.path()).unwrap();
    assert!(!reader.core().is_outdated().unwrap());
    let core = ns.core();
    core.rotate(&mut core.log.lock()).unwrap();
    assert!(reader.core().is_outdated().unwrap());
    let error = reader.core().outdated(Error::NoSuchNamespace);
    assert!(
        matches!(error, Error::NoSuchNamespace),
        "it tells nothing of files"
    );
    close(store, ns);
}

/// A class segment that another process is given is as long as it is, whatever the checkpoint says.
#[test]
fn a_segment_that_is_opened_is_no_longer_than_its_file() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    let id = ns.core().log.lock().active().1.id;
    close(store, ns);
    let path = segment_path(dir.path(), id);
    let len = path.metadata().unwrap().len();
    let opened = super::open_segment(&OsVfs, dir.path(), id, len + 8).unwrap();
    assert_eq!(opened.published(), len);
    std::fs::remove_file(path).unwrap();
    let gone = super::open_segment(&OsVfs, dir.path(), id, len).map(drop);
    assert!(matches!(gone, Err(Error::Io { .. })), "{gone:?}");
}

/// So the next checkpoint is due when it would have been.
#[test]
fn what_was_replayed_counts_as_written_since_the_checkpoint() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    for n in 0..10u8 {
        ns.put([n], [n; 10_000]).unwrap();
    }
    let written = ns.core().log.lock().since_checkpoint;
    let killed = copy(dir.path());
    close(store, ns);
    let (store, ns) = open(killed.path());
    let replayed = ns.core().log.lock().since_checkpoint;
    assert!((100_000..=written).contains(&replayed), "{replayed}");
    close(store, ns);
}

/// A copy of the directory as it is, but with another byte in the log's newest segment, where this value begins.
fn copy_damaged(dir: &Path, ns: &Namespace, value: &[u8]) -> TempDir {
    let killed = copy(dir);
    let front = ns.core().log.lock().active().1.path.clone();
    let front = killed.path().join(front.file_name().unwrap());
    let mut log = std::fs::read(&front).unwrap();
    let at = log.windows(value.len()).position(|w| w == value).unwrap();
    log[at] ^= 1;
    std::fs::write(&front, log).unwrap();
    killed
}

/// Where the log is damaged, a record of it may have named the segment.
#[test]
fn a_segment_whose_header_is_damaged_stays_while_the_log_may_have_named_it() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    close(store, ns);
    let (store, ns) = open(dir.path());
    store.checkpoint().unwrap();
    ns.put("damaged", "damaged value").unwrap();
    ns.put("after", "value").unwrap();
    let whole = copy(dir.path());
    let damaged = copy_damaged(dir.path(), &ns, b"damaged value");
    close(store, ns);
    for (killed, stays) in [(whole, false), (damaged, true)] {
        let class = segment_path(killed.path(), (1 << 32) + 9);
        std::fs::write(&class, [7; 1000]).unwrap();
        let (store, ns) = open(killed.path());
        assert_eq!(store.stats().damage.len(), usize::from(stays));
        assert_eq!(class.exists(), stays);
        close(store, ns);
    }
}

/// Without other damage the store does not open; with it, the segment may have been retired by what is damaged.
#[test]
fn a_move_to_a_segment_that_is_gone_is_told() {
    let (dir, store, ns, class, ..) = with_copies();
    ns.put("damaged", "damaged value").unwrap();
    let moved = Move {
        from: class.id,
        to: class.id + 7,
        ..Move::default()
    };
    let op = Op::keyless(Kind::Move, 0, moved.encode());
    ns.core().commit(vec![op], true).unwrap();
    ns.put("after", "value").unwrap();
    let whole = copy(dir.path());
    let damaged = copy_damaged(dir.path(), &ns, b"damaged value");
    close(store, ns);
    for (killed, is_damaged) in [(whole, false), (damaged, true)] {
        let gone = segment_path(killed.path(), moved.to);
        let options = Options::new().clock(Clock::manual(1));
        let store = match options.open(killed.path()) {
            Ok(store) if is_damaged => store,
            Err(Error::Corrupt { path, .. }) if !is_damaged && path == gone => continue,
            opened => panic!("{:?}", opened.err()),
        };
        let told = store.stats().damage;
        let name = gone.file_name().unwrap().to_str().unwrap();
        assert!(told.iter().any(|damage| damage.contains(name)), "{told:?}");
        let ns = store.namespace("n").unwrap();
        assert_eq!(&ns.get("after").unwrap().unwrap()[..], b"value");
        assert_odd_keys(&ns);
        close(store, ns);
    }
}

/// A disk that says that it could not read all of each file up to there; what is there is lent all the same.
struct Unreadable(u64);

struct UnreadableFile(Box<dyn VfsFile>, u64);

impl Vfs for Unreadable {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsVfs.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsVfs.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        OsVfs.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(UnreadableFile(OsVfs.open(path)?, self.0)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
}

impl VfsFile for UnreadableFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn map(&self, len: usize) -> io::Result<Map> {
        Ok(self.0.map(len)?.unread_before(self.1.min(len as u64)))
    }
    fn map_private(&self) -> io::Result<Map> {
        self.0.map_private()
    }
    fn is_resident(&self, offset: u64, len: usize) -> bool {
        self.0.is_resident(offset, len)
    }
}

/// Records may lie there that were acknowledged: that is told, and no number is given out twice.
#[test]
fn an_end_of_the_log_that_cannot_be_read_is_told() {
    const UNREAD_END: u64 = 64 << 10;
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    let kept = ns.put("kept", "value").unwrap();
    let (path, end) = {
        let log = ns.core().log.lock();
        let segment = &log.active().1;
        (segment.path.clone(), segment.published())
    };
    let last = (0..9u8).fold(0, |_, n| ns.put([n], "value").unwrap());
    let killed = copy(dir.path());
    close(store, ns);
    let front = killed.path().join(path.file_name().unwrap());
    let mut log = std::fs::read(&front).unwrap();
    log[usize::try_from(end).unwrap()..].fill(0);
    std::fs::write(&front, log).unwrap();

    let options = |unread| Options::new().vfs(Arc::new(Unreadable(unread)));
    let read = options(end).scrub(killed.path(), |_, _| {}).unwrap();
    assert_eq!(read.len(), 0, "all of the log could be read: {read:?}");
    let options = options(UNREAD_END).clock(Clock::manual(1));
    let store = options.open(killed.path()).unwrap();
    let told = store.stats().damage;
    assert!(
        matches!(&told[..], [one] if one.contains(UNREAD)),
        "{told:?}"
    );
    let ns = store.namespace("n").unwrap();
    assert_eq!(&ns.get("kept").unwrap().unwrap()[..], b"value");
    let most = kept + (UNREAD_END - end) / 64 + 2;
    assert!((last + 1..=most).contains(&ns.put("later", "value").unwrap()));
    close(store, ns);
}

/// What lies behind the end that the next segment names was no record, whether or not it can be read.
#[test]
fn what_cannot_be_read_behind_a_segment_that_is_not_the_last_takes_no_numbers() {
    let dir = tempdir().unwrap();
    for key in ["one", "two"] {
        let (store, ns) = open(dir.path());
        ns.put(key, "value").unwrap();
        close(store, ns);
    }
    let files = Files::list(&OsVfs, dir.path()).unwrap();
    let last = files.segments.into_values().next_back().unwrap();
    let end = std::fs::read(&last).unwrap().len() as u64;
    let options = Options::new().vfs(Arc::new(Unreadable(end)));
    let store = options.clock(Clock::manual(1)).open(dir.path()).unwrap();
    let ns = store.namespace("n").unwrap();
    for key in ["one", "two"] {
        assert_eq!(&ns.get(key).unwrap().unwrap()[..], b"value");
    }
    let told = store.stats().damage;
    let names_last = |told: &String| told.contains(last.file_name().unwrap().to_str().unwrap());
    assert!(told.iter().all(names_last), "{told:?}");
    close(store, ns);
}

/// With damage in the log a copy takes the slot of an older version of its key, and no other.
#[test]
fn a_move_over_damage_takes_the_slot_of_nothing_newer_and_of_no_other_key() {
    let (dir, store, ns, class, copies, number) = with_copies();
    ns.put([1], "newer").unwrap();
    ns.put("damaged", "damaged value").unwrap();
    let hash = ns.core().hash(number, &[1]);
    commit_move(&ns, &class, hash, &copies);
    ns.put("after", "value").unwrap();
    let killed = copy_damaged(dir.path(), &ns, b"damaged value");
    close(store, ns);
    let (store, ns) = open(killed.path());
    assert_eq!(store.stats().damage.len(), 1);
    assert_eq!(&ns.get([1]).unwrap().unwrap()[..], b"newer");
    assert_eq!(ns.get([3]).unwrap().unwrap()[..], [3; 1000]);
    close(store, ns);
}

/// A key is another's if its namespace is, or if it is another key; whatever slots of one hash there are.
#[test]
fn a_put_over_damage_takes_the_slot_of_no_other_key() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    let other = store.namespace("other").unwrap();
    ns.put("key", "value").unwrap();
    other.put("key", "value of another namespace").unwrap();
    ns.put("another", "value").unwrap();
    drop(other);
    close(store, ns);
    let files = Files::list(&OsVfs, dir.path()).unwrap();
    let chain = Chain::read(&OsVfs, &files, 0, Err).unwrap();
    let front = chain.fronts.into_iter().next().unwrap();
    let (len, mut replay) = (front.len, Replay::new(front.header.store));
    let segment = replay.add(front, len).unwrap();
    let mut scan = Scan::new(&segment, HEADER_LEN as u64, 0, 0);
    let mut puts = Vec::new();
    loop {
        match scan.step() {
            Step::Record { offset, record, .. } if record.header.kind == Kind::Put => {
                puts.push((u32::try_from(offset).unwrap(), record));
            }
            Step::End { .. } => break,
            _ => {}
        }
    }
    // Each hash leads to the other two first, as a rebuild may find it.
    for (at, (_, record)) in puts.iter().enumerate() {
        let others = puts.iter().enumerate().filter(|(other, _)| *other != at);
        for (_, (offset, _)) in others {
            let (segment, offset) = (segment.id, *offset);
            let place = replay.location(Address { segment, offset });
            assert!(replay.table.insert(replay.hash(record), place.unwrap()));
        }
    }
    for (offset, record) in &puts {
        replay.claim(record, &segment, *offset);
    }
    assert_eq!(replay.table.len(), 9, "each has a slot of its own");
    // As if all had one, and with them a record that nobody can read.
    let unread = Address {
        segment: segment.id,
        offset: puts[0].0 + 8,
    };
    assert!(replay.table.insert(7, replay.location(unread).unwrap()));
    let damage = Damage::at(&segment.path, 0, "somewhere");
    replay.damage.push(damage);
    for (offset, record) in &puts {
        replay.apply(record, 7, &segment, *offset);
    }
    assert_eq!(replay.table.len(), 13);
}

/// What it says of itself afterwards is not found; it opens, and goes on in another segment.
#[test]
fn a_log_that_goes_on_in_a_segment_that_it_retired_opens() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    store.checkpoint().unwrap();
    let retire = Retire {
        victims: vec![ns.core().log.lock().active().1.id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], true).unwrap();
    ns.put("key", "in a segment that is gone").unwrap();
    close(store, ns);
    for _ in 0..2 {
        let (store, ns) = open(dir.path());
        assert!(ns.get("key").unwrap().is_none());
        ns.put("later", "value").unwrap();
        assert!(ns.get("later").unwrap().is_some());
        store.checkpoint().unwrap();
        close(store, ns);
    }
}

/// Nothing says that it is durable, so it is written again; and its segment goes, which would have gone for that.
#[test]
fn a_log_that_retires_a_segment_of_which_nothing_is_durable_opens() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    close(store, ns);
    let options = Options::new().clock(Clock::manual(1));
    let store = options.durability(Durability::None).open(dir.path());
    let store = store.unwrap();
    let ns = store.namespace("n").unwrap();
    ns.put("key", "value").unwrap();
    let retire = Retire {
        victims: vec![ns.core().log.lock().active().1.id],
        ..Retire::default()
    };
    let op = Op::keyless(Kind::Retire, 0, retire.encode());
    ns.core().commit(vec![op], false).unwrap();
    let killed = copy(dir.path());
    for _ in 0..2 {
        let (store, ns) = open(killed.path());
        assert_eq!(store.stats().damage, Vec::<String>::new());
        assert_eq!(&ns.get("key").unwrap().unwrap()[..], b"value");
        close(store, ns);
    }
}

/// Nobody can make keys of one hash, which has a secret seed. But what cannot be had is told.
#[test]
fn a_key_for_which_there_is_no_slot_is_told() {
    let dir = tempdir().unwrap();
    let (store, ns) = open(dir.path());
    ns.put("key", "value").unwrap();
    close(store, ns);
    for is_rebuilt in [false, true] {
        let files = Files::list(&OsVfs, dir.path()).unwrap();
        let chain = Chain::read(&OsVfs, &files, 0, Err).unwrap();
        let front = chain.fronts.into_iter().next().unwrap();
        let (len, mut replay) = (front.len, Replay::new(front.header.store));
        let segment = replay.add(front, len).unwrap();
        let mut scan = Scan::new(&segment, HEADER_LEN as u64, 0, 0);
        let (offset, record) = loop {
            match scan.step() {
                Step::Record { offset, record, .. } if record.key == b"key" => {
                    break (u32::try_from(offset).unwrap(), record);
                }
                Step::End { .. } => panic!("the key is there"),
                _ => {}
            }
        };
        let hash = replay.hash(&record);
        let mut others = (1..10_000).map(|n| Location::new(9, 8 * n));
        assert!(others.any(|other| !replay.table.insert(hash, other)));
        match is_rebuilt {
            false => replay.apply(&record, hash, &segment, offset),
            true => replay.claim(&record, &segment, offset),
        }
        let [damage] = &replay.damage[..] else {
            panic!("{} damages", replay.damage.len())
        };
        assert_eq!((damage.reason, damage.offset), (CROWDED, offset.into()));
    }
}

#[test]
fn each_store_has_an_id_and_a_secret_of_its_own() {
    let new = || super::new_store_id(&OsVfs).unwrap();
    let (one, other) = (new(), new());
    assert_ne!(one.id, other.id);
    assert_ne!(one.secret, other.secret);
}
