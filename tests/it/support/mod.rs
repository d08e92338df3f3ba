//! What the integration tests and the demo stand on: real servers, steerable gates, the real binary, raw bytes.
//!
//! Every server, gate and balancer has its own loopback address ([`address`]), so any number of tests can run
//! at a time, all on the usual ports. Whatever happens to the test process, nothing of it stays behind
//! ([`home`]). Time is only ever waited for in [`wait`].

#![allow(dead_code, reason = "each user of these files needs a part of them")]
#![allow(unreachable_pub, reason = "one set of files, included by several programs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot set up its world should panic and say why"
)]

pub mod address;
pub mod balancer;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod gate;
pub mod home;
pub mod instance;
pub mod patroni;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod raw;
pub mod terminal;
pub mod tls;
pub mod upstream;
pub mod wait;
pub mod web;
pub mod wire;
