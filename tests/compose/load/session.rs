//! One session with a database, and which of its ends are no fault of what was asked.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::ledger::{Kind, Source};

/// A server that says nothing for so long has gone, or its machine has.
const SILENCE: Duration = Duration::from_secs(2);

pub(crate) struct Session {
    client: Client,
    driver: AbortOnDropHandle<()>,
}

/// Why there is no answer.
pub(crate) enum Trouble {
    /// The server went away; a fresh session may do better. `refused`: there was no session yet.
    Gone {
        text: String,
        refused: bool,
    },
    /// The table is not there.
    NoTable,
    Other(String),
}

impl Session {
    pub(crate) async fn open(
        config: &Config,
        kind: Kind,
        tasks: &TaskTracker,
        deadline: Instant,
    ) -> Result<Self, Trouble> {
        let login = timeout_at(deadline, config.connect(NoTls)).await;
        let gone = || Trouble::Gone { text: "login: no end of it in time".to_owned(), refused: true };
        let (client, connection) = login.map_err(|_| gone())?.map_err(|error| trouble(&error, kind, true))?;
        // How it ends is told to what was asked on it.
        let driver = tasks.spawn(async move { drop(connection.await) });
        Ok(Self { client, driver: AbortOnDropHandle::new(driver) })
    }

    /// Sends `sql` and returns its only row: name and address of the server, and whether it is a standby.
    pub(crate) async fn ask(&self, sql: &str, kind: Kind, deadline: Instant) -> Result<Source, Trouble> {
        let messages = self.send(sql, kind, deadline).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let Some(row) = row else { return Err(Trouble::Other("an answer without a row".to_owned())) };
        let field = |name| row.try_get(name).ok().flatten().filter(|text: &&str| !text.is_empty());
        let database = field("name").or_else(|| field("address")).unwrap_or("-").to_owned();
        let standby = field("standby").map(|text| text == "t");
        Ok(Source { database: Some(database), standby, ..Source::default() })
    }

    /// Sends `sql`, which need not have an answer with rows.
    pub(crate) async fn send(
        &self,
        sql: &str,
        kind: Kind,
        deadline: Instant,
    ) -> Result<Vec<SimpleQueryMessage>, Trouble> {
        let patience = SILENCE.min(deadline.saturating_duration_since(Instant::now()));
        let answer = timeout(patience, self.client.simple_query(sql)).await;
        let silent = || Trouble::Gone { text: format!("no answer within {patience:.1?}"), refused: false };
        answer.map_err(|_| silent())?.map_err(|error| trouble(&error, kind, false))
    }

    /// Ends it as a good client does; its server is told.
    pub(crate) fn part(self) {
        drop(self.driver.detach());
    }
}

fn trouble(error: &tokio_postgres::Error, kind: Kind, refused: bool) -> Trouble {
    let text = if refused { format!("login: {}", told(error)) } else { told(error) };
    match error.code() {
        Some(code) if *code == SqlState::UNDEFINED_TABLE && kind == Kind::Write => Trouble::NoTable,
        Some(code) if is_of_the_server(code, kind) => Trouble::Gone { text, refused },
        None if error.is_closed() || of_transport(error) => Trouble::Gone { text, refused },
        _ => Trouble::Other(text),
    }
}

/// Whether `code` says that the server, not the statement, is the trouble.
fn is_of_the_server(code: &SqlState, kind: Kind) -> bool {
    let gone = ["57P01", "57P02", "57P03"].contains(&code.code()) || code.code().starts_with("08");
    // A write meets a primary that has become a standby, one that is full, and others that make the same table.
    let of_write = ["25006", "53300", "23505", "42P07"].contains(&code.code());
    gone || kind == Kind::Write && of_write
}

fn of_transport(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<io::Error>)
}

fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(fault), _) => format!("{} {}", fault.code().code(), fault.message()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_the_server;
    use crate::ledger::Kind;
    use tokio_postgres::error::SqlState;

    #[test]
    fn ends_of_servers_are_told_from_faults() {
        let judge = |code: &str, kind| is_of_the_server(&SqlState::from_code(code), kind);
        for code in ["57P01", "57P02", "57P03", "08006"] {
            assert!(judge(code, Kind::Read) && judge(code, Kind::Write), "{code}");
        }
        for code in ["25006", "53300"] {
            assert!(!judge(code, Kind::Read) && judge(code, Kind::Write), "{code}");
        }
        for code in ["28P01", "42601", "57014"] {
            assert!(!judge(code, Kind::Read) && !judge(code, Kind::Write), "{code}");
        }
    }
}
