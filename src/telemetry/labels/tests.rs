//! Tests of the module above.

use super::*;

#[test]
fn an_index_is_the_place_in_the_list() {
    assert!(Rejection::ALL.into_iter().map(Rejection::index).eq(0..8));
    assert!(End::ALL.into_iter().map(End::index).eq(0..10));
    assert!(Redispatch::ALL.into_iter().map(Redispatch::index).eq(0..6));
    assert!(CancelResult::ALL.into_iter().map(CancelResult::index).eq(0..5));
    assert!(ConnectError::ALL.into_iter().map(ConnectError::index).eq(0..6));
    assert!(CheckResult::ALL.into_iter().map(CheckResult::index).eq(0..3));
    assert!(NodeState::ALL.into_iter().map(NodeState::index).eq(0..8));
    assert!(StartupError::ALL.into_iter().map(StartupError::index).eq(0..6));
    assert!(UpgradeResult::ALL.into_iter().map(UpgradeResult::index).eq(0..2));
    assert!(ReloadResult::ALL.into_iter().map(ReloadResult::index).eq(0..3));
}

#[test]
fn an_sqlstate_outside_the_list_is_other() {
    assert_eq!(StartupError::from_sqlstate("57P03"), StartupError::CannotConnectNow);
    assert_eq!(StartupError::from_sqlstate("XX000"), StartupError::Other);
    assert_eq!(StartupError::from_sqlstate(""), StartupError::Other);
}

#[test]
fn a_connect_error_has_a_class() {
    let class = |kind: io::ErrorKind| ConnectError::from_io(&io::Error::from(kind));
    assert_eq!(class(io::ErrorKind::ConnectionRefused), ConnectError::Refused);
    assert_eq!(class(io::ErrorKind::TimedOut), ConnectError::Timeout);
    assert_eq!(class(io::ErrorKind::NetworkUnreachable), ConnectError::Unreachable);
    assert_eq!(class(io::ErrorKind::UnexpectedEof), ConnectError::Reset);
    assert_eq!(class(io::ErrorKind::OutOfMemory), ConnectError::Other);
    // A label longer than DNS allows is refused without asking anybody.
    let name = format!("{}.invalid:5432", "x".repeat(80));
    let error = std::net::ToSocketAddrs::to_socket_addrs(&name).unwrap_err();
    assert_eq!(ConnectError::from_io(&error), ConnectError::Dns, "{error}");
}
