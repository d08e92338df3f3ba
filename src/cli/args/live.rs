//! What the verbs take that talk to the pgsplit that runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::units::parse_duration;
use crate::cli::args::Source;
use crate::cli::door::Door;

/// Over the options that all these verbs have.
pub(in crate::cli) const WHOM: &str = "Whom to ask";

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct At {
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = WHOM,
        help = "Whom to ask, instead of the socket or the address of the configuration: IP:PORT, http://HOST:PORT or \
                unix:/path"
    )]
    pub(in crate::cli) admin: Option<Door>,
    /// A file with the token, instead of `PGSPLIT_ADMIN_TOKEN` or the one in the configuration
    #[arg(long, value_name = "FILE", help_heading = WHOM)]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// Longest time for the answer
    #[arg(long, short = 't', default_value = "3s", value_parser = parse_duration, help_heading = WHOM)]
    pub(in crate::cli) timeout: Duration,
}

/// Whom to ask, and the file that says where that is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Here {
    /// The file of the one that runs [default: config.yaml, else /etc/pgsplit/config.yaml]
    #[arg(long = "config", short = 'c', value_name = "FILE", env = "PGSPLIT_CONFIG", help_heading = WHOM)]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) at: At,
}

impl Here {
    /// Where its configuration is.
    pub(in crate::cli) fn source(&self) -> Source {
        Source { config: self.config.clone(), from_url: None, nodes: Vec::new() }
    }
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConfigDiff {
    /// The file to compare with what runs [default: the file of the one that runs]
    pub(in crate::cli) file: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Status {
    /// Show it again and again, every so many seconds; 1 where no number stands
    #[arg(long, short = 'w', value_name = "SECS", num_args = 0..=1, default_missing_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub(in crate::cli) watch: Option<u32>,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Exit code 1 unless every listener has a node and every front can serve
    #[arg(long)]
    pub(in crate::cli) fail: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Top {
    /// Seconds from one look to the next
    #[arg(long, short = 'i', value_name = "SECS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(in crate::cli) interval: u32,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Events {
    /// Go on with what happens from now on
    #[arg(long, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// Only what happened since that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) since: Option<Duration>,
    /// Only what is about this node
    #[arg(long)]
    pub(in crate::cli) node: Option<String>,
    /// As the API's JSON, one event a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

/// Which sessions: those that fit all that is said.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Chosen {
    /// That came to this listener
    #[arg(long)]
    pub(in crate::cli) listener: Option<String>,
    /// On this node
    #[arg(long)]
    pub(in crate::cli) node: Option<String>,
    /// Of this user
    #[arg(long)]
    pub(in crate::cli) user: Option<String>,
    /// In this database
    #[arg(long)]
    pub(in crate::cli) database: Option<String>,
    /// From this address, with or without its port
    #[arg(long, value_name = "IP[:PORT]")]
    pub(in crate::cli) client: Option<String>,
    /// In this state: opening, waiting, login, active
    #[arg(long)]
    pub(in crate::cli) state: Option<String>,
    /// That began at least that long ago
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) older_than: Option<Duration>,
    /// On which nothing has moved for at least that long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) idle_for: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Sessions {
    #[command(flatten)]
    pub(in crate::cli) chosen: Chosen,
    /// Most first
    #[arg(long, value_parser = ["age", "idle", "bytes"])]
    pub(in crate::cli) sort: Option<String>,
    /// Least first
    #[arg(long)]
    pub(in crate::cli) reverse: bool,
    /// Show at most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(in crate::cli) limit: u32,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Kill {
    /// Sessions by their ids, as `pgsplit sessions` and the log show them
    #[arg(value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) chosen: Chosen,
    /// Do not ask, however many there are
    #[arg(long, short = 'y')]
    pub(in crate::cli) yes: bool,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NodeOrder {
    /// The node
    pub(in crate::cli) node: String,
    /// Wait until no session is left on it, at most that long, or 5m; exit code 1 when that is over
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = parse_duration)]
    pub(in crate::cli) wait: Option<Duration>,
    /// While waiting: end the sessions that are left after that long
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = parse_duration)]
    pub(in crate::cli) kill_after: Option<Duration>,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NodeReady {
    /// The node
    node: String,
    /// Wait until it is up, at most that long, or 5m; exit code 1 when that is over
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// As the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    here: Here,
}

impl From<NodeReady> for NodeOrder {
    fn from(NodeReady { node, wait, json, here }: NodeReady) -> Self {
        Self { node, wait, kill_after: None, json, here }
    }
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Weight {
    /// The node
    pub(in crate::cli) node: String,
    /// 0 to 256, or `default`: that of the file
    #[arg(value_name = "WEIGHT", value_parser = weight)]
    pub(in crate::cli) wanted: Weighs,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reload {
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Upgrade {
    /// Seconds that the new process may take to be ready
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(in crate::cli) wait: u32,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pause {
    /// The listener
    pub(in crate::cli) name: String,
    /// As the API's JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) here: Here,
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
pub(in crate::cli) struct Weighs(pub(in crate::cli) Option<u16>);
