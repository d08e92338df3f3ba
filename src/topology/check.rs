//! One look at one node: resolve, connect, and as far into a login as the settings say.
//!
//! A check leaves no line in the server's log: it reads what it was sent before it closes (a reset is logged),
//! and ends a login with `Terminate`.
//!
//! The node is a stranger until it has shown that it speaks the protocol: lengths are capped before anything is
//! kept, and the whole look has one deadline.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::base::role::Role;
use crate::base::secret::Secret;
use crate::base::text::escaped;
use crate::config::{Check, CheckKind, NodeAddr};
use crate::net::{dial, peer};
use crate::pg::backend::{columns, take_message};
use crate::pg::error_response::ErrorFields;
use crate::pg::sqlstate;
use crate::topology::scram::{Exchange, method_name};

/// A server's text in a report is cut here.
const TEXT_MAX: usize = 200;
/// What a standby has replayed, or a primary has written, and how old the last replayed transaction is.
/// All three may be read by every role; the names are those of version 10 and later.
const LAG_QUERY: &str = "select pg_is_in_recovery(), \
    (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end - '0/0')::text, \
    extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::text";
const LAG_QUERY_VERSION: u32 = 10;

/// What one look at a node found.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What was done, in order; the last one may have failed.
    pub steps: Vec<Step>,
    /// Where the name led.
    pub addrs: Vec<SocketAddr>,
    /// What it means.
    pub outcome: Outcome,
}

/// One step of a check.
#[derive(Clone, Debug)]
pub struct Step {
    /// `resolve`, `connect`, `startup`, `authentication`, `login`, `lag`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What it brought, in a few words.
    pub found: String,
}

/// What a look at a node means.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A living server.
    Up(Facts),
    /// A living server that takes no more sessions (53300), in its words.
    Full(String),
    /// No server that could be used.
    Failed(Failure),
}

/// What a login taught; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// From `in_hot_standby`, or `pg_is_in_recovery()` before version 14.
    pub role: Option<Role>,
    /// `default_transaction_read_only`.
    pub read_only: Option<bool>,
    /// `server_version`.
    pub version: Option<String>,
    /// Bytes of write-ahead log replayed (standby) or written (primary).
    pub lsn: Option<u64>,
    /// Age of the last replayed transaction.
    pub replay_age: Option<Duration>,
    /// The server lives, but something about the check needs a hand.
    pub warning: Option<String>,
}

/// Why a look failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which step.
    pub step: &'static str,
    /// The server's code, when it gave one.
    pub sqlstate: Option<String>,
    /// A few words for a person.
    pub text: String,
    /// Whether the server itself answered.
    pub answered: bool,
}

/// Looks at the node once. Takes no longer than `settings.timeout`. Cancel safe.
pub async fn check(addr: &NodeAddr, password: Option<&Secret>, settings: &Check) -> Report {
    let at = SystemTime::now();
    let began = Instant::now();
    let mut look = Look {
        settings,
        password,
        steps: Vec::new(),
        addrs: Vec::new(),
        step: "resolve",
        since: began,
        done_with: None,
    };
    let deadline = began + settings.timeout;
    let looked = timeout_at(deadline, look.run(addr)).await;
    let took = began.elapsed();
    let outcome = looked.unwrap_or_else(|_| {
        let text = format!("no answer within {}", humantime::format_duration(settings.timeout));
        Outcome::Failed(Failure { step: look.step, sqlstate: None, text, answered: false })
    });
    if let Outcome::Failed(failure) = &outcome {
        look.done(failure.text.clone());
    }
    // What was found holds, however long the server takes to hang up.
    if let Some(stream) = look.done_with.take() {
        let _ = timeout_at(deadline, peer::leave(stream)).await;
    }
    Report { at, took, steps: look.steps, addrs: look.addrs, outcome }
}

/// What a server answers to a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsAnswer {
    /// `S`.
    Yes,
    /// `N`.
    No,
    /// Anything else, an error for example.
    Unclear,
}

impl TlsAnswer {
    /// For people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Yes => "offered",
            Self::No => "not offered",
            Self::Unclear => "unclear answer",
        }
    }
}

/// Asks for TLS on a connection of its own, and leaves without a line in the server's log; `None`: no answer by
/// `deadline`. Cancel safe.
pub async fn ask_tls(addrs: &[SocketAddr], deadline: Instant) -> Option<TlsAnswer> {
    let asked = async {
        let mut stream = dial::connect(addrs, deadline).await?;
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        let answer = stream.read_u8().await?;
        io::Result::Ok((stream, answer))
    };
    let (stream, answer) = timeout_at(deadline, asked).await.ok()?.ok()?;
    let _ = timeout_at(deadline, peer::leave(stream)).await;
    Some(match answer {
        b'S' => TlsAnswer::Yes,
        b'N' => TlsAnswer::No,
        _ => TlsAnswer::Unclear,
    })
}

