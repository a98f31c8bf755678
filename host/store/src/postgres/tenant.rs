//! Tenants and tokens in PostgreSQL.

use super::PostgresStore;
use super::connection::{in_transaction, reading};
use super::row::{At, execute, row};
use crate::{Role, StoreError, Tenant, TenantStore, TokenHolder};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;

#[async_trait]
impl TenantStore for PostgresStore {
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            execute(
                c,
                "INSERT INTO tenant (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                &[&TenantId::new(now).0, &name.as_str(), &At(now)],
            )
            .await?;
            tenant(c, name).await?
        })
    }

    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError> {
        reading!(&self.shared.pool, |c| tenant(c, name).await?)
    }

    async fn token_put(&self, hash: [u8; 32], holder: TokenHolder, now: Timestamp) -> Result<(), StoreError> {
        let role = match holder.role {
            Role::Admin => "admin",
        };
        in_transaction!(&self.shared.pool, |c| {
            execute(
                c,
                "INSERT INTO token (hash, tenant_id, role, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                &[&&hash[..], &holder.tenant.map(|id| id.0), &role, &At(now)],
            )
            .await?;
        })
    }

    async fn token_find(&self, hash: [u8; 32]) -> Result<Option<TokenHolder>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let found = row(c, "SELECT tenant_id, role FROM token WHERE hash = $1", &[&&hash[..]]).await?;
            match found {
                None => None,
                Some(found) => match found.try_get::<_, &str>(1)? {
                    "admin" => Some(TokenHolder {
                        tenant: found.try_get::<_, Option<_>>(0)?.map(TenantId),
                        role: Role::Admin,
                    }),
                    role => {
                        return Err(StoreError::Corrupt(format!("a token has the unknown role `{role}`")));
                    }
                },
            }
        })
    }
}

async fn tenant(c: &impl GenericClient, name: &Name) -> Result<Tenant, StoreError> {
    let found = row(c, "SELECT id FROM tenant WHERE name = $1", &[&name.as_str()]).await?;
    let found = found.ok_or_else(|| StoreError::NotFound(format!("tenant `{name}`")))?;
    Ok(Tenant { id: TenantId(found.try_get(0)?), name: name.clone() })
}
