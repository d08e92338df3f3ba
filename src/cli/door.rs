//! Where the pgsplit that runs here is asked: by its socket or its admin address, and with which token.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::base::secret::Secret;
use crate::cli::args::{At, Source};
use crate::cli::ask::Problem;
use crate::cli::{config_path, explain, out};
use crate::config::{Admin, ConfigError, Unsure, read_token};

/// One way to the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Its socket.
    Unix(PathBuf),
    /// Its admin address, or a name for it, with the port.
    Tcp(String),
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("unix: has no path".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Self::Tcp(text.to_owned()));
        }
        let wrong = || "write IP:PORT, http://HOST:PORT or unix:/path".to_owned();
        let authority = text.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let authority: hyper::http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        // What stands before `@` may be a password, and goes nowhere.
        if authority.as_str().contains('@') {
            return Err(
                "no user or password can stand here: write the token to a file, --token-file".to_owned()
            );
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self::Tcp(format!("{}:{port}", authority.host())))
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => write!(f, "http://{addr}"),
        }
    }
}

impl From<SocketAddr> for Door {
    /// An address to listen on for everybody is reached by this machine's own.
    fn from(bind: SocketAddr) -> Self {
        let ip = match bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::Tcp(SocketAddr::new(ip, bind.port()).to_string())
    }
}

/// What somebody is asked for. It decides what becomes of it where a configuration does not say for certain who that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// To change something: another one must not get it, so nobody does.
    Order,
    /// To show something: of another one it would be believed only where no file was named.
    Look,
    /// Whether it is alive: after a no, what is well may be ended, and cannot start by a file that is wrong.
    Health,
}

/// The ways to whoever `at` names, else to who runs by the configuration, and the token.
///
/// # Errors
/// Nobody can be asked, or it is not certain who is to be.
pub(super) fn doors(
    source: &Source,
    at: &At,
    errand: Errand,
) -> Result<(Vec<Door>, Option<Secret>), Problem> {
    let given = token(at.token_file.as_deref()).map_err(Problem::Nobody)?;
    if let Some(door) = at.admin.clone().or_else(named_by_variable) {
        let token = given.or_else(|| own_token(source, &door));
        return Ok((vec![door], token));
    }
    let (doors, token) = find(source, errand)?;
    Ok((doors, given.or(token)))
}

/// The configuration's token, where the door is one of the configuration's: nobody else is shown it. Without one the other
/// side says what it wants; a file that cannot be read need not be there.
fn own_token(source: &Source, door: &Door) -> Option<Secret> {
    let admin = admin_of(source).0.ok()??;
    doors_of(&admin).contains(door).then_some(admin.token)?
}

/// A door that `PGSPLIT_ADMIN` names, where that is more than the address that `run` takes it for.
fn named_by_variable() -> Option<Door> {
    let text = std::env::var("PGSPLIT_ADMIN").ok()?;
    ["unix:", "http://"].iter().any(|scheme| text.starts_with(scheme)).then(|| text.parse().ok()).flatten()
}

