//! `pgsplit config`: what is in effect, and what there is to write.

use std::process::ExitCode;

use crate::cli::args::{ConfigVerb, Source};
use crate::cli::{fail, load, out, refuse};
use crate::config::explain;
use crate::config::schema::schema;
use crate::config::show::show;

pub(super) fn config(verb: &ConfigVerb) -> ExitCode {
    match verb {
        ConfigVerb::Show { source, json } => in_effect(source, *json),
        ConfigVerb::Explain { key: Some(key), .. } => explain_one(key),
        ConfigVerb::Explain { key: None, markdown: true } => print(&explain::markdown()),
        ConfigVerb::Explain { key: None, markdown: false } => print(&explain::list(out::width())),
        ConfigVerb::Schema => print(&pretty(&schema())),
    }
}

fn in_effect(source: &Source, json: bool) -> ExitCode {
    let (config, origin) = match load(source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => return refuse(&error, &origin),
    };
    let shown = show(&config);
    let text = if json { pretty(&shown) } else { format!("# {origin}, in effect\n{}", shown.yaml()) };
    print(&text)
}

fn explain_one(key: &str) -> ExitCode {
    match explain::find(key) {
        Ok(found) => {
            let all: Vec<String> = found.iter().map(explain::Explained::in_words).collect();
            print(&all.join("\n"))
        }
        Err(why) => fail(&why),
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn print(text: &str) -> ExitCode {
    out::print(text);
    ExitCode::SUCCESS
}
