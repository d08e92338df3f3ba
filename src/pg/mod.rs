//! What a balancer must know of the `PostgreSQL` wire, and no more: the first packets a client may send, where
//! a server's message ends, and how to say no. Pure: no socket, no clock.
//!
//! The protocol is described in the manual, chapter
//! [Frontend/Backend Protocol](https://www.postgresql.org/docs/current/protocol.html); how a server treats
//! bad first packets is in its source, `src/backend/tcop/backend_startup.c`.
//!
//! # Invariants
//!
//! - A length that a peer claims is checked before anything is reserved for it.
//! - What a parser did not understand is an error or is passed on, never guessed.

pub mod backend;
pub mod cancel_key;
pub mod error_response;
pub mod first_packet;
pub mod framing;
pub mod message;
pub mod sqlstate;
pub mod startup;
