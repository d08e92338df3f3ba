//! One look at one node: resolve, connect, and as far into a login as the settings say.
//!
//! A check leaves no line in the server's log: it reads what it was sent before it closes (a reset is logged),
//! and ends a login with `Terminate`.
//!
//! The node is a stranger until it has shown that it speaks the protocol: lengths are capped before anything is
//! kept, and the whole look has one deadline.

mod conversation;
mod look;
pub mod patroni;
mod starved;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use crate::base::role::Role;
use crate::base::text::escaped;
use crate::config::{self, Check, CheckKind, PatroniAddr};
use crate::net::dial::{self, io_text};
use crate::net::peer;
use conversation::is_this_patroni;
use look::Look;
use starved::{Lateness, measured};

pub use tls::{TlsAnswer, ask_tls};

/// The same words each time, so that they are logged once.
const STARVED: &str = "this process did not get to run while it waited for the answer";

/// What one look at a node found.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What was done, in order; the last one may have failed.
    pub steps: Vec<Step>,
    /// Where the name led.
    pub addrs: Vec<SocketAddr>,
    /// What it means.
    pub outcome: Outcome,
}

/// One step of a check.
#[derive(Clone, Debug)]
pub struct Step {
    /// `resolve`, `connect`, `startup`, `authentication`, `login`, `lag`, `patroni`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What it brought, in a few words.
    pub found: String,
}

/// What a look at a node means.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A living server.
    Up(Facts),
    /// A living server that takes no more sessions (53300), in its words.
    Full(String),
    /// No server that could be used.
    Failed(Failure),
    /// No look at all: this machine is out of descriptors, memory or ports, or has kept this process from listening. Says
    /// nothing of the node.
    NotMade(String),
}

impl Outcome {
    /// For a person, in one line.
    #[must_use]
    pub fn in_words(&self, role: Option<Role>) -> String {
        match self {
            Self::Up(facts) => {
                let role = role.or(facts.role).map_or("role unknown", Role::as_str);
                let version = facts.version.as_deref().map(|version| format!(", PostgreSQL {version}"));
                let warning = facts.warning.as_deref().map(|text| format!("; {text}"));
                format!("up, {role}{}{}", version.unwrap_or_default(), warning.unwrap_or_default())
            }
            Self::Full(text) => format!("full: {text}"),
            Self::Failed(failure) => format!("down: {}: {}", failure.step, failure.text),
            Self::NotMade(text) => format!("could not check: {text}"),
        }
    }
}

/// What a login taught, or a Patroni; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// From `in_hot_standby`, or `pg_is_in_recovery()` before version 14; else as Patroni has it.
    pub role: Option<Role>,
    /// `default_transaction_read_only`.
    pub read_only: Option<bool>,
    /// `server_version`.
    pub version: Option<String>,
    /// Where the history of a primary stands.
    pub lineage: Option<Lineage>,
    /// Bytes of write-ahead log replayed (standby) or written (primary).
    pub lsn: Option<u64>,
    /// Age of the last replayed transaction.
    pub replay_age: Option<Duration>,
    /// When the server process began, by the server's own clock, since the Unix epoch. Another one: it was restarted.
    pub started: Option<Duration>,
    /// The login came to its end: there was room for it.
    pub is_ready: bool,
    /// The server lives, but something about the check needs a hand.
    pub warning: Option<String>,
    /// What its Patroni said.
    pub patroni: Option<patroni::Said>,
}

/// Where the history of a primary stands: each promotion begins a new timeline of the same database system.
/// <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// `system_identifier` of the control file: shared by all that began as one server.
    pub system: i64,
    /// The timeline it writes on.
    pub timeline: u32,
}

/// Why a look failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which step.
    pub step: &'static str,
    /// The server's code, when it gave one.
    pub sqlstate: Option<String>,
    /// A few words for a person.
    pub text: String,
    /// Whether the server itself answered.
    pub answered: bool,
    /// Whether anything was heard from its address at all, be it that the connection is refused. A host that is there ends
    /// the sessions of processes that are gone by itself; one that is silent leaves them hanging.
    pub shows_life: bool,
}

