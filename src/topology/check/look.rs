//! The steps of one look at a node.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::base::role::Role;
use crate::base::secret::Secret;
use crate::base::text::escaped;
use crate::config::{Check, CheckKind, NodeAddr};
use crate::net::dial::{self, io_text};
use crate::pg::backend::columns;
use crate::pg::error_response::ErrorFields;
use crate::pg::sqlstate;
use crate::topology::check::conversation::Conversation;
use crate::topology::check::{Facts, Failure, Lineage, Outcome, Step, Whither};
use crate::topology::scram::{Exchange, method_name};

/// A server's text in a report is cut here.
const TEXT_MAX: usize = 200;
/// What a standby has replayed, or a primary has written, how old the last replayed transaction is, and when the server
/// was started. All may be read by every role; the names are those of version 10 and later.
const LAG_QUERY: &str = "select pg_is_in_recovery(), \
    (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end - '0/0')::text, \
    extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::text, \
    extract(epoch from pg_postmaster_start_time())::text";
const LAG_QUERY_VERSION: u32 = 10;
/// A primary's place in the history of its cluster; no row from a standby. A statement of its own: where the function has
/// been revoked, its error leaves the answers before it alone.
const LINEAGE_QUERY: &str = "; select system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
    from pg_control_system() where not pg_is_in_recovery()";

/// One look: what it works with, and what it has done so far.
pub(super) struct Look<'a> {
    settings: &'a Check,
    password: Option<&'a Secret>,
    whither: Whither<'a>,
    pub(super) steps: Vec<Step>,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) step: &'static str,
    /// The connection, when all has been said on it.
    pub(super) done_with: Option<TcpStream>,
    since: Instant,
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

impl<'a> Look<'a> {
    /// A look that has not begun.
    pub(super) fn new(settings: &'a Check, password: Option<&'a Secret>, whither: Whither<'a>) -> Self {
        let (steps, addrs, since) = (Vec::new(), Vec::new(), Instant::now());
        Self { settings, password, whither, steps, addrs, step: "resolve", done_with: None, since }
    }

    /// Why it failed, if not for want of time or anything that this machine lacks.
    pub(super) fn failed(&self, error: &io::Error) -> Outcome {
        let (step, text) = (self.step, io_text(error));
        let shows_life = is_from_there(error);
        Outcome::Failed(Failure { step, sqlstate: None, text, answered: false, shows_life })
    }

    pub(super) async fn run(&mut self, node: &NodeAddr) -> io::Result<Outcome> {
        let deadline = self.since + self.settings.timeout;
        match self.whither {
            Whither::Name(known) => self.resolve(node, known, deadline).await?,
            Whither::Addr(addr) => self.addrs = vec![addr],
        }

        self.step = "connect";
        let (stream, addr) = dial::connect(&self.addrs, deadline).await?;
        stream.set_nodelay(true)?;
        self.done(addr.to_string());
        if self.settings.kind == CheckKind::Tcp {
            return Ok(Outcome::Up(Facts::default()));
        }

        self.step = "startup";
        let mut conversation = Conversation { stream, received: BytesMut::with_capacity(1024), addr: node };
        let outcome = match self.log_in(&mut conversation).await? {
            Login::Ready(mut facts) => {
                facts.is_ready = true;
                if self.settings.logs_in {
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

    /// Finds the addresses; while the resolver fails, those that were last good.
    async fn resolve(&mut self, addr: &NodeAddr, known: &[SocketAddr], deadline: Instant) -> io::Result<()> {
        let patience = if known.is_empty() { deadline } else { self.since + self.settings.timeout / 2 };
        let found = match dial::resolve(&addr.host, addr.port, patience).await {
            Ok(addrs) => {
                self.addrs = addrs;
                String::new()
            }
            Err(error) if known.is_empty() => return Err(error),
            Err(error) => {
                self.addrs = known.to_vec();
                format!(" (known from before: {})", io_text(&error))
            }
        };
        let ips: Vec<_> = self.addrs.iter().map(|addr| addr.ip().to_string()).collect();
        self.done(ips.join(", ") + &found);
        Ok(())
    }

    /// Notes the step as done.
    pub(super) fn done(&mut self, found: impl Into<String>) {
        let now = Instant::now();
        self.steps.push(Step { name: self.step, took: now - self.since, found: found.into() });
        self.since = now;
    }

    async fn log_in(&mut self, conversation: &mut Conversation<'_>) -> io::Result<Login> {
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
                    if !self.settings.logs_in {
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
    async fn ask_lag(&mut self, conversation: &mut Conversation<'_>, facts: &mut Facts) -> io::Result<()> {
        let old = facts.major_version() < Some(LAG_QUERY_VERSION);
        let sql = if old { "select pg_is_in_recovery()" } else { &[LAG_QUERY, LINEAGE_QUERY].concat() };
        let mut query = BytesMut::new();
        frontend::query(sql, &mut query)?;
        conversation.stream.write_all(&query).await?;
        let mut rows = 0;
        loop {
            match conversation.message().await? {
                (b'D', row) if rows == 1 => {
                    rows += 1;
                    let row = columns(&row);
                    facts.lineage =
                        row.first().copied().flatten().zip(row.get(1).copied().flatten()).and_then(
                            |(system, timeline)| {
                                let timeline = u32::from_str_radix(timeline, 16).ok()?;
                                Some(Lineage { system: system.parse().ok()?, timeline })
                            },
                        );
                }
                (b'D', row) => {
                    rows += 1;
                    let row = columns(&row);
                    let column = |at: usize| row.get(at).copied().flatten();
                    facts.role = facts.role.or(column(0).map(|text| Role::from_in_recovery(text == "t")));
                    facts.lsn = column(1).and_then(|text| text.parse().ok());
                    let seconds = |at: usize| {
                        let seconds = column(at)?.parse::<f64>().ok()?;
                        Duration::try_from_secs_f64(seconds.max(0.0)).ok()
                    };
                    (facts.replay_age, facts.started) = (seconds(2), seconds(3));
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
            _ if fields.says_full(self.step == "login") => {
                self.done(format!("{code} {text}"));
                Outcome::Full(text)
            }
            sqlstate::TOO_MANY_CONNECTIONS => self.alive_but(code, &text),
            sqlstate::NO_SUCH_DATABASE | sqlstate::NO_PRIVILEGE | sqlstate::FEATURE_NOT_SUPPORTED => {
                self.alive_but(code, &text)
            }
            code if code.starts_with("28") => self.alive_but(code, &text),
            code => Outcome::Failed(Failure {
                step: self.step,
                sqlstate: Some(escaped(code.as_bytes(), 5)),
                text,
                answered: true,
                shows_life: true,
            }),
        }
    }

    fn alive_but(&mut self, code: &str, text: &str) -> Outcome {
        self.done(format!("{code} {text}"));
        Outcome::Up(Facts { warning: Some(format!("{code} {text}")), ..Facts::default() })
    }
}

/// Whether the error is something that came from where the server is.
fn is_from_there(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, InvalidData, UnexpectedEof};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | InvalidData | UnexpectedEof)
}
