//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod tools;

mod cancel;
mod encryption;
mod first_packets;
mod login;
mod replay;
mod support_works;
