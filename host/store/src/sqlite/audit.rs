//! The audit log in SQLite.

use super::SqliteStore;
use super::row::{At, Id, Json, Word, bad_token, limit, paged, signed, unsigned};
use crate::columns::{audit_ids_before, refused};
use crate::record::{self, Difference};
use crate::{AuditFilter, AuditStore, Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::{Actor, AuditEntry, Change};
use innkeeper_domain::ids::{AuditId, TenantId};
use rusqlite::{Connection, Row, params};

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit_append(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        self.write(move |c| entries.iter().try_for_each(|entry| insert(c, entry))).await
    }

    async fn audit_list(&self, filter: AuditFilter, page: Page) -> Result<Paged<AuditEntry>, StoreError> {
        self.read(move |c| {
            let before = match &page.after {
                None => None,
                Some(token) => Some(token.parse::<AuditId>().map_err(|_| bad_token())?),
            };
            let until = filter.until.and_then(audit_ids_before);
            let before = before.into_iter().chain(until).min().map_or_else(uuid::Uuid::max, |id| id.0);
            // Said so for the planner: with a tenant its own index, else the table's order; for what was not done an
            // index of that.
            let tenant = if filter.tenant.is_some() { "tenant_id = ?1" } else { "?1 IS NULL" };
            let refused = refused(filter.outcome);
            let mut list = c.prepare_cached(&format!(
                "SELECT id, at, tenant_id, tenant, actor, role, address, action, object, outcome, before, after, count
                 FROM audit WHERE {tenant}{refused} AND (?2 IS NULL OR outcome = ?2)
                     AND id >= ?3 AND id < ?4 AND (?5 IS NULL OR at < ?5) AND (?6 IS NULL OR at >= ?6)
                 ORDER BY id DESC LIMIT ?7"
            ))?;
            let since = filter.since.map_or_else(uuid::Uuid::nil, |since| AuditId::first(since).0);
            let rows = list.query_map(
                params![
                    filter.tenant.map(|tenant| Id(tenant.0)),
                    filter.outcome.map(|outcome| outcome.as_str()),
                    Id(since),
                    Id(before),
                    filter.until.map(At),
                    filter.since.map(At),
                    limit(&page),
                ],
                read_entry,
            )?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &AuditEntry| last.id.to_string()))
        })
        .await
    }
}

/// Puts a change on record, if somebody asked for it.
pub(super) fn record(
    c: &Connection,
    change: &Change,
    tenant: Option<TenantId>,
    object: impl FnOnce() -> String,
    difference: impl FnOnce() -> Difference,
) -> Result<(), StoreError> {
    if change.by.is_none() {
        return Ok(());
    }
    let tenant = match tenant {
        None => None,
        Some(id) => {
            let mut get = c.prepare_cached("SELECT name FROM tenant WHERE id = ?1")?;
            Some((id, get.query_row([Id(id.0)], |row| row.get::<_, Word<_>>(0))?.0))
        }
    };
    match record::entry(change, tenant, object(), difference()) {
        Some(entry) => insert(c, &entry),
        None => Ok(()),
    }
}

pub(super) fn insert(c: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let (tenant_id, tenant) = entry.tenant.as_ref().map(|(id, name)| (Id(id.0), name.as_str())).unzip();
    c.prepare_cached(
        "INSERT INTO audit (id, at, tenant_id, tenant, actor, role, address, action, object, outcome, before, after,
             count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        Id(entry.id.0),
        At(entry.at),
        tenant_id,
        tenant,
        entry.actor.name,
        entry.actor.role.map(|role| role.as_str()),
        entry.actor.address,
        entry.actor.action,
        entry.object,
        entry.outcome.as_str(),
        Json(&entry.before),
        Json(&entry.after),
        signed(entry.count),
    ])?;
    Ok(())
}

fn read_entry(row: &Row) -> rusqlite::Result<AuditEntry> {
    let tenant = match (row.get::<_, Option<Id>>(2)?, row.get::<_, Option<Word<_>>>(3)?) {
        (Some(id), Some(name)) => Some((TenantId(id.0), name.0)),
        _ => None,
    };
    Ok(AuditEntry {
        id: AuditId(row.get::<_, Id>(0)?.0),
        at: row.get::<_, At>(1)?.0,
        tenant,
        actor: Actor {
            name: row.get(4)?,
            role: row.get::<_, Option<Word<_>>>(5)?.map(|role| role.0),
            address: row.get(6)?,
            action: row.get(7)?,
        },
        object: row.get(8)?,
        outcome: row.get::<_, Word<_>>(9)?.0,
        before: row.get::<_, Json<_>>(10)?.0,
        after: row.get::<_, Json<_>>(11)?.0,
        count: unsigned(row.get(12)?),
    })
}
