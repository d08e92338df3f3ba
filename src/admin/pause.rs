//! A listener paused or resumed by hand, over `POST /api/v1/listeners/NAME/pause` and `…/resume`.
//!
//! Only who has the token may, and no page in a browser: it would act with what its reader can reach, not with what its
//! author may do.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use tracing::info;

use super::view::ListenerView;
use super::{Answer, json, text};
use crate::front::shared::Front;
use crate::session::shared::{Listener, Shared};

const UNSET: &str = "nobody may change anything here: set admin.token_file (or admin.token, or PGSPLIT_ADMIN_TOKEN), \
                     then reload or start pgsplit again\n";
const FOREIGN: &str = "no page in a browser may change anything here\n";
const MISSING: &str = "only with the token: send it as `Authorization: Bearer TOKEN`, or give it to `pgsplit pause` and \
                       `pgsplit resume` by --token-file or PGSPLIT_ADMIN_TOKEN\n";
const WRONG: &str = "this is not the token that pgsplit goes by\n";

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change<'p> {
    name: Cow<'p, str>,
    pause: bool,
}

impl<'p> Change<'p> {
    /// `None`: the path is another one.
    pub(super) fn of(path: &'p str) -> Option<Self> {
        let (name, verb) = path.strip_prefix("/api/v1/listeners/")?.rsplit_once('/')?;
        let pause = match verb {
            "pause" => true,
            "resume" => false,
            _ => return None,
        };
        Some(Self { name: percent_decode_str(name).decode_utf8_lossy(), pause })
    }

    /// Does it for who may ask for it. What is so already is no fault.
    pub(super) fn answer(
        &self,
        shared: &Shared,
        fronts: &[Arc<Front>],
        headers: &HeaderMap,
        client: SocketAddr,
    ) -> Answer {
        if let Err(refusal) = may_change(shared, headers) {
            return *refusal;
        }
        let setup = shared.setup();
        let Some(listener) = setup.listener(&self.name) else {
            return text(StatusCode::NOT_FOUND, self.unknown(&setup.listeners, fronts));
        };
        if listener.set_paused(self.pause) {
            let (name, (waiting, _)) = (listener.config.name.as_str(), listener.waiting());
            if self.pause {
                info!(listener = name, client = %client, waiting, "listener_paused");
            } else {
                info!(listener = name, client = %client, waiting, "listener_resumed");
            }
        }
        json(StatusCode::OK, &ListenerView::of(listener))
    }

    /// Names what there is, never what was asked for: that came from anywhere.
    fn unknown(&self, listeners: &[Arc<Listener>], fronts: &[Arc<Front>]) -> String {
        let names: Vec<_> = listeners.iter().map(|l| format!("\"{}\"", l.config.name)).collect();
        let there_are = match names.as_slice() {
            [] => "there are none".to_owned(),
            [only] => format!("there is {only}"),
            [others @ .., last] => format!("there are {} and {last}", others.join(", ")),
        };
        if fronts.iter().any(|front| front.config.name == self.name) {
            format!("that is an HTTP front, and only listeners can be paused; of these {there_are}\n")
        } else {
            format!("no such listener; {there_are}\n")
        }
    }
}

/// Whether who sent `headers` may change something; else what to answer.
pub(super) fn may_change(shared: &Shared, headers: &HeaderMap) -> Result<(), Box<Answer>> {
    let refuse = |status, words: &str| Err(Box::new(text(status, words.to_owned())));
    if is_from_a_page(headers) {
        return refuse(StatusCode::FORBIDDEN, FOREIGN);
    }
    let setup = shared.setup();
    let Some(token) = setup.config.admin.as_ref().and_then(|admin| admin.token.as_ref()) else {
        return refuse(StatusCode::FORBIDDEN, UNSET);
    };
    match bearer(headers) {
        Some(guess) if token.is(guess.as_bytes()) => Ok(()),
        Some(_) => Err(Box::new(challenge(WRONG, "Bearer realm=\"pgsplit\", error=\"invalid_token\""))),
        None => Err(Box::new(challenge(MISSING, "Bearer realm=\"pgsplit\""))),
    }
}

/// Whether a browser sent it for a page. Nothing of pgsplit's own is one that does, so each origin is a foreign one; its
/// name would prove nothing, for any name can be made to lead here.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    headers.contains_key(ORIGIN) || !headers.get_all("sec-fetch-site").iter().all(is_own)
}

/// The token of the only `Authorization` there is (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn challenge(words: &str, how: &'static str) -> Answer {
    let mut answer: Response<_> = text(StatusCode::UNAUTHORIZED, words.to_owned());
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(how));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |&(name, value): &(&'static str, &'static str)| {
            (name.parse::<hyper::header::HeaderName>().unwrap(), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_path_names_a_listener_and_what_to_do() {
        let some = |name: &'static str, pause| Some(Change { name: Cow::Borrowed(name), pause });
        for (path, expected) in [
            ("/api/v1/listeners/rw/pause", some("rw", true)),
            ("/api/v1/listeners/rw/resume", some("rw", false)),
            ("/api/v1/listeners/a%3Ab/pause", some("a:b", true)),
            ("/api/v1/listeners/%ff/pause", some("\u{fffd}", true)),
            ("/api/v1/listeners//pause", some("", true)),
            ("/api/v1/listeners/pause", None),
            ("/api/v1/listeners/rw", None),
            ("/api/v1/listeners/rw/drain", None),
            ("/api/v2/listeners/rw/pause", None),
        ] {
            assert_eq!(Change::of(path), expected, "{path}");
        }
    }

    #[test]
    fn a_token_comes_in_one_header() {
        for (lines, expected) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer abc"), ("authorization", "Bearer abc")], None),
            (&[("x-token", "Bearer abc")], None),
        ] {
            assert_eq!(bearer(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn pages_give_themselves_away() {
        for (lines, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "null")], true),
        ] {
            assert_eq!(is_from_a_page(&headers(lines)), expected, "{lines:?}");
        }
    }
}
