//! `pgsplit sessions` and `pgsplit kill`: the sessions that are open, and their end.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write, stdin};
use std::process::ExitCode;

use hyper::Method;
use serde::Deserialize;

use crate::cli::args::{self, Chosen};
use crate::cli::ask::{Asker, Problem, Question, ended, part};
use crate::cli::door::Errand;
use crate::cli::out::{self, Printer};
use crate::cli::table::{Cell, Column, Paint, Screen, left, right, table};
use crate::cli::view::{Session, Sessions};
use crate::cli::words::{count, size, time};
use crate::cli::{FAILURE, USAGE, fail};

const COLUMNS: [Column; 11] = [
    left("ID", 0),
    left("LISTENER", 5),
    left("CLIENT", 1),
    left("USER", 2),
    left("DATABASE", 3),
    left("NODE", 0),
    left("STATE", 4),
    right("AGE", 0),
    right("IDLE", 2),
    right("TO NODE", 6),
    right("TO CLIENT", 6),
];

pub(super) fn sessions(args: &args::Sessions, printer: &mut Printer) -> ExitCode {
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Look).and_then(|asker| {
        let mut query = filters(&args.chosen);
        query.push(format!("limit={}", args.limit));
        if let Some(sort) = &args.sort {
            query.push(format!("sort={sort}"));
        }
        if args.reverse {
            query.push("order=asc".to_owned());
        }
        let question = Question::get(format!("/api/v1/sessions?{}", query.join("&")));
        let said = asker.text(&question)?;
        let answer: Sessions = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
        printer.print(&if args.json { said } else { in_words(&answer, out::screen()) });
        Ok(ExitCode::SUCCESS)
    }))
}

/// The table, and how many more there are.
fn in_words(answer: &Sessions, screen: Screen) -> String {
    if answer.sessions.is_empty() {
        return "no such session\n".to_owned();
    }
    let mut text = rows(&answer.sessions, screen);
    let shown = answer.sessions.len() as u64;
    if shown < answer.total {
        let _ = writeln!(text, "… and {} more; --limit {} shows all", answer.total - shown, answer.total);
    }
    text
}

pub(super) fn rows(sessions: &[Session], screen: Screen) -> String {
    let or_none = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
    let row = |s: &Session| {
        let paint = if s.state == "waiting" { Paint::Odd } else { Paint::Plain };
        vec![
            Cell::new(&s.id),
            Cell::new(&s.listener),
            Cell::new(&s.client),
            or_none(&s.user),
            or_none(&s.database),
            or_none(&s.node),
            Cell::painted(&s.state, paint),
            Cell::new(time(s.age_seconds)),
            Cell::new(time(s.idle_seconds)),
            Cell::new(size(s.to_node_bytes)),
            Cell::new(size(s.to_client_bytes)),
        ]
    };
    table(&COLUMNS, &sessions.iter().map(row).collect::<Vec<_>>(), screen)
}

fn filters(chosen: &Chosen) -> Vec<String> {
    let times = [("older_than", &chosen.older_than), ("idle_for", &chosen.idle_for)];
    let times = times.map(|(name, time)| (name, time.map(|time| format!("{}ms", time.as_millis()))));
    let words = [
        ("listener", chosen.listener.clone()),
        ("node", chosen.node.clone()),
        ("user", chosen.user.clone()),
        ("database", chosen.database.clone()),
        ("client", chosen.client.clone()),
        ("state", chosen.state.clone()),
    ];
    let all = words.into_iter().chain(times);
    all.filter_map(|(name, value)| Some(format!("{name}={}", part(&value?)))).collect()
}

pub(super) fn kill(args: &args::Kill, printer: &mut Printer) -> ExitCode {
    let filters = filters(&args.chosen);
    if args.ids.is_empty() == filters.is_empty() {
        out::complain("pgsplit: name sessions by their ids, or say which, such as --node db1\n");
        return ExitCode::from(2);
    }
    if args.ids.is_empty() && !args.yes && !stdin().is_terminal() {
        out::complain("pgsplit: nobody can be asked here whether all of them are meant: say so by --yes\n");
        return ExitCode::from(USAGE);
    }
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Order).and_then(|asker| {
        if args.ids.is_empty() {
            kill_chosen(args, &filters.join("&"), &asker, printer)
        } else {
            kill_named(args, &asker, printer)
        }
    }))
}

fn kill_named(args: &args::Kill, asker: &Asker, printer: &mut Printer) -> Result<ExitCode, Problem> {
    let mut code = ExitCode::SUCCESS;
    for id in &args.ids {
        let question = Question::change(Method::DELETE, format!("/api/v1/sessions/{}", part(id)), None);
        match asker.text(&question) {
            Ok(said) => {
                let shown = Cell::new(id);
                printer.done(&if args.json { said } else { format!("session {} is ended\n", shown.text()) });
            }
            // The others are ended all the same.
            Err(problem @ Problem::No(status, _)) if status.as_u16() == 404 => {
                let _ = problem.end();
                code = ExitCode::from(FAILURE);
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(code)
}

fn kill_chosen(
    args: &args::Kill,
    filters: &str,
    asker: &Asker,
    printer: &mut Printer,
) -> Result<ExitCode, Problem> {
    #[derive(Deserialize)]
    struct Killed {
        killed: u64,
    }
    let found: Sessions = asker.json(&Question::get(format!("/api/v1/sessions?{filters}&limit=1")))?;
    if found.total == 0 {
        return Ok(fail("no such session"));
    }
    if 1 < found.total && !args.yes && !is_meant(&format!("End {}?", count(found.total, "session"))) {
        return Ok(fail("nothing is ended"));
    }
    let question = Question::change(Method::DELETE, format!("/api/v1/sessions?{filters}"), None);
    let said = asker.text(&question)?;
    let Killed { killed } = serde_json::from_str(&said).map_err(|_| asker.not_ours(&question))?;
    let words = if killed == 1 { "is" } else { "are" };
    printer.done(&if args.json { said } else { format!("{} {words} ended\n", count(killed, "session")) });
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits at the terminal.
fn is_meant(question: &str) -> bool {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
