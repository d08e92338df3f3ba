//! Who works through pgsplit all the while. Each client goes on for ever, whatever happens to its sessions, and reports
//! to the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::ledger::{Ledger, TOLD};
use super::session::{Answer, End, Session};
use crate::support::wire::{Wire, cancel_request, message, query};

/// What all clients know.
#[derive(Clone, Debug)]
pub struct World {
    /// The listener for writes.
    pub rw: SocketAddr,
    /// The listener for reads.
    pub ro: SocketAddr,
    /// Where they report.
    pub ledger: Arc<Ledger>,
    /// What their own dice begin with.
    pub seed: u64,
}

/// A client, with what it is called and a number among its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Inserts rows, and knows which ones were acknowledged.
    Writer(u32),
    /// A new session for each read.
    Reader(u32),
    /// A session that hardly ever says anything.
    Idle(Listener, u32),
    /// Reads many rows whose every byte it knows.
    CopyOut,
    /// Sends many rows and has the server compare every byte.
    CopyIn,
    /// One session listens to another.
    Notify,
    /// Starts what takes long, and cancels it.
    Canceller(Listener),
}

/// Which listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For writes.
    Rw,
    /// For reads.
    Ro,
}

/// Longer than any session waits for a query that nobody cancels.
const SLEEP: &str = "select pg_sleep(12)";

/// Rows of one COPY.
const ROWS: usize = 1500;

impl Role {
    /// All of a run.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::CopyOut, Self::CopyIn, Self::Notify];
        for listener in [Listener::Rw, Listener::Ro] {
            all.push(Self::Canceller(listener));
            all.extend((0..4).map(|i| Self::Idle(listener, i)));
        }
        all.extend((0..6).map(Self::Writer));
        all.extend((0..6).map(Self::Reader));
        all
    }

    /// Works until it is dropped.
    pub async fn work(self, world: World) {
        let name = format!("{self:?}").to_lowercase();
        let seed =
            name.bytes().fold(world.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut client = Client { world, name, rng: Rng::with_seed(seed) };
        let mut seq = 0;
        loop {
            match self {
                Self::Writer(writer) => client.write(writer, &mut seq).await,
                Self::Reader(_) => client.read().await,
                Self::Idle(listener, _) => client.idle(listener).await,
                Self::CopyOut => client.copy_out().await,
                Self::CopyIn => client.copy_in().await,
                Self::Notify => client.notify().await,
                Self::Canceller(listener) => client.cancel(listener).await,
            }
        }
    }
}

/// One of them.
#[derive(Debug)]
struct Client {
    world: World,
    name: String,
    rng: Rng,
}

