//! Histories with power cuts, failing operations and full disks: those of `tests/model_cut.rs`, with bytes
//! that libFuzzer makes up.

use rimstone_tests::SimDisk;

use crate::acts::{self, ACT_LEN};
use crate::session::{Act, DURABILITIES, MAPPED_FROM, Session};

/// Acts of one history at most.
const ACTS_MAX: usize = 40;

/// The first byte chooses the durability and how records are written, each eight that follow are an act.
pub fn faults(data: &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let first = usize::from(*first);
    let disk = SimDisk::new();
    disk.map_from(MAPPED_FROM[first / DURABILITIES.len() % MAPPED_FROM.len()]);
    let mut session = Session::start(disk, DURABILITIES[first % DURABILITIES.len()]);
    session.run(&Act::Create { ns: 0 });
    let (acts, _) = rest.as_chunks::<ACT_LEN>();
    for bytes in acts.iter().take(ACTS_MAX) {
        session.run(&acts::act(*bytes));
    }
    let seed = acts.last().copied().unwrap_or_default();
    acts::last(seed).iter().for_each(|act| session.run(act));
}
