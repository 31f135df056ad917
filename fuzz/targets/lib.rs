//! The fuzz targets: functions of bytes that panic if something does not hold.
//!
//! `fuzz_targets/` calls them under libFuzzer, `tests/corpus.rs` with the saved inputs of `corpus/`.
//! How to run them: `docs/testing.md`.
#![allow(
    clippy::disallowed_methods,
    reason = "the fixtures and inputs are ordinary files"
)]

#[path = "../../tests/acts.rs"]
mod acts;
mod cache;
mod dir_open;
mod faults;
mod history;
mod kv_requests;
mod ops;
pub mod seeds;
mod server;
#[path = "../../tests/session.rs"]
#[allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a part of the tests, which use all of it"
)]
mod session;

pub use cache::cache;
pub use dir_open::dir_open;
pub use faults::faults;
pub use kv_requests::kv_requests;
pub use ops::ops;
pub use rimstone::fuzzing::{
    checkpoint, checkpoint_open, current, cursor, record, run_open, segment_header, segment_open,
};
pub use server::{bulk_json, http_bytes, multipart, query};

/// What a program in `fuzz_targets/` consists of.
#[macro_export]
macro_rules! entry {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$target(data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::run_named($crate::$target);
        }
    };
}

/// Without libFuzzer: runs a target with the files that the command line names.
pub fn run_named(target: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        target(&std::fs::read(path).expect("an input"));
    }
}
