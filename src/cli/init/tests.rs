//! Whole files. Each in `tests/haproxy/` holds an `haproxy.cfg` and, below the line `# expect`, what must come of it, to
//! the letter. `PGSPLIT_BLESS=1 cargo test haproxy` writes what comes into them; read the diff.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::take_over::take_over;
use super::{from_url, plain};
use crate::config::Config;

fn files() -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/haproxy");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(10 < files.len());
    files
}

fn checked(text: &str) -> Result<Config, String> {
    Config::from_yaml(text, "config.yaml", &|_| None).map_err(|error| format!("{error:?}\n{text}"))
}

#[test]
fn golden_files_of_haproxy() {
    let mut wrong = Vec::new();
    for path in files() {
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (input, expected) = text.split_once("# expect\n").unwrap_or((&text, ""));
        let name = path.file_name().unwrap().to_str().unwrap();
        let came = match take_over(input, name) {
            Ok(draft) => {
                let text = draft.in_words();
                checked(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                text
            }
            Err(error) => format!("error: {error}\n"),
        };
        assert!(!came.contains("canary"), "{came}");
        let commented: String =
            came.lines().map(|line| format!("# | {line}").trim_end().to_owned() + "\n").collect();
        if std::env::var_os("PGSPLIT_BLESS").is_some() {
            let at = bytes.windows(9).position(|part| part == b"# expect\n").unwrap_or(bytes.len());
            let line_end = if bytes[..at].ends_with(b"\n") || at == 0 { "" } else { "\n" };
            let whole = [&bytes[..at], format!("{line_end}# expect\n{commented}").as_bytes()].concat();
            fs::write(&path, whole).unwrap();
        } else if commented != expected {
            wrong.push(format!("{}:\n{commented}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_new_file_runs_and_holds_no_password() {
    assert_eq!(checked(&plain().in_words()).unwrap().listeners.len(), 2);
    for url in [
        "postgres://app:canary@db1,db2:6000,[::1]:5433/shop?sslmode=require",
        "host=db1 user='lb check' password=canary",
        "postgres://db1/",
    ] {
        let text = from_url(url).unwrap().in_words();
        assert!(!text.contains("canary"), "{text}");
        let config = checked(&text).unwrap();
        assert!(!config.clusters[0].nodes.is_empty() && config.warnings.is_empty(), "{text}");
    }
    let config = checked(&from_url("postgres://app@db1,db2/shop").unwrap().in_words()).unwrap();
    assert_eq!(
        (config.clusters[0].check.user.as_str(), config.clusters[0].check.dbname.as_str()),
        ("app", "shop")
    );
    let text = from_url("postgres://a$$b@db1/s$HOME").unwrap().in_words();
    let config = checked(&text).unwrap();
    let check = &config.clusters[0].check;
    assert_eq!((check.user.as_str(), check.dbname.as_str()), ("a$$b", "s$HOME"), "{text}");
    for url in ["mysql://u:canary@db1", "", "postgres://u:canary@db1:x/"] {
        assert!(!from_url(url).unwrap_err().contains("canary"));
    }
}

proptest! {
    /// Whatever stands in a file, what comes of it is read, or there is an error: but for a value that only looks right.
    #[test]
    fn no_file_panics(text in "\\PC{0,300}") {
        let _ = take_over(&text, "x").map(|draft| draft.in_words());
    }

    #[test]
    fn no_mix_of_directives_panics(parts in proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..60)) {
        let text = format!("listen a\n bind *:5000\n server x 10.0.0.1:5432 {}", parts.concat());
        if let Ok(draft) = take_over(&text, "x") {
            let text = draft.in_words();
            prop_assert!(!text.contains(char::from(0x1b)));
        }
    }
}

const PARTS: [&str; 34] = [
    "\n",
    " ",
    "listen ",
    "backend b\n",
    "frontend f\n",
    "defaults\n",
    "bind ",
    "*:1",
    ":::2",
    "server s ",
    "10.0.0.2:5",
    "[::1]:6",
    "check ",
    "port 8008 ",
    "inter 3s ",
    "inter ",
    "rise 2 ",
    "weight 256 ",
    "backup ",
    "default_backend b\n",
    "use_backend b if ",
    "{ dst_port 1 }",
    "acl x dst_port 1\n",
    "x\n",
    "option httpchk /primary\n",
    "option httpchk\n",
    "option pgsql-check user u\n",
    "balance first\n",
    "timeout connect 1d\n",
    "maxconn 9\n",
    "\"${A-b}\"",
    "'",
    "# c\n",
    "server-template t 3 n:1 ",
];
