//! `pgsplit healthcheck`, for the health check of a container: an image without a shell has no curl.

use std::process::ExitCode;

use crate::cli::FAILURE;
use crate::cli::args::Healthcheck;
use crate::cli::ask::{Asker, Problem, Question};
use crate::cli::door::Errand;
use crate::cli::out::Printer;

pub(super) fn healthcheck(args: &Healthcheck) -> ExitCode {
    match ask(args) {
        Ok(said) => {
            // The code is the answer, and true also where the word for it cannot be written.
            Printer::default().print(&said);
            ExitCode::SUCCESS
        }
        // Whatever the reason is: a container is well, or it is not.
        Err(problem) => {
            let _ = problem.end();
            ExitCode::from(FAILURE)
        }
    }
}

fn ask(args: &Healthcheck) -> Result<String, Problem> {
    let question = Question::get(if args.ready { "/readyz" } else { "/healthz" });
    let asker = Asker::new(&args.source, &args.at, Errand::Health)?.by_address_first();
    let said = asker.text(&question)?;
    if said == "ok\n" || said == "ready\n" { Ok(said) } else { Err(asker.not_ours(&question)) }
}
