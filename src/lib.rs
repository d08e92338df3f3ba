//! pgsplit: a load balancer that a team puts in front of its `PostgreSQL` servers.
//!
//! The layers, lowest first; a module uses those before it, never those after (`tests/layers.rs` keeps this
//! true). To learn how a session lives, read [`session`]; to learn how a node is judged, read [`topology`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod base;

pub mod net;
pub mod pg;

pub mod config;
pub mod telemetry;

pub mod balance;
pub mod topology;

pub mod front;
pub mod session;

pub mod admin;

pub mod app;
pub mod cli;
