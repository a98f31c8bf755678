//! Tokens in SQLite.

use super::SqliteStore;
use super::audit::record;
use super::row::{At, Id, Json, Word, bad_token, limit, paged, signed};
use super::tenant::{TENANT_COLUMNS, read_tenant};
use crate::record::token as shown;
use crate::words::{no_token, token_exists, token_of_host, too_many_tokens};
use crate::{Found, Page, Paged, StoreError, TokenHash, TokenStore};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{TenantId, TokenId};
use innkeeper_domain::limits::TOKENS_PER_TENANT_MAX;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

#[async_trait]
impl TokenStore for SqliteStore {
    async fn token_ensure(&self, hash: TokenHash, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            if find(c, hash)?.is_some() {
                return Ok(());
            }
            insert(c, &token_of_host(now), hash)
        })
        .await
    }

    async fn token_create(&self, token: Token, hash: TokenHash, change: Change) -> Result<Token, StoreError> {
        self.write(move |c| {
            if let Some(tenant) = token.tenant {
                super::tenant::by_id(c, tenant)?;
            }
            if let Some(found) = find(c, hash)? {
                if found.token.void(change.now).is_none() {
                    return Err(token_exists(&token.proof));
                }
                c.execute("DELETE FROM token WHERE hash = ?1", [hash])?;
            }
            let good: i64 = c.query_row(
                "SELECT count(*) FROM token
                 WHERE tenant_id IS ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)",
                params![token.tenant.map(|tenant| Id(tenant.0)), At(change.now)],
                |row| row.get(0),
            )?;
            if good >= signed(TOKENS_PER_TENANT_MAX) {
                return Err(too_many_tokens());
            }
            insert(c, &token, hash)?;
            let object = || format!("token {}", token.id);
            record(c, &change, token.tenant, object, || (Value::Null, shown(&token)))?;
            Ok(token)
        })
        .await
    }

    async fn token_find(&self, hash: TokenHash) -> Result<Option<Found>, StoreError> {
        self.read(move |c| find(c, hash)).await
    }

    async fn token_list(&self, tenant: Option<TenantId>, page: Page) -> Result<Paged<Found>, StoreError> {
        self.read(move |c| {
            let before = match &page.after {
                None => None,
                Some(token) => Some(Id(token.parse::<TokenId>().map_err(|_| bad_token())?.0)),
            };
            let mut list = c.prepare_cached(&format!(
                "{} WHERE (?1 IS NULL OR k.tenant_id = ?1) AND (?2 IS NULL OR k.id < ?2) ORDER BY k.id DESC LIMIT ?3",
                select()
            ))?;
            let rows =
                list.query_map(params![tenant.map(|tenant| Id(tenant.0)), before, limit(&page)], read_found)?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Found| last.token.id.to_string()))
        })
        .await
    }

    async fn token_revoke(
        &self,
        tenant: Option<TenantId>,
        id: TokenId,
        change: Change,
    ) -> Result<Token, StoreError> {
        self.write(move |c| {
            let mut get = c.prepare_cached(&format!("{} WHERE k.id = ?1", select()))?;
            let found = get.query_row([Id(id.0)], read_found).optional()?;
            let before =
                found.map(|found| found.token).filter(|token| tenant.is_none() || token.tenant == tenant);
            let before = before.ok_or_else(|| no_token(id))?;
            if before.revoked_at.is_some() {
                return Ok(before);
            }
            c.execute("UPDATE token SET revoked_at = ?2 WHERE id = ?1", params![Id(id.0), At(change.now)])?;
            let after = Token { revoked_at: Some(change.now), ..before.clone() };
            let object = || format!("token {id}");
            record(c, &change, after.tenant, object, || (shown(&before), shown(&after)))?;
            Ok(after)
        })
        .await
    }
}

fn select() -> String {
    format!(
        "SELECT k.id, k.tenant_id, k.role, k.tasks, k.proof, k.note, k.created_at, k.expires_at, k.revoked_at,
             {TENANT_COLUMNS} FROM token k LEFT JOIN tenant n ON n.id = k.tenant_id"
    )
}

fn find(c: &Connection, hash: TokenHash) -> Result<Option<Found>, StoreError> {
    let mut get = c.prepare_cached(&format!("{} WHERE k.hash = ?1", select()))?;
    Ok(get.query_row([hash], read_found).optional()?)
}

fn read_found(row: &Row) -> rusqlite::Result<Found> {
    let tenant = row.get::<_, Option<Id>>(1)?.map(|id| TenantId(id.0));
    let token = Token {
        id: TokenId(row.get::<_, Id>(0)?.0),
        tenant,
        role: row.get::<_, Word<_>>(2)?.0,
        tasks: row.get::<_, Option<Json<_>>>(3)?.map(|tasks| tasks.0),
        proof: row.get::<_, Json<_>>(4)?.0,
        note: row.get(5)?,
        created_at: row.get::<_, At>(6)?.0,
        expires_at: row.get::<_, Option<At>>(7)?.map(|at| at.0),
        revoked_at: row.get::<_, Option<At>>(8)?.map(|at| at.0),
    };
    let tenant = tenant.map(|_| read_tenant(row, 9)).transpose()?;
    Ok(Found { token, tenant })
}

fn insert(c: &Connection, token: &Token, hash: TokenHash) -> Result<(), StoreError> {
    c.execute(
        "INSERT INTO token (hash, id, tenant_id, role, tasks, proof, note, created_at, expires_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            hash,
            Id(token.id.0),
            token.tenant.map(|tenant| Id(tenant.0)),
            token.role.as_str(),
            token.tasks.as_ref().map(Json),
            Json(&token.proof),
            token.note,
            At(token.created_at),
            token.expires_at.map(At),
            token.revoked_at.map(At),
        ],
    )?;
    Ok(())
}
