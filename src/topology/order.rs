//! What people on call want of a node: whether it is used, and how much. Beside its health and its role, which are seen.

use tokio::sync::{mpsc, oneshot};

use crate::topology::Node;

/// The heaviest that a node can be; as in the file.
pub const WEIGHT_MOST: u16 = 256;

/// Whether a node is used; `HAProxy`'s words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// It is used as its health and role allow.
    #[default]
    Ready,
    /// It gets no new sessions, and those it has are told to leave it. It is checked as before.
    Drain,
    /// The same, and it is not checked: nobody minds what becomes of it.
    Maint,
}

impl AdminState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// The word for status, log and orders.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// How heavy a node is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weigh {
    /// So much, 0 to [`WEIGHT_MOST`], until the file has another weight for it than it had.
    By(u16),
    /// As much as the file says.
    AsWritten,
}

/// What is wanted of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its state from now on; `None`: as it is.
    pub admin: Option<AdminState>,
    /// Its weight from now on; `None`: as it is.
    pub weight: Option<Weigh>,
    /// Who asks.
    pub by: By,
}

/// Who asks for something, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The way it came: `cli`, `dashboard`, `api`, `upgrade`.
    pub way: &'static str,
    /// From where: the client's address.
    pub client: String,
}

/// What has become of an order.
#[derive(Clone, Debug)]
pub struct Done {
    /// The node as it is now.
    pub node: Node,
    /// What that means for sessions, where it is not what one might think; each a sentence.
    pub notes: Vec<String>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no node of that name. It came from anywhere, and is not repeated.
    #[error("no such node; {}", there_are(known))]
    Unknown {
        /// The names of all there are.
        known: Vec<String>,
    },
    /// A weight that cannot be.
    #[error("a weight is 0 to {WEIGHT_MOST}")]
    Weight,
    /// Nobody is left to carry it out.
    #[error(transparent)]
    Over(#[from] Over),
}

/// Nobody looks after these nodes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nobody looks after these nodes any more: pgsplit is stopping, or they have been taken out of the file"
)]
pub struct Over;

/// What the keeper is asked, and where it answers.
#[derive(Debug)]
pub(super) enum Ask {
    /// Something of one node, by its name.
    Node(String, Order, oneshot::Sender<Result<Done, OrderError>>),
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Ask>);

impl Orders {
    /// Where they are given and where they come.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, asked) = mpsc::channel(16);
        (Self(sender), asked)
    }

    /// For nodes that nobody keeps: all orders come too late.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::channel().0
    }

    /// Asks the keeper. Cancel safe; whether it is done then is not known.
    pub(super) async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Over> {
        let (answer, answered) = oneshot::channel();
        self.0.send(ask(answer)).await.map_err(|_| Over)?;
        answered.await.map_err(|_| Over)
    }
}

/// The names, for a person.
fn there_are(names: &[String]) -> String {
    match names {
        [] => "there are none".to_owned(),
        [only] => format!("there is {only}"),
        [others @ .., last] => format!("there are {} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_their_words() {
        for state in AdminState::ALL {
            assert_eq!(AdminState::from_word(state.as_str()), Some(state));
        }
        assert_eq!(AdminState::from_word("down"), None);
    }

    #[test]
    fn who_names_no_node_is_told_which_there_are() {
        let error = |names: &[&str]| {
            let known = names.iter().map(|&name| name.to_owned()).collect();
            OrderError::Unknown { known }.to_string()
        };
        assert_eq!(error(&[]), "no such node; there are none");
        assert_eq!(error(&["db1"]), "no such node; there is db1");
        assert_eq!(error(&["db", "db/2", "c"]), "no such node; there are db, db/2 and c");
    }

    #[tokio::test]
    async fn where_nobody_keeps_an_order_comes_too_late() {
        let order = Order { admin: None, weight: None, by: By { way: "api", client: String::new() } };
        let asked = Orders::nowhere().ask(|answer| Ask::Node("a".into(), order, answer)).await;
        assert_eq!(asked.unwrap_err(), Over);
    }
}
