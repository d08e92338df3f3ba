//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod tools;

mod balance;
mod cancel;
mod counters;
mod encryption;
mod first_packets;
mod hold;
mod login;
mod relay;
mod replay;
mod support_works;
mod targets;
