//! Properties of the whole store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod acts;
mod backup;
mod basics;
mod capacity;
mod checkpoint;
mod clock;
mod cold;
mod compaction;
mod damage;
mod deletions;
mod disk;
mod documents;
mod enumeration;
mod format;
mod full;
mod hot;
mod hot_history;
mod kill;
mod lifecycle;
mod linear;
mod listing;
mod model;
mod model_cut;
mod process;
mod readers;
mod recovery;
mod repair;
mod retire;
mod rotation;
mod rules;
mod scrub;
mod session;
mod tidy;
