//! Sockets: listening, on an address or in the file system, accepting, the threads that serve (a crew of workers) and
//! whether they answer, names, dialling, options, whether a peer is still there, and a passage by which a process hands its
//! sockets over to another.

pub mod accept;
pub mod crew;
pub mod descriptors;
pub mod dial;
pub mod discover;
pub mod gate;
pub mod handed;
pub mod inherited;
pub mod listen;
pub mod local;
pub mod options;
pub mod passage;
pub mod peer;
pub mod roll_call;
pub mod silent;
pub mod worker;
