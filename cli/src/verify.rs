//! `rimstone verify`.

use std::path::{Path, PathBuf};

use rimstone::{Damage, Loss, Options};

use crate::Outcome;
use crate::local::{explain, print};
use crate::progress::{Pace, bar, rate};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store's directory. Another process may have it open.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Read at most so many bytes a second, as in 20M.
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate: Option<u64>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let found = scrub(&args.dir, args.rate)?;
    for damage in &found {
        print(damage)?;
        print(format_args!("    {}", advice(damage, &args.dir)))?;
    }
    match found.len() {
        0 => print(format_args!("{} is intact", args.dir.display())),
        1 => Err("1 place is damaged".into()),
        places => Err(format!("{places} places are damaged").into()),
    }
}

/// Reads everything in a directory, with a bar, and returns what is damaged.
pub(crate) fn scrub(dir: &Path, rate: Option<u64>) -> Outcome<Vec<Damage>> {
    let (bar, pace) = (bar("read")?, Pace::new(rate));
    let found = Options::new().scrub(dir, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        pace.wait(done);
    });
    bar.finish_and_clear();
    found.map_err(|error| explain(error, dir))
}

fn advice(damage: &Damage, dir: &Path) -> String {
    let dir = dir.display();
    match damage.loss {
        Loss::Nothing => "nothing is lost: opening the store makes it anew".to_owned(),
        Loss::Dead => "nothing is lost: it was replaced, deleted or given up before".to_owned(),
        Loss::Value => {
            format!(
                "reading the key fails: put or delete it, or restore a backup, or `rimstone repair {dir}`"
            )
        }
        _ => format!(
            "whatever was written there is lost, and keys may show what they held before: restore a \
             backup, or `rimstone repair {dir}`"
        ),
    }
}
