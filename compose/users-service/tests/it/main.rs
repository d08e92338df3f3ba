//! The real program and a real PostgreSQL server. Every server has an address of its own in 127.0.0.0/8, so tests
//! run side by side on the usual port.

// A test that meets what it did not expect should end, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod answers;
mod failures;
mod process;
mod support;
