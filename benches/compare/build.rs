//! Tells the code whether RocksDB is the system's (`ROCKSDB_LIB_DIR`) or built from source.
//! Also hands on the version of the compiler.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ROCKSDB_LIB_DIR");
    println!("cargo::rustc-check-cfg=cfg(system_rocksdb)");
    if std::env::var_os("ROCKSDB_LIB_DIR").is_some() {
        println!("cargo::rustc-cfg=system_rocksdb");
    }
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    println!(
        "cargo::rustc-env=RUSTC_VERSION={}",
        version.unwrap_or_default().trim()
    );
}
