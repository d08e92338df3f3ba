//! The dashboard in a real browser, before real servers: what it shows, how it follows, what its buttons do, and who can read it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;

use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::browser::{Browser, program};
use crate::support::client::{config, connect, connect_with, value};
use crate::support::cluster::{Cluster, quick_checks, shared};
use crate::support::postgres::{Settings, Stop};
use crate::support::process::Signal;
use crate::support::wait::{wait_at_most, wait_until};
use crate::support::web::{Got, get_with, send};
use crate::support::wire::{Wire, startup};

const TOKEN: &str = "canary-5d0c7715a2";
const BROWSERS_ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
/// What somebody might call a session to act in the browser of who looks at it.
const EVIL: &str = "<img src=x onerror=\"document.title='evil'\">'\"&amp;\u{1b}[31m";

fn admin() -> String {
    format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\n")
}

async fn start(cluster: &Cluster, more: &str) -> Balancer {
    let balancer = Balancer::start(&(cluster.config() + &admin() + more)).await;
    balancer.wait_ready().await;
    balancer
}

/// By its address, as a browser asks.
async fn page(balancer: &Balancer, path: &str, headers: &[(&str, &str)]) -> Got {
    let host = balancer.admin().to_string();
    let headers = [headers, &[("host", host.as_str()), ("accept", BROWSERS_ACCEPT)]].concat();
    get_with(balancer.admin(), path, &headers).await
}

async fn pause(balancer: &Balancer, listener: &str) {
    let host = balancer.admin().to_string();
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("host", host.as_str()), ("authorization", &bearer)];
    let got =
        send(balancer.admin(), "POST", &format!("/api/v1/listeners/{listener}/pause"), &headers, "").await;
    assert_eq!(got.status, 200, "{}", got.text());
}

fn url(balancer: &Balancer) -> String {
    format!("http://{}/", balancer.admin())
}

/// A browser that shows the page, and has nothing to complain of.
async fn look(program: &str, balancer: &Balancer) -> Browser {
    let mut browser = Browser::start(program, 1280, 900).await;
    browser.open(&url(balancer)).await;
    browser.wait_text("#news", |text| text == "live").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    browser
}

/// A session that says `EVIL` of itself, and waits.
async fn evil(balancer: &Balancer) -> Wire {
    let mut wire = Wire::connect(balancer.rw()).await.unwrap();
    let names = [("user", EVIL), ("database", EVIL), ("application_name", EVIL)];
    wire.send(&startup(&names)).await.unwrap();
    wait_until("the session to wait", async || balancer.status().await["listeners"][0]["waiting"] == 1).await;
    wire
}

#[tokio::test]
async fn a_browser_gets_a_page_that_loads_nothing_from_elsewhere_and_a_terminal_gets_words() {
    let balancer = start(shared().await, "").await;
    let (status, words) = balancer.get("/").await.unwrap();
    assert!(status == 200 && words.starts_with("pgsplit ") && words.contains("LISTENER"), "{words}");

    let got = page(&balancer, "/", &[]).await;
    assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
    let policy = got.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(
        (got.header("referrer-policy").as_str(), got.header("vary").as_str()),
        ("no-referrer", "Accept")
    );
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    let html = got.text();
    for inline in ["<style", " style=", " onclick=", " onload=", "javascript:", "<script>"] {
        assert!(!html.contains(inline), "{inline}");
    }
    // All that a browser would fetch for it, of itself or when asked.
    let links = html.split('"').filter(|text| text.contains("//") && !text.starts_with("data:"));
    assert_eq!(links.collect::<Vec<_>>(), [""; 0]);
    for node in ["n0", "n1", "n2"] {
        assert!(html.contains(&format!(">{node}</span>")), "the first paint has {node}");
    }
    assert!(html.contains("Writes: n0. Reads: n1, n2."), "{html}");

    for (path, kind) in [("/dashboard/app.js", "text/javascript"), ("/dashboard/style.css", "text/css")] {
        let at = html.find(path).unwrap();
        let link = html[at..].split('"').next().unwrap();
        let file = page(&balancer, link, &[]).await;
        assert!(file.header("content-type").starts_with(kind) && file.status == 200);
        assert!(file.header("cache-control").contains("immutable"), "{link}");
        let tag = file.header("etag");
        let known = page(&balancer, link, &[("if-none-match", &tag)]).await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        let other = page(&balancer, &format!("{path}?0"), &[]).await;
        assert_eq!((other.status, other.header("cache-control").as_str()), (200, "no-cache"));
    }
}

