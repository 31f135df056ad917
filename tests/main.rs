//! Properties of the whole store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod basics;
mod checkpoint;
mod kill;
mod model;
mod recovery;
mod retire;
