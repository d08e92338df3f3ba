//! Asking the pgsplit that runs here: by its socket or its admin address, one question at a time over HTTP.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::base::secret::Secret;
use crate::base::text::escaped;
use crate::cli::args::{At, Source};
use crate::cli::{FAILURE, NO_PERMISSION, UNAVAILABLE, load, out, refuse};
use crate::config::{Admin, Config, ConfigError, read_token};
use crate::net::dial::io_text;

/// No answer is longer: thousands of sessions, each a few hundred bytes.
const MOST: usize = 64 << 20;
/// What is shown of an answer that is not understood.
const MOST_SHOWN: usize = 2000;
/// What is not escaped in a part of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// One way to the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Its socket.
    Unix(PathBuf),
    /// Its admin address, or a name for it, with the port.
    Tcp(String),
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("unix: has no path".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self::Tcp(text.to_owned()));
        }
        let wrong = || "write IP:PORT, http://HOST:PORT or unix:/path".to_owned();
        let authority = text.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let authority: hyper::http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        // What stands before `@` may be a password, and goes nowhere.
        if authority.as_str().contains('@') {
            return Err(
                "no user or password can stand here: write the token to a file, --token-file".to_owned()
            );
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self::Tcp(format!("{}:{port}", authority.host())))
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => write!(f, "http://{addr}"),
        }
    }
}

impl From<SocketAddr> for Door {
    /// An address to listen on for everybody is reached by this machine's own.
    fn from(bind: SocketAddr) -> Self {
        let ip = match bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::Tcp(SocketAddr::new(ip, bind.port()).to_string())
    }
}

/// Why there is nothing to show.
#[derive(Debug)]
pub(super) enum Problem {
    /// Nobody can be asked.
    Nobody(String),
    /// Nobody has answered: what was tried.
    NoAnswer(String),
    /// The socket is not for this user.
    NotAllowed(String),
    /// The answer is a no: its status, and what it says.
    No(StatusCode, String),
    /// The answer is none of pgsplit's.
    NotOurs(String),
}

impl Problem {
    /// Says it; the exit code for it.
    pub(super) fn end(&self) -> ExitCode {
        out::complain(&format!("pgsplit: {self}\n"));
        ExitCode::from(match self {
            Self::NoAnswer(_) => UNAVAILABLE,
            Self::NotAllowed(_) => NO_PERMISSION,
            Self::Nobody(_) | Self::No(..) | Self::NotOurs(_) => FAILURE,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(why) | Self::NoAnswer(why) | Self::NotAllowed(why) | Self::No(_, why) => {
                f.write_str(why)
            }
            Self::NotOurs(where_) => write!(f, "{where_} is not pgsplit's"),
        }
    }
}

/// Who asks, whom, and what gives the right to.
#[derive(Debug)]
pub(super) struct Asker {
    doors: Vec<Door>,
    token: Option<Secret>,
    within: Duration,
    runtime: Runtime,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<String>,
}

impl Question {
    /// Reads `path`.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    /// Changes something.
    pub(super) fn change(method: Method, path: impl Into<String>, body: Option<String>) -> Self {
        Self { method, path: path.into(), body }
    }
}

/// A part of a path, or a value of a query, escaped.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

impl Asker {
    /// Whoever `at` names, else who runs by the configuration.
    pub(super) fn new(source: &Source, at: &At) -> Result<Self, Problem> {
        let given = token(at.token_file.as_deref()).map_err(Problem::Nobody)?;
        let within = at.timeout;
        if let Some(door) = at.admin.clone().or_else(named_by_variable) {
            // Without one the other side says what it wants; a file that cannot be read need not be there.
            let token = given.or_else(|| load(source).ok()?.0.admin?.token);
            return Self::with(vec![door], token, within);
        }
        let admin = find(source).map_err(Problem::Nobody)?;
        let doors = doors_of(&admin);
        Self::with(doors, given.or(admin.token), within)
    }

