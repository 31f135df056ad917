//! A limit on memory, the system's cache of files included, that a child process enters.

use std::fs;
use std::path::{Path, PathBuf};

/// A group of processes with so much memory. Empty, it is removed when this is dropped.
pub struct Group(PathBuf);

impl Group {
    /// A new group, below that of this process where there is a hierarchy for memory alone (version 1),
    /// below the root where there is one for everything (version 2); or why there cannot be one.
    pub fn new(bytes: u64) -> Result<Group, String> {
        let (parent, file) = hierarchy().ok_or("no hierarchy of control groups is mounted")?;
        let dir = parent.join(format!("rimstone-compare-{}", std::process::id()));
        let failed = |e| format!("{}: {e}", dir.display());
        fs::create_dir(&dir).map_err(failed)?;
        let group = Group(dir.clone());
        fs::write(dir.join(file), bytes.to_string()).map_err(failed)?;
        Ok(group)
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Puts this process into a group.
pub fn enter(dir: &Path) {
    let id = std::process::id().to_string();
    fs::write(dir.join("cgroup.procs"), id).expect("enters");
}

/// A directory in which groups can be made, and the file in each that holds the limit.
fn hierarchy() -> Option<(PathBuf, &'static str)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    find(&mounts, &own)
}

fn find(mounts: &str, own: &str) -> Option<(PathBuf, &'static str)> {
    let mounted = |kind: &str, option: &str| {
        let mut lines = mounts.lines().map(|line| line.split(' '));
        lines.find_map(|mut fields| {
            let (point, found, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
            let has = option.is_empty() || options.split(',').any(|other| other == option);
            (found == kind && has).then_some(point)
        })
    };
    if let Some(point) = mounted("cgroup", "memory") {
        let path = own.lines().find_map(|line| line.split_once(":memory:"))?.1;
        let below = path.trim_start_matches('/');
        return Some((Path::new(point).join(below), "memory.limit_in_bytes"));
    }
    let point = mounted("cgroup2", "")?;
    Some((point.into(), "memory.max"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let one = "tmpfs /sys tmpfs rw 0 0\ncgroup /sys/cpu cgroup rw,cpu 0 0\n\
                   cgroup /sys/memory cgroup rw,relatime,memory 0 0\n";
        let two = "cgroup2 /sys/all cgroup2 rw 0 0\n";
        let own = "4:memory:/some/job\n0::/\n";
        let found =
            |mounts: &str| find(mounts, own).map(|(dir, file)| (dir.display().to_string(), file));
        let old = ("/sys/memory/some/job".to_owned(), "memory.limit_in_bytes");
        assert_eq!(found(one), Some(old.clone()));
        assert_eq!(found(&[one, two].concat()), Some(old));
        assert_eq!(found(two), Some(("/sys/all".to_owned(), "memory.max")));
        assert_eq!(found(""), None);
    }
}
