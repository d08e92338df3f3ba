//! Asking the pgsplit that runs here: one question at a time over HTTP, by whatever way there is to it.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::base::secret::Secret;
use crate::base::text::{escaped, harmless_json};
use crate::cli::args::{At, Source};
use crate::cli::door::{Door, Errand, doors};
use crate::cli::{BAD_CONFIG, FAILURE, NO_PERMISSION, UNAVAILABLE, out};
use crate::net::dial::io_text;

/// No answer is longer: thousands of sessions, each a few hundred bytes.
const MOST: usize = 64 << 20;
/// What is shown of an answer that is not understood.
const MOST_SHOWN: usize = 2000;
/// An answer that is followed has a sign of life every 15 s.
const SILENT: Duration = Duration::from_secs(60);
/// By this the log and the events tell the command line from others.
const AGENT: &str = concat!("pgsplit/", env!("CARGO_PKG_VERSION"));
/// What is not escaped in a part of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Why there is nothing to show.
#[derive(Debug)]
pub(super) enum Problem {
    /// Nobody can be asked.
    Nobody(String),
    /// The configuration does not say for certain who is to be asked; what is wrong with it has been said.
    NotCertain,
    /// Nobody has answered: what was tried.
    NoAnswer(String),
    /// It was told to do something, and has not said what became of it: who was told.
    Unknown(String),
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
            Self::NoAnswer(_) | Self::Unknown(_) => UNAVAILABLE,
            Self::NotAllowed(_) | Self::No(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                NO_PERMISSION
            }
            Self::NotCertain => BAD_CONFIG,
            Self::Nobody(_) | Self::No(..) | Self::NotOurs(_) => FAILURE,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(why) | Self::No(_, why) => f.write_str(why),
            Self::NotCertain => f.write_str(
                "nobody is asked, for it is not certain where: mend that, or say where by --admin ADDRESS",
            ),
            Self::NoAnswer(tried) => {
                write!(f, "no answer from a running pgsplit\n{tried}\n")?;
                f.write_str(
                    "Is it running? Say where it is by -c FILE, the file it runs by, or by --admin ADDRESS",
                )
            }
            Self::Unknown(told) => {
                write!(f, "no answer to what was to be done\n{told}\n")?;
                f.write_str("Whether it is done, or still will be, is not known: look at `pgsplit status`")
            }
            Self::NotAllowed(tried) => {
                write!(f, "not for this user\n{tried}\n")?;
                f.write_str("Ask as the user or in the group that pgsplit runs as, or by --admin ADDRESS with its token")
            }
            Self::NotOurs(place) => write!(f, "{place} is not pgsplit's"),
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
    method: Method,
    path: String,
    /// JSON.
    body: Option<String>,
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

/// Somebody may have heard the question, and has not answered. What was to be changed may be, whoever asked.
fn unanswered(question: &Question, tried: String) -> Problem {
    if question.method == Method::GET { Problem::NoAnswer(tried) } else { Problem::Unknown(tried) }
}

/// A part of a path, or a value of a query, escaped.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// An answer of which all is there.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) text: String,
    way: Way,
}

/// Who has ended an answer that could have gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Who reads, here.
    ByReader,
    /// The other side.
    ByOther,
}

/// By which door an answer came, and which were tried before that.
#[derive(Clone, Debug)]
struct Way {
    door: Door,
    before: Vec<String>,
}

