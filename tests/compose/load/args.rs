//! The arguments, and what is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio_postgres::config::SslMode;

use crate::screen::{complain, masked};
use crate::target::Target;

/// What to do.
pub(crate) enum Command {
    Run(Run),
    Burst(Burst),
}

pub(crate) struct Run {
    pub(crate) workers: u32,
    pub(crate) pause: Duration,
    pub(crate) timeout: Duration,
    pub(crate) fresh_every: u32,
    pub(crate) may_fail: bool,
    pub(crate) report: Option<PathBuf>,
    pub(crate) targets: Vec<Target>,
    pub(crate) reads: Vec<tokio_postgres::Config>,
    pub(crate) writes: Vec<tokio_postgres::Config>,
}

pub(crate) struct Burst {
    pub(crate) target: Target,
    pub(crate) count: u64,
    pub(crate) concurrency: u32,
    pub(crate) timeout: Duration,
    pub(crate) report: Option<PathBuf>,
}

/// Load for container scenarios: asks, and counts what came of it
#[derive(Parser)]
#[command(name = "load")]
struct Line {
    #[command(subcommand)]
    command: Words,
}

#[derive(Subcommand)]
enum Words {
    /// Ask steadily until standard input ends; it may say `step TEXT`, `wait N` and `end`
    Run(RunWords),
    /// Open all connections, then ask on all of them at once
    Burst(BurstWords),
}

// URLs stay text here: what is wrong with one must be said without showing it, as it may hold a password.
#[derive(Args)]
struct RunWords {
    /// Workers for each stream; each asks one thing after the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,
    /// Between an answer and the next request of a worker
    #[arg(long, default_value = "5ms", value_parser = humantime::parse_duration)]
    pause: Duration,
    /// Longest time for one request, read or write, with all it is done again
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Reads on a session before a fresh one is taken; 0: keep it
    #[arg(long, default_value_t = 200)]
    fresh_every: u32,
    /// Exit with 0 even if something failed
    #[arg(long)]
    may_fail: bool,
    /// Write the counts to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// GET this; an n in braces becomes a random number from 1 to 1000
    #[arg(long, value_name = "URL")]
    get: Vec<String>,
    /// POST to this
    #[arg(long, value_name = "URL")]
    post: Vec<String>,
    /// What to POST; one for each --post, in their order
    #[arg(long, value_name = "JSON")]
    body: Vec<String>,
    /// Read from this database
    #[arg(long, value_name = "POSTGRES_URL")]
    read: Vec<String>,
    /// Write to the table `load_writes` of this database
    #[arg(long, value_name = "POSTGRES_URL")]
    write: Vec<String>,
}

