//! One HTTP/1.1 connection that is kept, and opened again when its server has closed it.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::ledger::Source;
use crate::target::Target;

/// Heads and pieces of bodies; small, as there may be thousands of connections.
const BUFFER: usize = 16 * 1024;

pub(crate) struct Caller {
    target: Target,
    connection: Option<Connection>,
    tasks: TaskTracker,
    /// Kept connections that were closed before a request was put on them.
    pub(crate) reopened: u64,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// Why there is no good answer.
pub(crate) struct Failure {
    /// Of the answer, if there was one.
    pub(crate) status: Option<u16>,
    pub(crate) text: String,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { status: None, text }
    }
}

impl Caller {
    pub(crate) fn new(target: Target, tasks: TaskTracker) -> Self {
        Self { target, connection: None, tasks, reopened: 0 }
    }

    /// Connects before there is something to ask.
    pub(crate) async fn open(&mut self, patience: Duration) -> Result<(), String> {
        let opening = timeout(patience, connect(&self.target, &self.tasks)).await;
        self.connection = Some(opening.map_err(|_| format!("no connection within {patience:?}"))??);
        Ok(())
    }

    /// Asks once.
    pub(crate) async fn call(&mut self, number: u64, patience: Duration) -> Result<Source, Failure> {
        let answer = timeout(patience, self.exchange(number)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no whole answer within {patience:?}").into()));
        if answer.as_ref().is_err_and(|failure| failure.status.is_none()) {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, number: u64) -> Result<Source, Failure> {
        let answer = self.send(self.target.request(number)?).await?;
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16();
        let body =
            body.collect().await.map_err(|error| format!("{status}, broken off: {}", chain(&error)))?;
        if word(&head.headers, CONNECTION.as_str()).is_some_and(|word| word.eq_ignore_ascii_case("close")) {
            self.connection = None;
        }
        if !head.status.is_success() {
            let reason = word(&head.headers, "x-pgsplit-reason");
            let reason = reason.map(|reason| format!(", x-pgsplit-reason: {reason}")).unwrap_or_default();
            return Err(Failure { status: Some(status), text: format!("answer {status}{reason}") });
        }
        // What is no JSON says nothing of its origin.
        let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        if let Some(text) = self.target.is_numbered().then(|| not_of(number, &body)).flatten() {
            return Err(Failure { status: Some(status), text });
        }
        Ok(source(status, &head.headers, &body))
    }

    /// A request that could not be put on a kept connection has not been seen by anybody: it goes to a new one, which
    /// is no retry.
    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        if let Some(connection) = &mut self.connection {
            match connection.sender.ready().await {
                Ok(()) => match connection.sender.try_send_request(request).await {
                    Ok(answer) => return Ok(answer),
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(chain(error.error())),
                    },
                },
                Err(_closed) => {}
            }
            self.reopened += 1;
        }
        let connection = connect(&self.target, &self.tasks).await?;
        let connection = self.connection.insert(connection);
        connection.sender.send_request(request).await.map_err(|error| chain(&error))
    }
}

async fn connect(target: &Target, tasks: &TaskTracker) -> Result<Connection, String> {
    let stream = TcpStream::connect((target.host.as_str(), target.port));
    let stream = stream.await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| chain(&error))?;
    // How it ends is told to the request on it.
    let driver = tasks.spawn(async move { drop(connection.await) });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
}

/// What is wrong with an answer to a request for `number` that is about something else.
fn not_of(number: u64, body: &Value) -> Option<String> {
    let id = body.pointer("/data/id")?;
    (id.as_u64() != Some(number)).then(|| "answer of another request".to_owned())
}

/// What an answer says of its origin, as the users service of `compose/` does it.
fn source(status: u16, headers: &HeaderMap, body: &Value) -> Source {
    let status = Some(status);
    // The rest of a stored answer tells of another time.
    let stored = match word(headers, "x-cache") {
        Some("hit") => Some("cache"),
        Some("stale") => Some("cache (stale)"),
        _ => None,
    };
    if let Some(stored) = stored {
        return Source { status, upstream: Some(stored.to_owned()), ..Source::default() };
    }
    let upstream = word(headers, "x-served-by").unwrap_or("-").to_owned();
    Source { status, upstream: Some(upstream), database: database(body), standby: None }
}

fn database(body: &Value) -> Option<String> {
    let field = |path| body.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    field("/meta/database/name").or_else(|| field("/meta/database/address")).map(str::to_owned)
}

fn word<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An error with all that is behind it: hyper says only at the end of the chain what the system said.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{not_of, source};
    use http::HeaderMap;
    use serde_json::json;

    fn told(headers: &[(&'static str, &'static str)], body: &str) -> (String, Option<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a value"));
        }
        let source = source(200, &map, &serde_json::from_str(body).unwrap_or_default());
        (source.upstream.expect("an upstream"), source.database)
    }

    #[test]
    fn answers_of_other_requests_are_seen() {
        assert!(not_of(7, &json!({"data": {"id": 8}})).is_some());
        for body in [json!({"data": {"id": 7}}), json!({"data": [{"id": 8}]}), json!(null)] {
            assert!(not_of(7, &body).is_none(), "{body}");
        }
    }

    #[test]
    fn answers_tell_where_they_come_from() {
        let body = r#"{"users":[1],"meta":{"database":{"name":"db","address":"10.0.0.1"}}}"#;
        assert_eq!(told(&[("x-served-by", "users1")], body), ("users1".into(), Some("db".into())));
        let unnamed = body.replace("\"db\"", "null");
        assert_eq!(told(&[], &unnamed), ("-".into(), Some("10.0.0.1".into())));
        assert_eq!(told(&[("x-served-by", "a"), ("x-cache", "hit")], body), ("cache".into(), None));
        assert_eq!(told(&[("x-cache", "stale")], body), ("cache (stale)".into(), None));
        assert_eq!(told(&[("x-served-by", "a"), ("x-cache", "miss")], "no JSON"), ("a".into(), None));
    }
}
