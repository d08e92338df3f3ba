//! Whether a peer that should be silent is still there, and a polite way to leave it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a peer may take to close its side after we have closed ours.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a peer may still send us meanwhile.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Resolves when the peer has closed or reset the connection. Reads nothing: bytes that are already there stay,
/// and while they do the peer counts as present. Cancel safe.
pub async fn gone(stream: &TcpStream) {
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

/// Closes our side, then waits for the peer to close its own.
///
/// Closing a socket with unread bytes sends RST, which makes a server log a line and can take the last words we
/// wrote from a client before it has read them.
///
/// Not cancel safe, and need not be: dropped midway, the connection is just closed.
pub async fn leave(mut stream: TcpStream) {
    let farewell = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = FAREWELL_BYTES;
        let mut bin = [0; 1024];
        while 0 < left {
            let Ok(()) = stream.readable().await else { return };
            match stream.try_read(&mut bin) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}
