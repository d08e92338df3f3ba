//! Why something is not answered, or not done: every reason there is, with its words, what to do about it, and its status.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use serde::Serialize;

use super::reply::{Answer, json, text};
use super::upgrade::NotNow;
use crate::base::id::SessionId;
use crate::topology::order::OrderError;

const UNSET: &str = "set admin.token_file (or admin.token, or PGSPLIT_ADMIN_TOKEN), or ask over admin.socket";
const MISSING: &str = "send the token as `Authorization: Bearer TOKEN`, or give it to the command line by --token-file or \
                       PGSPLIT_ADMIN_TOKEN";
const PAGES: &str = "there are /, /metrics, /healthz, /readyz and /api/v1/status";
const CHANGES: &str =
    "a JSON object with `admin` (ready, drain or maint) and `weight` (0 to 256, or null: that of the file)";

/// Why something is not answered, or not done. Nothing that came from anywhere is said again, but for what is escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name that the request was sent to could lead elsewhere.
    #[error("the Host of this request is not a name of this pgsplit")]
    Host,
    /// A browser sent it for a page that is not ours.
    #[error("no page of another origin may change anything here")]
    Origin,
    /// There is no token, so nobody has it.
    #[error("nobody may change anything here")]
    NoToken,
    /// It came without the token.
    #[error("only with the token")]
    TokenMissing,
    /// It came with another one.
    #[error("this is not the token that pgsplit has")]
    TokenWrong,
    /// The configuration that is in force has no admin server any more.
    #[error("admin is off")]
    Off,
    /// There is no such path.
    #[error("no such page")]
    NoPage {
        /// Whether it was asked of the API.
        is_api: bool,
    },
    /// There is, and something else can be done there.
    #[error("only {} here", .allow.replace(", ", " and "))]
    Method {
        /// What, for the header of that name.
        allow: String,
    },
    /// A parameter that was meant to say something, and says nothing here.
    #[error("a parameter that is not known")]
    Parameter {
        /// Those there are.
        known: String,
    },
    /// Which of the two counts?
    #[error("{name} stands there twice")]
    Twice {
        /// A parameter.
        name: String,
    },
    /// A parameter's value cannot be read.
    #[error("{name} is not {what}")]
    Value {
        /// The parameter.
        name: String,
        /// What it should be.
        what: String,
    },
    /// Not what a session is called.
    #[error("that is not the id of a session")]
    SessionId,
    /// No session is called so, or none any more.
    #[error("no session {0}")]
    NoSession(SessionId),
    /// Sessions are to be ended, and nothing says which.
    #[error("that would end all sessions")]
    AllSessions {
        /// By what they can be chosen.
        filters: String,
    },
    /// More than any change takes.
    #[error("the body has more than {most} bytes")]
    BodyTooLarge {
        /// In bytes.
        most: usize,
    },
    /// A change that is no JSON object.
    #[error("the body is not a JSON object")]
    NoObject,
    /// A change of something that there is not.
    #[error("unknown key `{0}`")]
    Key(String),
    /// A state that there is not.
    #[error("`admin` is not ready, drain or maint")]
    AdminState,
    /// A weight that cannot be.
    #[error("`weight` is not a whole number from 0 to 256")]
    Weight,
    /// A change that changes nothing.
    #[error("nothing to change")]
    NoChange,
    /// The node's keeper does not do it.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// No listener has that name.
    #[error("no such listener")]
    NoListener {
        /// Which there are.
        there_are: String,
    },
    /// An HTTP front has it.
    #[error("that is an HTTP front, and only listeners can be paused")]
    Front {
        /// Which listeners there are.
        there_are: String,
    },
    /// As many follow as may.
    #[error("{0} follow already, and no more may at a time")]
    Followers(usize),
    /// No configuration is loaded any more.
    #[error("pgsplit is stopping")]
    Stopping,
    /// There is no file to load again.
    #[error("pgsplit was started with {0}, so there is no file to load again")]
    NoFile(String),
    /// What is wrong with the file, one line for each fault.
    #[error("{}", count_or_only(.0))]
    Faults(Vec<String>),
    /// No upgrade is begun.
    #[error(transparent)]
    Upgrade(#[from] NotNow),
    /// What is changed here now would not be so there.
    #[error("another process is taking this one's place")]
    Replaced,
    /// No other process took this one's place: why.
    #[error("{0}")]
    UpgradeFailed(String),
}

