//! All settings, read once from the environment.
//!
//! | Variable | Default | Meaning |
//! |---|---|---|
//! | `DATABASE_URL` | required | where to read, such as `postgres://users:secret@pgsplit:6433/users` |
//! | `BIND` | `0.0.0.0:8080` | address and port to serve on |
//! | `INSTANCE` | the host's name | what this instance is called in answers, in the log and to the database |
//! | `POOL_SIZE` | `10` | most connections to the database |
//! | `QUERY_TIMEOUT` | `1s` | longest time for one query |
//! | `CONNECT_TIMEOUT` | `2500ms` | longest time to connect and log in. More than the load balancer needs to give up a silent server and try another: pgsplit's `answer_timeout` |
//! | `REQUEST_TIMEOUT` | `5s` | longest time for one request, all tries included |
//! | `CONNECTION_AGE` | `5m` | a connection older than this is replaced, so that load returns to a server that came back |
//! | `CACHE_SECONDS` | `0` | how long others may keep answers about users; 0: not at all |
//!
//! An empty variable is the same as none.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How this instance works.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) database: Config,
    pub(crate) bind: SocketAddr,
    pub(crate) instance: String,
    pub(crate) pool_size: usize,
    pub(crate) query_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) connection_age: Duration,
    pub(crate) cache_seconds: u32,
}

/// Where variables are looked up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// The environment of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

impl Settings {
    /// All of them, or all faults. No fault shows a part of `DATABASE_URL`, which holds a password.
    pub(crate) fn read(lookup: Lookup<'_>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let database = keep(&mut faults, database(lookup)).unwrap_or_default();
        let settings = Self {
            bind: keep(&mut faults, bind(lookup)).unwrap_or_else(any_address),
            instance: keep(&mut faults, instance(lookup)).unwrap_or_default(),
            pool_size: keep(&mut faults, number(lookup, "POOL_SIZE", 10, 1..=1000)).unwrap_or_default(),
            query_timeout: keep(&mut faults, time(lookup, "QUERY_TIMEOUT", 1000)).unwrap_or_default(),
            connect_timeout: keep(&mut faults, time(lookup, "CONNECT_TIMEOUT", 2500)).unwrap_or_default(),
            request_timeout: keep(&mut faults, time(lookup, "REQUEST_TIMEOUT", 5000)).unwrap_or_default(),
            connection_age: keep(&mut faults, time(lookup, "CONNECTION_AGE", 300_000)).unwrap_or_default(),
            cache_seconds: keep(&mut faults, number(lookup, "CACHE_SECONDS", 0, 0..=86_400))
                .unwrap_or_default(),
            database,
        };
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }

    /// Where the database is, for the log: no user, no password.
    pub(crate) fn database_addr(&self) -> String {
        let ports = self.database.get_ports();
        let name = |(i, host): (usize, &Host)| {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        };
        self.database.get_hosts().iter().enumerate().map(name).collect::<Vec<_>>().join(",")
    }
}

/// Where to serve; also what `healthcheck` needs of the settings.
pub(crate) fn bind(lookup: Lookup<'_>) -> Result<SocketAddr, String> {
    let Some(value) = lookup("BIND") else { return Ok(any_address()) };
    value
        .parse()
        .map_err(|_| wrong("BIND", &value, "an IP address and a port, such as 0.0.0.0:8080 or [::]:8080"))
}

fn any_address() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

