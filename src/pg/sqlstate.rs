//! The error codes this program reads or writes; names as in the manual's
//! [appendix A](https://www.postgresql.org/docs/current/errcodes-appendix.html).

/// `too_many_connections`.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// `cannot_connect_now`: libpq goes on to the next host of a multi-host URL.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// `admin_shutdown`.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// `protocol_violation`.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// `feature_not_supported`.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// `invalid_authorization_specification`.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// `insufficient_privilege`: no right to connect to the database.
pub const NO_PRIVILEGE: &str = "42501";
/// `invalid_catalog_name`: no such database.
pub const NO_SUCH_DATABASE: &str = "3D000";
