//! What drivers say alike of requests that can't be met, and read alike of what people write.

use crate::{OnGrowth, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::{Proof, Role, Token};
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::grants;
use innkeeper_domain::ids::{BackfillId, RunId, TenantId, TokenId};
use innkeeper_domain::limits::{
    AFTER_TRIGGERS_PER_TENANT_MAX, BACKFILLS_PER_TRIGGER_MAX, HOLIDAY_CALENDARS_PER_TENANT_MAX,
    SECRETS_PER_TENANT_MAX, TENANTS_MAX, TOKENS_PER_TENANT_MAX, UPLOADS_BEGUN_MAX,
};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::Quotas;
use innkeeper_domain::run::RunState;
use innkeeper_domain::task::{Task, TaskSpec};
use innkeeper_domain::tenant::{Tenant, TenantState};
use std::collections::BTreeSet;

/// Hex digits that a shortened digest needs.
const PREFIX_DIGITS_MIN: usize = 12;

/// A digest that may be shortened.
pub(crate) struct ComponentQuery<'a> {
    text: &'a str,
    /// The least digest that begins so.
    pub low: Vec<u8>,
    /// The greatest.
    pub high: Vec<u8>,
}

impl<'a> ComponentQuery<'a> {
    pub fn parse(text: &'a str) -> Result<Self, StoreError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex || !(PREFIX_DIGITS_MIN..=64).contains(&hex.len()) {
            return Err(StoreError::Invalid(format!(
                "`{}` is not a digest: expected `sha256:` and 64 hex digits, or {PREFIX_DIGITS_MIN} or more of them",
                text.chars().take(80).collect::<String>()
            )));
        }
        let bound =
            |fill: &str| hex::decode(format!("{hex}{}", fill.repeat(64 - hex.len()))).unwrap_or_default();
        Ok(Self { text, low: bound("0"), high: bound("f") })
    }

    /// The component found; two are as bad as none.
    pub fn only_one(&self, mut found: Vec<Component>) -> Result<Component, StoreError> {
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(StoreError::NotFound(format!("component {}", self.text))),
            _ => Err(StoreError::NotFound(format!(
                "one component {}: several begin so, give more digits",
                self.text
            ))),
        }
    }
}

pub(crate) fn component_used(task: &str, digest: Digest) -> StoreError {
    StoreError::Conflict(format!("task `{task}` has a revision of component {digest}; delete the task first"))
}

pub(crate) fn no_backfill(id: BackfillId) -> StoreError {
    StoreError::NotFound(format!("backfill {id}"))
}

pub(crate) fn too_many_backfills(trigger: &Name) -> StoreError {
    StoreError::Conflict(format!(
        "trigger `{trigger}` has {BACKFILLS_PER_TRIGGER_MAX} active backfills, as many as it may have; wait for one to \
         finish, or cancel one"
    ))
}

pub(crate) fn is_over(run: RunId, state: RunState) -> StoreError {
    StoreError::Conflict(format!("run {run} is over ({state}): there is nothing of it to pause"))
}

pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} doesn't have its digest; upload it again"))
}

/// Whether the task, as it is where nobody else can change it, may have this as its next revision.
pub(crate) fn may_become(
    task: &Task,
    next: &TaskSpec,
    expected: Option<u32>,
    growth: OnGrowth,
) -> Result<(), StoreError> {
    let Task { name, revision, .. } = task;
    if let Some(expected) = expected.filter(|expected| expected != revision) {
        return Err(StoreError::Conflict(format!(
            "task `{name}` is at revision {revision}, not {expected}: somebody changed it meanwhile; look at it and try again"
        )));
    }
    let grown = grants::grown(&grants::of(&task.spec), &grants::of(next));
    if growth == OnGrowth::Accept || grown.is_empty() {
        return Ok(());
    }
    // What to do comes first: a list of many may be cut.
    Err(StoreError::Conflict(format!(
        "task `{name}` would be granted more than its revision {revision} is; accept it with accept_permissions \
         (--accept-permissions). It would have now also: {}",
        grants::words(&grown)
    )))
}

/// Whether a task is as if it weren't there, for whoever is shown only these.
pub(crate) fn hidden(only: &Option<BTreeSet<Name>>, task: &Name) -> bool {
    only.as_ref().is_some_and(|only| !only.contains(task))
}

pub(crate) fn has_finished(trigger: &Name) -> StoreError {
    StoreError::Conflict(format!(
        "trigger `{trigger}` has finished: it starts no more runs; create a new one"
    ))
}

/// The names that a trigger without one can have: its task's, and a number.
pub(crate) fn numbered_names(task: &Name) -> impl Iterator<Item = Name> {
    (1..10_000).filter_map(move |number| {
        let suffix = format!("-{number}");
        let room = innkeeper_domain::limits::NAME_CHARS_MAX - suffix.len();
        let stem: String = task.as_str().chars().take(room).collect();
        format!("{stem}{suffix}").parse().ok()
    })
}

