//! A node taken out of use or put back, and its weight.

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::Value;

use super::guard::Asker;
use super::refusal::Refusal;
use super::reply::{Answer, json};
use super::view::{NodeView, Seen};
use crate::base::text::escaped;
use crate::topology::order::{AdminState, By, Order, OrderError, WEIGHT_MOST, Weigh};

/// No change takes more bytes than that.
const BODY_MOST: usize = 4096;

/// The node as it is now, and what that means.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    node: NodeView,
    notes: Vec<String>,
}

/// Changes a node as the body says. What is so already is no fault. Cancel safe; whether it is done then is not known.
///
/// # Errors
/// The body cannot be understood, or there is no such node.
pub(super) async fn change(
    seen: Seen<'_>,
    name: &str,
    body: Incoming,
    asker: &Asker<'_>,
) -> Result<Answer, Refusal> {
    let Ok(body) = Limited::new(body, BODY_MOST).collect().await else {
        return Err(Refusal::BodyTooLarge { most: BODY_MOST });
    };
    let (admin, weight) = wanted(&body.to_bytes())?;
    let order = Order { admin, weight, by: By { way: asker.by, client: asker.peer.to_string() } };
    let mut names = Vec::new();
    for (cluster, watched) in seen.setup.config.clusters.iter().zip(&seen.setup.clusters) {
        match watched.order(name, order.clone()).await {
            Ok(done) => {
                let node = seen.node(&done.node, watched.index, cluster);
                return Ok(json(StatusCode::OK, &Changed { node, notes: done.notes }));
            }
            Err(OrderError::Unknown { known }) => names.extend(known),
            Err(error @ (OrderError::Weight | OrderError::Over(_))) => return Err(error.into()),
        }
    }
    Err(OrderError::Unknown { known: names }.into())
}

/// What a body asks for, at least one thing.
fn wanted(body: &[u8]) -> Result<(Option<AdminState>, Option<Weigh>), Refusal> {
    let Ok(Value::Object(wanted)) = serde_json::from_slice(body) else {
        return Err(Refusal::NoObject);
    };
    let (mut admin, mut weight) = (None, None);
    for (key, value) in &wanted {
        match key.as_str() {
            "admin" => {
                let word = value.as_str().and_then(AdminState::from_word);
                admin = Some(word.ok_or(Refusal::AdminState)?);
            }
            "weight" if value.is_null() => weight = Some(Weigh::AsWritten),
            "weight" => {
                let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
                let number = number.filter(|number| *number <= WEIGHT_MOST);
                weight = Some(Weigh::By(number.ok_or(Refusal::Weight)?));
            }
            other => return Err(Refusal::Key(escaped(other.as_bytes(), 40))),
        }
    }
    if admin.is_none() && weight.is_none() {
        return Err(Refusal::NoChange);
    }
    Ok((admin, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(wanted(body.as_bytes()).unwrap_err().to_string(), error, "{body}");
        }
    }
}
