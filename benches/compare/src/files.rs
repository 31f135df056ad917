//! The files of an engine, from outside.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

/// Bytes of disk under a directory: allocated blocks, not lengths.
pub fn disk_bytes(dir: &Path) -> u64 {
    let metadata = |path: PathBuf| fs::metadata(path).ok();
    let blocks = files(dir).into_iter().filter_map(metadata);
    blocks.map(|metadata| metadata.blocks() * 512).sum()
}

/// Flushes every file under a directory.
pub fn sync(dir: &Path) {
    for file in opened(dir) {
        file.sync_all().expect("flushes");
    }
}

/// Drops every file under a directory from the page cache, but for pages that a process has mapped
/// and touched.
pub fn drop_cache(dir: &Path) {
    for file in opened(dir) {
        file.sync_all().expect("flushes");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advises");
    }
}

/// The files under a directory but for those that an engine removes meanwhile.
fn opened(dir: &Path) -> impl Iterator<Item = File> {
    files(dir)
        .into_iter()
        .filter_map(|path| match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            file => Some(file.expect("opens")),
        })
}

/// Files that vanish while they are looked for are left out: engines remove some at any time.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}
