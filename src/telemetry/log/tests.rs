//! Tests of the module above.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};
use tracing::dispatcher::with_default;
use tracing::{debug, error, info, warn};

use super::*;

/// Memory that keeps what was written; closed, it makes every write wait.
#[derive(Clone, Default)]
struct Pipe(Arc<(Mutex<PipeState>, Condvar)>);

#[derive(Default)]
struct PipeState {
    written: Vec<u8>,
    closed: bool,
}

impl Pipe {
    fn set_closed(&self, closed: bool) {
        self.0.0.lock().unwrap().closed = closed;
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = self.0.0.lock().unwrap();
        let mut state = self.0.1.wait_while(state, |state| state.closed).unwrap();
        state.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` leaves in the log.
fn logged(filter: &str, format: Format, events: impl FnOnce()) -> String {
    let pipe = Pipe::default();
    let (dispatch, guard) = start(LogSettings { filter, format, ansi: false }, pipe.clone()).unwrap();
    with_default(&dispatch, events);
    drop(guard);
    pipe.text()
}

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_json_line_keeps_the_types_of_its_fields() {
    let text = logged("info", Format::Json, || {
        let (none, some): (Option<&str>, Option<u64>) = (None, Some(7));
        info!(
            listener = "ro",
            client = %"10.2.0.7:51344",
            duration_s = 12.402_000_04,
            queue_s = 0.0,
            wrong = f64::NAN,
            bytes = 91_822_u64,
            delta = -3_i64,
            secure = true,
            sni = none,
            some,
            "session_end"
        );
    });
    assert!(text.ends_with("}\n") && text.contains(r#""queue_s":0.0,"#), "{text}");
    let line = &parsed(&text)[0];
    let time = line["ts"].as_str().unwrap();
    assert!(
        humantime::parse_rfc3339(time).is_ok() && time.len() == "2026-11-21T08:02:11.482Z".len(),
        "{time}"
    );
    let mut line = line.clone();
    line.as_object_mut().unwrap().remove("ts");
    assert_eq!(
        line,
        json!({
            "level": "info", "event": "session_end", "listener": "ro", "client": "10.2.0.7:51344",
            "duration_s": 12.402, "queue_s": 0.0, "wrong": null, "bytes": 91822, "delta": -3, "secure": true,
            "sni": null, "some": 7,
        })
    );
}

#[test]
fn a_text_line_is_words() {
    let text = logged("info", Format::Text, || {
        let none: Option<&str> = None;
        info!(listener = "ro", app = "my app", empty = "", duration_s = 0.5, sni = none, "session_end");
    });
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(time).is_ok());
    assert_eq!(rest, "INFO session_end listener=ro app=\"my app\" empty=\"\" duration_s=0.5\n");
}

#[test]
fn text_from_outside_stays_in_its_field() {
    let evil = "x\" level=ERROR\n2026-01-01T00:00:00.000Z INFO \x1b[31mforged\u{9b}\u{202e}\\x0a";
    let text = logged("info", Format::Text, || info!(user = evil, "session_end"));
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains('\x1b') && !text.contains('\u{9b}') && !text.contains('\u{202e}'));
    assert!(text.contains(r#" user="x\" level=ERROR\x0a2026-"#), "{text}");
    assert!(text.ends_with("\\xe2\\x80\\xae\\\\x0a\"\n"), "{text}");

    let text = logged("info", Format::Json, || info!(user = evil, "session_end"));
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains('\x1b') && !text.contains('\u{9b}') && !text.contains('\u{202e}'));
    assert_eq!(parsed(&text)[0]["user"], evil);
}

proptest! {
    #[test]
    fn any_text_survives_in_json(text in ".*") {
        let mut object = "{\"a\":1".to_owned();
        json::field(&mut object, "b", &value::Value::Text(&text));
        object.push('}');
        let parsed: Value = serde_json::from_str(&object).unwrap();
        prop_assert_eq!(parsed["b"].as_str(), Some(text.as_str()));
        prop_assert!(!object.chars().any(char::is_control));
    }

    #[test]
    fn the_short_way_says_the_same(text in "[ -~]{0,40}|[!-~]{0,40}|[\u{0}-\u{ff}]{0,3}|.{0,40}") {
        let mut short = String::new();
        json::field(&mut short, "a", &value::Value::Text(&text));
        let mut long = ",\"a\":\"".to_owned();
        text.chars().for_each(|c| json::character(&mut long, c));
        prop_assert_eq!(short, long + "\"");
        prop_assert_eq!(text::word(&text), text::any_word(&text));
    }

    #[test]
    fn any_text_is_one_word(text in "[ -~\n\u{1b}\u{85}é]*") {
        let mut out = String::new();
        text::field(&mut out, "a", &value::Value::Text(&text));
        prop_assert!(!out.chars().any(char::is_control));
        let word = out.strip_prefix(" a=").unwrap();
        let quoted = word.len() >= 2 && word.starts_with('"') && word.ends_with('"');
        prop_assert!(quoted || !word.contains([' ', '"', '=', '\\']));
    }
}

#[test]
fn an_error_comes_with_its_causes() {
    let source = tracing_subscriber::EnvFilter::try_new("a=b=c").unwrap_err();
    let error = FilterError::Filter { text: "a=b=c".to_owned(), source };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let text = logged("info", Format::Json, || {
        error!(error = &error as &(dyn std::error::Error + 'static), "log_filter");
    });
    assert_eq!(parsed(&text)[0]["error"], format!("{error}: {cause}"));
}

#[test]
fn lines_of_others_say_whose_they_are() {
    let text = logged("debug", Format::Json, || {
        warn!(target: "hyper::proto", "connection error");
        debug!(only = 1);
    });
    let lines = parsed(&text);
    assert_eq!(
        (&lines[0]["event"], &lines[0]["target"]),
        (&json!("connection error"), &json!("hyper::proto"))
    );
    assert_eq!((&lines[1]["event"], &lines[1]["only"]), (&json!(module_path!()), &json!(1)));
}

#[test]
fn the_filter_is_obeyed_and_a_mistyped_level_is_not_a_module() {
    let events = || {
        debug!("fine");
        info!("coarse");
    };
    assert_eq!(logged("info", Format::Text, events).lines().count(), 1);
    assert_eq!(logged("warn,pgsplit::telemetry=debug", Format::Text, events).lines().count(), 2);
    assert_eq!(logged("OFF", Format::Text, events), "");
    for (filter, wrong) in [("inof", "inof"), ("", ""), ("info,,debug", ""), ("info,hyper", "hyper")] {
        assert!(matches!(parse_filter(filter), Err(FilterError::Level(word)) if word == wrong), "{filter}");
    }
    assert!(matches!(parse_filter("pgsplit=loud"), Err(FilterError::Filter { .. })));
}

#[test]
fn colours_are_only_ours() {
    let pipe = Pipe::default();
    let settings = LogSettings { filter: "info", format: Format::Text, ansi: true };
    let (dispatch, guard) = start(settings, pipe.clone()).unwrap();
    with_default(&dispatch, || info!(user = "\x1b[5m", "session_end"));
    drop(guard);
    let text = pipe.text();
    assert!(text.contains("\x1b[32mINFO\x1b[0m \x1b[1msession_end\x1b[0m user=\"\\x1b[5m\"\n"), "{text:?}");
}

#[test]
fn a_stuck_reader_costs_lines_and_no_time() {
    const LINES: u64 = 20_000;
    let pipe = Pipe::default();
    pipe.set_closed(true);
    let settings = LogSettings { filter: "info", format: Format::Json, ansi: false };
    let (dispatch, guard) = start(settings, pipe.clone()).unwrap();
    // Would never come back if one of them waited.
    with_default(&dispatch, || (0..LINES).for_each(|number| info!(number, "line")));
    let dropped = guard.dropped_lines();
    // The rest is in the queue, or in the hands of the thread that cannot get rid of it.
    let line = r#"{"ts":"2026-11-21T08:02:11.482Z","level":"info","event":"line","number":0}"#;
    let kept = u64::try_from(QUEUE_LINES + writer::PENDING_MOST / line.len()).unwrap();
    assert!(dropped >= LINES - kept - 1, "{dropped}");

    pipe.set_closed(false);
    while !pipe.text().contains("log_lines_lost") {
        thread::sleep(Duration::from_millis(5));
    }
    with_default(&dispatch, || info!("alive"));
    drop(guard);
    let text = pipe.text();
    let lines = parsed(&text);
    let lost: Vec<&Value> = lines.iter().filter(|line| line["event"] == "log_lines_lost").collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0]["lines"], dropped);
    assert_eq!(lines.iter().filter(|line| line["event"] == "line").count() as u64, LINES - dropped);
    assert_eq!(lines.last().unwrap()["event"], "alive");
}

#[test]
fn a_stuck_reader_does_not_hold_up_the_end() {
    let pipe = Pipe::default();
    pipe.set_closed(true);
    let settings = LogSettings { filter: "info", format: Format::Text, ansi: false };
    let (dispatch, guard) = start(settings, pipe).unwrap();
    with_default(&dispatch, || (0..9000).for_each(|_| info!("line")));
    let start = tokio::time::Instant::now();
    drop(guard);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A disk that is full until it is not.
struct Disk(Pipe, Arc<Mutex<bool>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if *self.1.lock().unwrap() { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if *self.1.lock().unwrap() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[test]
fn a_full_disk_costs_lines_until_there_is_room() {
    let (pipe, full) = (Pipe::default(), Arc::new(Mutex::new(true)));
    let settings = LogSettings { filter: "info", format: Format::Text, ansi: false };
    let (dispatch, guard) = start(settings, Disk(pipe.clone(), Arc::clone(&full))).unwrap();
    with_default(&dispatch, || (0..3).for_each(|_| info!("line")));
    let dropped = guard.dropped();
    while dropped.count() < 3 {
        thread::sleep(Duration::from_millis(5));
    }
    *full.lock().unwrap() = false;
    with_default(&dispatch, || info!("alive"));
    drop(guard);
    let text = pipe.text();
    assert!(text.contains("INFO alive\n") && text.contains("WARN log_lines_lost lines=3\n"), "{text}");
    assert_eq!(dropped.count(), 3);
}

#[test]
fn what_is_logged_and_how_it_looks_can_be_changed_while_it_is_written() {
    let pipe = Pipe::default();
    let settings = LogSettings { filter: "warn", format: Format::Text, ansi: false };
    let (dispatch, guard) = start(settings, pipe.clone()).unwrap();
    let control = guard.control();
    with_default(&dispatch, || {
        info!("unheard");
        control.set("debug", Format::Json).unwrap();
        debug!("heard");
        assert!(control.set("nonsense", Format::Text).is_err());
        info!("heard_too");
        control.set("off", Format::Json).unwrap();
        error!("not_any_more");
    });
    drop(guard);
    let events: Vec<_> = parsed(&pipe.text()).iter().map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["heard", "heard_too"]);
}
