//! What says beside each server whether it is the primary, as Patroni does under `/primary`: 200 or 503.
//!
//! `HAProxy`'s own check of `PostgreSQL` cannot tell a primary from a standby, so people let it ask such an agent.
//! Every answer here is a fresh look at the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::support::client::{background, config, connect_with, value};

/// Patroni's port.
pub(crate) const PORT: u16 = 8008;
/// A server that says nothing for so long is not the primary.
const PATIENCE: Duration = Duration::from_secs(1);
/// No request of a check is longer.
const MOST: usize = 4096;

/// A running agent. Dropping it ends it.
pub(crate) struct Agent {
    task: AbortHandle,
}

impl Agent {
    /// The agent of the server at `server`, listening at `addr`.
    pub(crate) async fn start(addr: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let bound = background().spawn(TcpListener::bind(addr)).await.map_err(io::Error::other)?;
        let listener = Arc::new(bound?);
        let task = background().spawn(async move {
            let mut requests = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                requests.spawn(answer(client, server));
                while requests.try_join_next().is_some() {}
            }
        });
        Ok(Self { task: task.abort_handle() })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") && head.len() < MOST {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let is_primary = timeout(PATIENCE, is_primary(server)).await.unwrap_or(false);
    let status = if is_primary { "200 OK" } else { "503 Service Unavailable" };
    client.write_all(format!("HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
    client.shutdown().await
}

async fn is_primary(server: SocketAddr) -> bool {
    let mut config = config(server);
    // A superuser, let in also when the server is full.
    config.user("support").application_name("agent").connect_timeout(PATIENCE);
    let Ok(client) = connect_with(config).await else { return false };
    value(&client, "select pg_is_in_recovery()").await.is_ok_and(|recovers| recovers == "f")
}