#[tokio::test]
async fn the_first_paint_says_why_the_last_reload_failed() {
    let cluster = shared().await;
    let balancer = start(cluster, "").await;
    let html = page(&balancer, "/", &[]).await.text();
    assert!(html.contains("id=\"reload-fault\" hidden>"), "{html}");

    balancer.write(&(cluster.config() + &admin() + "sesions: {}\n"));
    balancer.wait_log("config_reload_failed", |_| true).await;
    let html = page(&balancer, "/", &[]).await.text();
    let fault = html.split_once("id=\"reload-fault\"").unwrap().1.split("</p>").next().unwrap();
    assert!(!fault.contains("hidden") && fault.contains("unknown key `sesions`"), "{fault}");
    assert!(page(&balancer, "/", &[]).await.text().contains("The last reload failed"));
}

#[tokio::test]
async fn what_clients_say_of_themselves_is_text_in_the_first_paint_and_live() {
    let balancer = start(shared().await, "").await;
    pause(&balancer, "rw").await;
    let _evil = evil(&balancer).await;
    let html = page(&balancer, "/", &[]).await.text();
    assert!(html.contains("&lt;img src=x onerror=") && !html.contains("<img"), "{html}");
    assert!(!html.contains('\u{1b}'));

    let Some(program) = program() else { return };
    let mut browser = look(program, &balancer).await;
    let user = "[data-f=user]";
    let shown = browser.text(&format!("#sessions-rows {user}")).await;
    assert!(shown.starts_with("<img src=x onerror=\"document.title"), "{shown}");
    // Once more as the script has it: a new row, of which the server knows nothing.
    browser.value("document.querySelector('#sessions-rows').replaceChildren()").await;
    browser.value("document.querySelector('#sessions-find').scrollIntoView()").await;
    browser.value("document.querySelector('#sessions-find').focus()").await;
    browser.type_in("IMG SRC").await;
    assert_eq!(browser.wait_text(&format!("#sessions-rows {user}"), |text| !text.is_empty()).await, shown);
    // The name is in the question, too.
    browser.value("document.querySelector('#sessions-rows [data-do]').click()").await;
    let question = browser.text("#confirm-will").await;
    assert!(question.contains("<img src=x"), "{question}");
    assert_eq!(browser.value("document.querySelectorAll('img').length").await, 0);
    assert!(browser.text("title").await.ends_with("· pgsplit"));
    browser.value("document.querySelector('#confirm [data-close]').click()").await;
    browser.type_in(" nobody has this").await;
    browser.wait_text("#sessions-total", |text| text == "0").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_node_that_dies_is_told_of_at_once_and_one_is_drained_by_keyboard_with_the_token_alone() {
    let Some(program) = program() else { return };
    let cluster = Cluster::start(2, Settings::default()).await;
    let balancer = start(&cluster, "").await;
    let _client = connect(balancer.ro()).await.unwrap();
    let mut browser = look(program, &balancer).await;
    assert_eq!(browser.text("#verdict").await, "Writes: n0. Reads: n1, n2.");
    assert_eq!(browser.text("#condition").await, "All is well");
    browser.value("window.untouched = true").await;

    cluster.standby(1).stop(Stop::Immediate).await;
    browser
        .wait_text("#verdict", |text| text.contains("n2 down") && text.contains("connection refused"))
        .await;
    let row = "#nodes-rows tr[data-key='/n2']";
    assert_eq!(browser.wait_text(&format!("{row} .pill"), |text| text == "down").await, "down");
    assert!(browser.text(&format!("{row} summary")).await.contains("failed"));
    browser.wait_text("#events-rows", |text| text.contains("n2") && text.contains("→ down")).await;
    assert!(browser.text("#spoken").await.contains("n2 down"), "who listens to the page is told");
    assert!(browser.text("title").await.starts_with("Everything is served, but"));
    assert_eq!(browser.value("window.untouched").await, true, "the page was not loaded again");

    // By keyboard alone, from the top of the page.
    browser.tab_to("[aria-label='Change n1']").await;
    browser.press("Enter").await;
    browser.tab_to("#change input[name=what]").await;
    let drain = "document.activeElement.value === 'drain'";
    for _ in 0..5 {
        if browser.value(drain).await == true {
            break;
        }
        browser.press("ArrowDown").await;
    }
    browser.press(" ").await;
    let will = browser.wait_text("#change-will", |text| text.contains("n1")).await;
    assert!(will.contains("1 session on n1 ends between two transactions"), "{will}");
    assert!(will.contains("ro go to the primary"), "{will}");
    browser.press("Enter").await;
    // A wrong token first: it is refused in words, and nothing has changed.
    browser.wait_text("#ask-token-title", |text| text == "The token").await;
    wait_until("the question", async || browser.value("document.activeElement.id").await == "token").await;
    browser.type_in("not this one").await;
    browser.press("Enter").await;
    browser.wait_text("#token-fault", |text| text.contains("this is not the token")).await;
    assert_eq!(balancer.node("n1").await["state"], "up");
    browser.type_in(TOKEN).await;
    browser.press("Enter").await;
    browser.wait_text("#nodes-rows tr[data-key='/n1'] .pill", |text| text == "drain").await;
    browser.wait_text("#done", |text| text.starts_with("n1: drain.")).await;
    assert_eq!(balancer.node("n1").await["admin"], "drain");
    let told = balancer.wait_log("node_admin", |line| line["node"] == "n1").await;
    assert_eq!(told["by"], "dashboard", "{told}");
    // The refusals are the only complaints: the browser logs each answer that is none.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|complaint| complaint.contains("401")), "{complaints:?}");
}

#[tokio::test]
async fn a_listener_is_paused_and_a_session_ended_by_a_click() {
    let Some(program) = program() else { return };
    let balancer = start(shared().await, "").await;
    let mut settings = config(balancer.ro());
    settings.application_name("to-be-ended");
    let client = connect_with(settings).await.unwrap();
    let mut browser = look(program, &balancer).await;
    browser.value(&format!("sessionStorage.setItem('pgsplit-token', '{TOKEN}')")).await;

    let click = |selector: &str| format!("document.querySelector(\"{selector}\").click()");
    browser.value(&click("[aria-label='Pause rw']")).await;
    assert!(
        browser.text("#confirm-will").await.starts_with("New sessions of rw wait until somebody resumes it")
    );
    browser.value(&click("#confirm-do")).await;
    browser.wait_text("#listeners-rows tr[data-key=rw] .pill", |text| text == "paused").await;
    browser.wait_text("#verdict", |text| text.starts_with("Writes wait: rw is paused")).await;
    browser.value(&click("[aria-label='Resume rw']")).await;
    browser.value(&click("#confirm-do")).await;
    browser.wait_text("#listeners-rows tr[data-key=rw] .pill", |text| text == "open").await;

    browser.value("document.querySelector('#sessions').scrollIntoView()").await;
    browser.wait_text("#sessions-rows [data-f=application]", |text| text == "to-be-ended").await;
    browser.value(&click("#sessions-rows [data-do]")).await;
    browser.value(&click("#confirm-do")).await;
    browser.wait_text("#sessions-total", |text| text == "0").await;
    assert!(value(&client, "select 1").await.is_err());
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn it_says_when_there_are_no_news_and_goes_on_by_itself() {
    let Some(program) = program() else { return };
    let balancer = start(shared().await, "").await;
    let mut browser = look(program, &balancer).await;
    balancer.signal(Signal::STOP);
    browser.wait_text("#news", |text| text.starts_with("no news since ")).await;
    balancer.signal(Signal::CONT);
    browser.wait_text("#news", |text| text == "live").await;
    balancer.kill9_and_start_again().await;
    browser.value("window.untouched = true").await;
    browser.wait_text("#uptime", |text| text.parse::<u32>().is_ok() || text.ends_with(" s")).await;
    browser.wait_text("#news", |text| text == "live").await;
    assert_eq!(browser.value("window.untouched").await, true);
}

#[tokio::test]
async fn the_first_paint_and_the_script_say_the_same() {
    let Some(program) = program() else { return };
    let front = "http: {bind: \"BALANCER:8080\", upstreams: [\"127.0.0.1:1\"], check: off}\n";
    let balancer = start(shared().await, front).await;
    let _client = connect(balancer.ro()).await.unwrap();
    // What passes with time is another thing at each look.
    let texts = "Array.from(document.querySelectorAll('main [data-f], main th, #condition, #verdict'))
        .filter((e) => !e.matches('[data-f=since], [data-f=age], [data-f=idle], [data-f=check], [data-f=new], .steps *, .card *'))
        .map((e) => (e.dataset.f ?? '') + ' ' + e.textContent)";
    let mut browser = Browser::start(program, 1280, 900).await;
    browser.allow_scripts(false).await;
    browser.open(&url(&balancer)).await;
    let painted = browser.value(texts).await;
    assert!(painted.as_array().unwrap().len() > 60, "{painted}");
    browser.allow_scripts(true).await;
    browser.open(&url(&balancer)).await;
    browser.wait_text("#news", |text| text == "live").await;
    // The script makes all rows anew.
    browser.value("document.querySelectorAll('tbody:not(#events-rows), #fronts').forEach((e) => e.replaceChildren())").await;
    browser.value("document.querySelector('#sessions').scrollIntoView()").await;
    wait_until("the script to say what the server has painted", async || {
        // Rows that come back push it out of sight, and what nobody sees is not asked for.
        browser.value("document.querySelector('#sessions').scrollIntoView()").await;
        let scripted = browser.value(texts).await;
        let (a, b) = (painted.as_array().unwrap(), scripted.as_array().unwrap());
        let differ = a.iter().zip(b).find(|(a, b)| a != b);
        if a.len() == b.len() && differ.is_none() {
            Ok(())
        } else {
            Err(format!("{} {} {differ:?}", a.len(), b.len()))
        }
    })
    .await;
}

/// Texts whose colour is too close to what is behind them, as the browser has computed both.
const TOO_FAINT: &str = r"(() => {
    const rgb = (text) => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const paper = rgb(getComputedStyle(e).backgroundColor);
            if (paper.length === 3 || paper[3] === 1) return paper;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return [walker.root.innerText.length > 500, faint];
})()";

