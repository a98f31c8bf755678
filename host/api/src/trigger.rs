//! Triggers.

use crate::caller::Caller;
use crate::convert::{from_instant, input, instant, name, note, optional_name, page};
use crate::proto::trigger_service_server::TriggerService;
use crate::secret::of_vault;
use crate::status::{invalid, of_quota, of_store};
use crate::trigger_convert::{NEXT_TIMES_SHOWN, from_skip_count, from_trigger, spec, times_after};
use crate::{Api, proto};
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::holiday::{HolidayDates, Holidays};
use innkeeper_domain::ids::{TenantId, TriggerId};
use innkeeper_domain::limits::NEXT_TIMES_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::trigger::{SkipRange, Trigger, TriggerSpec};
use innkeeper_store::{NewTrigger, QueuedRuns};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TriggerService for Api {
    async fn create_trigger(
        &self,
        request: Request<proto::CreateTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let mut request = request.into_inner();
        let now = (self.now)();
        let task = name(&request.task, "the task")?;
        let name = optional_name(&request.name, "the trigger")?;
        let input = input(request.input.take())?;
        let spec = spec(&request, now)?;
        let id = TriggerId::new(now);
        let first = spec.check(id, &input, &BundledZones, now).map_err(invalid)?;
        if !spec.exclude.is_empty() {
            let holidays = self.holidays(tenant, spec.exclude.clone()).await?;
            spec.check_holidays(&of_calendars(&holidays, &spec), &BundledZones, now).map_err(invalid)?;
        }
        let quotas = &caller.of.quotas;
        if quotas.get(Quota::LeastInterval).is_some()
            && let Some(gap) = spec.least_gap(now).map_err(invalid)?
        {
            quotas.check_interval(gap).map_err(of_quota)?;
        }
        if let Rule::Webhook(rule) = &spec.rule {
            self.vault.text(tenant, &rule.secret).await.map_err(of_vault)?;
        }
        let trigger = NewTrigger { id, task, name, spec, input, first };
        let trigger =
            self.store.trigger_create(tenant, trigger, caller.change(now)).await.map_err(of_store)?;
        Ok(Response::new(self.shown(tenant, trigger).await?))
    }

    async fn get_trigger(
        &self,
        request: Request<proto::GetTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let caller = Caller::of(&request)?;
        let name = name(&request.into_inner().name, "the trigger")?;
        let trigger = self.store.trigger_get(caller.tenant, &name).await.map_err(of_store)?;
        caller.trigger(&trigger.task, &name)?;
        let counts = self.store.trigger_skip_counts(caller.tenant, &name).await.map_err(of_store)?;
        let mut trigger = self.shown(caller.tenant, trigger).await?;
        trigger.skips_by_reason = counts.into_iter().map(from_skip_count).collect();
        Ok(Response::new(trigger))
    }

    async fn list_times(
        &self,
        request: Request<proto::ListTimesRequest>,
    ) -> Result<Response<proto::ListTimesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.trigger, "the trigger")?;
        let after = request.after.as_ref().map_or(Ok((self.now)()), |at| instant(at, "the instant"))?;
        let count = match usize::try_from(request.count).unwrap_or(usize::MAX) {
            0 => NEXT_TIMES_SHOWN,
            count if count > NEXT_TIMES_MAX => {
                return Err(invalid(format!("at most {NEXT_TIMES_MAX} times can be asked for")));
            }
            count => count,
        };
        let trigger = self.store.trigger_get(caller.tenant, &name).await.map_err(of_store)?;
        caller.trigger(&trigger.task, &name)?;
        let holidays = self.holidays(caller.tenant, excluded(std::slice::from_ref(&trigger))).await?;
        let times = times_after(&trigger, &of_calendars(&holidays, &trigger.spec), after, count)?;
        Ok(Response::new(proto::ListTimesResponse { times: times.into_iter().map(from_instant).collect() }))
    }

    async fn list_triggers(
        &self,
        request: Request<proto::ListTriggersRequest>,
    ) -> Result<Response<proto::ListTriggersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let task = optional_name(&request.task, "the task")?;
        let page = page(request.page_size, request.page_token)?;
        if let Some(task) = &task {
            caller.task(task)?;
        }
        let found = self.store.trigger_list(caller.tenant, task.as_ref(), caller.only(), page).await;
        let found = found.map_err(of_store)?;
        Ok(Response::new(proto::ListTriggersResponse {
            triggers: self.shown_all(caller.tenant, found.items).await?,
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn pause_trigger(
        &self,
        request: Request<proto::PauseTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let request = request.into_inner();
        let name = name(&request.name, "the trigger")?;
        let note = note(request.note)?;
        let queued = if request.cancel_queued { QueuedRuns::Cancel } else { QueuedRuns::Keep };
        self.may_see_trigger(&caller, &name).await?;
        let change = caller.change((self.now)());
        let trigger = self.store.trigger_pause(tenant, &name, note, queued, change).await;
        Ok(Response::new(self.shown(tenant, trigger.map_err(of_store)?).await?))
    }

    async fn resume_trigger(
        &self,
        request: Request<proto::ResumeTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let name = name(&request.into_inner().name, "the trigger")?;
        self.may_see_trigger(&caller, &name).await?;
        let trigger = self.store.trigger_resume(tenant, &name, caller.change((self.now)())).await;
        Ok(Response::new(self.shown(tenant, trigger.map_err(of_store)?).await?))
    }

    async fn delete_trigger(
        &self,
        request: Request<proto::DeleteTriggerRequest>,
    ) -> Result<Response<proto::DeleteTriggerResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let name = name(&request.into_inner().name, "the trigger")?;
        let cancelled_runs =
            self.store.trigger_delete(tenant, &name, caller.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteTriggerResponse { cancelled_runs }))
    }

    async fn list_skips(
        &self,
        request: Request<proto::ListSkipsRequest>,
    ) -> Result<Response<proto::ListSkipsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.trigger, "the trigger")?;
        let page = page(request.page_size, request.page_token)?;
        self.may_see_trigger(&caller, &name).await?;
        let found = self.store.trigger_skips(caller.tenant, &name, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListSkipsResponse {
            skips: found.items.into_iter().map(from_skip).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }
}