#[derive(Args)]
struct BurstWords {
    /// GET this; an n in braces becomes the number of the request
    #[arg(long, value_name = "URL")]
    get: Option<String>,
    /// POST to this
    #[arg(long, value_name = "URL")]
    post: Option<String>,
    /// What to POST; an n in braces becomes the number of the request
    #[arg(long, value_name = "JSON")]
    body: Option<String>,
    /// Requests in all
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Connections, all open before the first request
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    concurrency: u32,
    /// Longest time for one request, and for one connection to open
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Write the counts to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Reads the command line. What is wrong with it has been printed when this fails.
pub(crate) fn read() -> Result<Command, ExitCode> {
    match Line::try_parse() {
        Ok(line) => command(line.command).map_err(|error| {
            complain(&format!("load: {error}"));
            ExitCode::from(2)
        }),
        Err(error) if error.use_stderr() => {
            complain(masked(&error.render().to_string()).trim_end());
            Err(ExitCode::from(2))
        }
        Err(help) => {
            let _ = help.print();
            Err(ExitCode::SUCCESS)
        }
    }
}

fn command(words: Words) -> Result<Command, String> {
    match words {
        Words::Run(words) => run(words).map(Command::Run),
        Words::Burst(words) => burst(words).map(Command::Burst),
    }
}

fn run(words: RunWords) -> Result<Run, String> {
    let (posts, bodies) = (words.post.len(), words.body.len());
    if posts != bodies {
        return Err(format!("each --post needs its --body: {posts} --post, {bodies} --body"));
    }
    let mut targets = Vec::new();
    for url in &words.get {
        targets.push(Target::get(url).map_err(|error| format!("--get: {error}"))?);
    }
    for (url, body) in words.post.iter().zip(&words.body) {
        targets.push(Target::post(url, body).map_err(|error| format!("--post: {error}"))?);
    }
    let reads = words.read.iter().map(|url| database("--read", url)).collect::<Result<Vec<_>, _>>()?;
    let writes = words.write.iter().map(|url| database("--write", url)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() && reads.is_empty() && writes.is_empty() {
        return Err("nothing to do: give --get, --post with --body, --read or --write".to_owned());
    }
    Ok(Run {
        workers: words.workers,
        pause: words.pause,
        timeout: longer_than_none(words.timeout)?,
        fresh_every: words.fresh_every,
        may_fail: words.may_fail,
        report: words.report,
        targets,
        reads,
        writes,
    })
}

fn burst(words: BurstWords) -> Result<Burst, String> {
    let target = match (&words.get, &words.post, &words.body) {
        (Some(url), None, None) => Target::get(url).map_err(|error| format!("--get: {error}"))?,
        (None, Some(url), Some(body)) => {
            Target::post(url, body).map_err(|error| format!("--post: {error}"))?
        }
        (None, Some(_), None) => return Err("--post needs a --body".to_owned()),
        _ => return Err("give either --get URL or --post URL with --body JSON".to_owned()),
    };
    let timeout = longer_than_none(words.timeout)?;
    let (count, concurrency) = (words.count, words.concurrency);
    Ok(Burst { target, count, concurrency, timeout, report: words.report })
}

fn longer_than_none(timeout: Duration) -> Result<Duration, String> {
    if timeout.is_zero() { Err("--timeout: must be longer than 0".to_owned()) } else { Ok(timeout) }
}

/// Says nothing of what the URL holds: the part that is wrong may be the password.
fn database(option: &str, url: &str) -> Result<tokio_postgres::Config, String> {
    let form = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(format!("{option}: not a PostgreSQL URL; write {form}"));
    }
    let config = tokio_postgres::Config::from_str(url).map_err(|_| {
        format!(
            "{option}: this URL cannot be read; write {form}, with %40 for an @ in the password and so on"
        )
    })?;
    if config.get_hosts().is_empty() {
        return Err(format!("{option}: this URL names no host; write {form}"));
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => {}
        _ => return Err(format!("{option}: this program speaks no TLS; leave sslmode out of the URL")),
    }
    let mut config = config;
    config.application_name("load");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{Line, Run, Words, command, database};
    use clap::Parser;

    fn fault(arguments: &str) -> String {
        let line = Line::try_parse_from(arguments.split(' ')).expect("words that clap takes");
        command(line.command).err().expect("a fault")
    }

    #[test]
    fn faults_are_told() {
        assert!(fault("load run").starts_with("nothing to do"));
        assert!(fault("load run --post http://a/ --get http://b/").contains("1 --post, 0 --body"));
        assert!(fault("load run --get https://a/").contains("TLS"));
        assert!(fault("load burst --post http://a/").contains("--body"));
        assert!(fault("load run --get http://a/ --timeout 0s").contains("longer than 0"));
    }

    #[test]
    fn faults_hold_no_password() {
        for url in [
            "postgres://u:secret@h:port/d",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h/d?sslmode=require",
        ] {
            let fault = database("--read", url).expect_err("a fault");
            assert!(!fault.contains("cret"), "{fault}");
        }
    }

    #[test]
    fn streams_may_be_several() {
        let line = "load run --get http://a/ --get http://b/{n} --read postgres://u:p@h/d --workers 2";
        let line = Line::try_parse_from(line.split(' ')).expect("words");
        let Words::Run(words) = line.command else { panic!("not a run") };
        let Run { targets, reads, writes, workers, .. } = super::run(words).expect("a run");
        assert_eq!((targets.len(), reads.len(), writes.len(), workers), (2, 1, 0, 2));
    }
}
