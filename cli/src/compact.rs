//! `rimstone compact`.

use indicatif::{ProgressBar, ProgressStyle};

use crate::Outcome;
use crate::local::{Data, print};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(args: Args) -> Outcome {
    let store = args.data.open()?;
    // On standard error, and only where somebody looks.
    let bar = ProgressBar::new(0);
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes} looked at, {eta} left")?;
    bar.set_style(style);
    let freed = store.compact_with(|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    print(format_args!("{} bytes freed", freed?))
}
