//! Random histories with power cuts, failing operations and full disks.

use proptest::prelude::*;
use rimstone::Durability;
use rimstone_tests::{Cut, SimDisk, cases};

use crate::acts::{self, ACT_LEN};
use crate::session::{Act, DURABILITIES, Session};

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000), ..ProptestConfig::default() })]

    /// Rules 1, 2, 6, 7 and 15, in any order: after each cut one prefix of the history explains
    /// everything, nothing acknowledged as durable is missing, and opening again shows the same.
    #[test]
    fn every_history_survives_cuts_faults_and_full_disks(
        durability in prop::sample::select(DURABILITIES.to_vec()),
        acts in prop::collection::vec(any::<[u8; ACT_LEN]>().prop_map(acts::act), 1..=200),
        last in any::<[u8; ACT_LEN]>().prop_map(acts::last),
    ) {
        let mut session = Session::start(SimDisk::new(), durability);
        session.run(&Act::Create { ns: 0 });
        for act in acts.iter().chain(&last) {
            session.run(act);
        }
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
