//! `rimstone compact`.

use crate::Outcome;
use crate::local::{Data, print};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(args: Args) -> Outcome {
    let freed = args.data.open()?.compact()?;
    print(format_args!("{freed} bytes freed"))
}
