//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod balance;
mod checks;
mod failover;
mod hold;
mod support_works;
mod targets;
