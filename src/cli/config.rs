//! `pgsplit config`: what is in effect, and what there is to write.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::{ConfigDiff, ConfigVerb, Source};
use crate::cli::ask::{Asker, Problem, Question, ended};
use crate::cli::{config_path, fail, load, out, refuse, reload};
use crate::config::diff::{Diff, Effect, diff_to_running};
use crate::config::explain;
use crate::config::schema::schema;
use crate::config::show::{Shown, show};

pub(super) fn config(verb: &ConfigVerb) -> ExitCode {
    match verb {
        ConfigVerb::Show { source, json } => in_effect(source, *json),
        ConfigVerb::Explain { key: Some(key), .. } => explain_one(key),
        ConfigVerb::Explain { key: None, markdown: true } => out::deliver(&explain::markdown()),
        ConfigVerb::Explain { key: None, markdown: false } => out::deliver(&explain::list(out::width())),
        ConfigVerb::Diff(args) => ended(compare(args)),
        ConfigVerb::Schema => out::deliver(&pretty(&schema())),
    }
}

/// What a reload of a file would change.
fn compare(args: &ConfigDiff) -> Result<ExitCode, Problem> {
    let source = args.here.source();
    let file = args.file.clone().unwrap_or_else(|| config_path(source.config.as_deref()));
    let file = Source { config: Some(file), from_url: None, nodes: Vec::new() };
    let config = match load(&file) {
        Ok((config, _)) => config,
        Err((error, origin)) => return Ok(refuse(&error, &origin)),
    };
    let asker = Asker::new(&source, &args.here.at)?;
    let running: Shown = asker.json(&Question::get("/api/v1/config"))?;
    let (diff, hidden) = diff_to_running(&running, &config);
    Ok(out::deliver(&if args.json {
        pretty(&json!({"changes": diff, "not_compared": hidden}))
    } else {
        reload::in_words(&diff) + &not_compared(&hidden) + &how(&diff)
    }))
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

fn in_effect(source: &Source, json: bool) -> ExitCode {
    let (config, origin) = match load(source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => return refuse(&error, &origin),
    };
    let shown = show(&config);
    let text = if json { pretty(&shown) } else { format!("# {origin}, in effect\n{}", shown.yaml()) };
    out::deliver(&text)
}

fn explain_one(key: &str) -> ExitCode {
    match explain::find(key) {
        Ok(found) => {
            let all: Vec<String> = found.iter().map(explain::Explained::in_words).collect();
            out::deliver(&all.join("\n"))
        }
        Err(why) => fail(&why),
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
