//! One connection to an upstream.
//!
//! The library wants each connection driven by a task of its own, which costs two wake-ups a request. Here nobody
//! drives it but the request that uses it, on the same task: a connection that nobody uses needs no driving, and
//! whether its upstream has closed it is asked when somebody wants it again.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::front::upload::Upload;
use crate::net::descriptors::Held;
use crate::net::dial;

/// Most of an answer that is in memory on its way in. Larger pieces save system calls; but there may be thousands.
const READ_BUFFER: usize = 256 * 1024;

type Driver = dyn Future<Output = hyper::Result<()>> + Send;

/// One connection to an upstream, for one request at a time.
pub struct Link {
    sender: SendRequest<Upload>,
    /// `None` once it has ended.
    driver: Option<Pin<Box<Driver>>>,
    /// Whether its last request had a body.
    has_upload: bool,
    /// When it was last given back.
    pub idle_since: Instant,
    _descriptor: Option<Held>,
}

impl Link {
    /// A new connection, within the deadline. Cancel safe: a connection half made is closed.
    ///
    /// # Errors
    /// What the system said; [`std::io::ErrorKind::TimedOut`] at the deadline.
    pub async fn open(
        addr: SocketAddr,
        deadline: Instant,
        descriptor: Option<Held>,
    ) -> std::io::Result<Self> {
        let (stream, _) = dial::connect(&[addr], deadline).await?;
        stream.set_nodelay(true)?;
        let mut builder = Builder::new();
        // Requests are small and mostly without a body: gathering their parts costs more than copying them.
        builder.max_buf_size(READ_BUFFER).writev(false);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(connection.with_upgrades())),
            has_upload: false,
            idle_since: Instant::now(),
            _descriptor: descriptor,
        })
    }

    /// Moves what can be moved.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether it can be kept for another request, now that the answer is complete. Whether its upstream keeps it too is
    /// seen when it is wanted; but a body that is still being sent is its client's, who waits for it to be taken.
    pub fn may_be_kept(&mut self) -> bool {
        self.driver.is_some() && (!self.has_upload || self.is_usable())
    }

    /// Whether another request can be sent. Only to be asked of one that is idle: it is driven meanwhile.
    pub fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx);
        self.driver.is_some() && matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// Not cancel safe: dropped midway, the connection can only be dropped.
    ///
    /// # Errors
    /// What broke the connection; with the request, when nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        self.has_upload = !request.body().is_empty();
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            if let Some(connection) = driver
                && connection.as_mut().poll(cx).is_ready()
            {
                *driver = None;
            }
            answer.as_mut().poll(cx)
        })
        .await
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("ended", &self.driver.is_none()).finish_non_exhaustive()
    }
}
