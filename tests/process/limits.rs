//! What the system allows a process runs out: that is an error, not its death.

use tempfile::tempdir;

use super::{Ran, check, command, run};

/// Runs a child under what this line of a shell sets; whatever it comes to, nothing acknowledged is lost,
/// and without the limit the store goes on.
fn run_within(limit: &str, acts: usize) -> Ran {
    let dir = tempdir().unwrap();
    let line = format!("{limit}; exec \"$0\" \"$@\"");
    let ran = run(command(&["sh", "-c", &line]), dir.path(), 0..acts, |_| {});
    assert!(!ran.died, "{limit}: {ran:?}");
    assert_ne!(ran.closed, ran.failed.is_some(), "{limit}: {ran:?}");
    let performed = check(dir.path(), ran.acknowledged..=ran.acknowledged + 1);
    let rest = run(command(&[]), dir.path(), performed..acts, |_| {});
    assert!(rest.closed, "{limit}: {rest:?}");
    check(dir.path(), acts..=acts);
    ran
}

#[test]
fn too_few_descriptors_are_an_error() {
    let all = [5, 7, 9, 10, 11, 12, 13, 14, 15, 17, 20, 30, 60];
    let ran = all.map(|most| run_within(&format!("ulimit -n {most}"), 60));
    assert!(
        ran.iter().any(|ran| ran.acknowledged == 0),
        "some do not suffice for a store"
    );
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged > 0)
    );
    assert!(ran.iter().any(|ran| ran.closed), "some are enough");
}

#[test]
fn a_limit_of_file_sizes_is_an_error() {
    // In units of 512 bytes. Whoever does not ignore the signal dies of it, by its meaning.
    let all = [(0, 60), (1, 60), (2047, 60), (2048, 600), (200_000, 60)];
    let ran =
        all.map(|(blocks, acts)| run_within(&format!("trap '' XFSZ; ulimit -f {blocks}"), acts));
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged == 0)
    );
    assert!(
        ran.iter()
            .any(|ran| ran.failed.is_some() && ran.acknowledged > 0),
        "some suffice for a new store and not for what it comes to: {ran:?}"
    );
    assert!(ran.iter().any(|ran| ran.closed));
}
