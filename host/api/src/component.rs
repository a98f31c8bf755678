//! Components, and how they come.

use crate::Api;
use crate::caller::Caller;
use crate::convert::{from_instant, page};
use crate::proto::component_service_server::ComponentService;
use crate::proto::push_component_request::Part;
use crate::proto::{self, component::Shape as ProtoShape};
use crate::status::{invalid, of_refusal, of_store};
use crate::upload::{self, Upload};
use bytes::Bytes;
use innkeeper_domain::component::{Component, Digest, Refusal, Shape};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::COMPONENT_BYTES_MAX;
use innkeeper_store::StoreError;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl ComponentService for Api {
    async fn push_component(
        &self,
        request: Request<Streaming<proto::PushComponentRequest>>,
    ) -> Result<Response<proto::PushComponentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = upload::next(&mut parts).await?.and_then(|message| message.part)
        else {
            return Err(invalid("an upload begins with its header"));
        };
        let digest = announced(&header.digest, header.size)?;
        if let Some(component) = self.known(tenant, digest).await? {
            let component = Some(from_component(component));
            return Ok(Response::new(proto::PushComponentResponse { component, existed: true }));
        }
        let _slot = self.uploads.take(tenant)?;
        let mut upload = Upload::begin(self, tenant, digest, &header).await?;
        upload.receive(&mut parts).await?;
        let bytes = Bytes::from(std::mem::take(&mut upload.bytes));
        let inspected = match self.inspector.inspect(digest, bytes.clone()).await {
            Ok(inspected) => inspected,
            Err(refusal) => {
                if !matches!(refusal, Refusal::Unavailable(_)) {
                    upload.end().await;
                }
                return Err(of_refusal(&refusal));
            }
        };
        let component = Component {
            digest,
            size: header.size,
            shape: inspected.shape,
            adapted: inspected.adapted,
            imports: inspected.imports,
            created_at: (self.now)(),
        };
        // An upload takes its time.
        self.still_changes(&caller).await?;
        let existed = self
            .store
            .component_put(tenant, component.clone(), bytes.into(), caller.change((self.now)()))
            .await
            .map_err(of_store)?;
        upload.end().await;
        let component = Some(from_component(component));
        Ok(Response::new(proto::PushComponentResponse { component, existed }))
    }

    async fn begin_upload(
        &self,
        request: Request<proto::BeginUploadRequest>,
    ) -> Result<Response<proto::BeginUploadResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let digest = announced(&request.digest, request.size)?;
        if let Some(component) = self.known(tenant, digest).await? {
            let component = Some(from_component(component));
            return Ok(Response::new(proto::BeginUploadResponse { received: request.size, component }));
        }
        let received = upload::begin(self, tenant, digest, request.size).await.map_err(of_store)?;
        Ok(Response::new(proto::BeginUploadResponse { received, component: None }))
    }

    async fn get_component(
        &self,
        request: Request<proto::GetComponentRequest>,
    ) -> Result<Response<proto::Component>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let component = self.store.component_get(tenant, &request.into_inner().digest).await;
        Ok(Response::new(from_component(component.map_err(of_store)?)))
    }

    async fn list_components(
        &self,
        request: Request<proto::ListComponentsRequest>,
    ) -> Result<Response<proto::ListComponentsResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let request = request.into_inner();
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.component_list(tenant, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListComponentsResponse {
            components: found.items.into_iter().map(from_component).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn delete_component(
        &self,
        request: Request<proto::DeleteComponentRequest>,
    ) -> Result<Response<proto::DeleteComponentResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let component = self.store.component_get(tenant, &request.into_inner().digest).await;
        let digest = component.map_err(of_store)?.digest;
        self.store.component_delete(tenant, digest, caller.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteComponentResponse {}))
    }
}

/// The digest of an upload, if it can be one.
fn announced(digest: &str, size: u64) -> Result<Digest, Status> {
    if size > COMPONENT_BYTES_MAX {
        return Err(of_refusal(&Refusal::TooLarge { bytes: size, max: COMPONENT_BYTES_MAX }));
    }
    digest.parse().map_err(invalid)
}

impl Api {
    /// The tenant's component of that digest, if its bytes are there and whole.
    async fn known(&self, tenant: TenantId, digest: Digest) -> Result<Option<Component>, Status> {
        let component = match self.store.component_get(tenant, &digest.hex()).await {
            Ok(component) => component,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(of_store(error)),
        };
        // In turns, for all of them come into memory to be looked at, once for every call.
        let store = Arc::clone(&self.store);
        let read = async move { store.component_bytes(digest).await.map(drop) };
        match self.reads.take(tenant, read).await? {
            Ok(()) => Ok(Some(component)),
            // The upload mends it.
            Err(StoreError::NotFound(_) | StoreError::Corrupt(_)) => Ok(None),
            Err(error) => Err(of_store(error)),
        }
    }
}

fn from_component(component: Component) -> proto::Component {
    let shape = match component.shape {
        Shape::Handler => ProtoShape::Handler,
        Shape::Command => ProtoShape::Command,
    };
    proto::Component {
        digest: component.digest.to_string(),
        size: component.size,
        shape: shape.into(),
        adapted: component.adapted,
        imports: component.imports,
        created_at: Some(from_instant(component.created_at)),
    }
}
