//! What is asked before something is changed, and the answer to it. `app.js` fills in the words.

use maud::{Markup, html};

/// All of the page's questions.
pub(super) fn markup() -> Markup {
    html! {
        p #done .done role="status" aria-live="polite" hidden {}
        dialog #change aria-labelledby="change-title" {
            form method="dialog" {
                h2 #change-title { "Change a node" }
                p #change-about {}
                fieldset {
                    legend { "What is to become of it" }
                    @for (what, title, text) in [
                        ("ready", "Ready", "It gets new sessions again, as its health and role allow."),
                        ("drain", "Drain", "No new sessions, and it is left by those that it has. Checks go on."),
                        ("maint", "Maint", "The same without checks: nothing of it is told as a fault."),
                        ("weight", "Weight", "Its share of new sessions, 0 to 256."),
                        ("kill", "End its sessions", "All of them at once, in whatever they do. It stays in use."),
                    ] {
                        label.choice {
                            input type="radio" name="what" value=(what);
                            span { strong { (title) } " " span.hint { (text) } }
                        }
                    }
                    label #weight-label {
                        "New weight "
                        input #weight type="number" min="0" max="256" step="1" required inputmode="numeric";
                    }
                }
                p.will { strong { "What will happen: " } span #change-will aria-live="polite" {} }
                p #change-fault .fault role="alert" hidden {}
                div.buttons { button type="button" data-close { "Cancel" } button #change-do .act type="submit" { "Change" } }
            }
        }
        dialog #confirm aria-labelledby="confirm-title" aria-describedby="confirm-will" {
            form method="dialog" {
                h2 #confirm-title { "Confirm" }
                p #confirm-will {}
                p #confirm-fault .fault role="alert" hidden {}
                div.buttons { button type="button" data-close { "Cancel" } button #confirm-do .act type="submit" { "Do it" } }
            }
        }
        dialog #ask-token aria-labelledby="ask-token-title" {
            form method="dialog" {
                h2 #ask-token-title { "The token" }
                p { "Changes need the token of this pgsplit (" code { "admin.token" } " in its file). It is kept for this tab only." }
                label { "Token " input #token type="password" autocomplete="off" required; }
                p #token-fault .fault role="alert" hidden {}
                div.buttons { button type="button" data-close { "Cancel" } button.act type="submit" { "Go on" } }
            }
        }
    }
}
