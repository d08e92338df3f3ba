//! The password exchanges of a check's login. The computations are the library's.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

/// A server may ask for any number of hash rounds, and each costs us time, also when the check's own time is long
/// over; this is some fifty times the default of `scram_iterations`.
const ITERATIONS_MAX: u32 = 200_000;

/// Why no answer can be given.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The server wants a password and none is configured.
    #[error("the server asks for a password and none is configured")]
    NoPassword,
    /// Kerberos, SSPI, or a mechanism of the future.
    #[error("the server asks for an authentication method a check does not have")]
    Method,
    /// The server's part of the exchange makes no sense.
    #[error("broken SCRAM exchange")]
    Scram,
    /// Too many hash rounds.
    #[error("the server asks for {0} SCRAM iterations, more than {ITERATIONS_MAX}")]
    Iterations(u32),
}

/// The password part of one login.
#[derive(Default)]
pub struct Exchange {
    scram: Option<ScramSha256>,
}

impl Exchange {
    /// Answers an `AuthenticationXXX` body; an empty answer sends nothing.
    /// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>
    ///
    /// Costs milliseconds for SCRAM: call it where nothing waits.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn answer(&mut self, body: &[u8], user: &str, password: Option<&str>) -> Result<BytesMut, AuthError> {
        let (method, rest) = body.split_first_chunk::<4>().ok_or(AuthError::Method)?;
        let password = || password.ok_or(AuthError::NoPassword);
        let mut out = BytesMut::new();
        match (u32::from_be_bytes(*method), &mut self.scram) {
            (0, _) => {}
            (3, _) => {
                frontend::password_message(password()?.as_bytes(), &mut out)
                    .map_err(|_| AuthError::Method)?;
            }
            (5, _) => {
                let salt = *rest.first_chunk::<4>().ok_or(AuthError::Method)?;
                let hash = md5_hash(user.as_bytes(), password()?.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(|_| AuthError::Method)?;
            }
            (10, scram) => {
                if !rest.split(|&b| b == 0).any(|mechanism| mechanism == SCRAM_SHA_256.as_bytes()) {
                    return Err(AuthError::Method);
                }
                let exchange = ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut out)
                    .map_err(|_| AuthError::Scram)?;
                *scram = Some(exchange);
            }
            (11, Some(scram)) => {
                let iterations = iterations(rest).ok_or(AuthError::Scram)?;
                if ITERATIONS_MAX < iterations {
                    return Err(AuthError::Iterations(iterations));
                }
                scram.update(rest).map_err(|_| AuthError::Scram)?;
                frontend::sasl_response(scram.message(), &mut out).map_err(|_| AuthError::Scram)?;
            }
            (12, Some(scram)) => scram.finish(rest).map_err(|_| AuthError::Scram)?,
            _ => return Err(AuthError::Method),
        }
        Ok(out)
    }
}

/// The `i=` of a server's first message (RFC 5802).
fn iterations(server_first: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(server_first).ok()?;
    text.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}

/// The name of an authentication request, for people.
#[must_use]
pub fn method_name(method: u32) -> &'static str {
    match method {
        0 => "trust",
        2 => "kerberos",
        3 => "password",
        5 => "md5",
        7 | 8 => "gss",
        9 => "sspi",
        10..=12 => "scram-sha-256",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_exchange_is_refused() {
        let mut exchange = Exchange::default();
        let start = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
        assert!(!exchange.answer(&start, "u", Some("p")).unwrap().is_empty());
        let greedy = [&11_u32.to_be_bytes()[..], b"r=x,s=YQ==,i=2000000000"].concat();
        assert!(matches!(
            exchange.answer(&greedy, "u", Some("p")),
            Err(AuthError::Iterations(2_000_000_000))
        ));
    }

    #[test]
    fn nonsense_is_an_error() {
        let answer = |body: &[u8]| Exchange::default().answer(body, "u", Some("p"));
        for body in [&b""[..], b"\0", &[0, 0, 0, 5, 1], &[0, 0, 0, 11, 1], &[0, 0, 0, 10], &[0, 0, 0, 7]] {
            assert!(answer(body).is_err(), "{body:?}");
        }
        assert!(matches!(Exchange::default().answer(&[0, 0, 0, 3], "u", None), Err(AuthError::NoPassword)));
    }
}
