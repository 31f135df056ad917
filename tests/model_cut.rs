//! Random histories with power cuts, failing operations and full disks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;
use rimstone::Durability;
use rimstone_tests::{Cut, SimDisk, cases, say};

use crate::acts::{self, ACT_LEN};
use crate::session::{Act, DURABILITIES, MAPPED_FROM, Session};

/// Acts of all histories, and writes through memory in them.
static ACTS: AtomicU64 = AtomicU64::new(0);
static MAPPED_WRITES: AtomicU64 = AtomicU64::new(0);

/// Rules 1, 2, 6, 7 and 15, in any order: after each cut one prefix of the history explains
/// everything, nothing acknowledged as durable is missing, and opening again shows the same.
#[test]
fn every_history_survives_cuts_faults_and_full_disks() {
    histories();
    let count = MAPPED_WRITES.load(Relaxed);
    say(&format!(
        "{} acts of random histories; {count} writes of them went through memory",
        ACTS.load(Relaxed)
    ));
    assert!(
        count > 0 || cases(2_000) < 20,
        "two of three histories have some"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000), ..ProptestConfig::default() })]

    fn histories(
        durability in prop::sample::select(DURABILITIES.to_vec()),
        mapped_from in prop::sample::select(MAPPED_FROM.to_vec()),
        acts in prop::collection::vec(any::<[u8; ACT_LEN]>().prop_map(acts::act), 1..=200),
        last in any::<[u8; ACT_LEN]>().prop_map(acts::last),
    ) {
        let disk = SimDisk::new();
        disk.map_from(mapped_from);
        let mut session = Session::start(disk, durability);
        session.run(&Act::Create { ns: 0 });
        for act in acts.iter().chain(&last) {
            session.run(act);
            ACTS.fetch_add(1, Relaxed);
        }
        MAPPED_WRITES.fetch_add(session.disk.mapped_writes(), Relaxed);
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
