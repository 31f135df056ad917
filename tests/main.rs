//! Properties of the whole store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod backup;
mod basics;
mod checkpoint;
mod compaction;
mod damage;
mod disk;
mod documents;
mod enumeration;
mod format;
mod kill;
mod lifecycle;
mod model;
mod model_cut;
mod readers;
mod recovery;
mod repair;
mod retire;
mod rotation;
mod rules;
mod scrub;
mod session;
