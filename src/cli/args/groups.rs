//! The verbs in groups, as `pgsplit --help` and the reference show them.

use std::fmt::Write;

use clap::{Command, CommandFactory};

use super::Args;

/// Some verbs and what they have in common.
pub(in crate::cli) struct Group {
    pub(in crate::cli) head: &'static str,
    pub(in crate::cli) verbs: &'static [&'static str],
}

/// All verbs but those that are hidden.
pub(in crate::cli) const GROUPS: [Group; 4] = [
    Group { head: "Run it", verbs: &["run", "init", "check", "config", "probe"] },
    Group { head: "See how it runs", verbs: &["status", "top", "events", "sessions", "healthcheck"] },
    Group {
        head: "Change how it runs",
        verbs: &["drain", "maint", "ready", "weight", "pause", "resume", "kill", "reload", "upgrade"],
    },
    Group { head: "More", verbs: &["completions", "help"] },
];

/// The command line, its verbs in groups.
pub(in crate::cli) fn command() -> Command {
    let command = Args::command();
    let verbs = in_groups(&command);
    let options = heading(&command, "Options");
    let template =
        format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{verbs}\n{options}\n{{options}}");
    command.help_template(template)
}

fn in_groups(command: &Command) -> String {
    let name = command.get_styles().get_literal();
    let about = |verb: &str| match command.find_subcommand(verb).and_then(Command::get_about) {
        Some(about) => about.to_string(),
        // Made only when the command line is read.
        None => "Print this, or the help of a verb".to_owned(),
    };
    let wide = GROUPS.iter().flat_map(|group| group.verbs).map(|verb| verb.len()).fold(0, usize::max);
    let mut out = String::new();
    for Group { head, verbs } in &GROUPS {
        let _ = write!(out, "\n{}\n", heading(command, head));
        for verb in *verbs {
            let _ =
                writeln!(out, "  {name}{verb}{name:#}{:pad$}  {}", "", about(verb), pad = wide - verb.len());
        }
    }
    out
}

fn heading(command: &Command, text: &str) -> String {
    let style = command.get_styles().get_header();
    format!("{style}{text}:{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_stands_in_one_group() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|group| group.verbs).copied().collect();
        let command = Args::command();
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name);
        let mut known: Vec<_> = shown.chain(["help"]).collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }

    #[test]
    fn the_help_fits_on_eighty_columns() {
        let help = command().render_help().to_string();
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        for part in ["\nRun it:\n  run ", "\nOptions:\n  -h, --help", "Usage: pgsplit <COMMAND>"] {
            assert!(help.contains(part), "{part}:\n{help}");
        }
    }
}
