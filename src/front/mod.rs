//! The HTTP front: balances requests over the instances of read-only services.

pub mod cache;
