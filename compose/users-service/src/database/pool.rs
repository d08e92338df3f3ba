//! Connections: made, judged before each use, never used again after a query that did not end well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    BuildError, Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use tokio::time::Instant;
use tokio_postgres::{Client, Config, Error, NoTls, Row};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::Parameter;
use super::failure::{Advice, Failure};
use crate::settings::Settings;

/// Which connections are too old to be used: those made before a server was found gone.
#[derive(Debug, Default)]
struct Generation(AtomicU64);

impl Generation {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Ends the generation `seen`. Of several that find the same server gone, one does; what was made since stays.
    fn end(&self, seen: u64) -> bool {
        self.0.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Makes connections, for the pool.
#[derive(Debug)]
pub(super) struct Maker {
    config: Config,
    age: Duration,
    generation: Arc<Generation>,
    drivers: TaskTracker,
}

/// A connection, and the task that moves its bytes.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    generation: u64,
    until: Instant,
    /// A query was sent and has not ended well: nobody knows what comes out of this connection next.
    unsettled: bool,
    driver: Option<AbortOnDropHandle<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The driver of a good connection says goodbye and ends by itself. That of a bad one would wait for its
        // answer as long as the silent server lets it: it ends with this handle.
        if !self.unsettled
            && let Some(driver) = self.driver.take()
        {
            drop(driver.detach());
        }
    }
}

impl Manager for Maker {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        let generation = self.generation.now();
        let (client, connection) = self.config.connect(NoTls).await?;
        // What goes wrong here is told to whoever waits for an answer; while nobody waits, `recycle` sees it.
        let driver = self.drivers.spawn(async { drop(connection.await) });
        // Not all at once: connections made in the same moment would end in the same moment.
        let age = self.age.mul_f64(0.8 + 0.2 * fastrand::f64());
        Ok(Connection {
            client,
            generation,
            until: Instant::now() + age,
            unsettled: false,
            driver: Some(AbortOnDropHandle::new(driver)),
        })
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        let fresh = connection.generation == self.generation.now() && Instant::now() < connection.until;
        if fresh && !connection.client.is_closed() {
            return Ok(());
        }
        Err(RecycleError::message("closed or too old"))
    }
}

/// Some connections to one place.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: Pool<Maker>,
    connect_timeout: Duration,
    generation: Arc<Generation>,
    drivers: TaskTracker,
}

impl Connections {
    pub(super) fn new(config: Config, settings: &Settings) -> Result<Self, BuildError> {
        let generation = Arc::new(Generation::default());
        let drivers = TaskTracker::new();
        let maker = Maker {
            config,
            age: settings.connection_age,
            generation: Arc::clone(&generation),
            drivers: drivers.clone(),
        };
        let pool = Pool::builder(maker).max_size(settings.pool_size).runtime(Runtime::Tokio1).build()?;
        Ok(Self { pool, connect_timeout: settings.connect_timeout, generation, drivers })
    }

    /// A connection, old or new, before `deadline`.
    pub(super) async fn lease(&self, deadline: Instant) -> Result<Lease, Failure> {
        // The wait for its turn ends a little earlier than the whole: so it is known which of both took the time.
        let wait = deadline.saturating_duration_since(Instant::now() + Duration::from_millis(5));
        let timeouts = Timeouts { wait: Some(wait), create: Some(self.connect_timeout), recycle: None };
        match tokio::time::timeout_at(deadline, self.pool.timeout_get(&timeouts)).await {
            Ok(Ok(object)) => Ok(Lease { generation: object.generation, object: Some(object) }),
            Ok(Err(PoolError::Backend(error))) => Err(Failure::Connect(Some(error))),
            Ok(Err(PoolError::Timeout(TimeoutType::Create))) | Err(_) => Err(Failure::Connect(None)),
            Ok(Err(_)) => Err(Failure::Exhausted),
        }
    }

    /// Closes all idle connections of the generation that `lease` is of, and lets none of those in use come back.
    pub(super) fn retire(&self, generation: u64) {
        if self.generation.end(generation) {
            drop(self.pool.retain(|connection, _| connection.generation > generation));
        }
    }

    /// No connection from now on; those that are idle say goodbye.
    pub(super) async fn close(&self) {
        self.pool.close();
        self.drivers.close();
        self.drivers.wait().await;
    }
}

/// A connection in use. Dropped in the middle of a query, because time is over or the client has left, it does not
/// go back to the pool.
#[derive(Debug)]
pub(super) struct Lease {
    /// Of the connection.
    pub(super) generation: u64,
    /// Always there until this value is dropped.
    object: Option<Object<Maker>>,
}

impl Lease {
    /// One query, in one round trip: no statement is prepared that only this connection would know.
    pub(super) async fn query(
        mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let Some(connection) = self.object.as_deref_mut() else { return Err(Failure::Exhausted) };
        connection.unsettled = true;
        let answer =
            match tokio::time::timeout_at(deadline, connection.client.query_typed(sql, parameters)).await {
                Ok(answer) => answer.map_err(|error| Failure::Query(Some(error))),
                Err(_) => Err(Failure::Query(None)),
            };
        // A plain refusal leaves the connection as good as an answer does.
        connection.unsettled = answer.as_ref().is_err_and(|failure| failure.advice() != Advice::GiveUp);
        answer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.object.take_if(|object| object.unsettled) {
            drop(Object::take(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_find_a_server_gone_one_ends_the_generation() {
        let generation = Generation::default();
        let seen = generation.now();
        assert!(generation.end(seen));
        assert!(!generation.end(seen), "a late finder must not end what was made since");
        assert_eq!(generation.now(), seen + 1);
    }
}
