//! Whether what threads saw of one key has an order that explains it (Wing and Gong).

use std::collections::HashSet;
use std::time::Instant;

/// A call on one key, and what it returned.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was made.
    pub start: Instant,
    /// When it returned.
    pub end: Instant,
    /// What it did.
    pub did: Did,
}

/// What a register did.
#[derive(Clone, Debug)]
pub enum Did {
    /// Found this, or nothing.
    Get(Option<Version>),
    /// Became this.
    Put(Version),
    /// Became this, having been `before`.
    PutIf {
        /// What the condition asked for: the generation, or nothing.
        before: Option<u64>,
        /// What it became.
        put: Version,
    },
    /// Refused to become something, being of this generation, or nothing.
    Refused {
        /// What the condition asked for.
        before: Option<u64>,
        /// What was found instead.
        found: Option<u64>,
    },
    /// Became nothing; whether it was something.
    Delete(bool),
    /// Was shown by a list with this mark, or not at all.
    Listed(Option<u64>),
}

/// A value, and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Tells values apart.
    pub value: u64,
    /// The sequence number of the write.
    pub generation: u64,
}

/// Whether there is an order of the calls, each between its start and its end, in which each returned what
/// a register would that holds nothing at first.
#[must_use]
pub fn is_linearizable(calls: &[Call]) -> bool {
    assert!(calls.len() <= 64, "a set of calls is a u64");
    let all = calls.iter().fold(0, |all, _| all << 1 | 1);
    explain(calls, all, Register::default(), &mut HashSet::new())
}

/// A register, and the newest generation it ever had.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Register {
    held: Option<Version>,
    newest: u64,
}

impl Version {
    /// What a list shows of it: the lowest bit of its value.
    #[must_use]
    pub fn mark(self) -> u64 {
        self.value & 1
    }
}

impl Register {
    /// What it is after a call, or `None` if the call cannot have returned what it did.
    fn after(self, did: &Did) -> Option<Register> {
        let generation = self.held.map(|held| held.generation);
        match did {
            Did::Get(found) => (*found == self.held).then_some(self),
            Did::Put(put) => self.put(*put),
            Did::PutIf { before, put } => self.put(*put).filter(|_| *before == generation),
            Did::Refused { before, found } => {
                (*found == generation && before != found).then_some(self)
            }
            Did::Listed(mark) => (*mark == self.held.map(Version::mark)).then_some(self),
            Did::Delete(existed) => {
                let held = None;
                (*existed == self.held.is_some()).then_some(Register { held, ..self })
            }
        }
    }

    /// Generations only grow.
    fn put(self, put: Version) -> Option<Register> {
        let (held, newest) = (Some(put), put.generation);
        (newest > self.newest).then_some(Register { held, newest })
    }
}

/// Whether the calls that are `left` explain themselves from here on. What failed once is not tried again.
fn explain(
    calls: &[Call],
    left: u64,
    now: Register,
    failed: &mut HashSet<(u64, Register)>,
) -> bool {
    if left == 0 {
        return true;
    }
    if failed.contains(&(left, now)) {
        return false;
    }
    let is_left = |at: &usize| left >> at & 1 == 1;
    let remaining = || (0..calls.len()).filter(is_left);
    let Some(first_end) = remaining().map(|at| calls[at].end).min() else {
        return true;
    };
    // Whatever began after another had ended comes after it.
    let next = remaining().filter(|at| calls[*at].start <= first_end);
    let explained = next.into_iter().any(|at| {
        let after = now.after(&calls[at].did);
        after.is_some_and(|after| explain(calls, left & !(1 << at), after, failed))
    });
    if !explained {
        failed.insert((left, now));
    }
    explained
}
