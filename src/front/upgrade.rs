//! A connection that goes on as another protocol, such as a WebSocket: bytes both ways until either side ends.

use hyper::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::front::account::Account;
use crate::front::group::Chosen;

/// Passes bytes on between client and upstream, once the client has been told that it may begin.
pub fn tunnel(
    client: OnUpgrade,
    response: &mut Response<Incoming>,
    chosen: Chosen,
    mut account: Box<Account>,
) -> impl Future<Output = ()> + Send + use<> {
    let upstream = hyper::upgrade::on(response);
    async move {
        let _place = chosen;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        // An error is one side breaking off, and its own affair.
        let (_, to_client) = copy_bidirectional(&mut client, &mut upstream).await.unwrap_or_default();
        account.set_upgraded(to_client);
    }
}
