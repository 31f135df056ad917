//! Random histories with power cuts, failing operations and full disks.

use proptest::prelude::*;
use rimstone::Durability;
use rimstone_tests::{Cut, Fault, Names, SimDisk, Unsynced, cases};

use crate::session::{Act, DURABILITIES, KEYS, Session};

fn durability() -> impl Strategy<Value = Durability> {
    prop::sample::select(DURABILITIES.to_vec())
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0..900usize, 2 => 4_000..20_000usize, 1 => 65_530..80_000usize]
}

fn cut() -> impl Strategy<Value = Cut> {
    let bytes = prop::sample::select(vec![
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Sectors(512),
        Unsynced::Sectors(4096),
        Unsynced::Halves,
        Unsynced::Prefix,
    ]);
    let names = prop::sample::select(vec![Names::Lost, Names::Kept, Names::Any]);
    let all = (bytes, names, any::<u64>());
    all.prop_map(|(bytes, names, seed)| Cut { bytes, names, seed })
}

/// Everything that does not hurt.
fn use_it() -> impl Strategy<Value = Act> {
    let ns = || prop_oneof![8 => Just(0usize), 3 => Just(1), 1 => Just(2)];
    let ttl = prop::option::weighted(0.2, 1..40u64);
    let put = (ns(), 0..KEYS, len(), ttl, durability());
    let keys = prop::collection::vec((0..KEYS, prop::option::weighted(0.8, len())), 1..5);
    let batch = (ns(), keys, durability());
    prop_oneof![
        12 => put.prop_map(|(ns, key, len, ttl, durability)| Act::Put { ns, key, len, ttl, durability }),
        4 => (ns(), 0..KEYS).prop_map(|(ns, key)| Act::Delete { ns, key }),
        3 => batch.prop_map(|(ns, keys, durability)| Act::Batch { ns, keys, durability }),
        1 => (ns(), prop::option::of(0..KEYS)).prop_map(|(ns, key)| {
            let prefix = key.into_iter().collect();
            Act::DeletePrefix { ns, prefix }
        }),
        1 => Just(Act::Sync),
        2 => ns().prop_map(|ns| Act::Create { ns }),
        1 => ns().prop_map(|ns| Act::Drop { ns }),
        1 => (ns(), ns()).prop_map(|(from, to)| Act::Rename { from, to }),
        1 => (1..20u64).prop_map(|seconds| Act::Advance { seconds }),
        1 => Just(Act::Advance { seconds: 4_000 }),
        1 => Just(Act::Checkpoint),
        1 => Just(Act::Compact),
        2 => any::<bool>().prop_map(|idle| Act::Maintain { idle }),
        1 => Just(Act::Reopen),
        1 => Just(Act::Rebuild),
    ]
}

fn hurt_it() -> impl Strategy<Value = Act> {
    let fault = prop::sample::select(Fault::ALL.to_vec());
    prop_oneof![
        4 => (0..12usize, cut()).prop_map(|(back, cut)| Act::Cut { back, cut }),
        1 => Just(Act::Cut { back: 0, cut: Cut::KEPT }),
        2 => (0..8u64, fault, any::<bool>())
            .prop_map(|(skip, fault, lasting)| Act::Fail { skip, fault, lasting }),
        1 => prop::option::of(0..200_000u64).prop_map(|room| Act::Limit { room }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![9 => use_it(), 1 => hurt_it()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000), ..ProptestConfig::default() })]

    /// Rules 1, 2, 6, 7 and 15, in any order: after each cut one prefix of the history explains
    /// everything, nothing acknowledged as durable is missing, and opening again shows the same.
    #[test]
    fn every_history_survives_cuts_faults_and_full_disks(
        durability in durability(),
        acts in prop::collection::vec(act(), 1..=200),
        last in cut(),
    ) {
        let mut session = Session::start(SimDisk::new(), durability);
        session.run(&Act::Create { ns: 0 });
        for act in &acts {
            session.run(act);
        }
        session.run(&Act::Limit { room: None });
        session.run(&Act::Reopen);
        session.run(&Act::Cut { back: 0, cut: last });
    }
}

/// Rule 8: a put that expires before what it replaces stays in the log, as a tombstone does, while an older
/// segment holds what it replaced: a rebuild from the log alone must not find that again.
#[test]
fn an_expired_put_never_uncovers_an_older_version() {
    let mut session = Session::start(SimDisk::new(), Durability::Immediate);
    let put = |key, ttl| Act::Put {
        ns: 0,
        key,
        len: 0,
        ttl,
        durability: Durability::Immediate,
    };
    let (back, cut) = (0, Cut::LOST);
    for act in [
        Act::Create { ns: 0 },
        put(1, None),
        put(0, None),
        Act::Checkpoint,
        Act::Cut { back, cut },
        put(0, Some(1)),
        Act::Checkpoint,
        Act::Cut { back, cut },
        Act::Advance { seconds: 4_000 },
        Act::Compact,
        Act::Rebuild,
    ] {
        session.run(&act);
    }
}
