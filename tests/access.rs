//! Who may call what, asked of real services over a real connection. What is expected is written here by hand, not
//! derived from the rules that are tested.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "access/expected.rs"]
mod expected;
#[path = "access/host.rs"]
mod host;
#[path = "access/limits.rs"]
mod limits;
#[path = "access/neighbours.rs"]
mod neighbours;
#[path = "access/some_tasks.rs"]
mod some_tasks;

use expected::{EXPECTED, Least, Tasks};
use host::{Host, Who, calls};
use innkeeper_domain::access::Role;
use std::collections::BTreeSet;
use tonic::Code;

#[test]
fn every_call_of_the_protocol_is_expected() {
    let expected: Vec<_> = EXPECTED.iter().map(|(call, ..)| call.to_string()).collect();
    assert_eq!(expected.iter().collect::<BTreeSet<_>>().len(), expected.len(), "one is there twice");
    let calls = calls();
    let missing: Vec<_> = calls.iter().filter(|call| !expected.contains(call)).collect();
    let unknown: Vec<_> = expected.iter().filter(|call| !calls.contains(call)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}; unknown: {unknown:?}");
}

/// How a call must end that is refused; none: any other way.
fn refusal(who: Who, least: Least, tasks: Tasks) -> Option<Code> {
    let role = match who {
        Who::Nobody | Who::Wrong | Who::Expired | Who::Revoked => return Some(Code::Unauthenticated),
        Who::Is(role) | Who::ForTasks(role) => role,
        Who::Neighbour => Role::Owner,
    };
    if role < least.role() {
        return Some(Code::PermissionDenied);
    }
    match who {
        Who::ForTasks(_) if tasks == Tasks::No => Some(Code::PermissionDenied),
        // It names a tenant that isn't its own.
        Who::Neighbour => Some(Code::NotFound),
        _ => None,
    }
}

#[tokio::test]
async fn every_call_by_everybody() {
    let host = Host::start().await;
    for (number, (call, least, tasks)) in EXPECTED.iter().enumerate() {
        // From an address of its own, for failed log-ins are counted by address.
        let connection = host.connect_from(u8::try_from(number).unwrap() + 2).await;
        for who in Who::ALL {
            let status = host.raw(&connection, call, *who).await;
            let (code, message) = (status.code(), status.message());
            match refusal(*who, *least, *tasks) {
                Some(Code::NotFound) => {
                    assert_eq!((code, message), (Code::NotFound, "there is no tenant `a`"), "{call} {who:?}");
                }
                Some(Code::PermissionDenied) => {
                    assert_eq!(code, Code::PermissionDenied, "{call} {who:?}: {message}");
                    let named = message.contains(&format!("`{}`", least.role()));
                    assert!(named, "{call} {who:?} names no role: {message}");
                }
                Some(refused) => assert_eq!(code, refused, "{call} {who:?}: {message}"),
                None => {
                    let denied = [Code::Unauthenticated, Code::PermissionDenied, Code::ResourceExhausted];
                    assert!(!denied.contains(&code), "{call} {who:?}: {code:?} {message}");
                    assert!(!message.contains("there is no tenant"), "{call} {who:?}: {message}");
                }
            }
        }
    }
    host.stop().await;
}

#[tokio::test]
async fn a_void_token_says_why() {
    let host = Host::start().await;
    let connection = host.connect_from(2).await;
    for (who, words) in [
        (Who::Nobody, "has no token"),
        (Who::Wrong, "not one of this host's"),
        (Who::Expired, "expired at"),
        (Who::Revoked, "revoked at"),
    ] {
        let status = host.raw(&connection, "TokenService/WhoAmI", who).await;
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains(words), "{who:?}: {}", status.message());
    }
    let unknown = host.raw(&connection, "RunService/Nonsense", Who::Is(Role::Admin)).await;
    assert_eq!(unknown.code(), Code::Unimplemented);
    let unknown = host.raw(&connection, "RunService/Nonsense", Who::Nobody).await;
    assert_eq!(unknown.code(), Code::Unauthenticated);
    host.stop().await;
}
