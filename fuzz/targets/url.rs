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
    let mut with_password = vec![
        format!("postgres://u:{CANARY}@{text}"),
        format!("password={CANARY} {text}"),
        format!("postgres://h/d?password={CANARY}&{text}"),
    ];
    // Only where what stands before it leaves it a password.
    if !text.contains(['/', '?', '@', '#', ':', '[']) {
        with_password.push(format!("postgresql://u{text}:{CANARY}@h/d"));
    }
    if !text.contains(['\\', '\'']) && !text.trim_end().ends_with('=') && !text.contains("://") {
        with_password.push(format!("{text} password={CANARY}"));
    }
    for with_password in with_password {
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
