//! What pgsplit tells about itself: figures for Prometheus and lines for the log.
//!
//! [`metrics`] is the entry for figures: it is built once from a [`shape`], handed around by reference, counted
//! into by sessions and checks, and rendered on each scrape with the [`now`] of that moment. [`catalog`] lists
//! every metric there is, [`labels`] every value of the closed label sets. [`log`] makes the
//! subscriber, and [`events`] keeps what it said of late.
//!
//! # Invariants
//!
//! - Nothing here is global: two balancers in one process, as in tests, do not share a figure.
//! - Nothing a session calls here can block, fail or panic. A figure that cannot be counted is not counted.
//! - No label holds a user, a database, a client address or an error text: the number of series follows from the
//!   configuration, and from the addresses that the names in it lead to.

pub mod labels;
pub mod shape;

pub mod catalog;
pub mod count;
mod registry;

pub mod front;
pub mod listener;
pub mod node;
pub mod now;
pub mod pair;
mod process;
pub mod recent;
mod render;

pub mod events;
pub mod log;
pub mod metrics;