    fn with(doors: Vec<Door>, token: Option<Secret>, within: Duration) -> Result<Self, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| Problem::Nobody("no runtime could be started".to_owned()))?;
        Ok(Self { doors, token, within, runtime })
    }

    /// Status and text of the answer, whatever it is.
    pub(super) fn ask(&self, question: &Question) -> Result<(StatusCode, String, Door), Problem> {
        self.runtime.block_on(async {
            let (door, answer) = self.send(question).await?;
            let body = timeout(self.within, Limited::new(answer.body, MOST).collect()).await;
            match body {
                Ok(Ok(body)) => {
                    Ok((answer.status, String::from_utf8_lossy(&body.to_bytes()).into_owned(), door))
                }
                Ok(Err(error)) => Err(Problem::NoAnswer(format!("{door}{}: {error}", question.path))),
                Err(_) => Err(self.too_late(&door, question)),
            }
        })
    }

    /// The text of an answer that is a yes.
    pub(super) fn text(&self, question: &Question) -> Result<String, Problem> {
        let (status, said, door) = self.ask(question)?;
        if status.is_success() { Ok(said) } else { Err(refusal(&door, question, status, &said)) }
    }

    /// An answer that is a yes, understood.
    pub(super) fn json<T: DeserializeOwned>(&self, question: &Question) -> Result<T, Problem> {
        let said = self.text(question)?;
        serde_json::from_str(&said).map_err(|_| self.not_ours(question))
    }

    /// The answer came from something else.
    pub(super) fn not_ours(&self, question: &Question) -> Problem {
        let door = self.doors.last().map(Door::to_string).unwrap_or_default();
        Problem::NotOurs(format!("{door}{}", question.path))
    }

    /// Gives each line of an answer that does not end to `take`, until that says to stop or the other side does.
    pub(super) fn follow(
        &self,
        question: &Question,
        mut take: impl FnMut(&str) -> bool,
    ) -> Result<(), Problem> {
        self.runtime.block_on(async {
            let (door, mut answer) = self.send(question).await?;
            if !answer.status.is_success() {
                let body = Limited::new(answer.body, MOST_SHOWN).collect().await;
                let said = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
                return Err(refusal(&door, question, answer.status, &said.unwrap_or_default()));
            }
            let mut rest: Vec<u8> = Vec::new();
            while let Some(frame) = answer.body.frame().await {
                let Ok(frame) = frame else { break };
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    if !take(String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(());
                    }
                }
                if MOST < rest.len() {
                    return Err(self.not_ours(question));
                }
            }
            Ok(())
        })
    }

    /// Goes from door to door until one is opened.
    async fn send(&self, question: &Question) -> Result<(Door, Answer), Problem> {
        let mut tried = Vec::new();
        let mut is_forbidden = false;
        for door in &self.doors {
            let answer = timeout(self.within, self.knock(door, question)).await;
            match answer {
                Ok(Ok(answer)) => return Ok((door.clone(), answer)),
                Ok(Err((kind, why))) => {
                    is_forbidden |= kind == Some(io::ErrorKind::PermissionDenied);
                    tried.push(format!("{door}{}: {why}", question.path));
                    // Once somebody listened there, it is not asked twice: it may have done it.
                    if kind.is_none() {
                        break;
                    }
                }
                Err(_) => return Err(self.too_late(door, question)),
            }
        }
        let tried = tried.join("\n");
        Err(if is_forbidden { Problem::NotAllowed(tried) } else { Problem::NoAnswer(tried) })
    }

    fn too_late(&self, door: &Door, question: &Question) -> Problem {
        Problem::NoAnswer(format!("{door}{}: no answer within {:?}", question.path, self.within))
    }

    /// Connects and sends. The kind of a failure is that of connecting; `None`: it came after.
    async fn knock(
        &self,
        door: &Door,
        question: &Question,
    ) -> Result<Answer, (Option<io::ErrorKind>, String)> {
        let cannot = |error: io::Error| (Some(error.kind()), io_text(&error));
        let (host, (mut sender, connection)) = match door {
            Door::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(cannot)?;
                ("localhost", shake(stream).await?)
            }
            Door::Tcp(addr) => {
                let stream = TcpStream::connect(addr.as_str()).await.map_err(cannot)?;
                (addr.as_str(), shake(stream).await?)
            }
        };
        let request = self.request(host, question).map_err(|why| (None, why))?;
        let answer = sender.send_request(request).await.map_err(|error| (None, error.to_string()))?;
        Ok(Answer { status: answer.status(), body: answer.into_body(), _connection: connection })
    }

    fn request(&self, host: &str, question: &Question) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(question.path.as_str())
            .header(HOST, host)
            .header(CONNECTION, "close");
        if let Some(token) = self.token.as_ref().filter(|_| question.method != Method::GET) {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value =
                value.map_err(|_| "the token cannot be sent: it has control characters".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if question.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(question.body.clone().unwrap_or_default()));
        request.body(body).map_err(|error| error.to_string())
    }
}

