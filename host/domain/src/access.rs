//! Who may do what: roles, and the credentials that have one.

use crate::ids::{TenantId, TokenId};
use crate::limits::{NOTE_CHARS_MAX, TOKEN_TASKS_MAX};
use crate::name::Name;
use crate::word::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What its holder may do. Each may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything of a tenant but its secrets' and audit log's.
    Viewer,
    /// Start and cancel runs, pause and resume triggers.
    Operator,
    /// Everything in a tenant: components, tasks, triggers, secrets, tokens, its audit log.
    Owner,
    /// Everything in every tenant, and what concerns all of them: tenants, quotas, hosts.
    Admin,
}

words!(Role, "a role", Viewer = "viewer", Operator = "operator", Owner = "owner", Admin = "admin");

/// How a holder shows who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The token's text, which nobody has but its holder.
    Token,
    /// A client certificate of this name, from an issuer that the host trusts.
    Certificate(String),
    /// An identity provider's signed token with this subject.
    Subject(String),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("token"),
            Self::Certificate(name) => write!(f, "certificate {name}"),
            Self::Subject(subject) => write!(f, "subject {subject}"),
        }
    }
}

/// A right to call, and whom it speaks for. Its text is not in it: only a hash of that is kept anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    /// None: every tenant; admins only.
    pub tenant: Option<TenantId>,
    pub role: Role,
    /// The only tasks that it may see and touch; all when none are named.
    pub tasks: Option<BTreeSet<Name>>,
    pub proof: Proof,
    /// What it is for, in its maker's words.
    pub note: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// A token that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token of role `{0}` speaks for one tenant; name it")]
    NoTenant(Role),
    #[error("a token of role `admin` speaks for every tenant, and can't be one tenant's; use role `owner`")]
    AdminOfTenant,
    #[error("{0} tasks are named; a token is for 1 to {TOKEN_TASKS_MAX}, or for all")]
    Tasks(usize),
    #[error(
        "a token for some tasks can have the roles `viewer` and `operator`; `{0}` concerns more than tasks"
    )]
    TasksOfRole(Role),
    #[error("a note has at most {NOTE_CHARS_MAX} characters")]
    Note,
    #[error("the name of a certificate or subject has 1 to 255 characters, none of them a control character")]
    ProofName,
    #[error("it would have expired at {0} already")]
    Expired(Timestamp),
}

impl Token {
    /// Checks every bound, and that role, tenant and tasks go together.
    pub fn check(&self) -> Result<(), TokenError> {
        match (self.role, self.tenant) {
            (Role::Admin, Some(_)) => return Err(TokenError::AdminOfTenant),
            (Role::Viewer | Role::Operator | Role::Owner, None) => {
                return Err(TokenError::NoTenant(self.role));
            }
            _ => {}
        }
        if let Some(tasks) = &self.tasks {
            if self.role >= Role::Owner {
                return Err(TokenError::TasksOfRole(self.role));
            }
            if tasks.is_empty() || tasks.len() > TOKEN_TASKS_MAX {
                return Err(TokenError::Tasks(tasks.len()));
            }
        }
        if self.note.chars().count() > NOTE_CHARS_MAX {
            return Err(TokenError::Note);
        }
        if let Proof::Certificate(name) | Proof::Subject(name) = &self.proof {
            let chars = name.chars().count();
            if chars == 0 || chars > 255 || name.chars().any(char::is_control) {
                return Err(TokenError::ProofName);
            }
        }
        if let Some(at) = self.expires_at.filter(|at| *at <= self.created_at) {
            return Err(TokenError::Expired(at));
        }
        Ok(())
    }

    /// Why it is worth nothing at this instant; none if it is good.
    pub fn void(&self, now: Timestamp) -> Option<Void> {
        if let Some(at) = self.revoked_at {
            return Some(Void::Revoked(at));
        }
        self.expires_at.filter(|at| *at <= now).map(Void::Expired)
    }

    /// Whether it may see and touch this task.
    pub fn may_use(&self, task: &Name) -> bool {
        self.tasks.as_ref().is_none_or(|tasks| tasks.contains(task))
    }
}

/// Why a token is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    #[error("the token expired at {0:.0}; ask whoever gave it to you for a new one")]
    Expired(Timestamp),
    #[error("the token was revoked at {0:.0}; ask whoever gave it to you for a new one")]
    Revoked(Timestamp),
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn token(role: Role) -> Token {
        Token {
            id: TokenId(Uuid::nil()),
            tenant: (role != Role::Admin).then_some(TenantId(Uuid::nil())),
            role,
            tasks: None,
            proof: Proof::Token,
            note: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn roles_are_ordered_and_read_back() {
        assert!(Role::ALL.is_sorted() && Role::ALL.len() == 4);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
            assert_eq!(token(*role).check(), Ok(()));
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let admin = Token { tenant: Some(TenantId(Uuid::nil())), ..token(Role::Admin) };
        assert_eq!(admin.check(), Err(TokenError::AdminOfTenant));
        let nobodys = Token { tenant: None, ..token(Role::Viewer) };
        assert_eq!(nobodys.check(), Err(TokenError::NoTenant(Role::Viewer)));
        let tasks = Some(["a".parse().unwrap()].into());
        let owner = Token { tasks: tasks.clone(), ..token(Role::Owner) };
        assert_eq!(owner.check(), Err(TokenError::TasksOfRole(Role::Owner)));
        let viewer = Token { tasks, ..token(Role::Viewer) };
        assert_eq!(viewer.check(), Ok(()));
        assert!(viewer.may_use(&"a".parse().unwrap()) && !viewer.may_use(&"b".parse().unwrap()));
        let none = Token { tasks: Some(BTreeSet::new()), ..token(Role::Viewer) };
        assert_eq!(none.check(), Err(TokenError::Tasks(0)));
    }

    #[test]
    fn a_token_ends_at_its_time_or_when_it_is_revoked() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let expiring = Token { expires_at: Some(second(9)), ..token(Role::Owner) };
        assert_eq!(
            (expiring.void(second(8)), expiring.void(second(9))),
            (None, Some(Void::Expired(second(9))))
        );
        let revoked = Token { revoked_at: Some(second(3)), ..expiring };
        assert_eq!(revoked.void(second(20)), Some(Void::Revoked(second(3))));
    }
}
