//! A small file system that is full, a real one: as root on Linux, where it can be mounted.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rimstone::{Durability, Error, Namespace, Options};
use rimstone_tests::say;
use tempfile::TempDir;

/// A file system in a file, unmounted when dropped.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    fn new(megabytes: u64) -> Result<Mounted, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(megabytes << 20)
            .map_err(|error| error.to_string())?;
        std::fs::create_dir(&root).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &root])?;
        Ok(Mounted { dir })
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("root/store")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[], &[&self.dir.path().join("root")]);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let status = Command::new(program).args(options).args(paths).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{program}: {other:?}")),
    }
}

fn fill(ns: &Namespace, name: &str) -> (usize, Error) {
    for n in 0.. {
        if let Err(error) = ns.put(format!("{name} {n}"), vec![7; 60_000]) {
            return (n, error);
        }
    }
    unreachable!("the disk has an end")
}

/// It is 256 MiB large, since a store keeps space back for compaction from 128 MiB on.
#[test]
fn a_full_file_system_refuses_puts_until_compaction_made_room() {
    let mounted = match Mounted::new(256) {
        Ok(mounted) => mounted,
        Err(reason) => {
            let is_required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_required, "no file system to fill: {reason}");
            say(&format!(
                "SKIPPED: a full file system, which takes root and a loop device: {reason}"
            ));
            return;
        }
    };
    let store = Options::new()
        .durability(Durability::None)
        .open(mounted.store())
        .unwrap();
    let ns = store.namespace("n").unwrap();
    for n in 0..2_400 {
        ns.put(format!("first {n}"), vec![7; 60_000]).unwrap();
    }
    store.checkpoint().unwrap();
    assert!(
        mounted.store().join("RESERVE").exists(),
        "space is kept back"
    );
    let (filled, refused) = fill(&ns, "fill");
    assert!(matches!(refused, Error::Full), "{refused:?}");
    for n in 0..filled {
        assert_eq!(ns.get(format!("fill {n}")).unwrap().unwrap().len(), 60_000);
    }
    for n in 0..2_000 {
        assert!(ns.delete(format!("first {n}")).unwrap());
    }
    let goes_on = || {
        std::thread::sleep(Duration::from_millis(50));
        (0..100).all(|n| ns.put(format!("more {n}"), vec![9; 60_000]).is_ok())
    };
    assert!((0..400).any(|_| goes_on()), "{:?}", store.stats());
    let check = |ns: &Namespace| {
        let is_there = |key: String| ns.get(key).unwrap().is_some();
        assert!((0..2_000).all(|n| !is_there(format!("first {n}"))));
        assert!((2_000..2_400).all(|n| is_there(format!("first {n}"))));
        assert!((0..filled).all(|n| is_there(format!("fill {n}"))));
        assert!((0..100).all(|n| is_there(format!("more {n}"))));
    };
    check(&ns);
    drop(ns);
    store.close().unwrap();
    let store = Options::new().open(mounted.store()).unwrap();
    assert_eq!(store.stats().damage, Vec::<String>::new());
    check(&store.find_namespace("n").unwrap());
}
