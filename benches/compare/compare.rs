//! `cargo bench --manifest-path benches/compare/Cargo.toml -- --help`

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match rimstone_compare::run(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
