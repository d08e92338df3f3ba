//! The limit of open descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Those that are no connections: standard streams, the runtime's own, the report.
const OTHERS: u64 = 32;

/// Makes room for `connections`.
pub(crate) fn make_room(connections: u32) -> Result<(), String> {
    let wanted = u64::from(connections) + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(hard) = maximum.filter(|&hard| hard < wanted) {
        return Err(format!(
            "{connections} connections need {wanted} descriptors, but this process may have {hard} at most; \
             raise the hard limit (as root `ulimit -Hn {wanted}`) or lower --concurrency"
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum.or(Some(wanted)), maximum })
        .map_err(|error| format!("the limit of descriptors cannot be raised to {wanted}: {error}"))
}
