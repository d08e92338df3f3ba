//! A real Chromium without a window, driven over its `DevTools` protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::home;
use super::wait::wait_until;

/// No answer of a browser takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    socket: WebSocketStream<TcpStream>,
    next: u64,
    session: String,
    /// What it has told of unasked.
    told: VecDeque<Value>,
}

/// The program; `None`: there is none here, which is said, and a test that needs one has nothing to do.
pub fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |name: &&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let found = NAMES.into_iter().find(is_here);
    if found.is_none() {
        eprintln!(
            "SKIPPED: this test drives a real Chromium, and there is none here. On Debian and Ubuntu: \
             apt-get install --no-install-recommends chromium fonts-dejavu-core"
        );
    }
    found
}

impl Browser {
    /// Starts `program` with an empty page of this size.
    pub async fn start(program: &str, width: u32, height: u32) -> Self {
        let profile = home::directory("browser");
        let mut process = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-extensions", "--disable-background-networking", "--no-proxy-server"])
            .args(["--remote-debugging-port=0", "--hide-scrollbars", "--force-prefers-reduced-motion"])
            .arg(format!("--user-data-dir={}", profile.join("profile").display()))
            .arg("about:blank")
            .current_dir(&profile)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a browser");
        // For the watchdog, should this process die.
        std::fs::write(profile.join("pid"), process.id().to_string()).expect("our own directory");
        let (tell, mut address) = mpsc::unbounded_channel();
        let lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("DevTools listening on ") {
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let url = timeout(PATIENCE, address.recv()).await.ok().flatten().expect("a browser that listens");
        let authority = url.trim_start_matches("ws://").split('/').next().expect("an address").to_owned();
        let stream = TcpStream::connect(&authority).await.expect("the address that it has told");
        let (socket, _) = client_async(&url, stream).await.expect("DevTools");
        let mut browser = Self { process, socket, next: 0, session: String::new(), told: VecDeque::new() };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Accessibility", "Audits", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await;
        }
        browser.resize(width, height).await;
        browser
    }

    /// Gives the page this size.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Lets the page be shown `dark` or `light`.
    pub async fn prefer(&mut self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", features).await;
    }

    /// Lets pages run scripts, or not.
    pub async fn allow_scripts(&mut self, allow: bool) {
        self.ask("Emulation.setScriptExecutionDisabled", json!({"value": !allow})).await;
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&mut self, url: &str) {
        self.told.retain(|event| event["method"] != "Page.loadEventFired");
        let opened = self.ask("Page.navigate", json!({"url": url})).await;
        assert!(opened.get("errorText").is_none(), "{opened}");
        loop {
            if self.told.iter().any(|event| event["method"] == "Page.loadEventFired") {
                return;
            }
            let event = self.receive().await;
            self.told.push_back(event);
        }
    }

    /// The value of an expression, or of the promise that it is.
    pub async fn value(&mut self, expression: &str) -> Value {
        let call = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", call).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The text of the first element that fits a selector; empty without one.
    pub async fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({})?.textContent ?? ''", Value::from(selector));
        self.value(&expression).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until that text fits.
    pub async fn wait_text(&mut self, selector: &str, fits: impl Fn(&str) -> bool) -> String {
        wait_until(&format!("a fitting text of {selector}"), async || {
            let text = self.text(selector).await;
            if fits(&text) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// Presses a key: a letter, `Tab`, `Enter`, `Escape`, `ArrowDown` or a space.
    pub async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowDown" => (40, ""),
            " " => (32, " "),
            letter => (0, letter),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types a text where the focus is.
    pub async fn type_in(&mut self, text: &str) {
        self.ask("Input.insertText", json!({"text": text})).await;
    }

    /// Presses Tab until the focus is on an element that fits a selector.
    pub async fn tab_to(&mut self, selector: &str) {
        let is_there = format!("document.activeElement?.matches({}) ?? false", Value::from(selector));
        for _ in 0..200 {
            if self.value(&is_there).await == true {
                return;
            }
            self.press("Tab").await;
        }
        panic!("Tab never comes to {selector}");
    }

    /// What the page or the browser has complained of since the last call: errors and warnings of scripts, network and policy.
    pub async fn complaints(&mut self) -> Vec<String> {
        // All that was told before this answer has come.
        self.value("1").await;
        self.told.drain(..).filter_map(|event| complaint(&event)).collect()
    }

    /// All that a screen reader finds: role and name of each.
    pub async fn accessible(&mut self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let seen = nodes.iter().filter(|node| node["ignored"] != true);
        seen.map(|node| (text(&node["role"]), text(&node["name"]))).collect()
    }

    /// A picture of what is in view, as PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let answer = self.ask("Page.captureScreenshot", json!({"format": "png"})).await;
        STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64")
    }

    /// What a method of the protocol answers.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut call = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            call["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(call.to_string())).await.expect("a browser that runs");
        loop {
            let mut message = self.receive().await;
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.told.push_back(message);
        }
    }

    async fn receive(&mut self) -> Value {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a browser that answers");
            if let Message::Text(text) = message.expect("a browser that runs").expect("DevTools") {
                return serde_json::from_str(&text).expect("JSON");
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With all its own processes, whose leader it is.
        let leader = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process_group(leader, Signal::KILL);
        let _ = self.process.wait();
    }
}

fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" | "Audits.issueAdded" => Some(params.to_string()),
        "Runtime.consoleAPICalled"
            if matches!(params["type"].as_str(), Some("error" | "warning" | "assert")) =>
        {
            Some(params.to_string())
        }
        "Log.entryAdded" if matches!(params["entry"]["level"].as_str(), Some("error" | "warning")) => {
            Some(params.to_string())
        }
        _ => None,
    }
}
