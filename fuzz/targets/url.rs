//! Connection strings: what is read can be written and read again, and no error shows a password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsplit::config::Config;
use pgsplit::config::url::ConnUrl;

/// Too odd to come about by chance.
const CANARY: &str = "Zk9canaryQ7";

fuzz_target!(|text: &str| {
    if let Ok(url) = ConnUrl::parse(text) {
        assert!(!url.hosts.is_empty());
        let again = ConnUrl::parse(&url.expose());
        assert_eq!(again.as_ref(), Ok(&url), "written as {}", url.expose());
    }
    if text.contains(CANARY) {
        return;
    }
    for with_password in [
        format!("postgres://u:{CANARY}@{text}"),
        format!("postgresql://u{text}:{CANARY}@h/d"),
        format!("password={CANARY} {text}"),
        format!("{text} password={CANARY}"),
        format!("postgres://h/d?password={CANARY}&{text}"),
    ] {
        let shown = match ConnUrl::parse(&with_password) {
            Ok(_) => match Config::from_url(&with_password, &|_| None) {
                Ok(config) => format!("{config:?}"),
                Err(error) => format!("{error} {error:?}"),
            },
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(CANARY), "{with_password}: {shown}");
    }
});
