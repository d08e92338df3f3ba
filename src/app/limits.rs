//! How many descriptors the process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for checks, admin, cancels, logs and listeners.
const RESERVE: u64 = 64;

/// Raises the soft limit of open files to the hard one, and says what cannot be held with it: a session takes
/// two.
#[must_use]
pub fn raise_open_files(sessions: u64) -> Option<String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current }?;
    let room = limit.saturating_sub(RESERVE) / 2;
    (room < sessions).then(|| {
        format!("open files limit {limit} allows about {room} sessions; {sessions} are configured. Set LimitNOFILE=")
    })
}
