//! Rules of the house that can be checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of unsafe code in all of the repository, tests and benches included.
const UNSAFE_MAX: usize = 300;
/// Where there may be some in what is shipped.
const UNSAFE_FILES: [&str; 7] = [
    "cache/src/block.rs",
    // A call that asks the system for large pages.
    "cache/src/pages.rs",
    "cache/src/prefetch.rs",
    "cli/src/signals.rs",
    "engine/src/mem.rs",
    // Of tests alone: epochs as a model.
    "engine/src/sync/grace.rs",
    "engine/src/vfs/os.rs",
];
/// Lines of code in engine and compaction for each assertion, at most.
const LINES_PER_ASSERTION: usize = 21;
const SHIPPED: [&str; 5] = [
    "cache/src",
    "cli/src",
    "compaction/src",
    "engine/src",
    "server/src",
];
/// Crates that a user of the engine builds, and of the server.
const ENGINE_CRATES_MAX: usize = 40;
const SERVER_CRATES_MAX: usize = 120;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().into()
}

/// All sources below a directory but what was built there.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Lines of blocks, functions and implementations that are unsafe, comments and texts not counted.
fn unsafe_lines(code: &str) -> usize {
    let (mut lines, mut open) = (0, 0);
    for line in code.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let code: String = code.split('"').step_by(2).collect();
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let begins = words.any(|word| word == "unsafe");
        if open == 0 && !begins {
            continue;
        }
        lines += usize::from(!code.trim().is_empty());
        let braces = |brace| code.matches(brace).count();
        open = (open + braces('{')).saturating_sub(braces('}'));
    }
    lines
}

#[test]
fn unsafe_code_is_counted_by_its_blocks() {
    assert_eq!(unsafe_lines("let x = 1; // unsafe {\nlet y = 2;"), 0);
    assert_eq!(unsafe_lines("let x = \"unsafe {\";\nlet y = 2;"), 0);
    assert_eq!(unsafe_lines("let x = unsafe { y() };\nlet z = 1;"), 1);
    let block =
        "unsafe fn f() {\n    // SAFETY: none.\n    if a {\n        b();\n    }\n}\nfn g() {}";
    assert_eq!(unsafe_lines(block), 5);
}

#[test]
fn unsafe_code_is_rare_and_in_few_files() {
    let root = root();
    let mut all = Vec::new();
    sources(&root, &mut all);
    let mut sum = 0;
    for path in all {
        let lines = unsafe_lines(&fs::read_to_string(&path).unwrap());
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_shipped = SHIPPED.iter().any(|dir| path.starts_with(dir));
        assert!(
            lines == 0 || !is_shipped || UNSAFE_FILES.contains(&path),
            "unsafe code in {path}: it belongs to {UNSAFE_FILES:?}"
        );
        sum += lines;
    }
    // None at all would mean that nothing was found.
    assert!((1..UNSAFE_MAX).contains(&sum), "{sum} lines of unsafe code");
}

/// The lines of a file that are code, up to the tests at its end: neither blank nor comments.
fn lines_of_code(code: &str) -> impl Iterator<Item = &str> {
    let lines = code.lines().take_while(|line| *line != "mod tests {");
    let lines = lines.map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// Assertions among lines of code.
fn assertions<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let count = |line: &str| -> usize {
        let kinds = ["assert!(", "assert_eq!(", "assert_ne!("];
        kinds.iter().map(|kind| line.matches(kind).count()).sum()
    };
    lines.map(count).sum()
}

#[test]
fn lines_and_assertions_are_counted_without_those_of_tests() {
    let code =
        "// assert!(no)\n\nassert!(a);\n  debug_assert_eq!(b, c);\nconst _: () = assert!(d);\n";
    let tests = "mod tests {\n    assert!(e);\n}";
    for code in [code.into(), format!("{code}{tests}")] {
        assert_eq!(lines_of_code(&code).count(), 3);
        assert_eq!(assertions(lines_of_code(&code)), 3);
    }
}

#[test]
fn what_must_hold_is_asserted() {
    let root = root();
    let mut all = Vec::new();
    for dir in ["engine/src", "compaction/src"] {
        sources(&root.join(dir), &mut all);
    }
    // Files of tests, of the fuzz targets, and models of what the system does.
    let others = ["tests.rs", "fuzzing", "models.rs", "/sync/"];
    all.retain(|path| {
        !others
            .iter()
            .any(|name| path.to_string_lossy().contains(name))
    });
    let (mut lines, mut sum) = (0, 0);
    for path in all {
        let code = fs::read_to_string(path).unwrap();
        lines += lines_of_code(&code).count();
        sum += assertions(lines_of_code(&code));
    }
    assert!(
        lines <= LINES_PER_ASSERTION * sum,
        "{sum} assertions in {lines} lines"
    );
}

/// How many crates a package brings along on this system, itself included.
fn crates(package: &str) -> usize {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--frozen", "--prefix", "none", "-e", "normal,build"])
        .args(["--format", "{p}", "-p", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let mut crates: Vec<_> = tree.lines().map(|line| line.replace(" (*)", "")).collect();
    crates.sort_unstable();
    crates.dedup();
    crates.len()
}

#[test]
fn few_crates_come_along() {
    let (engine, server) = (crates("rimstone"), crates("rimstone-server"));
    assert!(engine > 1 && engine <= ENGINE_CRATES_MAX, "{engine} crates");
    assert!(
        server > engine && server <= SERVER_CRATES_MAX,
        "{server} crates"
    );
}