impl Asker {
    /// Whoever `at` names, else who runs by the configuration.
    pub(super) fn new(source: &Source, at: &At, errand: Errand) -> Result<Self, Problem> {
        let (doors, token) = doors(source, at, errand)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| Problem::Nobody("no runtime could be started".to_owned()))?;
        Ok(Self { doors, token, within: at.timeout, runtime })
    }

    /// The same, but the address is asked before the socket: of several on one machine each has its own.
    pub(super) fn by_address_first(mut self) -> Self {
        self.doors.sort_by_key(|door| matches!(door, Door::Unix(_)));
        self
    }

    /// The same, but waits for an answer so long at least.
    pub(super) fn patient(mut self, least: Duration) -> Self {
        self.within = self.within.max(least);
        self
    }

    /// The answer, whatever it is.
    pub(super) fn ask(&self, question: &Question) -> Result<Said, Problem> {
        self.runtime.block_on(self.said(question))
    }

    /// The text of an answer that is a yes.
    pub(super) fn text(&self, question: &Question) -> Result<String, Problem> {
        self.runtime.block_on(self.yes(question))
    }

    /// An answer that is a yes, understood.
    pub(super) fn json<T: DeserializeOwned>(&self, question: &Question) -> Result<T, Problem> {
        self.runtime.block_on(self.answer(question))
    }

    /// Waits for something else than an answer too, such as a key or a signal.
    pub(super) fn within<F: Future>(&self, all: F) -> F::Output {
        self.runtime.block_on(all)
    }

    /// The same as [`Asker::json`], within [`Asker::within`]. Cancel safe: whoever was asked sees the connection close.
    pub(super) async fn answer<T: DeserializeOwned>(&self, question: &Question) -> Result<T, Problem> {
        let said = self.yes(question).await?;
        serde_json::from_str(&said).map_err(|_| self.not_ours(question))
    }

    /// Asks no more, and waits for nothing that is under way, such as a name that is looked up.
    pub(super) fn leave(self) {
        self.runtime.shutdown_background();
    }

    async fn yes(&self, question: &Question) -> Result<String, Problem> {
        let said = self.said(question).await?;
        if said.status.is_success() { Ok(said.text) } else { Err(said.refusal(question)) }
    }

    async fn said(&self, question: &Question) -> Result<Said, Problem> {
        let (way, answer) = self.send(question).await?;
        let (path, door) = (&question.path, &way.door);
        match timeout(self.within, Limited::new(answer.body, MOST).collect()).await {
            Ok(Ok(body)) => {
                // Whoever has answered: no byte of it moves the cursor of who prints it as it is.
                let text = harmless_json(&String::from_utf8_lossy(&body.to_bytes()));
                Ok(Said { status: answer.status, text, way })
            }
            Ok(Err(error)) => Err(unanswered(question, format!("  {door}{path}: {error}"))),
            Err(_) => Err(self.too_late(door, question)),
        }
    }

    /// The answer came from something else.
    pub(super) fn not_ours(&self, question: &Question) -> Problem {
        let door = self.doors.last().map(Door::to_string).unwrap_or_default();
        Problem::NotOurs(format!("{door}{}", question.path))
    }

    /// Gives each line of an answer that does not end to `take`, until that says to stop, the other side does, or nobody
    /// reads our standard output any more.
    pub(super) fn follow(
        &self,
        question: &Question,
        take: impl FnMut(&str) -> bool,
    ) -> Result<Ended, Problem> {
        self.runtime.block_on(async {
            tokio::select! {
                () = out::reader_gone() => Ok(Ended::ByReader),
                ended = self.follow_until(question, take) => ended,
            }
        })
    }

    async fn follow_until(
        &self,
        question: &Question,
        mut take: impl FnMut(&str) -> bool,
    ) -> Result<Ended, Problem> {
        let (way, mut answer) = self.send(question).await?;
        if !answer.status.is_success() {
            let body = Limited::new(answer.body, MOST_SHOWN).collect().await;
            let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
            let said = Said { status: answer.status, text: text.unwrap_or_default(), way };
            return Err(said.refusal(question));
        }
        let mut rest: Vec<u8> = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout(SILENT, answer.body.frame()).await {
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(harmless_json(String::from_utf8_lossy(&line).trim_end()).as_str()) {
                    return Ok(Ended::ByReader);
                }
            }
            if MOST < rest.len() {
                return Err(self.not_ours(question));
            }
        }
        Ok(Ended::ByOther)
    }

    /// Goes from door to door until one is opened.
    async fn send(&self, question: &Question) -> Result<(Way, Answer), Problem> {
        let mut before = Vec::new();
        let mut is_forbidden = false;
        for door in &self.doors {
            let answer = timeout(self.within, self.knock(door, question)).await;
            match answer {
                Ok(Ok(answer)) => return Ok((Way { door: door.clone(), before }, answer)),
                Ok(Err((kind, why))) => {
                    is_forbidden |= kind == Some(io::ErrorKind::PermissionDenied);
                    before.push(format!("  {door}: {why}"));
                    // Once somebody listened there, it is not asked twice: it may have done it.
                    if kind.is_none() {
                        return Err(unanswered(question, before.join("\n")));
                    }
                }
                Err(_) => return Err(self.too_late(door, question)),
            }
        }
        let tried = before.join("\n");
        Err(if is_forbidden { Problem::NotAllowed(tried) } else { Problem::NoAnswer(tried) })
    }

    fn too_late(&self, door: &Door, question: &Question) -> Problem {
        unanswered(question, format!("  {door}{}: no answer within {:?}", question.path, self.within))
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
            .header(USER_AGENT, AGENT)
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
    let connection = TaskTracker::new().spawn(async move {
        let _ = connection.await;
    });
    Ok((sender, Connection(connection)))
}

