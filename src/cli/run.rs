//! `pgsplit run`.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::app::upgrade::heir::Heir;
use crate::app::upgrade::launch::Launch;
use crate::app::upgrade::middle;
use crate::app::{App, Outfit, SetLog, StartError};
use crate::cli::args::Source;
use crate::cli::{BAD_CONFIG, FAILURE, NO_PERMISSION, fail, load, out, refuse};
use crate::config::{Config, Log, LogFormat};
use crate::front::group::Group;
use crate::front::shared::Front;
use crate::net::descriptors::Descriptors;
use crate::net::inherited::{Inherited, Unfit};
use crate::telemetry::log::{self, Format, LogGuard, LogSettings};
use crate::topology::Node;

/// The start screen does not wait longer for first checks.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// As good as at the same time, be the machine ever so busy.
const TOLD_TWICE: Duration = Duration::from_secs(1);

pub(super) fn run(source: &Source) -> ExitCode {
    if middle::is_this() {
        return middle::run().map_or_else(|error| fail(&error.to_string()), |()| ExitCode::SUCCESS);
    }
    let launch = Launch::of_process();
    let heir = match Heir::of_process() {
        Ok(heir) => heir,
        Err(error) => return fail(&error.to_string()),
    };
    let (config, origin) = match load(source) {
        Ok(loaded) => loaded,
        Err((error, origin)) => {
            if let Some(heir) = heir {
                heir.refuse(&error.lines().join("; "));
            }
            return refuse(&error, &origin);
        }
    };
    // Before there are threads.
    let inherited = match Inherited::of_process() {
        Ok(inherited) => inherited,
        Err(error) => return cannot_start(&error.into()),
    };
    let guard = match start_log(&config) {
        Ok(guard) => guard,
        Err(error) => {
            out::complain(&format!("pgsplit: log.level: {error}\n"));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    // The control side: checks, admin. Sessions have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(&format!("pgsplit: cannot start: {error}\n"));
            return ExitCode::from(FAILURE);
        }
    };
    let code = runtime.block_on(serve(config, &origin, &guard, (launch, inherited, heir)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(guard);
    code
}

fn start_log(config: &Config) -> Result<LogGuard, String> {
    let ansi = io::stderr().is_terminal();
    let settings = LogSettings { filter: &config.log.level, format: format(&config.log, ansi), ansi };
    let (dispatch, guard) = log::start(settings, io::stderr()).map_err(|error| error.to_string())?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|error| error.to_string())?;
    Ok(guard)
}

fn format(log: &Log, is_terminal: bool) -> Format {
    match log.format {
        LogFormat::Auto if is_terminal => Format::Text,
        LogFormat::Auto | LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    }
}

/// How a reload changes the log.
fn set_log(guard: &LogGuard) -> SetLog {
    let (control, is_terminal) = (guard.control(), io::stderr().is_terminal());
    Box::new(move |log| control.set(&log.level, format(log, is_terminal)).map_err(|error| error.to_string()))
}

async fn serve(
    config: Config,
    origin: &str,
    guard: &LogGuard,
    (launch, inherited, heir): (Launch, Inherited, Option<Heir>),
) -> ExitCode {
    let sessions: u64 =
        config.listeners.iter().map(|listener| u64::from(listener.max_connections.get())).sum();
    let mut warnings = config.warnings.clone();
    let descriptors = Descriptors::of_process();
    let clients: u64 = config.fronts.iter().map(|front| u64::from(front.limits.max_connections.get())).sum();
    // One descriptor for a client of a front, and as many for upstreams only when all ask at a time.
    if descriptors.sessions() < sessions + clients / 2 {
        let (limit, room) = (descriptors.limit(), descriptors.sessions());
        let http = if clients == 0 { String::new() } else { format!(" and {clients} HTTP connections") };
        warnings.push(format!(
            "open files limit {limit} allows about {room} sessions; {sessions}{http} are configured. Set \
             LimitNOFILE="
        ));
    }
    let (Ok(mut hangup), Ok(mut term), Ok(mut int), Ok(mut user)) = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::user_defined2()),
    ) else {
        out::complain("pgsplit: cannot listen for signals\n");
        return ExitCode::from(FAILURE);
    };
    let (drops, events) = (guard.dropped(), guard.events());
    let mut inheritance = None;
    if let Some(heir) = heir {
        match heir.meet().await {
            Ok(met) => inheritance = Some(met),
            Err(why) => return fail(&why),
        }
    }
    let outfit = Outfit {
        launch,
        handed: inheritance.as_mut().map(|inheritance| std::mem::take(&mut inheritance.handed)),
        origin: origin.to_owned(),
        file: config.read.files.first().filter(|_| config.read.sha256.is_some()).cloned(),
        descriptors,
        inherited,
        set_log: set_log(guard),
        log_drops: Box::new(move || drops.count()),
        events,
    };
    let mut app = match App::start(config, outfit).await {
        Ok(app) => app,
        Err(error) => {
            if let Some(inheritance) = inheritance {
                inheritance.refuse(error.in_words()).await;
            }
            return cannot_start(&error);
        }
    };
    for warning in &warnings {
        warn!(text = warning.as_str(), "config_warning");
    }
    let _ = timeout(FIRST_LOOK, app.first_checks()).await;
    if let Some(inheritance) = inheritance {
        let taken = tokio::select! {
            taken = inheritance.take_over(&mut app) => taken,
            () = either(&mut term, &mut int) => Err("told to stop".to_owned()),
        };
        if let Err(why) = taken {
            error!(error = why, hint = "the old process goes on", "upgrade_given_up");
            return ExitCode::from(FAILURE);
        }
    }
    out::aside(&start_screen(&app, origin));
    info!(version = env!("CARGO_PKG_VERSION"), config = origin, "started");
    app.announce().await;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hangup.recv() => app.reload("signal"),
            _ = user.recv() => app.upgrade("signal"),
            () = app.replaced() => break,
            () = app.told_to_stop() => {
                // Who has told the other process may be about to tell this one as well, and means no hurry by that.
                let _ = timeout(TOLD_TWICE, either(&mut term, &mut int)).await;
                break;
            }
        }
    }
    app.stop(either(&mut term, &mut int)).await;
    ExitCode::SUCCESS
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}

