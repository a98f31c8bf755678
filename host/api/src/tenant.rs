//! Tenants.

use crate::caller::{Caller, Known};
use crate::convert::{from_instant, name, note, page};
use crate::proto::tenant::State;
use crate::proto::tenant_service_server::TenantService;
use crate::quota::{quota_values, set_values};
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::quota::Quotas;
use innkeeper_domain::tenant::{Tenant, TenantPause, TenantState, TenantUpdate};
use innkeeper_store::{NewTenant, StoreError};
use tonic::{Request, Response, Status};

/// The weight of a tenant that none is given.
const WEIGHT_DEFAULT: u32 = 1;

#[tonic::async_trait]
impl TenantService for Api {
    async fn create_tenant(
        &self,
        request: Request<proto::CreateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let known = Known::of(&request)?;
        let request = request.into_inner();
        let now = (self.now)();
        let weight = if request.weight == 0 { WEIGHT_DEFAULT } else { request.weight };
        let update = TenantUpdate { weight: Some(weight), ..TenantUpdate::default() };
        update.check().map_err(invalid)?;
        let quotas = Quotas(set_values(quota_values(&request.quotas)?));
        let name = name(&request.name, "the tenant")?;
        let tenant = NewTenant { id: TenantId::new(now), name, weight, quotas };
        let tenant = self.store.tenant_create(tenant, known.change(now)).await.map_err(of_store)?;
        Ok(Response::new(from_tenant(&tenant)))
    }

    async fn get_tenant(
        &self,
        request: Request<proto::GetTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner().name;
        if asked.is_empty() || asked == caller.of.name.as_str() {
            return Ok(Response::new(from_tenant(&caller.of)));
        }
        let name = name(&asked, "the tenant")?;
        if !caller.known.is_admin() {
            caller.denied();
            return Err(of_store(StoreError::NotFound(format!("tenant `{name}`"))));
        }
        let tenant = self.store.tenant_get(&name).await.map_err(of_store)?;
        Ok(Response::new(from_tenant(&tenant)))
    }

    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        Known::of(&request)?;
        let request = request.into_inner();
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.tenant_list(page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListTenantsResponse {
            tenants: found.items.iter().map(from_tenant).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<proto::UpdateTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let known = Known::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.name, "the tenant")?;
        let state = match (request.state(), request.note) {
            (State::Unspecified, note) if note.is_empty() => None,
            (State::Active, note) if note.is_empty() => Some((TenantState::Active, note)),
            (State::Unspecified | State::Active, _) => {
                return Err(invalid("a note says why a tenant is suspended; it goes with that state"));
            }
            (State::Suspended, note) => Some((TenantState::Suspended, note)),
        };
        let weight = Some(request.weight).filter(|weight| *weight > 0);
        let update = TenantUpdate { state, weight, ..TenantUpdate::default() };
        update.check().map_err(invalid)?;
        let tenant = self.store.tenant_update(&name, update, known.change((self.now)())).await;
        Ok(Response::new(from_tenant(&tenant.map_err(of_store)?)))
    }

    async fn pause_tenant(
        &self,
        request: Request<proto::PauseTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        let (note, at) = (note(request.into_inner().note)?, (self.now)());
        self.set_pause(&caller, Some(TenantPause { note, at })).await
    }

    async fn unpause_tenant(
        &self,
        request: Request<proto::UnpauseTenantRequest>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let caller = Caller::of(&request)?;
        self.set_pause(&caller, None).await
    }

    async fn delete_tenant(
        &self,
        request: Request<proto::DeleteTenantRequest>,
    ) -> Result<Response<proto::DeleteTenantResponse>, Status> {
        let known = Known::of(&request)?;
        let name = name(&request.into_inner().name, "the tenant")?;
        self.store.tenant_delete(&name, known.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteTenantResponse {}))
    }
}

impl Api {
    async fn set_pause(
        &self,
        caller: &Caller,
        pause: Option<TenantPause>,
    ) -> Result<Response<proto::Tenant>, Status> {
        let update = TenantUpdate { pause: Some(pause), ..TenantUpdate::default() };
        let change = caller.change((self.now)());
        let tenant = self.store.tenant_update(&caller.of.name, update, change).await.map_err(of_store)?;
        Ok(Response::new(from_tenant(&tenant)))
    }
}

pub(crate) fn from_pause(pause: &TenantPause) -> proto::TenantPause {
    proto::TenantPause { note: pause.note.clone(), at: Some(from_instant(pause.at)) }
}

fn from_tenant(tenant: &Tenant) -> proto::Tenant {
    let state = match tenant.state {
        TenantState::Active => State::Active,
        TenantState::Suspended => State::Suspended,
    };
    proto::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name.to_string(),
        state: state.into(),
        note: tenant.note.clone(),
        weight: tenant.weight,
        created_at: Some(from_instant(tenant.created_at)),
        pause: tenant.pause.as_ref().map(from_pause),
    }
}
