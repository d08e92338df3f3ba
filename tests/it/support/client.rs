//! An ordinary client, and the runtime that drives what must go on while a test is busy or blocked.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

/// The password of every role of every server here.
pub const PASSWORD: &str = "pgsplit";

/// Rows as text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Connections, gates and fake nodes live here, apart from the test's own runtime.
pub fn background() -> &'static Runtime {
    static BACKGROUND: OnceLock<Runtime> = OnceLock::new();
    BACKGROUND.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// How a service would be set up for `addr`: `postgres` with its password, no encryption, 15 s to connect.
pub fn config(addr: SocketAddr) -> Config {
    let mut config = Config::new();
    config
        .hostaddr(addr.ip())
        .host(addr.ip().to_string())
        .port(addr.port())
        .user("postgres")
        .password(PASSWORD)
        .dbname("postgres")
        .application_name("it")
        .ssl_mode(SslMode::Disable)
        .connect_timeout(Duration::from_secs(15));
    config
}

/// Logs in to `addr` as [`config`] says.
pub async fn connect(addr: SocketAddr) -> Result<Client, Error> {
    connect_with(config(addr)).await
}

/// Logs in. The session ends when the client is dropped.
pub async fn connect_with(config: Config) -> Result<Client, Error> {
    let connecting = background().spawn(async move {
        let (client, connection) = config.connect(NoTls).await?;
        background().spawn(connection);
        Ok(client)
    });
    connecting.await.expect("connecting does not panic")
}

/// Runs `sql`, any number of statements, and returns the rows of all.
pub async fn rows(client: &Client, sql: &str) -> Result<Rows, Error> {
    let messages = client.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()).collect())
}

/// The first field of the first row of `sql`.
pub async fn value(client: &Client, sql: &str) -> Result<String, Error> {
    let rows = rows(client, sql).await?;
    let field = rows.first().and_then(|row| row.first()).and_then(Clone::clone);
    Ok(field.unwrap_or_else(|| panic!("`{sql}` has no value")))
}

/// The address of the node that answers this client.
pub async fn which_node(client: &Client) -> Result<IpAddr, Error> {
    let ip = value(client, "select host(inet_server_addr())").await?;
    Ok(ip.parse().expect("an address"))
}
