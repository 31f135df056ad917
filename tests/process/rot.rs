//! Damage to the files of a store, closed or open: whatever is read is what was written, or an error; no key suffers
//! whose newest record was not hit, and none at all from damage to files that follow from the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rimstone::{Error, ListOptions, Namespace, Store};
use rimstone_tests::{Dice, Seen, State, cases, copy, say};
use tempfile::{TempDir, tempdir};

use super::{KEYS, apply, key, perform};

const ACTS: usize = 260;
const PAGE: usize = 4096;
/// The kinds of files that a store has, each in its turn: most often what holds values.
const KINDS: [&str; 8] = [
    "seg", "large", "seg", "ckpt", "seg", "run", "CURRENT", "LOCK",
];
/// Bytes at the start of a file without which none of it is read.
const HEADER: usize = 128;
/// What a record's value begins behind at most.
const HEAD: usize = 256;
/// As many bytes of a value tell it from those of other acts.
const TOLD: usize = 16;

/// All that each key ever held, and after how many acts, the last at the end; `None` for nothing.
type History = BTreeMap<Vec<u8>, Vec<(usize, Value)>>;
type Value = Option<Vec<u8>>;

/// What gets answered; `None` for damage.
type Answers = BTreeMap<Vec<u8>, Option<Value>>;

/// A store after many acts, with checkpoints, runs, class segments and large values, and what it held when.
fn grown() -> (TempDir, Store, History) {
    let dir = tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (mut state, mut history) = (State::new(), History::new());
    for number in 0..ACTS {
        perform(&store, number).unwrap();
        apply(&mut state, number);
        for key in (0..KEYS).map(key) {
            let now = state["n"].get(&key).map(|seen: &Seen| seen.value.clone());
            let held = history.entry(key).or_insert_with(|| vec![(0, None)]);
            if newest(held) != &now {
                held.push((number + 1, now));
            }
        }
        if number == ACTS / 2 {
            store.checkpoint().unwrap();
        }
    }
    (dir, store, history)
}

fn newest(held: &[(usize, Value)]) -> &Value {
    &held.last().unwrap().1
}

fn held_after(held: &[(usize, Value)], acts: usize) -> &Value {
    let mut before = held.iter().rev().filter(|(since, _)| *since <= acts);
    &before.next().unwrap().1
}

/// Whether a store whose log ends after one of the acts would answer so.
fn is_prefix(history: &History, answers: &Answers) -> bool {
    (0..=ACTS).any(|acts| {
        let agrees = |(key, got): (&Vec<u8>, &Option<Value>)| {
            let held = held_after(&history[key], acts);
            got.as_ref().is_none_or(|got| got == held)
        };
        answers.iter().all(agrees)
    })
}

fn kind(path: &Path) -> &str {
    let kind = path.extension().or(path.file_name());
    kind.unwrap().to_str().unwrap()
}

/// The files of a kind that hold something, by name.
fn files(dir: &Path, wanted: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = all
        .filter(|path| kind(path) == wanted && path.metadata().unwrap().len() > 0)
        .collect();
    all.sort();
    all
}

/// Bytes of a file.
struct Place {
    file: PathBuf,
    bytes: Range<usize>,
}

/// Where the newest values of keys lie, by the names of files, each with what comes before it in its record.
type Places = BTreeMap<Vec<u8>, Vec<Place>>;

fn places(dir: &Path, history: &History) -> Places {
    let values = history.iter().map(|(key, held)| (key, newest(held)));
    let values = values.filter_map(|(key, value)| Some((key, value.as_ref()?)));
    // Those of one batch begin alike.
    let mut told: HashMap<_, Vec<_>> = HashMap::new();
    for (key, value) in values.filter(|(_, value)| value.len() >= TOLD) {
        told.entry(&value[..TOLD])
            .or_default()
            .push((key, value.len()));
    }
    let mut places: Places = history.keys().map(|key| (key.clone(), vec![])).collect();
    for path in ["seg", "large"].iter().flat_map(|kind| files(dir, kind)) {
        let bytes = fs::read(&path).unwrap();
        for (at, begin) in bytes.windows(TOLD).enumerate() {
            for (key, len) in told.get(begin).into_iter().flatten() {
                let bytes = at.saturating_sub(HEAD)..at + len;
                let file = path.file_name().unwrap().into();
                places.get_mut(*key).unwrap().push(Place { file, bytes });
            }
        }
    }
    places
}

