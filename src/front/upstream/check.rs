//! One look at one address of an upstream: a request on a connection of its own, and its status code.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::http::HttpCheck;
use crate::front::upload::Upload;
use crate::front::upstream::Instance;
use crate::front::upstream::keeper::News;
use crate::front::upstream::link::Link;
use crate::net::dial::{io_text, is_own_fault};

/// Two looks at an upstream that requests complain of are at least `fast_interval` apart, and this.
const COMPLAINT_PAUSE: Duration = Duration::from_millis(50);

/// What a look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether it was good, and why not.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An expected status.
    Good(u16),
    /// Another status, or no answer.
    Bad(String),
    /// This machine could not look: says nothing of the upstream.
    NotMade(String),
}

/// Looks once.
pub async fn look(instance: &Instance, check: &HttpCheck) -> Look {
    let begun = Instant::now();
    let outcome = ask(instance, check, begun + check.timeout).await;
    Look { outcome, took: begun.elapsed() }
}

async fn ask(instance: &Instance, check: &HttpCheck, deadline: Instant) -> Outcome {
    let mut link = match Link::open(instance.addr, deadline, None).await {
        Ok(link) => link,
        Err(error) if is_own_fault(&error) => return Outcome::NotMade(io_text(&error)),
        Err(error) => return Outcome::Bad(io_text(&error)),
    };
    let host = check.host.clone().unwrap_or_else(|| instance.config.addr.to_string());
    let mut request = Request::new(Upload::Empty);
    *request.method_mut() = Method::GET;
    let (Ok(uri), Ok(host)) = (check.path.parse(), HeaderValue::try_from(host)) else {
        return Outcome::NotMade("the check's path or host cannot be sent".to_owned());
    };
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static("pgsplit-check"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    match timeout_at(deadline, link.send(request)).await {
        Err(_) => Outcome::Bad("no answer in time".to_owned()),
        Ok(Err(_)) => Outcome::Bad("broke off before its answer, or does not speak HTTP".to_owned()),
        Ok(Ok(answer)) => {
            let status = answer.status().as_u16();
            if check.expect.iter().any(|range| range.contains(&status)) {
                Outcome::Good(status)
            } else {
                Outcome::Bad(format!("answered {status}"))
            }
        }
    }
}

/// Looks until `stop`: at once, then at the pace that the upstream's state asks for.
pub async fn watch(
    instance: Arc<Instance>,
    check: HttpCheck,
    news: mpsc::Sender<News>,
    stop: CancellationToken,
) {
    let life = async {
        loop {
            let look = look(&instance, &check).await;
            let looked = Instant::now();
            let (pace, answer) = oneshot::channel();
            if news.send(News::Looked { instance: Arc::clone(&instance), look, pace }).await.is_err() {
                return;
            }
            let Ok(pace) = answer.await else { return };
            // Within a tenth, so that checks of many upstreams do not fall into step.
            let jittered = pace.mul_f64(0.9 + 0.2 * fastrand::f64());
            if timeout(jittered, instance.hurry.notified()).await.is_ok() {
                let rest = check.fast_interval.saturating_sub(looked.elapsed());
                sleep(rest.max(COMPLAINT_PAUSE).min(pace)).await;
            }
        }
    };
    stop.run_until_cancelled(life).await;
}
