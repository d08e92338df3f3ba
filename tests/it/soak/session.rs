//! One session of a client that believes nothing: every byte is a message that a server may say at this point, or the
//! end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::wire::{Message, ServerError, Wire, query, startup};

/// How a session ended, or why there was none.
#[derive(Clone, Debug)]
pub enum End {
    /// Closed between two messages.
    Closed,
    /// Reset, or closed within a message.
    Broke(String),
    /// One error, and then closed.
    Told(ServerError),
    /// Nothing came for as long as any wait may take.
    Late,
    /// Something that no server says.
    Garbage(String),
}

/// How far a session got before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// pgsplit was not reached.
    Connecting,
    /// No server had begun to answer, so that another one could have been asked.
    Unanswered,
    /// A server had begun to let it in, or had.
    Begun,
}

/// Why a session could not be opened.
#[derive(Clone, Debug)]
pub struct Refused {
    /// How far it got.
    pub stage: Stage,
    /// How it ended.
    pub end: End,
    /// Whose end it was, on our side.
    pub client: Option<SocketAddr>,
}

/// What a statement led to.
#[derive(Debug, Default)]
pub struct Answer {
    /// As text.
    pub rows: Vec<Vec<Option<String>>>,
    /// The server has said that it is done; what it wrote is written.
    pub is_done: bool,
    /// An error after which the session goes on.
    pub error: Option<ServerError>,
    /// The session is over.
    pub end: Option<End>,
    /// How long it took to be answered, or to be told that there will be no answer.
    pub took: Duration,
}

/// A session that is logged in and knows where it is.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    /// Its end on our side.
    pub client: SocketAddr,
    /// The address of its server.
    pub node: IpAddr,
    /// The number of its server's process.
    pub pid: String,
    /// For a request to cancel what it does.
    pub key: (u32, Vec<u8>),
    /// The server was a standby when it began.
    pub is_on_standby: bool,
}

/// What a server may say to our clients.
const SAID: &[u8] = b"RSKZENTDCIAGHdc";

/// Asked by every session first.
const WHERE: &str = "select pg_is_in_recovery(), pg_backend_pid(), host(inet_server_addr())";

impl Session {
    /// Logs in as a superuser and asks where it is.
    pub async fn open(addr: SocketAddr, app: &str, more: &[(&str, &str)]) -> Result<Self, Refused> {
        let refused = |stage, end, client| Refused { stage, end, client };
        let mut wire = Wire::connect(addr)
            .await
            .map_err(|error| refused(Stage::Connecting, End::Broke(error.to_string()), None))?;
        let client = wire.stream().local_addr().expect("connected");
        let mut packet = vec![("user", "postgres"), ("database", "postgres"), ("application_name", app)];
        packet.extend_from_slice(more);
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        let (pid, key) = (String::new(), (0, Vec::new()));
        let mut session = Self { wire, client, node: nowhere, pid, key, is_on_standby: false };
        let mut stage = Stage::Unanswered;
        session.send(&startup(&packet)).await.map_err(|end| refused(stage, end, Some(client)))?;
        loop {
            let message = session.next().await.map_err(|end| refused(stage, end, Some(client)))?;
            stage = Stage::Begun;
            match message.tag {
                b'K' if 4 <= message.body.len() => {
                    let (pid, key) = message.body.split_at(4);
                    session.key = (u32::from_be_bytes(pid.try_into().expect("four bytes")), key.to_vec());
                }
                b'Z' => break,
                b'R' | b'S' | b'K' | b'N' => {}
                tag => {
                    let end = End::Garbage(format!("{:?} in a login", char::from(tag)));
                    return Err(refused(stage, end, Some(client)));
                }
            }
        }
        let answer = session.ask(WHERE).await;
        if let Some(end) = answer.end {
            return Err(refused(stage, end, Some(client)));
        }
        let found = answer.rows.first().map(Vec::as_slice);
        let Some([Some(in_recovery), Some(pid), Some(node)]) = found else {
            let end = match answer.error {
                Some(error) => End::Told(error),
                None => End::Garbage(format!("{:?} to {WHERE}", answer.rows)),
            };
            return Err(refused(stage, end, Some(client)));
        };
        session.is_on_standby = in_recovery == "t";
        session.pid.clone_from(pid);
        session.node = node.parse().expect("an address");
        if session.key.0.to_string() != session.pid {
            let end = End::Garbage(format!("key of {} for process {}", session.key.0, session.pid));
            return Err(refused(stage, end, Some(client)));
        }
        Ok(session)
    }

