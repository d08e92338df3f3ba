//! What the Patroni beside a server says of it: its role, how far it has come, its tags.
//!
//! Asked is `GET /health`. Each of Patroni's health checks answers with the same document; this one does not care
//! which role the server has, and unlike `/patroni` it does not wait a second for a second try when Patroni has lost its own
//! connection to the server, as after every restart. Whether it says 200 or 503 is of no interest beside what the
//! document says. <https://patroni.readthedocs.io/en/latest/rest_api.html>
//!
//! Whether the server lives is not for Patroni to say. It may be gone while the server goes on, and it may not know yet
//! that the server is gone; so both are asked, side by side.

mod said;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, DATE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout_at};

use crate::base::text::escaped;
use crate::config::{self, Check, NodeAddr};
use crate::net::dial::{self, io_text};
use crate::topology::check::{Facts, Outcome, Report, Step, Whither, look_at};

pub use said::Said;

/// Most of an answer that is read. A primary's names each of its standbys, in some 150 bytes.
const BODY_MAX: usize = 256 * 1024;
/// Most of its head.
const HEAD_MAX: usize = 16 * 1024;
/// How long Patroni may still take to say what is going on, when its server has been found not to answer.
const LAST_WORD: Duration = Duration::from_millis(100);
/// What is said of a server whose Patroni does not say what it is.
const LAST_KNOWN: &str = "its role is the one that was last known";

/// Looks at the server and asks its Patroni, at the same time and within the same `settings.timeout`. Cancel safe.
pub(super) async fn check(node: &config::Node, whither: Whither<'_>, settings: &Check) -> Report {
    let began = Instant::now();
    let addr = node.patroni.beside(&node.addr.host);
    let asking = async {
        let asked =
            timeout_at(began + settings.timeout, ask(node, &addr, whither, began + settings.timeout)).await;
        let no_answer = || format!("no answer within {}", humantime::format_duration(settings.timeout));
        (asked.unwrap_or_else(|_| Err(no_answer())), began.elapsed())
    };
    let (mut report, answer) = {
        let mut looking = Box::pin(look_at(node, whither, settings));
        let mut asking = Box::pin(asking);
        tokio::select! {
            report = &mut looking => {
                let patience = async {
                    match report.outcome {
                        Outcome::Failed(_) => sleep(LAST_WORD).await,
                        // It ends at the deadline.
                        _ => pending().await,
                    }
                };
                let answer = tokio::select! {
                    answer = &mut asking => Some(answer),
                    () = patience => None,
                };
                (report, answer)
            }
            answer = &mut asking => (looking.await, Some(answer)),
        }
    };
    if let Some((answer, took)) = answer {
        let found = answer.as_ref().map_or_else(Clone::clone, Said::in_words);
        // The last one is the one that has failed, if any has.
        let at = report.steps.len()
            - usize::from(matches!(report.outcome, Outcome::Failed(_) | Outcome::NotMade(_)));
        report.steps.insert(at, Step { name: "patroni", took, found });
        report.outcome = both(report.outcome, answer, &addr, settings);
    }
    report.took = began.elapsed();
    report
}

/// What a look at the server and an answer of its Patroni mean together.
fn both(looked: Outcome, answer: Result<Said, String>, addr: &NodeAddr, settings: &Check) -> Outcome {
    match (looked, answer) {
        (Outcome::Up(facts), Ok(said)) => Outcome::Up(together(facts, said, settings)),
        (Outcome::Up(facts), Err(error)) => {
            let outlook = if facts.role.is_some() { "its server says what it is" } else { LAST_KNOWN };
            let warning = facts.warning.or_else(|| Some(format!("Patroni at {addr}: {error}; {outlook}")));
            Outcome::Up(Facts { warning, ..facts })
        }
        (Outcome::Failed(mut failure), Ok(said)) => {
            failure.text = format!("{}; Patroni says {}", failure.text, said.state_in_words());
            Outcome::Failed(failure)
        }
        (looked, _) => looked,
    }
}

/// What a server said of itself comes first.
fn together(facts: Facts, said: Said, settings: &Check) -> Facts {
    let untold = || format!("Patroni says {} and no more; {LAST_KNOWN}", said.state_in_words());
    let warning = facts.warning.or_else(|| (facts.role.is_none() && said.role.is_none()).then(untold));
    // What goes with another role than the one that the server has just told is old.
    let is_agreed = facts.role.is_none() || facts.role == said.role;
    let of_role = if is_agreed { said.facts() } else { Facts::default() };
    Facts {
        role: facts.role.or(of_role.role),
        read_only: facts.read_only,
        version: facts.version.or_else(|| said.version.clone()),
        lineage: facts.lineage.or(of_role.lineage),
        lsn: facts.lsn.or(of_role.lsn),
        replay_age: facts.replay_age.or(of_role.replay_age),
        // The two write it down in different ways, and the same one must look the same each time.
        started: if settings.logs_in { facts.started } else { of_role.started },
        is_ready: facts.is_ready,
        warning,
        patroni: Some(said),
    }
}

/// Asks once. The error is for a person.
async fn ask(
    node: &config::Node,
    addr: &NodeAddr,
    whither: Whither<'_>,
    deadline: Instant,
) -> Result<Said, String> {
    let addrs = addresses(node, addr, whither, deadline).await.map_err(|error| io_text(&error))?;
    let (stream, _) = dial::connect(&addrs, deadline).await.map_err(|error| io_text(&error))?;
    let request = Request::get("/health")
        .header(HOST, addr.to_string())
        .header(USER_AGENT, "pgsplit-check")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| no_http())?;
    let driven = async {
        // What ends it is what the exchange sees.
        let _ = connection.await;
        pending::<Infallible>().await
    };
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|_| no_http())?;
        read(answer).await
    };
    tokio::select! {
        said = exchange => said,
        never = driven => match never {},
    }
}

/// Where the Patroni is: on the host of its server, unless the file says otherwise.
async fn addresses(
    node: &config::Node,
    addr: &NodeAddr,
    whither: Whither<'_>,
    deadline: Instant,
) -> io::Result<Vec<SocketAddr>> {
    let there = |server: &SocketAddr| SocketAddr::new(server.ip(), addr.port);
    match whither {
        Whither::Addr(server) if node.patroni.host.is_none() => Ok(vec![there(&server)]),
        Whither::Name(known) if node.patroni.host.is_none() && !known.is_empty() => {
            let half = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
            let found = dial::resolve(&addr.host, addr.port, half).await;
            Ok(found.unwrap_or_else(|_| known.iter().map(there).collect()))
        }
        Whither::Addr(_) | Whither::Name(_) => dial::resolve(&addr.host, addr.port, deadline).await,
    }
}

async fn read(answer: Response<hyper::body::Incoming>) -> Result<Said, String> {
    let status = answer.status().as_u16();
    let date =
        answer.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let body = Limited::new(answer.into_body(), BODY_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            format!("answers {status} and more than {} KiB: this is not Patroni", BODY_MAX / 1024)
        } else {
            "broke off in the middle of its answer".to_owned()
        }
    })?;
    // Patroni is on the server's host, so it is its clock that replayed transactions are compared with.
    Said::read(&body.to_bytes(), date.unwrap_or_else(SystemTime::now)).map_err(|error| {
        format!("answers {status}, but not as Patroni does ({})", escaped(error.to_string().as_bytes(), 120))
    })
}

fn no_http() -> String {
    "no answer in HTTP (TLS, or something else, may be there)".to_owned()
}
