//! The audit log.

use crate::caller::Caller;
use crate::convert::{from_instant, instant, page};
use crate::proto::audit_line::Outcome;
use crate::proto::audit_service_server::AuditService;
use crate::status::of_store;
use crate::{Api, proto};
use innkeeper_domain::audit::{AuditEntry, AuditOutcome};
use innkeeper_store::AuditFilter;
use serde_json::Value;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl AuditService for Api {
    async fn list_audit(
        &self,
        request: Request<proto::ListAuditRequest>,
    ) -> Result<Response<proto::ListAuditResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if request.all {
            caller.lists_all("audit log")?;
        }
        let outcome = match request.outcome() {
            Outcome::Unspecified => None,
            Outcome::Done => Some(AuditOutcome::Done),
            Outcome::Denied => Some(AuditOutcome::Denied),
        };
        let filter = AuditFilter {
            tenant: (!request.all).then_some(caller.tenant),
            outcome,
            since: request.since.as_ref().map(|at| instant(at, "the beginning")).transpose()?,
            until: request.until.as_ref().map(|at| instant(at, "the end")).transpose()?,
        };
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.audit_list(filter, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListAuditResponse {
            lines: found.items.into_iter().map(from_entry).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }
}

fn from_entry(entry: AuditEntry) -> proto::AuditLine {
    let outcome = match entry.outcome {
        AuditOutcome::Done => Outcome::Done,
        AuditOutcome::Denied => Outcome::Denied,
    };
    let json = |value: Value| if value.is_null() { String::new() } else { value.to_string() };
    proto::AuditLine {
        id: entry.id.to_string(),
        at: Some(from_instant(entry.at)),
        tenant: entry.tenant.map(|(_, name)| name.to_string()).unwrap_or_default(),
        actor: entry.actor.name,
        role: entry.actor.role.map(|role| role.to_string()).unwrap_or_default(),
        address: entry.actor.address,
        action: entry.actor.action,
        object: entry.object,
        outcome: outcome.into(),
        before: json(entry.before),
        after: json(entry.after),
        count: entry.count,
    }
}