struct Look<'a> {
    settings: &'a Check,
    password: Option<&'a Secret>,
    steps: Vec<Step>,
    addrs: Vec<SocketAddr>,
    step: &'static str,
    since: Instant,
    /// The connection, when all has been said on it.
    done_with: Option<TcpStream>,
}

/// One conversation with a server.
struct Conversation {
    stream: TcpStream,
    received: BytesMut,
}

/// How far a login came.
enum Login {
    /// `ReadyForQuery`.
    Ready(Facts),
    /// Far enough to see that the server lives.
    Enough(Facts),
    /// The server said no.
    Refused(Bytes),
}

impl Look<'_> {
    async fn run(&mut self, addr: &NodeAddr) -> Outcome {
        match self.talk(addr).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(Failure {
                step: self.step,
                sqlstate: None,
                text: io_text(&error),
                answered: false,
            }),
        }
    }

    async fn talk(&mut self, addr: &NodeAddr) -> io::Result<Outcome> {
        let deadline = self.since + self.settings.timeout;
        self.addrs = dial::resolve(&addr.host, addr.port, deadline).await?;
        self.done(self.addrs.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>().join(", "));

        self.step = "connect";
        let stream = dial::connect(&self.addrs, deadline).await?;
        stream.set_nodelay(true)?;
        self.done(stream.peer_addr()?.to_string());
        if self.settings.kind == CheckKind::Tcp {
            return Ok(Outcome::Up(Facts::default()));
        }

        self.step = "startup";
        let mut conversation = Conversation { stream, received: BytesMut::with_capacity(1024) };
        let outcome = match self.log_in(&mut conversation).await? {
            Login::Ready(mut facts) => {
                if self.settings.kind == CheckKind::Login {
                    self.step = "lag";
                    self.ask_lag(&mut conversation, &mut facts).await?;
                }
                let mut terminate = BytesMut::new();
                frontend::terminate(&mut terminate);
                conversation.stream.write_all(&terminate).await?;
                Outcome::Up(facts)
            }
            Login::Enough(facts) => Outcome::Up(facts),
            Login::Refused(body) => self.refused(&body),
        };
        self.done_with = Some(conversation.stream);
        Ok(outcome)
    }

    /// Notes the step as done.
    fn done(&mut self, found: impl Into<String>) {
        let now = Instant::now();
        self.steps.push(Step { name: self.step, took: now - self.since, found: found.into() });
        self.since = now;
    }

    async fn log_in(&mut self, conversation: &mut Conversation) -> io::Result<Login> {
        let settings = self.settings;
        let params = [
            ("user", settings.user.as_str()),
            ("database", &settings.dbname),
            ("application_name", &settings.application_name),
        ];
        let mut startup = BytesMut::new();
        frontend::startup_message(params, &mut startup)?;
        conversation.stream.write_all(&startup).await?;

        let mut exchange = Exchange::default();
        let mut facts = Facts::default();
        loop {
            let (tag, body) = conversation.message().await?;
            match tag {
                b'R' => {
                    let method = body.first_chunk().map_or(u32::MAX, |&method| u32::from_be_bytes(method));
                    if self.step == "startup" {
                        self.done("server answers");
                        self.step = "authentication";
                    }
                    if method == 0 {
                        self.done("let in");
                        self.step = "login";
                        continue;
                    }
                    if self.settings.kind == CheckKind::Startup {
                        self.done(method_name(method));
                        return Ok(Login::Enough(facts));
                    }
                    if method < 11 {
                        self.done(method_name(method));
                    }
                    let (next, answer) = self.answer(exchange, body).await;
                    exchange = next;
                    match answer {
                        Ok(bytes) => conversation.stream.write_all(&bytes).await?,
                        Err(text) => {
                            facts.warning = Some(text);
                            return Ok(Login::Enough(facts));
                        }
                    }
                }
                b'S' => facts.learn(&body),
                b'E' => return Ok(Login::Refused(body)),
                b'Z' => {
                    self.done(match (facts.role, &facts.version) {
                        (Some(role), Some(version)) => format!("{role}, PostgreSQL {version}"),
                        (None, Some(version)) => format!("PostgreSQL {version}"),
                        _ => "ready".to_owned(),
                    });
                    return Ok(Login::Ready(facts));
                }
                // BackendKeyData, NegotiateProtocolVersion, NoticeResponse.
                _ => {}
            }
        }
    }

    /// Computes the answer to an authentication request on a thread that may be busy for a while.
    async fn answer(&self, mut exchange: Exchange, body: Bytes) -> (Exchange, Result<BytesMut, String>) {
        let user = self.settings.user.clone();
        let password = self.password.cloned();
        let computed = tokio::task::spawn_blocking(move || {
            let answer = exchange.answer(&body, &user, password.as_ref().map(Secret::expose));
            (exchange, answer.map_err(|error| error.to_string()))
        });
        computed
            .await
            .unwrap_or_else(|_| (Exchange::default(), Err("the login could not be computed".into())))
    }

    /// Asks how far the server has come. An error costs the figure, not the node.
    async fn ask_lag(&mut self, conversation: &mut Conversation, facts: &mut Facts) -> io::Result<()> {
        let old = facts.major_version() < Some(LAG_QUERY_VERSION);
        let sql = if old { "select pg_is_in_recovery()" } else { LAG_QUERY };
        let mut query = BytesMut::new();
        frontend::query(sql, &mut query)?;
        conversation.stream.write_all(&query).await?;
        loop {
            match conversation.message().await? {
                (b'D', row) => {
                    let row = columns(&row);
                    let column = |at: usize| row.get(at).copied().flatten();
                    facts.role = facts.role.or(column(0).map(|text| Role::from_in_recovery(text == "t")));
                    facts.lsn = column(1).and_then(|text| text.parse().ok());
                    let age = column(2).and_then(|text| text.parse::<f64>().ok());
                    facts.replay_age = age.and_then(|age| Duration::try_from_secs_f64(age.max(0.0)).ok());
                }
                (b'Z', _) => break,
                _ => {}
            }
        }
        self.done(match (facts.role, facts.replay_age) {
            (Some(Role::Standby), Some(age)) => {
                format!("last replayed transaction {:.1} s old", age.as_secs_f64())
            }
            (Some(role), _) => role.to_string(),
            (None, _) => "role unknown".to_owned(),
        });
        Ok(())
    }

    /// What a server's no means: a server that says no lives, unless it says that it does not yet or no longer.
    fn refused(&mut self, body: &[u8]) -> Outcome {
        let fields = ErrorFields::parse(body);
        let text = escaped(fields.message.unwrap_or(b"error without a message"), TEXT_MAX);
        let code = fields.code.unwrap_or("");
        match code {
            sqlstate::TOO_MANY_CONNECTIONS => {
                self.done(format!("{code} {text}"));
                Outcome::Full(text)
            }
            sqlstate::NO_SUCH_DATABASE | "42501" | sqlstate::FEATURE_NOT_SUPPORTED => {
                self.alive_but(code, &text)
            }
            code if code.starts_with("28") => self.alive_but(code, &text),
            code => Outcome::Failed(Failure {
                step: self.step,
                sqlstate: Some(escaped(code.as_bytes(), 5)),
                text,
                answered: true,
            }),
        }
    }

    fn alive_but(&mut self, code: &str, text: &str) -> Outcome {
        self.done(format!("{code} {text}"));
        Outcome::Up(Facts { warning: Some(format!("{code} {text}")), ..Facts::default() })
    }
}

