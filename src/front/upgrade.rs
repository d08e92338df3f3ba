//! A connection that goes on as another protocol, such as a WebSocket: bytes both ways until either side ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::io::InspectReader;

use crate::front::Outcome;
use crate::front::account::Account;
use crate::front::deliver::Delivery;
use crate::front::exchange::Answered;
use crate::front::refusal::Refusal;
use crate::front::upload::Upload;

/// What a client asks its connection to go on as.
#[derive(Debug)]
pub struct Upgrade {
    /// As sent.
    pub protocol: HeaderValue,
    /// Its connection, once it has been told that it may begin.
    pub client: OnUpgrade,
}

/// Asks an upstream, which may also say no with any other answer. Not cancel safe.
///
/// # Errors
/// The refusal that the client gets.
pub async fn ask(
    mut delivery: Delivery,
    upgrade: Upgrade,
    upload: Upload,
    account: &mut Account,
) -> Result<Outcome, Refusal> {
    say(&mut delivery.head.headers, upgrade.protocol.clone());
    let mut delivered = delivery.send(upload, true, account).await?;
    if delivered.answered.response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, passing) = delivery.receive(delivered)?;
        return Ok(Outcome::Passing(head, passing));
    }
    // What the upstream has chosen of what the client offered.
    let chosen = delivered.answered.response.headers().get(UPGRADE).cloned();
    let mut head = delivery.head_of(&mut delivered.answered.response);
    say(head.headers_mut(), chosen.unwrap_or(upgrade.protocol));
    Ok(Outcome::Upgraded(head, upgrade.client, delivered.answered))
}

fn say(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Passes bytes on between client and upstream, once the client has been told that it may begin.
pub fn tunnel(
    client: OnUpgrade,
    mut answered: Answered,
    mut account: Box<Account>,
) -> impl Future<Output = ()> + Send + use<> {
    let mut upstream = hyper::upgrade::on(&mut answered.response);
    async move {
        let Answered { mut link, chosen, .. } = answered;
        let _place = chosen;
        // The connection has to be driven once more to be let go.
        let upstream = std::future::poll_fn(|cx| {
            link.drive(cx);
            Pin::new(&mut upstream).poll(cx)
        });
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        account.set_whole();
        // Counted as they come: a tunnel that is cut has no last moment to say how many there were.
        let (received, sent) = account.tunnel();
        let count = |bytes: Arc<AtomicU64>| {
            move |piece: &[u8]| {
                bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        };
        let mut client = InspectReader::new(TokioIo::new(client), count(received));
        let mut upstream = InspectReader::new(TokioIo::new(upstream), count(sent));
        // An error is one side breaking off, and its own affair.
        let _ = copy_bidirectional(&mut client, &mut upstream).await;
    }
}