#[tokio::test]
async fn anybody_can_read_it_on_any_screen() {
    let Some(program) = program() else { return };
    let cluster = Cluster::start(1, Settings::default()).await;
    let front = "http: {bind: \"BALANCER:8080\", upstreams: [\"127.0.0.1:1\"], check: off}\n";
    let balancer = start(&cluster, front).await;
    let _client = connect(balancer.ro()).await.unwrap();
    cluster.standby(0).stop(Stop::Immediate).await;
    balancer.wait_health("n1", "down").await;
    pause(&balancer, "rw").await;
    let mut browser = look(program, &balancer).await;
    browser.wait_text("#verdict", |text| text.contains("n1 down")).await;
    browser.value("document.querySelectorAll('details').forEach((e) => { e.open = true })").await;
    browser.wait_text("#effective-text", |text| text.contains("\"admin\"")).await;
    assert!(!browser.text("#effective-text").await.contains(TOKEN));

    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for dialog in ["", "document.querySelector(\"[aria-label='Change n0']\").click()"] {
            browser.value(dialog).await;
            assert_eq!(browser.value(TOO_FAINT).await, serde_json::json!([true, []]), "{scheme} {dialog}");
        }
        browser.value("document.querySelector('#change').close()").await;
    }

    for width in [320, 400, 768, 1024, 1280, 2560] {
        browser.resize(width, 900).await;
        let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.value(wide).await, 0, "{width} points: no need to scroll sideways");
    }

    let controls =
        ["button", "textbox", "searchbox", "combobox", "link", "radio", "spinbutton", "DisclosureTriangle"];
    browser.resize(400, 900).await;
    for open in ["", "document.querySelector(\"[aria-label='Change n0']\").click()"] {
        browser.value(open).await;
        let all = browser.accessible().await;
        let found: Vec<_> = all.iter().filter(|(role, _)| controls.contains(&role.as_str())).collect();
        assert!(5 < found.len(), "{all:?}");
        assert!(found.iter().all(|(_, name)| !name.is_empty()), "{found:?}");
        if open.is_empty() {
            for landmark in ["banner", "main", "contentinfo", "navigation"] {
                assert!(all.iter().any(|(role, _)| role == landmark), "{landmark}: {all:?}");
            }
            let tables = all.iter().filter(|(role, name)| role == "table" && !name.is_empty());
            assert!(5 <= tables.count(), "{all:?}");
            assert!(all.iter().any(|(role, name)| role == "rowheader" && name.contains("n1")), "{all:?}");
        }
    }
}

