//! `rimstone serve`.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};

use rimstone::{Options, Store};
use rimstone_server::Server;
use rimstone_server::limits::Limits;
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;
use crate::local::Data;
use crate::size;

/// The variable with the token; a flag would show it to everybody who lists processes.
const TOKEN: &str = "RIMSTONE_TOKEN";

/// The least that the store takes for a capacity.
const CAPACITY_MIN: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    /// Make the store a cache of so many bytes of disk, from 64M: instead of growing further it evicts what
    /// was written long ago and not read lately.
    #[arg(long, value_name = "SIZE", value_parser = capacity)]
    capacity: Option<u64>,
    /// The address to answer on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8787", value_parser = address)]
    listen: SocketAddr,
    /// Allow an address beyond loopback, where the token travels in clear text.
    #[arg(long)]
    insecure_listen: bool,
    /// Tell metrics (`/metrics`, for Prometheus) and health (`/health`) on this loopback address; port 0 takes
    /// a free one. Nobody is asked for a token there.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// The most connections that one address, or one IPv6 network of 64 bits, may have at a time. Loopback may
    /// have any number.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().per_address, value_parser = at_least_one)]
    connections_per_address: usize,
    /// Memory for the hot cache, such as 512M or 2G; 0 for none. It pays where the data does not fit into
    /// the machine's memory.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size::parse)]
    cache: u64,
}

pub(crate) fn run(args: Args) -> Outcome {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    crate::signals::tell_next();
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
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?
        .with_limits(Limits {
            per_address: args.connections_per_address,
            ..Limits::default()
        });
    let (server, metrics) = match args.metrics {
        None => (server, None),
        Some(address) => {
            let told = runtime.block_on(server.with_metrics(address));
            let told = told.map_err(|error| format!("cannot tell metrics on {address}: {error}"));
            told.map(|(server, address)| (server, Some(address)))?
        }
    };
    let mut options = Options::new().cache(args.cache);
    if let Some(bytes) = args.capacity {
        options = options.capacity(bytes);
    }
    let store = args.data.open_with(options)?;
    let served = runtime.block_on(serve(server, metrics, store.clone()));
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

fn capacity(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        bytes @ CAPACITY_MIN.. => Ok(bytes),
        _ => Err("a capacity is at least 64M".to_owned()),
    }
}

async fn serve(server: Server, metrics: Option<SocketAddr>, store: Store) -> Outcome {
    // Before the line that says so: who waits for it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stdout = std::io::stdout();
    // A closed stdout is no reason not to serve.
    _ = writeln!(stdout, "listening on http://{}", server.local_addr()?);
    if let Some(address) = metrics {
        _ = writeln!(stdout, "metrics on http://{address}/metrics");
    }
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

/// None at all would shut everybody out but loopback.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
