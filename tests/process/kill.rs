//! SIGKILL at any moment.

use std::thread;
use std::time::Duration;

use rimstone_tests::{Dice, cases, say};
use tempfile::tempdir;

use super::{check, command, run};

const ACTS: usize = 60;

#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    let (mut dice, rounds) = (Dice::of_run(2), cases(100));
    let (mut dir, mut performed, mut kills) = (tempdir().unwrap(), 0, [0, 0]);
    for round in 0..rounds {
        // Each store is killed eight times, every other time while it recovers or a moment after.
        if round % 8 == 0 {
            (dir, performed) = (tempdir().unwrap(), 0);
        }
        let early = round % 2 == 1;
        let after = dice.below(if early { 1 } else { ACTS });
        let pause = Duration::from_micros(dice.below(6_000).try_into().unwrap());
        let mut heard = 0;
        let acts = performed..performed + ACTS;
        let ran = run(command(&[]), dir.path(), acts, |ran| {
            if heard == after {
                thread::sleep(pause);
                kill(ran.process);
            }
            heard += 1;
        });
        assert_eq!(ran.failed, None, "round {round}");
        kills[usize::from(early)] += usize::from(!ran.closed);
        performed = check(dir.path(), ran.acknowledged..=ran.acknowledged + 1);
    }
    let [late, early] = kills;
    say(&format!(
        "{late} kills at work, {early} in recovery or after it"
    ));
    assert!((late + early) * 2 > usize::try_from(rounds).unwrap());
}

/// Kills a child of ours that nobody waited for yet.
#[allow(
    unsafe_code,
    reason = "the handle is with who reads what the child says"
)]
fn kill(process: u32) {
    // SAFETY: sends a signal; no memory is involved.
    let sent = unsafe { libc::kill(process.try_into().unwrap(), libc::SIGKILL) };
    assert_eq!(sent, 0);
}
