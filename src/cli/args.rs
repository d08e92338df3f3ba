//! What may be written after `pgsplit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::base::units::parse_duration;
use crate::config::PatroniAddr;

mod groups;
mod live;

pub(super) use groups::{GROUPS, Group, command};
pub(super) use live::{
    At, Chosen, ConfigDiff, Events, Kill, NodeOrder, NodeReady, Pause, Reload, Sessions, Status, Top,
    Upgrade, WHOM, Weight,
};

/// Load balancer for PostgreSQL: point `DATABASE_URL` at it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run in the foreground until SIGTERM
    #[command(after_help = "Examples:\n  pgsplit run\n  pgsplit run /etc/pgsplit/config.yaml\n  \
        pgsplit run --from-url postgres://app:secret@db1,db2,db3/shop\n  \
        pgsplit run --node db1:5432=primary --node db2:5432=replica")]
    Run(Source),
    /// Read the configuration and show all its faults at once
    #[command(after_help = "Examples:\n  pgsplit check config.yaml\n  pgsplit check --connect")]
    Check {
        /// The file [default: config.yaml, else /etc/pgsplit/config.yaml]
        #[arg(env = "PGSPLIT_CONFIG")]
        config: Option<PathBuf>,
        /// Also look at every node once; exit code 1 when one is not up
        #[arg(long)]
        connect: bool,
    },
    /// Write a first configuration, also from a URL or an haproxy.cfg
    ///
    /// What an haproxy.cfg says that has no counterpart stands at the end of the new file, with its line and the reason. A
    /// password is never written. Exit code 1 when the file is there already, or when there is nothing to take over; 78 when
    /// the new file is written and must be mended first.
    #[command(
        after_help = "Examples:\n  pgsplit init\n  pgsplit init --from-url postgres://app@db1,db2,db3/shop\n  \
        pgsplit init --from-haproxy /etc/haproxy/haproxy.cfg -o pgsplit.yaml"
    )]
    Init(Init),
    /// The configuration: what is in effect, what changes, its keys
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Look at one server once and show each step with its time
    ///
    /// Exit codes are those of `pg_isready`: 0 accepting, 1 rejecting, 2 no answer, 3 nothing was tried.
    #[command(after_help = "Examples:\n  pgsplit probe db1:5432\n  pgsplit probe db1 --user lb_check   \
        (password from PGPASSWORD or ~/.pgpass)\n  pgsplit probe db1 --patroni\n  \
        pgsplit probe db1 --patroni=10.0.0.1:8009")]
    Probe(Probe),
    /// Show where writes and reads go, listeners and nodes
    #[command(
        after_help = "Examples:\n  pgsplit status\n  pgsplit status --watch 2\n  pgsplit status --json | jq .verdict\n  \
        pgsplit status --fail      (exit code 1 when a listener has no node)"
    )]
    Status(Status),
    /// Show nodes and sessions live, on the whole terminal
    #[command(
        after_help = "Keys: q quits, s sorts by age, idle time or bytes, r turns the order, / filters, p stops.\n\n\
        Examples:\n  pgsplit top\n  pgsplit top -i 5 --admin http://lb2:8404"
    )]
    Top(Top),
    /// Show what has happened, with its cause, and what happens (-f)
    #[command(after_help = "Examples:\n  pgsplit events --since 1h\n  pgsplit events -f --node db1\n  \
        pgsplit events -f --json | jq -c .fields")]
    Events(Events),
    /// Show the open sessions
    #[command(after_help = "Examples:\n  pgsplit sessions --node db2 --sort idle\n  \
        pgsplit sessions --user app --older-than 1h --json")]
    Sessions(Sessions),
    /// End sessions: their clients are told FATAL 57P01
    ///
    /// Before several are ended that are not named it asks; where standard input is no terminal they take --yes, whatever
    /// their number (exit code 64).
    #[command(after_help = "Examples:\n  pgsplit kill s-1f3a9\n  pgsplit kill --node db2 --idle-for 10m\n  \
        pgsplit kill --user app --yes")]
    Kill(Kill),
    /// Give a node no new sessions; it is checked as before
    ///
    /// What becomes of the sessions on it `sessions.on_drain` says.
    #[command(after_help = "Examples:\n  pgsplit drain db2\n  pgsplit drain db2 --wait 5m --kill-after 2m")]
    Drain(NodeOrder),
    /// Take a node out of use: no new sessions, no checks, no alerts
    #[command(after_help = "Example:\n  pgsplit maint db2 --wait")]
    Maint(NodeOrder),
    /// Put a node back that was drained or out of use
    #[command(after_help = "Example:\n  pgsplit ready db2 --wait     (until it is up)")]
    Ready(NodeReady),
    /// Change a node's share of the sessions
    #[command(
        after_help = "Examples:\n  pgsplit weight db2 50\n  pgsplit weight db2 default    (as in the file)"
    )]
    Weight(Weight),
    /// Let it read its file again; a wrong one changes nothing
    ///
    /// Prints what is different, or what is wrong with the file (exit code 78). It is waited for half a minute at least.
    #[command(after_help = "Example:\n  pgsplit check /etc/pgsplit/config.yaml && pgsplit reload")]
    Reload(Reload),
    /// Let a new process take over, with all open sessions
    ///
    /// The program is started from where it was started before, so a file that was replaced is the new version; it reads the
    /// configuration anew. If it does not become ready, the one that runs goes on as before.
    #[command(after_help = "Example:\n  install pgsplit-new /usr/bin/pgsplit && pgsplit upgrade")]
    Upgrade(Upgrade),
    /// Ask whether it is alive, or ready; exit code 0 or 1
    ///
    /// It is asked on its admin address, which is looked up in the same configuration as `run` uses; on its socket when
    /// there is no address.
    #[command(after_help = "Examples:\n  pgsplit healthcheck\n  pgsplit healthcheck --ready\n  \
        HEALTHCHECK CMD [\"/pgsplit\", \"healthcheck\"]   (in a Dockerfile)")]
    Healthcheck(Healthcheck),
    /// Let new sessions of a listener wait; open ones go on
    ///
    /// Who waits longer than `sessions.queue_timeout` is refused.
    #[command(after_help = "Examples:\n  pgsplit pause rw\n  \
        pgsplit pause rw --admin 10.0.0.5:8404 --token-file /run/secrets/pgsplit")]
    Pause(Pause),
    /// Let in who waits for a paused listener, in the order they came
    #[command(after_help = "Examples:\n  pgsplit resume rw\n  \
        pgsplit resume rw --admin 10.0.0.5:8404 --token-file /run/secrets/pgsplit")]
    Resume(Pause),
    /// Print the manual page, or write one for each verb into a directory
    #[command(
        hide = true,
        after_help = "Examples:\n  pgsplit man | man -l -\n  pgsplit man /usr/local/share/man/man1\n  \
        pgsplit man --markdown > docs/cli.md"
    )]
    Man {
        /// An existing directory
        into: Option<PathBuf>,
        /// Print the reference of the documentation instead, in Markdown
        #[arg(long, conflicts_with = "into")]
        markdown: bool,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  pgsplit completions bash > /etc/bash_completion.d/pgsplit")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print the configuration in effect, defaults marked, secrets as `***`
    #[command(
        after_help = "Examples:\n  pgsplit config show\n  pgsplit config show /etc/pgsplit/config.yaml --json\n  \
        pgsplit config show --from-url \"$DATABASE_URL\""
    )]
    Show {
        #[command(flatten)]
        source: Source,
        /// As JSON, in the shape of the file
        #[arg(long)]
        json: bool,
    },
    /// Say what a key means, what it takes, its default, and whether a reload applies a change of it
    #[command(
        after_help = "Examples:\n  pgsplit config explain check.interval\n  pgsplit config explain max_lag\n  \
        pgsplit config explain            (lists all)"
    )]
    Explain {
        /// The key, as it stands in the file or in an error; all of them when left out
        key: Option<String>,
        /// All of them as the tables of the reference, in Markdown
        #[arg(long, conflicts_with = "key")]
        markdown: bool,
    },
    /// Show what a reload of a file would change in the pgsplit that runs, and whether it takes a restart
    ///
    /// The file is read here, with the variables of this shell. Secrets are not compared, as they are not shown; and whether
    /// an address can be listened on, only a reload finds out.
    #[command(after_help = "Examples:\n  pgsplit config diff\n  pgsplit config diff new.yaml --json\n  \
        pgsplit config diff new.yaml --admin http://lb2:8404")]
    Diff(ConfigDiff),
    /// Print the JSON Schema of the file, for editors
    #[command(after_help = "Example:\n  pgsplit config schema > pgsplit.schema.json\n  \
        and in the file: # yaml-language-server: $schema=pgsplit.schema.json")]
    Schema,
}

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// A libpq URL: its hosts become nodes, its user checks them; its password is not written
    #[arg(long, value_name = "URL", conflicts_with = "from_haproxy")]
    pub(super) from_url: Option<String>,
    /// An haproxy.cfg in front of `PostgreSQL`, such as Patroni's
    #[arg(long, value_name = "FILE")]
    pub(super) from_haproxy: Option<PathBuf>,
    /// Where to write; `-` is the screen [default: config.yaml]
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    pub(super) force: bool,
}

