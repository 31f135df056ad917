//! `rimstone compact`.

use crate::Outcome;
use crate::local::{Data, print};
use crate::progress::bar;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(args: Args) -> Outcome {
    let store = args.data.open()?;
    let bar = bar("looked at")?;
    let freed = store.compact_with(|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    print(format_args!("{} bytes freed", freed?))
}
