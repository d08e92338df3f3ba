//! Every verb and what may stand behind it, in Markdown: `docs/cli.md` is what is printed here.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};

use crate::cli::args::{GROUPS, Group, WHOM, command};

/// Lines of the documentation are no longer, but for tables.
const WIDTH: usize = 125;

/// What stands before the verbs.
const INTRO: &str = "\
# The command line

Written by `pgsplit man --markdown`; `pgsplit VERB --help` says the same. How the verbs are used is in
[operations.md](operations.md#the-command-line), with what they print.

";

/// What stands before the options that the verbs share which ask a running pgsplit.
const ASKING: &str = "\
The pgsplit that runs is asked over its socket (`admin.socket`), or, where that does not open, on its admin address. Both are looked
up in the file it runs by, in its section `admin` alone, whatever is wrong with the rest. Where that does not say for certain whom to
ask, nobody is asked, and the exit code is 78 ([more](operations.md#who-is-asked)). On the address it takes a token to change something; over the socket it takes the right to write to it.
The token of the configuration is sent to its own address only, never to another one that `--admin` names.
";

/// Exit codes of all verbs but `probe`.
const CODES: &str = "\
## Exit codes

| Code | Means |
|---|---|
| 0 | done |
| 1 | failed, or refused; what was waited for has not come; `healthcheck`, `status --fail`: no |
| 2 | the command line is wrong |
| 64 | `kill` of sessions that are not named, where nobody can be asked and `--yes` is not said |
| 69 | no pgsplit answers: the message says where it was looked for, or that it is not known whether an order is done |
| 74 | what a verb prints cannot be written to standard output: the disk is full. What it was to change is changed, which standard error says |
| 77 | not allowed: the socket is for others, or the token is missing or another one; `run`: no right to bind a port |
| 78 | the configuration is wrong: `run`, `check`, `config`, `reload`; `init`: the new file must be mended first; a verb that asks: the file does not say for certain whom |

`probe` has those of `pg_isready`: 0 accepting, 1 rejecting, 2 no answer, 3 nothing was tried.
";

/// The whole reference.
pub(super) fn markdown() -> String {
    let mut all = command();
    all.build();
    let mut out = INTRO.to_owned();
    for Group { head, verbs } in &GROUPS {
        let _ = writeln!(out, "## {head}\n");
        for verb in
            verbs.iter().filter_map(|verb| all.find_subcommand(verb)).filter(|verb| verb.get_name() != "help")
        {
            of_verb(verb, &mut out);
        }
    }
    let shared = all.get_subcommands().find_map(|verb| {
        let shared: Vec<&Arg> = arguments(verb).filter(|arg| is_shared(arg)).collect();
        shared.iter().any(|arg| is_file(arg)).then_some(shared)
    });
    let _ = write!(out, "## {WHOM}\n\n{ASKING}\n");
    table(shared.unwrap_or_default().into_iter(), &mut out);
    out + CODES
}

/// A verb, or each of its own.
fn of_verb(verb: &Command, out: &mut String) {
    if verb.has_subcommands() {
        let inner = verb.get_subcommands().filter(|verb| verb.get_name() != "help");
        inner.for_each(|verb| of_verb(verb, out));
        return;
    }
    let mut verb = verb.clone();
    let usage = verb.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = verb.get_bin_name().unwrap_or_default();
    let about = verb.get_long_about().or_else(|| verb.get_about()).map(StyledStr::to_string);
    let _ = write!(out, "### `{name}`\n\n{}\n\n    {usage}\n\n", sentences(&about.unwrap_or_default()));
    table(arguments(&verb).filter(|arg| !is_shared(arg)), out);
    if arguments(&verb).any(is_shared) {
        let but =
            if arguments(&verb).filter(|arg| is_shared(arg)).any(is_file) { "" } else { ", but for `-c`" };
        let _ = writeln!(out, "And [whom to ask](#whom-to-ask){but}.\n");
    }
    if let Some(examples) = verb.get_after_help().map(StyledStr::to_string) {
        let (head, lines) = examples.rsplit_once("Example").unwrap_or(("", &examples));
        if !head.is_empty() {
            let _ = writeln!(out, "{}\n", head.trim());
        }
        for line in lines.lines().skip(1) {
            let _ = writeln!(out, "    {}", line.trim());
        }
        out.push('\n');
    }
}

fn arguments(verb: &Command) -> impl Iterator<Item = &Arg> {
    let is_for_help =
        |arg: &Arg| matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong);
    verb.get_arguments().filter(move |arg| !arg.is_hide_set() && !is_for_help(arg))
}

fn is_shared(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(WHOM)
}

/// Whether it names the file of the one that runs.
fn is_file(arg: &Arg) -> bool {
    arg.get_id() == "config"
}

/// Arguments, one row for each; nothing where there are none.
fn table<'a>(all: impl Iterator<Item = &'a Arg>, out: &mut String) {
    let mut all = all.peekable();
    if all.peek().is_none() {
        return;
    }
    out.push_str("| | |\n|---|---|\n");
    for arg in all {
        let row = [as_written(arg), meaning(arg)].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out.push('\n');
}

/// `-c`, `--config FILE`
fn as_written(arg: &Arg) -> String {
    let takes = arg.get_num_args().is_some_and(|range| range.takes_values());
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    if arg.is_positional() {
        return format!("`{names}`");
    }
    let is_optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let value = match (takes, is_optional) {
        (true, true) if arg.is_require_equals_set() => format!("[={names}]"),
        (true, true) => format!(" [{names}]"),
        (true, false) => format!(" {names}"),
        (false, _) => String::new(),
    };
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    format!("{short}`--{}{value}`", arg.get_long().unwrap_or_default())
}

/// What it does, what holds without it, and which variable says the same.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(StyledStr::to_string).unwrap_or_default();
    let mut notes = Vec::new();
    let takes = arg.get_num_args().is_some_and(|range| range.takes_values());
    let words: Vec<_> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes)
        .map(|word| format!("`{}`", word.get_name()))
        .collect();
    if !words.is_empty() {
        notes.push(words.join(", "));
    }
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if takes && !default.is_empty() {
        notes.push(format!("by default `{}`", default.join(" ")));
    }
    if let Some(variable) = arg.get_env() {
        notes.push(format!("or `{}`", variable.to_string_lossy()));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    help.replace('\n', " ") + &notes
}

/// What `--help` shows as lines, as a paragraph of sentences.
fn sentences(about: &str) -> String {
    let sentences = about.split("\n\n").map(|part| {
        let part = part.replace('\n', " ");
        if part.ends_with('.') { part } else { part + "." }
    });
    let mut lines = vec![String::new()];
    for word in sentences.collect::<Vec<_>>().join(" ").split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.extend([" ", word]);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_is_printed() {
        let printed = markdown();
        // `pgsplit man --markdown > docs/cli.md` writes it.
        assert!(
            printed == include_str!("../../docs/cli.md"),
            "docs/cli.md is not what is printed:\n{printed}"
        );
        for part in [
            "### `pgsplit config diff`",
            "| `--wait [TIME]` |",
            "| `-c`, `--config FILE` |",
            "(#whom-to-ask)",
        ] {
            assert!(printed.contains(part), "{part}:\n{printed}");
        }
        assert!(!printed.contains("pgsplit man`") && printed.lines().all(|line| line.chars().count() < 400));
    }
}
