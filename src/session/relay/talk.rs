//! What the two sides of a session last said: it tells who ends it, and whether the node waits for its client.

use serde::{Deserialize, Serialize};

use crate::pg::framing::Framing;

/// A client's `Terminate`. After it the server closes at once, often before the client's own end is here.
pub(super) const GOOD_BYE: &[u8] = b"X\0\0\0\x04";

/// The longest `close_notify` record: what a server says last to a client that took its leave under TLS 1.2; under
/// TLS 1.3 it is 24. An error of the server is longer, and one that died says nothing.
const CLOSE_NOTIFY_MAX: u64 = 31;

/// The longest `close_notify` record of a client under TLS 1.3, where it looks like data: shorter than any message of
/// it, which has five bytes and more (RFC 8446, section 5.2).
const CLOSE_NOTIFY_AS_DATA_MAX: usize = 24;

/// The content type of an alert, as TLS 1.2 shows it (RFC 5246, section 6.2.1).
const ALERT: u8 = 21;

/// What was last said, to tell who ends a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Talk {
    /// What is passed on can be read.
    pub(super) is_readable: bool,
    /// The last bytes of the client were a good-bye, if that could be read.
    said_good_bye: bool,
    /// They were all it had to say to a node that was waiting for a query.
    pub(super) left_idle_node: bool,
    /// Bytes of the node since the client's last.
    answered: u64,
    /// Where the node's messages begin and end.
    pub(super) framing: Framing,
}

impl Talk {
    /// What can be read, after the node has said this.
    pub(super) fn new(by_node: &[u8]) -> Self {
        let mut talk = Self { is_readable: true, ..Self::default() };
        talk.framing.follow(by_node);
        talk
    }

    /// Takes what the node says.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.answered += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.is_readable {
            self.framing.follow(bytes);
        }
    }

    /// Takes what the client says.
    pub(super) fn hear_client(&mut self, bytes: &[u8]) {
        self.said_good_bye = bytes.ends_with(GOOD_BYE);
        self.left_idle_node = bytes == GOOD_BYE && self.framing.is_idle();
        // The node may have answered the good-bye before the client's own `close_notify`, that follows it, is here.
        if self.is_readable || !is_close_notify(bytes) {
            self.answered = 0;
        }
        self.framing.ask();
    }

    /// Whether the node closes because the client told it to; it does so at once, often before the client's own end
    /// is here. Through TLS all that shows is that the node's whole answer was a `close_notify`.
    pub(super) const fn client_took_leave(&self) -> bool {
        if self.is_readable {
            self.said_good_bye
        } else {
            0 < self.answered && self.answered <= CLOSE_NOTIFY_MAX
        }
    }
}

/// Whether encrypted bytes of a client are no more than its last word.
fn is_close_notify(bytes: &[u8]) -> bool {
    bytes.len() <= CLOSE_NOTIFY_AS_DATA_MAX || bytes.first() == Some(&ALERT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said through TLS, by length: `>` the client's, `<` the node's, and whether the client took its leave.
    #[test]
    fn who_ends_what_is_encrypted_is_told_by_lengths() {
        let (good_bye, notify, ready) = (27, 24, 28);
        for (said, is_client) in [
            (&[('>', good_bye), ('>', notify), ('<', notify)][..], true),
            (&[('>', good_bye + notify), ('<', notify)], true),
            (&[('>', good_bye), ('<', notify), ('>', notify)], true),
            (&[('>', good_bye), ('>', notify)], false),
            // An error of a server that was told to end the session.
            (&[('>', 60), ('<', ready), ('<', 120)], false),
            (&[('>', 60), ('<', ready), ('<', 120), ('>', notify)], false),
            (&[('>', 60)], false),
        ] {
            let mut talk = Talk::default();
            for (side, length) in said {
                let bytes = vec![23; *length];
                if *side == '>' { talk.hear_client(&bytes) } else { talk.hear(&bytes) }
            }
            assert_eq!(talk.client_took_leave(), is_client, "{said:?}");
        }
        let mut talk = Talk::default();
        talk.hear_client(&[23; 34]);
        talk.hear(&[ALERT; 31]);
        talk.hear_client(&[ALERT; 31]);
        assert!(talk.client_took_leave(), "TLS 1.2");
    }
}
