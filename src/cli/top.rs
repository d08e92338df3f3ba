//! `pgsplit top`: a live screen of nodes and sessions.

use std::io::{IsTerminal, Read, stdin, stdout};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep;

use crate::base::text::escaped;
use crate::cli::args;
use crate::cli::ask::{Asker, Problem, Question, ended};
use crate::cli::door::Errand;
use crate::cli::fail;
use crate::cli::out::{self, Printer};
use crate::cli::sessions::rows;
use crate::cli::status::{self, STATUS};
use crate::cli::table::Screen;
use crate::cli::view::{Session, Sessions, Status};

/// Sessions are ordered by one of these.
const SORTS: [&str; 3] = ["age", "idle", "bytes"];
/// So many sessions are looked through for the filter.
const MOST: usize = 1000;
/// The screen as it was is kept, and the cursor hidden; and back.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// What the keys have set.
#[derive(Debug, Default)]
struct View {
    sort: usize,
    is_reversed: bool,
    is_stopped: bool,
    filter: String,
    /// While the filter is typed.
    is_typing: bool,
    problem: Option<String>,
}

/// What a key means.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Redraw,
    /// What is known is not what is wanted any more.
    Ask,
    Leave,
}

/// What ended a wait.
enum Woken<T> {
    /// What was waited for.
    Done(T),
    /// A key, or a signal.
    By(Next),
}

pub(super) fn top(args: &args::Top, printer: &mut Printer) -> ExitCode {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return fail("top needs a terminal; elsewhere there are `pgsplit status --watch` and --json");
    }
    ended(Asker::new(&args.here.source(), &args.here.at, Errand::Look).and_then(|asker| {
        // Before the screen changes: whether anybody answers.
        let status: Status = asker.json(&Question::get(STATUS))?;
        // And from here on no signal ends it but through `_raw`.
        let Ok(input) = asker.within(async { Input::new() }) else {
            return Ok(fail("signals cannot be waited for"));
        };
        {
            let Ok(_raw) = Raw::enter() else { return Ok(fail("this terminal cannot be read key by key")) };
            let mut live =
                Live { status, sessions: Sessions::default(), view: View::default(), input, printer };
            asker.within(live.run(&asker, Duration::from_secs(args.interval.into())));
        }
        asker.leave();
        Ok(ExitCode::SUCCESS)
    }))
}

/// What is shown, and who looks at it.
struct Live<'p> {
    status: Status,
    sessions: Sessions,
    view: View,
    input: Input,
    printer: &'p mut Printer,
}

impl Live<'_> {
    /// Asks again and again, until it is told to leave or nobody can see it.
    async fn run(&mut self, asker: &Asker, interval: Duration) {
        loop {
            if !self.view.is_stopped {
                let question = self.view.question();
                let look = async {
                    let sessions = asker.answer::<Sessions>(&question).await?;
                    Ok::<_, Problem>((sessions, asker.answer::<Status>(&Question::get(STATUS)).await?))
                };
                match self.show_until(look).await {
                    Woken::Done(Ok(found)) => {
                        (self.sessions, self.status) = found;
                        self.view.problem = None;
                    }
                    Woken::Done(Err(problem)) => self.view.problem = Some(problem.to_string()),
                    Woken::By(Next::Leave) => return,
                    Woken::By(_) => continue,
                }
            }
            if let Woken::By(Next::Leave) = self.show_until(sleep(interval)).await {
                return;
            }
        }
    }

    /// Shows what is known, and does what keys and signals say, until something is done or a key wants more than that.
    async fn show_until<T>(&mut self, done: impl Future<Output = T>) -> Woken<T> {
        let mut done = pin!(done);
        loop {
            let (width, height) = out::size();
            let screen = Screen { width, has_colours: out::has_colours() };
            let drawn = draw(&self.status, &self.sessions, &self.view, (screen, height));
            if !self.printer.print(&in_frame(&drawn)) {
                return Woken::By(Next::Leave);
            }
            let key = tokio::select! {
                done = &mut done => return Woken::Done(done),
                key = self.input.next() => key,
            };
            match key.map_or(Next::Leave, |key| self.view.key(key)) {
                Next::Redraw => {}
                next => return Woken::By(next),
            }
        }
    }
}

impl View {
    /// Which sessions, in which order.
    fn question(&self) -> Question {
        let order = if self.is_reversed { "asc" } else { "desc" };
        let sort = SORTS.get(self.sort).copied().unwrap_or_default();
        Question::get(format!("/api/v1/sessions?limit={MOST}&sort={sort}&order={order}"))
    }

    fn key(&mut self, key: u8) -> Next {
        if self.is_typing {
            match key {
                b'\r' | b'\n' => self.is_typing = false,
                // Escape, Ctrl-C, Ctrl-U.
                0x1b | 0x03 | 0x15 => {
                    self.filter.clear();
                    self.is_typing = key == 0x15;
                }
                0x08 | 0x7f => drop(self.filter.pop()),
                key if key.is_ascii_graphic() || key == b' ' => self.filter.push(char::from(key)),
                _ => {}
            }
            return Next::Redraw;
        }
        match key {
            // Ctrl-C and Ctrl-D as well: the terminal does not mind them here.
            b'q' | 0x03 | 0x04 => return Next::Leave,
            b's' => {
                self.sort = (self.sort + 1) % SORTS.len();
                return Next::Ask;
            }
            b'r' => {
                self.is_reversed = !self.is_reversed;
                return Next::Ask;
            }
            b'p' => {
                self.is_stopped = !self.is_stopped;
                return Next::Ask;
            }
            b'/' => self.is_typing = true,
            0x1b => self.filter.clear(),
            _ => {}
        }
        Next::Redraw
    }

