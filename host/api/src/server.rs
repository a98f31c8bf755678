//! All services on one port, with their bounds.

use crate::Api;
use crate::auth::AuthLayer;
use crate::proto::DESCRIPTORS;
use crate::proto::component_service_server::ComponentServiceServer;
use crate::proto::host_service_server::HostServiceServer;
use crate::proto::run_service_server::RunServiceServer;
use crate::proto::task_service_server::TaskServiceServer;
use crate::proto::trigger_service_server::TriggerServiceServer;
use innkeeper_domain::limits::{CALL_TIMEOUT, MESSAGE_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// A sign of life is asked of a silent connection after so long, and must come in as long again.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The host can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the services can't be described for reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the port can't be served: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `api.stop`; then lets calls end that have begun.
pub async fn serve(api: Api, listener: TcpListener) -> Result<(), ServeError> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<RunServiceServer<Api>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let stop = api.stop.clone();
    macro_rules! bounded {
        ($server:ident) => {
            $server::new(api.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
    }
    Server::builder()
        .timeout(CALL_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .tcp_nodelay(true)
        .layer(AuthLayer(api.clone()))
        .add_service(health)
        .add_service(reflection)
        .add_service(bounded!(ComponentServiceServer))
        .add_service(bounded!(HostServiceServer))
        .add_service(bounded!(RunServiceServer))
        .add_service(bounded!(TaskServiceServer))
        .add_service(bounded!(TriggerServiceServer))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await?;
    Ok(())
}
