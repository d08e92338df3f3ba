//! Connection strings as libpq reads them: `postgres://…` with one or several hosts, and `key=value`.
//!
//! See <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>. No error made here quotes
//! more of the text than a host, a port or the name of a parameter.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{NodeAddr, words};
use crate::base::secret::Secret;

/// A connection string, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnUrl {
    /// Where to connect, in order; at least one.
    pub hosts: Vec<NodeAddr>,
    /// Whom to log in as.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Which database.
    pub dbname: Option<String>,
    /// Every other parameter, in order.
    pub params: Vec<(String, String)>,
}

/// Why a connection string cannot be used. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// What is known of the hosts before they are put together.
#[derive(Default)]
struct Parts {
    hosts: Vec<String>,
    ports: Vec<String>,
    hostaddrs: Vec<String>,
    url: ConnUrl,
}

impl ConnUrl {
    /// Reads either form.
    ///
    /// # Errors
    /// What cannot be read, without any password.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let uri = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        match uri {
            Some(rest) => parse_uri(rest),
            None if text.contains("://") => fail("a connection URL starts with postgres:// or postgresql://"),
            None if text.contains('=') => parse_conninfo(text),
            None => fail("this is neither a URL such as postgres://db1:5432,db2/app nor key=value"),
        }
    }

    /// A parameter other than host, port, user, password and database.
    #[must_use]
    pub fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The URL with its password in it, for the one place that needs it whole.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut out = "postgres://".to_owned();
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        if self.user.is_some() || self.password.is_some() {
            out.push_str(&encoded(self.user.as_deref().unwrap_or_default()));
            if let Some(password) = &self.password {
                let _ = write!(out, ":{}", encoded(password.expose()));
            }
            out.push('@');
        }
        for (index, addr) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let host = addr.host.replace('%', "%25");
            let addr = NodeAddr { host, port: addr.port };
            let _ = write!(out, "{comma}{addr}");
        }
        let _ = write!(out, "/{}", encoded(self.dbname.as_deref().unwrap_or_default()));
        for (index, (key, value)) in self.params.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            let _ = write!(out, "{mark}{}={}", encoded(key), encoded(value));
        }
        out
    }
}

fn fail<T>(message: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError(message.into()))
}

fn parse_uri(rest: &str) -> Result<ConnUrl, UrlError> {
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // The last `@`, and before any `/`: people forget to encode either in a password.
    let (userinfo, rest) = match rest.rsplit_once('@') {
        Some((userinfo, rest)) => (Some(userinfo), rest),
        None => (None, rest),
    };
    let (authority, dbname) = rest.split_once('/').map_or((rest, None), |(rest, name)| (rest, Some(name)));
    let mut parts = Parts::default();
    if let Some(userinfo) = userinfo {
        let (user, password) =
            userinfo.split_once(':').map_or((userinfo, None), |(user, pw)| (user, Some(pw)));
        parts.set("user", decoded(user, "user")?)?;
        if let Some(password) = password {
            parts.set("password", decoded(password, "password")?)?;
        }
    }
    for host in authority.split(',') {
        let (host, port) = split_host(host)?;
        parts.hosts.push(decoded(host, "host")?);
        parts.ports.push(port.to_owned());
    }
    if let Some(dbname) = dbname {
        parts.set("dbname", decoded(dbname, "database")?)?;
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return fail("a parameter after `?` has no `=`");
        };
        let key = decoded(key, "name of a parameter")?;
        let value = decoded(value, &key)?;
        parts.set(&key, value)?;
    }
    parts.finish()
}

/// Host, in its brackets if it has any, and port.
fn split_host(text: &str) -> Result<(&str, &str), UrlError> {
    let after_bracket = text.find(']').map_or(0, |at| at + 1);
    let (inside, rest) = text.split_at_checked(after_bracket).unwrap_or(("", text));
    match rest.split_once(':') {
        Some((host, _)) if !inside.is_empty() && !host.is_empty() => {
            fail("after a bracket comes `:` and a port")
        }
        Some((host, port)) => Ok((if inside.is_empty() { host } else { inside }, port)),
        None if !inside.is_empty() && !rest.is_empty() => fail("after a bracket comes `:` and a port"),
        None => Ok((text, "")),
    }
}

