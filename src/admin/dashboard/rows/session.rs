//! A session's row.

use maud::{Markup, html};

use crate::admin::dashboard::words::{self, UNKNOWN};
use crate::admin::sessions::SessionView;

/// A session's row.
#[derive(Debug, Default)]
pub(in crate::admin::dashboard) struct SessionCells {
    id: String,
    client: String,
    user: String,
    database: String,
    application: String,
    listener: String,
    node: String,
    state: String,
    age: String,
    idle: String,
    bytes: String,
}

impl SessionCells {
    pub(in crate::admin::dashboard) fn of(session: &SessionView) -> Self {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        Self {
            id: session.id.clone(),
            client: session.client.clone(),
            user: name(&session.user),
            database: name(&session.database),
            application: name(&session.application),
            listener: session.listener.clone(),
            node: name(&session.node),
            state: session.state.to_owned(),
            age: words::age(session.age_seconds),
            idle: words::age(session.idle_seconds),
            bytes: words::bytes(session.to_node_bytes.saturating_add(session.to_client_bytes)),
        }
    }

    pub(in crate::admin::dashboard) fn row(&self) -> Markup {
        html! {
            tr data-key=(self.id) {
                th scope="row" data-label="Session" data-f="id" { (self.id) }
                td data-label="Client" data-f="client" { (self.client) }
                td.said data-label="User" data-f="user" { (self.user) }
                td.said data-label="Database" data-f="database" { (self.database) }
                td.said data-label="Application" data-f="application" { (self.application) }
                td data-label="Listener" data-f="listener" { (self.listener) }
                td data-label="Node" data-f="node" { (self.node) }
                td data-label="State" data-f="state" { (self.state) }
                td.number data-label="Age" data-f="age" { (self.age) }
                td.number data-label="Idle" data-f="idle" { (self.idle) }
                td.number data-label="Bytes" data-f="bytes" { (self.bytes) }
                td.action { button type="button" data-do="end" aria-label={ "End session " (self.id) } { "End…" } }
            }
        }
    }
}
