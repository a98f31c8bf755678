//! Secrets: set, listed without their texts, deleted, and sealed anew.

use crate::caller::{Caller, Known};
use crate::convert::{from_instant, name, page};
use crate::proto::secret_service_server::SecretService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use async_trait::async_trait;
use innkeeper_domain::audit::{AuditEntry, AuditOutcome, Change};
use innkeeper_domain::ids::{AuditId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SecretInfo, SecretText};
use innkeeper_store::StoreError;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

/// Keeps secrets under the host's keys, which nothing else has.
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// Seals a text and keeps it, in the place of the one that the tenant has under this name. It takes place
    /// whole or not at all, also if the future is dropped.
    async fn set(
        &self,
        tenant: TenantId,
        name: Name,
        text: SecretText,
        change: Change,
    ) -> Result<SecretInfo, VaultError>;

    /// The text that the tenant has under this name. `Store` with `NotFound`; `Keys` if it can't be opened.
    async fn text(&self, tenant: TenantId, name: &Name) -> Result<SecretText, VaultError>;

    /// Seals every tenant's secrets with the current key, which is a new one if the host makes its keys itself.
    /// Whatever cuts it off, no secret is lost, and the next call goes on.
    async fn rotate(&self) -> Result<Rotated, VaultError>;
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that all are sealed with now.
    pub key_id: String,
    /// Those that were sealed anew.
    pub rotated: u64,
}

/// Why a vault didn't do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's keys forbid it; the text says what would help.
    #[error("{0}")]
    Keys(String),
    /// The machine doesn't do it: no randomness, or a file that can't be written.
    #[error("{0}")]
    Machine(String),
}

pub(crate) fn of_vault(error: VaultError) -> Status {
    match error {
        VaultError::Store(error) => of_store(error),
        VaultError::Keys(words) => Status::failed_precondition(words),
        VaultError::Machine(words) => {
            tracing::error!(words, "a call failed");
            Status::internal(words)
        }
    }
}

#[tonic::async_trait]
impl SecretService for Api {
    async fn set_secret(
        &self,
        request: Request<proto::SetSecretRequest>,
    ) -> Result<Response<proto::Secret>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let text = SecretText::new(request.text).map_err(invalid)?;
        let name = name(&request.name, "the secret")?;
        let set = self.vault.set(caller.tenant, name, text, caller.change((self.now)())).await;
        Ok(Response::new(from_secret(set.map_err(of_vault)?)))
    }

    async fn list_secrets(
        &self,
        request: Request<proto::ListSecretsRequest>,
    ) -> Result<Response<proto::ListSecretsResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let page = page(request.page_size, request.page_token)?;
        let secrets = self.store.secret_list(tenant, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListSecretsResponse {
            secrets: secrets.items.into_iter().map(from_secret).collect(),
            next_page_token: secrets.next.unwrap_or_default(),
        }))
    }

    async fn delete_secret(
        &self,
        request: Request<proto::DeleteSecretRequest>,
    ) -> Result<Response<proto::DeleteSecretResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = name(&request.into_inner().name, "the secret")?;
        let change = caller.change((self.now)());
        self.store.secret_delete(caller.tenant, &name, change).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteSecretResponse {}))
    }

    async fn rotate_secrets(
        &self,
        request: Request<proto::RotateSecretsRequest>,
    ) -> Result<Response<proto::RotateSecretsResponse>, Status> {
        let known = Known::of(&request)?;
        // In commits of their own: a rotation is many, and one that is cut off is done again.
        self.rotation(&known, json!({"begun": true})).await?;
        let rotated = self.vault.rotate().await;
        let after = match &rotated {
            Ok(Rotated { key_id, rotated }) => json!({"key_id": key_id, "rotated": rotated}),
            Err(error) => json!({"error": error.to_string()}),
        };
        let on_record = self.rotation(&known, after).await;
        let Rotated { key_id, rotated } = rotated.map_err(of_vault)?;
        on_record?;
        Ok(Response::new(proto::RotateSecretsResponse { key_id, rotated }))
    }
}

impl Api {
    /// Puts on record how far a rotation has come.
    async fn rotation(&self, known: &Known, after: Value) -> Result<(), Status> {
        let now = (self.now)();
        let entry = AuditEntry {
            id: AuditId::new(now),
            at: now,
            tenant: None,
            actor: (*known.actor).clone(),
            object: "the secrets of every tenant".into(),
            outcome: AuditOutcome::Done,
            before: Value::Null,
            after,
            count: 1,
        };
        self.store.audit_append(vec![entry]).await.map_err(of_store)
    }
}

fn from_secret(secret: SecretInfo) -> proto::Secret {
    proto::Secret {
        name: secret.name.to_string(),
        key_id: secret.key_id,
        created_at: Some(from_instant(secret.created_at)),
        updated_at: Some(from_instant(secret.updated_at)),
        tasks: secret.tasks.iter().map(ToString::to_string).collect(),
    }
}
