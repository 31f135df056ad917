//! Gets of values of 1 MiB and 25 MiB, all engines open at once.

use crate::bench::{Bench, turns};
use crate::data::{Data, Key, Values};
use crate::engines::{Kind, Setup, Subject, Touch};
use crate::process::thread_time;
use crate::results::Unit;

const GROUP: &str = "large";
const KEYS: u64 = 40;
/// What is measured: sizes, what is touched, and gets of a turn.
const ROWS: [(&str, usize, Touch, usize); 4] = [
    ("get 1 MiB, first byte", 1 << 20, Touch::First, 200),
    ("get 25 MiB, first byte", 25 << 20, Touch::First, 20),
    ("get 1 MiB, every byte", 1 << 20, Touch::All, 100),
    ("get 25 MiB, every byte", 25 << 20, Touch::All, 4),
];

pub fn run(bench: &mut Bench) {
    let rows: Vec<_> = ROWS
        .iter()
        .filter(|row| bench.wants(GROUP, row.0))
        .collect();
    if rows.is_empty() {
        return;
    }
    bench.say("large values");
    let data = Data::new(KEYS, Values::Large);
    let subjects: Vec<(Kind, Box<dyn Subject>)> = bench
        .kinds
        .iter()
        .map(|kind| (*kind, load(bench, *kind, &data)))
        .collect();
    for (name, len, touch, gets) in rows {
        let keys = keys_of(&data, *len);
        let keys: Vec<Key> = keys.into_iter().cycle().take(*gets).collect();
        for round in 0..=bench.args.rounds {
            let mut expected = None;
            for kind in turns(&bench.kinds, round) {
                let found = subjects.iter().find(|(other, _)| other.name == kind.name);
                let start = thread_time();
                let digest = found.expect("opened").1.get(&keys, usize::MAX, *touch);
                let each = (thread_time() - start).as_nanos() as f64 / keys.len() as f64;
                assert_eq!(digest, *expected.get_or_insert(digest), "{}", kind.name);
                if round > 0 {
                    bench.add(GROUP, name, Unit::Time, kind.name, each);
                }
            }
        }
    }
    subjects
        .into_iter()
        .for_each(|(_, subject)| subject.close());
}

fn load(bench: &Bench, kind: Kind, data: &Data) -> Box<dyn Subject> {
    let dir = bench.dir().join("large").join(kind.name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut subject = kind.open(&Setup::new(&dir, data, false));
    subject.load(&mut data.batches());
    subject
}

/// Keys whose values have this length.
fn keys_of(data: &Data, len: usize) -> Vec<Key> {
    let of_len = |id: &u64| data.entry(*id).value.len() == len;
    let ids = (0..data.keys).filter(of_len);
    ids.map(|id| data.key(id)).collect()
}
