//! `rimstone stats`.

use std::path::PathBuf;

use rimstone::SegmentSpace;
use serde_json::{Value, json};

use crate::Outcome;
use crate::local::{Data, print};
use crate::map::{class_name, draw};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Draw every segment into this SVG file.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    #[command(flatten)]
    data: Data,
}

pub(crate) fn run(args: Args) -> Outcome {
    let store = args.data.open()?;
    let (stats, segments) = (store.stats(), store.segments());
    if let Some(path) = &args.map {
        let drawn = std::fs::write(path, draw(&segments));
        drawn.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let all = Class::of(&segments);
    let mut numbers = json!({
        "keys": stats.keys,
        "namespaces": stats.namespaces,
        "segments": stats.segments,
        "runs": stats.runs,
        "disk_bytes": stats.disk_bytes,
        "live_bytes": all.live,
        "expired_bytes": all.expired,
        "tombstone_bytes": all.tombstones,
        "dead_bytes": all.dead,
        "held_bytes": stats.held_bytes,
        "stuck_segments": stats.stuck_segments,
        "index_bytes": stats.index_bytes,
        "last_seqno": stats.last_seqno,
        "durable_seqno": stats.durable_seqno,
        "checkpoint_seqno": stats.checkpoint_seqno,
    });
    let mut classes: Vec<Option<u8>> = segments.iter().map(|s| s.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let members = |class| segments.iter().filter(move |s| s.class == class);
    let classes: Vec<(&str, Class)> = classes
        .into_iter()
        .map(|class| (class_name(class), Class::of(members(class))))
        .collect();
    if args.json {
        if let Value::Object(fields) = &mut numbers {
            let classes = classes.iter().map(|(name, class)| class.json(name));
            fields.insert("classes".to_owned(), classes.collect());
            fields.insert("damage".to_owned(), json!(stats.damage));
        }
        return print(numbers);
    }
    for (name, number) in numbers.as_object().into_iter().flatten() {
        print(format_args!("{name:>16} {number}"))?;
    }
    for damage in &stats.damage {
        print(format_args!("{:>16} {damage}", "damage"))?;
    }
    print(format_args!(
        "\n{:>16} {:>8} {:>14} {:>14} {:>14} {:>14} {:>14} {:>6}",
        "segments", "number", "bytes", "live", "expired", "tombstones", "dead", "times"
    ))?;
    for (name, class) in classes.iter().chain([&("all", all)]) {
        print(format_args!(
            "{name:>16} {:>8} {:>14} {:>14} {:>14} {:>14} {:>14} {:>6}",
            class.segments,
            class.bytes,
            class.live,
            class.expired,
            class.tombstones,
            class.dead,
            class.times()
        ))?;
    }
    Ok(())
}

/// What some segments hold together, in bytes.
#[derive(Default)]
struct Class {
    segments: u64,
    bytes: u64,
    live: u64,
    expired: u64,
    tombstones: u64,
    dead: u64,
}

impl Class {
    fn of<'a>(segments: impl IntoIterator<Item = &'a SegmentSpace>) -> Class {
        let mut sum = Class::default();
        for segment in segments {
            sum.segments += 1;
            sum.bytes += segment.bytes;
            sum.live += segment.live;
            sum.expired += segment.expired;
            sum.tombstones += segment.tombstones;
            sum.dead += segment.dead();
        }
        sum
    }

    /// Bytes for each that is live.
    fn times(&self) -> String {
        match self.live {
            0 => "-".to_owned(),
            live => format!("{:.2}", self.bytes as f64 / live as f64),
        }
    }

    fn json(&self, name: &str) -> Value {
        json!({
            "class": name,
            "segments": self.segments,
            "bytes": self.bytes,
            "live_bytes": self.live,
            "expired_bytes": self.expired,
            "tombstone_bytes": self.tombstones,
            "dead_bytes": self.dead,
        })
    }
}
