//! Gets and lists from memory, all engines open at once.

use std::collections::HashMap;

use super::shared;
use super::turns::{Asked, ROWS, Row};
use crate::bench::{Bench, turns};
use crate::data::{Entry, Key};
use crate::engines::{Kind, Subject};

/// Entries of a commit that makes a hundredth of the keys fresh.
const FRESH: usize = 100;

pub(super) type Subjects = HashMap<&'static str, Box<dyn Subject>>;

pub fn run(bench: &mut Bench) {
    let wanted = |row: &&Row| row.names.iter().any(|name| bench.wants(row.group, name));
    let rows: Vec<&Row> = ROWS.iter().filter(wanted).collect();
    let shared = shared::wanted(bench);
    if rows.is_empty() && !shared {
        return;
    }
    let subjects = open(bench);
    if rows.iter().any(|row| row.group == "list") {
        compare_lists(bench, &subjects);
    }
    let asked = Asked::new(bench.data);
    for row in rows {
        bench.say(row.names[0]);
        measure(bench, row, &subjects, &asked);
    }
    if shared {
        shared::run(bench, &subjects);
    }
    subjects.into_values().for_each(Subject::close);
}

/// Opens all engines, with a hundredth of the keys just overwritten, and checks every byte. So what gets read is in
/// memory, and mapped where it is.
fn open(bench: &mut Bench) -> Subjects {
    let mut data = bench.data;
    let fresh: Vec<Entry> = data.freshen().flatten().collect();
    bench.data = data;
    let mut subjects = HashMap::new();
    for kind in bench.kinds.clone() {
        let mut subject = kind.open(&bench.setup(kind, false));
        if kind.can.files {
            fresh
                .chunks(FRESH)
                .for_each(|entries| subject.put_all(entries));
        } else {
            bench.say(&format!("load {}", kind.name));
            subject.load(&mut data.batches());
        }
        subjects.insert(kind.name, subject);
    }
    bench.say("compare all bytes");
    for entries in data.batches() {
        for (name, subject) in &subjects {
            assert!(subject.holds(&entries), "{name} returns other bytes");
        }
    }
    subjects
}

/// Checks that all engines list alike, which does the same for what lists read. It asks for one key more than there
/// are, and counts among the pages for which Rimstone makes one run of several, once nobody has written for a while.
fn compare_lists(bench: &Bench, subjects: &Subjects) {
    bench.say("compare all keys");
    let mut expected = None;
    for kind in bench.kinds.iter().filter(|kind| kind.can.lists) {
        let keys = usize::try_from(bench.data.keys).expect("they fit into memory");
        let digest = subjects[kind.name].list(&[Key::LEAST], keys + 1);
        let (first, of) = *expected.get_or_insert((digest, kind.name));
        assert_eq!(digest, first, "{} and {of} list otherwise", kind.name);
    }
}

/// A round that does not count, then those that do.
fn measure(bench: &mut Bench, row: &Row, subjects: &Subjects, asked: &Asked) {
    let kinds: Vec<Kind> = bench.kinds.iter().copied().filter(row.can).collect();
    for round in 0..=bench.args.rounds {
        let mut expected = None;
        for kind in turns(&kinds, round) {
            let (figures, digest) = (row.turn)(&*subjects[kind.name], asked, round);
            let (first, of) = *expected.get_or_insert((digest, kind.name));
            assert_eq!(digest, first, "{} and {of} read other bytes", kind.name);
            for (name, figure) in row.names.iter().zip(figures) {
                if round > 0 {
                    bench.add(row.group, name, row.unit, kind.name, figure);
                }
            }
        }
    }
}