/// Where the configuration comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The file [default: config.yaml, else /etc/pgsplit/config.yaml]
    #[arg(env = "PGSPLIT_CONFIG", conflicts_with_all = ["from_url", "nodes"])]
    pub(super) config: Option<PathBuf>,
    /// A libpq URL instead of a file: its hosts become nodes, its user checks them
    #[arg(
        long,
        value_name = "URL",
        env = "PGSPLIT_FROM_URL",
        hide_env_values = true,
        conflicts_with = "nodes"
    )]
    pub(super) from_url: Option<String>,
    /// A node instead of a file; may be repeated
    #[arg(long = "node", value_name = "HOST:PORT[=ROLE]")]
    pub(super) nodes: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// The server; the port is 5432 unless written
    #[arg(value_name = "HOST:PORT")]
    pub(super) addr: String,
    /// Also ask its Patroni: on port 8008 of the same host unless written
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, require_equals = true, default_missing_value = "8008")]
    pub(super) patroni: Option<PatroniAddr>,
    /// Log in as this user instead of only knocking
    #[arg(long, short = 'U', env = "PGUSER")]
    pub(super) user: Option<String>,
    /// Database to log in to
    #[arg(long, short = 'd', env = "PGDATABASE", default_value = "postgres")]
    pub(super) dbname: String,
    /// Longest time for the whole look
    #[arg(long, short = 't', default_value = "3s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    pub(super) source: Source,
    /// Also whether every listener has a node and every front can serve
    #[arg(long)]
    pub(super) ready: bool,
    #[command(flatten)]
    pub(super) at: At,
}
