//! What can go wrong with one try, and what to do about it.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Why one try gave no rows.
#[derive(Debug)]
pub(crate) enum Failure {
    /// All connections were busy for as long as the request could wait.
    Exhausted,
    /// No connection. Without an error it took too long.
    Connect(Option<Error>),
    /// No answer. Without an error it took too long.
    Query(Option<Error>),
    /// The rows are not those that were asked for: the table is another one.
    Rows(Error),
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// The server is gone or wants us gone. The other connections that are open probably lead to it as well; a new
    /// one leads to a server that lives.
    Elsewhere,
    /// This one connection or attempt is lost; a new one may do better.
    Again,
    /// It would end the same way.
    GiveUp,
}

impl Failure {
    pub(super) fn advice(&self) -> Advice {
        match self {
            Self::Exhausted | Self::Rows(_) => Advice::GiveUp,
            // That no new connection is to be had says nothing about those that are open.
            Self::Connect(None) => Advice::Again,
            Self::Connect(Some(error)) => match of_error(error) {
                Advice::Elsewhere => Advice::Again,
                advice => advice,
            },
            // A living server gives up before this side does (see `statement_timeout`), so this one is frozen.
            Self::Query(None) => Advice::Elsewhere,
            Self::Query(Some(error)) => of_error(error),
        }
    }

    /// One word for the log.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Exhausted => "pool_exhausted",
            Self::Connect(None) => "connect_timeout",
            Self::Connect(Some(_)) => "connect",
            Self::Query(None) => "query_timeout",
            Self::Query(Some(_)) => "query",
            Self::Rows(_) => "rows",
        }
    }

    /// The database's own code.
    pub(super) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Connect(Some(error)) | Self::Query(Some(error)) => error.code().map(SqlState::code),
            _ => None,
        }
    }
}

fn of_error(error: &Error) -> Advice {
    // Without a code the connection itself failed: closed, reset, refused, or not PostgreSQL.
    error.code().map_or(Advice::Elsewhere, |code| of_code(code.code()))
}

fn of_code(code: &str) -> Advice {
    match code {
        // Too many connections.
        "53300" => Advice::Elsewhere,
        // A conflict with recovery, which ends single queries on a standby, and a deadlock; or cancelled, by the time
        // limit that this service asks for. The server lives, and the other connections are as good as before.
        "40001" | "40P01" | "57014" => Advice::Again,
        // Connection exceptions, and shutdowns of every kind.
        _ if code.starts_with("08") || code.starts_with("57P") => Advice::Elsewhere,
        _ => Advice::GiveUp,
    }
}

/// For the log alone: it may hold what the database says.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Exhausted => return f.write_str("all connections are busy"),
            Self::Connect(None) => return f.write_str("no connection in time"),
            Self::Query(None) => return f.write_str("no answer in time"),
            Self::Connect(Some(error)) | Self::Query(Some(error)) | Self::Rows(error) => error,
        };
        if let Some(database) = error.as_db_error() {
            return write!(f, "{}: {}", database.severity(), database.message());
        }
        write!(f, "{error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_codes_mean() {
        for code in ["57P01", "57P02", "57P03", "57P05", "08006", "08000", "53300"] {
            assert_eq!(of_code(code), Advice::Elsewhere, "{code}");
        }
        for code in ["57014", "40001", "40P01"] {
            assert_eq!(of_code(code), Advice::Again, "{code}");
        }
        for code in ["42P01", "42501", "28P01", "3D000", "22021", "53100"] {
            assert_eq!(of_code(code), Advice::GiveUp, "{code}");
        }
    }
}
