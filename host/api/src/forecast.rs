//! Forecasts.

use crate::caller::Caller;
use crate::convert::{from_instant, optional_name};
use crate::proto::forecast_service_server::ForecastService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::forecast::{BusyMinute, Forecast, Named, Plan, Scope, TaskForecast, Warning, forecast};
use innkeeper_domain::limits::{
    FORECAST_HOURS_DEFAULT, FORECAST_HOURS_MAX, FORECAST_TRIGGERS_MAX, PAGE_ROWS_MAX,
};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::{Quota, Quotas};
use innkeeper_domain::time;
use innkeeper_store::Page;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ForecastService for Api {
    async fn forecast(
        &self,
        request: Request<proto::ForecastRequest>,
    ) -> Result<Response<proto::ForecastResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let hours = hours(request.hours)?;
        let task = optional_name(&request.task, "the task")?;
        if let Some(task) = &task {
            caller.task(task)?;
        }
        let slot = self.forecasts.take(caller.tenant)?;
        let from = (self.now)();
        let (plans, more_triggers) = self.plans(&caller, task.as_ref()).await?;
        let names: BTreeSet<Name> = plans.iter().flat_map(|plan| plan.spec.exclude.iter().cloned()).collect();
        let holidays = self.store.holidays_dates(caller.tenant, names).await.map_err(of_store)?;
        // Who may see some tasks only is not told what the tenant may have, and has.
        let quotas = if caller.only().is_some() { Quotas::default() } else { caller.of.quotas.clone() };
        let stored_bytes = match quotas.get(Quota::StoredBytes) {
            None => 0,
            Some(_) => {
                let used = self.store.tenant_use(caller.tenant, from).await.map_err(of_store)?;
                used.0.get(&Quota::StoredBytes).copied().unwrap_or_default()
            }
        };
        let triggers = plans.len() as u64;
        let state = caller.of.state;
        // Seconds of work at most, but more than the threads of calls have.
        let reckoned = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let scope = Scope {
                from,
                until: time::after(from, hours),
                holidays: &holidays,
                zones: &BundledZones,
                tenant: state,
                quotas: &quotas,
                stored_bytes,
            };
            forecast(plans, scope)
        });
        let reckoned = reckoned.await.map_err(|error| Status::internal(error.to_string()))?;
        let told = from_forecast(reckoned);
        Ok(Response::new(proto::ForecastResponse { triggers, more_triggers, ..told }))
    }
}

fn hours(asked: u32) -> Result<Duration, Status> {
    let hours = match asked {
        0 => FORECAST_HOURS_DEFAULT,
        1..=FORECAST_HOURS_MAX => asked,
        _ => {
            return Err(invalid(format!(
                "a forecast of {asked} hours was asked for; it may be of 1 to {FORECAST_HOURS_MAX}"
            )));
        }
    };
    Ok(Duration::from_secs(u64::from(hours) * 3_600))
}

impl Api {
    /// The triggers that a forecast is of, and whether there are more.
    async fn plans(&self, caller: &Caller, task: Option<&Name>) -> Result<(Vec<Plan>, bool), Status> {
        let (mut plans, mut after) = (Vec::new(), None);
        loop {
            let page = Page { size: PAGE_ROWS_MAX, after };
            let found = self.store.trigger_plans(caller.tenant, task, caller.only(), page).await;
            let found = found.map_err(of_store)?;
            plans.extend(found.items);
            if plans.len() > FORECAST_TRIGGERS_MAX {
                plans.truncate(FORECAST_TRIGGERS_MAX);
                return Ok((plans, true));
            }
            match found.next {
                None => return Ok((plans, false)),
                next => after = next,
            }
        }
    }
}

fn from_forecast(forecast: Forecast) -> proto::ForecastResponse {
    proto::ForecastResponse {
        from: Some(from_instant(forecast.from)),
        until: Some(from_instant(forecast.until)),
        incomplete_from: forecast.incomplete_from.map(from_instant),
        runs: forecast.runs,
        tasks: forecast.tasks.into_iter().map(from_task).collect(),
        more_tasks: forecast.more_tasks,
        minutes: forecast.minutes.into_iter().map(from_minute).collect(),
        hours: forecast
            .hours
            .into_iter()
            .map(|(at, runs)| proto::ForecastHour { at: Some(from_instant(at)), runs })
            .collect(),
        paused: Some(from_named(forecast.paused)),
        estimated: Some(from_named(forecast.estimated)),
        overdue: Some(from_named(forecast.overdue)),
        unreadable: Some(from_named(forecast.unreadable)),
        warnings: forecast.warnings.iter().map(from_warning).collect(),
        triggers: 0,
        more_triggers: false,
    }
}

fn from_task(task: TaskForecast) -> proto::TaskForecast {
    proto::TaskForecast {
        task: task.task.to_string(),
        runs: task.runs,
        estimated: task.estimated,
        first: Some(from_instant(task.first)),
        last: Some(from_instant(task.last)),
    }
}

fn from_minute(minute: BusyMinute) -> proto::BusyMinute {
    let runs = |(task, runs): (Name, u64)| proto::busy_minute::TaskRuns { task: task.to_string(), runs };
    proto::BusyMinute {
        at: Some(from_instant(minute.at)),
        runs: minute.runs,
        at_once: minute.at_once,
        tasks: minute.tasks.into_iter().map(runs).collect(),
        more_tasks: minute.more_tasks,
    }
}

fn from_named(named: Named) -> proto::NamedTriggers {
    proto::NamedTriggers { count: named.count, names: named.names.iter().map(Name::to_string).collect() }
}

fn from_warning(warning: &Warning) -> proto::ForecastWarning {
    let kind = match warning {
        Warning::Suspended => "suspended",
        Warning::ConcurrentRuns { .. } => "concurrent-runs",
        Warning::StoredBytes { .. } => "stored-bytes",
    };
    proto::ForecastWarning { kind: kind.into(), text: warning.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_bounded() {
        let seconds = |asked| hours(asked).map(|hours| hours.as_secs());
        assert_eq!([0, 1, 744].map(|asked| seconds(asked).unwrap()), [86_400, 3_600, 744 * 3_600]);
        let refused = seconds(745).unwrap_err();
        assert!(refused.message().contains("1 to 744"), "{refused:?}");
    }
}