/// What happened to a file.
struct Hit {
    kind: &'static str,
    file: PathBuf,
    bytes: Range<usize>,
    what: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl Hit {
    /// Whether the newest record of a key may be hit.
    fn reaches(&self, places: &[Place]) -> bool {
        let mut known = places.iter().filter(|place| kind(&place.file) == self.kind);
        let overlaps = |place: &Place| {
            let (hit, bytes) = (&self.bytes, &place.bytes);
            let is_near = hit.start < bytes.end && bytes.start < hit.end;
            place.file == self.file && (is_near || hit.start < HEADER)
        };
        match self.kind {
            // Where a tombstone lies, a short value and the record of a large one nobody looked.
            "seg" => known.clone().next().is_none() || known.any(overlaps),
            "large" => known.any(overlaps),
            _ => false,
        }
    }
}

/// Damages a file of this kind in one of the ways that disks have.
fn damage(dir: &Path, kind: &'static str, dice: &mut Dice, may_shorten: bool) -> Hit {
    loop {
        let files = files(dir, kind);
        let path = &files[dice.below(files.len())];
        let before = fs::read(path).unwrap();
        let (what, bytes) = damage_file(path, dice, may_shorten);
        if fs::read(path).unwrap_or_default() != before {
            let file = path.file_name().unwrap().into();
            return Hit {
                kind,
                file,
                bytes,
                what,
            };
        }
    }
}

/// What it did, and where; maybe nothing changed.
fn damage_file(path: &Path, dice: &mut Dice, may_shorten: bool) -> (String, Range<usize>) {
    let bytes = fs::read(path).unwrap();
    // Most of a preallocated file was never written.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (at, page) = (dice.below(used), dice.below(used.div_ceil(PAGE)) * PAGE);
    let page_end = (page + PAGE).min(bytes.len());
    let write = |bytes: &[u8], at: usize| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    };
    match dice.below(if may_shorten { 6 } else { 4 }) {
        0 => {
            write(&[bytes[at] ^ (1 << dice.below(8))], at);
            (format!("a bit at {at}"), at..at + 1)
        }
        1 => {
            write(&vec![0; page_end - page], page);
            (format!("zeros at {page}"), page..page_end)
        }
        2 => {
            let other = dice.below(used.div_ceil(PAGE)) * PAGE;
            let len = (page_end - page).min(bytes.len() - other);
            write(&bytes[other..other + len], page);
            (format!("page {other} at {page}"), page..page_end)
        }
        3 => {
            let noise: Vec<u8> = (page..page_end)
                .map(|_| dice.roll().to_le_bytes()[0])
                .collect();
            write(&noise, page);
            (format!("noise at {page}"), page..page_end)
        }
        4 => {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(at as u64).unwrap();
            (format!("cut at {at}"), at..usize::MAX)
        }
        _ => {
            fs::remove_file(path).unwrap();
            ("gone".to_owned(), 0..usize::MAX)
        }
    }
}

fn get_all(ns: &Namespace, history: &History, hit: &Hit) -> Answers {
    let get = |key: &Vec<u8>| match ns.get(key) {
        Ok(got) => Some(got.map(|value| value.to_vec())),
        Err(Error::Corrupt { .. }) => None,
        Err(error) => panic!("{hit}: {error}"),
    };
    history.keys().map(|key| (key.clone(), get(key))).collect()
}

/// How many keys do not have their newest value. These were hit, answer what they once held, and that only if
/// `may_be_older`.
fn judge(
    answers: &Answers,
    history: &History,
    places: &Places,
    hit: &Hit,
    may_be_older: bool,
) -> usize {
    let mut affected = 0;
    for (key, answer) in answers {
        let held = &history[key];
        if answer.as_ref() == Some(newest(held)) {
            continue;
        }
        affected += 1;
        let name = String::from_utf8_lossy(key);
        assert!(hit.reaches(&places[key]), "{hit}: {name} was not hit");
        let Some(got) = answer else { continue };
        let was_held = held.iter().any(|(_, value)| value == got);
        assert!(was_held, "{hit}: {name} never held that");
        assert!(may_be_older, "{hit}: {name} is older, nobody says so");
    }
    affected
}

/// Whether a list agrees with what gets answered; `None` if it meets damage. Of what a get calls damaged it may say
/// either.
fn lists(ns: &Namespace, answers: &Answers, hit: &Hit) -> Option<bool> {
    let page = match ns.list(&ListOptions::new()) {
        Ok(page) => page,
        Err(Error::Corrupt { .. }) => return None,
        Err(error) => panic!("{hit}: {error}"),
    };
    let listed: BTreeSet<_> = page.keys().map(|key| key.name.to_vec()).collect();
    let agrees = |(key, answer): (&Vec<u8>, &Option<Value>)| {
        let got = answer.as_ref().map(Option::is_some);
        got.is_none_or(|is_there| is_there == listed.contains(key))
    };
    let is_known = listed.iter().all(|key| answers.contains_key(key));
    Some(is_known && page.cursor.is_none() && answers.iter().all(agrees))
}

/// A directory with a store, and where in it values lie.
struct Image {
    dir: TempDir,
    places: Places,
    /// Whether it is as a kill leaves it: the end of its log may be cut off by right.
    was_killed: bool,
}

