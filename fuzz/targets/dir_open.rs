//! A directory of a real store, damaged or forged, is refused or opens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rimstone::fuzzing::{Input, reseal_checkpoint, reseal_run};
use rimstone::{Clock, Error, ListOptions, Options, Store, Vfs};
use rimstone_tests::{DIR, SimDisk};

use crate::history::{Entry, Files, History, State, size};

/// When the fixtures were written, as they see it.
const THEN: u64 = 1_700_000_000;
/// The key that the target itself puts.
const NEW: &[u8] = b"put after damage";

struct Fixture {
    files: Files,
    history: History,
}

fn fixtures() -> &'static [Fixture] {
    static FIXTURES: OnceLock<Vec<Fixture>> = OnceLock::new();
    FIXTURES.get_or_init(|| ["full", "smallest"].map(read).into())
}

fn read(name: &str) -> Fixture {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = dir.join("../tests/fixtures").join(name);
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).expect("the fixtures") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        files.insert(name.into_owned(), std::fs::read(&path).expect("a file"));
    }
    let history = History::read(&files);
    Fixture { files, history }
}

/// The first byte says which store and how it is changed; then come the changes.
///
/// *Damage* is what disks do, and nothing that is seen may be wrong: every entry was once put just so,
/// and unless damage is reported the state is one of the store's own, no older than what intact records
/// prove. *Forgery* has its checksums put right: then only panics, memory and time count.
pub fn dir_open(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let fixture = &fixtures()[usize::from(mode & 1)];
    let (forged, again) = (mode & 2 != 0, mode & 4 != 0);
    let mut files = fixture.files.clone();
    let mut changes = 0;
    while !input.is_empty() && changes < 32 {
        change(&mut files, &fixture.history, &mut input);
        changes += 1;
    }
    if forged {
        files.iter_mut().for_each(|(name, bytes)| {
            let places = fixture.history.records.iter();
            let places = places.filter(|place| place.file == *name);
            reseal(name, bytes, places.map(|place| place.offset));
        });
    }
    let disk = disk(&files);
    let Some(store) = open(&disk, forged) else {
        return;
    };
    let seen = observe(&store, &fixture.history, forged);
    if !forged {
        check(&seen, &files, fixture);
    }
    let new = store.namespaces().first().is_some_and(|ns| {
        let put = ns.put(NEW, "new");
        assert!(
            forged || put.is_ok(),
            "a store that opens can be written: {put:?}"
        );
        put.is_ok()
    });
    if forged {
        let _ = store.checkpoint();
        let _ = store.compact();
    }
    drop(store);
    if !again {
        return;
    }
    let store = open(&disk, forged);
    if forged {
        return;
    }
    let store = store.expect("what opened opens again");
    let mut seen_again = observe(&store, &fixture.history, forged);
    let before = seen_again.state.1.len();
    seen_again.state.1.retain(|name, _| name.1 != NEW);
    let found = seen_again.state.1.len() + 1 == before;
    assert!(found == new || seen_again.reported, "the new entry");
    if !seen.reported {
        assert!(!seen_again.reported, "damage is reported by the first open");
        assert_eq!(seen.state, seen_again.state);
    }
}

fn change(files: &mut Files, history: &History, input: &mut Input<'_>) {
    let kind = input.u8();
    let count = files.len();
    let Some(name) = files.keys().nth(input.below(count.max(1))).cloned() else {
        return;
    };
    let other = files.keys().nth(input.below(count)).cloned();
    let other = other.expect("below the count");
    let bytes = files.get_mut(&name).expect("its name");
    let len = bytes.len();
    // From the start, or from the end.
    let at = input.u32() as usize;
    let at = if at & 1 == 0 {
        (at >> 1) % (len + 1)
    } else {
        len.saturating_sub(at >> 1 & 0xffff)
    };
    match kind % 10 {
        0 => {
            let bit = input.u8() & 7;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let new = input.string();
            let places = bytes.iter_mut().skip(at);
            places.zip(new).for_each(|(byte, new)| *byte = *new);
        }
        2 => {
            let end = at.saturating_add(input.u16().into()).min(len);
            bytes[at..end].fill(0);
        }
        3 => bytes.truncate(at),
        4 => {
            let part = files[&other].clone();
            let from = input.below(part.len() + 1);
            let part = part.iter().skip(from).take(input.u16().into());
            let places = files.get_mut(&name).into_iter().flatten().skip(at);
            places.zip(part).for_each(|(byte, new)| *byte = *new);
        }
        5 => {
            let (a, b) = (at / 512 * 512, input.below(len + 1) / 512 * 512);
            let swapped = (a.min(b), a.max(b));
            if swapped.0 != swapped.1 && swapped.1 + 512 <= len {
                let (low, high) = bytes.split_at_mut(swapped.1);
                low[swapped.0..swapped.0 + 512].swap_with_slice(&mut high[..512]);
            }
        }
        6 => drop(files.remove(&name)),
        7 => {
            let copy = bytes.clone();
            files.insert(other, copy);
        }
        8 => bytes.extend_from_slice(input.string()),
        _ => {
            // In a record, where most files have few bytes.
            let place = &history.records[input.below(history.records.len())];
            let at = place.offset + input.below(place.len);
            let bit = input.u8() & 7;
            let byte = files.get_mut(&place.file).and_then(|b| b.get_mut(at));
            if let Some(byte) = byte {
                *byte ^= 1 << bit;
            }
        }
    }
}

