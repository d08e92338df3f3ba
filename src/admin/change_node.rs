//! A node taken out of use or put back, and its weight, over `PATCH /api/v1/nodes/NAME`.

use std::borrow::Cow;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value;

use super::pause::may_change;
use super::view::NodeView;
use super::{Answer, json};
use crate::base::text::escaped;
use crate::session::shared::Shared;
use crate::topology::order::{AdminState, By, Order, OrderError, WEIGHT_MOST, Weigh};

/// No change takes more bytes than that.
const BODY_MOST: usize = 4096;
/// What can be changed.
const KEYS: &str = "`admin` (ready, drain or maint) and `weight` (0 to 256, or null: that of the file)";

/// The node as it is now, and what that means.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    node: NodeView,
    notes: Vec<String>,
}

/// Why nothing was changed.
#[derive(Serialize)]
struct Fault {
    error: String,
    hint: String,
}

/// The name of the node that a path is about; `None`: the path is another one. The `/` of `db/2` may be escaped or not.
pub(super) fn node_of(path: &str) -> Option<Cow<'_, str>> {
    let name = path.strip_prefix("/api/v1/nodes/")?;
    Some(percent_decode_str(name).decode_utf8_lossy())
}

/// Changes the node for who may ask for it. What is so already is no fault. Cancel safe; whether it is done then is not
/// known.
pub(super) async fn change(
    shared: &Shared,
    name: &str,
    request: Request<Incoming>,
    client: SocketAddr,
) -> Answer {
    if let Err(refusal) = may_change(shared, request.headers()) {
        return *refusal;
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_MOST).collect().await else {
        return fault(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_MOST} bytes"), "");
    };
    let (admin, weight) = match wanted(&body.to_bytes()) {
        Ok(wanted) => wanted,
        Err(error) => {
            return fault(StatusCode::BAD_REQUEST, error, &format!("a JSON object with {KEYS}"));
        }
    };
    let order = Order { admin, weight, by: By { way: "api", client: client.to_string() } };
    let mut names = Vec::new();
    let setup = shared.setup();
    for (cluster, watched) in setup.config.clusters.iter().zip(&setup.clusters) {
        match watched.order(name, order.clone()).await {
            Ok(done) => {
                let node = NodeView::of(&done.node, &cluster.name);
                return json(StatusCode::OK, &Changed { node, notes: done.notes });
            }
            Err(OrderError::Unknown { known }) => names.extend(known),
            Err(error @ OrderError::Weight) => {
                return fault(StatusCode::BAD_REQUEST, error.to_string(), "");
            }
            Err(error @ OrderError::Over(_)) => {
                return fault(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "");
            }
        }
    }
    fault(StatusCode::NOT_FOUND, OrderError::Unknown { known: names }.to_string(), "")
}

fn fault(status: StatusCode, error: String, hint: &str) -> Answer {
    json(status, &Fault { error, hint: hint.to_owned() })
}

/// What a body asks for, at least one thing.
fn wanted(body: &[u8]) -> Result<(Option<AdminState>, Option<Weigh>), String> {
    let Ok(Value::Object(wanted)) = serde_json::from_slice(body) else {
        return Err("the body is not a JSON object".to_owned());
    };
    let (mut admin, mut weight) = (None, None);
    for (key, value) in &wanted {
        match key.as_str() {
            "admin" => {
                let word = value.as_str().and_then(AdminState::from_word);
                admin = Some(word.ok_or("`admin` is not ready, drain or maint")?);
            }
            "weight" if value.is_null() => weight = Some(Weigh::AsWritten),
            "weight" => {
                let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
                let number = number.filter(|number| *number <= WEIGHT_MOST);
                weight = Some(Weigh::By(number.ok_or("`weight` is not a whole number from 0 to 256")?));
            }
            other => return Err(format!("unknown key `{}`", escaped(other.as_bytes(), 40))),
        }
    }
    if admin.is_none() && weight.is_none() {
        return Err("nothing to change".to_owned());
    }
    Ok((admin, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_node() {
        for (path, expected) in [
            ("/api/v1/nodes/db1", Some("db1")),
            ("/api/v1/nodes/db%2F2", Some("db/2")),
            ("/api/v1/nodes/db/2", Some("db/2")),
            ("/api/v1/nodes/%ff", Some("\u{fffd}")),
            ("/api/v1/nodes", None),
            ("/api/v2/nodes/db1", None),
        ] {
            assert_eq!(node_of(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_body_says_what_to_change() {
        let drain = Some(AdminState::Drain);
        for (body, expected) in [
            (r#"{"admin": "drain"}"#, (drain, None)),
            (r#"{"weight": 0}"#, (None, Some(Weigh::By(0)))),
            (r#"{"weight": 256, "admin": "drain"}"#, (drain, Some(Weigh::By(256)))),
            (r#"{"weight": null}"#, (None, Some(Weigh::AsWritten))),
        ] {
            assert_eq!(wanted(body.as_bytes()), Ok(expected), "{body}");
        }
        for (body, error) in [
            ("", "the body is not a JSON object"),
            ("[]", "the body is not a JSON object"),
            ("{}", "nothing to change"),
            (r#"{"admin": "down"}"#, "`admin` is not ready, drain or maint"),
            (r#"{"admin": null}"#, "`admin` is not ready, drain or maint"),
            (r#"{"weight": 257}"#, "`weight` is not a whole number from 0 to 256"),
            (r#"{"weight": -1}"#, "`weight` is not a whole number from 0 to 256"),
            (r#"{"weight": "1"}"#, "`weight` is not a whole number from 0 to 256"),
            ("{\"we\\u0007\": 1}", "unknown key `we\\x07`"),
        ] {
            assert_eq!(wanted(body.as_bytes()), Err(error.to_owned()), "{body}");
        }
    }
}