fn decoded(text: &str, what: &str) -> Result<String, UrlError> {
    let what =
        what.chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | ' ')).take(40).collect::<String>();
    let is_whole = text.split('%').skip(1).all(|rest| {
        rest.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    if !is_whole {
        return fail(format!(
            "the {what} has a `%` that two hex digits do not follow; write %25 for a plain `%`"
        ));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if text.contains('\0') => fail(format!("the {what} holds a zero byte")),
        Ok(text) => Ok(text.into_owned()),
        Err(_) => fail(format!("the {what} is not UTF-8")),
    }
}

fn parse_conninfo(text: &str) -> Result<ConnUrl, UrlError> {
    // Wherever it stands, behind a backslash too: it would end a text early in what is sent to a server.
    if text.contains('\0') {
        return fail("the text holds a zero byte");
    }
    let mut parts = Parts::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return fail("the last setting has no `=`");
        };
        let key = key.trim_end();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            // Not quoted: it may be the second half of a password with a space in it.
            return fail("a setting has no proper name; put values with spaces in single quotes");
        }
        let (value, after) = conninfo_value(after.trim_start())?;
        parts.set(key, value)?;
        rest = after.trim_start();
    }
    parts.finish()
}

/// A value, quoted or not, and what follows it.
fn conninfo_value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.strip_prefix('\'');
    let is_quoted = quoted.is_some();
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if is_quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            c if c.is_whitespace() && !is_quoted => return Ok((value, text.get(at..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if is_quoted { fail("a quoted value is not closed") } else { Ok((value, "")) }
}

impl Parts {
    fn set(&mut self, key: &str, value: String) -> Result<(), UrlError> {
        let list = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
        let some = |value: String| Some(value).filter(|value| !value.is_empty());
        match key {
            "host" => {
                self.hosts = list(&value);
                self.ports.resize(self.ports.len().min(self.hosts.len()), String::new());
            }
            "hostaddr" => self.hostaddrs = list(&value),
            "port" => self.ports = list(&value),
            "user" => self.url.user = some(value),
            "password" => self.url.password = some(value).map(Secret::new),
            "dbname" => self.url.dbname = some(value),
            "service" => return fail("`service` is not in this version: write the hosts out"),
            _ => self.url.params.push((key.to_owned(), value)),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ConnUrl, UrlError> {
        let mut hosts = self.hosts;
        for (index, addr) in self.hostaddrs.into_iter().enumerate().filter(|(_, addr)| !addr.is_empty()) {
            if hosts.len() <= index {
                hosts.resize(index + 1, String::new());
            }
            if let Some(host) = hosts.get_mut(index) {
                *host = addr;
            }
        }
        if hosts.is_empty() {
            hosts.push(String::new());
        }
        if self.ports.len() > 1 && self.ports.len() != hosts.len() {
            return fail(format!("there are {} ports for {} hosts", self.ports.len(), hosts.len()));
        }
        let single = if self.ports.len() == 1 { self.ports.first().cloned() } else { None };
        for (index, host) in hosts.iter().enumerate() {
            let port = self.ports.get(index).or(single.as_ref()).map_or("", String::as_str);
            self.url.hosts.push(node_addr(host, port)?);
        }
        Ok(self.url)
    }
}

/// One host; libpq's defaults for what is left out.
fn node_addr(host: &str, port: &str) -> Result<NodeAddr, UrlError> {
    let host = match host {
        "" => "localhost".to_owned(),
        bare if bare.contains(':') && !bare.starts_with('[') => format!("[{bare}]"),
        host => host.to_owned(),
    };
    let colon = if port.is_empty() { "" } else { ":" };
    words::node_addr(&format!("{host}{colon}{port}")).map_err(UrlError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(text: &str) -> Vec<String> {
        ConnUrl::parse(text).unwrap().hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_url_with_several_hosts() {
        let url = ConnUrl::parse(
            "postgres://u%40x:p%2Fw@db1:5433,db2,[::1]:6000/app?target_session_attrs=any&sslmode=prefer",
        )
        .unwrap();
        let hosts: Vec<String> = url.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["db1:5433", "db2:5432", "[::1]:6000"]);
        assert_eq!(url.user.as_deref(), Some("u@x"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p/w"));
        assert_eq!(url.dbname.as_deref(), Some("app"));
        assert_eq!(url.param("sslmode"), Some("prefer"));
        assert_eq!(url.param("target_session_attrs"), Some("any"));
        assert!(!format!("{url:?}").contains("p/w"));
    }

    #[test]
    fn what_is_left_out_is_what_libpq_takes() {
        assert_eq!(hosts("postgresql://"), ["localhost:5432"]);
        assert_eq!(hosts("postgres:///app?host=db1,db2&port=6000"), ["db1:6000", "db2:6000"]);
        assert_eq!(hosts("postgres://db1:6000/?host=db2"), ["db2:6000"]);
        assert_eq!(hosts("host=db1,db2 port=1,2 user=u"), ["db1:1", "db2:2"]);
        assert_eq!(hosts("host=db1 hostaddr=10.0.0.1"), ["10.0.0.1:5432"]);
        assert_eq!(hosts("user=u"), ["localhost:5432"]);
    }

    #[test]
    fn conninfo_quotes() {
        let url = ConnUrl::parse(r"host = db1  password='a \'b\' \\c' user=\ x dbname=").unwrap();
        assert_eq!(url.password.as_ref().map(Secret::expose), Some(r"a 'b' \c"));
        assert_eq!(url.user.as_deref(), Some(" x"));
        assert_eq!(url.dbname, None);
    }

    #[test]
    fn no_value_holds_a_zero_byte() {
        for text in ["user=a\0", "user=\\\0", "user='\\\0'", "a\0=b", "postgres://a%00@h", "postgres://a\0@h"]
        {
            let error = ConnUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains("zero byte"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_raw_at_sign_belongs_to_the_password() {
        let url = ConnUrl::parse("postgres://u:p@w/x:y@db1/app").unwrap();
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p@w/x:y"));
        assert_eq!(url.hosts, [NodeAddr { host: "db1".into(), port: 5432 }]);
    }

    #[test]
    fn errors_never_show_the_password() {
        let cases = [
            "mysql://u:hunter2@db1",
            "postgres://u:hunter2%@db1",
            "postgres://u:hunter2@db1:x",
            "postgres://u:hunter2@db1:99999",
            "postgres://u:hunter2@/x?host=/run",
            "postgres://u:hunter2@[::1",
            "postgres://u:hunter2@[::1]x",
            "postgres://u:hunter2@db1?service=x",
            "postgres://u:hunter2@db1?hunter2",
            "password=hunter2 hunter2 user=x",
            "password='hunter2",
            "host=a,b port=1,2,3 password=hunter2",
            "host=db1 password=hunter2\0 x=y",
            "hunter2",
        ];
        for text in cases {
            let error = ConnUrl::parse(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    fn any_host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9.-]{0,20}",
            Just("::1".to_owned()),
            Just("fe80::1%eth0".to_owned()),
            "10\\.0\\.0\\.[1-9]"
        ]
    }

    fn any_url() -> impl Strategy<Value = ConnUrl> {
        let text = || proptest::option::of("[^\0]{1,12}");
        let hosts = proptest::collection::vec((any_host(), 1u16..), 1..4);
        let params = proptest::collection::vec(("x[a-z_]{1,8}", "[^\0]{0,8}"), 0..3);
        (hosts, text(), text(), text(), params).prop_map(|(hosts, user, password, dbname, params)| ConnUrl {
            hosts: hosts.into_iter().map(|(host, port)| NodeAddr { host, port }).collect(),
            user,
            password: password.map(Secret::new),
            dbname,
            params,
        })
    }

    proptest! {
        #[test]
        fn a_printed_url_is_read_back(url in any_url()) {
            prop_assert_eq!(ConnUrl::parse(&url.expose()), Ok(url));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = ConnUrl::parse(&text);
            let _ = ConnUrl::parse(&format!("postgres://{text}"));
            let _ = ConnUrl::parse(&format!("host={text}"));
        }

        #[test]
        fn no_mix_of_marks_panics(text in "[a%:@/?,&=\\[\\]' \\\\0-9é]{0,40}") {
            let _ = ConnUrl::parse(&format!("postgres://{text}"));
            let _ = ConnUrl::parse(&text);
        }
    }
}
