//! Who calls, as the services see it. Made by [`crate::auth`] alone.

use crate::Api;
use crate::denials::What;
use crate::gate::Gate;
use crate::status::of_store;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::{Role, Token};
use innkeeper_domain::audit::{Actor, Change};
use innkeeper_domain::ids::{BackfillId, RunId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::tenant::{Tenant, TenantState};
use innkeeper_store::{StartError, StoreError, TokenHash};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Request, Status};

/// What somebody shows to say who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The hash of a token's text.
    Token(TokenHash),
    /// An identity provider's signed token.
    Signed(Arc<str>),
    /// The names of a client certificate.
    Certificate(Vec<String>),
}

/// Somebody who is known.
#[derive(Clone)]
pub(crate) struct Known {
    pub token: Arc<Token>,
    /// How it goes on record.
    pub actor: Arc<Actor>,
    pub shown: Shown,
    pub gate: Arc<Gate>,
}

/// Somebody who calls for a tenant.
#[derive(Clone)]
pub(crate) struct Caller {
    pub tenant: TenantId,
    /// That tenant as it stands.
    pub of: Arc<Tenant>,
    pub known: Known,
}

impl Known {
    /// Who makes a request that came through [`crate::auth::Auth`].
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(not_authenticated)
    }

    /// A change that it asks for.
    pub fn change(&self, now: Timestamp) -> Change {
        Change { now, by: Some(Arc::clone(&self.actor)) }
    }

    /// Whether it speaks for every tenant.
    pub fn is_admin(&self) -> bool {
        self.token.role == Role::Admin
    }
}

impl Caller {
    /// Who makes a request that came through [`crate::auth::Auth`], and concerns a tenant.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(not_authenticated)
    }

    /// A change that it asks for.
    pub fn change(&self, now: Timestamp) -> Change {
        self.known.change(now)
    }

    /// The only tasks that it may see and touch; none: all.
    pub fn only(&self) -> Option<BTreeSet<Name>> {
        self.known.token.tasks.clone()
    }

    /// Refuses what needs a greater role than the call itself does, with the reason; that goes on record.
    pub fn needs(&self, role: Role, why: &str) -> Result<(), Status> {
        let had = self.known.token.role;
        if had >= role {
            return Ok(());
        }
        self.denied();
        Err(Status::permission_denied(format!("{why} needs the role `{role}`; yours is `{had}`")))
    }

    /// Refuses a list of every tenant's to all but admins.
    pub fn lists_all(&self, what: &str) -> Result<(), Status> {
        self.needs(Role::Admin, &format!("to list every tenant's {what}"))
    }

    /// Refuses a change while the tenant, which is so now, is suspended, but to admins; that goes on record.
    pub fn changes(&self, now: &Tenant) -> Result<(), Status> {
        if now.state != TenantState::Suspended || self.known.is_admin() {
            return Ok(());
        }
        self.denied();
        let (name, note) = (&now.name, &now.note);
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        Err(Status::failed_precondition(format!("the tenant `{name}` is suspended{note}; it can only look")))
    }

    /// Puts on record that it was refused.
    pub fn denied(&self) {
        let tenant = Some((self.tenant, self.of.name.clone()));
        self.known.gate.denied(&self.known.actor, What { tenant, ..What::default() });
    }

    /// Whether it may see and touch a task, and what belongs to it; if not, that goes on record.
    pub fn may_use(&self, task: &Name) -> bool {
        let may = self.known.token.may_use(task);
        if !may {
            self.denied();
        }
        may
    }

    /// A task that it may not see is one that isn't there.
    pub fn task(&self, task: &Name) -> Result<(), Status> {
        if self.may_use(task) {
            return Ok(());
        }
        Err(of_store(StoreError::NotFound(format!("task `{task}`"))))
    }

    /// The same of a task that a run is started of.
    pub fn start(&self, task: &Name) -> Result<(), StartError> {
        if self.may_use(task) { Ok(()) } else { Err(StartError::NoTask(task.clone())) }
    }

    /// The same of the task's run.
    pub fn run(&self, task: &Name, run: RunId) -> Result<(), Status> {
        if self.may_use(task) {
            return Ok(());
        }
        Err(of_store(StoreError::NotFound(format!("run {run}"))))
    }

    /// The same of a backfill of its trigger.
    pub fn backfill(&self, task: &Name, backfill: BackfillId) -> Result<(), Status> {
        if self.may_use(task) {
            return Ok(());
        }
        Err(of_store(StoreError::NotFound(format!("backfill {backfill}"))))
    }

    /// The same of its trigger.
    pub fn trigger(&self, task: &Name, trigger: &Name) -> Result<(), Status> {
        if self.may_use(task) {
            return Ok(());
        }
        Err(of_store(StoreError::NotFound(format!("trigger `{trigger}`"))))
    }
}

impl Api {
    /// Refuses a run that the caller may not see. Asks nothing for one who may see all.
    pub(crate) async fn may_see_run(&self, caller: &Caller, id: RunId) -> Result<(), Status> {
        if caller.known.token.tasks.is_none() {
            return Ok(());
        }
        let run = self.store.run_get(caller.tenant, id).await.map_err(of_store)?;
        caller.run(&run.task, id)
    }

    /// The same of a backfill.
    pub(crate) async fn may_see_backfill(&self, caller: &Caller, id: BackfillId) -> Result<(), Status> {
        if caller.known.token.tasks.is_none() {
            return Ok(());
        }
        let backfill = self.store.backfill_get(caller.tenant, id).await.map_err(of_store)?;
        caller.backfill(&backfill.task, id)
    }

    /// The same of a trigger.
    pub(crate) async fn may_see_trigger(&self, caller: &Caller, name: &Name) -> Result<(), Status> {
        if caller.known.token.tasks.is_none() {
            return Ok(());
        }
        let trigger = self.store.trigger_get(caller.tenant, name).await.map_err(of_store)?;
        caller.trigger(&trigger.task, name)
    }
}

fn not_authenticated() -> Status {
    Status::unauthenticated("the call was not authenticated")
}
