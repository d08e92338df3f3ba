//! `pgsplit healthcheck`, for the health check of a container: an image without a shell has no curl.

use std::process::ExitCode;

use hyper::{Method, StatusCode};

use crate::cli::args::Healthcheck;
use crate::cli::ask::{Question, ask, find};
use crate::cli::{fail, out};

pub(super) fn healthcheck(args: &Healthcheck) -> ExitCode {
    let admin = match args.admin.map_or_else(|| find(&args.source).map(|admin| admin.bind), Ok) {
        Ok(admin) => admin,
        Err(why) => return fail(&why),
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let (token, body) = (None, String::new());
    match ask(admin, &Question { method: Method::GET, path, token, body, within: args.timeout }) {
        Ok((StatusCode::OK, said)) if said == "ok\n" || said == "ready\n" => {
            out::print(&said);
            ExitCode::SUCCESS
        }
        Ok((StatusCode::OK, _)) => fail(&format!("http://{admin}{path} is not pgsplit's")),
        Ok((status, said)) => {
            fail(&format!("http://{admin}{path} answered {}\n{}", status.as_u16(), said.trim_end()))
        }
        Err(error) => fail(&error),
    }
}
