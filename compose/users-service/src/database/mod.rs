//! The database behind the load balancer: asked until it answers or time is over.
//!
//! The balancer leads each *new* connection to a server that lives, so a lost connection is replaced and the query
//! sent again. That is harmless, for every query here only reads.

mod failure;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::BuildError;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};

use crate::log::Log;
use crate::settings::Settings;
use failure::Advice;
pub(crate) use failure::Failure;
use pool::Connections;

/// A value of a query and its type: with it, the server need not be asked for the type first.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Before another try, in milliseconds; the last goes on. The first is short, for usually a new connection is all
/// that is needed.
const PAUSES: [u64; 4] = [10, 50, 100, 250];

/// The service's database.
#[derive(Debug)]
pub(crate) struct Database {
    connections: Connections,
    query_timeout: Duration,
    addr: String,
    log: Arc<Log>,
}

impl Database {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: &Settings, log: Arc<Log>) -> Result<Self, BuildError> {
        let config = complete(settings);
        Ok(Self {
            connections: Connections::new(config, settings)?,
            query_timeout: settings.query_timeout,
            addr: settings.database_addr(),
            log,
        })
    }

    /// The rows of a query that only reads. Failures that a new connection can mend are not the caller's; the last
    /// one is, when `patience` is over.
    pub(crate) async fn read(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        patience: Duration,
    ) -> Result<Vec<Row>, Failure> {
        let deadline = Instant::now() + patience;
        let mut tries = 0;
        loop {
            let failure = match self.read_once(sql, parameters, deadline).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            let pause = PAUSES.get(tries).or(PAUSES.last()).copied().unwrap_or_default();
            tries += 1;
            let next = Instant::now() + Duration::from_millis(pause);
            let again = failure.advice() != Advice::GiveUp && next < deadline;
            self.note(&failure, tries, again);
            if !again {
                return Err(failure);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    async fn read_once(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let lease = self.connections.lease(deadline).await?;
        let generation = lease.generation;
        let limit = deadline.min(Instant::now() + self.query_timeout);
        let answer = lease.query(sql, parameters, limit).await;
        if answer.as_ref().is_err_and(|failure| failure.advice() == Advice::Elsewhere) {
            self.connections.retire(generation);
        }
        answer
    }

    /// Puts a failure into the log, with all that the client is not told.
    pub(crate) fn note(&self, failure: &Failure, tries: usize, again: bool) {
        self.log.failure(
            "database_failure",
            &[
                ("database", self.addr.as_str().into()),
                ("kind", failure.kind().into()),
                ("sqlstate", failure.sqlstate().into()),
                ("error", failure.to_string().into()),
                ("tries", tries.into()),
                ("again", again.into()),
            ],
        );
    }

    /// No query from now on, and no connection in the end.
    pub(crate) async fn close(&self) {
        self.connections.close().await;
    }
}

/// The configuration of a connection: what the URL says, and what this service needs of it.
fn complete(settings: &Settings) -> Config {
    let mut config = settings.database.clone();
    if config.get_application_name().is_none() {
        config.application_name(&settings.instance);
    }
    // The server gives up before this side does: so silence means a dead server, not a slow one, and a query whose
    // client has left goes on for no longer than this.
    let statement_timeout = settings.query_timeout.mul_f64(0.8).as_millis();
    let own = format!("-c statement_timeout={statement_timeout} -c default_transaction_read_only=on");
    config.options(config.get_options().map_or(own.clone(), |given| format!("{own} {given}")));
    // A peer that is gone without a word, while a connection is idle and while bytes are on their way.
    config
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(10));
    config
}