/// An answer of which the head is there.
struct Answer {
    status: StatusCode,
    body: Incoming,
    _connection: Connection,
}

/// Moves the bytes of an answer; dropped, the connection is closed.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to speak HTTP on a stream.
async fn shake<S>(
    stream: S,
) -> Result<(SendRequest<Full<Bytes>>, Connection), (Option<io::ErrorKind>, String)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| (None, error.to_string()))?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((sender, Connection(connection)))
}

/// What an answer that is a no says.
pub(super) fn refusal(door: &Door, question: &Question, status: StatusCode, said: &str) -> Problem {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        #[serde(default)]
        hint: String,
    }
    let words = match serde_json::from_str::<Refusal>(said) {
        Ok(Refusal { error, hint }) if hint.is_empty() => error,
        Ok(Refusal { error, hint }) => format!("{error}\n{hint}"),
        Err(_) => said.trim_end().to_owned(),
    };
    let words: Vec<String> = words.lines().map(|line| escaped(line.as_bytes(), MOST_SHOWN)).collect();
    let words = words.join("\n");
    Problem::No(status, format!("{door}{} answered {}\n{words}", question.path, status.as_u16()))
}

/// A door that `PGSPLIT_ADMIN` names, where that is more than the address that `run` takes it for.
fn named_by_variable() -> Option<Door> {
    let text = std::env::var("PGSPLIT_ADMIN").ok()?;
    ["unix:", "http://"].iter().any(|scheme| text.starts_with(scheme)).then(|| text.parse().ok()).flatten()
}

/// The token that a file or a variable holds.
fn token(file: Option<&Path>) -> Result<Option<Secret>, String> {
    match file {
        Some(path) => {
            let token = read_token(path);
            Ok(Some(token.map_err(|error| format!("--token-file: cannot use {}: {error}", path.display()))?))
        }
        None => {
            Ok(std::env::var("PGSPLIT_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new))
        }
    }
}

/// The ways to it, the best first.
fn doors_of(admin: &Admin) -> Vec<Door> {
    vec![admin.bind.into()]
}

/// Where the one that runs here is asked, as the configuration has it.
///
/// # Errors
/// In words: nobody can be asked.
fn find(source: &Source) -> Result<Admin, String> {
    match load(source) {
        Ok((config, origin)) => match config.admin {
            Some(admin) if admin.bind.port() != 0 => Ok(admin),
            Some(_) => Err(format!("{origin}: the system chooses admin's port: name it by --admin")),
            None => Err(format!("{origin}: admin is off, so there is nobody to ask")),
        },
        // The one that runs has read the file when it was well, and must not be ended for what the file is now.
        Err((error, origin)) => {
            let is_only_missing = matches!(&error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
            let is_named = source.config.is_some();
            let Some(usual) = without_file() else {
                let _ = refuse(&error, &origin);
                return Err("and without a file there is no admin address".to_owned());
            };
            if is_named || !is_only_missing {
                let _ = refuse(&error, &origin);
                out::complain(&format!("pgsplit: asking {} instead\n", usual.bind));
            }
            Ok(usual)
        }
    }
}

/// The admin address where no file says another one: from the environment, or the default.
fn without_file() -> Option<Admin> {
    let any = ["localhost=primary".to_owned()];
    Config::from_nodes(&any, &|name: &str| std::env::var(name).ok()).ok()?.admin
}

/// Runs what talks to the one that runs; what went wrong is said.
pub(super) fn ended(outcome: Result<ExitCode, Problem>) -> ExitCode {
    outcome.unwrap_or_else(|problem| problem.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors() {
        for (text, expected) in [
            ("127.0.0.1:8404", "http://127.0.0.1:8404"),
            ("[::1]:8404", "http://[::1]:8404"),
            ("http://lb:8404/", "http://lb:8404"),
            ("http://lb", "http://lb:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Door>().unwrap().to_string(), expected);
        }
        for text in
            ["", "here", "127.0.0.1", "https://lb", "unix:", "http://", "http://u:canary@lb:1", "http://lb/x"]
        {
            let error = text.parse::<Door>().unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
        assert_eq!(Door::from("0.0.0.0:1".parse::<SocketAddr>().unwrap()).to_string(), "http://127.0.0.1:1");
        assert_eq!(part("a/b?c d"), "a%2Fb%3Fc%20d");
    }
}
