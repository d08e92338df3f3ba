//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod tools;

mod first_packets;
mod support_works;
