//! Peers of the next Debian, in containers: the network, the processes and the files are those of the machine, so that
//! they are measured as the others are.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::time::timeout;

use crate::measuring::program::first_line_of;
use crate::support::home;
use crate::support::process::family;
use crate::support::programs::Owner;
use crate::support::tls::certificate;

const IMAGE: &str = "pgsplit-bench-peers";
/// Of an engine, to say that it is there.
const PATIENCE: Duration = Duration::from_secs(20);
const DOCKERFILE: &str = "\
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends haproxy nginx libnginx-mod-stream pgbouncer \\
    && rm -rf /var/lib/apt/lists/*
";

/// Makes the image, on what `compose/base-images.sh` makes. An error says why there can be no containers.
pub(crate) async fn prepare() -> Result<(), String> {
    let answers = timeout(PATIENCE, run("docker", &["info"])).await;
    if !matches!(answers, Ok(Ok(()))) {
        return Err("no Docker engine answers here".to_owned());
    }
    run("compose/base-images.sh", &["debian"]).await?;
    let dir = home::directory("image");
    let path = dir.join("Dockerfile");
    fs::write(&path, DOCKERFILE).map_err(|error| format!("{}: {error}", path.display()))?;
    let built = run("docker", &["build", "--quiet", "--tag", IMAGE, &dir.display().to_string()]).await;
    let _ = fs::remove_dir_all(dir);
    built
}

async fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    // A builder in a container of its own would not know the base image of this machine.
    command.args(arguments).env("BUILDX_BUILDER", "default").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} {}: {}: {last}", arguments.first().unwrap_or(&""), output.status))
}

/// The first line a program of the image prints.
pub(crate) fn first_line(program: &Path, argument: &str) -> Option<String> {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", "none", IMAGE]).arg(program).arg(argument);
    first_line_of(&mut command)
}

/// A container. Dropping it removes it.
pub(crate) struct Container {
    name: String,
}

impl Container {
    pub(crate) fn new(what: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("pgsplit-bench-{}-{number}-{what}", std::process::id()) }
    }

    /// Runs a command line in `dir`, which is the same directory in the container. What it prints goes to the files
    /// `out` and `err` there, without passing the engine.
    pub(crate) fn command(&self, line: &[String], dir: &Path, owner: Owner) -> io::Result<Command> {
        let mount = |path: &Path, rights: &str| format!("{0}:{0}:{rights}", path.display());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--name", &self.name]);
        command.args(["--network", "host", "--pid", "host", "--log-driver", "none"]);
        // Else every system call would cost more than outside.
        command.args(["--security-opt", "seccomp=unconfined"]);
        if let Some(files) = getrlimit(Resource::Nofile).maximum {
            command.arg("--ulimit").arg(format!("nofile={files}:{files}"));
        }
        if let Owner::Other { uid, gid } = owner {
            command.arg("--user").arg(format!("{uid}:{gid}"));
        }
        command.arg("--volume").arg(mount(dir, "rw")).arg("--workdir").arg(dir);
        for file in [&certificate().cert, &certificate().key] {
            command.arg("--volume").arg(mount(file, "ro"));
        }
        for file in ["pid", "out", "err"] {
            let path = dir.join(file);
            File::create(&path)?;
            home::give(&path, owner);
        }
        // The number is that of the machine: for us, and for the watchdog should we be killed.
        command.args([IMAGE, "sh", "-c", "echo $$ >pid && exec \"$@\" >>out 2>>err", "sh"]).args(line);
        Ok(command)
    }

    /// All its processes, by their numbers on the machine. Only once it works.
    pub(crate) fn processes(dir: &Path) -> Vec<u32> {
        let pid = fs::read_to_string(dir.join("pid")).ok();
        pid.and_then(|text| text.trim().parse().ok()).map(family).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut command = Command::new("docker");
        command.args(["rm", "--force", &self.name]);
        // Gone already when it ended by itself.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
