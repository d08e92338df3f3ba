//! What may be written after `pgsplit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::base::units::parse_duration;
use crate::cli::ask::Door;

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
    /// Write a first configuration, with comments; from a connection URL or an haproxy.cfg if you have one
    #[command(
        after_help = "Examples:\n  pgsplit init\n  pgsplit init --from-url postgres://app@db1,db2,db3/shop\n  \
        pgsplit init --from-haproxy /etc/haproxy/haproxy.cfg -o pgsplit.yaml"
    )]
    Init(Init),
    /// The configuration: what is in effect, and what keys there are
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Look at one server once and show each step with its time
    ///
    /// Exit codes are those of `pg_isready`: 0 accepting, 1 rejecting, 2 no answer, 3 nothing was tried.
    #[command(after_help = "Examples:\n  pgsplit probe db1:5432\n  pgsplit probe db1 --user lb_check   \
        (password from PGPASSWORD or ~/.pgpass)")]
    Probe(Probe),
    /// Show where writes and reads go, listeners and nodes, of the pgsplit that runs here
    #[command(
        after_help = "Examples:\n  pgsplit status\n  pgsplit status --watch 2\n  pgsplit status --json | jq .verdict\n  \
        pgsplit status --fail      (exit code 1 when a listener has no node)"
    )]
    Status(Status),
    /// Show nodes and sessions live, on the whole terminal
    #[command(
        after_help = "Keys: q quits, s sorts by age, idle time or bytes, r turns the order, / filters, p stops.\n\n\
        Example:\n  pgsplit top"
    )]
    Top(Top),
    /// Show what has happened, with its cause, and with -f what happens
    #[command(after_help = "Examples:\n  pgsplit events --since 1h\n  pgsplit events -f --node db1\n  \
        pgsplit events -f --json | jq -c .fields")]
    Events(Events),
    /// Show the open sessions
    #[command(after_help = "Examples:\n  pgsplit sessions --node db2 --sort idle\n  \
        pgsplit sessions --user app --older-than 1h --json")]
    Sessions(Sessions),
    /// End sessions: their clients are told FATAL 57P01
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
    Ready(NodeOrder),
    /// Change a node's share of the sessions while it runs
    #[command(
        after_help = "Examples:\n  pgsplit weight db2 50\n  pgsplit weight db2 default    (as in the file)"
    )]
    Weight(Weight),
    /// Let the pgsplit that runs here read its file again; exit code 1 when the file is wrong, and nothing changes
    #[command(after_help = "Example:\n  pgsplit check /etc/pgsplit/config.yaml && pgsplit reload")]
    Reload(Reload),
    /// Ask the pgsplit that runs here whether it is alive; exit code 0 or 1
    ///
    /// It is asked on its admin address, which is looked up in the same configuration as `run` uses.
    #[command(after_help = "Examples:\n  pgsplit healthcheck\n  pgsplit healthcheck --ready\n  \
        HEALTHCHECK CMD [\"/pgsplit\", \"healthcheck\"]   (in a Dockerfile)")]
    Healthcheck(Healthcheck),
    /// Let new sessions of a listener wait, in the pgsplit that runs here; open ones go on
    ///
    /// Who waits longer than `sessions.queue_timeout` is refused. It is asked on its admin address, with its token.
    #[command(after_help = "Examples:\n  pgsplit pause rw\n  \
        pgsplit pause rw --admin 10.0.0.5:8404 --token-file /run/secrets/pgsplit")]
    Pause(Pause),
    /// Let in the sessions that wait for a paused listener, in the order they came
    #[command(after_help = "Examples:\n  pgsplit resume rw\n  \
        pgsplit resume rw --admin 10.0.0.5:8404 --token-file /run/secrets/pgsplit")]
    Resume(Pause),
    /// Print the manual page, or write one for each verb into a directory
    #[command(
        hide = true,
        after_help = "Examples:\n  pgsplit man | man -l -\n  pgsplit man /usr/local/share/man/man1"
    )]
    Man {
        /// An existing directory
        into: Option<PathBuf>,
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

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// Whom to ask, instead of the socket and the address in the configuration: IP:PORT, <http://HOST:PORT> or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<Door>,
    /// A file with the token, instead of `PGSPLIT_ADMIN_TOKEN` or the one in the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Longest time for the answer
    #[arg(long, short = 't', default_value = "3s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

/// Whom to ask, and the file that says where that is.
#[derive(Debug, clap::Args)]
pub(super) struct Here {
    /// The file of the one that runs [default: config.yaml, else /etc/pgsplit/config.yaml]
    #[arg(long = "config", short = 'c', value_name = "FILE", env = "PGSPLIT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) at: At,
}

impl Here {
    /// Where its configuration is.
    pub(super) fn source(&self) -> Source {
        Source { config: self.config.clone(), from_url: None, nodes: Vec::new() }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Show it again and again, every so many seconds
    #[arg(long, short = 'w', value_name = "SECS", num_args = 0..=1, default_missing_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub(super) watch: Option<u32>,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Exit code 1 unless every listener has a node and every front can serve
    #[arg(long)]
    pub(super) fail: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Top {
    /// Seconds from one look to the next
    #[arg(long, short = 'i', value_name = "SECS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(super) interval: u32,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Go on with what happens from now on
    #[arg(long, short = 'f')]
    pub(super) follow: bool,
    /// Only what happened since that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) since: Option<Duration>,
    /// Only what is about this node
    #[arg(long)]
    pub(super) node: Option<String>,
    /// As the API's JSON, one event a line
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

/// Which sessions: those that fit all that is said.
#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// That came to this listener
    #[arg(long)]
    pub(super) listener: Option<String>,
    /// On this node
    #[arg(long)]
    pub(super) node: Option<String>,
    /// Of this user
    #[arg(long)]
    pub(super) user: Option<String>,
    /// In this database
    #[arg(long)]
    pub(super) database: Option<String>,
    /// From this address, with or without its port
    #[arg(long, value_name = "IP[:PORT]")]
    pub(super) client: Option<String>,
    /// In this state: opening, waiting, login, active
    #[arg(long)]
    pub(super) state: Option<String>,
    /// That began at least that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) older_than: Option<Duration>,
    /// On which nothing has moved for at least that long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) idle_for: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Most first
    #[arg(long, value_parser = ["age", "idle", "bytes"])]
    pub(super) sort: Option<String>,
    /// Least first
    #[arg(long)]
    pub(super) reverse: bool,
    /// Show at most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Kill {
    /// Sessions by their ids, as `pgsplit sessions` and the log show them
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) chosen: Chosen,
    /// Do not ask, however many there are
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct NodeOrder {
    /// The node
    pub(super) node: String,
    /// Wait until no session is left on it (`ready`: until it is up), at most that long; exit code 1 when that is over
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = parse_duration)]
    pub(super) wait: Option<Duration>,
    /// While waiting: end the sessions that are left after that long
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = parse_duration)]
    pub(super) kill_after: Option<Duration>,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Weight {
    /// The node
    pub(super) node: String,
    /// 0 to 256, or `default`: that of the file
    #[arg(value_name = "WEIGHT", value_parser = weight)]
    pub(super) weight: Weighs,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) here: Here,
}

#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// The listener
    pub(super) name: String,
    #[command(flatten)]
    pub(super) source: Source,
    /// As the API's JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) at: At,
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

/// A weight; `default` is none of one's own.
fn weight(text: &str) -> Result<Weighs, String> {
    if text == "default" {
        return Ok(Weighs(None));
    }
    let weight = text.parse().ok().filter(|weight| *weight <= 256);
    weight.map(|weight| Weighs(Some(weight))).ok_or_else(|| "write 0 to 256, or default".to_owned())
}

/// What a node is to weigh; `None`: what the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighs(pub(super) Option<u16>);
