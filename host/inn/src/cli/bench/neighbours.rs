//! How long a tenant's runs take beside others that take all they may.

use super::fairness::{Waits, begin, refuse_errors, tenant, times};
use super::fleet::Fleet;
use crate::cli::client::{Client, call};
use crate::cli::{Global, upload};
use anyhow::Result;
use innkeeper_api::proto::{
    CreateTaskRequest, CreateTenantRequest, Payload, QuotaValue, Run, SetQuotasRequest, StartRunRequest,
    StartRunsRequest, TaskSpec,
};
use innkeeper_domain::quota::Quota;
use innkeeper_runtime::bench::HOSTILE;
use std::time::Duration;

/// Tenants that attack.
pub const ATTACKERS: usize = 20;
/// What each of them may have; it takes all of it.
pub const QUOTAS: [(Quota, u64); 3] =
    [(Quota::ConcurrentRuns, 2), (Quota::BeginsPerSecond, 5), (Quota::RunLogBytes, 256 * 1024)];
/// What their runs do, as the guest reads it: an endless loop, memory, log, output, random bytes.
const KINDS: [u8; 5] = *b"smloc";
/// Runs that each of them has queued: more than it can begin while it is measured.
const QUEUED: usize = 1_000;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Neighbours {
    pub alone: Waits,
    pub beside: Waits,
}

/// Measures for so long how long a quiet tenant's runs take without attackers, and as long with them.
pub async fn neighbours(fleet: &Fleet<'_>, duration: Duration) -> Result<Neighbours> {
    let hosts = fleet.start().await?;
    let global = hosts.globals().swap_remove(0);
    let quiet = tenant(&global, "quiet").await?;
    let never = async || Ok(false);
    let alone = times(&quiet, begin(&quiet, duration, never).await?, took).await?;
    for number in 0..ATTACKERS {
        attack(&global, &format!("attacker-{number}")).await?;
    }
    let beside = times(&quiet, begin(&quiet, duration, never).await?, took).await?;
    hosts.stop().await;
    Ok(Neighbours { alone, beside })
}

/// From the request to the end.
fn took(run: &Run) -> Option<Duration> {
    crate::cli::runs::between(run.created_at, run.finished_at)
}

/// A new tenant that has more to do than it may.
async fn attack(global: &Global, name: &str) -> Result<()> {
    let admin = Client::connect(global).await?;
    let request = CreateTenantRequest { name: name.into(), ..CreateTenantRequest::default() };
    admin.tenants().create_tenant(call(request)).await?;
    let client = Client::connect(&Global { tenant: Some(name.into()), ..global.clone() }).await?;
    let quotas = QUOTAS.map(|(quota, value)| QuotaValue { name: quota.to_string(), value: Some(value) });
    client.quotas().set_quotas(call(SetQuotasRequest { quotas: quotas.to_vec() })).await?;
    let pushed = upload::push(&client, HOSTILE.to_vec()).await?.component.unwrap_or_default();
    let spec = TaskSpec {
        component: pushed.digest,
        timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..TaskSpec::default()
    };
    let request = CreateTaskRequest { name: "attack".into(), spec: Some(spec) };
    client.tasks().create_task(call(request)).await?;
    let starts = (0..QUEUED).map(|number| StartRunRequest {
        task: "attack".into(),
        input: Some(Payload { content_type: "text/plain".into(), bytes: vec![KINDS[number % KINDS.len()]] }),
        ..StartRunRequest::default()
    });
    let started = client.runs().start_runs(call(StartRunsRequest { starts: starts.collect() })).await?;
    refuse_errors(&started.into_inner().results)
}
