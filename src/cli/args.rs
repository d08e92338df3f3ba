//! What may be written after `pgsplit`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::base::units::parse_duration;

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
    /// Look at one server once and show each step with its time
    ///
    /// Exit codes are those of `pg_isready`: 0 accepting, 1 rejecting, 2 no answer, 3 nothing was tried.
    #[command(after_help = "Examples:\n  pgsplit probe db1:5432\n  pgsplit probe db1 --user lb_check   \
        (password from PGPASSWORD or ~/.pgpass)")]
    Probe(Probe),
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
    /// Let a new process take the place of the pgsplit that runs here, with its sockets and its open sessions
    ///
    /// The program is started from where it was started before, so a file that was replaced is the new version; it reads the
    /// configuration anew. If it does not become ready, the old process goes on as before.
    #[command(after_help = "Examples:\n  pgsplit upgrade\n  \
        pgsplit upgrade --binary /opt/pgsplit-2/bin/pgsplit --wait 1m")]
    Upgrade(Upgrade),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  pgsplit completions bash > /etc/bash_completion.d/pgsplit")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each verb into a directory
    #[command(
        hide = true,
        after_help = "Examples:\n  pgsplit man | man -l -\n  pgsplit man /usr/local/share/man/man1"
    )]
    Man {
        /// An existing directory
        into: Option<PathBuf>,
    },
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

#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// The listener
    pub(super) name: String,
    #[command(flatten)]
    pub(super) source: Source,
    /// The admin address, instead of the one in the configuration
    #[arg(long, value_name = "IP:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// A file with the token, instead of `PGSPLIT_ADMIN_TOKEN` or the one in the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Longest time for the answer
    #[arg(long, short = 't', default_value = "3s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct Upgrade {
    #[command(flatten)]
    pub(super) source: Source,
    /// Start this program instead; only root and the user that pgsplit runs as may be able to write it
    #[arg(long, value_name = "PATH")]
    pub(super) binary: Option<PathBuf>,
    /// How long the new process may take to be ready
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(super) wait: Duration,
    /// The admin address, instead of the one in the configuration
    #[arg(long, value_name = "IP:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// A file with the token, instead of `PGSPLIT_ADMIN_TOKEN` or the one in the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    pub(super) source: Source,
    /// Also whether every listener has a node and every front can serve
    #[arg(long)]
    pub(super) ready: bool,
    /// The admin address, instead of the one in the configuration
    #[arg(long, value_name = "IP:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// Longest time for the answer
    #[arg(long, short = 't', default_value = "3s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}
