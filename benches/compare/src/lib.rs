//! Rimstone beside other engines: the same entries, the same operations, one run.
//!
//! `cargo bench --manifest-path benches/compare/Cargo.toml` runs everything and ends with tables of
//! figures and ratios; `docs/performance.md` says how to read them.

mod data;
mod engines;
mod files;
#[path = "../../sequences.rs"]
mod sequences;
