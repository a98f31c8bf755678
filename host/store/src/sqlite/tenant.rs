//! Tenants and tokens in SQLite.

use super::SqliteStore;
use super::row::{At, Id};
use crate::{Role, StoreError, Tenant, TenantStore, TokenHolder};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use rusqlite::{Connection, OptionalExtension, params};

#[async_trait]
impl TenantStore for SqliteStore {
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError> {
        let name = name.clone();
        self.write(move |c| {
            c.prepare_cached(
                "INSERT INTO tenant (id, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![Id(TenantId::new(now).0), name.as_str(), At(now)])?;
            tenant(c, &name)
        })
        .await
    }

    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError> {
        let name = name.clone();
        self.read(move |c| tenant(c, &name)).await
    }

    async fn token_put(&self, hash: [u8; 32], holder: TokenHolder, now: Timestamp) -> Result<(), StoreError> {
        let role = match holder.role {
            Role::Admin => "admin",
        };
        let tenant = holder.tenant.map(|id| Id(id.0));
        self.write(move |c| {
            c.execute(
                "INSERT INTO token (hash, tenant_id, role, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![hash, tenant, role, At(now)],
            )?;
            Ok(())
        })
        .await
    }

    async fn token_find(&self, hash: [u8; 32]) -> Result<Option<TokenHolder>, StoreError> {
        self.read(move |c| {
            let mut find = c.prepare_cached("SELECT tenant_id, role FROM token WHERE hash = ?1")?;
            let row =
                find.query_row([hash], |row| Ok((row.get::<_, Option<Id>>(0)?, row.get::<_, String>(1)?)));
            match row.optional()? {
                None => Ok(None),
                Some((tenant, role)) if role == "admin" => {
                    Ok(Some(TokenHolder { tenant: tenant.map(|id| TenantId(id.0)), role: Role::Admin }))
                }
                Some((_, role)) => Err(StoreError::Corrupt(format!("a token has the unknown role `{role}`"))),
            }
        })
        .await
    }
}

fn tenant(c: &Connection, name: &Name) -> Result<Tenant, StoreError> {
    let mut get = c.prepare_cached("SELECT id FROM tenant WHERE name = ?1")?;
    let id = get.query_row([name.as_str()], |row| row.get::<_, Id>(0)).optional()?;
    let id = id.ok_or_else(|| StoreError::NotFound(format!("tenant `{name}`")))?;
    Ok(Tenant { id: TenantId(id.0), name: name.clone() })
}