/// What became of stores that were hit.
#[derive(Default)]
struct Told {
    hits: BTreeMap<&'static str, usize>,
    refused: usize,
    degraded: usize,
    keys: usize,
}

impl Image {
    fn new(dir: TempDir, history: &History, was_killed: bool) -> Image {
        let places = places(dir.path(), history);
        Image {
            dir,
            places,
            was_killed,
        }
    }

    /// Opens a copy of which a file was hit.
    fn open(&self, copy: &Path, history: &History, hit: &Hit, told: &mut Told) {
        let store = match Store::open(copy) {
            Ok(store) => store,
            Err(Error::Corrupt { .. }) if hit.kind == "seg" => {
                told.refused += 1;
                return;
            }
            Err(error) => panic!("{hit}: {error}"),
        };
        let is_reported = !store.stats().damage.is_empty();
        told.degraded += usize::from(is_reported);
        let Some(ns) = store.find_namespace("n") else {
            let may_be_gone = is_reported && hit.kind == "seg";
            assert!(may_be_gone, "{hit}: the namespace is gone");
            told.keys += KEYS;
            return;
        };
        let answers = get_all(&ns, history, hit);
        if hit.kind == "seg" && self.was_killed && !is_reported {
            assert!(is_prefix(history, &answers), "{hit}: no state of it");
        } else {
            let may_be_older = hit.kind == "seg" && is_reported;
            told.keys += judge(&answers, history, &self.places, hit, may_be_older);
        }
        let listed = lists(&ns, &answers, hit);
        assert!(listed.unwrap_or(hit.kind == "run"), "{hit}: another list");
        if listed.is_none() {
            drop(ns);
            store.close().unwrap();
            assert_list_is_whole(copy, &answers, hit);
        }
    }
}

/// A run that a list found damaged is made anew by the next open.
fn assert_list_is_whole(dir: &Path, answers: &Answers, hit: &Hit) {
    let store = Store::open(dir).unwrap();
    let ns = store.find_namespace("n").unwrap();
    assert_eq!(lists(&ns, answers, hit), Some(true), "{hit}");
}

#[test]
fn whatever_rots_in_a_closed_store_is_reported_and_never_served() {
    let (dir, store, history) = grown();
    let killed = Image::new(copy(dir.path()), &history, true);
    store.close().unwrap();
    let closed = Image::new(dir, &history, false);
    let (mut dice, mut told) = (Dice::of_run(3), Told::default());
    let rounds = cases(120);
    for round in 0..rounds as usize {
        let image = [&closed, &killed][round % 2];
        let kind = KINDS[round / 2 % KINDS.len()];
        let copy = copy(image.dir.path());
        let hit = damage(copy.path(), kind, &mut dice, true);
        *told.hits.entry(kind).or_default() += 1;
        image.open(copy.path(), &history, &hit, &mut told);
    }
    let Told {
        hits,
        refused,
        degraded,
        keys,
    } = &told;
    say(&format!(
        "{rounds} damaged files, {hits:?}: {refused} stores refused, {degraded} degraded, {keys} keys affected"
    ));
    if rounds >= 120 {
        assert!(KINDS.iter().all(|kind| hits[kind] >= 10));
        assert!(*refused > 0 && *degraded > 0 && *keys > 0);
    }
}

#[test]
fn whatever_rots_under_an_open_store_is_never_served() {
    let (mut dice, mut keys) = (Dice::of_run(4), 0);
    let rounds = cases(40);
    let (dir, store, history) = grown();
    let places = places(dir.path(), &history);
    let ns = store.find_namespace("n").unwrap();
    for kind in KINDS.into_iter().cycle().take(rounds as usize) {
        let before = copy(dir.path());
        let hit = damage(dir.path(), kind, &mut dice, false);
        // Everything is in the log that is mapped: nothing may look older.
        let answers = get_all(&ns, &history, &hit);
        keys += judge(&answers, &history, &places, &hit, false);
        // One that meets a damaged run gives it up, so that is done at the end.
        assert!(kind == "run" || lists(&ns, &answers, &hit) == Some(true));
        let before = fs::read(before.path().join(&hit.file)).unwrap();
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join(&hit.file));
        file.unwrap().write_all_at(&before, 0).unwrap();
    }
    say(&format!(
        "{rounds} damages under an open store: {keys} keys affected"
    ));
    assert!(keys > 0 || rounds < 40);
    let hit = damage(dir.path(), "run", &mut dice, false);
    let answers = get_all(&ns, &history, &hit);
    let affected = judge(&answers, &history, &places, &hit, false);
    assert_eq!(affected, 0, "all is mended");
    assert_ne!(lists(&ns, &answers, &hit), Some(false), "{hit}");
}
