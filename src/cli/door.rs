//! Where the pgsplit that runs here is asked: by its socket or its admin address, and with which token.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::base::secret::Secret;
use crate::cli::args::{At, Source};
use crate::cli::{load, out, refuse};
use crate::config::{Admin, Config, ConfigError, read_token};

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

/// The ways to whoever `at` names, else to who runs by the configuration, and the token.
///
/// # Errors
/// In words: nobody can be asked.
pub(super) fn doors(source: &Source, at: &At) -> Result<(Vec<Door>, Option<Secret>), String> {
    let given = token(at.token_file.as_deref())?;
    if let Some(door) = at.admin.clone().or_else(named_by_variable) {
        let token = given.or_else(|| own_token(source, &door));
        return Ok((vec![door], token));
    }
    let (doors, token) = find(source)?;
    Ok((doors, given.or(token)))
}

/// The configuration's token, where the door is one of the configuration's: nobody else is shown it. Without one the other
/// side says what it wants; a file that cannot be read need not be there.
fn own_token(source: &Source, door: &Door) -> Option<Secret> {
    let admin = load(source).ok()?.0.admin?;
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
fn find(source: &Source) -> Result<(Vec<Door>, Option<Secret>), String> {
    match load(source) {
        Ok((config, origin)) => {
            let admin =
                config.admin.ok_or_else(|| format!("{origin}: admin is off, so there is nobody to ask"))?;
            let doors = doors_of(&admin);
            if doors.is_empty() {
                return Err(format!("{origin}: the system chooses admin's port: name it by --admin"));
            }
            Ok((doors, admin.token))
        }
        // The one that runs has read the file when it was well, and must not be ended for what the file is now.
        Err((error, origin)) => {
            let is_missing = matches!(&error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
            let usual = without_file();
            let doors = usual.as_ref().map(doors_of).unwrap_or_default();
            let Some(Admin { token, .. }) = usual.filter(|_| !doors.is_empty()) else {
                let _ = refuse(&error, &origin);
                return Err("and without a file there is no admin address".to_owned());
            };
            // Without a file it may run by a URL, and is where one without a file is.
            if source.config.is_some() || !is_missing {
                let _ = refuse(&error, &origin);
                let doors: Vec<String> = doors.iter().map(Door::to_string).collect();
                out::complain(&format!("pgsplit: asking {} instead\n", doors.join(", then ")));
            }
            Ok((doors, token))
        }
    }
}

/// The admin server where no file says another one: from the environment, or the default.
fn without_file() -> Option<Admin> {
    let any = ["localhost=primary".to_owned()];
    Config::from_nodes(&any, &|name: &str| std::env::var(name).ok()).ok()?.admin
}

#[cfg(test)]
mod tests {
    use super::*;

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