pub(crate) type Calendars = BTreeMap<Name, Arc<HolidayDates>>;

impl Api {
    /// The dates of those of these calendars that there are; asks nothing for none.
    pub(crate) async fn holidays(
        &self,
        tenant: TenantId,
        names: BTreeSet<Name>,
    ) -> Result<Calendars, Status> {
        if names.is_empty() {
            return Ok(Calendars::new());
        }
        self.store.holidays_dates(tenant, names).await.map_err(of_store)
    }

    /// Triggers as people see them.
    async fn shown_all(
        &self,
        tenant: TenantId,
        triggers: Vec<Trigger>,
    ) -> Result<Vec<proto::Trigger>, Status> {
        let holidays = self.holidays(tenant, excluded(&triggers)).await?;
        let show = |trigger: Trigger| {
            let holidays = of_calendars(&holidays, &trigger.spec);
            from_trigger(trigger, &holidays)
        };
        Ok(triggers.into_iter().map(show).collect())
    }

    /// A trigger as people see it.
    async fn shown(&self, tenant: TenantId, trigger: Trigger) -> Result<proto::Trigger, Status> {
        let holidays = self.holidays(tenant, excluded(std::slice::from_ref(&trigger))).await?;
        let holidays = of_calendars(&holidays, &trigger.spec);
        Ok(from_trigger(trigger, &holidays))
    }
}

/// The calendars that triggers exclude which have a next time.
fn excluded(triggers: &[Trigger]) -> BTreeSet<Name> {
    let due = triggers.iter().filter(|trigger| trigger.next_at.is_some());
    due.flat_map(|trigger| trigger.spec.exclude.iter().cloned()).collect()
}

fn of_calendars(calendars: &Calendars, spec: &TriggerSpec) -> Holidays {
    Holidays::of(spec.exclude.iter().filter_map(|name| calendars.get(name).cloned()))
}

fn from_skip(skip: SkipRange) -> proto::Skip {
    proto::Skip {
        from: Some(from_instant(skip.from)),
        to: Some(from_instant(skip.to)),
        count: skip.count,
        reason: skip.reason.to_string(),
    }
}
