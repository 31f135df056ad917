//! `rimstone backup` and `rimstone restore`.

use std::path::{Path, PathBuf};

use rimstone::{Error, Options};

use crate::Outcome;
use crate::local::{explain, print};
use crate::progress::bar;

#[derive(clap::Args)]
pub(crate) struct BackupArgs {
    /// The store's directory. Another process may have it open and go on writing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// An empty or new directory. On the same file system it takes no space at first.
    #[arg(value_name = "DEST")]
    dest: PathBuf,
}

pub(crate) fn backup(args: BackupArgs) -> Outcome {
    let BackupArgs { dir, dest } = args;
    let store = Options::new().open_read_only(&dir);
    let store = store.map_err(|error| explain(error, &dir))?;
    store
        .backup(&dest)
        .map_err(|error| explain_damage(error, &dir))?;
    let (dest, stats) = (dest.display(), store.stats());
    print(format_args!("{} keys are in {dest}", stats.keys))?;
    for damage in stats.damage {
        eprintln!("rimstone: the store is damaged, and so is its backup: {damage}");
    }
    Ok(())
}

/// What keeps a store from being backed up, by key, and what to do.
fn explain_damage(error: Error, dir: &Path) -> Box<dyn std::error::Error> {
    if !matches!(error, Error::Corrupt { .. }) {
        return error.into();
    }
    for damage in Options::new().scrub(dir, |_, _| {}).unwrap_or_default() {
        eprintln!("rimstone: {damage}");
    }
    let shown = dir.display();
    format!(
        "{error}; there is no whole backup of a store with a file missing: put or delete the keys named \
         above, or stop who serves it and let `rimstone repair {shown}` leave them out"
    )
    .into()
}

#[derive(clap::Args)]
pub(crate) struct RestoreArgs {
    /// The backup's directory, which stays as it is.
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// An empty or new directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn restore(args: RestoreArgs) -> Outcome {
    let RestoreArgs { backup, dir } = args;
    let bar = bar("verified")?;
    let restored = Options::new().restore(&backup, &dir, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    restored.map_err(|error| explain(error, &backup))?;
    print(format_args!(
        "{} is restored from {}",
        dir.display(),
        backup.display()
    ))
}
