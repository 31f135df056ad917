# The words people type.

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo test --workspace

# Hours of what `just test` does for seconds, all stages or those that are named, and a table: docs/testing.md.
long hours="2" *stages:
    tests/long {{ hours }} {{ stages }}

# Whether the tests notice the bugs of tests/planted/, all or those with these names.
planted *names:
    tests/planted/run {{ names }}

# How many lines of engine and compaction the tests run, by directory, and which of these files they do not.
coverage *files:
    tests/coverage {{ files }}

# What `just coverage` needs beside rustc, on Debian: llvm-profdata and llvm-cov of rustc's LLVM.
coverage-deps:
    apt-get update && apt-get install -y --no-install-recommends llvm-22

# Changes small things in these files, one at a time, and says which changes no test notices: docs/testing.md.
mutants *args:
    tests/mutants {{ args }}

# More than a million schedules of each scenario of the hot cache, six million of whole stores, and those of the
# cores of both with up to five preemptions: hours.
schedules count="1250000":
    RIMSTONE_SCHEDULES={{ count }} cargo test -p rimstone-cache --release --lib -- schedules linear
    RIMSTONE_SCHEDULES={{ count }} cargo test -p rimstone-tests --release --features shuttle --test schedules
    LOOM_MAX_PREEMPTIONS=5 cargo test -p rimstone --release --features loom --lib -- models
    LOOM_MAX_PREEMPTIONS=5 cargo test -p rimstone-cache --release --features loom --lib -- models

# The system's clock jumps under real processes; needs the package libfaketime.
jumps:
    tests/jumps

# Writes, expires, deletes and reads for so many minutes; an error if memory, descriptors or space grow.
soak minutes="60" rate="10000":
    cargo run --release -p rimstone-bench --example churn -- {{ minutes }} {{ rate }}

# The fuzz targets on their saved inputs.
corpus:
    cargo test --manifest-path fuzz/Cargo.toml

# Fuzz targets, all or those named, each for so long, and a table of executions; needs cargo-fuzz.
fuzz seconds="600" *targets:
    fuzz/run {{ seconds }} {{ targets }}

# Writes the named inputs of the fuzz targets anew.
seeds:
    cargo run --manifest-path fuzz/Cargo.toml --example seeds

clients:
    cargo build -p rimstone-cli
    RIMSTONE_BIN=target/debug/rimstone tests/clients/run

# The REST API against docs/openapi.json, by so many examples at random.
openapi examples="2000":
    cargo build --release -p rimstone-cli
    RIMSTONE_BIN="$PWD/target/release/rimstone" RIMSTONE_SEED=$(date +%s) RIMSTONE_EXAMPLES={{ examples }} TESTS=openapi tests/clients/run

# A thousand slow connections for a minute, of each kind that slowhttptest (Debian) knows, while others are
# served; an error if a request in between takes over a second.
slow connections="1000" seconds="60":
    cargo build --release -p rimstone-cli
    RIMSTONE_BIN="$PWD/target/release/rimstone" tests/clients/slow {{ connections }} {{ seconds }}

# Whether the time of a refusal tells how much of a token was right: an error above a microsecond. Wants a quiet
# machine.
token-timing requests="10000":
    cargo build --release -p rimstone-cli
    RIMSTONE_BIN="$PWD/target/release/rimstone" tests/clients/token-timing {{ requests }}

# How exposed the service of docs/systemd/ is: an error above 1.5 (1.1 when it was written).
exposure:
    systemd-analyze security --offline=true --threshold=15 docs/systemd/rimstone.service

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

# What the hot cache gains in a store: gets with and without it, everything in memory, then with little memory,
# which takes root.
bench-hot:
    cargo run --release -p rimstone-bench --example hot -- warm
    cargo run --release -p rimstone-bench --example hot -- starved
    cargo run --release -p rimstone-bench --example hot -- starved 4096

# The hot cache beside others: what a call costs, what an entry takes, how often it misses.
bench-cache *what:
    cargo bench --manifest-path benches/cache/Cargo.toml -- {{ what }}
