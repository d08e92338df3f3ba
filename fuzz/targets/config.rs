//! A configuration: no text makes it panic, every fault has a place in the text, and no secret is shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsplit::config::{Config, ConfigError};

/// Two passwords that only a program could tell apart. What is shown must be the same for both.
const PASSWORDS: [&str; 2] = ["Zk9canaryQ7", "Xv3hiddenP1"];

fuzz_target!(|text: &str| {
    // As it is, and with a password behind whatever it is.
    let _ = read(text);
    let [one, other] =
        PASSWORDS.map(|password| read(&format!("{text}\ncheck:\n  user: u\n  password: {password}\n")));
    assert_eq!(one, other);
});

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("a secret".to_owned()),
        "PORT" => Some("6432".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// Reads it, and gives back all that is shown about it.
fn read(text: &str) -> Vec<String> {
    match Config::from_yaml(text, "fuzz.yaml", &env) {
        Ok(config) => {
            let all = format!("{config:?}");
            config.warnings.into_iter().chain([all]).collect()
        }
        Err(ConfigError::Invalid(report)) => {
            assert!(!report.faults.is_empty());
            // As YAML counts them: a carriage return alone ends a line as well.
            let lines = text.replace("\r\n", "\n").split(['\r', '\n']).count();
            for fault in report.faults.iter().chain(&report.warnings) {
                let (line, column) = fault.place.unwrap_or_default();
                assert!((1..=lines).contains(&line) && 1 <= column, "{fault:?}");
            }
            vec![
                report.lines(),
                report.blocks(),
                format!("{report:?}"),
                ConfigError::Invalid(report).to_string(),
            ]
        }
        Err(error) => vec![error.to_string(), format!("{error:?}")],
    }
}
