//! Words shared by every layer: roles and targets, ids, addresses, units, secrets, text that came from outside, and a board for
//! what many must hear of.

pub mod addr;
pub mod board;
pub mod id;
pub mod role;
pub mod secret;
pub mod seldom;
pub mod text;
pub mod units;
