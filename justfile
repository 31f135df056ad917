# The words people type.

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo test --workspace

# Hours of the tests that `just test` runs for seconds: docs/testing.md.
long:
    RIMSTONE_CASES=20000 RIMSTONE_ACTS=3 cargo test --workspace --release

clients:
    cargo build -p rimstone-cli
    RIMSTONE_BIN=target/debug/rimstone tests/clients/run

doc:
    cargo doc --workspace --no-deps

bench:
    cargo bench -p rimstone-bench