/// A refusal as JSON.
#[derive(Serialize)]
struct Told<'a> {
    error: String,
    hint: Cow<'static, str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    faults: &'a [String],
}

impl Refusal {
    /// What to do about it; empty: the error says it.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Host => "ask by its address, or write the name to admin.hosts",
            Self::NoToken => UNSET,
            Self::TokenMissing => MISSING,
            Self::NoPage { is_api: true } => "/api/v1/openapi.json names all there are",
            Self::NoPage { is_api: false } => PAGES,
            Self::Parameter { known } => return Cow::Owned(known.clone()),
            Self::SessionId => "it looks like s-1f3a9",
            Self::NoSession(_) => "it has ended, or was never here",
            Self::AllSessions { filters } => {
                return Cow::Owned(format!("say which by one or more of {filters}"));
            }
            Self::NoObject | Self::Key(_) | Self::AdminState | Self::Weight | Self::NoChange => CHANGES,
            Self::NoListener { there_are } => return Cow::Owned(there_are.clone()),
            Self::Front { there_are } => return Cow::Owned(format!("of these {there_are}")),
            Self::Followers(_) => {
                "close a page or a command that follows, or ask again and again without follow"
            }
            Self::Stopping => "start it again: it reads the file then",
            Self::NoFile(_) => "start it again with other flags, or with a file",
            Self::Faults(_) => "nothing has changed: mend the file and reload again",
            Self::Upgrade(NotNow::UnderWay) => "ask again when it is over",
            Self::Upgrade(NotNow::Stopping) => "start it again: it is the new one then",
            Self::Replaced => "ask again, by another connection: the new process answers there",
            Self::UpgradeFailed(_) => "this process goes on as before; its log may say more",
            Self::Origin
            | Self::TokenWrong
            | Self::Off
            | Self::Method { .. }
            | Self::Twice { .. }
            | Self::Value { .. }
            | Self::BodyTooLarge { .. }
            | Self::Order(_) => "",
        })
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::NoToken => StatusCode::FORBIDDEN,
            Self::TokenMissing | Self::TokenWrong => StatusCode::UNAUTHORIZED,
            Self::NoPage { .. }
            | Self::NoSession(_)
            | Self::NoListener { .. }
            | Self::Front { .. }
            | Self::Order(OrderError::Unknown { .. }) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter { .. }
            | Self::Twice { .. }
            | Self::Value { .. }
            | Self::SessionId
            | Self::AllSessions { .. }
            | Self::NoObject
            | Self::Key(_)
            | Self::AdminState
            | Self::Weight
            | Self::NoChange
            | Self::Order(OrderError::Weight) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoFile(_) | Self::Upgrade(NotNow::UnderWay) | Self::Replaced => StatusCode::CONFLICT,
            Self::Faults(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UpgradeFailed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Off
            | Self::Followers(_)
            | Self::Stopping
            | Self::Order(OrderError::Over(_))
            | Self::Upgrade(NotNow::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How to prove who one is, where that is what lacks.
    const fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::TokenMissing => Some("Bearer realm=\"pgsplit\""),
            Self::TokenWrong => Some("Bearer realm=\"pgsplit\", error=\"invalid_token\""),
            _ => None,
        }
    }

    /// As JSON in the API, and in words elsewhere.
    pub(super) fn answer(&self, is_api: bool) -> Answer {
        let (error, hint) = (self.to_string(), self.hint());
        let mut answer = if is_api {
            let faults = if let Self::Faults(faults) = self { faults.as_slice() } else { &[] };
            json(self.status(), &Told { error, hint, faults })
        } else {
            let rest = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            text(self.status(), format!("{error}{rest}\n"))
        };
        let headers = answer.headers_mut();
        if let Some(how) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(how));
        }
        if let Self::Method { allow } = self
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            headers.insert(ALLOW, allow);
        }
        answer
    }
}

fn count_or_only(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        _ => format!("{} faults in the configuration", faults.len()),
    }
}
