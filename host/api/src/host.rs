//! The host itself.

use crate::proto::host_service_server::HostService;
use crate::{Api, proto};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl HostService for Api {
    async fn get_host(
        &self,
        _request: Request<proto::GetHostRequest>,
    ) -> Result<Response<proto::Host>, Status> {
        Ok(Response::new(proto::Host { id: self.host.to_string(), version: self.version.into() }))
    }
}
