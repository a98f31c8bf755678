//! Uploads, and what was uploaded.

use crate::Api;
use crate::auth::Caller;
use crate::convert::{from_instant, page};
use crate::proto::component_service_server::ComponentService;
use crate::proto::push_component_request::{Header, Part};
use crate::proto::{self, component::Shape as ProtoShape};
use crate::status::{invalid, of_refusal, of_store};
use innkeeper_domain::component::{Component, Digest, Refusal, Shape};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{COMPONENT_BYTES_MAX, UPLOAD_CHUNK_BYTES_MAX, UPLOADS_MAX};
use innkeeper_store::StoreError;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl ComponentService for Api {
    async fn push_component(
        &self,
        request: Request<Streaming<proto::PushComponentRequest>>,
    ) -> Result<Response<proto::PushComponentResponse>, Status> {
        let tenant = Caller::of(&request)?.tenant;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|message| message.part) else {
            return Err(invalid("an upload begins with its header"));
        };
        let digest: Digest = header.digest.parse().map_err(invalid)?;
        if header.size > COMPONENT_BYTES_MAX {
            return Err(of_refusal(&Refusal::TooLarge { bytes: header.size, max: COMPONENT_BYTES_MAX }));
        }
        if let Some(component) = self.known(tenant, digest).await? {
            let component = Some(from_component(component));
            return Ok(Response::new(proto::PushComponentResponse { component, existed: true }));
        }
        let busy = || {
            Status::resource_exhausted(format!("{UPLOADS_MAX} uploads are under way; try again in a while"))
        };
        let _upload = self.uploads.try_acquire().map_err(|_| busy())?;
        let bytes = receive(&mut parts, &header, digest).await?;
        let inspected = self.inspector.inspect(digest, bytes.clone()).await.map_err(|e| of_refusal(&e))?;
        let component = Component {
            digest,
            size: header.size,
            shape: inspected.shape,
            adapted: inspected.adapted,
            imports: inspected.imports,
            created_at: (self.now)(),
        };
        let existed = self.store.component_put(tenant, component.clone(), bytes).await.map_err(of_store)?;
        let component = Some(from_component(component));
        Ok(Response::new(proto::PushComponentResponse { component, existed }))
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
        let tenant = Caller::of(&request)?.tenant;
        let component = self.store.component_get(tenant, &request.into_inner().digest).await;
        let digest = component.map_err(of_store)?.digest;
        self.store.component_delete(tenant, digest).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteComponentResponse {}))
    }
}

impl Api {
    /// The tenant's component of that digest, if its bytes are there and whole.
    async fn known(&self, tenant: TenantId, digest: Digest) -> Result<Option<Component>, Status> {
        let component = match self.store.component_get(tenant, &digest.hex()).await {
            Ok(component) => component,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(of_store(error)),
        };
        match self.store.component_bytes(digest).await {
            Ok(_) => Ok(Some(component)),
            // The upload mends it.
            Err(StoreError::NotFound(_) | StoreError::Corrupt(_)) => Ok(None),
            Err(error) => Err(of_store(error)),
        }
    }
}

async fn receive(
    parts: &mut Streaming<proto::PushComponentRequest>,
    header: &Header,
    digest: Digest,
) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(message) = parts.message().await? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(invalid("after the header an upload has chunks of bytes, and nothing else"));
        };
        if chunk.len() > UPLOAD_CHUNK_BYTES_MAX {
            return Err(invalid(format!("a chunk has at most {UPLOAD_CHUNK_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > header.size {
            return Err(invalid(format!(
                "the upload has more than the {} bytes that its header said",
                header.size
            )));
        }
    }
    if bytes.len() as u64 != header.size {
        return Err(Status::data_loss(format!(
            "the upload ended after {} of {} bytes; push it again",
            bytes.len(),
            header.size
        )));
    }
    if Sha256::digest(&bytes)[..] != digest.0 {
        return Err(Status::data_loss(format!("the bytes don't have the digest {digest}; push them again")));
    }
    Ok(bytes)
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
