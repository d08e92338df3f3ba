//! The protocol as raw bytes: a client that can say anything, and a node that follows a script.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::address::Address;
use super::client::background;

/// Protocol 3.0.
pub const VERSION_3_0: u32 = 0x0003_0000;
const CANCEL: u32 = (1234 << 16) + 5678;
const SSL: u32 = (1234 << 16) + 5679;
const GSSENC: u32 = (1234 << 16) + 5680;

/// No read of a test waits longer than this.
const PATIENCE: Duration = Duration::from_secs(70);

/// A startup packet of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_of(VERSION_3_0, parameters)
}

/// A startup packet of any protocol version.
pub fn startup_of(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(&text(name));
        body.extend_from_slice(&text(value));
    }
    body.push(0);
    with_length(&body)
}

/// Asks whether the server speaks TLS; the answer is one byte.
pub fn ssl_request() -> Vec<u8> {
    with_length(&SSL.to_be_bytes())
}

/// Asks whether the server encrypts with GSSAPI; the answer is one byte.
pub fn gssenc_request() -> Vec<u8> {
    with_length(&GSSENC.to_be_bytes())
}

/// Asks to cancel the query of another session. Keys have four bytes up to `PostgreSQL` 17, and may be longer since.
pub fn cancel_request(pid: u32, key: &[u8]) -> Vec<u8> {
    with_length(&[&CANCEL.to_be_bytes(), &pid.to_be_bytes(), key].concat())
}

/// A message with its type, in either direction.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&with_length(body));
    bytes
}

/// A client's simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

/// A client's password.
pub fn password(password: &str) -> Vec<u8> {
    message(b'p', &text(password))
}

/// A client's good-bye.
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// A server's `AuthenticationOk`.
pub fn auth_ok() -> Vec<u8> {
    message(b'R', &0_u32.to_be_bytes())
}

/// A server's `ParameterStatus`.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[text(name), text(value)].concat())
}

/// A server's `BackendKeyData`.
pub fn backend_key(pid: u32, key: &[u8]) -> Vec<u8> {
    message(b'K', &[&pid.to_be_bytes(), key].concat())
}

/// A server's `ReadyForQuery`; the status is `I`, `T` or `E`.
pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// A server's `ErrorResponse`.
pub fn error(severity: &str, code: &str, text_: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', text_)] {
        body.push(field);
        body.extend_from_slice(&text(value));
    }
    body.push(0);
    message(b'E', &body)
}

/// All a server says from a login without a password to the first query, with its role.
pub fn login_answer(pid: u32, key: &[u8], in_hot_standby: bool) -> Vec<u8> {
    let standby = if in_hot_standby { "on" } else { "off" };
    [
        auth_ok(),
        parameter_status("server_version", "15.0"),
        parameter_status("in_hot_standby", standby),
        parameter_status("default_transaction_read_only", "off"),
        parameter_status("client_encoding", "UTF8"),
        backend_key(pid, key),
        ready(b'I'),
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message of sensible size");
    [&length.to_be_bytes(), body].concat()
}

/// One message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// The error in an `ErrorResponse` or `NoticeResponse`.
    pub fn error(&self) -> Option<ServerError> {
        (self.tag == b'E' || self.tag == b'N').then(|| ServerError::parse(&self.body))
    }
}

/// The fields of an `ErrorResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Such as `FATAL`, in the server's language.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More about it.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

impl ServerError {
    fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|&byte| byte == 0).filter(|field| !field.is_empty()) {
            let value = String::from_utf8_lossy(&field[1..]).into_owned();
            match field[0] {
                b'S' => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = value,
                b'H' => error.hint = value,
                _ => {}
            }
        }
        error
    }
}

/// What a login led to.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// `ParameterStatus`, in order.
    pub parameters: Vec<(String, String)>,
    /// Process number and secret of `BackendKeyData`.
    pub key: (u32, Vec<u8>),
}

