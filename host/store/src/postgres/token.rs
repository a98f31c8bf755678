//! Tokens in PostgreSQL.

use super::PostgresStore;
use super::audit::record;
use super::connection::{in_transaction, reading};
use super::quota::{Counted, exclude};
use super::row::{At, Json, Parameters, Word, bad_token, execute, limit, paged, row, rows, signed, text};
use super::tenant::{TENANT_COLUMNS, hold, read_tenant};
use crate::record::token as shown;
use crate::words::{no_token, token_exists, too_many_tokens};
use crate::{Found, Page, Paged, StoreError, TokenHash, TokenStore};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{TenantId, TokenId};
use innkeeper_domain::limits::TOKENS_PER_TENANT_MAX;
use serde_json::Value;
use tokio_postgres::Row;

#[async_trait]
impl TokenStore for PostgresStore {
    async fn token_ensure(&self, hash: TokenHash, now: Timestamp) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            insert(c, &crate::words::token_of_host(now), hash).await?;
        })
    }

    async fn token_create(&self, token: Token, hash: TokenHash, change: Change) -> Result<Token, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            if let Some(tenant) = token.tenant {
                hold(c, tenant).await?;
                exclude(c, tenant, Counted::Tokens).await?;
            }
            if let Some(found) = find(c, "k.hash = $1", &[&&hash[..]]).await? {
                if found.token.void(change.now).is_none() {
                    return Err(token_exists(&token.proof));
                }
                execute(c, "DELETE FROM token WHERE hash = $1", &[&&hash[..]]).await?;
            }
            let good = row(
                c,
                "SELECT count(*) FROM token WHERE tenant_id IS NOT DISTINCT FROM $1 AND revoked_at IS NULL
                     AND (expires_at IS NULL OR expires_at > $2)",
                &[&token.tenant.map(|tenant| tenant.0), &At(change.now)],
            )
            .await?;
            if good.map_or(Ok(0), |good| good.try_get::<_, i64>(0))? >= signed(TOKENS_PER_TENANT_MAX) {
                return Err(too_many_tokens());
            }
            if !insert(c, &token, hash).await? {
                return Err(token_exists(&token.proof));
            }
            let difference = (Value::Null, shown(&token));
            record(c, &change, token.tenant, format!("token {}", token.id), difference).await?;
        })?;
        Ok(token)
    }

    async fn token_find(&self, hash: TokenHash) -> Result<Option<Found>, StoreError> {
        reading!(&self.shared.pool, |c| find(c, "k.hash = $1", &[&&hash[..]]).await?)
    }

    async fn token_list(&self, tenant: Option<TenantId>, page: Page) -> Result<Paged<Found>, StoreError> {
        let before = match &page.after {
            None => None,
            Some(token) => Some(token.parse::<TokenId>().map_err(|_| bad_token())?.0),
        };
        reading!(&self.shared.pool, |c| {
            let list = format!(
                "{} WHERE ($1::uuid IS NULL OR k.tenant_id = $1) AND ($2::uuid IS NULL OR k.id < $2)
                 ORDER BY k.id DESC LIMIT $3",
                select()
            );
            let found = rows(c, &list, &[&tenant.map(|tenant| tenant.0), &before, &limit(&page)]).await?;
            let found = found.iter().map(read_found).collect::<Result<_, _>>()?;
            paged(found, &page, |last: &Found| last.token.id.to_string())
        })
    }

    async fn token_revoke(
        &self,
        tenant: Option<TenantId>,
        id: TokenId,
        change: Change,
    ) -> Result<Token, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            row(c, "SELECT 1 FROM token WHERE id = $1 FOR UPDATE", &[&id.0]).await?;
            let found = find(c, "k.id = $1", &[&id.0]).await?.map(|found| found.token);
            let before = found.filter(|token| tenant.is_none() || token.tenant == tenant);
            let before = before.ok_or_else(|| no_token(id))?;
            if before.revoked_at.is_some() {
                before
            } else {
                let revoke = "UPDATE token SET revoked_at = $2 WHERE id = $1";
                execute(c, revoke, &[&id.0, &At(change.now)]).await?;
                let after = Token { revoked_at: Some(change.now), ..before.clone() };
                let difference = (shown(&before), shown(&after));
                record(c, &change, after.tenant, format!("token {id}"), difference).await?;
                after
            }
        })
    }
}

fn select() -> String {
    format!(
        "SELECT k.id, k.tenant_id, k.role, k.tasks, k.proof, k.note, k.created_at, k.expires_at, k.revoked_at,
             {TENANT_COLUMNS} FROM token k LEFT JOIN tenant n ON n.id = k.tenant_id"
    )
}

async fn find(
    c: &impl GenericClient,
    condition: &str,
    value: Parameters<'_>,
) -> Result<Option<Found>, StoreError> {
    let found = row(c, &format!("{} WHERE {condition}", select()), value).await?;
    found.map(|found| read_found(&found)).transpose()
}

fn read_found(row: &Row) -> Result<Found, StoreError> {
    let tenant = row.try_get::<_, Option<_>>(1)?.map(TenantId);
    let token = Token {
        id: TokenId(row.try_get(0)?),
        tenant,
        role: row.try_get::<_, Word<_>>(2)?.0,
        tasks: row.try_get::<_, Option<Json<_>>>(3)?.map(|tasks| tasks.0),
        proof: row.try_get::<_, Json<_>>(4)?.0,
        note: row.try_get(5)?,
        created_at: row.try_get::<_, At>(6)?.0,
        expires_at: row.try_get::<_, Option<At>>(7)?.map(|at| at.0),
        revoked_at: row.try_get::<_, Option<At>>(8)?.map(|at| at.0),
    };
    let tenant = tenant.map(|_| read_tenant(row, 9)).transpose()?;
    Ok(Found { token, tenant })
}

/// Whether there was none of this hash.
async fn insert(c: &impl GenericClient, token: &Token, hash: TokenHash) -> Result<bool, StoreError> {
    let inserted = execute(
        c,
        "INSERT INTO token (hash, id, tenant_id, role, tasks, proof, note, created_at, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        &[
            &&hash[..],
            &token.id.0,
            &token.tenant.map(|tenant| tenant.0),
            &token.role.as_str(),
            &token.tasks.as_ref().map(Json),
            &Json(&token.proof),
            &text(&token.note),
            &At(token.created_at),
            &token.expires_at.map(At),
            &token.revoked_at.map(At),
        ],
    )
    .await?;
    Ok(inserted > 0)
}
