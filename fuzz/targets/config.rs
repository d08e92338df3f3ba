//! A configuration: no text makes it panic, every fault has a place in the text, and no secret is shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsplit::config::{Config, ConfigError};

/// In the text as a password, and in the environment; too odd to come about by chance.
const CANARY: &str = "Zk9canaryQ7";

fuzz_target!(|text: &str| {
    // As the file has it, and with a password behind whatever it is.
    let _ = read(text);
    if !text.contains(CANARY) {
        let with_password = format!("{text}\ncheck:\n  user: u\n  password: {CANARY}\n");
        for shown in read(&with_password) {
            assert!(!shown.contains(CANARY), "a secret is shown: {shown}");
        }
    }
});

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some(CANARY.to_owned()),
        "PORT" => Some("6432".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// Reads it, and gives back all that is shown about it.
fn read(text: &str) -> Vec<String> {
    match Config::from_yaml(text, "fuzz.yaml", &env) {
        // What a variable holds may be shown where it is no secret, as the name of a node is none.
        Ok(config) if text.contains('$') => config.warnings,
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