/// The token that a file or a variable holds.
fn token(file: Option<&Path>) -> Result<Option<Secret>, String> {
    match file {
        Some(path) => {
            let token = read_token(path);
            Ok(Some(token.map_err(|error| format!("--token-file: cannot use {}: {error}", path.display()))?))
        }
        None => {
            Ok(std::env::var("PGSPLIT_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new))
        }
    }
}

/// The ways to it: the socket first, by which everything may be changed.
fn doors_of(admin: &Admin) -> Vec<Door> {
    let socket = admin.socket.as_ref().map(|socket| Door::Unix(socket.path.clone()));
    let bind = admin.bind.filter(|bind| bind.port() != 0).map(Door::from);
    socket.into_iter().chain(bind).collect()
}

/// The ways to the one that runs here and the token, as the configuration has them.
fn find(source: &Source, errand: Errand) -> Result<(Vec<Door>, Option<Secret>), Problem> {
    let (admin, origin) = admin_of(source);
    let (admin, is_guess) = match admin {
        Ok(admin) => (admin, false),
        Err(Unsure { error, guess }) => {
            explain(&error, &origin);
            if !may_guess(errand, source.config.is_some(), &error) {
                return Err(Problem::NotCertain);
            }
            (guess.map(|guess| *guess), true)
        }
    };
    let admin =
        admin.ok_or_else(|| Problem::Nobody(format!("{origin}: admin is off, so there is nobody to ask")))?;
    let doors = doors_of(&admin);
    if doors.is_empty() {
        let why = format!("{origin}: the system chooses admin's port: name it by --admin");
        return Err(Problem::Nobody(why));
    }
    if is_guess {
        let doors: Vec<String> = doors.iter().map(Door::to_string).collect();
        out::complain(&format!("pgsplit: asking {} instead\n", doors.join(", then ")));
    }
    Ok((doors, admin.token))
}

/// What the configuration says of the admin server, and what the configuration is called.
fn admin_of(source: &Source) -> (Result<Option<Admin>, Unsure>, String) {
    let env = |name: &str| std::env::var(name).ok();
    let without_file = || (Admin::without_file(&env), "without a file".to_owned());
    if source.from_url.is_some() || !source.nodes.is_empty() {
        return without_file();
    }
    let path = config_path(source.config.as_deref());
    match Admin::load(&path, &env) {
        // It may run by a URL, and is where one without a file is.
        Err(Unsure { error, .. }) if source.config.is_none() && is_missing(&error) => without_file(),
        admin => (admin, path.display().to_string()),
    }
}

/// Whether somebody may be asked by a guess. A file that was named and is not there is a slip of the pen, and not the file of
/// the one that runs.
fn may_guess(errand: Errand, is_named: bool, error: &ConfigError) -> bool {
    match errand {
        Errand::Order => false,
        Errand::Look => !is_named,
        Errand::Health => !is_named || matches!(error, ConfigError::Invalid(_)),
    }
}

fn is_missing(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_door_is_written_in_three_ways() {
        for (text, expected) in [
            ("127.0.0.1:8404", "http://127.0.0.1:8404"),
            ("[::1]:8404", "http://[::1]:8404"),
            ("http://lb:8404/", "http://lb:8404"),
            ("http://lb", "http://lb:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Door>().unwrap().to_string(), expected);
        }
        for text in
            ["", "here", "127.0.0.1", "https://lb", "unix:", "http://", "http://u:canary@lb:1", "http://lb/x"]
        {
            let error = text.parse::<Door>().unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
        assert_eq!(Door::from("0.0.0.0:1".parse::<SocketAddr>().unwrap()).to_string(), "http://127.0.0.1:1");
    }

    #[test]
    fn the_token_of_the_file_is_for_its_own_doors() {
        let path = std::env::temp_dir().join(format!("pgsplit-door-{}.yaml", std::process::id()));
        let text = "nodes: [{addr: db1, role: primary}]\n\
            admin: {bind: '127.0.0.1:8404', socket: /run/a.sock, token: a-long-enough-canary-token}\n";
        std::fs::write(&path, text).unwrap();
        let source = Source { config: Some(path.clone()), from_url: None, nodes: Vec::new() };
        let is_sent = |door: &str| own_token(&source, &door.parse().unwrap()).is_some();
        for own in ["127.0.0.1:8404", "http://127.0.0.1:8404/", "unix:/run/a.sock"] {
            assert!(is_sent(own), "{own}");
        }
        for other in ["http://lb2:8404", "127.0.0.1:8405", "10.0.0.5:8404", "unix:/tmp/a.sock"] {
            assert!(!is_sent(other), "{other}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_socket_comes_before_the_address() {
        let doors = |text: &str| {
            let config =
                Config::from_yaml(&format!("nodes: [{{addr: db1, role: primary}}]\n{text}"), "c", &|_| None)
                    .unwrap();
            let doors = doors_of(&config.admin.unwrap());
            doors.iter().map(Door::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            doors("admin: {bind: '*:8404', socket: /run/a.sock}"),
            ["unix:/run/a.sock", "http://127.0.0.1:8404"]
        );
        assert_eq!(doors("admin: {bind: '', socket: /run/a.sock}"), ["unix:/run/a.sock"]);
        assert_eq!(doors("admin: {bind: '[::1]:1', socket: off}"), ["http://[::1]:1"]);
        assert_eq!(doors("admin: {bind: '127.0.0.1:0', socket: off}"), [""; 0]);
    }
}
