//! What is the matter with a node, as far as it concerns the sessions that are on it: they stay through most of what
//! keeps new ones away.

use tokio::sync::watch;

/// What is the matter with a node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may be so at the same time")]
pub struct Trouble {
    /// It is down, its server did not even say no, and no session hears from it either.
    pub is_unreachable: bool,
    /// It is not the cluster's primary, or no longer: what is written there is refused, or lost.
    pub is_demoted: bool,
    /// It is further behind than allowed.
    pub is_lagging: bool,
    /// It is to be left: its name does not lead to its address any more.
    pub is_leaving: bool,
}

/// Where a node's sessions see what is the matter with it. They are woken only when it changes. Each of them begins
/// with the trouble that is there, so that none is missed.
pub type Troubles = watch::Receiver<Trouble>;