fn cannot_start(error: &StartError) -> ExitCode {
    let (source, addr) = match error {
        StartError::Bind { addr, source, .. } => (source, Some(addr)),
        StartError::Socket { source, .. }
        | StartError::Worker(source)
        | StartError::Unfit(Unfit::System { source, .. }) => (source, None),
        StartError::Unfit(Unfit::Kind { .. } | Unfit::Unknown { .. }) => {
            out::complain(&format!("pgsplit: {error}\n"));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let hint = match (source.kind(), addr) {
        _ if matches!(error, StartError::Socket { .. }) => {
            "\nChoose another admin.socket, or write `admin: {socket: off}`".to_owned()
        }
        (io::ErrorKind::AddrInUse, Some(addr)) => {
            format!(
                "\nAnother process listens there: see `ss -ltnp 'sport = :{}'`, or choose another bind",
                addr.port()
            )
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "\nPorts below 1024 need rights: choose a higher one".to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => "\nThat address is not one of this machine".to_owned(),
        _ => String::new(),
    };
    out::complain(&format!("pgsplit: {error}: {source}{hint}\n"));
    ExitCode::from(if source.kind() == io::ErrorKind::PermissionDenied { NO_PERMISSION } else { FAILURE })
}

/// What it listens on, what the first look at each node found, and what to put into `DATABASE_URL`.
fn start_screen(app: &App, origin: &str) -> String {
    let mut out = format!("pgsplit {}  {origin}\n\n", env!("CARGO_PKG_VERSION"));
    let setup = app.shared.setup();
    let several = 1 < setup.config.clusters.len();
    for listener in &setup.listeners {
        let (name, target) = (&listener.config.name, listener.config.target);
        let cluster = if several { format!("  cluster {}", listener.cluster.name) } else { String::new() };
        let _ = writeln!(
            out,
            "  {name:<6} postgres://USER:PASSWORD@{}/DATABASE   {target}{cluster}",
            listener.addr
        );
    }
    for front in app.fronts.now().iter() {
        let name = &front.config.name;
        let _ =
            writeln!(out, "  {name:<6} http://{}/   HTTP front, {} upstreams", front.addr, upstreams(front));
    }
    if let Some(admin) = setup.admin {
        let _ = writeln!(out, "  {:<6} http://{admin}/   metrics on /metrics", "admin");
    }
    out.push('\n');
    let topologies = setup.clusters.iter().map(|cluster| Arc::clone(&cluster.current.borrow()));
    let nodes: Vec<Node> = topologies.flat_map(|topology| topology.nodes.clone()).collect();
    let wide = nodes.iter().map(|node| node.config.name.len()).fold(16, usize::max);
    let far = nodes.iter().map(|node| node.place_in_words().len()).fold(22, usize::max);
    for node in &nodes {
        let (name, place) = (&node.config.name, node.place_in_words());
        let _ = writeln!(out, "  {name:<wide$} {place:<far$} {}", first_look(node));
    }
    if setup.listeners.is_empty() {
        out.push_str("Ctrl-C stops.\n");
    } else {
        out.push_str("\nPut a postgres:// URL into DATABASE_URL; only host and port change. Ctrl-C stops.\n");
    }
    out
}

/// How many of a front's upstreams are up, of how many.
fn upstreams(front: &Front) -> String {
    let standings: Vec<_> = front.groups.iter().map(Group::standing).collect();
    let all = || standings.iter().flat_map(|standing| &standing.members);
    format!("{} of {}", all().filter(|member| member.takes_new()).count(), all().count())
}

fn first_look(node: &Node) -> String {
    let Some(report) = node.last_check.as_deref() else { return "no answer yet".to_owned() };
    format!("{} ({:.1} ms)", report.outcome.in_words(node.role()), report.took.as_secs_f64() * 1e3)
}
