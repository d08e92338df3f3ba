//! Tests against real servers, the real binary and the worst of networks.

mod support;

mod support_works;
