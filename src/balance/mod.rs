//! Choosing and judging, pure: no socket, no clock. The `PostgreSQL` side and the HTTP front share it.

pub mod flapping;
pub mod judge;
pub mod load;
pub mod pick;
pub mod valve;
