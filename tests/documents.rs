//! What documents say of the code.

use std::fs;
use std::path::Path;

/// A promise whose test was renamed or deleted is no promise.
#[test]
fn every_test_that_a_guarantee_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for dir in [
        "tests",
        "engine/src",
        "server/src",
        "server/tests",
        "cli/tests",
        "cache/src",
    ] {
        read_sources(&root.join(dir), &mut code);
    }
    let document = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let quoted = document.split('`').skip(1).step_by(2);
    let (paths, names): (Vec<_>, Vec<_>) = quoted
        .filter(|text| text.contains('_') || text.contains('/'))
        .partition(|text| text.contains('/'));
    assert!(names.len() > 30, "{} tests", names.len());
    for name in names {
        assert!(code.contains(&format!("fn {name}(")), "no test {name}");
    }
    for path in paths {
        assert!(root.join(path).exists(), "no file {path}");
    }
}

fn read_sources(dir: &Path, code: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, code);
        } else if path.extension().is_some_and(|e| e == "rs") {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
