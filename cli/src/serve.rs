//! `rimstone serve`.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};

use rimstone::Store;
use rimstone_server::Server;
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;
use crate::local::Data;

/// The variable with the token; a flag would show it to everybody who lists processes.
const TOKEN: &str = "RIMSTONE_TOKEN";

/// The least that the store takes for a capacity.
const CAPACITY_MIN: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    /// Make the store a cache of so many bytes of disk, from 64M: instead of growing further it evicts what
    /// was written long ago and not read lately. K, M, G and T are powers of 1024.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    capacity: Option<u64>,
    /// The address to answer on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8787", value_parser = address)]
    listen: SocketAddr,
    /// Allow an address beyond loopback, where the token travels in clear text.
    #[arg(long)]
    insecure_listen: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let token = match std::env::var(TOKEN) {
        Ok(token) => Some(token),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(format!("{TOKEN} is not UTF-8; choose another token").into());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // Before the store, which is not created for a server that cannot be reached.
    let server = Server::bind(args.listen, token, args.insecure_listen);
    let server = runtime
        .block_on(server)
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let store = args.data.open_as(args.capacity)?;
    let served = runtime.block_on(serve(server, store.clone()));
    drop(runtime);
    let closed = store.close();
    served?;
    Ok(closed?)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| error.to_string());
    let none = "the host has no address".to_owned();
    found.and_then(|mut all| all.next().ok_or(none))
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("a size is a number, and K, M, G or T".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "a size begins with a number")?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    match bytes {
        CAPACITY_MIN.. => Ok(bytes),
        _ => Err("a capacity is at least 64M".to_owned()),
    }
}

async fn serve(server: Server, store: Store) -> Outcome {
    // Before the line that says so: who waits for it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stdout = std::io::stdout();
    // A closed stdout is no reason not to serve.
    _ = writeln!(stdout, "listening on http://{}", server.local_addr()?);
    _ = stdout.flush();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.serve(store, stop).await;
    Ok(())
}