impl Conversation {
    /// The server's next message.
    async fn message(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            match take_message(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(_) if self.received.starts_with(b"HTTP/") => {
                    let line = self.received[..].split(|&b| b == b'\r').next().unwrap_or_default();
                    let text = format!("speaks HTTP, not PostgreSQL (\"{}\")", escaped(line, 40));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed the connection without an answer",
                ));
            }
        }
    }
}

impl Facts {
    fn learn(&mut self, parameter: &[u8]) {
        let mut texts = parameter.split(|&b| b == 0);
        let (Some(name), Some(value)) = (texts.next(), texts.next()) else { return };
        match name {
            b"in_hot_standby" => self.role = Some(Role::from_in_recovery(value == b"on")),
            b"default_transaction_read_only" => self.read_only = Some(value == b"on"),
            b"server_version" => self.version = Some(escaped(value, 40)),
            _ => {}
        }
    }

    fn major_version(&self) -> Option<u32> {
        let version = self.version.as_deref()?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

/// The error in a few words for a person: without the operating system's number.
#[must_use]
pub fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "host unreachable".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            escaped(text.as_bytes(), TEXT_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_ten_are_asked_less() {
        let major = |text: &str| Facts { version: Some(text.into()), ..Facts::default() }.major_version();
        assert_eq!(major("15.4 (Debian 15.4-1)"), Some(15));
        assert_eq!(major("9.6.24"), Some(9));
        assert_eq!(major("18beta1"), Some(18));
        assert_eq!(major("devel"), None);
    }

    #[test]
    fn reported_parameters_are_learnt() {
        let mut facts = Facts::default();
        facts.learn(b"in_hot_standby\0on\0");
        facts.learn(b"default_transaction_read_only\0off\0");
        facts.learn(b"broken");
        assert_eq!((facts.role, facts.read_only), (Some(Role::Standby), Some(false)));
    }
}
