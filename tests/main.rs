//! Properties of the whole store.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod basics;
mod checkpoint;
mod documents;
mod format;
mod kill;
mod model;
mod recovery;
mod retire;