impl Said {
    /// What an answer that is a no says.
    pub(super) fn refusal(&self, question: &Question) -> Problem {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
            #[serde(default)]
            hint: String,
        }
        let Self { status, text, way: Way { door, before } } = self;
        let words = match serde_json::from_str::<Refusal>(text) {
            Ok(Refusal { error, hint }) if hint.is_empty() => error,
            Ok(Refusal { error, hint }) => format!("{error}; {hint}"),
            Err(_) => text.trim_end().to_owned(),
        };
        let mut lines: Vec<String> = words.lines().map(|line| escaped(line.as_bytes(), MOST_SHOWN)).collect();
        // By a door that was shut it might have been a yes.
        if matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            lines.extend(before.iter().map(|tried| format!("{tried}, tried first")));
        }
        let words = lines.join("\n");
        Problem::No(*status, format!("{door}{} answered {}\n{words}", question.path, status.as_u16()))
    }
}

/// Runs what talks to the one that runs; what went wrong is said.
pub(super) fn ended(outcome: Result<ExitCode, Problem>) -> ExitCode {
    outcome.unwrap_or_else(|problem| problem.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks whoever listens there, and gives up soon.
    fn asker(addr: std::net::SocketAddr) -> Asker {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Asker { doors: vec![Door::from(addr)], token: None, within: Duration::from_millis(20), runtime }
    }

    #[test]
    fn what_becomes_of_an_order_without_an_answer_is_not_known() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let asker = asker(silent.local_addr().unwrap());
        let order = Question::change(Method::POST, "/api/v1/upgrade", None);
        let problem = asker.ask(&order).unwrap_err();
        assert!(matches!(problem, Problem::Unknown(_)), "{problem}");
        assert!(problem.to_string().contains("look at `pgsplit status`"), "{problem}");
        assert!(matches!(asker.ask(&Question::get("/x")).unwrap_err(), Problem::NoAnswer(_)));
        // Where nobody listens nothing was ordered.
        drop(silent);
        assert!(matches!(asker.ask(&order).unwrap_err(), Problem::NoAnswer(_)));
    }

    #[test]
    fn an_answer_moves_no_cursor() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut asker = asker(listener.local_addr().unwrap());
        asker.within = Duration::from_secs(30);
        let answers = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut stream = listener.accept().unwrap().0;
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let body = "{\"verdict\": \"a\u{1b}[2J\u{9b}\"}\n";
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        let expected = "{\"verdict\": \"a\\u001b[2J\\u009b\"}";
        assert_eq!(asker.text(&Question::get("/")).unwrap().trim_end(), expected);
        let mut lines = Vec::new();
        let ended = asker.within(asker.follow_until(&Question::get("/"), |line| {
            lines.push(line.to_owned());
            true
        }));
        assert_eq!((ended.unwrap(), lines), (Ended::ByOther, vec![expected.to_owned()]));
        answers.join().unwrap();
    }

    #[test]
    fn what_stands_in_a_path_is_a_part_of_it() {
        assert_eq!(part("a/b?c d"), "a%2Fb%3Fc%20d");
        assert_eq!(part("db-1.x_y"), "db-1.x_y");
    }
}
