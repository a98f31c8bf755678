//! Tokens.

use crate::auth::{TOKEN_PREFIX, certificate_hash, subject_hash, token_hash};
use crate::caller::Caller;
use crate::convert::{from_instant, instant, name, page};
use crate::proto::token_service_server::TokenService;
use crate::status::{invalid, of_store};
use crate::tenant::from_pause;
use crate::{Api, proto};
use innkeeper_domain::access::{Proof, Role, Token};
use innkeeper_domain::ids::{TenantId, TokenId};
use innkeeper_domain::limits::{PAGE_ROWS_MAX, TOKEN_TASKS_MAX};
use innkeeper_store::{Page, StoreError, TokenHash};
use tonic::{Request, Response, Status};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let now = (self.now)();
        let role: Role = request.role.parse().map_err(invalid)?;
        caller.needs(role, &format!("to make a token of the role `{role}`"))?;
        let (proof, hash, text) = self.proof(&caller, request.certificate, request.subject)?;
        // Counted first: names are parsed and kept only within the bound.
        if request.tasks.len() > TOKEN_TASKS_MAX {
            return Err(invalid(format!("a token is for at most {TOKEN_TASKS_MAX} tasks, or for all")));
        }
        let tasks = request.tasks.iter().map(|task| name(task, "the task")).collect::<Result<_, _>>()?;
        let expires_at = request.expires_at.as_ref().map(|at| instant(at, "the token's end")).transpose()?;
        let token = Token {
            id: TokenId::new(now),
            tenant: (role != Role::Admin).then_some(caller.tenant),
            role,
            tasks: (!request.tasks.is_empty()).then_some(tasks),
            proof,
            note: request.note,
            created_at: now,
            expires_at,
            revoked_at: None,
        };
        token.check().map_err(invalid)?;
        let token = self.store.token_create(token, hash, caller.change(now)).await.map_err(of_store)?;
        // Its first call passes also from an address where others guess.
        if token.proof == Proof::Token {
            caller.known.gate.good(hash);
        }
        let token = Some(from_token(&token, Some(caller.of.name.as_str())));
        Ok(Response::new(proto::CreateTokenResponse { token, text }))
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if request.all {
            caller.lists_all("tokens")?;
        }
        let tenant = (!request.all).then_some(caller.tenant);
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.token_list(tenant, page).await.map_err(of_store)?;
        let from = |found: &innkeeper_store::Found| {
            from_token(&found.token, found.tenant.as_ref().map(|tenant| tenant.name.as_str()))
        };
        Ok(Response::new(proto::ListTokensResponse {
            tokens: found.items.iter().map(from).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::Token>, Status> {
        let caller = Caller::of(&request)?;
        let id: TokenId = request.into_inner().id.parse().map_err(invalid)?;
        let tenant = (!caller.known.is_admin()).then_some(caller.tenant);
        let token = self.store.token_revoke(tenant, id, caller.change((self.now)())).await;
        let token = token.map_err(of_store)?;
        let name = match token.tenant {
            Some(tenant) if tenant == caller.tenant => Some(caller.of.name.to_string()),
            Some(tenant) => self.tenant_name(tenant).await?,
            None => None,
        };
        Ok(Response::new(from_token(&token, name.as_deref())))
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.of.name.as_str();
        Ok(Response::new(proto::WhoAmIResponse {
            token: Some(from_token(&caller.known.token, Some(tenant))),
            tenant: tenant.into(),
            host: self.name.to_string(),
            version: self.version.into(),
            tenant_state: caller.of.state.to_string(),
            tenant_pause: caller.of.pause.as_ref().map(from_pause),
        }))
    }
}

impl Api {
    /// How the holder of a new token is to show who it is, what is stored of that, and the text that only its maker
    /// is told.
    fn proof(
        &self,
        caller: &Caller,
        certificate: String,
        subject: String,
    ) -> Result<(Proof, TokenHash, String), Status> {
        if certificate.is_empty() && subject.is_empty() {
            let mut bytes = [0; TOKEN_BYTES];
            getrandom::fill(&mut bytes)
                .map_err(|e| Status::unavailable(format!("the host has no randomness: {e}")))?;
            let text = format!("{TOKEN_PREFIX}{}", hex::encode(bytes));
            return Ok((Proof::Token, token_hash(&text), text));
        }
        // They are names of the whole host's: whoever gives one a role decides for which tenant its holder acts.
        caller.needs(Role::Admin, "to give a certificate or subject a role")?;
        match (certificate, subject) {
            (certificate, subject) if subject.is_empty() => {
                if !["DNS:", "URI:", "CN:"].iter().any(|kind| certificate.starts_with(kind)) {
                    return Err(invalid("a certificate's name is `DNS:name`, `URI:uri` or `CN:name`"));
                }
                let hash = certificate_hash(&certificate);
                Ok((Proof::Certificate(certificate), hash, String::new()))
            }
            (certificate, subject) if certificate.is_empty() => {
                let Some(identity) = &self.identity else {
                    return Err(Status::failed_precondition(
                        "the host trusts no identity provider, so there are no subjects to give a role",
                    ));
                };
                let hash = subject_hash(identity.issuer(), &subject);
                Ok((Proof::Subject(subject), hash, String::new()))
            }
            _ => Err(invalid("a token is for a certificate or for a subject, not for both")),
        }
    }

    /// The name of a tenant, if there still is one.
    async fn tenant_name(&self, id: TenantId) -> Result<Option<String>, Status> {
        let mut page = Page { size: PAGE_ROWS_MAX, after: None };
        loop {
            let found = match self.store.tenant_list(page).await {
                Err(StoreError::NotFound(_)) => return Ok(None),
                found => found.map_err(of_store)?,
            };
            if let Some(tenant) = found.items.iter().find(|tenant| tenant.id == id) {
                return Ok(Some(tenant.name.to_string()));
            }
            let Some(next) = found.next else { return Ok(None) };
            page = Page { size: PAGE_ROWS_MAX, after: Some(next) };
        }
    }
}

/// A token; `tenant` is the name of its tenant, if it has one.
fn from_token(token: &Token, tenant: Option<&str>) -> proto::Token {
    let (certificate, subject) = match &token.proof {
        Proof::Token => (String::new(), String::new()),
        Proof::Certificate(name) => (name.clone(), String::new()),
        Proof::Subject(subject) => (String::new(), subject.clone()),
    };
    proto::Token {
        id: token.id.to_string(),
        tenant: tenant.filter(|_| token.tenant.is_some()).unwrap_or_default().into(),
        role: token.role.to_string(),
        tasks: token.tasks.iter().flatten().map(ToString::to_string).collect(),
        certificate,
        subject,
        note: token.note.clone(),
        created_at: Some(from_instant(token.created_at)),
        expires_at: token.expires_at.map(from_instant),
        revoked_at: token.revoked_at.map(from_instant),
    }
}
