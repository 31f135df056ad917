//! What was done to a store, and which states a power cut may leave.

use std::ops::Range;

use crate::{State, alive, matches};

/// The states a store went through since the power came on, and when.
///
/// A power cut at some place of the disk's journal leaves one of them: not older than the newest one
/// that was promised to be durable before that place, not newer than the newest one begun.
#[derive(Clone, Debug)]
pub struct History(Vec<Step>);

#[derive(Clone, Debug)]
struct Step {
    state: State,
    /// Where on the disk the operation began.
    begun: usize,
    /// Where it was on the disk when the state was promised to be durable.
    durable: Option<usize>,
}

impl History {
    /// A history that begins durable at `place`.
    #[must_use]
    pub fn new(state: State, place: usize) -> History {
        let (begun, durable) = (place, Some(place));
        History(vec![Step {
            state,
            begun,
            durable,
        }])
    }

    /// Adds the state that an operation leads to, which began at a place of the disk. Until
    /// [`promise`](History::promise) says so, a cut may undo it.
    pub fn add(&mut self, state: State, begun: usize) {
        let durable = None;
        self.0.push(Step {
            state,
            begun,
            durable,
        });
    }

    /// Notes that everything so far was acknowledged as durable by `place`.
    pub fn promise(&mut self, place: usize) {
        if let Some(step) = self.0.last_mut() {
            step.durable.get_or_insert(place);
        }
    }

    /// Which of the states, by their order, a cut at `place` may leave.
    #[must_use]
    pub fn possible(&self, place: usize) -> Range<usize> {
        let promised = |step: &Step| step.durable.is_some_and(|at| at <= place);
        let oldest = self.0.iter().rposition(promised).unwrap_or(0);
        let begun = self.0.iter().filter(|step| step.begun <= place).count();
        oldest..begun.max(oldest + 1)
    }

    /// Whether one of the states that a cut at `place` may leave explains what is `seen` at `now`.
    #[must_use]
    pub fn explain(&self, seen: &State, place: usize, now: u64) -> bool {
        let possible = self.0.get(self.possible(place)).unwrap_or_default();
        possible.iter().any(|step| step.explains(seen, now))
    }

    /// Whether the newest of the first `acknowledged` states, or one after them, explains what is
    /// `seen` at `now`: nothing acknowledged is lost while the power is on.
    #[must_use]
    pub fn explain_since(&self, seen: &State, acknowledged: usize, now: u64) -> bool {
        let possible = self.0.iter().skip(acknowledged.saturating_sub(1));
        possible.into_iter().any(|step| step.explains(seen, now))
    }

    /// How many states there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a history is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Step {
    fn explains(&self, seen: &State, now: u64) -> bool {
        matches(&alive(&self.state, now), seen)
    }
}