/// Puts checksums right, so that what lies behind them is looked at.
fn reseal(name: &str, bytes: &mut [u8], records: impl Iterator<Item = usize>) {
    let checksum = |bytes: &mut [u8], from: usize, to: usize, at: usize| {
        if let Some(covered) = bytes.get(from..to) {
            let crc = crc32fast::hash(covered);
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&crc.to_le_bytes());
            }
        }
    };
    match name.split_once('.').map_or("", |(_, kind)| kind) {
        "seg" => {
            checksum(bytes, 0, 124, 124);
            for offset in records {
                reseal_record(bytes, offset);
            }
        }
        "large" => checksum(bytes, 0, 124, 124),
        "run" => reseal_run(bytes),
        "ckpt" => reseal_checkpoint(bytes),
        _ => {}
    }
}

fn reseal_record(bytes: &mut [u8], offset: usize) {
    if bytes.len() < offset + 64 {
        return;
    }
    let seed = [&bytes[12..16], &bytes[64..72]].concat();
    let at = u32::try_from(offset).expect("a small file");
    let record = &mut bytes[offset..];
    let key_end = 64 + size(record, 6, 2);
    let body_end = key_end + size(record, 8, 4);
    let Some(body) = record.get(key_end..body_end) else {
        return;
    };
    let crc = crc32fast::hash(body);
    record[36..40].copy_from_slice(&crc.to_le_bytes());
    let covered = [&seed, &at.to_le_bytes()[..], &record[4..key_end]].concat();
    let crc = crc32fast::hash(&covered);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

fn disk(files: &Files) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).expect("in memory");
    for (name, bytes) in files {
        let file = disk.create(&PathBuf::from(DIR).join(name));
        let file = file.expect("in memory");
        file.write_at(bytes, 0).expect("in memory");
    }
    disk
}

fn open(disk: &SimDisk, forged: bool) -> Option<Store> {
    let options = Options::new().clock(Clock::manual(THEN));
    match options.vfs(Arc::new(disk.clone())).open(DIR) {
        Ok(store) => Some(store),
        Err(Error::Corrupt { .. }) => None,
        Err(error) => {
            assert!(forged, "damage is {error:?}");
            None
        }
    }
}

/// What a store shows, and whether it says that something is damaged.
struct Seen {
    state: State,
    reported: bool,
}

fn observe(store: &Store, history: &History, forged: bool) -> Seen {
    let mut seen = Seen {
        state: State::default(),
        reported: !store.stats().damage.is_empty(),
    };
    let mut report = |error: &Error| {
        assert!(
            forged || matches!(error, Error::Corrupt { .. }),
            "{error:?}"
        );
        seen.reported = true;
    };
    let mut listed = BTreeMap::new();
    for ns in store.namespaces().iter().take(16) {
        seen.state.0.insert(ns.name());
        for key in history.keys.iter().map(|key| &key[..]).chain([NEW]) {
            match ns.get_with_metadata(key) {
                Ok(None) => {}
                Ok(Some(entry)) => {
                    let entry = Entry {
                        value: entry.value().to_vec(),
                        metadata: entry.metadata().to_vec(),
                        expiration: entry.expiration().unwrap_or(0),
                        generation: entry.generation(),
                    };
                    let own =
                        key == NEW || history.entries.contains(&(key.to_vec(), entry.clone()));
                    assert!(own || forged, "{key:?} never was {entry:?}");
                    seen.state.1.insert((ns.name(), key.to_vec()), entry);
                }
                Err(error) => report(&error),
            }
        }
        let mut options = ListOptions::new().limit(2);
        loop {
            match ns.list(&options) {
                Ok(page) => {
                    for key in page.keys() {
                        let name = (ns.name(), key.name.to_vec());
                        let rest = (key.metadata.to_vec(), key.expiration);
                        let before = listed.insert(name, rest);
                        assert!(before.is_none() || forged, "listed twice");
                    }
                    let Some(cursor) = page.cursor else { break };
                    options = options.cursor(cursor);
                }
                Err(error) => {
                    report(&error);
                    break;
                }
            }
            if listed.len() > 1000 {
                break;
            }
        }
    }
    if !forged && !seen.reported {
        let got = seen.state.1.iter().map(|(name, entry)| {
            let expiration = (entry.expiration != 0).then_some(entry.expiration);
            let rest = (entry.metadata.clone(), expiration);
            (name.clone(), rest)
        });
        assert_eq!(got.collect::<BTreeMap<_, _>>(), listed);
    }
    seen
}

fn check(seen: &Seen, files: &Files, fixture: &Fixture) {
    if seen.reported {
        return;
    }
    let history = &fixture.history;
    let same = |(_, state): &&(u64, State)| *state == seen.state;
    let state = history.states.iter().rfind(same);
    let (prefix, _) = state.unwrap_or_else(|| panic!("no state explains {:?}", seen.state));
    // What comes after is gone without a word. Then nothing may be left that proves it was there.
    let after = history.records.iter().filter(|place| place.seqno > *prefix);
    let is_intact = |file: &str, from: usize, to: usize| {
        let now = files.get(file).and_then(|bytes| bytes.get(from..to));
        now.is_some_and(|now| *now == fixture.files[file][from..to])
    };
    for (at, place) in after.enumerate() {
        // A file with another header is another file.
        let intact = is_intact(&place.file, 0, 128)
            && is_intact(&place.file, place.offset, place.offset + place.len);
        let whole = at == 0 && !place.more;
        assert!(
            !(intact && (whole || place.durable > *prefix)),
            "only what was up to {prefix} is left, and nothing says that {} was lost",
            place.seqno
        );
    }
}
