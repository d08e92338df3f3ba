//! What the programs that compare pgsplit with others have in common: settings, peers as child processes, what the
//! kernel says they used, and figures from many runs.
//!
//! Each of these programs has the `support` of the integration tests as well.

#![allow(dead_code, reason = "each user of these files needs a part of them")]

pub(crate) mod console;
pub(crate) mod figures;
pub(crate) mod machine;
pub(crate) mod program;
pub(crate) mod settings;
pub(crate) mod table;
pub(crate) mod usage;
