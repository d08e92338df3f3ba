//! A request as it goes to an upstream, with what it takes to get it there.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, VIA};
use hyper::http::request;
use hyper::{Response, Version};
use tokio::time::Instant;

use crate::front::account::Account;
use crate::front::admit::{self, Turn};
use crate::front::answer::Passing;
use crate::front::caller::Caller;
use crate::front::exchange::{self, Answered, Sent};
use crate::front::refusal::Refusal;
use crate::front::shared::Front;
use crate::front::upload::Upload;
use crate::front::{Outcome, forward};

/// A request as it goes to an upstream.
#[derive(Clone)]
pub struct Delivery {
    /// The front it came to.
    pub front: Arc<Front>,
    /// Whose it is.
    pub caller: Arc<Caller>,
    /// The worker it runs on.
    pub worker: usize,
    /// The group it goes to.
    pub group: usize,
    /// Its head as the upstream gets it.
    pub head: request::Parts,
    /// The host it is for.
    pub authority: String,
    /// Until when it may wait.
    pub deadline: Instant,
}

/// An upstream's answer that has begun, and the turn that it takes.
pub struct Delivered {
    /// The answer.
    pub answered: Answered,
    turn: Turn,
}

impl Delivered {
    /// Throws the answer away.
    pub fn discard(self, worker: usize) {
        self.answered.discard(worker);
    }
}

impl Delivery {
    /// Sends it when it is its turn, and waits for the head of an answer. Not cancel safe.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn send(
        &self,
        upload: Upload,
        is_upgrade: bool,
        account: &mut Account,
    ) -> Result<Delivered, Refusal> {
        let front = &self.front;
        let group = front.groups.get(self.group).ok_or(Refusal::NoRoute)?;
        if !group.is_ready() {
            // Without a turn: a group that is down must not take those of the others.
            let _waiting = front.turns.wait(&front.metrics)?;
            let begun = Instant::now();
            let is_ready = group.ready(self.deadline).await;
            account.add_queue(begun.elapsed());
            if !is_ready {
                return Err(Refusal::NoUpstream(group.config.name.clone()));
            }
        }
        let turn = admit::admit(front, account, self.deadline).await?;
        let sent = Sent {
            head: &self.head,
            source: self.caller.client.addr.ip(),
            worker: self.worker,
            deadline: self.deadline,
            is_upgrade,
        };
        let answered = exchange::exchange(front, group, sent, upload, account).await?;
        Ok(Delivered { answered, turn })
    }

    /// Sends it, and passes the answer on as it comes. Not cancel safe.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn pass(&self, upload: Upload, account: &mut Account) -> Result<Outcome, Refusal> {
        let delivered = self.send(upload, false, account).await?;
        let (head, passing) = self.receive(delivered)?;
        Ok(Outcome::Passing(head, passing))
    }

    /// An upstream's answer as the client gets it.
    ///
    /// # Errors
    /// [`Refusal::Reset`] when it goes on as a protocol that nobody asked for.
    pub fn receive(&self, delivered: Delivered) -> Result<(Response<()>, Passing), Refusal> {
        let Delivered { answered, turn } = delivered;
        let Answered { mut response, link, chosen } = answered;
        if response.status().is_informational() {
            return Err(Refusal::Reset);
        }
        let head = self.head_of(&mut response);
        let timeout = self.front.config.limits.body_timeout;
        let mut passing = Passing::new(response.into_body(), link, self.worker, chosen, Some(turn), timeout);
        passing.tell(&self.front, self.group);
        Ok((head, passing))
    }

    /// The head of an upstream's answer as the client gets it.
    pub fn head_of(&self, answer: &mut Response<Incoming>) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = answer.status();
        *head.version_mut() = Version::HTTP_11;
        *head.headers_mut() = std::mem::take(answer.headers_mut());
        forward::strip_hop_by_hop(head.headers_mut());
        if self.front.config.via {
            head.headers_mut().append(VIA, HeaderValue::from_static("1.1 pgsplit"));
        }
        head
    }
}
