//! Which parts of a text must not be shown.

/// What stands in for a hidden part, whatever its length.
pub(super) const STRUCK_OUT: &str = "***";

/// Whether the value of a key of this name is a secret. Misspelt names count: the fault that says so shows
/// the line.
pub(super) fn is_secret_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    // The second is a key, and only looks like one.
    if name.ends_with("_file") || name == "socket" {
        return false;
    }
    let tells = ["pass", "pwd", "secret", "token", "credential"].iter().any(|part| name.contains(part));
    let is_near = ["password", "token", "secret"].iter().any(|word| strsim::osa_distance(&name, word) <= 2);
    tells || is_near || name == "pw" || name == "key" || name.ends_with("_key")
}

/// `text` without the passwords of URLs (`user:***@host`) and of `password=` settings in it.
pub(super) fn without_url_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in url_passwords(text) {
        if start < from {
            continue;
        }
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(STRUCK_OUT);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Byte ranges of passwords inside connection strings anywhere in `text`, in order.
pub(super) fn url_passwords(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let is_break = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let mut start = 0;
    for word in text.split(is_break) {
        let scheme = word.find("://").map_or(0, |at| at + 3);
        // A raw `/`, `?` or `#` in a password breaks the URL but is a password still: look for the last `@`. And
        // somebody may have left out the scheme.
        let userinfo =
            word.get(scheme..).unwrap_or_default().rsplit_once('@').map_or("", |(userinfo, _)| userinfo);
        if let Some(colon) = userinfo.find(':') {
            found.push((start + scheme + colon + 1, start + scheme + userinfo.len()));
        }
        start += word.len() + 1;
    }
    let lower = text.to_ascii_lowercase();
    for word in ["password", "passwd", "pwd", "token"] {
        for (at, _) in lower.match_indices(word) {
            let after = lower.get(at + word.len()..).unwrap_or_default();
            let value = after.trim_start();
            let Some(value) = value.strip_prefix('=') else { continue };
            let value = value.trim_start();
            let start = lower.len() - value.len();
            let end = match value.strip_prefix('\'') {
                // A quoted value may hold anything; what follows it is not worth a parser here.
                Some(_) => lower.len(),
                None => value
                    .find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '`'))
                    .map_or(lower.len(), |length| start + length),
            };
            found.push((start, end));
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hide() {
        for name in
            ["password", "Password", "pasword", "passwrd", "token", "api_key", "tls-key", "PGPASSWORD", "pwd"]
        {
            assert!(is_secret_key(name), "{name}");
        }
        for name in
            ["password_file", "socket", "user", "name", "addr", "interval", "keepalive", "dbname", "passive_"]
        {
            assert_eq!(is_secret_key(name), name.contains("pass") && !name.ends_with("_file"), "{name}");
        }
    }

    #[test]
    fn urls_lose_their_password() {
        let cases = [
            ("postgres://u:pw@db1/app", "postgres://u:***@db1/app"),
            (
                "see \"postgres://u:p@w:x@db1\" and http://db2/",
                "see \"postgres://u:***@db1\" and http://db2/",
            ),
            ("postgres://u:p/w@db1", "postgres://u:***@db1"),
            ("postgres://db1/?Password=pw&x=1", "postgres://db1/?Password=***&x=1"),
            ("host=db1 password = 'a b' user=x", "host=db1 password = ***"),
            ("u:p@w@db1:5432=primary", "u:***@db1:5432=primary"),
            ("nodes: ['u:pw@db1', db2]", "nodes: ['u:***@db1', db2]"),
            ("nothing to hide: a@b", "nothing to hide: a@b"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_url_passwords(text), expected);
        }
    }
}
