//! What is read: users.
//!
//! The table is made elsewhere:
//!
//! ```sql
//! CREATE TABLE users (
//!     id bigint generated always as identity primary key,
//!     name text not null,
//!     email text not null unique,
//!     created_at timestamptz not null default now()
//! );
//! ```
//!
//! Each query also says which server answered, in the same round trip: a second query could go to another one.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use crate::database::{Database, Failure};

/// A macro, because the pieces of a query must be one literal.
macro_rules! with_origin {
    ($users:literal) => {
        concat!(
            "SELECT nullif(current_setting('cluster_name'), '') AS server_name, ",
            "host(inet_server_addr()) AS server_address, pg_is_in_recovery() AS in_recovery, u.* ",
            // A row even when there is no user: then its id is null.
            "FROM (SELECT) AS server LEFT JOIN (",
            "SELECT id, name, email, ",
            "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS created_at ",
            "FROM users WHERE ",
            $users,
            ") AS u ON true ORDER BY u.id"
        )
    };
}

const ONE: &str = with_origin!("id = $1");
const PAGE: &str = with_origin!("id > $1 ORDER BY id LIMIT $2");
const SEARCH: &str = with_origin!("id > $1 AND (name ILIKE $3 OR email ILIKE $3) ORDER BY id LIMIT $2");
const NONE: &str = with_origin!("false");

/// A row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    name: String,
    email: String,
    /// RFC 3339, in UTC.
    created_at: String,
}

/// The server that answered.
#[derive(Debug, Serialize)]
pub(crate) struct Origin {
    name: Option<String>,
    address: Option<String>,
    in_recovery: bool,
}

/// Which users.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) limit: usize,
    /// Those with a greater id.
    pub(crate) after: i64,
    /// Those with this text in name or email.
    pub(crate) text: Option<String>,
}

/// Some users, and where the next ones begin.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) users: Vec<User>,
    /// `after` of the next page.
    pub(crate) next: Option<i64>,
    pub(crate) origin: Origin,
}

/// A page of users, by id.
pub(crate) async fn page(database: &Database, wanted: &Wanted, patience: Duration) -> Result<Page, Failure> {
    // One more than asked for tells whether there is a next page.
    let limit = i64::try_from(wanted.limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = match &wanted.text {
        None => database.read(PAGE, &[(&wanted.after, Type::INT8), (&limit, Type::INT8)], patience).await?,
        Some(text) => {
            let pattern = contains(text);
            let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
                [(&wanted.after, Type::INT8), (&limit, Type::INT8), (&pattern, Type::TEXT)];
            database.read(SEARCH, &parameters, patience).await?
        }
    };
    let (mut users, origin) = read(database, &rows)?;
    let more = users.len() > wanted.limit;
    users.truncate(wanted.limit);
    let next = users.last().filter(|_| more).map(|user| user.id);
    Ok(Page { users, next, origin })
}

/// One user, when there is one with this id.
pub(crate) async fn one(
    database: &Database,
    id: i64,
    patience: Duration,
) -> Result<(Option<User>, Origin), Failure> {
    let rows = database.read(ONE, &[(&id, Type::INT8)], patience).await?;
    let (mut users, origin) = read(database, &rows)?;
    Ok((users.pop(), origin))
}

/// Which server answers, and that one does.
pub(crate) async fn origin(database: &Database, patience: Duration) -> Result<Origin, Failure> {
    let rows = database.read(NONE, &[], patience).await?;
    Ok(read(database, &rows)?.1)
}

fn read(database: &Database, rows: &[Row]) -> Result<(Vec<User>, Origin), Failure> {
    decode(rows).map_err(|error| {
        let failure = Failure::Rows(error);
        database.note(&failure, 1, false);
        failure
    })
}

fn decode(rows: &[Row]) -> Result<(Vec<User>, Origin), Error> {
    let mut users = Vec::with_capacity(rows.len());
    let mut origin = Origin { name: None, address: None, in_recovery: false };
    for row in rows {
        origin = Origin {
            name: row.try_get("server_name")?,
            address: row.try_get("server_address")?,
            in_recovery: row.try_get("in_recovery")?,
        };
        if let Some(id) = row.try_get("id")? {
            users.push(User {
                id,
                name: row.try_get("name")?,
                email: row.try_get("email")?,
                created_at: row.try_get("created_at")?,
            });
        }
    }
    Ok((users, origin))
}

/// The pattern for texts that contain `text`, whose own `%` and `_` mean themselves.
fn contains(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn wildcards_of_the_text_are_plain_letters() {
        assert_eq!(contains("ann"), "%ann%");
        assert_eq!(contains(r"50%_\"), r"%50\%\_\\%");
    }
}
