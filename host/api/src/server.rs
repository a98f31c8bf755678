//! All services on one port, with their bounds.

use crate::Api;
use crate::auth::Auth;
use crate::budget::{Budget, WithinBudget};
use crate::gate::Gate;
use crate::intercept::Before;
use crate::listen::Listener;
use crate::proto::DESCRIPTORS;
use crate::proto::audit_service_server::AuditServiceServer;
use crate::proto::backfill_service_server::BackfillServiceServer;
use crate::proto::component_service_server::ComponentServiceServer;
use crate::proto::event_service_server::EventServiceServer;
use crate::proto::forecast_service_server::ForecastServiceServer;
use crate::proto::holiday_service_server::HolidayServiceServer;
use crate::proto::host_service_server::HostServiceServer;
use crate::proto::quota_service_server::QuotaServiceServer;
use crate::proto::run_service_server::RunServiceServer;
use crate::proto::secret_service_server::SecretServiceServer;
use crate::proto::task_service_server::TaskServiceServer;
use crate::proto::tenant_service_server::TenantServiceServer;
use crate::proto::token_service_server::TokenServiceServer;
use crate::proto::trigger_service_server::TriggerServiceServer;
use crate::proto::usage_service_server::UsageServiceServer;
use crate::webhook::Webhooks;
use innkeeper_domain::limits::{CALL_TIMEOUT, MESSAGE_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// A sign of life is asked of a silent connection after so long, and must come in as long again.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes of a message of somebody who has shown no token.
const STRANGERS_MESSAGE_BYTES_MAX: usize = 1024;

/// The host can't serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the services can't be described for reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the port can't be served: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `api.stop`; then lets calls end that have begun, and writes what is left for the audit log.
pub async fn serve(api: Api, listener: Listener) -> Result<(), ServeError> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<RunServiceServer<Api>>().await;
    // Strangers may ask for it: they have nothing to say that is long.
    let health = health.max_decoding_message_size(STRANGERS_MESSAGE_BYTES_MAX);
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
    let gate = Arc::new(Gate::new(Arc::clone(&api.now)));
    let ended = CancellationToken::new();
    let written = gate.denials.write(api.store.as_ref(), &api.now, ended.clone());
    let served = Server::builder()
        .timeout(CALL_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .accept_http1(true)
        .layer(Before(Webhooks::new(api.clone(), Arc::clone(&gate))))
        .layer(Before(Auth { api: api.clone(), gate: Arc::clone(&gate) }))
        .layer(WithinBudget(Budget::default()))
        .add_service(health)
        .add_service(reflection)
        .add_service(bounded!(AuditServiceServer))
        .add_service(bounded!(BackfillServiceServer))
        .add_service(bounded!(ComponentServiceServer))
        .add_service(bounded!(EventServiceServer))
        .add_service(bounded!(ForecastServiceServer))
        .add_service(bounded!(HolidayServiceServer))
        .add_service(bounded!(HostServiceServer))
        .add_service(bounded!(QuotaServiceServer))
        .add_service(bounded!(RunServiceServer))
        .add_service(bounded!(SecretServiceServer))
        .add_service(bounded!(TaskServiceServer))
        .add_service(bounded!(TenantServiceServer))
        .add_service(bounded!(TokenServiceServer))
        .add_service(bounded!(TriggerServiceServer))
        .add_service(bounded!(UsageServiceServer))
        .serve_with_incoming_shutdown(listener.incoming(), stop.cancelled_owned());
    let served = async {
        let served = served.await;
        ended.cancel();
        served
    };
    let (served, ()) = tokio::join!(served, written);
    Ok(served?)
}
