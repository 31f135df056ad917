//! Histories with power cuts, failing operations and full disks: those of `tests/model_cut.rs`, with bytes
//! that libFuzzer makes up.

use rimstone_tests::SimDisk;

use crate::acts::{self, ACT_LEN};
use crate::session::{Act, DURABILITIES, Session};

/// Acts of one history at most.
const ACTS_MAX: usize = 40;

/// The first byte chooses the durability, each eight that follow are an act.
pub fn faults(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let durability = DURABILITIES[usize::from(*first) % DURABILITIES.len()];
    let mut session = Session::start(SimDisk::new(), durability);
    session.run(&Act::Create { ns: 0 });
    let (acts, _) = rest.as_chunks::<ACT_LEN>();
    for bytes in acts.iter().take(ACTS_MAX) {
        session.run(&acts::act(*bytes));
    }
    let seed = acts.last().copied().unwrap_or_default();
    acts::last(seed).iter().for_each(|act| session.run(act));
}