pub(crate) fn too_many_unnamed(task: &Name) -> StoreError {
    StoreError::Conflict(format!("task `{task}` has too many triggers without a name; give this one a name"))
}

pub(crate) fn too_many() -> StoreError {
    StoreError::Conflict(format!(
        "{UPLOADS_BEGUN_MAX} uploads have begun and not ended; go on with one, or wait until they are forgotten"
    ))
}

/// The quotas that an upload of the tenant is under. `Conflict` if it is suspended.
pub(crate) fn uploading(tenant: Tenant) -> Result<Quotas, StoreError> {
    match tenant.state {
        TenantState::Active => Ok(tenant.quotas),
        TenantState::Suspended => Err(StoreError::Conflict(format!(
            "tenant `{}` is suspended: nothing can be uploaded until it is resumed",
            tenant.name
        ))),
    }
}

pub(crate) fn missing(digest: Digest) -> StoreError {
    StoreError::NotFound(format!("upload of {digest}"))
}

pub(crate) fn misplaced(at: u64, bytes: usize, received: u64, size: u64) -> StoreError {
    StoreError::Conflict(format!(
        "{bytes} bytes at {at} don't fit an upload that has {received} of {size}; ask how many it has and go on there"
    ))
}

/// A store that is marked as moved.
pub(crate) fn moved(store: &str, whither: &str, undo: &str) -> StoreError {
    StoreError::Conflict(format!(
        "{store} was moved {whither}: use that one. If the move was cut off, or this store is to be used again \
         all the same, {undo}"
    ))
}

pub(crate) fn too_many_tenants() -> StoreError {
    StoreError::Conflict(format!(
        "there are {TENANTS_MAX} tenants, as many as there can be; delete one first"
    ))
}

/// The token that a host makes for its own data folder.
pub(crate) fn token_of_host(now: Timestamp) -> Token {
    Token {
        id: TokenId::new(now),
        tenant: None,
        role: Role::Admin,
        tasks: None,
        proof: Proof::Token,
        note: "the host's own, in its data folder".into(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    }
}

pub(crate) fn too_many_tokens() -> StoreError {
    StoreError::Conflict(format!(
        "there are {TOKENS_PER_TENANT_MAX} tokens that are good, as many as there can be; revoke one first"
    ))
}

pub(crate) fn token_exists(proof: &Proof) -> StoreError {
    StoreError::Exists(match proof {
        Proof::Token => "token of this text".into(),
        Proof::Certificate(name) => format!("token for the certificate `{name}`"),
        Proof::Subject(subject) => format!("token for the subject `{subject}`"),
    })
}

pub(crate) fn no_token(id: TokenId) -> StoreError {
    StoreError::NotFound(format!("token {id}"))
}

pub(crate) fn too_many_secrets() -> StoreError {
    StoreError::Conflict(format!(
        "there are {SECRETS_PER_TENANT_MAX} secrets, as many as there can be; delete one first"
    ))
}

pub(crate) fn no_secret(name: &Name) -> StoreError {
    StoreError::NotFound(format!("secret `{name}`"))
}

pub(crate) fn secret_used(name: &Name, task: &Name) -> StoreError {
    StoreError::Conflict(format!("task `{task}` names secret `{name}`; change or delete the task first"))
}

pub(crate) fn secret_verifies(name: &Name, trigger: &Name) -> StoreError {
    StoreError::Conflict(format!(
        "trigger `{trigger}` verifies its requests with secret `{name}`; delete the trigger first"
    ))
}

/// A task that another comes after.
pub(crate) fn is_followed(task: &Name, trigger: &Name) -> StoreError {
    StoreError::Conflict(format!("trigger `{trigger}` comes after task `{task}`; delete the trigger first"))
}

pub(crate) fn too_many_holiday_calendars() -> StoreError {
    StoreError::Conflict(format!(
        "there are {HOLIDAY_CALENDARS_PER_TENANT_MAX} holiday calendars, as many as there can be; delete one first"
    ))
}

pub(crate) fn no_holiday_calendar(name: &Name) -> StoreError {
    StoreError::NotFound(format!("holiday calendar `{name}`"))
}

pub(crate) fn holiday_calendar_used(name: &Name, trigger: &Name) -> StoreError {
    StoreError::Conflict(format!(
        "trigger `{trigger}` excludes holiday calendar `{name}`; delete the trigger first, or put other dates"
    ))
}

/// Refuses one more trigger that comes after a task.
pub(crate) fn so_many_after(there: usize) -> Result<(), StoreError> {
    if there < AFTER_TRIGGERS_PER_TENANT_MAX {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "there are {AFTER_TRIGGERS_PER_TENANT_MAX} triggers that come after tasks, as many as there can be; delete one first"
    )))
}

/// The name that a deleted tenant has, so that others can have the one that it had. No name begins so.
pub(crate) fn name_of_deleted(tenant: TenantId) -> String {
    format!("~{tenant}")
}
