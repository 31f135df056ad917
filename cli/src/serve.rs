//! `rimstone serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use rimstone::Store;
use rimstone_server::Server;
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;

/// The variable with the token; a flag would show it to everybody who lists processes.
const TOKEN: &str = "RIMSTONE_TOKEN";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store's directory, created if missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The address to answer on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
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
    let store = Store::open(&args.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(&args, store.clone(), token));
    drop(runtime);
    let closed = store.close();
    served?;
    Ok(closed?)
}

async fn serve(args: &Args, store: Store, token: Option<String>) -> Outcome {
    // Before the line that says so: who waits for it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::bind(store, args.listen, token, args.insecure_listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
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
    server.serve(stop).await;
    Ok(())
}
