//! `rimstone stats`.

use serde_json::{Value, json};

use crate::Outcome;
use crate::local::{Data, print};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(args: Args) -> Outcome {
    let stats = args.data.open()?.stats();
    let mut numbers = json!({
        "keys": stats.keys,
        "namespaces": stats.namespaces,
        "segments": stats.segments,
        "runs": stats.runs,
        "disk_bytes": stats.disk_bytes,
        "live_bytes": stats.live_bytes,
        "index_bytes": stats.index_bytes,
        "last_seqno": stats.last_seqno,
        "durable_seqno": stats.durable_seqno,
        "checkpoint_seqno": stats.checkpoint_seqno,
    });
    if args.json {
        if let Value::Object(members) = &mut numbers {
            members.insert("damage".to_owned(), json!(stats.damage));
        }
        return print(numbers);
    }
    for (name, number) in numbers.as_object().into_iter().flatten() {
        print(format_args!("{name:>16} {number}"))?;
    }
    for damage in &stats.damage {
        print(format_args!("{:>16} {damage}", "damage"))?;
    }
    Ok(())
}
