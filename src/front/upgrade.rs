//! A connection that goes on as another protocol, such as a WebSocket: bytes both ways until either side ends.

use std::pin::Pin;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::front::account::Account;
use crate::front::exchange::Answered;

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
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // An error is one side breaking off, and its own affair.
        let (_, to_client) = copy_bidirectional(&mut client, &mut upstream).await.unwrap_or_default();
        account.set_upgraded(to_client);
    }
}
