//! Sockets: listening, dialling, their options, and whether a peer is still there.

pub mod descriptors;
pub mod dial;
pub mod listen;
pub mod options;
pub mod peer;
