//! Loopback addresses that nobody else uses, so that ports never clash.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Nothing here talks UDP, so a bound UDP port can stand for the whole address: the kernel gives it to one process
/// at a time and takes it back when that process dies.
const CLAIM_PORT: u16 = 5432;

/// An address of 127.0.0.0/8 that is ours until this value is dropped.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    _claim: UdpSocket,
}

impl Address {
    /// Takes a free address. Processes start at different places, so they hardly ever try the same one.
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let first = std::process::id().wrapping_mul(0x9e37_79b1) >> 8;
        // Longer than the longest stretch without an address for us.
        for _ in 0..100_000 {
            let [_, a, b, c] = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
            // 127.0.x.x is where other programs of the machine are; 0 and 255 look like networks to people.
            if a == 0 || c == 0 || c == 255 {
                continue;
            }
            let ip = Ipv4Addr::new(127, a, b, c);
            if let Ok(claim) = UdpSocket::bind((ip, CLAIM_PORT)) {
                return Self { ip, _claim: claim };
            }
        }
        panic!("no free address in 127.0.0.0/8; on macOS only 127.0.0.1 is set up: run the tests on Linux");
    }

    /// The address alone.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The usual port on this address; another one when a program of this machine has the usual port on *every*
    /// address, as a published container port does.
    pub fn port(&self, usual: u16) -> SocketAddr {
        for port in [usual, usual + 10_000, usual + 20_000] {
            if TcpListener::bind((self.ip, port)).is_ok() {
                return SocketAddr::from((self.ip, port));
            }
        }
        panic!("something listens on port {usual} of every address, and 10000 and 20000 above it");
    }
}
