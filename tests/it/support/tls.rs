//! A certificate for the servers of this process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::home;
use super::programs::programs;

/// Files of a self-signed certificate; as a root certificate it also verifies itself.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM.
    pub cert: PathBuf,
    /// PEM, readable by the servers alone.
    pub key: PathBuf,
}

/// The certificate, valid for `localhost` and `pgsplit.test`; made once for each process.
pub fn certificate() -> &'static Certificate {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let names = ["localhost".to_owned(), "pgsplit.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let dir = home::directory("tls");
        let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
        fs::write(&cert, made.cert.pem()).expect("our own directory");
        fs::write(&key, made.signing_key.serialize_pem()).expect("our own directory");
        // The server refuses a key that others can read.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("our own file");
        home::give(&key, programs().owner);
        Certificate { cert, key }
    })
}
