//! A connection without a socket, for `fuzz/`.

use std::sync::Arc;

use rimstone::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::Shared;
use crate::connection::UnderWay;
use crate::limits::Limits;

/// Answers what `connection` sends, as a server without a token does on a socket.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin + 'static>(store: Store, connection: T) {
    let limits = Limits::default();
    let shared = Arc::new(Shared {
        store,
        token: None,
        limits,
        memory: Arc::new(Semaphore::new(limits.memory)),
    });
    // A broken connection ends with an error, which is nobody's business.
    _ = crate::http(connection, UnderWay::default, shared).await;
}
