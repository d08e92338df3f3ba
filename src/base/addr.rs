//! Addresses as text.

use std::net::SocketAddr;

/// `addr` as it displays itself. There are two in the line of each session, and the way of `std::fmt`, with room for
/// padding that nobody asks for, takes three times as many instructions.
#[must_use]
pub fn addr_text(addr: SocketAddr) -> String {
    let SocketAddr::V4(addr) = addr else { return addr.to_string() };
    let mut digits = itoa::Buffer::new();
    let mut out = String::with_capacity("255.255.255.255:65535".len());
    for octet in addr.ip().octets() {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(digits.format(octet));
    }
    out.push(':');
    out.push_str(digits.format(addr.port()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_it_displays(addr: SocketAddr) {
            prop_assert_eq!(addr_text(addr), addr.to_string());
        }
    }
}
