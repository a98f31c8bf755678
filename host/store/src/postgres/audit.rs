//! The audit log in PostgreSQL.

use super::PostgresStore;
use super::connection::{in_transaction, reading};
use super::row::{At, Json, Word, bad_token, execute, limit, paged, row, rows, signed, text, unsigned};
use crate::columns::{audit_ids_before, refused};
use crate::record::{self, Difference};
use crate::{AuditFilter, AuditStore, Page, Paged, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::{Actor, AuditEntry, Change};
use innkeeper_domain::ids::{AuditId, TenantId};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

#[async_trait]
impl AuditStore for PostgresStore {
    async fn audit_append(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| insert_all(c, &entries).await?)
    }

    async fn audit_list(&self, filter: AuditFilter, page: Page) -> Result<Paged<AuditEntry>, StoreError> {
        let before = match &page.after {
            None => None,
            Some(token) => Some(token.parse::<AuditId>().map_err(|_| bad_token())?),
        };
        let until = filter.until.and_then(audit_ids_before);
        let before = before.into_iter().chain(until).min().map_or_else(Uuid::max, |id| id.0);
        let since = filter.since.map_or_else(Uuid::nil, |since| AuditId::first(since).0);
        reading!(&self.shared.pool, |c| {
            // Said so for the planner: with a tenant its own index, else the table's order; for what was not done an
            // index of that.
            let tenant = if filter.tenant.is_some() { "tenant_id = $1" } else { "$1::uuid IS NULL" };
            let refused = refused(filter.outcome);
            let list = format!(
                "SELECT id, at, tenant_id, tenant, actor, role, address, action, object, outcome, before, after, count
                 FROM audit WHERE {tenant}{refused} AND ($2::text IS NULL OR outcome = $2) AND id >= $3 AND id < $4
                     AND ($5::bigint IS NULL OR at < $5)
                     AND ($6::bigint IS NULL OR at >= $6)
                 ORDER BY id DESC LIMIT $7"
            );
            let found = rows(
                c,
                &list,
                &[
                    &filter.tenant.map(|tenant| tenant.0),
                    &filter.outcome.map(|outcome| outcome.as_str()),
                    &since,
                    &before,
                    &filter.until.map(At),
                    &filter.since.map(At),
                    &limit(&page),
                ],
            )
            .await?;
            let found = found.iter().map(read_entry).collect::<Result<_, _>>()?;
            paged(found, &page, |last: &AuditEntry| last.id.to_string())
        })
    }
}

/// Puts a change on record, if somebody asked for it.
pub(super) async fn record(
    c: &impl GenericClient,
    change: &Change,
    tenant: Option<TenantId>,
    object: String,
    difference: Difference,
) -> Result<(), StoreError> {
    if change.by.is_none() {
        return Ok(());
    }
    let mut named = None;
    if let Some(id) = tenant
        && let Some(found) = row(c, "SELECT name FROM tenant WHERE id = $1", &[&id.0]).await?
    {
        named = Some((id, found.try_get::<_, Word<_>>(0)?.0));
    }
    match record::entry(change, named, object, difference) {
        Some(entry) => insert_all(c, &[entry]).await,
        None => Ok(()),
    }
}

/// Inserts lines: one statement, however many they are.
pub(super) async fn insert_all(c: &impl GenericClient, entries: &[AuditEntry]) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let (mut ids, mut at, mut tenant_ids, mut tenants) = (vec![], vec![], vec![], vec![]);
    let (mut actors, mut roles, mut addresses, mut actions) = (vec![], vec![], vec![], vec![]);
    let (mut objects, mut outcomes, mut befores, mut afters) = (vec![], vec![], vec![], vec![]);
    let mut counts = vec![];
    for entry in entries {
        ids.push(entry.id.0);
        at.push(At(entry.at));
        tenant_ids.push(entry.tenant.as_ref().map(|(id, _)| id.0));
        tenants.push(entry.tenant.as_ref().map(|(_, name)| name.as_str()));
        actors.push(text(&entry.actor.name));
        roles.push(entry.actor.role.map(|role| role.as_str()));
        addresses.push(text(&entry.actor.address));
        actions.push(text(&entry.actor.action));
        objects.push(text(&entry.object));
        outcomes.push(entry.outcome.as_str());
        befores.push(Json(&entry.before));
        afters.push(Json(&entry.after));
        counts.push(signed(entry.count));
    }
    execute(
        c,
        "INSERT INTO audit (id, at, tenant_id, tenant, actor, role, address, action, object, outcome, before, after,
             count)
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
             $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[])",
        &[
            &ids, &at, &tenant_ids, &tenants, &actors, &roles, &addresses, &actions, &objects, &outcomes,
            &befores, &afters, &counts,
        ],
    )
    .await?;
    Ok(())
}

fn read_entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let tenant = match (row.try_get::<_, Option<Uuid>>(2)?, row.try_get::<_, Option<Word<_>>>(3)?) {
        (Some(id), Some(name)) => Some((TenantId(id), name.0)),
        _ => None,
    };
    Ok(AuditEntry {
        id: AuditId(row.try_get(0)?),
        at: row.try_get::<_, At>(1)?.0,
        tenant,
        actor: Actor {
            name: row.try_get(4)?,
            role: row.try_get::<_, Option<Word<_>>>(5)?.map(|role| role.0),
            address: row.try_get(6)?,
            action: row.try_get(7)?,
        },
        object: row.try_get(8)?,
        outcome: row.try_get::<_, Word<_>>(9)?.0,
        before: row.try_get::<_, Json<Value>>(10)?.0,
        after: row.try_get::<_, Json<Value>>(11)?.0,
        count: unsigned(row.try_get(12)?),
    })
}
