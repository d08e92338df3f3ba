//! `pgsplit config`: what is in effect, and what there is to write.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::{ConfigDiff, ConfigVerb, Source};
use crate::cli::ask::{Asker, Question};
use crate::cli::door::Errand;
use crate::cli::out::{self, Printer};
use crate::cli::{config_path, fail, load, refuse, reload};
use crate::config::diff::{Diff, Effect, diff_to_running};
use crate::config::explain;
use crate::config::schema::schema;
use crate::config::show::{Shown, show};

pub(super) fn config(verb: &ConfigVerb, printer: &mut Printer) -> ExitCode {
    let text = match verb {
        ConfigVerb::Show { source, json } => in_effect(source, *json),
        ConfigVerb::Explain { key: Some(key), .. } => explain_one(key),
        ConfigVerb::Explain { key: None, markdown: true } => Ok(explain::markdown()),
        ConfigVerb::Explain { key: None, markdown: false } => Ok(explain::list(out::width())),
        ConfigVerb::Diff(args) => compare(args),
        ConfigVerb::Schema => Ok(pretty(&schema())),
    };
    text.map_or_else(|code| code, |text| printer.all(&text))
}

/// What a reload of a file would change.
fn compare(args: &ConfigDiff) -> Result<String, ExitCode> {
    let source = args.here.source();
    let file = args.file.clone().unwrap_or_else(|| config_path(source.config.as_deref()));
    let file = Source { config: Some(file), from_url: None, nodes: Vec::new() };
    let (config, _) = load(&file).map_err(|(error, origin)| refuse(&error, &origin))?;
    let asker = Asker::new(&source, &args.here.at, Errand::Look);
    let running = asker.and_then(|asker| asker.json::<Shown>(&Question::get("/api/v1/config")));
    let running = running.map_err(|problem| problem.end())?;
    let (diff, hidden) = diff_to_running(&running, &config);
    Ok(if args.json {
        pretty(&json!({"changes": diff, "not_compared": hidden}))
    } else {
        reload::in_words(&diff) + &not_compared(&hidden) + &how(&diff)
    })
}

fn not_compared(hidden: &[String]) -> String {
    if hidden.is_empty() {
        return String::new();
    }
    format!("? {}: secrets are not shown, and so not compared\n", hidden.join(", "))
}

/// Whether a reload will do.
fn how(diff: &Diff) -> String {
    let restart = diff.keys(Effect::NeedsRestart).replace(',', ", ");
    match (diff.is_applied(), restart.is_empty()) {
        (false, true) => String::new(),
        (true, true) => "A reload applies all of it.\n".to_owned(),
        (true, false) => format!("A reload applies all of it but {restart}: that takes a restart.\n"),
        (false, false) => "A reload applies nothing of it: it takes a restart.\n".to_owned(),
    }
}

fn in_effect(source: &Source, json: bool) -> Result<String, ExitCode> {
    let (config, origin) = load(source).map_err(|(error, origin)| refuse(&error, &origin))?;
    let shown = show(&config);
    Ok(if json { pretty(&shown) } else { format!("# {origin}, in effect\n{}", shown.yaml()) })
}

fn explain_one(key: &str) -> Result<String, ExitCode> {
    let found = explain::find(key).map_err(|why| fail(&why))?;
    let all: Vec<String> = found.iter().map(explain::Explained::in_words).collect();
    Ok(all.join("\n"))
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
