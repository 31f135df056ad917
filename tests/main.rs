//! Properties of the whole store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod basics;
mod disk;
mod enumeration;
mod kill;
mod model;
mod model_cut;
mod recovery;
mod rotation;
mod rules;
mod session;
