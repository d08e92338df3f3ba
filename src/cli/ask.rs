//! Asking the pgsplit that runs here: where its admin address is, and one question over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::secret::Secret;
use crate::cli::args::Source;
use crate::cli::{load, out, refuse};
use crate::config::{Admin, Config, read_token};
use crate::net::dial::io_text;

/// What is shown of an answer that is longer.
const MOST_SHOWN: usize = 64 * 1024;

/// Where the one that runs here is asked, as the configuration has it.
///
/// # Errors
/// In words: nobody can be asked.
pub(super) fn find(source: &Source) -> Result<Admin, String> {
    match load(source) {
        Ok((config, origin)) => match config.admin {
            Some(admin) if admin.bind.port() != 0 => Ok(admin),
            Some(_) => Err(format!("{origin}: the system chooses admin's port: name it by --admin")),
            None => Err(format!("{origin}: admin is off, so there is nobody to ask")),
        },
        // The one that runs has read the file when it was well, and must not be ended for what the file is now.
        Err((error, origin)) => {
            let _ = refuse(&error, &origin);
            let Some(usual) = without_file() else {
                return Err("and without a file there is no admin address".to_owned());
            };
            out::complain(&format!("pgsplit: asking {} instead\n", usual.bind));
            Ok(usual)
        }
    }
}

/// The admin address where no file says another one: from the environment, or the default.
fn without_file() -> Option<Admin> {
    let any = ["localhost=primary".to_owned()];
    Config::from_nodes(&any, &|name: &str| std::env::var(name).ok()).ok()?.admin
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Question<'q> {
    /// GET, or POST for what changes something.
    pub(super) method: Method,
    /// The path, escaped.
    pub(super) path: &'q str,
    /// For what changes something.
    pub(super) token: Option<&'q Secret>,
    /// What is sent along.
    pub(super) body: String,
    /// Longest time for the answer.
    pub(super) within: Duration,
}

/// Whom to ask for a change, and the token for it: that of the file or variable that says so, else the configuration's.
///
/// # Errors
/// In words: nobody can be asked.
pub(super) fn whom(
    source: &Source,
    admin: Option<SocketAddr>,
    token_file: Option<&Path>,
) -> Result<(SocketAddr, Option<Secret>), String> {
    let given = match token_file {
        Some(path) => {
            let token = read_token(path);
            Some(token.map_err(|error| format!("--token-file: cannot use {}: {error}", path.display()))?)
        }
        None => std::env::var("PGSPLIT_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new),
    };
    if let Some(admin) = admin {
        // Without one the other side says what it wants; a file that cannot be read need not be there.
        return Ok((admin, given.or_else(|| load(source).ok()?.0.admin?.token)));
    }
    let admin = find(source)?;
    Ok((admin.bind, given.or(admin.token)))
}

/// Asks whoever listens at `admin`: status and body of the answer.
///
/// # Errors
/// In words: there was none.
pub(super) fn ask(admin: SocketAddr, question: &Question<'_>) -> Result<(StatusCode, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| "no runtime could be started".to_owned())?;
    let answer = runtime.block_on(async { timeout(question.within, converse(admin, question)).await });
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", question.within)));
    answer.map_err(|error| format!("http://{admin}{}: {error}", question.path))
}

/// Cancel safe: the connection is closed.
async fn converse(admin: SocketAddr, question: &Question<'_>) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect(from_here(admin)).await.map_err(|error| io_text(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(question.path)
        .header(HOST, admin.to_string())
        .header(CONNECTION, "close");
    if let Some(token) = question.token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value =
            value.map_err(|_| "the token cannot be sent: it has control characters".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::from(question.body.clone()))).map_err(|error| error.to_string())?;
    let conversation = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let said = Limited::new(answer, MOST_SHOWN).collect().await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&said.to_bytes()).into_owned()))
    };
    let (said, _) = tokio::join!(conversation, connection);
    said
}

/// An address to listen on for everybody is reached by this machine's own.
fn from_here(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}
