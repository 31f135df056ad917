# The words people type.

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo test --workspace

clients:
    cargo build -p rimstone-cli
    RIMSTONE_BIN=target/debug/rimstone tests/clients/run

doc:
    cargo doc --workspace --no-deps

bench:
    cargo bench -p rimstone-bench