fn keep<T>(faults: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn wrong(name: &str, value: &str, needed: impl Display) -> String {
    format!("{name}={value:?}: write {needed}")
}

fn database(lookup: Lookup<'_>) -> Result<Config, String> {
    const SHAPE: &str = "write postgres://USER:PASSWORD@HOST:PORT/DATABASE (special characters of the password \
                         as in %40 for @; the value is not shown, for it holds a password)";
    let Some(url) = lookup("DATABASE_URL") else { return Err(format!("DATABASE_URL is missing: {SHAPE}")) };
    // What the parser says may quote the password when a character of it is not written as %40.
    let config: Config = url.parse().map_err(|_| format!("DATABASE_URL cannot be read: {SHAPE}"))?;
    let missing = [
        ("host", config.get_hosts().is_empty() && config.get_hostaddrs().is_empty()),
        ("user", config.get_user().is_none()),
        ("database", config.get_dbname().is_none()),
    ];
    if let Some((what, _)) = missing.iter().find(|(_, missing)| *missing) {
        return Err(format!("DATABASE_URL names no {what}: {SHAPE}"));
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(
            "DATABASE_URL has sslmode=require, but this service speaks no TLS: leave it out, on a network \
                    that you trust"
                .to_owned(),
        );
    }
    Ok(config)
}

fn instance(lookup: Lookup<'_>) -> Result<String, String> {
    let host_name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = lookup("INSTANCE").unwrap_or_else(host_name);
    // It goes into a header and into the database's list of sessions, which cuts after 63 bytes.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name);
    }
    Err(wrong("INSTANCE", &name, "1 to 63 letters, digits, and . _ - :"))
}

fn number<T>(lookup: Lookup<'_>, name: &str, default: T, allowed: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(value) = lookup(name) else { return Ok(default) };
    let number = value.parse().ok().filter(|number| allowed.contains(number));
    let needed = || format!("a whole number from {} to {}", allowed.start(), allowed.end());
    number.ok_or_else(|| wrong(name, &value, needed()))
}

fn time(lookup: Lookup<'_>, name: &str, default_millis: u64) -> Result<Duration, String> {
    let Some(value) = lookup(name) else { return Ok(Duration::from_millis(default_millis)) };
    let time = humantime::parse_duration(&value).ok().filter(|time| TIMES.contains(time));
    time.ok_or_else(|| wrong(name, &value, "a time with its unit, from 10ms to 1h, such as 500ms, 2s or 5m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://users:hunter2@pgsplit:6433/users";

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        Settings::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_the_database_is_needed() {
        let settings = read(&[("DATABASE_URL", URL)]).unwrap();
        assert_eq!(settings.database_addr(), "pgsplit:6433");
        assert_eq!(settings.bind.to_string(), "0.0.0.0:8080");
        assert_eq!(settings.pool_size, 10);
        assert_eq!(settings.query_timeout, Duration::from_secs(1));
        assert!(!settings.instance.is_empty());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = read(&[
            ("BIND", "8080"),
            ("INSTANCE", "a b"),
            ("POOL_SIZE", "0"),
            ("QUERY_TIMEOUT", "1"),
            ("CONNECT_TIMEOUT", "soon"),
            ("REQUEST_TIMEOUT", "0s"),
            ("CONNECTION_AGE", "2h"),
            ("CACHE_SECONDS", "-1"),
        ])
        .unwrap_err();
        let names: Vec<_> =
            faults.iter().map(|fault| fault.split(['=', ' ']).next().unwrap().to_owned()).collect();
        assert_eq!(
            names,
            [
                "DATABASE_URL",
                "BIND",
                "INSTANCE",
                "POOL_SIZE",
                "QUERY_TIMEOUT",
                "CONNECT_TIMEOUT",
                "REQUEST_TIMEOUT",
                "CONNECTION_AGE",
                "CACHE_SECONDS"
            ]
        );
    }

    #[test]
    fn a_wrong_url_is_not_quoted() {
        for url in [
            "hunter2",
            "postgres://users:hunter2@db:port/users",
            "postgres://users:hunter2@db/users?sslmode=require",
            "postgres://users:hunter2@db/users?hunter2=1",
            "postgres://users:hunter2@/users",
            "postgres://users:hunter2@db",
        ] {
            let faults = read(&[("DATABASE_URL", url)]).unwrap_err().join(" ");
            assert!(!faults.contains("hun") && !faults.contains("ter2"), "{url}: {faults}");
            assert!(faults.contains("DATABASE_URL"), "{url}: {faults}");
        }
    }
}
