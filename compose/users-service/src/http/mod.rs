//! What is served.
//!
//! | Path | Answer |
//! |---|---|
//! | `GET /users?limit=20&after=ID&q=text` | users by id, some at a time; `page.next` is the `after` of the next page |
//! | `GET /users/{id}` | one user |
//! | `GET /health` | this process lives; asks no database |
//! | `GET /ready` | the database answers |

mod answer;
mod input;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::database::{Database, Failure};
use crate::log::Log;
use crate::settings::Settings;
use crate::users::{self, Origin};

/// Requests that may wait for each connection in use. More would only wait for their time to be over.
const WAITING: usize = 4;

/// All that answers are made of.
#[derive(Debug)]
pub(crate) struct Service {
    settings: Settings,
    database: Arc<Database>,
    log: Arc<Log>,
    served_by: HeaderValue,
    places: Semaphore,
}

/// The service, ready to be served.
pub(crate) fn router(
    settings: Settings,
    database: Arc<Database>,
    log: Arc<Log>,
) -> Result<Router, axum::http::header::InvalidHeaderValue> {
    let service = Arc::new(Service {
        served_by: HeaderValue::from_str(&settings.instance)?,
        places: Semaphore::new(settings.pool_size * (1 + WAITING)),
        settings,
        database,
        log,
    });
    let router = Router::new()
        .route("/users", get(list))
        .route("/users/{id}", get(one))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(map_response_with_state(Arc::clone(&service), sign))
        .with_state(service);
    Ok(router)
}

async fn list(State(service): State<Arc<Service>>, RawQuery(query): RawQuery) -> Response {
    let wanted = match input::wanted(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(wrong) => return answer::json(StatusCode::BAD_REQUEST, &wrong),
    };
    let Some(_place) = service.place() else { return busy() };
    match users::page(&service.database, &wanted, service.settings.request_timeout).await {
        Ok(page) => service.found(&json!({
            "data": page.users,
            "page": { "limit": wanted.limit, "next": page.next },
            "meta": service.meta(&page.origin),
        })),
        Err(failure) => sorry(&failure),
    }
}

async fn one(State(service): State<Arc<Service>>, path: Result<Path<String>, PathRejection>) -> Response {
    // It is rejected when it is no UTF-8, and then it is no number either.
    let text = path.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path(text)| text);
    let id = match input::id(&text) {
        Ok(id) => id,
        Err(wrong) => return answer::json(StatusCode::BAD_REQUEST, &wrong),
    };
    let Some(_place) = service.place() else { return busy() };
    match users::one(&service.database, id, service.settings.request_timeout).await {
        Ok((Some(user), origin)) => service.found(&json!({ "data": user, "meta": service.meta(&origin) })),
        Ok((None, origin)) => answer::json(
            StatusCode::NOT_FOUND,
            &json!({ "error": format!("there is no user {id}"), "meta": service.meta(&origin) }),
        ),
        Err(failure) => sorry(&failure),
    }
}

async fn health() -> Response {
    answer::json(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    match users::origin(&service.database, service.settings.query_timeout).await {
        Ok(origin) => {
            answer::json(StatusCode::OK, &json!({ "status": "ready", "meta": service.meta(&origin) }))
        }
        Err(failure) => sorry(&failure),
    }
}

async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(100).collect();
    let text = format!("there is no {path}: ask for /users, /users/ID, /health or /ready");
    answer::error(StatusCode::NOT_FOUND, &text)
}

async fn not_allowed(method: Method) -> Response {
    let method: String = method.as_str().chars().take(20).collect();
    answer::error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not taken: GET and HEAD are"))
}

/// Every answer says who gave it, errors as well: those are what one wants to know it of.
async fn sign(State(service): State<Arc<Service>>, mut response: Response) -> Response {
    response.headers_mut().insert("x-served-by", service.served_by.clone());
    response
}

/// Nothing of the failure itself: it is in the log.
fn sorry(failure: &Failure) -> Response {
    answer::unavailable(match failure {
        Failure::Exhausted => "all connections to the database are busy: try again",
        _ => "the database does not answer: try again",
    })
}

fn busy() -> Response {
    answer::unavailable("too many requests are waiting already: try again")
}

impl Service {
    /// A place among those that wait, unless too many do. Health and readiness need none: a busy instance lives.
    fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.places.try_acquire().ok();
        if place.is_none() {
            self.log
                .failure("busy", &[("places", self.settings.pool_size.saturating_mul(1 + WAITING).into())]);
        }
        place
    }

    /// Users. There is no `ETag`: an answer names who gave it, so it would differ between two that say the same.
    fn found(&self, body: &serde_json::Value) -> Response {
        let mut response = answer::json(StatusCode::OK, body);
        let seconds = self.settings.cache_seconds;
        if seconds > 0
            && let Ok(value) = HeaderValue::from_str(&format!("public, max-age={seconds}"))
        {
            response.headers_mut().insert(CACHE_CONTROL, value);
        }
        response
    }

    fn meta(&self, origin: &Origin) -> serde_json::Value {
        json!({ "served_by": self.settings.instance, "database": origin })
    }
}
