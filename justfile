# The words people type.

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo test --workspace

# Hours of the tests that `just test` runs for seconds: docs/testing.md.
long:
    RIMSTONE_CASES=20000 RIMSTONE_ACTS=3 cargo test --workspace --release

# Whether the tests notice the bugs of tests/planted/, all or those with these names.
planted *names:
    tests/planted/run {{ names }}

# How many lines of engine and compaction the tests run, by directory, and which of these files they do not.
coverage *files:
    tests/coverage {{ files }}

# What `just coverage` needs beside rustc, on Debian: llvm-profdata and llvm-cov of rustc's LLVM.
coverage-deps:
    apt-get update && apt-get install -y --no-install-recommends llvm-22

# A million schedules of each scenario of the hot cache: about half an hour.
schedules count="1000000":
    RIMSTONE_SCHEDULES={{ count }} cargo test -p rimstone-cache --release --lib -- schedules linear

# Writes, expires, deletes and reads for so many minutes; an error if memory, descriptors or space grow.
soak minutes="60" rate="10000":
    cargo run --release -p rimstone-bench --example churn -- {{ minutes }} {{ rate }}

# The fuzz targets on their saved inputs.
corpus:
    cargo test --manifest-path fuzz/Cargo.toml

# Every fuzz target for so long, one after the other; needs a nightly toolchain and cargo-fuzz.
fuzz seconds="600":
    #!/usr/bin/env bash
    set -euo pipefail
    for target in $(cargo +nightly fuzz list); do
        cargo +nightly fuzz run --sanitizer none "$target" -- -max_total_time={{ seconds }} -timeout=5 \
            -malloc_limit_mb=64 -max_len=16384
    done

clients:
    cargo build -p rimstone-cli
    RIMSTONE_BIN=target/debug/rimstone tests/clients/run

doc:
    cargo doc --workspace --no-deps

bench:
    cargo bench -p rimstone-bench

# Rimstone beside other engines, for example `just compare --rows get --engines rimstone,lmdb`. Takes
# the system's RocksDB if there is one; without it, building RocksDB takes half an hour.
compare *args:
    #!/usr/bin/env bash
    set -euo pipefail
    lib=$(dirname "$(ldconfig -p | awk '/librocksdb.so / { print $NF; exit }')")
    [ "$lib" = . ] || export ROCKSDB_LIB_DIR=$lib
    cargo bench --manifest-path benches/compare/Cargo.toml -- {{ args }}

# What `just compare` builds faster with, on Debian: RocksDB, and what reads its header.
compare-deps:
    apt-get update && apt-get install -y librocksdb-dev libclang-dev

# The hot cache beside others: what a call costs, what an entry takes, how often it misses.
bench-cache *what:
    cargo bench --manifest-path benches/cache/Cargo.toml -- {{ what }}
