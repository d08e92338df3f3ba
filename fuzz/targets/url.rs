//! Connection strings: what is read can be written and read again, and no error shows a password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsplit::config::Config;
use pgsplit::config::url::ConnUrl;

/// Two passwords that only a program could tell apart. What is shown must be the same for both.
const PASSWORDS: [&str; 2] = ["Zk9canaryQ7", "Xv3hiddenP1"];

fuzz_target!(|text: &str| {
    if let Ok(url) = ConnUrl::parse(text) {
        assert!(!url.hosts.is_empty());
        let again = ConnUrl::parse(&url.expose());
        assert_eq!(again.as_ref(), Ok(&url), "written as {}", url.expose());
    }
    let [one, other] = PASSWORDS.map(|password| with_password(text, password));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(shown(one), shown(other), "{one}");
    }
});

fn with_password(text: &str, password: &str) -> Vec<String> {
    let mut all = vec![
        format!("postgres://u:{password}@{text}"),
        format!("password={password} {text}"),
        format!("postgres://h/d?password={password}&{text}"),
    ];
    // Only where what stands before it leaves it a password.
    if !text.contains(['/', '?', '@', '#', ':', '[']) {
        all.push(format!("postgresql://u{text}:{password}@h/d"));
    }
    if !text.contains(['\\', '\'']) && !text.trim_end().ends_with('=') && !text.contains("://") {
        all.push(format!("{text} password={password}"));
    }
    all
}

/// All that is shown about a connection string.
fn shown(text: &str) -> String {
    match ConnUrl::parse(text) {
        Ok(url) => match Config::from_url(text, &|_| None) {
            Ok(config) => format!("{url:?} {config:?}"),
            Err(error) => format!("{error} {error:?}"),
        },
        Err(error) => format!("{error} {error:?}"),
    }
}