/// One end of a connection, with raw bytes.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects and says nothing.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = patiently(TcpStream::connect(addr)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// The same from another of our own addresses.
    pub async fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let stream = patiently(socket.connect(addr)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Writes `bytes` as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        patiently(self.stream.write_all(bytes)).await
    }

    /// Writes each byte on its own.
    pub async fn send_bytewise(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes.chunks(1) {
            self.send(byte).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// One byte, such as the answer to [`ssl_request`]; `None` at the end of the stream.
    pub async fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((patiently(self.stream.read(&mut byte)).await? == 1).then_some(byte[0]))
    }

    /// Exactly `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        patiently(self.stream.read_exact(&mut bytes)).await?;
        Ok(bytes)
    }

    /// All bytes to the end of the stream.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        patiently(self.stream.read_to_end(&mut bytes)).await?;
        Ok(bytes)
    }

    /// The next message; `None` when the stream ends between two messages.
    pub async fn message(&mut self) -> io::Result<Option<Message>> {
        let Some(tag) = self.byte().await? else { return Ok(None) };
        let body = self.with_length().await?;
        Ok(Some(Message { tag, body }))
    }

    /// What a node reads first: the packet without a type, without its length.
    pub async fn first_packet(&mut self) -> io::Result<Vec<u8>> {
        self.with_length().await
    }

    /// As a node: declines encryption as often as asked and returns the startup packet's body.
    pub async fn startup_packet(&mut self) -> io::Result<Vec<u8>> {
        // Each kind can be asked for once.
        for _ in 0..2 {
            let packet = self.first_packet().await?;
            if packet != SSL.to_be_bytes() && packet != GSSENC.to_be_bytes() {
                return Ok(packet);
            }
            self.send(b"N").await?;
        }
        self.first_packet().await
    }

    /// As a client without a password: logs in, up to the first `ReadyForQuery`.
    pub async fn login(&mut self, user: &str, database: &str) -> io::Result<Result<Login, ServerError>> {
        self.send(&startup(&[("user", user), ("database", database)])).await?;
        self.logged_in().await
    }

    /// Reads what follows a startup packet, up to the first `ReadyForQuery`.
    pub async fn logged_in(&mut self) -> io::Result<Result<Login, ServerError>> {
        let mut login = Login::default();
        loop {
            let Some(Message { tag, body }) = self.message().await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match tag {
                b'E' => return Ok(Err(ServerError::parse(&body))),
                b'S' => {
                    let mut words = body.split(|&byte| byte == 0).map(String::from_utf8_lossy);
                    let mut word = || words.next().unwrap_or_default().into_owned();
                    login.parameters.push((word(), word()));
                }
                b'K' => {
                    let (pid, key) = body.split_at(4);
                    login.key = (u32::from_be_bytes(pid.try_into().expect("four bytes")), key.to_vec());
                }
                b'Z' => return Ok(Ok(login)),
                _ => {}
            }
        }
    }

    /// Sends a simple query and returns the messages up to `ReadyForQuery`, that one included.
    pub async fn query(&mut self, sql: &str) -> io::Result<Vec<Message>> {
        self.send(&query(sql)).await?;
        let mut messages = Vec::new();
        while let Some(message) = self.message().await? {
            let last = message.tag == b'Z';
            messages.push(message);
            if last {
                return Ok(messages);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The socket, for what is not offered here.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    async fn with_length(&mut self) -> io::Result<Vec<u8>> {
        let length = self.exactly(4).await?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let body = length.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
        self.exactly(body as usize).await
    }
}

async fn patiently<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, io).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A node that does to each connection what a test says.
#[derive(Debug)]
pub struct FakeNode {
    _address: Address,
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    acceptor: JoinHandle<()>,
}

/// Binds an address of our own. Whoever has just tried it is not always gone: a process that another test is about to start has
/// all our sockets until it runs its own program.
async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    for _ in 0..200 {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bound => return bound,
        }
    }
    TcpListener::bind(addr).await
}

impl FakeNode {
    /// Runs `script` for each connection, side by side. The connection is closed when it returns.
    pub async fn start<F, S>(script: F) -> Self
    where
        F: Fn(Wire) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let address = Address::claim();
        let addr = address.port(5432);
        let listener = background().spawn(bind(addr)).await.expect("no panic").expect("our own address");
        let accepted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&accepted);
        let acceptor = background().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                connections.spawn(script(Wire { stream }));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { _address: address, addr, accepted, acceptor }
    }

    /// A living server: lets everybody in, answers every query with nothing, shows the given role.
    pub async fn healthy(in_hot_standby: bool) -> Self {
        Self::start(move |mut wire| async move {
            if wire.startup_packet().await.is_err() {
                return;
            }
            let _ = wire.send(&login_answer(1, &[0, 0, 0, 1], in_hot_standby)).await;
            while let Ok(Some(message)) = wire.message().await {
                let answer = match message.tag {
                    b'Q' => [self::message(b'I', &[]), ready(b'I')].concat(),
                    b'X' => return,
                    _ => continue,
                };
                if wire.send(&answer).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
