//! An instance of a service as a process of its own, which can be killed or stopped: the test program, run again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::address::Address;
use super::home;
use super::process::{Signal, signal};
use super::upstream::{Answer, full};
use super::wait::wait_until;
use super::web::try_get;

/// The test that is an instance when it is run with [`ADDR`] set.
const TEST: &str = "web_support_works::is_an_instance_when_asked_to";
const ADDR: &str = "SPLIT_TEST_INSTANCE";
const NAME: &str = "SPLIT_TEST_INSTANCE_NAME";

/// A running instance. Dropping it kills it.
#[derive(Debug)]
pub struct Instance {
    _address: Address,
    addr: SocketAddr,
    name: String,
    dir: PathBuf,
    process: Mutex<Child>,
}

impl Instance {
    /// Starts one and waits until it answers.
    pub async fn start(name: &str) -> Self {
        let address = Address::claim();
        let addr = address.port(8080);
        let dir = home::directory("instance");
        let process = Mutex::new(spawn(addr, name, &dir));
        let instance = Self { _address: address, addr, name: name.to_owned(), dir, process };
        instance.wait_answers().await;
        instance
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it calls itself in `X-Served-By`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it as a crash does.
    pub fn kill9(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill().expect("our own child");
        process.wait().expect("our own child");
    }

    /// Starts it again, at the same address.
    pub async fn restart(&self) {
        self.kill9();
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) =
            spawn(self.addr, &self.name, &self.dir);
        self.wait_answers().await;
    }

    /// Stops it where it is: connections are still taken, by the system, and nothing answers. Returns when every
    /// thread of it stands still.
    pub async fn sigstop(&self) {
        signal(self.pid(), Signal::STOP);
        wait_until("the instance to stand still", async || is_stopped(self.pid())).await;
    }

    /// Lets it go on.
    pub fn sigcont(&self) {
        signal(self.pid(), Signal::CONT);
    }

    /// Answers this status to everything from now on, checks too; 200 is how it started.
    pub async fn set_status(&self, status: u16) {
        try_get(self.addr, &format!("/-/status/{status}")).await.expect("it runs");
    }

    fn pid(&self) -> u32 {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    async fn wait_answers(&self) {
        wait_until("the instance to answer", async || try_get(self.addr, "/health").await.map(drop)).await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// From `/proc`: the state of each thread stands behind its name, which stands in parentheses.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut stats = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
    stats.all(|stat| {
        stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T")))
    })
}

fn spawn(addr: SocketAddr, name: &str, dir: &PathBuf) -> Child {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.args(["--exact", TEST, "--nocapture", "--test-threads", "1"]).current_dir(dir);
    command.env(ADDR, addr.to_string()).env(NAME, name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let process = command.spawn().expect("this program starts");
    // For the watchdog, should we be killed.
    fs::write(dir.join("pid"), format!("{}\n", process.id())).expect("our own directory");
    process
}

/// Is an instance until it is killed, when this process was started to be one.
pub fn run_if_asked() {
    let (Ok(addr), Ok(name)) = (env::var(ADDR), env::var(NAME)) else { return };
    let addr: SocketAddr = addr.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(addr, name.into()));
}

async fn serve(addr: SocketAddr, name: Arc<str>) {
    let listener = TcpListener::bind(addr).await.expect("the instance's own address");
    let status = Arc::new(AtomicU16::new(200));
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (name, status) = (Arc::clone(&name), Arc::clone(&status));
        let service = service_fn(move |request| {
            let (name, status) = (Arc::clone(&name), Arc::clone(&status));
            async move { Ok::<_, Infallible>(answer(&request, &name, &status).await) }
        });
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(serving);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: &Request<Incoming>, name: &str, status: &AtomicU16) -> Answer {
    let path = request.uri().path();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    if let Some(new) = number("/-/status/").and_then(|new| u16::try_from(new).ok()) {
        status.store(new, Ordering::SeqCst);
        return Response::new(full("so be it"));
    }
    let body = match (number("/bytes/"), number("/slow/")) {
        (Some(n), _) => "x".repeat(n),
        (_, Some(ms)) => {
            tokio::time::sleep(Duration::from_millis(ms as u64)).await;
            name.to_owned()
        }
        _ => name.to_owned(),
    };
    let answer = Response::builder().status(status.load(Ordering::SeqCst)).header("x-served-by", name);
    answer.body(full(body)).expect("a valid answer")
}