/// Where a look goes.
#[derive(Clone, Copy, Debug)]
pub enum Whither<'a> {
    /// To the addresses that the node's name leads to, in turn. These are the ones it led to before: they serve while
    /// the resolver does not.
    Name(&'a [SocketAddr]),
    /// To this address alone; nothing is looked up.
    Addr(SocketAddr),
}

/// Looks at the node once. Takes no longer than `settings.timeout`. Cancel safe.
pub async fn check(node: &config::Node, whither: Whither<'_>, settings: &Check) -> Report {
    match settings.kind {
        CheckKind::Tcp | CheckKind::Startup | CheckKind::Login => look_at(node, whither, settings).await,
        CheckKind::Patroni => patroni::check(node, whither, settings).await,
    }
}

/// Looks at the server itself.
async fn look_at(node: &config::Node, whither: Whither<'_>, settings: &Check) -> Report {
    let at = SystemTime::now();
    let began = Instant::now();
    let password = settings.password.as_ref().or(node.password.as_ref());
    let mut look = Look::new(settings, password, whither);
    let deadline = began + settings.timeout;
    let (looked, lateness) = measured(timeout_at(deadline, look.run(&node.addr))).await;
    let took = began.elapsed();
    let outcome = match looked {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if dial::is_own_fault(&error) => Outcome::NotMade(io_text(&error)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            heard_nothing(look.step, io_text(&error), false, lateness, settings.timeout)
        }
        Ok(Err(error)) => look.failed(&error),
        Err(_) => {
            let mut text = format!("no answer within {}", humantime::format_duration(settings.timeout));
            // Patroni waits for the end of the line, which no startup packet has.
            if look.step == "startup" && node.addr.port == PatroniAddr::default().port {
                text += &is_this_patroni(&node.addr);
            }
            let shows_life = !matches!(look.step, "resolve" | "connect" | "startup");
            heard_nothing(look.step, text, shows_life, lateness, settings.timeout)
        }
    };
    match &outcome {
        Outcome::Failed(failure) => look.done(failure.text.clone()),
        Outcome::NotMade(text) => look.done(text.clone()),
        Outcome::Up(_) | Outcome::Full(_) => {}
    }
    // What was found holds, however long the server takes to hang up.
    if let Some(stream) = look.done_with.take() {
        let _ = timeout_at(deadline, peer::leave(stream)).await;
    }
    Report { at, took, steps: look.steps, addrs: look.addrs, outcome }
}

/// What it means that there was no answer in time.
fn heard_nothing(
    step: &'static str,
    text: String,
    shows_life: bool,
    lateness: Lateness,
    timeout: Duration,
) -> Outcome {
    if lateness.excuses(timeout) {
        return Outcome::NotMade(STARVED.to_owned());
    }
    Outcome::Failed(Failure { step, sqlstate: None, text, answered: false, shows_life })
}

impl Report {
    /// Whether anything was heard from where the server is; or nobody asked.
    #[must_use]
    pub fn shows_life(&self) -> bool {
        match &self.outcome {
            Outcome::Failed(failure) => failure.shows_life,
            Outcome::Up(_) | Outcome::Full(_) | Outcome::NotMade(_) => true,
        }
    }

    /// Whether it was not made at all, and says nothing.
    #[must_use]
    pub const fn is_not_made(&self) -> bool {
        matches!(self.outcome, Outcome::NotMade(_))
    }

    /// A look that got no further than the name, which led nowhere.
    #[must_use]
    pub fn of_lookup(error: &io::Error) -> Self {
        let (name, text) = ("resolve", io_text(error));
        let step = Step { name, took: Duration::ZERO, found: text.clone() };
        let outcome = if dial::is_own_fault(error) {
            Outcome::NotMade(text)
        } else {
            Outcome::Failed(Failure { step: name, sqlstate: None, text, answered: false, shows_life: false })
        };
        Self { at: SystemTime::now(), took: Duration::ZERO, steps: vec![step], addrs: Vec::new(), outcome }
    }
}

