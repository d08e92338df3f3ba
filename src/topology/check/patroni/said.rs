//! The document that Patroni answers with, as far as it is of use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::base::role::Role;
use crate::base::text::escaped;
use crate::topology::check::{Facts, Lineage};

/// A word of Patroni's is cut here.
const WORD_MAX: usize = 40;

/// What a Patroni says of its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// `running`, `starting`, `creating replica` and the like, in its words.
    pub state: String,
    /// Its role, when the server itself has just been asked; what Patroni remembers of it does not count.
    pub role: Option<Role>,
    /// The server's version.
    pub version: Option<String>,
    /// The timeline it writes on, or follows.
    pub timeline: Option<u32>,
    /// Whether Patroni has been told to leave the cluster alone: nobody is promoted by it then.
    pub is_paused: bool,
    /// The tag `noloadbalance`: as a standby it is not to be read from.
    pub noloadbalance: bool,
    /// Bytes of write-ahead log a standby has received.
    pub received: Option<u64>,
    /// Bytes replayed (standby) or written (primary).
    pub lsn: Option<u64>,
    /// Age of the last replayed transaction, by the clock of Patroni's host, to the second.
    pub replay_age: Option<Duration>,
    /// Whether replay has been paused on the server.
    pub is_replay_paused: bool,
    /// `system_identifier` of the control file.
    pub system: Option<i64>,
    /// When the server process began, by its own clock, since the Unix epoch.
    pub started: Option<Duration>,
}

#[derive(Deserialize)]
struct Document {
    state: String,
    role: String,
    server_version: Option<u32>,
    xlog: Option<Xlog>,
    timeline: Option<u32>,
    database_system_identifier: Option<String>,
    postmaster_start_time: Option<String>,
    #[serde(default)]
    pause: bool,
    #[serde(default)]
    tags: Tags,
}

#[derive(Deserialize)]
struct Xlog {
    location: Option<u64>,
    received_location: Option<u64>,
    replayed_location: Option<u64>,
    replayed_timestamp: Option<String>,
    #[serde(default)]
    paused: bool,
}

#[derive(Default, Deserialize)]
struct Tags {
    #[serde(default, deserialize_with = "is_set")]
    noloadbalance: bool,
}

impl Said {
    /// Reads what was said when its own clock showed `now`.
    ///
    /// # Errors
    /// It is not what Patroni says.
    pub(super) fn read(body: &[u8], now: SystemTime) -> serde_json::Result<Self> {
        let document: Document = serde_json::from_slice(body)?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Without positions the server was not asked, or did not answer.
        let role = document.xlog.as_ref().and(match document.role.as_str() {
            "primary" | "master" => Some(Role::Primary),
            // The first of a cluster that follows another one is a standby, too.
            "replica" | "standby_leader" => Some(Role::Standby),
            _ => None,
        });
        let xlog = document.xlog.as_ref();
        let replayed = xlog.and_then(|xlog| since_epoch(xlog.replayed_timestamp.as_deref()?));
        Ok(Self {
            state: escaped(document.state.as_bytes(), WORD_MAX),
            role,
            version: document.server_version.map(version),
            timeline: document.timeline,
            is_paused: document.pause,
            noloadbalance: document.tags.noloadbalance,
            received: xlog.and_then(|xlog| xlog.received_location),
            lsn: xlog.and_then(|xlog| xlog.location.or(xlog.replayed_location)),
            replay_age: replayed.map(|replayed| now.saturating_sub(replayed)),
            is_replay_paused: xlog.is_some_and(|xlog| xlog.paused),
            // Unsigned in Patroni's answer, signed in the server's own.
            system: document.database_system_identifier.and_then(|id| id.parse().ok()).map(u64::cast_signed),
            started: document.postmaster_start_time.as_deref().and_then(since_epoch),
        })
    }

    /// As if the server had said it.
    pub(super) fn facts(&self) -> Facts {
        let lineage = self.system.zip(self.timeline).map(|(system, timeline)| Lineage { system, timeline });
        Facts {
            role: self.role,
            lineage: lineage.filter(|_| self.role == Some(Role::Primary)),
            lsn: self.lsn,
            replay_age: self.replay_age,
            started: self.started,
            ..Facts::default()
        }
    }

    /// `standby, running`, or the state alone.
    pub(super) fn state_in_words(&self) -> String {
        self.role.map_or_else(|| self.state.clone(), |role| format!("{role}, {}", self.state))
    }

    /// All of it, in one line.
    pub(super) fn in_words(&self) -> String {
        let mut text = self.state_in_words();
        let mut more = |more: &str| {
            text.push_str(", ");
            text.push_str(more);
        };
        if let Some(timeline) = self.timeline {
            more(&format!("timeline {timeline}"));
        }
        match (self.role, self.received, self.lsn) {
            (Some(Role::Standby), Some(received), Some(replayed)) => {
                more(&format!("received {}, replayed {}", lsn(received), lsn(replayed)));
            }
            (Some(Role::Primary), _, Some(written)) => more(&format!("written {}", lsn(written))),
            _ => {}
        }
        let flags = [
            (self.is_replay_paused, "replay paused"),
            (self.noloadbalance, "tag noloadbalance"),
            (self.is_paused, "cluster paused"),
        ];
        flags.iter().filter(|(is_so, _)| *is_so).for_each(|(_, words)| more(words));
        text
    }
}

/// A tag is set, as Patroni sees it, with whatever is not empty.
fn is_set<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(value)? {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => true,
    })
}

/// `150018` is 15.18, `90624` is 9.6.24.
fn version(number: u32) -> String {
    let (major, rest) = (number / 10_000, number % 10_000);
    if 10 <= major { format!("{major}.{rest}") } else { format!("{major}.{}.{}", rest / 100, rest % 100) }
}

