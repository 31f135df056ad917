//! What was done to a store, and which states a power cut may leave.

use std::ops::Range;

use crate::{State, alive};

/// The states a store went through since it was opened, and when.
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

    /// The newest state.
    ///
    /// # Panics
    /// Never: a history has a state.
    #[must_use]
    pub fn newest(&self) -> &State {
        &self.0.last().expect("a history has a state").state
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

    /// The newest state that explains what is `seen` at `now` after a cut at `place`, if any does.
    #[must_use]
    pub fn explain(&self, seen: &State, place: usize, now: u64) -> Option<&State> {
        let possible = self.0.get(self.possible(place))?;
        let explains = |step: &&Step| alive(&step.state, now) == *seen;
        possible.iter().rev().find(explains).map(|step| &step.state)
    }
}
