//! What a client calls itself, as a log line has it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::text::{NAME_MAX, escaped};
use crate::pg::startup::Params;

/// What a client calls itself; escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The user.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The application.
    pub application: Option<String>,
}

impl Names {
    /// Those of a startup packet.
    #[must_use]
    pub fn of(params: &Params) -> Self {
        Self {
            user: name(&params.user),
            database: name(params.database_or_user()),
            application: name(&params.application_name),
        }
    }
}

/// A name that somebody else gave.
#[must_use]
pub fn name(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| escaped(bytes, NAME_MAX))
}

/// The names of the session before. Those of the next one are mostly the same, and then kept once: a service has many
/// sessions, and keeps them long.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Arc<Names>>);

impl Latest {
    /// These names, kept once if the session before had them.
    #[must_use]
    pub fn share(&self, names: Names) -> Arc<Names> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if **latest != names {
            *latest = Arc::new(names);
        }
        Arc::clone(&latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_are_kept_once() {
        let latest = Latest::default();
        let names = |user: &str| Names { user: name(user.as_bytes()), ..Names::default() };
        let (first, second) = (latest.share(names("a")), latest.share(names("a")));
        let (third, fourth) = (latest.share(names("b")), latest.share(names("a")));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((third.user.as_deref(), fourth.user.as_deref()), (Some("b"), Some("a")));
    }
}
