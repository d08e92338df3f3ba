//! Workers that read from and write to a database, on a session that they keep.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_postgres::Config;
use tokio_util::task::TaskTracker;

use crate::ledger::{Begun, Kind, Source};
use crate::run::Book;
use crate::session::{Session, Trouble};

const READ: &str = "select current_setting('cluster_name') as name, host(inet_server_addr()) as address, \
                    pg_is_in_recovery() as standby, (select count(*) from pg_database) as databases";
const TABLE: &str = "create table if not exists load_writes (writer int, n bigint, primary key (writer, n))";
/// Before another login after one that was refused.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What the workers of a stream have in common.
pub(crate) struct Database {
    config: Config,
    tasks: TaskTracker,
    timeout: Duration,
    /// Reads on a session; 0: any number.
    fresh_every: u32,
    /// Whether the table for writes has been made. Locked while it is: by the first worker, the others wait.
    table: Mutex<bool>,
}

impl Database {
    pub(crate) fn new(config: Config, tasks: TaskTracker, timeout: Duration, fresh_every: u32) -> Self {
        Self { config, tasks, timeout, fresh_every, table: Mutex::new(false) }
    }
}

struct Worker {
    book: Arc<Book>,
    database: Arc<Database>,
    kind: Kind,
    session: Option<Session>,
}

pub(crate) async fn read(book: Arc<Book>, database: Arc<Database>) {
    // Sessions that all end at once would be a burst of logins.
    let mut left = fastrand::u32(0..=database.fresh_every);
    let mut worker = Worker { book, database, kind: Kind::Read, session: None };
    while worker.book.goes_on() {
        if worker.database.fresh_every > 0 {
            if left == 0 {
                worker.session.take().map(Session::part).unwrap_or_default();
                left = worker.database.fresh_every;
            }
            left -= 1;
        }
        worker.ask(READ).await;
        worker.book.pause().await;
    }
    worker.session.map(Session::part).unwrap_or_default();
}

pub(crate) async fn write(book: Arc<Book>, database: Arc<Database>, writer: u32) {
    // The table may hold what an earlier run has written.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut n = since.as_micros();
    let mut worker = Worker { book, database, kind: Kind::Write, session: None };
    while worker.book.goes_on() {
        // One statement, so that the server that answers is the one that has written. Done again it writes nothing
        // that is there already.
        let sql = format!(
            "with written as (insert into load_writes values ({writer}, {n}) on conflict do nothing) \
             select current_setting('cluster_name') as name, host(inet_server_addr()) as address, \
             pg_is_in_recovery() as standby"
        );
        worker.ask(&sql).await;
        n += 1;
        worker.book.pause().await;
    }
    worker.session.map(Session::part).unwrap_or_default();
}

impl Worker {
    /// Asks until there is an answer, for as long as the timeout allows.
    async fn ask(&mut self, sql: &str) {
        let begun = self.book.begin(self.kind);
        let deadline = Instant::now() + self.database.timeout;
        match self.answer(sql, begun, deadline).await {
            Ok(source) => self.book.good(begun, &source),
            Err(text) => {
                self.session = None;
                self.book.failed(begun, None, &text);
            }
        }
    }

    async fn answer(&mut self, sql: &str, begun: Begun, deadline: Instant) -> Result<Source, String> {
        loop {
            let (text, refused) = match self.attempt(sql, deadline).await {
                Ok(source) => return Ok(source),
                Err(Trouble::Gone { text, refused }) => (text, refused),
                Err(Trouble::NoTable) => {
                    *self.database.table.lock().await = false;
                    ("the table is not there".to_owned(), false)
                }
                Err(Trouble::Other(text)) => return Err(text),
            };
            self.session = None;
            let wait = if refused { BACK_OFF } else { Duration::ZERO };
            if Instant::now() + wait >= deadline {
                return Err(format!("not within {:?}; at last: {text}", self.database.timeout));
            }
            self.book.again(begun, &text, refused);
            sleep(wait).await;
        }
    }

    async fn attempt(&mut self, sql: &str, deadline: Instant) -> Result<Source, Trouble> {
        let (database, kind) = (&self.database, self.kind);
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&database.config, kind, &database.tasks, deadline).await?,
        };
        let session = self.session.insert(session);
        if kind == Kind::Write {
            let mut made = database.table.lock().await;
            if !*made {
                session.send(TABLE, kind, deadline).await?;
                *made = true;
            }
        }
        session.ask(sql, kind, deadline).await
    }
}
