//! A connection without a socket, for `fuzz/`.

use std::sync::Arc;

use rimstone::Store;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Shared;
use crate::connection::UnderWay;
use crate::limits::Limits;

/// Answers what `connection` sends, as a server without a token does on a socket.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin + 'static>(store: Store, connection: T) {
    let shared = Arc::new(Shared::new(store, None, Limits::default()));
    // A broken connection ends with an error, which is nobody's business.
    _ = crate::http(connection, UnderWay::default, shared).await;
}
