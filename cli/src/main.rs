//! The command line of Rimstone: a Workers KV server, and its words on a local directory.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what a command answers goes to stdout")]

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a command ends with: nothing, or one sentence for stderr.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

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
    /// Answer Workers KV clients until SIGTERM or SIGINT.
    Serve(serve::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rimstone: {error}");
            ExitCode::FAILURE
        }
    }
}
