//! What people and scripts see: lines on standard output and standard error.

use std::io::Write;
use std::time::SystemTime;

/// For the script. Nobody may be reading; that is no reason to end.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// For people.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// For people who will compare it with the logs of others.
pub(crate) fn note(text: &str) {
    complain(&format!("{} {text}", humantime::format_rfc3339_millis(SystemTime::now())));
}

/// `text` without what stands before the `@` of a URL.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"')).unwrap_or(after.len());
        let (url, following) = after.split_at(end);
        match url.rsplit_once('@') {
            Some((_, place)) => masked.extend(["***@", place]),
            None => masked.push_str(url),
        }
        rest = following;
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn no_password_is_shown() {
        let text = "unexpected argument 'postgres://app:s3@cret@db1:5432/shop' found, see http://docs/";
        assert_eq!(
            masked(text),
            "unexpected argument 'postgres://***@db1:5432/shop' found, see http://docs/"
        );
        assert_eq!(masked("plain"), "plain");
    }
}