/// A position in the log, as PostgreSQL writes it.
fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

/// The time in `2026-11-30 12:39:00.751479+01:00`, as Python writes it, since the Unix epoch; `None` in the words of older
/// versions, whose time zones have names.
fn since_epoch(text: &str) -> Option<Duration> {
    let (text, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let seconds = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    let local = humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    match offset.get(..1)? {
        "+" => local.checked_sub(Duration::from_secs(seconds)),
        "-" => local.checked_add(Duration::from_secs(seconds)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Patroni 3.0.2 answered, taken down.
    const PRIMARY: &str = r#"{"state": "running", "postmaster_start_time": "2026-11-30 12:43:57.164665+00:00",
        "role": "master", "server_version": 150018, "xlog": {"location": 67108864}, "timeline": 3, "replication":
        [{"usename": "replicator", "application_name": "n2", "client_addr": "127.0.0.1", "state": "streaming",
        "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1796042643, "database_system_identifier":
        "7713944373706849749", "patroni": {"version": "3.0.2", "scope": "demo"}}"#;
    const STANDBY: &str = r#"{"state": "running", "postmaster_start_time": "2026-11-30 12:44:02.217169+00:00",
        "role": "replica", "server_version": 150018, "xlog": {"received_location": 67110112, "replayed_location":
        67108864, "replayed_timestamp": "2026-11-30 13:44:02.500000+01:00", "paused": false}, "timeline": 3, "pause":
        true, "tags": {"noloadbalance": true, "clonefrom": true}, "patroni": {"version": "4.1.0", "scope": "demo"}}"#;
    const STOPPING: &str = r#"{"state": "stopping", "role": "master", "dcs_last_seen": 1796042658,
        "database_system_identifier": "7713944373706849749", "patroni": {"version": "3.0.2", "scope": "demo"}}"#;

    fn said(body: &str) -> Said {
        let now = humantime::parse_rfc3339("2026-11-30T12:44:05Z").unwrap();
        Said::read(body.as_bytes(), now).unwrap()
    }

    #[test]
    fn a_primary_and_where_its_history_stands() {
        let primary = said(PRIMARY);
        assert_eq!(primary.in_words(), "primary, running, timeline 3, written 0/4000000");
        assert_eq!(primary.version.as_deref(), Some("15.18"));
        let facts = primary.facts();
        let lineage = Lineage { system: 7_713_944_373_706_849_749, timeline: 3 };
        assert_eq!(
            (facts.role, facts.lineage, facts.lsn),
            (Some(Role::Primary), Some(lineage), Some(67_108_864))
        );
        assert!(facts.started.is_some());
    }

    #[test]
    fn a_standby_and_how_far_it_has_come() {
        let standby = said(STANDBY);
        let words = "standby, running, timeline 3, received 0/40004E0, replayed 0/4000000, tag noloadbalance, cluster paused";
        assert_eq!(standby.in_words(), words);
        let facts = standby.facts();
        assert_eq!((facts.role, facts.lineage), (Some(Role::Standby), None));
        assert_eq!((facts.lsn, facts.replay_age), (Some(67_108_864), Some(Duration::from_millis(2500))));
    }

    #[test]
    fn what_patroni_only_remembers_is_no_role() {
        let stopping = said(STOPPING);
        assert_eq!((stopping.role, stopping.facts().lineage), (None, None));
        assert_eq!(stopping.in_words(), "stopping");
    }

    #[test]
    fn roles_of_all_versions() {
        for (word, role) in [
            ("primary", Some(Role::Primary)),
            ("standby_leader", Some(Role::Standby)),
            ("uninitialized", None),
            ("x\\u001b[2J", None),
        ] {
            assert_eq!(said(&PRIMARY.replace("master", word)).role, role, "{word}");
        }
    }

    #[test]
    fn tags_are_set_by_whatever_is_not_empty() {
        let tag = |value: &str| said(&STANDBY.replace("\"noloadbalance\": true", value)).noloadbalance;
        for value in ["true", "\"yes\"", "1"] {
            assert!(tag(&format!("\"noloadbalance\": {value}")), "{value}");
        }
        for value in ["false", "null", "\"\"", "0"] {
            assert!(!tag(&format!("\"noloadbalance\": {value}")), "{value}");
        }
        assert!(!tag("\"nosync\": true"));
    }

    #[test]
    fn what_is_not_from_patroni() {
        for body in [
            "",
            "ok",
            "{}",
            "[]",
            "null",
            r#"{"status": "UP"}"#,
            r#"{"state": 1, "role": 2}"#,
            r#"{"state": "running"}"#,
            r#"{"state": "running", "role": "master", "timeline": -1}"#,
            r#"{"state": "running", "role": "master", "tags": "none"}"#,
            "\u{feff}{}",
        ] {
            assert!(Said::read(body.as_bytes(), UNIX_EPOCH).is_err(), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(Said::read(deep.as_bytes(), UNIX_EPOCH).is_err());
    }

    #[test]
    fn times_as_python_writes_them() {
        let at = |text: &str| since_epoch(text).map(|time| time.as_micros());
        assert_eq!(at("1970-01-01 00:00:01.000002+00:00"), Some(1_000_002));
        assert_eq!(at("1970-01-01 02:00:01+01:30"), Some(1_801_000_000));
        assert_eq!(at("1969-12-31 23:00:00-02:00"), None, "before the epoch by its own clock");
        assert_eq!(at("1970-01-01 00:00:00-02:00"), Some(7_200_000_000));
        for text in
            ["", "+00:00", "2019-09-24 09:22:32.555 CEST", "1970-01-01 00:00:00+01:00", "é1970-01-01+00:00"]
        {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!((version(150_018).as_str(), version(90_624).as_str()), ("15.18", "9.6.24"));
    }
}
