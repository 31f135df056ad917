//! `rimstone repair`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rimstone::{Loss, Options, Repaired};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::Outcome;
use crate::local::{explain, print};
use crate::progress::bar;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store's directory, which nobody may have open. It is kept beside, as DIR.damaged.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    let dir = std::fs::canonicalize(&args.dir);
    let dir = dir.map_err(|error| format!("cannot open {}: {error}", args.dir.display()))?;
    let (new, old) = (beside(&dir, ".repaired"), beside(&dir, ".damaged"));
    for path in [&new, &old] {
        if path.exists() {
            let shown = path.display();
            return Err(format!("{shown} is there from another repair; move it away first").into());
        }
    }
    if !args.yes && !is_confirmed(&dir, &old)? {
        return Err("nothing was changed".into());
    }
    let bar = bar("read")?;
    let repaired = Options::new().repair(&dir, &new, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let repaired = repaired.map_err(|error| explain(error, &dir))?;
    swap(&dir, &new, &old)?;
    report(&repaired)?;
    print(format_args!(
        "the damaged store is kept in {}",
        old.display()
    ))
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(suffix);
    name.into()
}

fn is_confirmed(dir: &Path, old: &Path) -> Outcome<bool> {
    let (dir, old) = (dir.display(), old.display());
    eprint!(
        "Make {dir} anew from what can be read of it? That takes as much space again as what is live;\n\
         the damaged store is kept in {old}. [y/N] "
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Puts the new store where the old one was, durably. At every moment there is one of them: a server that is
/// started again after a crash in here would otherwise begin with an empty one.
fn swap(dir: &Path, new: &Path, old: &Path) -> Outcome {
    let exchanged = renameat_with(CWD, new, CWD, dir, RenameFlags::EXCHANGE);
    let moved = match exchanged {
        Ok(()) => flush_names(dir).and_then(|()| std::fs::rename(new, old)),
        // Not every file system can; then there is a moment without.
        Err(_) => std::fs::rename(dir, old).and_then(|()| std::fs::rename(new, dir)),
    };
    moved.and_then(|()| flush_names(dir)).map_err(|error| {
        let (new, dir) = (new.display(), dir.display());
        format!("the repaired store is in {new} or {dir}, and not all was moved: {error}").into()
    })
}

/// Makes the names beside a directory durable.
fn flush_names(dir: &Path) -> std::io::Result<()> {
    File::open(dir.parent().unwrap_or(dir))?.sync_all()
}

fn report(repaired: &Repaired) -> Outcome {
    for damage in &repaired.damage {
        if damage.loss == Loss::Records {
            print(format_args!("damaged: {damage}"))?;
        }
    }
    for lost in &repaired.lost {
        let (key, namespace) = (lost.key.escape_ascii(), &lost.namespace);
        print(format_args!(
            "lost: \"{key}\" in {namespace:?}: {}",
            lost.reason
        ))?;
    }
    for name in &repaired.renamed {
        print(format_args!(
            "renamed: a namespace lost its name and is called {name:?}"
        ))?;
    }
    let records = repaired
        .damage
        .iter()
        .filter(|damage| damage.loss == Loss::Records);
    if records.count() > 0 {
        print("keys that were written where the log is damaged may show what they held before")?;
    }
    let (kept, lost) = (repaired.entries, repaired.lost.len());
    print(format_args!(
        "{kept} entries are kept, {lost} keys are known to be lost"
    ))
}