    /// Whether a session has every word of the filter in what is shown of it.
    fn shows(&self, session: &Session) -> bool {
        let s = session;
        let texts = [
            Some(&s.id),
            Some(&s.listener),
            Some(&s.client),
            s.user.as_ref(),
            s.database.as_ref(),
            s.node.as_ref(),
            s.application.as_ref(),
            Some(&s.state),
        ];
        let has = |word: &str| {
            texts.iter().flatten().any(|text| text.to_lowercase().contains(&word.to_lowercase()))
        };
        self.filter.split_whitespace().all(has)
    }

    fn bar(&self, shown: usize, total: u64) -> String {
        let sort = SORTS.get(self.sort).copied().unwrap_or_default();
        let order = if self.is_reversed { ", least first" } else { "" };
        let stopped = if self.is_stopped { "  STOPPED" } else { "" };
        if self.is_typing {
            return format!("filter: {}_   Enter keeps it, Esc removes it", self.filter);
        }
        let filter =
            if self.filter.is_empty() { "/ filter".to_owned() } else { format!("/ filter: {}", self.filter) };
        format!("q quit  s sort: {sort}{order}  r reverse  {filter}  p stop  {shown} of {total}{stopped}")
    }
}

/// The whole screen, `height` lines at most.
fn draw(status: &Status, sessions: &Sessions, view: &View, (screen, height): (Screen, usize)) -> String {
    let mut lines: Vec<String> = Vec::new();
    if let Some(problem) = &view.problem {
        lines.extend(problem.lines().map(|line| escaped(line.as_bytes(), screen.width)));
        lines.push(String::new());
    }
    lines.extend(status::in_words(status, screen).lines().map(str::to_owned));
    // The sessions have half of a small screen at least.
    let most = height.saturating_sub(3).min((height / 2).max(height.saturating_sub(12)));
    lines.truncate(most);
    let fitting: Vec<Session> =
        sessions.sessions.iter().filter(|session| view.shows(session)).cloned().collect();
    let room = height.saturating_sub(lines.len() + 3);
    let shown: Vec<Session> = fitting.iter().take(room).cloned().collect();
    lines.push(String::new());
    lines.extend(rows(&shown, screen).lines().map(str::to_owned));
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), String::new());
    let bar = view.bar(fitting.len(), sessions.total);
    lines.push(bar.chars().take(screen.width).collect());
    lines.join("\n")
}

/// Drawn over what was there, each line cleared to its end; the terminal in raw mode wants its own line ends.
fn in_frame(text: &str) -> String {
    format!("\x1b[H{}\x1b[K\x1b[J", text.replace('\n', "\x1b[K\r\n"))
}

/// What is typed, and the signals by which a program is told to end.
struct Input {
    keys: Receiver<u8>,
    ends: [Signal; 3],
}

impl Input {
    /// From now on these signals end nothing by themselves. Within a runtime.
    fn new() -> std::io::Result<Self> {
        let ends = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ];
        Ok(Self { keys: keys(), ends })
    }

    /// The next byte that is typed; `None`: there is none any more, or it is told to end. Cancel safe.
    async fn next(&mut self) -> Option<u8> {
        let Self { keys, ends: [terminate, hangup, interrupt] } = self;
        tokio::select! {
            key = keys.recv() => key,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
            _ = interrupt.recv() => None,
        }
    }
}

/// Each byte that is typed. The thread ends with the process: nothing can wake it from its read.
fn keys() -> Receiver<u8> {
    let (send, keys) = channel(64);
    std::thread::spawn(move || {
        let mut stdin = stdin().lock();
        let mut key = [0; 1];
        while matches!(stdin.read(&mut key), Ok(1)) && send.blocking_send(key[0]).is_ok() {}
    });
    keys
}

/// The terminal gives key by key and shows none; dropped, it is as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> rustix::io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        out::aside(OPEN);
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        out::aside(CLOSE);
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(user: &str, node: &str) -> Session {
        Session {
            id: "s-1".into(),
            user: Some(user.into()),
            node: Some(node.into()),
            state: "active".into(),
            ..Session::default()
        }
    }

    #[test]
    fn keys_change_the_view() {
        let mut view = View::default();
        for key in *b"sr/ap x\x7f\x7f" {
            let is_order = matches!(key, b's' | b'r');
            assert_eq!(view.key(key), if is_order { Next::Ask } else { Next::Redraw });
        }
        assert_eq!(
            (view.sort, view.is_reversed, view.filter.as_str(), view.is_typing),
            (1, true, "ap", true)
        );
        assert!(!view.is_stopped, "p is a letter while it is typed");
        assert!(view.shows(&session("app", "db1")) && !view.shows(&session("web", "db1")));
        view.key(b'\r');
        view.key(b'p');
        assert!(view.is_stopped && !view.is_typing && view.bar(1, 2).contains("/ filter: ap"));
        view.key(0x1b);
        assert_eq!(view.filter, "");
        assert_eq!(view.key(b'q'), Next::Leave);
    }

    #[test]
    fn it_fits_on_small_screens() {
        let sessions = Sessions { sessions: (0..500).map(|_| session("app", "db1")).collect(), total: 500 };
        let status = Status { verdict: "Writes: db1. ".repeat(30), ..Status::default() };
        for (width, height) in [(80, 24), (40, 10), (200, 60), (20, 3), (1, 1)] {
            let screen = Screen { width, has_colours: false };
            let text = draw(&status, &sessions, &View::default(), (screen, height));
            assert!(text.lines().count() <= height, "{width}x{height}:\n{text}");
            if 24 <= height {
                assert!(text.matches("s-1").count() >= height / 2 - 4, "{text}");
            }
        }
    }
}