/// Takes the pictures of the README anew: `cargo test --test it -- --ignored dashboard::pictures`.
#[tokio::test]
#[ignore = "writes docs/images"]
async fn pictures() {
    let program = program().expect("a browser");
    let cluster = Cluster::start(2, Settings::default()).await;
    let names = ["db1", "db2", "db3"];
    let nodes = names.iter().zip(cluster.nodes());
    let nodes = nodes.map(|(name, node)| {
        format!("  - {{name: {name}, addr: \"{}\", max_connections: 80}}\n", node.addr())
    });
    let text = format!("nodes:\n{}{}{}", nodes.collect::<String>(), quick_checks(), admin());
    let balancer = Balancer::start(&text).await;
    balancer.wait_ready().await;
    let mut load = JoinSet::new();
    for (i, at) in (0..36).map(|i| (i, if i % 3 == 0 { balancer.rw() } else { balancer.ro() })) {
        load.spawn(async move {
            let app = ["web", "worker", "reports"][i % 3];
            for n in 0.. {
                let mut settings = config(at);
                settings.application_name(app);
                let Ok(client) = connect_with(settings).await else { continue };
                let rest = if i < 30 { u64::MAX } else { 2 };
                for m in 0..rest {
                    let rows = 40 + (n * 7 + m * 13 + i as u64 * 5) % 400;
                    let sql = format!("select repeat('x', {}), pg_sleep(0.3)", rows * 40);
                    if value(&client, &sql).await.is_err() {
                        break;
                    }
                }
            }
        });
    }
    let seconds = |n| std::time::Duration::from_secs(n);
    let uptime = async |least: f64| {
        wait_at_most(seconds(120), "some history", async || {
            balancer.status().await["uptime_seconds"].as_f64().unwrap() > least
        })
        .await;
    };
    uptime(50.0).await;
    cluster.standby(1).stop(Stop::Immediate).await;
    balancer.wait_health("db3", "down").await;
    uptime(64.0).await;
    let mut browser = look(program, &balancer).await;
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    for (name, scheme, width, height) in [
        ("dashboard.png", "light", 1280, 1000),
        ("dashboard-dark.png", "dark", 1280, 1000),
        ("dashboard-narrow.png", "light", 400, 860),
    ] {
        browser.prefer(scheme).await;
        browser.resize(width, height).await;
        browser.value("new Promise((done) => setTimeout(done, 1200))").await;
        fs::write(images.join(name), browser.picture().await).unwrap();
    }
    load.shutdown().await;
}