    /// Runs one statement.
    pub async fn ask(&mut self, sql: &str) -> Answer {
        let (mut answer, asked) = (Answer::default(), Instant::now());
        answer.end = match self.send(&query(sql)).await {
            Ok(()) => self.hear(&mut answer).await.err(),
            Err(end) => Some(end),
        };
        answer.took = asked.elapsed();
        answer
    }

    /// Takes what is said up to the next `ReadyForQuery`.
    pub async fn hear(&mut self, answer: &mut Answer) -> Result<(), End> {
        loop {
            let message = self.next().await?;
            match message.tag {
                b'D' => answer.rows.push(row(&message.body)?),
                b'C' => answer.is_done = true,
                b'E' => answer.error = message.error(),
                b'Z' => return Ok(()),
                b'T' | b'N' | b'S' | b'A' | b'I' => {}
                tag => return Err(End::Garbage(format!("{:?} in an answer", char::from(tag)))),
            }
        }
    }

    /// Sends bytes. What is wrong with a connection that takes none is found out by reading.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        match self.wire.send(bytes).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(End::Late),
            Ok(()) => Ok(()),
            Err(_) => loop {
                // The last words, if there were any.
                self.next().await?;
            },
        }
    }

    /// The next message; the error that ends the session is its end.
    pub async fn next(&mut self) -> Result<Message, End> {
        let message = match self.wire.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(End::Closed),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(End::Late),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(End::Garbage("a length below four".to_owned()));
            }
            Err(error) => return Err(End::Broke(error.to_string())),
        };
        if !SAID.contains(&message.tag) {
            return Err(End::Garbage(format!("a message {:?}", char::from(message.tag))));
        }
        match message.error() {
            Some(error) if message.tag == b'E' && error.severity == "FATAL" => Err(self.last(error).await),
            Some(error) if message.tag == b'E' && error.severity != "ERROR" => {
                Err(End::Garbage(format!("{error:?}")))
            }
            _ => Ok(message),
        }
    }

    /// Resolves when something can be read, or after `patience`.
    pub async fn is_readable_within(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.wire.stream().peek(&mut [0])).await.is_ok()
    }

    /// Takes its leave.
    pub async fn close(mut self) {
        let _ = self.wire.send(&crate::support::wire::terminate()).await;
        let _ = self.wire.finish().await;
    }

    /// Ends without a word.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Nothing may come after a fatal error but the end.
    async fn last(&mut self, error: ServerError) -> End {
        match self.wire.message().await {
            Ok(Some(message)) => End::Garbage(format!("{message:?} after {error:?}")),
            Err(end) if matches!(end.kind(), io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof) => {
                End::Garbage(format!("{end} after {error:?}"))
            }
            Ok(None) | Err(_) => End::Told(error),
        }
    }
}

/// The fields of a `DataRow`.
fn row(body: &[u8]) -> Result<Vec<Option<String>>, End> {
    let garbage = || End::Garbage(format!("a row {body:?}"));
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(garbage)?;
    let mut fields = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(garbage)?;
        let length = i32::from_be_bytes(*length);
        rest = after;
        let field = usize::try_from(length).ok();
        if let Some(length) = field {
            let (field, after) = rest.split_at_checked(length).ok_or_else(garbage)?;
            fields.push(Some(String::from_utf8_lossy(field).into_owned()));
            rest = after;
        } else {
            fields.push(None);
        }
    }
    if rest.is_empty() { Ok(fields) } else { Err(garbage()) }
}
