//! Quotas.

use crate::caller::Caller;
use crate::proto::quota_service_server::QuotaService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::quota::{Quota, QuotaUse, Quotas};
use innkeeper_domain::tenant::TenantUpdate;
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

/// The greatest value of a quota: what the databases' integers hold.
const VALUE_MAX: u64 = i64::MAX as u64;

#[tonic::async_trait]
impl QuotaService for Api {
    async fn get_quotas(
        &self,
        request: Request<proto::GetQuotasRequest>,
    ) -> Result<Response<proto::GetQuotasResponse>, Status> {
        let caller = Caller::of(&request)?;
        let used = self.store.tenant_use(caller.tenant, (self.now)()).await.map_err(of_store)?;
        Ok(Response::new(from_quotas(&caller.of.quotas, &used)))
    }

    async fn set_quotas(
        &self,
        request: Request<proto::SetQuotasRequest>,
    ) -> Result<Response<proto::GetQuotasResponse>, Status> {
        let caller = Caller::of(&request)?;
        let quotas = quota_values(&request.into_inner().quotas)?;
        let update = TenantUpdate { quotas, ..TenantUpdate::default() };
        let now = (self.now)();
        let tenant = self.store.tenant_update(&caller.of.name, update, caller.change(now)).await;
        let tenant = tenant.map_err(of_store)?;
        let used = self.store.tenant_use(tenant.id, now).await.map_err(of_store)?;
        Ok(Response::new(from_quotas(&tenant.quotas, &used)))
    }
}

/// Quotas that are given, each once: what to set and what to take away.
pub(crate) fn quota_values(given: &[proto::QuotaValue]) -> Result<BTreeMap<Quota, Option<u64>>, Status> {
    let mut quotas = BTreeMap::new();
    for proto::QuotaValue { name, value } in given {
        let quota: Quota = name.parse().map_err(invalid)?;
        if value.is_some_and(|value| value > VALUE_MAX) {
            return Err(invalid(format!(
                "the quota `{quota}` is at most {VALUE_MAX}; without a value it has no bound"
            )));
        }
        value
            .map_or(Ok(()), |value| quota.check_value(value))
            .map_err(|e| invalid(format!("the quota `{quota}`: {e}")))?;
        if quotas.insert(quota, *value).is_some() {
            return Err(invalid(format!("the quota `{quota}` is given twice")));
        }
    }
    Ok(quotas)
}

/// Those of them that are to be set.
pub(crate) fn set_values(given: BTreeMap<Quota, Option<u64>>) -> BTreeMap<Quota, u64> {
    given.into_iter().filter_map(|(quota, value)| Some((quota, value?))).collect()
}

/// Every kind, whether or not it has a value.
fn from_quotas(quotas: &Quotas, used: &QuotaUse) -> proto::GetQuotasResponse {
    let from = |quota: &Quota| proto::Quota {
        name: quota.to_string(),
        value: quotas.get(*quota),
        used: used.0.get(quota).copied(),
    };
    proto::GetQuotasResponse { quotas: Quota::ALL.iter().map(from).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, value: Option<u64>) -> proto::QuotaValue {
        proto::QuotaValue { name: name.into(), value }
    }

    #[test]
    fn quotas_are_known_bounded_and_given_once() {
        let given = quota_values(&[value("triggers", Some(0)), value("fan-out", None)]).unwrap();
        assert_eq!(given, [(Quota::Triggers, Some(0)), (Quota::FanOut, None)].into());
        assert_eq!(set_values(given), [(Quota::Triggers, 0)].into());
        let refused = |given: &[proto::QuotaValue]| quota_values(given).unwrap_err().message().to_string();
        let unknown = refused(&[value("trigger", Some(1))]);
        assert!(Quota::ALL.iter().all(|quota| unknown.contains(quota.as_str())), "{unknown}");
        assert!(refused(&[value("triggers", Some(u64::MAX))]).contains("at most"));
        assert!(quota_values(&[value("open-networks", Some(0b11))]).is_ok());
        assert!(refused(&[value("open-networks", Some(1 << 40))]).contains("private=2"));
        assert!(refused(&[value("triggers", Some(1)), value("triggers", None)]).contains("twice"));
    }

    #[test]
    fn an_answer_has_every_quota() {
        let quotas = Quotas([(Quota::Triggers, 9)].into());
        let used = QuotaUse([(Quota::Triggers, 3)].into());
        let answer = from_quotas(&quotas, &used).quotas;
        assert_eq!(answer.len(), Quota::ALL.len());
        let triggers = answer.iter().find(|quota| quota.name == "triggers").unwrap();
        assert_eq!((triggers.value, triggers.used), (Some(9), Some(3)));
    }
}