impl Facts {
    fn learn(&mut self, parameter: &[u8]) {
        let mut texts = parameter.split(|&b| b == 0);
        let (Some(name), Some(value)) = (texts.next(), texts.next()) else { return };
        match name {
            b"in_hot_standby" => self.role = Some(Role::from_in_recovery(value == b"on")),
            b"default_transaction_read_only" => self.read_only = Some(value == b"on"),
            b"server_version" => self.version = Some(escaped(value, 40)),
            _ => {}
        }
    }

    fn major_version(&self) -> Option<u32> {
        let version = self.version.as_deref()?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn while_the_resolver_fails_the_addresses_that_were_good_serve() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let yaml = "nodes: [{addr: no-such-host.invalid, role: primary}]\ncheck: {type: tcp, timeout: 4s}";
        let config = config::Config::from_yaml(yaml, "test", &|_| None).unwrap();
        let cluster = &config.clusters[0];
        let known = [listener.local_addr().unwrap()];
        let report = check(&cluster.nodes[0], Whither::Name(&known), &cluster.check).await;
        assert!(matches!(report.outcome, Outcome::Up(_)), "{report:?}");
        assert!(report.steps[0].found.contains("known from before"), "{report:?}");
        let report = check(&cluster.nodes[0], Whither::Name(&[]), &cluster.check).await;
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{report:?}");
        let report = check(&cluster.nodes[0], Whither::Addr(known[0]), &cluster.check).await;
        assert!(matches!(report.outcome, Outcome::Up(_)), "{report:?}");
        assert_eq!((report.steps[0].name, &*report.addrs), ("connect", &known[..]), "nothing is looked up");
    }

    /// A look at a server that accepts and says nothing, while the clock goes on by `step` at a time.
    async fn look_at_silence(step: Duration) -> Report {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let yaml = "nodes: [{addr: a, role: primary}]\ncheck: {type: startup, timeout: 2s}";
        let config = config::Config::from_yaml(yaml, "test", &|_| None).unwrap();
        let (cluster, addr) = (config.clusters[0].clone(), listener.local_addr().unwrap());
        let tasks = tokio_util::task::TaskTracker::new();
        let look =
            tasks.spawn(async move { check(&cluster.nodes[0], Whither::Addr(addr), &cluster.check).await });
        let (_stream, _) = listener.accept().await.unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            tokio::time::advance(step).await;
        }
        look.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_heard_counts_only_if_somebody_listened() {
        let report = look_at_silence(Duration::from_millis(10)).await;
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{report:?}");
        for step in [2000, 700, 150] {
            let report = look_at_silence(Duration::from_millis(step)).await;
            assert!(
                matches!(&report.outcome, Outcome::NotMade(text) if text == STARVED),
                "{step} {report:?}"
            );
            assert!(report.shows_life(), "its silence does not begin with this");
        }
    }

    #[test]
    fn versions_before_ten_are_asked_less() {
        let major = |text: &str| Facts { version: Some(text.into()), ..Facts::default() }.major_version();
        assert_eq!(major("15.4 (Debian 15.4-1)"), Some(15));
        assert_eq!(major("9.6.24"), Some(9));
        assert_eq!(major("18beta1"), Some(18));
        assert_eq!(major("devel"), None);
    }

    #[test]
    fn reported_parameters_are_learnt() {
        let mut facts = Facts::default();
        facts.learn(b"in_hot_standby\0on\0");
        facts.learn(b"default_transaction_read_only\0off\0");
        facts.learn(b"broken");
        assert_eq!((facts.role, facts.read_only), (Some(Role::Standby), Some(false)));
    }
}
