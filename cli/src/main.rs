//! The command line of Rimstone: a Workers KV server, and its words on a local directory.
#![allow(clippy::print_stdout, reason = "what a command answers goes to stdout")]

mod backup;
mod bulk;
mod compact;
mod key;
mod local;
mod map;
mod namespace;
mod progress;
mod repair;
mod serve;
mod signals;
mod size;
mod stats;
mod verify;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a command ends with: nothing, or one sentence for stderr.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(
    name = "rimstone",
    version,
    about = "A Workers KV server and its tools"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer Workers KV clients until SIGTERM or SIGINT; creates a store if there is none.
    Serve(serve::Args),
    /// Create, list, rename and delete namespaces of a local store.
    #[command(subcommand)]
    Namespace(namespace::Command),
    /// Write, read, list and delete keys of a local store.
    #[command(subcommand)]
    Key(key::Command),
    /// The same for many keys, from a JSON file.
    #[command(subcommand)]
    Bulk(bulk::Command),
    /// Give back the space of what was overwritten, deleted or has expired in a local store.
    Compact(compact::Args),
    /// Print numbers about a local store.
    Stats(stats::Args),
    /// Read everything in a store's directory and print what is damaged; writes nothing. Exits with 1 if
    /// anything is.
    Verify(verify::Args),
    /// Make a damaged store anew from what can be read of it, and print what is lost.
    Repair(repair::Args),
    /// Make a directory a second store with the state of one instant, also of a store that is being served.
    Backup(backup::BackupArgs),
    /// Verify a backup and copy it to a new store.
    Restore(backup::RestoreArgs),
}

fn main() -> ExitCode {
    signals::watch();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Namespace(command) => namespace::run(command),
        Command::Key(command) => key::run(command),
        Command::Bulk(command) => bulk::run(command),
        Command::Compact(args) => compact::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Backup(args) => backup::backup(args),
        Command::Restore(args) => backup::restore(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rimstone: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output has seen enough, as `head` does.
fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error and what it came from, in one line.
fn with_sources(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
