//! Properties of the whole store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod basics;
mod capacity;
mod checkpoint;
mod clock;
mod compaction;
mod damage;
mod deletions;
mod disk;
mod documents;
mod enumeration;
mod format;
mod full;
mod kill;
mod lifecycle;
mod model;
mod model_cut;
mod recovery;
mod retire;
mod rotation;
mod rules;
mod session;
