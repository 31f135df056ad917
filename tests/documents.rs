//! What documents say of the code.

use std::fs;
use std::path::Path;

/// How a table of promises begins.
const HEAD: &str = "| promise | held by |";

/// A promise whose test was renamed, moved or deleted is no promise, nor is one that no test holds.
#[test]
fn every_guarantee_names_a_test_that_is_where_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let promises = document.lines().filter(|line| is_promise(line)).count();
    assert!(promises > 100, "{promises} promises");
    let faults = faults(&document, |path| read(&root.join(path)));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A row of a table that is neither its head nor the line below that.
fn is_promise(line: &str) -> bool {
    line.starts_with('|') && line != HEAD && !line.starts_with("|-")
}

/// What is wrong with a document of promises. `code` is what a path leads to, if it leads anywhere.
fn faults(document: &str, code: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    // Of the file that was named last in a table.
    let mut above = String::new();
    for line in document.lines() {
        if line == HEAD {
            above.clear();
        }
        let held_by = line.strip_suffix('|').unwrap_or(line).rsplit('|').next();
        let mut tests = 0;
        for quoted in held_by.unwrap_or_default().split('`').skip(1).step_by(2) {
            if quoted.contains('/') {
                above = code(quoted).unwrap_or_else(|| {
                    faults.push(format!("no file {quoted}: {line}"));
                    String::new()
                });
            } else if has_test(&above, quoted) {
                tests += 1;
            } else if is_name(quoted) {
                faults.push(format!(
                    "no test {quoted} in the file named above it: {line}"
                ));
            }
        }
        if is_promise(line) && tests == 0 {
            faults.push(format!("held by no test: {line}"));
        }
    }
    faults
}

/// Whether it looks like that of a test.
fn is_name(quoted: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    quoted.contains('_') && quoted.chars().all(is_part)
}

/// Whether there is a function of this name that is run as a test.
fn has_test(code: &str, name: &str) -> bool {
    let begins = format!("fn {name}(");
    let lines: Vec<_> = code.lines().map(str::trim).collect();
    let is_run = |at: usize| {
        let before = lines[..at].iter().rev();
        let attributes: Vec<_> = before.take_while(|line| line.starts_with("#[")).collect();
        let is_ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
        attributes.contains(&&"#[test]") && !is_ignored
    };
    (0..lines.len()).any(|at| lines[at].starts_with(&begins) && is_run(at))
}

/// The text of a file, or of all sources below a directory.
fn read(path: &Path) -> Option<String> {
    if !path.is_dir() {
        return fs::read_to_string(path).ok();
    }
    let entries = fs::read_dir(path).ok()?;
    let entries = entries.map(|entry| entry.unwrap().path());
    let sources =
        entries.filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "rs"));
    Some(sources.filter_map(|path| read(&path)).collect())
}

#[test]
fn a_guarantee_that_no_test_holds_where_it_says_is_told() {
    let holds = "#[test]\nfn it_holds() {\n}\n    #[test]\n    fn so_does_it(at in 0..9) {\n";
    let fails = "fn no_test() {\n}\n#[test]\n#[ignore]\nfn not_run() {\n}\n// fn it_holds() {\n";
    let code = |path: &str| match path {
        "a/holds.rs" => Some(holds.to_owned()),
        "a/fails.rs" => Some(fails.to_owned()),
        _ => None,
    };
    let told = |rows: &str| faults(&format!("{HEAD}\n|---|---|\n{rows}\n"), code).len();
    let first = "| p | `a/holds.rs`, `it_holds` |";
    for rest in ["`so_does_it`", "by hand, too: `so_does_it` of `a/holds.rs`"] {
        assert_eq!(told(&format!("{first}\n| p | {rest} |")), 0, "{rest}");
    }
    for (row, count) in [
        ("| p | by hand |", 1),
        ("| p | `a/holds.rs` |", 1),
        ("| `a/holds.rs`, `it_holds` | |", 1),
        ("| p | `it_holds`, `a/holds.rs` |", 2),
        ("| p | `a/holds.rs`, `it_holds`, `it_hold` |", 1),
        ("| p | `a/holds.rs`, `it_holds`, `a/gone.rs` |", 1),
        (
            "| p | `a/holds.rs`, `it_holds`; `a/fails.rs`, `it_holds` |",
            1,
        ),
        ("| p | `a/fails.rs`, `no_test` |", 2),
        ("| p | `a/fails.rs`, `not_run` |", 2),
    ] {
        assert_eq!(told(row), count, "{row}");
    }
    // Another table names its files anew.
    assert_eq!(told(&format!("{first}\n\n{HEAD}\n| p | `it_holds` |")), 2);
}
