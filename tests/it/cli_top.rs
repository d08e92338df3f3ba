//! `pgsplit top` on a terminal.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output, Stdio};

use crate::support::balancer::{Balancer, binary};
use crate::support::client::connect;
use crate::support::cluster::shared;
use crate::support::process::Signal;
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until;
use crate::tools::output;

fn top(balancer: &Balancer) -> Command {
    let mut command = Command::new(binary());
    command.args(["top", "-c"]).arg(balancer.config_path());
    command.env_clear().env("TERM", "xterm").current_dir(std::env::temp_dir());
    command
}

/// What stands on the screen now: what was drawn since the cursor was last sent to its begin.
fn screen(terminal: &Terminal) -> String {
    let drawn = terminal.drawn();
    // The last may not be whole yet.
    let frames: Vec<&str> = drawn.split("\x1b[H").collect();
    frames
        .iter()
        .rev()
        .find(|frame| frame.contains("\x1b[J"))
        .map(|frame| (*frame).to_owned())
        .unwrap_or_default()
}

async fn wait_screen(terminal: &Terminal, part: &str) -> String {
    wait_until(&format!("`{part}` on the screen"), async || {
        let screen = screen(terminal);
        if screen.contains(part) { Ok(screen) } else { Err(screen) }
    })
    .await
}

#[tokio::test]
async fn top_draws_nodes_and_sessions_and_leaves_the_terminal_as_it_was() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    let _clients = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let mut terminal = Terminal::start(top(&balancer), (80, 30));
    let shown = wait_screen(&terminal, "2 of 2").await;
    assert_eq!(shown.matches("\r\n").count(), 29, "as many lines as the terminal has: {shown}");
    for part in ["n2", "GOES TO", "q quit  s sort: age", "active"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!terminal.is_as_usual(), "keys are read one by one");
    terminal.type_keys("s/nobody");
    wait_screen(&terminal, "filter: nobody_").await;
    terminal.type_keys("\r");
    wait_screen(&terminal, "s sort: idle  r reverse  / filter: nobody  p stop  0 of 2").await;
    terminal.type_keys("q");
    let code = wait_until("it to end", async || terminal.exit_code()).await;
    assert_eq!((code, terminal.is_as_usual()), (0, true));
    wait_until("the old screen", async || terminal.drawn().ends_with("\x1b[?25h\x1b[?1049l")).await;
}

#[tokio::test]
async fn a_signal_leaves_the_terminal_as_it_was() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    for word in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut terminal = Terminal::start(top(&balancer), (80, 30));
        wait_screen(&terminal, "q quit").await;
        assert!(!terminal.is_as_usual());
        terminal.signal(word);
        let code = wait_until("it to end", async || terminal.exit_code()).await;
        assert_eq!((code, terminal.is_as_usual()), (0, true), "{word:?}");
        wait_until("the old screen", async || terminal.drawn().ends_with("\x1b[?25h\x1b[?1049l")).await;
    }
}

#[tokio::test]
async fn it_leaves_also_in_the_middle_of_a_question() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    for word in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let mut patient = top(&balancer);
        patient.args(["--timeout", "1h"]);
        let mut terminal = Terminal::start(patient, (80, 30));
        wait_screen(&terminal, "0 of 0").await;
        balancer.signal(Signal::STOP);
        // Another order is another question, which is shown and not answered.
        terminal.type_keys("s");
        wait_screen(&terminal, "s sort: idle").await;
        match word {
            None => terminal.type_keys("q"),
            Some(word) => terminal.signal(word),
        }
        let code = wait_until("it to end", async || terminal.exit_code()).await;
        assert_eq!((code, terminal.is_as_usual()), (0, true), "{word:?}");
        balancer.signal(Signal::CONT);
    }
}

#[tokio::test]
async fn top_says_what_there_is_without_a_terminal_and_when_nobody_answers() {
    let balancer = Balancer::start(&shared().await.config()).await;
    let Output { status, stdout, stderr } = output(top(&balancer)).await;
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("top needs a terminal; elsewhere there are `pgsplit status --watch`"), "{said}");

    let mut nobody = Command::new(binary());
    nobody.args(["top", "--admin", "127.0.0.1:1"]).env_clear().stderr(Stdio::inherit());
    let mut terminal = Terminal::start(nobody, (80, 24));
    let code = wait_until("it to end", async || terminal.exit_code()).await;
    wait_until("the reason", async || terminal.drawn().contains("connection refused")).await;
    assert_eq!((code, terminal.is_as_usual()), (69, true));
}
