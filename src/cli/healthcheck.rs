//! `pgsplit healthcheck`, for the health check of a container: an image without a shell has no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::args::Healthcheck;
use crate::cli::{FAILURE, load, out, refuse};
use crate::config::Config;
use crate::net::dial::io_text;

/// What is shown of an answer that is longer.
const MOST_SHOWN: usize = 64 * 1024;

pub(super) fn healthcheck(args: &Healthcheck) -> ExitCode {
    let admin = match args.admin {
        Some(admin) => admin,
        None => match load(&args.source) {
            Ok((config, origin)) => match config.admin {
                Some(bind) if bind.port() != 0 => bind,
                Some(_) => {
                    return unhealthy(&format!(
                        "{origin}: the system chooses admin's port: name it by --admin"
                    ));
                }
                None => return unhealthy(&format!("{origin}: admin is off, so there is nobody to ask")),
            },
            // The one that runs has read the file when it was well, and must not be ended for what the file is now.
            Err((error, origin)) => {
                let _ = refuse(&error, &origin);
                let Some(usual) = without_file() else {
                    return unhealthy("and without a file there is no admin address");
                };
                out::complain(&format!("pgsplit: asking {usual} instead\n"));
                usual
            }
        },
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return unhealthy("no runtime could be started");
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let asked = runtime.block_on(async { timeout(args.timeout, ask(from_here(admin), path)).await });
    match asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", args.timeout))) {
        Ok((StatusCode::OK, said)) if said == "ok\n" || said == "ready\n" => {
            out::print(&said);
            ExitCode::SUCCESS
        }
        Ok((StatusCode::OK, _)) => unhealthy(&format!("http://{admin}{path} is not pgsplit's")),
        Ok((status, said)) => {
            unhealthy(&format!("http://{admin}{path} answered {}\n{}", status.as_u16(), said.trim_end()))
        }
        Err(error) => unhealthy(&format!("http://{admin}{path}: {error}")),
    }
}

/// The admin address where no file says another one: from the environment, or the default.
fn without_file() -> Option<SocketAddr> {
    let any = ["localhost=primary".to_owned()];
    Config::from_nodes(&any, &|name: &str| std::env::var(name).ok()).ok()?.admin
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

async fn ask(admin: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect(admin).await.map_err(|error| io_text(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(HOST, admin.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let conversation = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let said = Limited::new(answer, MOST_SHOWN).collect().await.map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&said.to_bytes()).into_owned()))
    };
    let (said, _) = tokio::join!(conversation, connection);
    said
}

fn unhealthy(why: &str) -> ExitCode {
    out::complain(&format!("pgsplit: {why}\n"));
    ExitCode::from(FAILURE)
}
