//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod tools;

mod cancel;
mod counters;
mod encryption;
mod first_packets;
mod login;
mod relay;
mod replay;
mod support_works;
