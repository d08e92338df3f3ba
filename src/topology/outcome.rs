//! What real sessions meet on their way to a node, told to the keeper at once: a broken node need not wait for
//! its next check to be found out.

use tokio::sync::mpsc;

use crate::base::id::NodeId;

/// What a session met.
#[derive(Clone, Debug)]
pub enum Met {
    /// No connection, or a reset.
    Failure(String),
    /// A connection and then nothing. Counts for nothing by itself, as a busy server is slow too, but asks for a
    /// check at once.
    Silence,
    /// Refused with 57P03: starting up, shutting down.
    NotNow(String),
    /// Refused with 53300.
    Full(String),
    /// The server told a client that logged in what it is.
    Role {
        /// `in_hot_standby`.
        in_recovery: bool,
    },
}

/// Where sessions tell what they met.
#[derive(Clone, Debug)]
pub struct Outcomes(mpsc::Sender<(NodeId, Met)>);

impl Outcomes {
    /// A sender and its receiving end.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<(NodeId, Met)>) {
        let (sender, receiver) = mpsc::channel(1024);
        (Self(sender), receiver)
    }

    /// Tells the keeper; never waits. What does not fit is lost, as a flood of the same news may be.
    pub fn tell(&self, node: NodeId, met: Met) {
        let _ = self.0.try_send((node, met));
    }
}