impl Client {
    /// A session, or `None` and a report.
    async fn open(&mut self, listener: Listener, more: &[(&str, &str)]) -> Option<Session> {
        let is_rw = listener == Listener::Rw;
        let addr = if is_rw { self.world.rw } else { self.world.ro };
        let asked = Instant::now();
        match Session::open(addr, &self.name, more).await {
            Ok(session) => {
                self.ledger().opened(&self.name, is_rw, &session, asked);
                Some(session)
            }
            Err(refused) => {
                self.ledger().refused(&self.name, is_rw, asked, &refused);
                self.rest(20..200).await;
                None
            }
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.world.ledger
    }

    fn wrong(&self, session: &Session, text: &str) {
        let (node, client) = (session.node, session.client);
        self.ledger().wrong(&format!("{}: {text}, on {node} (client {client})", self.name));
    }

    async fn rest(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(millis))).await;
    }

    /// Reports what must not be in an answer; true: the session goes on.
    fn is_fine(&self, session: &Session, answer: &Answer) -> bool {
        if TOLD < answer.took {
            self.wrong(session, &format!("waits for {:?}", answer.took));
        }
        if let Some(error) = &answer.error {
            // A standby may have to choose between its primary and a query.
            if error.code == "40001" && session.is_on_standby {
                self.ledger().count("queries lost to replay");
            } else {
                self.wrong(session, &format!("{error:?}"));
            }
        }
        if let Some(end) = &answer.end {
            self.ledger().ended(&self.name, Some(session), end);
        }
        answer.end.is_none()
    }

    /// The same for a statement that asks for the server's process: it is always the same one.
    fn is_at_home(&self, session: &Session, answer: &Answer) -> bool {
        let pid = answer.rows.first().and_then(|row| row.first()).and_then(Option::as_ref);
        if pid.is_some_and(|pid| *pid != session.pid) {
            self.wrong(session, &format!("process {} became {pid:?}", session.pid));
        }
        self.is_fine(session, answer)
    }

    async fn write(&mut self, writer: u32, seq: &mut u32) {
        // What is acknowledged is on another server, too.
        let Some(mut session) = self.open(Listener::Rw, &[("synchronous_commit", "remote_apply")]).await
        else {
            return;
        };
        for _ in 0..self.rng.u32(1..40) {
            *seq += 1;
            let sent = Instant::now();
            let sql = format!("insert into ledger values ({writer}, {seq}) returning pg_backend_pid()");
            let mut answer = session.ask(&sql).await;
            // It waits for a standby, too, which may have to find a new primary first.
            answer.took = Duration::ZERO;
            if answer.is_done {
                self.ledger().acked(writer, *seq, session.node, sent);
                self.ledger().took("write", sent.elapsed());
            } else if answer.error.is_none() {
                self.ledger().count("writes that nobody knows about");
            }
            if !self.is_at_home(&session, &answer) {
                return;
            }
            self.rest(5..60).await;
        }
        match self.rng.u32(..10) {
            0 => session.reset(),
            1 => drop(session),
            _ => session.close().await,
        }
    }

    async fn read(&mut self) {
        let began = Instant::now();
        let Some(mut session) = self.open(Listener::Ro, &[]).await else { return };
        let answer = session.ask("select pg_backend_pid(), max(seq) from ledger where writer = 0").await;
        if self.is_at_home(&session, &answer) {
            self.ledger().took("read", began.elapsed());
            self.ledger().count("reads");
            session.close().await;
        }
        self.rest(10..60).await;
    }

    async fn idle(&mut self, listener: Listener) {
        let Some(mut session) = self.open(listener, &[]).await else { return };
        loop {
            let patience = Duration::from_millis(self.rng.u64(500..8000));
            if session.is_readable_within(patience).await {
                match session.next().await {
                    Ok(message) if matches!(message.tag, b'S' | b'N') => continue,
                    Ok(message) => self.wrong(&session, &format!("{message:?} out of nothing")),
                    Err(end) => self.ledger().ended(&self.name, Some(&session), &end),
                }
                return;
            }
            let asked = Instant::now();
            let answer = session.ask("select pg_backend_pid()").await;
            if answer.is_done && listener == Listener::Rw {
                self.ledger().began_on(&self.name, session.node, asked);
            }
            if !self.is_at_home(&session, &answer) {
                return;
            }
        }
    }

    async fn copy_out(&mut self) {
        let Some(mut session) = self.open(Listener::Ro, &[]).await else { return };
        let first = self.rng.usize(..1_000_000);
        let sql = format!(
            "copy (select {} from generate_series({first}, {}) g) to stdout",
            line_in_sql("g"),
            first + ROWS - 1
        );
        if let Err(end) = self.take_copy(&mut session, &sql, first).await {
            self.ledger().ended(&self.name, Some(&session), &end);
        } else {
            session.close().await;
        }
        self.rest(50..400).await;
    }

    async fn take_copy(&self, session: &mut Session, sql: &str, first: usize) -> Result<(), End> {
        session.send(&query(sql)).await?;
        let mut lines = (first..first + ROWS).map(|g| line(g) + "\n");
        loop {
            let message = session.next().await?;
            match message.tag {
                b'd' => {
                    let expected = lines.next();
                    if expected.as_ref().map(String::as_bytes) != Some(&message.body) {
                        let got = String::from_utf8_lossy(&message.body);
                        self.wrong(session, &format!("the row {got:?} instead of {expected:?}"));
                    }
                }
                b'E' if session.is_on_standby
                    && message.error().is_some_and(|error| error.code == "40001") =>
                {
                    self.ledger().count("queries lost to replay");
                    lines.by_ref().for_each(drop);
                }
                b'E' => self.wrong(session, &format!("{:?}", message.error())),
                b'Z' if lines.next().is_some() => self.wrong(session, "rows are missing"),
                b'Z' => {
                    self.ledger().count("COPY streams out");
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn copy_in(&mut self) {
        let more = [("synchronous_commit", "local")];
        let Some(mut session) = self.open(Listener::Rw, &more).await else { return };
        let first = self.rng.usize(..1_000_000);
        let answer = session.ask("create temporary table copied (g int, line text)").await;
        if !self.is_fine(&session, &answer) {
            return;
        }
        match self.give_copy(&mut session, first).await {
            Err(end) => self.ledger().ended(&self.name, Some(&session), &end),
            Ok(answer) if !self.is_fine(&session, &answer) => {}
            Ok(_) => {
                let sql = format!(
                    "select count(*) || ' ' || count(distinct g) || ' ' || bool_and(line = {} and g between {first} \
                     and {}) from copied",
                    line_in_sql("g"),
                    first + ROWS - 1
                );
                let answer = session.ask(&sql).await;
                if self.is_fine(&session, &answer) {
                    let expected = format!("{ROWS} {ROWS} true");
                    match answer.rows.first().and_then(|row| row.first()) {
                        Some(Some(found)) if *found == expected => self.ledger().count("COPY streams in"),
                        found => self.wrong(&session, &format!("copied {found:?} instead of {expected}")),
                    }
                    session.close().await;
                }
            }
        }
        self.rest(50..400).await;
    }

    async fn give_copy(&mut self, session: &mut Session, first: usize) -> Result<Answer, End> {
        session.send(&query("copy copied from stdin")).await?;
        let started = session.next().await?;
        if started.tag != b'G' {
            self.wrong(session, &format!("{started:?} instead of a start of COPY"));
        }
        let rows: Vec<_> = (first..first + ROWS).map(|g| format!("{g}\t{}\n", line(g))).collect();
        let text = rows.concat();
        let mut rest = text.as_bytes();
        // Neither the end of a row nor that of a message is where a packet ends.
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.rng.usize(1..20_000).min(rest.len()));
            session.send(&message(b'd', piece)).await?;
            rest = after;
        }
        session.send(&message(b'c', &[])).await?;
        let mut answer = Answer::default();
        session.hear(&mut answer).await?;
        Ok(answer)
    }

    async fn notify(&mut self) {
        let more = [("synchronous_commit", "local")];
        let Some(mut listens) = self.open(Listener::Rw, &more).await else { return };
        let answer = listens.ask("listen soak").await;
        if !self.is_fine(&listens, &answer) {
            return;
        }
        let Some(mut speaks) = self.open(Listener::Rw, &more).await else { return };
        if listens.node != speaks.node {
            return self.rest(200..500).await;
        }
        for i in 0..self.rng.u32(5..40) {
            let began = Instant::now();
            let answer = speaks.ask(&format!("notify soak, '{} {i}'", speaks.pid)).await;
            if !self.is_fine(&speaks, &answer) {
                return;
            }
            let expected = format!("soak\0{} {i}\0", speaks.pid);
            match listens.next().await {
                Ok(heard) if heard.tag == b'A' && heard.body.get(4..) == Some(expected.as_bytes()) => {
                    self.ledger().count("notifications");
                }
                Ok(heard) => self.wrong(&listens, &format!("{heard:?} instead of {expected:?}")),
                // What vanished on its way to the one need not have vanished for the other.
                Err(End::Late) if self.ledger().has_trouble(listens.node, began) => return,
                Err(end) => return self.ledger().ended(&self.name, Some(&listens), &end),
            }
            self.rest(20..300).await;
        }
    }

    async fn cancel(&mut self, listener: Listener) {
        let Some(mut session) = self.open(listener, &[]).await else { return };
        let addr = if listener == Listener::Rw { self.world.rw } else { self.world.ro };
        for _ in 0..self.rng.u32(1..5) {
            let began = Instant::now();
            if let Err(end) = session.send(&query(SLEEP)).await {
                return self.ledger().ended(&self.name, Some(&session), &end);
            }
            // The first one may come before the query.
            let mut requests = 0;
            loop {
                let patience = Duration::from_millis(self.rng.u64(150..600));
                if session.is_readable_within(patience).await {
                    break;
                }
                requests += 1;
                self.request_cancel(addr, &session.key).await;
            }
            let mut answer = Answer::default();
            answer.end = session.hear(&mut answer).await.err();
            match answer.error.take() {
                Some(error) if error.code == "57014" => {
                    self.ledger().took("wait for a cancel", began.elapsed());
                    self.ledger().count(if requests == 1 {
                        "cancels"
                    } else {
                        "cancels that took several requests"
                    });
                }
                None if answer.is_done && !self.ledger().has_trouble(session.node, began) => {
                    self.wrong(&session, &format!("{requests} requests to cancel did nothing"));
                }
                other => answer.error = other,
            }
            if !self.is_fine(&session, &answer) {
                return;
            }
            self.rest(100..1000).await;
        }
        session.close().await;
    }

    async fn request_cancel(&self, addr: SocketAddr, (pid, key): &(u32, Vec<u8>)) {
        let request = async {
            let mut wire = Wire::connect(addr).await?;
            wire.send(&cancel_request(*pid, key)).await?;
            wire.rest().await
        };
        match request.await {
            Ok(said) if said.is_empty() => {}
            other => self.ledger().wrong(&format!("{}: a request to cancel led to {other:?}", self.name)),
        }
    }
}

/// A row that anybody can work out from its number.
fn line(g: usize) -> String {
    let letter = char::from(b"abcdefghijklmnopqrstuvwxyz"[g % 26]);
    std::iter::repeat_n(letter, 1 + g * 7919 % 1499).collect()
}

/// The same for the server.
fn line_in_sql(g: &str) -> String {
    format!("repeat(chr(97 + ({g} % 26)::int), 1 + ({g}::bigint * 7919 % 1499)::int)")
}
