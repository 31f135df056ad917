//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::data::Values;
use crate::engines::{KINDS, Kind, by_name};

/// Rimstone beside other engines: one run, one table.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare")]
pub struct Args {
    /// Keys of every engine; fewer if the values are large (`--budget`).
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u64,
    /// Which engines take part; all if none is named.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Which rows are measured: those whose group or name contains one of these, or is one that begins with
    /// `=`, such as `=get p50`.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    #[arg(long, value_enum, default_value_t = Values::Small)]
    pub values: Values,
    /// MiB that an engine stores at most.
    #[arg(long, default_value_t = 2048)]
    pub budget: u64,
    /// Rounds in which engines take turns.
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// MiB that are live, about, in the workloads of `churn`.
    #[arg(long, default_value_t = 128)]
    pub live: u64,
    /// Puts of which `stalls` looks for the longest.
    #[arg(long, default_value_t = 1_000_000)]
    pub puts: u64,
    /// Under three minutes: few engines, and an error if a ratio is below its floor.
    #[arg(long)]
    pub short: bool,
    /// A directory for bar charts of the groups.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// A directory, on a disk, for the engines' files; the target directory if none is named.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// What a child process does, for one engine in its directory.
    #[arg(long, hide = true)]
    pub child: Option<String>,
    /// How often a hundredth of the keys was overwritten before the child began.
    #[arg(long, hide = true, default_value_t = 0)]
    pub fresh: u32,
    /// The control group of the child, and the bytes of memory in it.
    #[arg(long, hide = true)]
    pub group: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub memory: Option<u64>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The engines of `--short`: ourselves, the yardstick, and two that others know.
const SHORT: [&str; 4] = ["rimstone", "limit", "ram-hash", "lmdb"];

impl Args {
    /// The arguments of this process, or a message and an exit.
    pub fn of_process() -> Args {
        let mut args = Args::parse();
        if args.short && args.engines.is_empty() {
            args.engines = SHORT.map(str::to_owned).to_vec();
        }
        for name in &args.engines {
            if by_name(name).is_none() {
                let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
                eprintln!("no engine {name}; there are {}", names.join(", "));
                std::process::exit(2);
            }
        }
        args
    }

    /// The engines that take part, in the order of the tables.
    pub fn kinds(&self) -> Vec<Kind> {
        let named = |kind: &Kind| self.engines.iter().any(|name| name == kind.name);
        let all = self.engines.is_empty();
        let kinds = KINDS.iter().copied();
        let kinds = kinds.filter(|kind| named(kind) || all && !kind.apart);
        kinds.collect()
    }

    /// Those of some engines with files that take part, in a group that is too long for all of them.
    /// Whoever is named takes part anyway.
    pub fn few(&self, names: &[&str]) -> Vec<Kind> {
        let kinds = if self.engines.is_empty() {
            let few = KINDS.iter().copied();
            few.filter(|kind| names.contains(&kind.name)).collect()
        } else {
            self.kinds()
        };
        kinds.into_iter().filter(|kind| kind.can.files).collect()
    }

    /// Whether nothing but rows of one group are asked for.
    pub fn only(&self, group: &str) -> bool {
        let within = |part: &String| names(part, group);
        !self.rows.is_empty() && self.rows.iter().all(within)
    }

    /// Whether a row is to be measured. `--short` measures the rows that have floors, no others.
    pub fn wants(&self, group: &str, row: &str) -> bool {
        if self.short {
            return self.rows.iter().any(|name| name == row);
        }
        let within = |part: &String| names(part, group) || names(part, row);
        self.rows.is_empty() || self.rows.iter().any(within)
    }

    /// Keys that fit into the budget.
    pub fn keys_within(&self) -> u64 {
        let each = self.values.mean() + 73;
        self.keys.min((self.budget << 20) / each).max(100)
    }

    /// What is measured, in a line.
    pub fn describe(&self) -> String {
        let values = format!("{:?}", self.values).to_lowercase();
        format!(
            "{} keys, {values} values, {} rounds",
            self.keys_within(),
            self.rounds
        )
    }
}

/// Whether what was asked for names a group or a row: all of it after `=`, else a part.
fn names(asked: &str, name: &str) -> bool {
    match asked.strip_prefix('=') {
        Some(whole) => name == whole,
        None => name.contains(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rows: &str) -> Args {
        Args::parse_from(["compare", "--rows", rows])
    }

    #[test]
    fn a_row_is_named_by_a_part_or_as_a_whole() {
        let part = args("99/1,open");
        assert!(part.wants("latency", "99/1 get p50") && part.wants("stalls", "99/1 p50, by one"));
        assert!(part.wants("open", "open, clean") && !part.wants("get", "get missing"));
        let whole = args("=get p50,=get");
        assert!(whole.wants("latency", "get p50") && !whole.wants("latency", "99/1 get p50"));
        assert!(whole.wants("get", "get missing") && !whole.wants("cold", "cold get p50"));
        assert!(args("=churn").only("churn") && !args("=get").only("churn"));
    }
}
